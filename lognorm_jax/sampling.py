"""The engine: run a path for many keys, in blocks, on any number of devices.

A block is the unit of compilation and of determinism: block b of a run draws from
``fold_in(key, b)``. With the same ``block_size`` the results are bitwise the same for any number of
blocks a call and any number of devices, and the first samples of a longer run are the same samples.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lognorm_jax import checks, summaries

LIVE_FLOATS = {"cpu": 1 << 20}  # what samples run together may keep alive: a core's cache, on CPUs
MOST_LIVE_FLOATS = 1 << 28  # and elsewhere: 1 GiB of float32
CALL_FLOATS = 1 << 22  # what one call may return for each device, roughly


def sample(
    path: Callable[[jax.Array], Any],
    key: jax.Array,
    num_samples: int,
    *,
    block_size: int = 256,
    blocks_per_call: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Any:
    """Return the trace of ``num_samples`` independent paths, on the host: leaves (num_samples, …).

    path: key -> Trace, or any pytree of arrays. key: one typed key. num_samples, block_size ≥ 1.
    blocks_per_call: how many blocks a device runs before the host hears of it, taken to be at least
    two; default: enough to keep it busy. devices: default all local ones. progress: called with the
    number of new samples after each call, such as ``tqdm(total=num_samples).update``.

    ``block_size`` is part of a run's identity; nothing else here changes a bit of the result.
    Raises ``ValueError`` for anything else.
    """
    run = _Run(path, key, num_samples, block_size, blocks_per_call, devices, progress)
    result = None
    for start, trace in run.calls(_keep):
        chunk = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), trace)
        if result is None:
            result = jax.tree.map(lambda x: np.empty((num_samples, *x.shape[1:]), x.dtype), chunk)
        for whole, part in zip(jax.tree.leaves(result), jax.tree.leaves(chunk), strict=True):
            room = whole[start : start + len(part)]
            room[...] = part[: len(room)]
    return result


def stream(
    path: Callable[[jax.Array], Any],
    key: jax.Array,
    num_samples: int,
    *,
    block_size: int = 256,
    blocks_per_call: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[int], Any] | None = None,
) -> summaries.Moments:
    """Return the moments of the increments of ``num_samples`` paths, in constant memory.

    The paths are those of ``sample`` with the same arguments. A block is reduced where it was run,
    in float32 or, for a float64 path, in float64: log_norm is summed in that. Blocks are merged in
    their order, in float64, on the host.
    """
    run = _Run(path, key, num_samples, block_size, blocks_per_call, devices, progress)
    total = None
    for _, sums in run.calls(summaries.block_sums):
        for block in zip(*map(np.asarray, sums), strict=True):
            part = summaries.central(*block)
            total = part if total is None else summaries.merge(total, part)
    return total._replace(mean=np.where(total.count > 0, total.mean, -np.inf))


@dataclasses.dataclass(frozen=True)
class _Run:
    """The arguments of ``sample`` and ``stream``, and the loop over calls that both are."""

    path: Any
    key: Any
    num_samples: int
    block_size: int
    blocks_per_call: int | None
    devices: Any
    progress: Any

    def calls(self, reduce: Callable) -> Iterator[tuple[int, Any]]:
        """Yield (first sample, reduced blocks) call after call, one call ahead of the reader."""
        usable = callable(self.path) and isinstance(self.path, Hashable)
        checks.require(usable, "path", self.path, "a hashable function key -> Trace")
        checks.typed_key(self.key)
        num_samples = checks.integer("num_samples", self.num_samples, 1)
        size = checks.integer("block_size", self.block_size, 1)
        devices = jax.local_devices() if self.devices is None else self.devices
        devices = tuple(devices) if isinstance(devices, Sequence) else ()
        real = len(devices) >= 1 and all(isinstance(d, jax.Device) for d in devices)
        allowed = "a sequence of at least one jax.Device, all different"
        checks.require(real and len(set(devices)) == len(devices), "devices", self.devices, allowed)
        usable = self.progress is None or callable(self.progress)
        checks.require(usable, "progress", self.progress, "None, or a function of the new samples")
        shapes = jax.eval_shape(self.path, self.key)
        some = any(leaf.size for leaf in jax.tree.leaves(shapes))
        checks.require(some, "path(key)", shapes, "a pytree of arrays, not all empty")
        followed = reduce is _keep or hasattr(shapes, "increment")
        checks.require(followed, "path(key)", shapes, "a Trace", "sample takes any pytree.")
        num_blocks = -(-num_samples // size)
        if self.blocks_per_call is None:
            floats = size * sum(leaf.size for leaf in jax.tree.leaves(shapes))
            most = -(-num_blocks // len(devices))
            local = min(max(CALL_FLOATS // floats, 1), 16, most)
        else:
            local = checks.integer("blocks_per_call", self.blocks_per_call, 1)
        key = jax.device_put(
            self.key, NamedSharding(Mesh(np.array(devices), ("block",)), PartitionSpec())
        )
        keys, call = _block_keys(size, devices), _compiled(self.path, size, devices, reduce)
        per_call = max(local, 2) * len(devices)  # one block would be compiled in another way
        waiting = None
        for first in range(0, num_blocks, per_call):
            blocks = np.arange(first, first + per_call)
            valid = np.clip(num_samples - blocks * size, 0, size)
            ahead = first * size, call(keys(key, blocks.astype(np.uint32)), valid.astype(np.int32))
            if waiting is not None:
                yield self._ready(*waiting, per_call * size)
            waiting = ahead
        yield self._ready(*waiting, per_call * size)

    def _ready(self, start: int, result: Any, size: int) -> tuple[int, Any]:
        result = jax.device_get(result)
        if self.progress is not None:
            self.progress(min(size, self.num_samples - start))
        return start, result


@functools.lru_cache(maxsize=64)
def _compiled(path, block_size, devices, reduce) -> Callable:
    """Return the jitted call (keys, valid) -> reduced blocks, zeros where no sample is valid.

    Cached, so that sampling the same path again does not compile again. The number of blocks that
    a device runs is an argument, unknown to the compiler: else it would unroll a loop over one
    block, and that block could differ from the others in its last bits.
    """
    live = LIVE_FLOATS.get(devices[0].platform, MOST_LIVE_FLOATS)
    fitting = max(1, live // getattr(path, "footprint", 1))
    # a divisor, so that no remainder has to be compiled as well
    batch = next(b for b in range(min(fitting, block_size), 0, -1) if block_size % b == 0)

    def run_block(block):
        keys, valid = block
        one_batch = batch == block_size
        trace = jax.vmap(path)(keys) if one_batch else lax.map(path, keys, batch_size=batch)
        return reduce(trace, valid)

    def run_blocks(keys, valid):
        shapes = jax.eval_shape(run_block, (keys[0], valid[0]))
        empty = jax.tree.map(lambda leaf: jnp.zeros((len(keys), *leaf.shape), leaf.dtype), shapes)

        def put(whole, part, i):
            return lax.dynamic_update_index_in_dim(whole, part, i, 0)

        def block_step(i, results):
            result = lax.optimization_barrier(run_block((keys[i], valid[i])))
            return jax.tree.map(lambda whole, part: put(whole, part, i), results, result)

        return lax.fori_loop(0, jnp.sum(valid > 0), block_step, empty)

    mesh, split = Mesh(np.array(devices), ("block",)), PartitionSpec("block")
    sharded = jax.shard_map(run_blocks, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    return jax.jit(sharded)


@functools.lru_cache(maxsize=64)
def _block_keys(block_size, devices) -> Callable:
    """Return the jitted call (key, blocks) -> keys (blocks, block_size), apart from any path.

    All paths share it, which leaves less to compile for each.
    """

    def keys(key, blocks):
        fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        return jax.vmap(functools.partial(jax.random.split, num=block_size))(fold(key, blocks))

    mesh = Mesh(np.array(devices), ("block",))
    return jax.jit(keys, out_shardings=NamedSharding(mesh, PartitionSpec("block")))


def _keep(trace, valid):
    del valid
    return trace
