"""One layer of a network with normal weights, applied in law: W V is normal, and needs
no W.

The columns of W V, for vectors V that reach the layer, are normal with the Gram matrix
of V: with V = L Q, Q orthonormal, W V has the law of L ξ, ξ independent standard normal
vectors.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import checks, norms, random


def require(network: networks.Network) -> None:
    """Require a network of layers with one normal matrix each.

    Raises:
        ValueError: for others, naming the layer.
    """
    checks.instance("network", network, networks.Network)
    for kind, places in zip(
        dict.fromkeys(network.kinds), network.places(), strict=True
    ):
        where = f"{network.name}, layer {places[0]}"
        matrix = kind.matrix
        normal = matrix is not None and matrix.weights.gaussian
        allowed = "a layer with one matrix of normal weights"
        instead = "Take networks.jacobian_path, which draws all weights."
        checks.require(normal, "network", where, allowed, instead)
        assert matrix is not None
        # the size of one more coordinate
        ratio = 0 if matrix.bias_scale is None else matrix.bias_scale / matrix.std
        small = checks.traced(ratio) or ratio <= 1e30
        allowed = "one whose biases are at most 1e30 of its weights"
        checks.require(bool(small), "network", where, allowed)


def vectors(
    size: int, x: jax.typing.ArrayLike, tangent: jax.typing.ArrayLike | None
) -> tuple[Any, Any, np.ndarray]:
    """Return inputs, unit tangents, and which input each tangent belongs to.

    Args:
        size: of one vector.
        x: (size,) or (m, size), m ≥ 1.
        tangent: None, (size,), with several x (m, size), else (t, size), t ≥ 1.

    Returns:
        Inputs (m, size), tangents (t, size) or None, and owners (t,).
    """
    X = _inputs(size, x)
    if tangent is None:
        return X, None, np.zeros(0, int)

    # one for each input, or any number at the only one
    directions = checks.vector("tangent", tangent, None)
    given = np.shape(directions)
    if np.ndim(x) == 2:
        wanted = X.shape
        owner = np.arange(len(X))
    else:
        wanted = (given[0], size) if len(given) == 2 else (size,)
        owner = np.zeros(math.prod(wanted) // size, int)
    checks.require(given == wanted, "tangent.shape", given, f"{wanted}")

    units = [_unit(row, size) for row in directions.reshape(-1, size)]
    # on the host where they are known: nothing to compile
    stack: Any = jnp.stack if any(map(checks.traced, units)) else np.stack
    return X, stack(units).astype(X.dtype), owner


def _inputs(size: int, x: jax.typing.ArrayLike) -> Any:
    """Return one input or several as (m, size), in the type they are used in."""
    x = checks.vector("x", x, None, zero=True)
    shape = np.shape(x)
    fits = shape == (size,) or (len(shape) == 2 and shape[0] > 0 and shape[1] == size)
    checks.require(fits, "x.shape", shape, f"({size},) or (number of inputs, {size})")
    # on the host where they are known: nothing to compile
    dtype = jnp.result_type(float)
    if checks.traced(x):
        return jnp.atleast_2d(jnp.asarray(x, dtype))
    with np.errstate(over="ignore"):
        X = np.asarray(x).astype(dtype)
    checks.vector("x", X, None, zero=True)
    return np.atleast_2d(X)


def _unit(tangent: jax.typing.ArrayLike, size: int) -> Any:
    return norms.unit(checks.vector("tangent", tangent, (size,)))


def step(
    matrix: networks.Matrix | None,
    key: jax.Array,
    layer: jax.Array,
    X: jax.Array,
    T: jax.Array | None,
    owner: np.ndarray,
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """Return the images of inputs X (m, n) and tangents T (t, n) at X[owner], in law.

    And whether the inputs are finite, (m,): a ReLU may take NaN for off. T may be None.
    The first m rows of ξ belong to the inputs, whatever tangents there are.
    """
    assert matrix is not None
    key_weight, _, key_fixed = matrix.keys(key, layer)
    fixed = matrix.drawn_fixed(key_fixed)
    before = jax.vmap(lambda x: matrix.before(fixed, x))
    after = jax.vmap(lambda x, h: matrix.after(fixed, x, h))

    # what the matrix multiplies; a bias is the weight of one more coordinate, which
    # tangents do not have
    V = before(X)
    # their products with each other would hide it
    fits = V.shape[1] == matrix.shape[1]
    checks.require(fits, "inputs", V.shape, f"(m, {matrix.shape[1]})")
    extra = 0
    if matrix.bias_scale is not None:
        extra = 1
        size = jnp.asarray(matrix.bias_scale / matrix.std, V.dtype)
        V = jnp.concatenate([V, jnp.broadcast_to(size, (len(V), 1))], axis=1)
    if T is not None:
        images = _jvp(before, (X[owner],), (T,))
        V = jnp.concatenate([V, jnp.pad(images, ((0, 0), (0, extra)))])

    # W V in law
    shape = len(V), matrix.shape[0]
    xi = matrix.std * random.normal(key_weight, shape, X.dtype)
    rows = jnp.matmul(triangle(V), xi, precision="highest")
    inputs, images = rows[: len(X)], rows[len(X) :]

    # what the layer makes of it
    if T is not None:
        T = _jvp(after, (X[owner], inputs[owner]), (T, images))
    X = after(X, inputs)
    return X, T, jnp.all(jnp.isfinite(inputs) & jnp.isfinite(X), axis=1)


def quartics(X: jax.Array, T: jax.Array | None) -> jax.Array:
    """Return κ of the vectors that are followed: the tangents, or without any the
    inputs.
    """
    return jax.vmap(norms.quartic)(norms.normalise_rows(X if T is None else T)[1])


def measured(
    X: jax.Array,
    log_size: jax.Array,
    T: jax.Array | None,
    finite: jax.Array,
    owner: np.ndarray,
    homogeneous: bool,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array | None], jax.Array]:
    """Return (inputs, their log squared norms, tangents) to go on with, and what a
    layer did to the norms of the tangents, or of the inputs; NaN where not finite.
    """
    X, log_size, increment = _growth(X, log_size, homogeneous)
    if T is not None:
        increment, T = norms.normalise_rows(T)
        finite = finite[owner]
    return (X, log_size, T), jnp.where(finite, increment, jnp.nan)


def _growth(
    X: jax.Array, log_size: jax.Array, homogeneous: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return inputs (m, n) to go on with, their log squared norms, and the growth."""
    log_next, unit = norms.normalise_rows(X)
    if homogeneous:
        return unit, log_next, log_next
    # −inf less −inf is not wanted
    dead = jnp.isneginf(log_next) | jnp.isneginf(log_size)
    growth = log_next - jnp.where(dead, 0, log_size)
    return X, jnp.where(dead, -jnp.inf, log_next), jnp.where(dead, -jnp.inf, growth)


