"""One layer of a network with normal weights, applied in law: W V is normal, and needs no W.

The columns of W V, for vectors V that reach the layer, are normal with the Gram matrix of V:
with V = L Q, Q orthonormal, W V has the law of L ξ, ξ independent standard normal vectors.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import bits, layers


def step(
    matrix: layers.Matrix, key: jax.Array, X: jax.Array, T: jax.Array | None, owner: np.ndarray
) -> tuple[jax.Array, jax.Array | None]:
    """Return the images of inputs X (m, n) and of tangents T (t, n) at X[owner], in law.

    T may be None. The first m rows of ξ belong to the inputs, whatever tangents there are.
    """
    key_weight, key_bias, key_fixed = matrix.keys(key)
    fixed = matrix.fixed(key_fixed) if matrix.fixed else None
    before = jax.vmap(lambda x: matrix.before(fixed, x))
    after = jax.vmap(lambda x, h: matrix.after(fixed, x, h))
    V = before(X)
    if T is not None:
        V = jnp.concatenate([V, _jvp(before, (X[owner],), (T,))])
    shape = len(V), matrix.shape[0]
    xi = matrix.std * bits.in_eights(jax.random.normal, key_weight, shape, X.dtype)
    rows = _mix(triangle(V), xi)
    inputs, images = jnp.stack(rows[: len(X)]), rows[len(X) :]
    if matrix.bias_scale:
        inputs = inputs + matrix.biases(key_bias)[None]
    if T is not None:
        T = _jvp(after, (X[owner], inputs[owner]), (T, jnp.stack(images)))
    return after(X, inputs), T


def triangle(V: jax.Array) -> list[list[jax.Array]]:
    """Return L of V = L Q, Q with orthonormal rows: row i has i + 1 entries.

    By Gram and Schmidt, from the vectors themselves: from their Gram matrix nearly parallel ones,
    such as x and J x, would lose their difference.
    """
    largest = jnp.max(jnp.abs(V), axis=1)  # squares of smaller ones would underflow
    scale = jnp.where(largest > 0, largest, 1)
    basis, rows = [], []
    for v, size in zip(V / scale[:, None], scale, strict=True):
        row = []
        for unit in basis:
            row.append(jnp.sum(unit * v))
            v = v - row[-1] * unit
        norm = jnp.sqrt(jnp.sum(v * v))
        basis.append(v / jnp.where(norm > 0, norm, 1))
        rows.append([entry * size for entry in (*row, norm)])
    return rows


def _mix(rows: list[list[jax.Array]], xi: jax.Array) -> list[jax.Array]:
    return [sum(entry * column for entry, column in zip(row, xi, strict=False)) for row in rows]


def _jvp(function: Callable, primals: Any, tangents: Any) -> jax.Array:
    return jax.jvp(function, primals, tangents)[1]
