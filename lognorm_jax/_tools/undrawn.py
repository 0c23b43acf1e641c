"""Random matrices that are never drawn: known only by the vectors that they have met.

A network meets a matrix of weights only through products with a few vectors. Given
those, the next product has a known law, which costs O(size × vectors) to sample and not
O(size²): the conditioning step of Bolthausen (2014), used as an exact sampler.

Vectors are rows: the product of W (n_out, n_in) with V (m, n_in) is V Wᵀ (m, n_out). A
product with the transpose is one of ``transposed(matrix)``. All of it is pure: a
product returns what is known of the matrix after it.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lognorm_jax._tools import norms, random

# so many vectors are made orthogonal written out; more of them by a scan
FEW = 4


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["std", "right", "images", "left", "pulled", "met_right", "met_left"],
    meta_fields=["shape"],
)
@dataclasses.dataclass(frozen=True)
class Normal:
    """A matrix W of iid N(0, std²) entries, given what it has met.

    Of orthonormal rows q of ``right`` the images W q are known, and Wᵀ p of rows p of
    ``left``. Where the numbers of rows are data, rows after them are zero.
    """

    shape: tuple[int, int]  # (n_out, n_in)
    std: Any
    right: jax.Array  # (r, n_in)
    images: jax.Array  # (r, n_out)
    left: jax.Array  # (l, n_out)
    pulled: jax.Array  # (l, n_in)
    # how many of the rows are met: integers while JAX traces, or arrays
    met_right: Any = 0
    met_left: Any = 0


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["scale", "right", "images", "met"],
    meta_fields=["shape"],
)
@dataclasses.dataclass(frozen=True)
class Orthogonal:
    """A Haar orthogonal matrix U times a scale, given what it has met.

    U has n = max(n_out, n_in) dimensions, of which the first n_in go in and the first
    n_out are seen. Rows of ``right`` are mapped to rows of ``images``, both
    orthonormal, whichever was met first.
    """

    shape: tuple[int, int]  # (n_out, n_in)
    scale: Any
    right: jax.Array  # (r, n)
    images: jax.Array  # (r, n)
    met: Any = 0


Undrawn = Normal | Orthogonal


def normal(
    shape: tuple[int, int], std: Any, room: tuple[int, int] | None = None
) -> Normal:
    """Return a matrix of iid N(0, std²) entries that has met nothing.

    Args:
        shape: (n_out, n_in).
        std: standard deviation of an entry; may be traced.
        room: for how many vectors there is room on the right and on the left, where
            that is not known while JAX traces, as in a scan. None: for those there are.
    """
    n_out, n_in = shape
    r, s = (0, 0) if room is None else room
    dtype = jnp.result_type(float)
    rows = [(r, n_in), (r, n_out), (s, n_out), (s, n_in)]
    met: Any = 0 if room is None else jnp.zeros((), jnp.int32)
    right, images, left, pulled = (jnp.zeros(size, dtype) for size in rows)
    return Normal(shape, std, right, images, left, pulled, met, met)


def orthogonal(
    shape: tuple[int, int], std: Any, room: tuple[int, int] | None = None
) -> Orthogonal:
    """Return a Haar orthogonal matrix that has met nothing, of a variance of entries.

    For n_out ≠ n_in rows or columns, whichever are fewer, are orthogonal, of equal
    norm. Arguments as of ``normal``.
    """
    size = max(shape)
    rows = jnp.zeros((0 if room is None else sum(room), size), jnp.result_type(float))
    met: Any = 0 if room is None else jnp.zeros((), jnp.int32)
    return Orthogonal(shape, std * size**0.5, rows, rows, met)


def transposed(matrix: Undrawn) -> Undrawn:
    """Return the transpose, which has met the same."""
    shape = matrix.shape[::-1]
    if isinstance(matrix, Orthogonal):
        return Orthogonal(shape, matrix.scale, matrix.images, matrix.right, matrix.met)
    return Normal(
        shape,
        matrix.std,
        right=matrix.left,
        images=matrix.pulled,
        left=matrix.right,
        pulled=matrix.images,
        met_right=matrix.met_left,
        met_left=matrix.met_right,
    )


class Met(NamedTuple):
    """Vectors V that a matrix is given, V = known right + L new, and what it answers
    to those that are new.
    """

    known: jax.Array  # (m, r), of rows of ``right``
    L: jax.Array  # (m, m), lower triangular
    new: jax.Array  # (m, n_in), orthonormal, also to ``right``; or zero
    images: jax.Array  # (m, n_out), of these


def product(
    matrix: Undrawn, key: jax.Array, V: jax.Array
) -> tuple[Undrawn, jax.Array]:  # (m, n_out)
    """Return V Wᵀ for vectors V (m, n_in), in law given what W has met, and W after it.

    V may be of any rank: vectors that are met again have the same image.
    """
    found = met(matrix, key, V)
    return extended(matrix, found), answered(matrix, found)


def met(matrix: Undrawn, key: jax.Array, V: jax.Array) -> Met:
    """Return what ``product`` finds: of vectors V (m, n_in)."""
    if isinstance(matrix, Orthogonal):
        return _met_orthogonal(matrix, key, V)
    known, L, new = split(V, matrix.right)

    # images of new directions: what the transpose tells of them, and the rest normal
    shape = len(new), matrix.shape[0]
    images = matrix.std * random.normal(key, shape, V.dtype)
    if len(matrix.left):
        told = _matmul(new, matrix.pulled.T) - _matmul(images, matrix.left.T)
        images = images + _matmul(told, matrix.left)
    return Met(known, L, new, images)


def _met_orthogonal(matrix: Orthogonal, key: jax.Array, V: jax.Array) -> Met:
    """Return ``met`` of an orthogonal matrix, images in all of its dimensions."""
    n_out, n_in = matrix.shape
    V = jnp.pad(V, ((0, 0), (0, max(n_out, n_in) - n_in)))
    known, L, new = split(V, matrix.right)

    # images of new directions: a uniform frame in what is left; one for each of them
    there = jnp.any(new != 0, axis=1)
    ahead = random.normal(key, new.shape, V.dtype)
    return Met(known, L, new, _frame(ahead, matrix.images, there))


def answered(matrix: Undrawn, found: Met) -> jax.Array:
    """Return V Wᵀ, (m, n_out), of what was found of V."""
    images = _matmul(found.L, found.images)
    if len(matrix.right):
        images = images + _matmul(found.known, matrix.images)
    if isinstance(matrix, Normal):
        return images
    return matrix.scale * images[:, : matrix.shape[0]]


def beside(matrix: Undrawn, found: Met) -> Undrawn:
    """Return a matrix with what was found after all that there is room for."""
    right = jnp.concatenate([matrix.right, found.new])
    images = jnp.concatenate([matrix.images, found.images])
    return dataclasses.replace(matrix, right=right, images=images)


def extended(matrix: Undrawn, found: Met) -> Undrawn:
    """Return a matrix after it met what was found."""
    if isinstance(matrix, Normal):
        right, met_right = _extended(matrix.right, found.new, matrix.met_right)
        images, _ = _extended(matrix.images, found.images, matrix.met_right)
        after = {"right": right, "images": images, "met_right": met_right}
    else:
        right, count = _extended(matrix.right, found.new, matrix.met)
        images, _ = _extended(matrix.images, found.images, matrix.met)
        after = {"right": right, "images": images, "met": count}
    return dataclasses.replace(matrix, **after)


def once(matrix: Undrawn, key: jax.Array, V: jax.Array) -> jax.Array:  # (m, n_out)
    """Return V Wᵀ of a matrix that meets nothing else, before or after."""
    L = triangle(V)
    shape = L.shape[1], matrix.shape[0]
    if isinstance(matrix, Normal):
        return _matmul(L, matrix.std * random.normal(key, shape, V.dtype))
    size = len(matrix.right.T)
    ahead = random.normal(key, (len(L), size), V.dtype)
    frame = _frame(ahead, matrix.images, jnp.diagonal(L) != 0)
    return matrix.scale * _matmul(L, frame[:, : shape[1]])


def _frame(normal: jax.Array, basis: jax.Array, there: jax.Array) -> jax.Array:
    """Return a uniform frame orthogonal to a basis, made of normal vectors: of those
    that are there, for which there may be room, and zero for others.
    """
    rows = jnp.where(there[:, None], normal, 0)
    return jnp.where(there[:, None], split(rows, basis)[2], 0)


def _extended(rows: jax.Array, more: jax.Array, met: Any) -> tuple[jax.Array, Any]:
    """Return rows with more after those that are met, and how many that makes."""
    if isinstance(met, int):
        return jnp.concatenate([rows, more]), met + len(more)
    start = met, jnp.zeros_like(met)
    return lax.dynamic_update_slice(rows, more, start), met + len(more)


def triangle(V: jax.Array) -> jax.Array:  # (m, m)
    """Return L of V = L Q, Q with orthonormal rows, or zero: lower triangular."""
    unit, sizes = scaled(V)
    # written out, once is enough for L
    times = 1 if len(V) <= FEW else 2
    return _sized(unit, sizes, times)[0]


def split(V: jax.Array, basis: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (C, L, Q) with V = C basis + L Q, and rows of Q orthonormal, or zero.

    Rows of Q are orthogonal to those of the basis. L is lower triangular. By Gram and
    Schmidt, the basis as a block and twice (Barlow & Smoktunowicz 2013), from the
    vectors themselves: from their Gram matrix nearly parallel ones, such as x and J x,
    would lose their difference. (Calls of LAPACK, which would do as well, may not run
    beside each other on CPUs.)

    Args:
        V: (m, n), of any rank.
        basis: (r, n), whose rows are orthonormal, or zero.
    """
    unit, sizes = scaled(V)
    if len(basis) == 0:
        return jnp.zeros((len(V), 0), V.dtype), *_sized(unit, sizes, 2)

    # the part beside the basis, and once more what rounding left of it in Q: where that
    # is most of it, all of it was rounding
    C, left = _beside(unit, basis)
    L, Q = _orthonormal(left, unit, 2)
    more, left = _beside(Q, basis)
    again, Q = _orthonormal(left, Q, 1, least=0.5)
    C = C + _matmul(L, more)
    return sizes[:, None] * C, sizes[:, None] * _matmul(L, again), Q


