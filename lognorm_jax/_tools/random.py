"""JAX's random numbers, the same ones, computed as one chain of operations.

JAX runs the rounds of Threefry as a loop over arrays, once for each of its two words.
Written out, XLA makes one loop of them and of what is done to the numbers: on CPUs that
draws in half the time, and compiles in a third. On other devices, and for keys of other
generators than Threefry, these functions are those of ``jax.random``.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

NAME = "threefry2x32"  # in JAX
# by how many bits each round rotates a word (Salmon et al. 2011, table 2)
_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = 0x1BD11BDA


def split_blocks(key: np.ndarray, blocks: np.ndarray, count: int) -> np.ndarray:
    """Return what ``split(fold_in(key, block), count)`` is, of each block, on the host.

    There is nothing to compile for that, and little to compute.

    Args:
        key: its numbers, (2,).
        blocks: of uint32.
        count: of keys of a block.

    Returns:
        The numbers of the keys: (blocks, count, 2).
    """
    if not _by_counter():
        typed = jax.random.wrap_key_data(jnp.asarray(key), impl=NAME)
        folded = jax.vmap(jax.random.fold_in, (None, 0))(typed, blocks)
        split = functools.partial(jax.random.split, num=count)
        return np.asarray(jax.random.key_data(jax.vmap(split)(folded)))

    zero = np.zeros(1, np.uint32)
    block_keys = _threefry(key[:, None, None], zero, blocks[:, None])
    return np.stack(_threefry(block_keys, zero, np.arange(count, dtype=np.uint32)), -1)


def _threefry(key: Any, high: Any, low: Any) -> tuple[Any, Any]:
    """Return two words for each counter of two words: Threefry-2x32, of 20 rounds."""
    words = key[0], key[1], key[0] ^ key[1] ^ _PARITY
    high = high + words[0]
    low = low + words[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            high = high + low
            rotated = (low << rotation) | (low >> (32 - rotation))
            low = rotated ^ high
        high = high + words[(group + 1) % 3]
        low = low + words[(group + 2) % 3] + (group + 1)
    return high, low


_threefry_traced_once = jax.jit(_threefry)


def _bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    dtype = jnp.dtype(f"uint{bit_width}")
    low = lax.iota(jnp.uint32, math.prod(shape))
    high, low = _threefry_traced_once(key, jnp.zeros_like(low), low)
    if bit_width == 64:
        words = (high.astype(dtype) << 32) | low.astype(dtype)
    else:
        words = (high ^ low).astype(dtype)
    return words.reshape(shape)


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    low = lax.iota(jnp.uint32, math.prod(shape))
    return _keys(key, low).reshape(*shape, 2)


def _fold_in(key: jax.Array, number: int) -> jax.Array:
    return _keys(key, jnp.asarray(number, jnp.uint32))


def _keys(key: jax.Array, low: jax.Array) -> jax.Array:
    """Return the numbers of the keys of some counters, as a last axis."""
    return jnp.stack(_threefry_traced_once(key, jnp.zeros_like(low), low), axis=-1)


def _seed(seed: Any) -> jax.Array:
    return jax.random.key_data(jax.random.key(seed, impl=NAME))


def _held_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    size = math.prod(shape)
    if size >= 1 << 31:
        return _bits(key, bit_width, shape)
    return in_memory(_bits(key, bit_width, (size + -size % 8,)))[:size].reshape(shape)


def _held_split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return in_memory(_split(key, shape).reshape(-1)).reshape(*shape, 2)


def _held_fold_in(key: jax.Array, number: int) -> jax.Array:
    return in_memory(_fold_in(key, number))


_IMPL = functools.partial(
    jax.extend.random.define_prng_impl, key_shape=(2,), seed=_seed
)
_CHAIN = _IMPL(
    split=_split,
    random_bits=_bits,
    fold_in=_fold_in,
    name=f"{NAME}, written out",
    tag="chain",
)
_HELD = _IMPL(
    split=_held_split,
    random_bits=_held_bits,
    fold_in=_held_fold_in,
    name=f"{NAME}, written out and held",
    tag="held",
)


def held(key: jax.Array) -> jax.Array:
    """Return a key for functions of others: what JAX draws of it is drawn as here.

    It is of another type than keys of JAX are, with the same numbers.
    """
    if not _written_out(key):
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_HELD)


def bits(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    return _drawn(functools.partial(jax.random.bits, dtype=dtype), key, shape)


def normal(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    return _drawn(functools.partial(jax.random.normal, dtype=dtype), key, shape)


def laplace(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    return _drawn(functools.partial(jax.random.laplace, dtype=dtype), key, shape)


def uniform(
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    minval: float = 0.0,
    maxval: float = 1.0,
) -> jax.Array:
    draw = functools.partial(
        jax.random.uniform, dtype=dtype, minval=minval, maxval=maxval
    )
    return _drawn(draw, key, shape)


def bernoulli(
    key: jax.Array, p: float | jax.Array, shape: tuple[int, ...], mode: str = "low"
) -> jax.Array:
    def draw(key, shape):
        return jax.random.bernoulli(key, p, shape, mode=mode)

    # "high" takes more than the word of a place
    return _drawn(draw, key, shape) if mode == "low" else draw(key, shape)


def split(key: jax.Array, num: int = 2) -> jax.Array:
    return _derived(functools.partial(jax.random.split, num=num), key)


def fold_in(key: jax.Array, data: ArrayLike) -> jax.Array:
    return _derived(lambda key: jax.random.fold_in(key, data), key)


def _drawn(draw: Callable, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return ``draw(key, shape)``, where a number is that of its place in any shape."""
    size = math.prod(shape)
    if not _written_out(key) or size >= 1 << 31:
        return draw(key, shape)
    # CPUs compute eight numbers and more at once, of a vector of such
    values = in_memory(draw(_chain(key), (8 * -(-size // 8),)))
    return values[:size].reshape(shape)


def _derived(derive: Callable, key: jax.Array) -> jax.Array:
    """Return ``derive(key)``, keys of the same kind."""
    if not _written_out(key):
        return derive(key)
    numbers = jax.random.key_data(derive(_chain(key)))
    numbers = in_memory(numbers.reshape(-1)).reshape(numbers.shape)
    return jax.random.wrap_key_data(numbers, impl=NAME)


def _chain(key: jax.Array) -> jax.Array:
    """Return a key of which JAX draws by what is written here."""
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_CHAIN)


def _written_out(key: Any) -> bool:
    """Return whether to draw of a key by what is written here."""
    typed = jax.dtypes.issubdtype(jnp.result_type(key), jax.dtypes.prng_key)
    named = typed and jax.random.key_impl(key) == NAME
    return named and _by_counter() and jax.default_backend() == "cpu"


def _by_counter() -> bool:
    """Return whether JAX counts the numbers of a draw as it is done here."""
    return getattr(jax.config, "jax_threefry_partitionable", True)


def in_memory(values: jax.Array) -> jax.Array:
    """Return an array that XLA takes from memory on CPUs, for a loop holds it.

    Else XLA may compute it again for each use, and in the shape of that, which may be
    slow. (It drops its barriers before it decides so.)
    """
    if values.size == 0 or jax.default_backend() != "cpu":
        return values
    ones = (1,) * values.ndim
    rest = (0,) * (values.ndim - 1)

    def touch(i, values):
        value = lax.dynamic_slice(values, (i, *rest), ones)
        return lax.dynamic_update_slice(values, value, (i, *rest))

    return lax.fori_loop(0, 2, touch, values)
