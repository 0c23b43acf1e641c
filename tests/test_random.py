"""The written-out generator against JAX's own, bit for bit, and against its paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax._tools import random

# key, counter, words: known answers that come with the generator (Salmon et al. 2011)
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
    (
        (0x13198A2E, 0x03707344),
        (0x243F6A88, 0x85A308D3),
        (0xC4923A9C, 0x483DF7A0),
    ),
]
DRAWS = {
    "bits": lambda draws, key, shape: draws.bits(key, shape, jnp.uint32),
    "bits of 8": lambda draws, key, shape: draws.bits(key, shape, jnp.uint8),
    "bits of 16": lambda draws, key, shape: draws.bits(key, shape, jnp.uint16),
    "normal": lambda draws, key, shape: draws.normal(key, shape, float),
    "half": lambda draws, key, shape: draws.normal(key, shape, jnp.bfloat16),
    "uniform": lambda draws, key, shape: draws.uniform(key, shape, float, -2, 1),
    "bernoulli": lambda draws, key, shape: draws.bernoulli(key, 0.3, shape),
    "of two words": lambda draws, key, shape: draws.bernoulli(
        key, 0.4, shape, mode="high"
    ),
    "laplace": lambda draws, key, shape: draws.laplace(key, shape, float),
    "split": lambda draws, key, shape: draws.split(key, 2 + len(shape)),
    "fold_in": lambda draws, key, shape: draws.fold_in(key, len(shape) + (1 << 31)),
}


def numbers(leaf):
    """Return what can be compared, of keys as well."""
    keys = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if keys else leaf)


@pytest.mark.parametrize(("key", "counter", "words"), KNOWN)
def test_known_answers(key, counter, words):
    key, counter = (np.array(pair, np.uint32)[:, None] for pair in (key, counter))
    drawn = random._threefry(key, *counter)
    assert tuple(int(word[0]) for word in drawn) == words


@pytest.mark.parametrize("how", ["eager", "jit", "vmap"])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_same_numbers_as_jax(draw, how):
    for shape in [(), (1,), (67,), (3, 0), (5, 8)]:
        keys = jax.random.split(jax.random.key(3), 4)

        def drawn(draws, keys=keys, shape=shape):
            def one(key):
                return draw(draws, key, shape)

            if how == "vmap":
                return jax.jit(jax.vmap(one))(keys)
            return (jax.jit(one) if how == "jit" else one)(keys[0])

        here, there = drawn(random), drawn(jax.random)
        assert here.dtype == there.dtype
        np.testing.assert_array_equal(numbers(here), numbers(there))


@pytest.mark.parametrize("how", ["jit", "vmap"])
def test_held_keys_give_the_numbers_of_jax(how):
    """As models of others draw: by splits of splits, and by truncated normals."""

    def model(key):
        first, second = jax.random.split(key)
        folded = jax.random.fold_in(second, 7)
        return (
            jax.random.normal(first, (5, 3)),
            jax.random.truncated_normal(folded, -2, 2, (67,)),
            jax.random.randint(second, (), 0, 10),
            jax.random.permutation(jax.random.split(folded, 3)[1], 11),
            jax.random.bits(first, (3, 0), "uint8"),
            jax.random.key_data(jax.random.split(first, (2, 2))),
        )

    keys = jax.random.split(jax.random.key(3), 4)
    held = random.held(keys)
    assert held.dtype != keys.dtype
    if how == "vmap":
        model = jax.vmap(model)
    else:
        keys, held = keys[0], held[0]
    for here, there in zip(jax.jit(model)(held), jax.jit(model)(keys), strict=True):
        assert here.dtype == there.dtype
        np.testing.assert_array_equal(here, there)


def test_same_numbers_in_float64():
    with jax.enable_x64(True):
        key = jax.random.key(5)
        for draw in (DRAWS["normal"], DRAWS["uniform"], DRAWS["laplace"]):
            here, there = draw(random, key, (9,)), draw(jax.random, key, (9,))
            assert here.dtype == there.dtype == jnp.float64
            np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("key", [jax.random.key(1, impl="rbg"), jax.random.PRNGKey(1)])
def test_other_keys_are_left_to_jax(key):
    for draw in DRAWS.values():
        here, there = draw(random, key, (5,)), draw(jax.random, key, (5,))
        assert here.dtype == there.dtype
        np.testing.assert_array_equal(numbers(here), numbers(there))


@pytest.mark.parametrize("by_counter", [True, False])
def test_follows_how_jax_splits_bits(by_counter):
    before = jax.config.jax_threefry_partitionable
    jax.config.update("jax_threefry_partitionable", by_counter)
    try:
        key = jax.random.key(11)
        here, there = (
            draws.bits(key, (5, 3), "uint32") for draws in (random, jax.random)
        )
        blocks = np.array([0, 3, 2**32 - 1], np.uint32)
        data = np.asarray(jax.random.key_data(key))
        split = random.split_blocks(data, blocks, 6)
        folded = [jax.random.fold_in(key, block) for block in blocks]
        expected = [jax.random.key_data(jax.random.split(one, 6)) for one in folded]
    finally:
        jax.config.update("jax_threefry_partitionable", before)
    np.testing.assert_array_equal(here, there)
    np.testing.assert_array_equal(split, expected)
