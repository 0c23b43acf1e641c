"""Log-norm increments through any list of layers, by automatic differentiation.

The Jacobian of a network is never formed: a tangent is pushed through one layer at a
time and renormalised after each, so that products of any depth neither overflow nor
vanish.
"""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lognorm_jax._tools import checks, norms, tangents
from lognorm_jax.probing import _initialisations, _layers, _runs
from lognorm_jax.probing._layers import Layer


def jvp_increments(
    layers: Iterable[Layer], x: ArrayLike, tangent: ArrayLike
) -> jax.Array:  # (depth,)
    """Return ln R_i of each layer for a tangent, by forward-mode differentiation.

    ln R_i = ln(‖J_i … J_1 t‖²/‖J_{i−1} … J_1 t‖²), with J_i the Jacobian of layer i at
    the input x. Costs one jvp of the network, in the floating type of x (increments at
    least float32).

    Args:
        layers: callables x -> x from any framework, applied in turn, each pure and
            differentiable, at least one.
        x: an input, finite.
        tangent: of the shape of x, finite, not zero; its length does not matter.

    Returns:
        The increments, (depth,), float32 or float64: −inf from the first layer that
        kills the tangent on; NaN from the first whose output is not finite. The
        activations are the network's own: where they underflow to 0, a ReLU is off and
        the path dead.

    Raises:
        ValueError: for vectors that are not finite or of another shape; and, naming the
            layer, if one is no callable of JAX arrays, cannot take the output of the
            one before, or cannot be differentiated.

    Source:
        The definition of R_i in theory section 0; held against matrices in
        tests/test_probes.py.

    >>> layers = [lambda x: 2 * x, jnp.sin]
    >>> increments = jvp_increments(layers, jnp.zeros(3), jnp.ones(3))
    >>> [round(float(value), 6) for value in increments]  # ln 4, ln 1
    [1.386294, 0.0]
    """
    runs, start, _ = _start(layers, x)
    return jvp(runs, start, unit("tangent", tangent, start))


def vjp_increments(
    layers: Iterable[Layer], x: ArrayLike, cotangent: ArrayLike
) -> jax.Array:  # (depth,)
    """Return ln R_i of each layer for a cotangent, as backpropagation changes it.

    ln R_i = ln(‖J_iᵀ … J_dᵀ c‖²/‖J_{i+1}ᵀ … J_dᵀ c‖²). Costs one vjp of the network.

    Args:
        layers: as for ``jvp_increments``.
        x: an input, finite.
        cotangent: of the shape of the output, finite, not zero; its length does not
            matter.

    Returns:
        The increments, (depth,), float32 or float64, in the order of the layers, so
        that their sum is ln ‖Jᵀc‖²/‖c‖²; −inf from the layer that kills the cotangent
        back to the first; NaN where the output is not finite.

    Raises:
        ValueError: as ``jvp_increments``.

    Source:
        The definition of R_i in theory section 0, of the transposed matrices; held
        against them in tests/test_probes.py.
    """
    runs, start, output = _start(layers, x)
    return vjp(runs, start, unit("cotangent", cotangent, output))


def activation_increments(
    layers: Iterable[Layer], x: ArrayLike
) -> jax.Array:  # (depth,)
    """Return ln(‖x_i‖²/‖x_{i−1}‖²) of each layer, of the activations; x_0 = x.

    Args:
        layers: as for ``jvp_increments``.
        x: an input, finite, not zero.

    Returns:
        The increments, (depth,), float32 or float64: −inf from the layer whose output
        is zero on.

    Raises:
        ValueError: as ``jvp_increments``.

    Source:
        The definition of R_i in theory section 0; held against plain NumPy in
        tests/test_probes.py.
    """
    runs, start, _ = _start(layers, x)
    return activations(runs, checks.vector("x", start, None))


def _start(
    layers: Iterable[Layer], x: ArrayLike
) -> tuple[list[_runs.Run], jax.Array, jax.ShapeDtypeStruct]:
    """Return the layers as a run, x as an array, and the shape that it reaches."""
    checked = checks.vector("x", x, None, zero=True)
    # also finite in the type that it is computed with
    start = jnp.asarray(checked, checks.float_dtype(checked))
    checks.vector("x", start, None, zero=True)
    followed, output = _initialisations.followed(layers, start)
    return _runs.single(_layers.labelled(followed)), start, output


def unit(
    name: str, value: ArrayLike, like: jax.Array | jax.ShapeDtypeStruct
) -> jax.Array:
    """Return a vector of the shape and type of another, of norm 1."""
    vector = checks.vector(name, value, like.shape)
    return jnp.asarray(norms.unit(vector)).astype(like.dtype)


def jvp(runs: Sequence[_runs.Run], x: jax.Array, tangent: jax.Array) -> jax.Array:
    """Return the increments of a unit tangent; errors name the layer by its label."""

    def push(carry, layers, _):
        x, tangent = carry
        increments = []
        for label, layer in layers:
            with _layers.naming(label):
                x, tangent, increment = tangents.jvp_step(layer, x, tangent)
            increments.append(increment)
        return (x, tangent), jnp.stack(increments)

    carry = x, tangent
    parts = []
    for run in runs:
        carry, increments = run.scan(push, carry)
        parts.append(increments.reshape(-1))
    return norms.lasting(jnp.concatenate(parts))


def vjp(runs: Sequence[_runs.Run], x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """Return the increments of a unit cotangent; errors name the layer by its label."""

    def follow(x, layers, _):
        pulls = []
        for label, layer in layers:
            with _layers.naming(label):
                x, pull = jax.vjp(layer, x)
            pulls.append((pull, x))
        return x, pulls

    def back(cotangent, layers, pulls):
        increments = []
        for (label, _), (pull, output) in zip(layers[::-1], pulls[::-1], strict=True):
            with _layers.naming(label):
                increment, pulled = norms.normalise(pull(cotangent)[0])
            increments.append(tangents.told(increment, cotangent, output))
            cotangent = pulled
        return cotangent, jnp.stack(increments[::-1])

    # forward, keeping how to come back
    ways = []
    for run in runs:
        x, pulls = run.scan(follow, x)
        ways.append((run, pulls))

    # and backwards, renormalised
    parts = []
    for run, pulls in ways[::-1]:
        cotangent, increments = run.scan(back, cotangent, pulls, reverse=True)
        parts.append(increments.reshape(-1))
    return jnp.concatenate(parts[::-1])


def activations(runs: Sequence[_runs.Run], x: jax.Array) -> jax.Array:
    """Return the increments of the activations; errors name the layer by its label."""

    def follow(x, layers, _):
        sizes = []
        for label, layer in layers:
            with _layers.naming(label):
                x = layer(x)
            sizes.append(norms.normalise(x)[0])
        return x, jnp.stack(sizes)

    parts = [norms.normalise(x)[0][None]]
    for run in runs:
        x, sizes = run.scan(follow, x)
        parts.append(sizes.reshape(-1))

    log_squares = jnp.concatenate(parts)
    # once zero, what a layer adds does not bring the input back
    dead = jnp.cumsum(jnp.isneginf(log_squares)) > 0
    increments = jnp.diff(jnp.where(dead, 0, log_squares))
    return jnp.where(dead[1:], -jnp.inf, increments)
