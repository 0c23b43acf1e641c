"""One layer of a network with normal weights, applied in law: W V is normal, and needs
no W.

The columns of W V, for vectors V that reach the layer, are normal with the Gram matrix
of V: with V = L Q, Q orthonormal, W V has the law of L ξ, ξ independent standard normal
vectors.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks, weights
from lognorm_jax._tools import checks, draws, norms


def require(network: networks.Network) -> None:
    """Raise ``ValueError`` for a network that has layers not made of one normal
    matrix.
    """
    checks.instance("network", network, networks.Network)
    for i, kind in enumerate(network.kinds):
        usable = kind.matrix is not None and kind.matrix.weights is weights.normal()
        instead = "Take networks.jacobian_path, which draws all weights."
        allowed = "a layer with one matrix of normal weights"
        where = f"{network.name}, layer {i}"
        checks.require(usable, "network", where, allowed, instead)
        # the size of one more coordinate
        ratio = kind.matrix.bias_scale / kind.matrix.std
        allowed = "one whose biases are at most 1e30 of its weights"
        small = checks.traced(ratio) or ratio <= 1e30
        checks.require(small, "network", where, allowed, instead)


def vectors(
    size: int, x: Any, tangent: Any
) -> tuple[jax.Array, jax.Array | None, np.ndarray]:
    """Return inputs (m, size), unit tangents (t, size) or None, and which input each
    belongs to.

    x: (size,) or (m, size), m ≥ 1. tangent: None, (size,), with several x (m, size),
    else (t, size), t ≥ 1.
    """
    x = checks.vector("x", x, None, zero=True)
    many_x = np.ndim(x) == 2
    rows = np.shape(x) == (*np.shape(x)[:many_x], size) and np.size(x) > 0
    checks.require(
        rows, "x.shape", np.shape(x), f"({size},) or (number of inputs, {size})"
    )
    X = jnp.atleast_2d(jnp.asarray(x, jnp.result_type(float)))
    checks.vector("x", X, None, zero=True)  # in the type that it is used in
    if tangent is None:
        return X, None, np.zeros(0, int)
    tangent = checks.vector("tangent", tangent, None)
    many_t = np.ndim(tangent) == 2
    count = len(X) if many_x else len(tangent) if many_t else 1
    shape = (count, size) if many_x or many_t else (size,)
    checks.require(
        np.shape(tangent) == shape, "tangent.shape", np.shape(tangent), f"{shape}"
    )
    each = tangent if many_t else [tangent]
    T = [
        jnp.asarray(norms.unit(checks.vector("tangent", row, (size,)))) for row in each
    ]
    return (
        X,
        jnp.stack(T).astype(X.dtype),
        np.arange(count) if many_x else np.zeros(count, int),
    )


def step(
    matrix: networks.Matrix,
    key: jax.Array,
    X: jax.Array,
    T: jax.Array | None,
    owner: np.ndarray,
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """Return the images of inputs X (m, n) and of tangents T (t, n) at X[owner], in
    law.

    And whether the inputs are finite, (m,): a ReLU may take NaN for off. T may be None.
    The first m rows of ξ belong to the inputs, whatever tangents there are.
    """
    key_weight, _, key_fixed = matrix.keys(key)
    fixed = matrix.fixed(key_fixed) if matrix.fixed else None
    extra = int(matrix.has_biases)
    before = jax.vmap(lambda x: matrix.before(fixed, x))
    after = jax.vmap(lambda x, h: matrix.after(fixed, x, h))
    V = before(X)
    # a bias is the weight of one more coordinate, which tangents do not have
    size = jnp.asarray(matrix.bias_scale / matrix.std, V.dtype)
    V = jnp.concatenate([V, jnp.broadcast_to(size, (len(V), extra))], axis=1)
    if T is not None:
        images = _jvp(before, (X[owner],), (T,))
        V = jnp.concatenate([V, jnp.pad(images, ((0, 0), (0, extra)))])
    shape = len(V), matrix.shape[0]
    xi = matrix.std * draws.in_eights(jax.random.normal, key_weight, shape, X.dtype)
    rows = jnp.matmul(triangle(V), xi, precision="highest")
    inputs, images = rows[: len(X)], rows[len(X) :]
    if T is not None:
        T = _jvp(after, (X[owner], inputs[owner]), (T, images))
    X = after(X, inputs)
    return X, T, jnp.all(jnp.isfinite(inputs) & jnp.isfinite(X), axis=1)


def triangle(V: jax.Array) -> jax.Array:
    """Return L of V = L Q, Q with orthonormal rows: lower triangular.

    By Gram and Schmidt, from the vectors themselves: from their Gram matrix nearly
    parallel ones, such as x and J x, would lose their difference.
    """
    largest = jnp.max(jnp.abs(V), axis=1)  # squares of smaller ones would underflow
    scale = jnp.where(largest > 0, norms.scale_of(largest), 1)
    basis, rows = [], []
    for v, size in zip(V / scale[:, None], scale, strict=True):
        row = []
        for unit in basis:
            row.append(jnp.sum(unit * v))
            v = v - row[-1] * unit
        square = jnp.sum(v * v)
        safe = jnp.where(square > 0, square, 1)  # the root has no derivative at 0
        norm = jnp.where(square > 0, jnp.sqrt(safe), 0)
        basis.append(v / jnp.where(norm > 0, norm, 1))
        zeros = [jnp.zeros_like(norm)] * (len(V) - len(row) - 1)
        rows.append(size * jnp.stack([*row, norm, *zeros]))
    return jnp.stack(rows)


def _jvp(function: Callable, primals: Any, tangents: Any) -> jax.Array:
    return jax.jvp(function, primals, tangents)[1]
