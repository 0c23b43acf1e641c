"""The engine: run a path for many keys, in blocks, on any number of devices and
processes.

A block is the unit of compilation, of determinism and of storage: block b of a run
draws from ``fold_in(key, b)``. With the same ``block_size`` the results are bitwise the
same for any number of blocks a call, of devices and of processes, and after any number
of interruptions; the first samples of a longer run are the same samples.

On a cluster call ``jax.distributed.initialize()`` first, in every process, and then the
same code: the default devices are those of all processes, and each process gets the
whole result.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lognorm_jax._tools import checks
from lognorm_jax.sampling import _fingerprints, _memory, _programs, runs, summaries

# raise it when any path, weight or mask draws other numbers from the same key, were it
# only in the last bits: batches of other sizes round otherwise
DRAWS = 4
CALL_FLOATS = 1 << 22  # what one call may return for each device, roughly
_OUTSIDE = (
    "Sampling runs on the host: call it outside of jit, vmap and grad; to transform what is "
    "sampled, transform the path, which is a pure function: jax.vmap(path)(keys)."
)
_SMALLER = (
    "Take fewer samples, or sampling.stream, which keeps only moments; or sample parts, each with "
    "its own key."
)


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
    """Return the trace of ``num_samples`` independent paths, on the host: leaves
    (num_samples, …).

    path: key -> Trace, or any pytree of arrays. key: one typed key. num_samples,
    block_size ≥ 1. blocks_per_call: how many blocks a device runs before the host hears
    of it, taken to be at least two; default: enough to keep it busy. devices: default
    all, of all processes. progress: called with the number of new samples after each
    call, such as ``tqdm(total=num_samples).update``. run: from ``runs.open_run``; then
    blocks are kept in its folder as they are done, and those that are there already are
    not computed again. Several processes must share the folder.

    ``block_size`` is part of a run's identity; nothing else here changes a bit of the
    result. Raises ``ValueError`` for anything else, under ``jit`` or where the key or
    the path is traced, for a result that does not fit in the free memory, and for a
    ``run`` of another path, key or block size; ``OSError`` where its folder cannot be
    written.
    """
    options = block_size, blocks_per_call, devices, progress, run
    job = _checked(path, key, num_samples, *options, _keep)
    _require_room(job)
    result = None
    for first, trace in _blocks(job):
        start = first * block_size
        chunk = jax.tree.map(
            lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]),
            trace,
        )
        if result is None:
            result = jax.tree.map(
                lambda x: np.empty((num_samples, *x.shape[1:]), x.dtype), chunk
            )
        for whole, part in zip(
            jax.tree.leaves(result), jax.tree.leaves(chunk), strict=True
        ):
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
    """Return the moments of the increments of ``num_samples`` paths, in constant
    memory.

    The paths are those of ``sample`` with the same arguments. A block is reduced where
    it was run, in float32 or, for a float64 path, in float64: log_norm is summed in
    that. Blocks are merged in their order, in float64, on the host.
    """
    options = block_size, blocks_per_call, devices, progress, run
    job = _checked(path, key, num_samples, *options, summaries.block_sums)
    total = None
    for _, sums in _blocks(job):
        for block in zip(*sums, strict=True):
            part = summaries.central(*block)
            total = part if total is None else summaries.merge(total, part)
    return total._replace(mean=np.where(total.count > 0, total.mean, -np.inf))


@dataclasses.dataclass(frozen=True)
class _Job:
    """What ``sample`` or ``stream`` was asked for, checked."""

    path: Callable
    key: np.ndarray  # its data
    num_samples: int
    block_size: int
    local: int  # blocks that each device runs a call
    devices: tuple[jax.Device, ...]
    progress: Callable[[int], Any] | None
    run: runs.Run | None
    # (a block's trace, how many of its samples count) -> what is kept of it
    reduce: Callable
    shapes: Any  # of path(key)
    jaxpr: Any  # of path

    @property
    def num_blocks(self) -> int:
        return -(-self.num_samples // self.block_size)


def _checked(
    path, key, num_samples, block_size, blocks_per_call, devices, progress, run, reduce
) -> _Job:
    """Return the arguments of ``sample`` and ``stream``, or raise ``ValueError``."""
    usable = callable(path) and isinstance(path, Hashable)
    checks.require(usable, "path", path, "a hashable function key -> Trace")
    data = _key_data(key)
    num_samples = checks.integer("num_samples", num_samples, 1)
    block_size = checks.integer("block_size", block_size, 1)
    given, devices = devices, jax.devices() if devices is None else devices
    devices = tuple(devices) if isinstance(devices, Sequence) else ()
    real = len(devices) >= 1 and all(isinstance(d, jax.Device) for d in devices)
    allowed = "a sequence of at least one jax.Device, all different"
    checks.require(
        real and len(set(devices)) == len(devices), "devices", given, allowed
    )
    usable = progress is None or callable(progress)
    checks.require(
        usable, "progress", progress, "None, or a function of the new samples"
    )
    if run is not None:
        checks.instance("run", run, runs.Run)
    shapes, jaxpr = _traced(path, key)
    followed = (
        reduce is _keep or getattr(getattr(shapes, "increment", None), "ndim", 0) == 1
    )
    checks.require(followed, "path(key)", shapes, "a Trace", "sample takes any pytree.")
    if blocks_per_call is None:
        floats = block_size * sum(leaf.size for leaf in jax.tree.leaves(shapes))
        local = min(max(CALL_FLOATS // floats, 1), 16)
    else:
        local = checks.integer("blocks_per_call", blocks_per_call, 1)
    local = max(local, 2)  # one block would be compiled in another way
    return _Job(
        path,
        data,
        num_samples,
        block_size,
        local,
        devices,
        progress,
        run,
        reduce,
        shapes,
        jaxpr,
    )


def _key_data(key: Any) -> np.ndarray:
    """Return the numbers of a key, where there are any: not under ``jit``, or if it is
    traced.
    """
    checks.typed_key(key)
    try:
        return np.asarray(jax.random.key_data(key))
    except jax.errors.TracerArrayConversionError:
        checks.require(
            False, "key", key, "a key that is known, outside of jit", _OUTSIDE
        )


def _traced(path: Callable, key: jax.Array) -> tuple[Any, Any]:
    """Return the shapes of path(key), and the jaxpr of the path; JAX keeps both with
    the path.
    """
    traced = jax.jit(path).trace(key)
    shapes = traced.out_info
    leaves = jax.tree.leaves(shapes)
    numbers = not any(
        jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended) for leaf in leaves
    )
    some = numbers and any(leaf.size for leaf in leaves)
    checks.require(
        some, "path(key)", shapes, "a pytree of arrays of numbers, not all empty"
    )
    # what else is traced becomes another argument
    alone = len(traced.jaxpr.in_avals) == 1
    checks.require(
        alone, "path", path, "a function of its key alone, of known numbers", _OUTSIDE
    )
    return shapes, traced.jaxpr


def _require_room(job: _Job) -> None:
    """Raise ``ValueError`` for a result that the free memory does not hold."""
    leaves = jax.tree.leaves(job.shapes)
    needed = job.num_samples * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    free = _memory.free()
    if free is not None and needed > free:
        gigabytes = f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        allowed = f"so small that the result fits in memory: it would take {gigabytes}"
        checks.require(False, "num_samples", job.num_samples, allowed, _SMALLER)


def _blocks(job: _Job) -> Iterator[tuple[int, Any]]:
    """Yield (first block, reduced blocks, stacked) in order, until all are done."""
    if job.run is None:
        yield from _computed(job, 0, job.num_blocks)
    else:
        yield from _stored(job)


def _computed(job: _Job, start: int, stop: int) -> Iterator[tuple[int, Any]]:
    """Yield (first block, reduced blocks) from start to stop, one call ahead of the
    reader.

    Blocks are dealt to the devices in turn, so that all have work however few there
    are.
    """
    shards = len(job.devices)
    per_call = job.local * shards
    call = _programs.compiled(job.path, job.block_size, job.devices, job.reduce)

    def begin(first):
        blocks = first + np.arange(per_call).reshape(job.local, shards).T.ravel()
        valid = np.clip(job.num_samples - blocks * job.block_size, 0, job.block_size)
        valid = np.where(blocks < stop, valid, 0).astype(np.int32)
        return first, call(job.key, blocks.astype(np.uint32), valid)

    def end(first, result):
        count = min(per_call, stop - first)
        _report(job, first, first + count)
        return first, jax.tree.map(functools.partial(in_order, count=count), result)

    def in_order(leaf, count):
        leaf = (
            np.asarray(leaf).reshape(shards, job.local, *leaf.shape[1:]).swapaxes(0, 1)
        )
        return leaf.reshape(per_call, *leaf.shape[2:])[:count]

    waiting = None
    for first in range(start, stop, per_call):
        ahead = begin(first)
        if waiting is not None:
            yield end(*waiting)
        waiting = ahead
    if waiting is not None:
        yield end(*waiting)


def _report(job: _Job, start: int, stop: int) -> None:
    """Tell how many samples these blocks hold."""
    first, last = (
        min(block * job.block_size, job.num_samples) for block in (start, stop)
    )
    if job.progress is not None and last > first:
        job.progress(last - first)


def _stored(job: _Job) -> Iterator[tuple[int, Any]]:
    """Compute and write what is missing of the run, then read it, file after file."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(_kept(job))
    named = {f"block{jax.tree_util.keystr(place)}": leaf for place, leaf in leaves}
    several = _programs.several(job.devices)
    per_file = job.run.blocks_per_file
    count = -(-job.num_blocks // per_file)
    writes = jax.process_index() == min(device.process_index for device in job.devices)

    # all samples of a block are kept, or only what those that count sum up to
    samples = (
        job.num_blocks * job.block_size if job.reduce is _keep else job.num_samples
    )
    run = job.run.bind(_spec(job, named), job.block_size, samples, writes)
    missing = np.ones(count, bool)
    if writes:
        missing = np.isin(np.arange(count), run.missing(count))
    if several:
        missing = np.asarray(multihost_utils.broadcast_one_to_all(missing))
    for number in np.flatnonzero(~missing).tolist():
        _report(job, number * per_file, (number + 1) * per_file)

    def calls(start, stop):
        for _, result in _computed(job, start, stop):
            yield dict(zip(named, jax.tree.leaves(result), strict=True))

    run.fill(np.flatnonzero(missing).tolist(), job.num_blocks, calls, writes)
    if several:
        multihost_utils.sync_global_devices("the run is written")
    for number in range(count):
        arrays = run.read(number)  # NumPy files do not know bfloat16, but keep its bits
        block = [arrays[name].view(leaf.dtype) for name, leaf in named.items()]
        yield number * per_file, jax.tree.unflatten(structure, block)


def _kept(job: _Job) -> Any:
    """Return the shapes of what is kept of one block."""
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((job.block_size, *leaf.shape), leaf.dtype),
        job.shapes,
    )
    return jax.eval_shape(job.reduce, batch, jax.ShapeDtypeStruct((), np.int32))


def _spec(job: _Job, named: dict[str, Any]) -> dict[str, Any]:
    """Return what the blocks of a run depend on, besides what its caller says."""
    return {
        "path": _fingerprints.fingerprint(job.jaxpr),
        "reduction": "sample" if job.reduce is _keep else "stream",
        "key": job.key.tolist(),
        "block_size": job.block_size,
        "blocks_per_file": job.run.blocks_per_file,
        "leaves": {
            name: [str(leaf.dtype), *leaf.shape] for name, leaf in named.items()
        },
        "platform": job.devices[0].platform,
        "jax": jax.__version__,
        "threefry_partitionable": bool(jax.config.jax_threefry_partitionable),
        "draws": DRAWS,
    }


def _keep(trace, valid):
    del valid
    return trace
