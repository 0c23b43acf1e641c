"""Matrices in training that are never drawn.

Optimizers that act linearly, entry by entry, move a matrix by few outer products: at
step t it is W_t = c_0 W_0 + Σ_s c_s g_s, with the gradients g_s = Σ p vᵀ of the steps
before, and numbers c that the optimizer makes. All that a step needs of W_0 are its
products with the vectors of a batch, and those with the transpose; given what W_0 met
before, they have a known law (``_tools/undrawn``). Vectors v and p are among those that
W_0 met, and kept as coordinates in these.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lognorm_jax import networks
from lognorm_jax._tools import norms, undrawn


class Moved(NamedTuple):
    """A matrix in training: W_0, and the gradients that it was moved along.

    With k vectors v a step, and room for r directions on the right and l on the left.
    """

    base: undrawn.Undrawn
    V: jax.Array  # (steps · k, r): v in directions of the right; zero from now on
    P: jax.Array  # (steps · k, l): p in directions of the left


class Told(NamedTuple):
    """What a matrix met in a step, on one side."""

    new: jax.Array  # (m, n), directions
    images: jax.Array  # (m, n'), of these
    coordinates: jax.Array  # (k, room), of the vectors that gradients are made of


def unmoved(one: networks.Map, k: int, ahead: int, num_steps: int) -> Moved:
    """Return a matrix that has not moved, with room for all that it will meet.

    Args:
        one: the linear map that it is of.
        k: how many vectors its gradient in a step is made of.
        ahead: how many vectors it is given on the way forward.
        num_steps: how many steps there will be.
    """
    make = undrawn.orthogonal if one.weights.orthogonal else undrawn.normal
    base = make(one.shape, one.std, (num_steps * ahead, num_steps * k))
    dtype = jnp.result_type(float)
    sides = len(base.right), len(lefts(base))
    return Moved(base, *(jnp.zeros((num_steps * k, room), dtype) for room in sides))


def of_layer(moved: list[Moved], time: jax.Array) -> list[Moved]:
    """Return the matrices of one layer, of those stacked over repetitions.

    Behind a barrier: else compilers for GPUs turn all layers round at each step, ahead
    of products that would have one layer turned, which takes the memory of all twice.
    """

    def taken(leaf):
        return lax.dynamic_index_in_dim(leaf, time, keepdims=False)

    return lax.optimization_barrier(jax.tree.map(taken, moved))


def lefts(base: undrawn.Undrawn) -> jax.Array:
    """Return the directions that a matrix met on the left, and room for more."""
    return undrawn.transposed(base).right


def turned(moved: Moved) -> Moved:
    """Return the transpose."""
    return Moved(undrawn.transposed(moved.base), moved.P, moved.V)


def product(
    moved: Moved, c: jax.Array, key: jax.Array, V: jax.Array
) -> tuple[undrawn.Met, jax.Array]:
    """Return what W_0 met in vectors V (m, n_in), and V W_tᵀ (m, n_out)."""
    found = undrawn.met(moved.base, key, V)
    image = undrawn.answered(moved.base, found)

    # c ⟨v, V⟩ of all vectors v of gradients, which lie in directions that were met;
    # over the sizes of V, as squares of large vectors overflow
    weights = jnp.repeat(c[1:], len(moved.V) // (len(c) - 1))
    known, sizes = undrawn.scaled(found.known)
    along = _matmul(known, (weights[:, None] * moved.V).T)
    steps = sizes[:, None] * _matmul(_matmul(along, moved.P), lefts(moved.base))
    return found, c[0] * image + steps[:, : image.shape[1]]


def beside(moved: Moved, found: undrawn.Met) -> Moved:
    """Return a matrix with what was found after all that there is room for."""
    base = undrawn.beside(moved.base, found)
    V, P = (
        jnp.pad(rows, ((0, 0), (0, len(side) - rows.shape[1])))
        for rows, side in ((moved.V, base.right), (moved.P, lefts(base)))
    )
    return Moved(base, V, P)


def told(
    found: dict[int, undrawn.Met], counts: dict[int, int], room: int, at: jax.Array
) -> Told:
    """Return what a matrix met in a step, in one use after another.

    Args:
        found: what it met in each use, by the use's number, in the order of asking:
            each beside those before it.
        counts: how many of the vectors, the first, gradients are made of.
        room: for how many directions.
        at: where those that are new are kept.
    """
    ahead = sum(len(one.new) for one in found.values())
    rows = []
    # in the order of uses, forward and back
    for use in sorted(found):
        known, L = found[use].known[: counts[use]], found[use].L[: counts[use]]
        own = jnp.concatenate([known[:, room:], L], axis=1)
        own = jnp.pad(own, ((0, 0), (0, ahead - own.shape[1])))
        rows.append(lax.dynamic_update_slice_in_dim(known[:, :room], own, at, 1))
    new, images = (
        jnp.concatenate([getattr(one, name) for one in found.values()])
        for name in ("new", "images")
    )
    return Told(new, images, jnp.concatenate(rows))


def places(moved: Moved, step: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Return where is kept what is met in a step, on the right and on the left.

    k: how many vectors a gradient is made of.
    """
    steps = moved.V.shape[-2] // k
    stride = moved.base.right.shape[-2] // steps
    if isinstance(moved.base, undrawn.Orthogonal):
        return step * stride, step * stride + (stride - k)
    return step * stride, step * k