def triangle(V: jax.Array) -> jax.Array:
    """Return L of V = L Q, Q with orthonormal rows: lower triangular.

    By Gram and Schmidt, from the vectors themselves: from their Gram matrix nearly
    parallel ones, such as x and J x, would lose their difference.
    """
    largest = jnp.max(jnp.abs(V), axis=1)  # squares of smaller ones would underflow
    scale = jnp.where(largest > 0, norms.scale_of(largest), 1)
    basis: list[jax.Array] = []
    rows = []
    for v, size in zip(V / scale[:, None], scale, strict=True):
        row = []
        for unit in basis:
            row.append(jnp.sum(unit * v))
            v = v - row[-1] * unit

        # its own coordinate
        square = jnp.sum(v * v)
        safe = jnp.where(square > 0, square, 1)  # the root has no derivative at 0
        norm = jnp.where(square > 0, jnp.sqrt(safe), 0)
        basis.append(v / jnp.where(norm > 0, norm, 1))
        zeros = [jnp.zeros_like(norm)] * (len(V) - len(row) - 1)
        rows.append(size * jnp.stack([*row, norm, *zeros]))
    return jnp.stack(rows)


def _jvp(function: Callable, primals: tuple, tangents: tuple) -> jax.Array:
    return jax.jvp(function, primals, tangents)[1]