def _beside(V: jax.Array, basis: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the coordinates of V in a basis, and what is left of V beside it."""
    C = _matmul(V, basis.T)
    return C, V - _matmul(C, basis)


def _sized(V: jax.Array, sizes: jax.Array, times: int) -> tuple[jax.Array, jax.Array]:
    """Return (sizes · L, Q) with V = L Q, row by row where they are few: together they
    may round otherwise in batches of another size.
    """
    L, Q = _orthonormal(V, V, times)
    if len(V) > FEW:
        return sizes[:, None] * L, Q
    return jnp.stack([size * row for size, row in zip(sizes, L, strict=True)]), Q


def _orthonormal(
    V: jax.Array, whole: jax.Array, times: int, least: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """Return (L, Q) with V = L Q, by so many passes of Gram and Schmidt.

    Args:
        V: (m, n).
        whole: what V is left of, (m, n).
        times: how many passes.
        least: the part of it below which a row is no direction; None: rounding.
    """
    make = _few if len(V) <= FEW else _many
    rounding = 8 * float(jnp.finfo(V.dtype).eps)
    return make(V, whole, times, rounding if least is None else least)


def _few(
    V: jax.Array, whole: jax.Array, times: int, least: float
) -> tuple[jax.Array, jax.Array]:
    """Return ``_orthonormal``, written out."""
    units: list[jax.Array] = []
    rows = []
    for v, all_of_it in zip(V, whole, strict=True):
        row = [jnp.zeros((), V.dtype)] * len(V)
        left = v
        for _ in range(times):
            for j, unit in enumerate(units):
                along = jnp.sum(unit * left)
                left = left - along * unit
                row[j] = row[j] + along
        row[len(units)], unit = _direction(left, all_of_it, least)
        units.append(unit)
        rows.append(jnp.stack(row))
    return jnp.stack(rows), jnp.stack(units)


def _many(
    V: jax.Array, whole: jax.Array, times: int, least: float
) -> tuple[jax.Array, jax.Array]:
    """Return ``_orthonormal``, by a scan over the vectors."""

    def step(units, given):
        v, all_of_it, place = given
        left, along = v, jnp.zeros(len(V), V.dtype)
        for _ in range(times):
            more = _matmul(units, left)
            left = left - _matmul(more, units)
            along = along + more
        norm, unit = _direction(left, all_of_it, least)
        units = lax.dynamic_update_index_in_dim(units, unit, place, axis=0)
        return units, lax.dynamic_update_index_in_dim(along, norm, place, axis=0)

    units, L = lax.scan(step, jnp.zeros_like(V), (V, whole, np.arange(len(V))))
    return L, units


def scaled(V: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the rows over their sizes, and these: squares of small ones underflow.

    Sizes are powers of 2, which nothing is rounded by, however it is compiled.
    """
    largest = lax.stop_gradient(jnp.max(jnp.abs(V), axis=1))
    _, exponent = jnp.frexp(norms.scale_of(largest))
    sizes = jnp.ldexp(jnp.ones_like(largest), exponent)
    sizes = jnp.where(sizes > 0, sizes, 1)
    return V / sizes[:, None], sizes


def _direction(
    left: jax.Array, v: jax.Array, least: float
) -> tuple[jax.Array, jax.Array]:
    """Return the norm and direction of what is left of a vector: 0 if it is less."""
    square = jnp.sum(left * left)
    # NaN is not less
    there = ~(square <= least**2 * jnp.sum(v * v))
    safe = jnp.where(there, square, 1)  # the root has no derivative at 0
    norm = jnp.sqrt(safe)
    return jnp.where(there, norm, 0), jnp.where(there, left / norm, 0)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
