"""Random bits, no more of them than are needed, in shapes that are quick to draw."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from lognorm_jax._tools import checks, random


def keys(key: jax.Array, layer: ArrayLike, count: int) -> jax.Array:
    """Return the keys of what a layer draws: (count,), such as weights, mask, biases.

    Those of a layer do not depend on the depth, nor the first of them on how many
    there are.
    """
    return random.split(random.fold_in(key, layer), count)


def of_layers(key: jax.Array, depth: int, count: int) -> jax.Array:  # (depth, count)
    """Return keys of what each layer draws, made together: others than ``keys``.

    For programs that scan many layers at once: nothing to compile inside of the scan.
    Those of the first layers do not depend on the depth.
    """
    numbers = jnp.arange(depth * count, dtype=jnp.uint32)
    return jax.vmap(random.fold_in, (None, 0))(key, numbers).reshape(depth, count)


def packed(
    key: jax.Array,
    shape: tuple[int, ...],
    bits_each: int,
    valued: Callable[[jax.Array], jax.Array] = lambda parts: parts,
) -> jax.Array:
    """Return values of iid integers of ``bits_each`` bits, as many as fit to a word.

    Random words are what a weight costs most; a sign needs a thirty-second of one.

    Args:
        key: of the draw.
        shape: of the result.
        bits_each: a divisor of 16.
        valued: integers -> their values, one by one.
    """
    allowed = "1, 2, 4, 8 or 16"
    checks.require(bits_each in (1, 2, 4, 8, 16), "bits_each", bits_each, allowed)
    size = math.prod(shape)
    num_words = -(-size // (32 // bits_each))
    words = random.bits(key, (num_words, 1), jnp.uint32)
    places = jnp.arange(0, 32, bits_each, dtype=jnp.uint32)[None]
    values = valued((words >> places) & jnp.uint32((1 << bits_each) - 1))
    # in this shape XLA unpacks whole words, in that of the result bit by bit
    if num_words > 8:
        values = random.in_memory(values)
    return values.reshape(-1)[:size].reshape(shape)


def exponential(key: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return −ln(1 − U), with relative precision down to 2⁻⁶⁵: hazards may be tiny."""
    high, low = random.bits(key, (2,), jnp.uint32).astype(dtype)
    return -jnp.log1p(-(high + (low + 0.5) * 2.0**-32) * 2.0**-32)
