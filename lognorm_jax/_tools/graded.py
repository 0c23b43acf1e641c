"""Singular values of graded matrices, each to relative accuracy, however far apart.

A matrix is kept as columns of size about 1 and the powers of 2 that they are times, so
that products of any length neither overflow, nor lose what is small, nor round sizes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lognorm_jax._tools import norms

_SWEEPS = 40  # more than any matrix takes: convergence is quadratic
_FAR = 120  # powers of 2 apart at which a term is nothing beside another


class Graded(NamedTuple):
    """A matrix A: column b is 2^{exponent_b} times column b of ``columns``."""

    exponent: jax.Array  # (k,), integers
    columns: jax.Array  # (k, k), with a largest entry in [1/2, 1), or 0


class _Vectors(NamedTuple):
    """Vectors 2^{exponent} e^{log_size} times rows of norm 1; of size 0 for −inf."""

    exponent: jax.Array  # (k,)
    log_size: jax.Array  # (k,)
    units: jax.Array  # (k, n)


def identity(size: int) -> Graded:
    """Return the identity matrix."""
    dtype = jnp.result_type(float)
    return Graded(jnp.ones(size, jnp.int32), jnp.eye(size, dtype=dtype) / 2)


def times_triangle(A: Graded, L: jax.Array) -> Graded:
    """Return A L, for L (k, k) lower triangular.

    Columns of A that are smaller are to the right, but for chance: so all terms are of
    the size of the first.
    """
    apart = jnp.clip(A.exponent[:, None] - A.exponent[None], -_FAR, _FAR)
    # where it is above the diagonal L is zero
    apart = jnp.where(jnp.tri(len(L), dtype=bool), apart, 0)
    product = jnp.matmul(A.columns, jnp.ldexp(L, apart), precision="highest")
    _, grown = jnp.frexp(jnp.max(jnp.abs(product), axis=0))
    return Graded(A.exponent + grown, jnp.ldexp(product, -grown[None]))


def log_singular_values(A: Graded) -> jax.Array:
    """Return ln σ, descending, by one-sided Jacobi rotations of pairs of columns; NaN
    of a matrix that is not finite.

    The relative error of each σ is about eps times the condition number of the columns
    of norm 1, whatever their sizes (Demmel & Veselić 1992).
    """
    k = A.columns.shape[1]
    log_square, units = norms.normalise_rows(A.columns.T)
    vectors = _Vectors(A.exponent, log_square / 2, units)
    if k % 2:
        # one more, of size 0
        vectors = _Vectors(
            jnp.pad(vectors.exponent, (0, 1)),
            jnp.pad(vectors.log_size, (0, 1), constant_values=-jnp.inf),
            jnp.pad(units, ((0, 1), (0, 0))),
        )
    pairs = _round_robin(k + k % 2)
    tolerance = 2 * jnp.finfo(units.dtype).eps * k**0.5

    def unfinished(state):
        sweep, _, most = state
        return (sweep < _SWEEPS) & (most > tolerance)

    def sweep_once(state):
        sweep, vectors, _ = state
        start = vectors, jnp.zeros((), units.dtype)
        vectors, most = lax.fori_loop(0, len(pairs), rotate, start)
        return sweep + 1, vectors, most

    def rotate(number, state):
        vectors, most = state
        first, second = jnp.asarray(pairs)[number]
        # the larger first
        swap = _ratio(vectors, second, first) > 1
        i, j = jnp.where(swap, second, first), jnp.where(swap, first, second)
        vectors, apart = _rotated(vectors, i, j)
        return vectors, jnp.maximum(most, apart)

    start = 0, vectors, jnp.ones((), units.dtype)
    _, vectors, _ = lax.while_loop(unfinished, sweep_once, start)
    ln2 = jnp.log(jnp.asarray(2, units.dtype))
    sizes = vectors.exponent.astype(units.dtype) * ln2 + vectors.log_size
    found = -jnp.sort(-sizes)[:k]
    return jnp.where(jnp.all(jnp.isfinite(A.columns)), found, jnp.nan)


def _ratio(vectors: _Vectors, i: jax.Array, j: jax.Array) -> jax.Array:
    """Return the norms of vectors i over those of vectors j; 1 for 0/0."""
    apart = jnp.clip(vectors.exponent[i] - vectors.exponent[j], -_FAR, _FAR)
    dead_i, dead_j = (
        jnp.isneginf(vectors.log_size[i]),
        jnp.isneginf(vectors.log_size[j]),
    )
    between = vectors.log_size[i] - jnp.where(dead_j, 0, vectors.log_size[j])
    ratio = jnp.ldexp(jnp.exp(jnp.where(dead_i, 0, between)), apart)
    large = jnp.where(dead_j, jnp.inf, ratio)
    return jnp.where(dead_i, jnp.where(dead_j, 1, 0), large).astype(ratio.dtype)


def _rotated(
    vectors: _Vectors, i: jax.Array, j: jax.Array
) -> tuple[_Vectors, jax.Array]:
    """Return vectors, those of pairs made orthogonal; and by how much they were not.

    Vectors i are larger than vectors j.
    """
    u, v = vectors.units[i], vectors.units[j]
    rho = _ratio(vectors, j, i)
    a = jnp.sum(u * v, axis=1)

    # the tangent of the angle over ρ, by the root that is smaller
    gap = (1 - rho) * (1 + rho)
    root = gap + jnp.sqrt(gap**2 + (2 * rho * a) ** 2)
    tangent = jnp.where(root > 0, -2 * a / jnp.where(root > 0, root, 1), 0)
    cosine = lax.rsqrt(1 + (tangent * rho) ** 2)[:, None]
    first = cosine * (u - (tangent * rho**2)[:, None] * v)
    second = cosine * (v + tangent[:, None] * u)

    both = jnp.concatenate([i, j])
    grown, units = norms.normalise_rows(jnp.concatenate([first, second]))
    log_size = vectors.log_size.at[both].add(grown / 2)
    turned = vectors.units.at[both].set(units)
    return _Vectors(vectors.exponent, log_size, turned), jnp.max(jnp.abs(a))


def _round_robin(count: int) -> np.ndarray:
    """Return rounds in which all pairs of an even count meet: (rounds, 2, half)."""
    players = list(range(count))
    rounds = []
    for _ in range(count - 1):
        half = count // 2
        rounds.append((players[:half], players[half:][::-1]))
        players = [players[0], players[-1], *players[1:-1]]
    return np.array(rounds, np.int32).reshape(count - 1, 2, count // 2)
