"""The compiled programs: what each device does with the blocks it is dealt."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lognorm_jax._tools import random, traces
from lognorm_jax.sampling import _footprints

# what samples run together may keep alive: a core's cache, on CPUs; so that a vector
# more does not halve the batch, a little above a power of two
LIVE_FLOATS = {"cpu": 9 << 17}
MOST_LIVE_FLOATS = 1 << 28  # and elsewhere: 1 GiB of float32

# of XLA: what it makes of a loop without its new emitters is as fast, and there sooner
_OPTIONS = {"cpu": {"xla_cpu_use_fusion_emitters": False}}


def call(
    path: traces.Path,
    block_size: int,
    batch: int,
    devices: tuple[jax.Device, ...],
    reduce: Callable,
) -> Callable:
    """Return the call (key data, blocks, valid) -> what is kept of each block.

    Zeros where no sample is valid. The program is compiled once for all paths that
    share it; their arrays are passed to it, on several processes as each knows them.
    """
    arrays, program = jax.tree.flatten(path)
    run = _compiled(program, block_size, batch, devices, reduce)
    passed = _passed(arrays, devices)
    dealt = NamedSharding(_mesh(devices), PartitionSpec("block"))

    def call_of(key_data, blocks, valid):
        keys = random.split_blocks(key_data, blocks, block_size)
        parts = [
            jax.make_array_from_callback(whole.shape, dealt, whole.__getitem__)
            for whole in (keys, valid)
        ]
        return run(passed, *parts)

    return call_of


def _passed(arrays: list[Any], devices: tuple[jax.Device, ...]) -> list[Any]:
    """Return the arrays of a path where devices read them: moved once for all calls.

    Those of several processes stay on the host, where each process has the same.
    """
    if not several(devices):
        return jax.device_put(arrays, NamedSharding(_mesh(devices), PartitionSpec()))
    return [np.asarray(leaf) if _numbers(leaf) else leaf for leaf in arrays]


def _mesh(devices: tuple[jax.Device, ...]) -> Mesh:
    """Return the devices, to which blocks are dealt."""
    return Mesh(np.array(devices), ("block",))


def _numbers(leaf: Any) -> bool:
    """Return whether a leaf is an array of JAX that NumPy can hold."""
    extended = jax.dtypes.extended
    return isinstance(leaf, jax.Array) and not jax.dtypes.issubdtype(
        leaf.dtype, extended
    )


@functools.lru_cache(maxsize=64)
def _compiled(
    program: Any,
    block_size: int,
    batch: int,
    devices: tuple[jax.Device, ...],
    reduce: Callable,
) -> Callable:
    """Return the jitted call (arrays, numbers of keys, valid) -> what is kept."""
    # jitted, so that it is traced once, for its shapes and for what it does
    run_block = jax.jit(
        functools.partial(_run_block, program, block_size, batch, reduce)
    )
    mesh = _mesh(devices)
    split = PartitionSpec("block")
    sharded = jax.shard_map(
        functools.partial(_run_blocks, run_block),
        mesh=mesh,
        in_specs=(PartitionSpec(), split, split),
        out_specs=split,
        check_vma=False,
    )
    # to read what other processes computed, each process needs all of it
    spread = NamedSharding(mesh, PartitionSpec() if several(devices) else split)
    options = _options(devices[0].platform)
    return jax.jit(sharded, out_shardings=spread, compiler_options=options)


@functools.cache
def _options(platform: str) -> dict[str, bool] | None:
    """Return how XLA is to compile for a platform, where its version knows how."""
    options = _OPTIONS.get(platform)
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options


def _run_block(program, block_size, batch, reduce, arrays, keys, valid):
    """Return what is kept of one block."""
    path = jax.tree.unflatten(program, arrays)
    if batch == block_size:
        return reduce(jax.vmap(path)(keys), valid)
    return reduce(lax.map(path, keys, batch_size=batch), valid)


def _run_blocks(run_block, arrays, keys, valid):
    """Run the blocks that have valid samples, one after another.

    Their number is an argument, unknown to the compiler: else it would unroll a loop
    over one block, and that block could differ from the others in its last bits.
    """
    keys = jax.random.wrap_key_data(keys, impl=random.NAME)
    shapes = jax.eval_shape(run_block, arrays, keys[0], valid[0])
    empty = jax.tree.map(
        lambda leaf: jnp.zeros((len(keys), *leaf.shape), leaf.dtype), shapes
    )

    def block_step(i, results):
        result = lax.optimization_barrier(run_block(arrays, keys[i], valid[i]))
        put = functools.partial(lax.dynamic_update_index_in_dim, index=i, axis=0)
        return jax.tree.map(put, results, result)

    return lax.fori_loop(0, jnp.sum(valid > 0), block_step, empty)


def batch_size(jaxpr: Any, block_size: int, platform: str) -> int:
    """Return how many samples of a block run together, so that they stay in cache.

    A divisor of the block, so that no remainder has to be compiled as well.
    """
    footprint = _footprints.floats(jaxpr)
    live = LIVE_FLOATS.get(platform, MOST_LIVE_FLOATS)
    fitting = max(1, live // max(footprint, 1))
    divisors = (b for b in range(1, block_size + 1) if block_size % b == 0)
    return max(b for b in divisors if b <= fitting)


def several(devices: Sequence[jax.Device]) -> bool:
    """Return whether the devices are those of several processes."""
    return len({device.process_index for device in devices}) > 1