def after(moved: Moved, told: Told, at: jax.Array, step: jax.Array) -> Moved:
    """Return matrices, stacked or not, after what they met on the right in a step.

    What is not finite is left out: it is of a seed that diverged, and would touch what
    is asked later.

    Args:
        moved: the matrices.
        told: what they met.
        at: where it is kept.
        step: the number of the step.
    """
    both = [
        jnp.all(jnp.isfinite(rows), axis=-1, keepdims=True)
        for rows in (told.new, told.images)
    ]
    finite = both[0] & both[1]
    right, images = (
        _placed(rows, jnp.where(finite, more, 0), at)
        for rows, more in (
            (moved.base.right, told.new),
            (moved.base.images, told.images),
        )
    )
    own = told.coordinates
    own = jnp.where(jnp.isfinite(own), own, 0)
    V = _placed(moved.V, own, step * own.shape[-2])
    base = dataclasses.replace(moved.base, right=right, images=images)
    return Moved(base, V, moved.P)


def _placed(rows: jax.Array, more: jax.Array, at: jax.Array) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(rows, more, at, rows.ndim - 2)


def log_square(V: jax.Array, P: jax.Array) -> jax.Array:
    """Return ln‖Σ p vᵀ‖² of rows of coordinates v and p.

    With V = L Q, Q orthonormal, it is that of Pᵀ L, on the scales of both.
    """
    size_v, V = norms.normalise(V)
    size_p, P = norms.normalise(P)
    L = undrawn.triangle(V)
    return norms.normalise(_matmul(L.T, P))[0] + size_v + size_p


class Sizes(NamedTuple):
    """What the norms of a matrix in training are made of."""

    square: jax.Array  # (), of W_0
    # the largest coordinates of v and p of each step, (steps, 2); of gradients over
    # these: ⟨g_s, g_t⟩ (steps, steps), and ⟨W_0, g_t⟩ (steps,)
    largest: jax.Array
    products: jax.Array
    along: jax.Array


def sizes(moved: Moved, num_steps: int, key: jax.Array) -> Sizes:
    """Return what norms are made of; that of W_0 is drawn, given all that it met."""
    base = moved.base
    V, P = (
        rows.reshape(num_steps, len(rows) // num_steps, rows.shape[1])
        for rows in (moved.V, moved.P)
    )
    largest = [jnp.max(jnp.abs(rows), axis=(1, 2)) for rows in (V, P)]

    # products of gradients over their sizes, which neither over- nor underflow
    inverse = [
        jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0) for size in largest
    ]
    v, p = (
        (rows * each[:, None, None]).reshape(-1, rows.shape[2])
        for rows, each in zip((V, P), inverse, strict=True)
    )
    inside = _matmul(v, v.T) * _matmul(p, p.T)
    k = len(v) // num_steps
    products = inside.reshape(num_steps, k, num_steps, k).sum((1, 3))

    # ⟨W_0, p vᵀ⟩ = ⟨W_0 v, p⟩
    answers = _matmul(_matmul(v, base.images), lefts(base).T)
    if isinstance(base, undrawn.Orthogonal):
        answers = base.scale * answers
    along = jnp.sum((answers * p).reshape(num_steps, -1), axis=1)
    return Sizes(_square(base, key), jnp.stack(largest, axis=1), products, along)


def log_square_of(sizes: Sizes, c: jax.Array) -> jax.Array:
    """Return ln‖c_0 W_0 + Σ c_s g_s‖²."""
    rest = c[1:] * sizes.largest[:, 0] * sizes.largest[:, 1]
    rest = jnp.where(c[1:] != 0, rest, 0)
    first = c[0] * jnp.sqrt(sizes.square)
    unit = sizes.square**-0.5

    # over the largest of them: squares of large numbers overflow
    largest = jnp.maximum(jnp.abs(first), jnp.max(jnp.abs(rest)))
    largest = jnp.where(largest > 0, largest, 1)
    first, rest = first / largest, rest / largest
    quadratic = jnp.vdot(rest, _matmul(sizes.products, rest[:, None])[:, 0])
    cross = 2 * first * unit * jnp.vdot(rest, sizes.along)
    total = first**2 + cross + quadratic
    positive = total > 0
    logs = jnp.log(jnp.where(positive, total, 1)) + 2 * jnp.log(largest)
    return jnp.where(positive, logs, -jnp.inf)


def _square(base: undrawn.Undrawn, key: jax.Array) -> jax.Array:
    """Return ‖W_0‖², in law given what W_0 has met."""
    n_out, n_in = base.shape
    if isinstance(base, undrawn.Orthogonal):
        return jnp.asarray(base.scale**2 * min(n_out, n_in), base.right.dtype)
    # W Q, then what is left of Pᵀ W beside it, then what nothing has met; rows that are
    # zero are no directions, and their images say nothing
    right, left = (jnp.any(rows != 0, axis=1) for rows in (base.right, base.left))
    shown = jnp.sum(jnp.where(right[:, None], base.images, 0) ** 2)
    inside = _matmul(_matmul(base.pulled, base.right.T), base.right)
    shown = shown + jnp.sum(jnp.where(left[:, None], base.pulled - inside, 0) ** 2)
    free = (n_in - jnp.sum(right)) * (n_out - jnp.sum(left))
    free = free.astype(shown.dtype)
    chi = 2 * jax.random.gamma(key, jnp.maximum(free, 1) / 2, dtype=shown.dtype)
    return shown + base.std**2 * jnp.where(free > 0, chi, 0)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
