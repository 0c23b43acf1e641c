"""Layers in training, followed forward and back with matrices that are never drawn.

A layer is x ↦ after(x, W before(x) + b). What it makes of x but for W is known, with
its derivatives; what W answers is that of ``_moved``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import norms, random
from lognorm_jax.training import _moved

# the numbers of what is trained of a layer, what else is drawn, and its matrix
Row = tuple[Any, Any, _moved.Moved]


class Ahead(NamedTuple):
    """What a layer met on the way forward, of the inputs of a batch."""

    moved: _moved.Moved  # its matrix after it
    increment: jax.Array  # (), of the tangent
    x: jax.Array  # (b, *shape)
    z: jax.Array  # (b, *rows, n_out)
    v: jax.Array  # (k, n_in), what W was given
    image: jax.Array  # (k, n_out), W_0 v


class Back(NamedTuple):
    """What is found of a layer on the way back."""

    moved: _moved.Moved  # its matrix after it, with the gradient of the step
    bias: jax.Array  # (n_out,), its gradient
    log_gradient: jax.Array  # (), of the weights


def rows_of(kind: networks.Layer, shape: tuple[int, ...]) -> int:
    """Return how many vectors the matrix of a layer is given, of one input."""

    def entered(x):
        return _around(kind, kind.drawn_fixed(jax.random.key(0)))[0](x)

    x = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
    return int(np.prod(jax.eval_shape(entered, x).shape[:-1], dtype=np.int64))


def keys(
    kind: networks.Layer, key: jax.Array, number: jax.Array, step: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the keys of the products of a layer in a step, forward and back."""
    (pair,), _ = kind.keys(key, number)
    of_step = random.fold_in(pair[0], step)
    return random.fold_in(of_step, 0), random.fold_in(of_step, 1)


def _around(kind: networks.Layer, fixed: Any) -> tuple[Callable, Callable]:
    """Return x -> what W is given, and (x, z) -> what comes out."""
    matrix = kind.matrix
    assert matrix is not None
    before, after = matrix.before, matrix.after
    return (lambda x: before(fixed, x)), (lambda x, z: after(fixed, x, z))


def ahead(
    kind: networks.Layer,
    key: jax.Array,
    carry: tuple[jax.Array, jax.Array],
    row: Row,
) -> tuple[tuple[jax.Array, jax.Array], Ahead]:
    """Return what a layer makes of inputs (b + 1, …), the last of them the probe, and
    of a unit tangent at the probe; and what it met.
    """
    X, T = carry
    trained, fixed, moved = row
    before, after = _around(kind, fixed)

    # what the matrix is given, and answers
    V = jax.vmap(before)(X)
    _, along = jax.jvp(before, (X[-1],), (T,))
    n_in = V.shape[-1]
    split = V.size // n_in
    given = jnp.concatenate([V.reshape(-1, n_in), along.reshape(-1, n_in)])
    moved, answers, images = _moved.product(moved, trained["weight"], key, given)

    # what comes out
    Z = answers[:split].reshape(*V.shape[:-1], -1)
    Z = Z + jnp.broadcast_to(trained["bias"], Z.shape)
    dz = answers[split:].reshape(Z.shape[1:])
    out = jax.vmap(after)(X, Z)
    _, pushed = jax.jvp(after, (X[-1], Z[-1]), (T, dz))
    increment, T = norms.normalise(pushed)
    increment = jnp.where(jnp.all(jnp.isfinite(out[-1])), increment, jnp.nan)

    k = split - split // len(X)
    met = Ahead(moved, increment, X[:-1], Z[:-1], given[:k], images[:k])
    return (out, T), met


def back(
    kind: networks.Layer,
    key: jax.Array,
    step: jax.Array,
    D: jax.Array,
    row: tuple[Any, Any],
    met: Ahead,
) -> tuple[jax.Array, Back]:
    """Return cotangents of what entered a layer, of those D (b, …) of what came out;
    and what is found of it.
    """
    trained, fixed = row
    before, after = _around(kind, fixed)

    def pull_after(x, z, d):
        return jax.vjp(after, x, z)[1](d)

    def pull_before(x, d):
        v, pull = jax.vjp(before, x)
        return pull(d.reshape(v.shape))[0]

    D, dz = jax.vmap(pull_after)(met.x, met.z, D)
    P = dz.reshape(len(met.v), -1)
    turned = _moved.turned(met.moved)
    turned, answers, _ = _moved.product(turned, trained["weight"], key, P)
    D = D + jax.vmap(pull_before)(met.x, answers.reshape(len(met.x), -1))

    moved = _moved.turned(turned)
    moved = _moved.with_gradient(moved, step, met.v, met.image, P)
    return D, Back(moved, jnp.sum(P, axis=0), _moved.log_square(met.v, P))


def outputs(kind: networks.Layer, key: jax.Array, X: jax.Array, row: Row) -> jax.Array:
    """Return what a layer makes of inputs (m, …)."""
    trained, fixed, moved = row
    before, after = _around(kind, fixed)
    V = jax.vmap(before)(X)
    given = V.reshape(-1, V.shape[-1])
    _, answers, _ = _moved.product(moved, trained["weight"], key, given)
    Z = answers.reshape(*V.shape[:-1], -1)
    return jax.vmap(after)(X, Z + jnp.broadcast_to(trained["bias"], Z.shape))
