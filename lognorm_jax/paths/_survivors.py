"""Which rows of a layer survive its mask.

Rows of a random matrix are exchangeable, so where all that survive are alike, they may
come first, and it is enough how many there are.
"""

import jax
import jax.numpy as jnp

from lognorm_jax import masks
from lognorm_jax._tools import bound


def thin(mask: masks.Mask) -> bool:
    """Return whether rows are lost, and all others are alike."""
    return mask.support is not None and len(mask.support) == 1 and mask.keep_prob < 1


def of(mask: masks.Mask, thinned: bool) -> bound.Bound:
    """Return (dtype, key, room, width) -> (entries, how many of them are met).

    Entries are (room,), all but the first, that are met, 0. The numbers of the mask are
    arrays.

    Args:
        mask: the law of an entry.
        thinned: whether those that survive come first, if they are alike.
    """
    sample = bound.bound(mask.sample)
    if not (thinned and thin(mask)):
        return bound.Bound(_all_rows, (), (sample,))
    assert mask.support is not None
    ((entry, _),) = mask.support
    return bound.Bound(_first_rows, (), (sample, float(entry)))


def _all_rows(
    sample: masks.Sampler,
    dtype: jax.typing.DTypeLike,
    key: jax.Array,
    room: int,
    width: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    entries = sample(key, (room,), dtype)
    inside = jnp.arange(room, dtype=jnp.int32) < width
    return jnp.where(inside, entries, jnp.zeros((), dtype)), width


def _first_rows(
    sample: masks.Sampler,
    entry: float | jax.Array,
    dtype: jax.typing.DTypeLike,
    key: jax.Array,
    room: int,
    width: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    entries, _ = _all_rows(sample, dtype, key, room, width)
    alive = jnp.sum(entries != 0, dtype=jnp.int32)
    first = jnp.arange(room, dtype=jnp.int32) < alive
    value = jnp.asarray(entry, dtype)
    return jnp.where(first, value, jnp.zeros((), dtype)), alive
