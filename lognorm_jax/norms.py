"""Norms of vectors of any size: they do not overflow, underflow, or turn zero into NaN."""

import jax
import jax.numpy as jnp
from jax import lax


def normalise(y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (ln‖y‖², y/‖y‖), and (−inf, 0) for y = 0: dead is a value, also under grad.

    y: any shape. The entries are scaled by the largest before squaring, so the result is right
    whatever their size.
    """
    largest = lax.stop_gradient(jnp.max(jnp.abs(y)))
    alive = largest != 0  # so that NaN stays NaN, and is not taken for dead
    scale = jnp.where(alive, largest, jnp.ones_like(largest))
    scaled = y / scale
    square = jnp.sum(scaled * scaled)
    safe = jnp.where(alive, square, jnp.ones_like(square))
    log_square = jnp.log(safe) + 2 * jnp.log(scale)
    return jnp.where(alive, log_square, -jnp.inf), scaled / jnp.sqrt(safe)


def quartic(unit: jax.Array) -> jax.Array:
    """Return κ = ‖u‖₄⁴ of a unit vector of any shape; 0 for the zero vector of a dead path."""
    return jnp.sum(jnp.square(jnp.square(unit)))
