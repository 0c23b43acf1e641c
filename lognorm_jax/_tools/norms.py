"""Norms of vectors of any size: without overflow, underflow, or NaN from zero."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lognorm_jax._tools import checks


def normalise(y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (ln‖y‖², y/‖y‖), and (−inf, 0) for y = 0: dead is a value.

    The entries are scaled by the largest before squaring, so the result is right
    whatever their size; derivatives at 0 are finite.

    Args:
        y: any shape. Of half precision the logarithm is float32, and the unit vector
            rounded.
    """
    dtype = y.dtype
    if jnp.finfo(dtype).bits < 32:
        y = y.astype(jnp.float32)

    # squares that neither overflow nor underflow
    largest = lax.stop_gradient(jnp.max(jnp.abs(y)))
    scale = jnp.where(largest != 0, scale_of(largest), jnp.ones_like(largest))
    scaled = y / scale
    square = jnp.sum(scaled * scaled)

    # NaN is not dead: XLA's maximum may leave it out, its sum does not
    alive = square != 0
    safe = jnp.where(alive, square, jnp.ones_like(square))
    log_square = jnp.log(safe) + 2 * jnp.log(scale)
    unit = (scaled / jnp.sqrt(safe)).astype(dtype)
    return jnp.where(alive, log_square, -jnp.inf), unit


def log_squares(rows: jax.Array) -> jax.Array:  # (m,)
    """Return ln‖·‖² of each row of (m, …), as ``normalise``, but mostly in one pass.

    Rows are read again, to scale them, only if some square over- or underflows. Under
    vmap they always are. Not for derivatives of any order: those of ``normalise`` are
    safe at 0.
    """
    if jnp.finfo(rows.dtype).bits < 32:
        rows = rows.astype(jnp.float32)
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    if not flat.shape[1]:
        return jnp.full(len(rows), -jnp.inf, rows.dtype)
    square = jnp.einsum("mi,mi->m", flat, flat, precision="highest")
    # a sum that is larger than this has lost nothing to squares that underflow
    precision = jnp.finfo(rows.dtype)
    enough = precision.tiny * flat.shape[1] / precision.eps
    return lax.cond(
        jnp.all((square >= enough) & jnp.isfinite(square)),
        lambda: jnp.log(square),
        lambda: normalise_rows(flat)[0],
    )


def scale_of(largest: jax.Array) -> jax.Array:
    """Return what to divide by, before squaring, where the largest entry is this.

    At most 2⁻⁸ of the largest number of its type: the inverse of a larger one is
    subnormal, which devices take for 0.
    """
    bound = float(jnp.finfo(largest.dtype).max) / 256
    return jnp.minimum(largest, jnp.asarray(bound, largest.dtype))


def lasting(increments: jax.Array) -> jax.Array:
    """Return increments (…, depth) that stay −inf once dead, or NaN once NaN."""
    # what came first lasts
    dead = jnp.cumsum(jnp.isneginf(increments), axis=-1) > 0
    lost = jnp.cumsum(jnp.isnan(increments) & ~dead, axis=-1) > 0
    return jnp.where(lost, jnp.nan, jnp.where(dead, -jnp.inf, increments))


def normalise_rows(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return ``normalise`` of each row of (m, n): (m,) and (m, n)."""
    return jax.vmap(normalise)(rows)


def quartic(unit: jax.Array) -> jax.Array:
    """Return κ = ‖u‖₄⁴ of a unit vector of any shape; 0 for that of a dead path."""
    return jnp.sum(jnp.square(jnp.square(unit)))


def unit(value: Any) -> Any:
    """Return a vector, not zero, divided by its norm: on the host unless traced."""
    values = checks.known(value)
    if values is None:
        return normalise(value.astype(checks.float_dtype(value)))[1]
    values = values.astype(np.float64)
    values = values / np.abs(values).max()
    return values / np.sqrt(np.sum(values**2))
