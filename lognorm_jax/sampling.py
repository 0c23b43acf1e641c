"""The engine: run a path for many keys, in blocks, on any number of devices and processes.

A block is the unit of compilation, of determinism and of storage: block b of a run draws from
``fold_in(key, b)``. With the same ``block_size`` the results are bitwise the same for any number of
blocks a call, of devices and of processes, and after any number of interruptions; the first samples
of a longer run are the same samples.

On a cluster call ``jax.distributed.initialize()`` first, in every process, and then the same code:
the default devices are those of all processes, and each process gets the whole result.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lognorm_jax import checks, runs, summaries

LIVE_FLOATS = {"cpu": 1 << 20}  # what samples run together may keep alive: a core's cache, on CPUs
MOST_LIVE_FLOATS = 1 << 28  # and elsewhere: 1 GiB of float32
DRAWS = 3  # raise it when any path, weight or mask draws other numbers from the same key
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
    run: runs.Run | None = None,
) -> Any:
    """Return the trace of ``num_samples`` independent paths, on the host: leaves (num_samples, …).

    path: key -> Trace, or any pytree of arrays. key: one typed key. num_samples, block_size ≥ 1.
    blocks_per_call: how many blocks a device runs before the host hears of it, taken to be at least
    two; default: enough to keep it busy. devices: default all, of all processes. progress: called
    with the number of new samples after each call, such as ``tqdm(total=num_samples).update``.
    run: from ``runs.open_run``; then blocks are kept in its folder as they are done, and those that
    are there already are not computed again. Several processes must share the folder.

    ``block_size`` is part of a run's identity; nothing else here changes a bit of the result.
    Raises ``ValueError`` for anything else, and for a ``run`` that is of other samples; ``OSError``
    where its folder cannot be written.
    """
    job = _Job(path, key, num_samples, block_size, blocks_per_call, devices, progress, run)
    result = None
    for first, trace in job.blocks(_keep):
        start = first * block_size
        chunk = jax.tree.map(
            lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), trace
        )
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
    run: runs.Run | None = None,
) -> summaries.Moments:
    """Return the moments of the increments of ``num_samples`` paths, in constant memory.

    The paths are those of ``sample`` with the same arguments. A block is reduced where it was run,
    in float32 or, for a float64 path, in float64: log_norm is summed in that. Blocks are merged in
    their order, in float64, on the host.
    """
    job = _Job(path, key, num_samples, block_size, blocks_per_call, devices, progress, run)
    total = None
    for _, sums in job.blocks(summaries.block_sums):
        for block in zip(*sums, strict=True):
            part = summaries.central(*block)
            total = part if total is None else summaries.merge(total, part)
    return total._replace(mean=np.where(total.count > 0, total.mean, -np.inf))


@dataclasses.dataclass(frozen=True)
class _Job:
    """The arguments of ``sample`` and ``stream``, and the loop over blocks that both are."""

    path: Any
    key: Any
    num_samples: int
    block_size: int
    blocks_per_call: int | None
    devices: Any
    progress: Any
    run: Any

    def blocks(self, reduce: Callable) -> Iterator[tuple[int, Any]]:
        """Yield (first block, reduced blocks, stacked) in order, until all are done."""
        usable = callable(self.path) and isinstance(self.path, Hashable)
        checks.require(usable, "path", self.path, "a hashable function key -> Trace")
        checks.typed_key(self.key)
        num_samples = checks.integer("num_samples", self.num_samples, 1)
        size = checks.integer("block_size", self.block_size, 1)
        devices = jax.devices() if self.devices is None else self.devices
        devices = tuple(devices) if isinstance(devices, Sequence) else ()
        real = len(devices) >= 1 and all(isinstance(d, jax.Device) for d in devices)
        allowed = "a sequence of at least one jax.Device, all different"
        checks.require(real and len(set(devices)) == len(devices), "devices", self.devices, allowed)
        usable = self.progress is None or callable(self.progress)
        checks.require(usable, "progress", self.progress, "None, or a function of the new samples")
        if self.run is not None:
            checks.instance("run", self.run, runs.Run)
        shapes = jax.eval_shape(self.path, self.key)
        leaves = jax.tree.leaves(shapes)
        numbers = not any(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended) for leaf in leaves)
        some = numbers and any(leaf.size for leaf in leaves)
        checks.require(some, "path(key)", shapes, "a pytree of arrays of numbers, not all empty")
        followed = reduce is _keep or getattr(getattr(shapes, "increment", None), "ndim", 0) == 1
        checks.require(followed, "path(key)", shapes, "a Trace", "sample takes any pytree.")
        num_blocks = -(-num_samples // size)
        if self.blocks_per_call is None:
            floats = size * sum(leaf.size for leaf in leaves)
            local = min(max(CALL_FLOATS // floats, 1), 16)
        else:
            local = checks.integer("blocks_per_call", self.blocks_per_call, 1)
        local = max(local, 2)  # one block would be compiled in another way
        compiled = _compiled(self.path, size, devices, reduce)
        call = functools.partial(self._calls, compiled, local, len(devices))
        if self.run is None:
            yield from call(0, num_blocks)
        else:
            yield from self._stored(call, reduce, shapes, devices, num_blocks)

    def _calls(self, compiled, local, shards, start, stop) -> Iterator[tuple[int, Any]]:
        """Yield (first block, reduced blocks) from start to stop, one call ahead of the reader.

        Blocks are dealt to the devices in turn, so that all have work however few there are.
        """
        key = np.asarray(jax.random.key_data(self.key))
        waiting, per_call = None, local * shards

        def in_order(leaf, count):
            leaf = np.asarray(leaf).reshape(shards, local, *leaf.shape[1:]).swapaxes(0, 1)
            return leaf.reshape(per_call, *leaf.shape[2:])[:count]

        for first in itertools.chain(range(start, stop, per_call), [None]):
            ahead = None
            if first is not None:
                blocks = first + np.arange(per_call).reshape(local, shards).T.ravel()
                valid = np.clip(self.num_samples - blocks * self.block_size, 0, self.block_size)
                valid = np.where(blocks < stop, valid, 0).astype(np.int32)
                ahead = first, compiled(key, blocks.astype(np.uint32), valid)
            if waiting is not None:
                done, result = waiting
                count = min(per_call, stop - done)
                result = jax.tree.map(functools.partial(in_order, count=count), result)
                self._report(done, done + count)
                yield done, result
            waiting = ahead

    def _report(self, start: int, stop: int) -> None:
        """Tell how many samples these blocks hold."""
        first, last = (min(block * self.block_size, self.num_samples) for block in (start, stop))
        if self.progress is not None and last > first:
            self.progress(last - first)

    def _stored(self, call, reduce, shapes, devices, num_blocks: int) -> Iterator[tuple[int, Any]]:
        """Compute and write what is missing of the run, then read it, file after file."""
        batch = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((self.block_size, *leaf.shape), leaf.dtype), shapes
        )
        block = jax.eval_shape(reduce, batch, jax.ShapeDtypeStruct((), np.int32))
        leaves, structure = jax.tree_util.tree_flatten_with_path(block)
        named = {f"block{jax.tree_util.keystr(place)}": leaf for place, leaf in leaves}
        several, per_file = _several(devices), self.run.blocks_per_file
        writes = jax.process_index() == min(device.process_index for device in devices)
        count = -(-num_blocks // per_file)
        spec = {
            "reduction": "sample" if reduce is _keep else "stream",
            "key": np.asarray(jax.random.key_data(self.key)).tolist(),
            "num_samples": int(self.num_samples),
            "block_size": int(self.block_size),
            "blocks_per_file": per_file,
            "leaves": {name: [str(leaf.dtype), *leaf.shape] for name, leaf in named.items()},
            "platform": devices[0].platform,
            "jax": jax.__version__,
            "draws": DRAWS,
        }
        run = self.run.bind(spec, writes)
        missing = np.ones(count, bool)
        if writes:
            missing = np.isin(np.arange(count), run.missing(count))
        if several:
            missing = np.asarray(multihost_utils.broadcast_one_to_all(missing))
        for number in np.flatnonzero(~missing).tolist():
            self._report(number * per_file, (number + 1) * per_file)

        def calls(start, stop):
            for _, result in call(start, stop):
                yield dict(zip(named, jax.tree.leaves(result), strict=True))

        run.fill(np.flatnonzero(missing).tolist(), num_blocks, calls, writes)
        if several:
            multihost_utils.sync_global_devices("the run is written")
        for number in range(count):
            arrays = run.read(number)  # NumPy files do not know bfloat16, but keep its bits
            block = [arrays[name].view(leaf.dtype) for name, leaf in named.items()]
            yield number * per_file, jax.tree.unflatten(structure, block)


@functools.lru_cache(maxsize=64)
def _compiled(path, block_size, devices, reduce) -> Callable:
    """Return the call (key data, blocks, valid) -> reduced blocks, zeros where no sample is valid.

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
    # to read what other processes computed, each process needs all of it
    spread = NamedSharding(mesh, PartitionSpec() if _several(devices) else split)
    run, block_keys = jax.jit(sharded, out_shardings=spread), _block_keys(block_size, devices)
    return lambda key, blocks, valid: run(*block_keys(key, blocks, valid))


@functools.lru_cache(maxsize=64)
def _block_keys(block_size, devices) -> Callable:
    """Return the jitted call (key data, blocks, valid) -> keys (blocks, block_size), valid.

    Apart from any path: all paths share it, which leaves less to compile for each.
    """

    def keys(key, blocks, valid):
        key = jax.random.wrap_key_data(key, impl="threefry2x32")
        fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        return jax.vmap(functools.partial(jax.random.split, num=block_size))(
            fold(key, blocks)
        ), valid

    mesh = Mesh(np.array(devices), ("block",))
    return jax.jit(keys, out_shardings=NamedSharding(mesh, PartitionSpec("block")))


def _several(devices) -> bool:
    """Return whether the devices are those of several processes."""
    return len({device.process_index for device in devices}) > 1


def _keep(trace, valid):
    del valid
    return trace
