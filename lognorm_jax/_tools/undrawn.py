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
from typing import Any

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


def product(
    matrix: Undrawn, key: jax.Array, V: jax.Array
) -> tuple[Undrawn, jax.Array]:  # (m, n_out)
    """Return V Wᵀ for vectors V (m, n_in), in law given what W has met, and W after it.

    V may be of any rank: vectors that are met again have the same image.
    """
    if isinstance(matrix, Orthogonal):
        return _orthogonal_product(matrix, key, V)
    known, L, new = split(V, matrix.right)

    # images of new directions: what the transpose tells of them, and the rest normal
    shape = len(new), matrix.shape[0]
    images = matrix.std * random.normal(key, shape, V.dtype)
    if len(matrix.left):
        images = images - _matmul(_matmul(images, matrix.left.T), matrix.left)
        images = images + _matmul(_matmul(new, matrix.pulled.T), matrix.left)

    product = _matmul(L, images)
    if len(matrix.right):
        product = product + _matmul(known, matrix.images)
    right, met = _extended(matrix.right, new, matrix.met_right)
    seen, _ = _extended(matrix.images, images, matrix.met_right)
    return (
        dataclasses.replace(matrix, right=right, images=seen, met_right=met),
        product,
    )


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


def _orthogonal_product(
    matrix: Orthogonal, key: jax.Array, V: jax.Array
) -> tuple[Orthogonal, jax.Array]:
    """Return ``product`` of an orthogonal matrix."""
    n_out, n_in = matrix.shape
    size = max(n_out, n_in)
    V = jnp.pad(V, ((0, 0), (0, size - n_in)))
    known, L, new = split(V, matrix.right)

    # images of new directions: a uniform frame in what is left; one for each of them
    there = jnp.any(new != 0, axis=1)
    ahead = random.normal(key, new.shape, V.dtype)
    images = _frame(ahead, matrix.images, there)

    product = _matmul(L, images)
    if len(matrix.right):
        product = product + _matmul(known, matrix.images)
    right, met = _extended(matrix.right, new, matrix.met)
    seen, _ = _extended(matrix.images, images, matrix.met)
    after = dataclasses.replace(matrix, right=right, images=seen, met=met)
    return after, matrix.scale * product[:, :n_out]


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
    return _few(V, 1)[0] if len(V) <= FEW else _many(V, V[:0])[1]


def split(V: jax.Array, basis: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (C, L, Q) with V = C basis + L Q, and rows of Q orthonormal, or zero.

    Rows of Q are orthogonal to those of the basis. L is lower triangular. By Gram and
    Schmidt, from the vectors themselves: from their Gram matrix nearly parallel ones,
    such as x and J x, would lose their difference. (Calls of LAPACK, which would do as
    well, may not run beside each other on CPUs.)

    Args:
        V: (m, n), of any rank.
        basis: (r, n), whose rows are orthonormal, or zero.
    """
    if len(basis) == 0 and len(V) <= FEW:
        return jnp.zeros((len(V), 0), V.dtype), *_few(V, 2)
    return _many(V, basis)


def _few(V: jax.Array, times: int) -> tuple[jax.Array, jax.Array]:
    """Return (L, Q) with V = L Q, written out: once for L, twice for Q."""
    units: list[jax.Array] = []
    rows = []
    for v, size in zip(*_scaled(V), strict=True):
        row = [jnp.zeros((), V.dtype)] * len(V)
        left = v
        for _ in range(times):
            for j, unit in enumerate(units):
                along = jnp.sum(unit * left)
                left = left - along * unit
                row[j] = row[j] + along
        row[len(units)], unit = _direction(left, v)
        units.append(unit)
        rows.append(size * jnp.stack(row))
    return jnp.stack(rows), jnp.stack(units)


def _many(V: jax.Array, basis: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (C, L, Q) of ``split``: a scan over the vectors."""
    scaled, sizes = _scaled(V)

    def step(rows, given):
        v, place = given
        left, along = v, jnp.zeros(len(rows), V.dtype)
        for _ in range(2):
            more = _matmul(rows, left)
            left = left - _matmul(more, rows)
            along = along + more
        norm, unit = _direction(left, v)
        rows = lax.dynamic_update_index_in_dim(rows, unit, place, axis=0)
        return rows, lax.dynamic_update_index_in_dim(along, norm, place, axis=0)

    rows = jnp.concatenate([basis, jnp.zeros_like(V)])
    places = len(basis) + np.arange(len(V))
    rows, along = lax.scan(step, rows, (scaled, places))
    known, new = jnp.split(sizes[:, None] * along, [len(basis)], axis=1)
    return known, new, rows[len(basis) :]


def _scaled(V: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the rows over their sizes, and these: squares of small ones underflow.

    Sizes are powers of 2, which nothing is rounded by, however it is compiled.
    """
    largest = lax.stop_gradient(jnp.max(jnp.abs(V), axis=1))
    _, exponent = jnp.frexp(norms.scale_of(largest))
    sizes = jnp.ldexp(jnp.ones_like(largest), exponent)
    sizes = jnp.where(sizes > 0, sizes, 1)
    return V / sizes[:, None], sizes


def _direction(left: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the norm and direction of what is left of a vector: 0 for rounding."""
    rounding = 8 * jnp.finfo(v.dtype).eps
    square = jnp.sum(left * left)
    # NaN is not rounding
    there = ~(square <= rounding**2 * jnp.sum(v * v))
    safe = jnp.where(there, square, 1)  # the root has no derivative at 0
    norm = jnp.sqrt(safe)
    return jnp.where(there, norm, 0), jnp.where(there, left / norm, 0)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
