"""Log-norm increments through any list of layer callables, by automatic
differentiation.

The Jacobian of a network is never formed: a tangent is pushed through one layer at a
time and renormalised after each, so that products of any depth neither overflow nor
vanish.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lognorm_jax._tools import checks, norms, tangents
from lognorm_jax.probing import _initialisations, _shapes


def jvp_increments(
    layers: Sequence[Callable[[jax.Array], jax.Array]], x: Any, tangent: Any
) -> jax.Array:  # (depth,)
    """Return ln R_i = ln(‖J_i … J_1 t‖²/‖J_{i−1} … J_1 t‖²) for each layer, at the
    input x.

    layers: callables x -> x from any framework, applied in turn, each pure and
    differentiable. x, tangent: arrays of one shape, finite, the tangent not zero; its
    length does not matter.

    −inf from the first layer that kills the tangent on; NaN from the first whose output
    is not finite. Costs one jvp of the network, in the floating type of x (increments
    at least float32). The activations are the network's own: where they underflow to 0,
    a ReLU is off and the path dead. Raises ``ValueError``, naming the layer, if a layer
    cannot take the output of the one before.

    >>> increments = jvp_increments([lambda x: 2 * x, jnp.sin], jnp.zeros(3), jnp.ones(3))
    >>> [round(float(value), 6) for value in increments]  # ln 4, ln 1
    [1.386294, 0.0]
    """
    layers, x, _ = started(layers, x)
    return jvp(layers, _shapes.labels(layers), x, unit("tangent", tangent, x))


def vjp_increments(
    layers: Sequence[Callable[[jax.Array], jax.Array]], x: Any, cotangent: Any
) -> jax.Array:  # (depth,)
    """Return ln(‖J_iᵀ … J_dᵀ c‖²/‖J_{i+1}ᵀ … J_dᵀ c‖²) for each layer i: what
    backpropagation does.

    layers, x: as for ``jvp_increments``. cotangent: of the shape of the output, finite,
    not zero.

    In the order of the layers, so that their sum is ln ‖Jᵀc‖²/‖c‖²; −inf from the layer
    that kills the cotangent back to the first; NaN where the output is not finite.
    Costs one vjp of the network. Raises as ``jvp_increments``.
    """
    layers, x, reached = started(layers, x)
    return vjp(layers, _shapes.labels(layers), x, unit("cotangent", cotangent, reached))


def activation_increments(
    layers: Sequence[Callable[[jax.Array], jax.Array]], x: Any
) -> jax.Array:  # (depth,)
    """Return ln(‖x_i‖²/‖x_{i−1}‖²) for each layer, of the activations themselves; x_0 =
    x.

    layers, x: as for ``jvp_increments``, and x not zero. −inf from the layer whose
    output is zero on. Raises as ``jvp_increments``.
    """
    layers, x, _ = started(layers, x)
    return activations(layers, _shapes.labels(layers), checks.vector("x", x, None))


def jvp(
    layers: Sequence[Callable], labels: Sequence[str], x: jax.Array, tangent: jax.Array
) -> jax.Array:
    """Return the increments of a unit tangent, naming the layer that has no
    derivative.
    """
    increments = []
    for layer, label in zip(layers, labels, strict=True):
        with _shapes.naming(label):
            x, tangent, increment = tangents.jvp_step(layer, x, tangent)
        increments.append(increment)
    return norms.lasting(jnp.stack(increments))


def vjp(
    layers: Sequence[Callable],
    labels: Sequence[str],
    x: jax.Array,
    cotangent: jax.Array,
) -> jax.Array:
    """Return the increments of a unit cotangent, naming the layer that has no
    derivative.
    """
    pulls = []
    for layer, label in zip(layers, labels, strict=True):
        with _shapes.naming(label):
            x, pull = jax.vjp(layer, x)
        pulls.append((pull, x, label))
    increments = []
    for pull, output, label in reversed(pulls):
        with _shapes.naming(label):
            increment, unit = norms.normalise(pull(cotangent)[0])
        increments.append(tangents.told(increment, cotangent, output))
        cotangent = unit
    return jnp.stack(increments[::-1])


def activations(
    layers: Sequence[Callable],
    labels: Sequence[str],
    x: jax.Array,
    direction: None = None,
) -> jax.Array:
    """Return the increments of the activations; they have no direction."""
    sizes = [norms.normalise(x)[0]]
    for layer, label in zip(layers, labels, strict=True):
        with _shapes.naming(label):
            x = layer(x)
        sizes.append(
            jnp.where(jnp.isneginf(sizes[-1]), -jnp.inf, norms.normalise(x)[0])
        )
    before, after = jnp.stack(sizes[:-1]), jnp.stack(sizes[1:])
    dead = jnp.isneginf(after)
    return jnp.where(dead, -jnp.inf, after - jnp.where(dead, 0, before))


def unit(name: str, value: Any, like: Any) -> jax.Array:
    """Return a vector of the shape and type of another, checked and divided by its
    norm.
    """
    return jnp.asarray(norms.unit(checks.vector(name, value, like.shape))).astype(
        like.dtype
    )


def started(
    layers: Any, x: Any
) -> tuple[list[Callable], jax.Array, jax.ShapeDtypeStruct]:
    """Return the layers as a list, x as an array, and the shape that it reaches."""
    checks.require(
        isinstance(layers, Iterable), "layers", layers, "a sequence of callables x -> x"
    )
    x = checks.vector("x", x, None, zero=True)
    x = checks.vector("x", jnp.asarray(x, checks.float_dtype(x)), None, zero=True)
    layers, reached = _initialisations.followed(layers, x)
    return layers, x, reached
