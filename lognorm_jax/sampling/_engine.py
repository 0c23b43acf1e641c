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

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np

from lognorm_jax._tools import traces
from lognorm_jax.sampling import _blocks, _jobs, runs, summaries

Tree = TypeVar("Tree")
_SAMPLES = _jobs.Reduction(
    "sample",
    lambda trace, valid: trace,
    keeps_samples=True,
    trim=lambda leaf, depth: leaf[..., :depth],
)
# of each layer and, last, of log_norm
_MOMENTS = _jobs.Reduction(
    "stream",
    summaries.block_sums,
    keeps_samples=False,
    trim=lambda leaf, depth: leaf[..., [*range(depth), -1]],
)


def sample(
    path: Callable[[jax.Array], Tree],
    key: jax.Array,
    num_samples: int,
    *,
    block_size: int = 256,
    blocks_per_call: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[int], object] | None = None,
    run: runs.Run | None = None,
) -> Tree:
    """Return the traces of independent random paths, on the host.

    ``block_size`` is part of a run's identity; no other option changes a bit of the
    result.

    Args:
        path: key -> Trace, or any pytree of arrays of numbers, not all empty; such as
            ``paths.dense`` returns.
        key: one typed key, ``jax.random.key(seed)``.
        num_samples: how many paths, ≥ 1.
        block_size: how many paths draw from one key ``fold_in(key, block)``, ≥ 1.
        blocks_per_call: how many blocks a device, or a core of a CPU, runs before the
            host hears of it, taken to be at least two; default: enough to keep it busy.
        devices: default all, of all processes; all cores of a CPU work in any case.
        progress: called with the number of new samples after each call, such as
            ``tqdm(total=num_samples).update``.
        run: from ``runs.open_run``; blocks are then kept in its folder as they are
            done, and those that are there already are not computed again. Several
            processes must share the folder.

    Returns:
        What the path returns, as NumPy arrays of its own types: leaves (num_samples,
        …), ln R_i in those of a ``Trace``.

    Raises:
        ValueError: for arguments of another kind or range, where the key or the path
            is traced, as under ``jit``, or holds NaN; for a result that does not fit in
            the free memory, and for a ``run`` of another path, key or block size.
        OSError: where the folder of the run cannot be written.
    """
    job = _jobs.checked(
        path,
        _SAMPLES,
        key,
        num_samples,
        block_size=block_size,
        blocks_per_call=blocks_per_call,
        devices=devices,
        progress=progress,
        run=run,
    )
    _jobs.require_room(job)
    samples = jax.tree.map(
        lambda leaf: np.empty((job.num_samples, *leaf.shape), leaf.dtype), job.shapes
    )
    for first, blocks in _blocks.reduced(job):
        put = functools.partial(_put, first * job.block_size)
        jax.tree.map(put, samples, blocks)
    return samples


def stream(
    path: Callable[[jax.Array], traces.Trace],
    key: jax.Array,
    num_samples: int,
    *,
    block_size: int = 256,
    blocks_per_call: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[int], object] | None = None,
    run: runs.Run | None = None,
) -> summaries.Moments:
    """Return the moments of the increments of random paths, in constant memory.

    The paths are those of ``sample``. A block is reduced where it was run, in float32
    or, for a float64 path, in float64: log_norm is summed in that. Blocks are merged in
    their order, in float64, on the host.

    Args:
        path: key -> Trace, of one product: increments (depth,).
        key: as of ``sample``.
        num_samples: as of ``sample``.
        block_size: as of ``sample``.
        blocks_per_call: as of ``sample``.
        devices: as of ``sample``.
        progress: as of ``sample``.
        run: as of ``sample``.

    Returns:
        The ``summaries.Moments`` of ln R of each layer and, last, of log_norm: leaves
        (depth + 1,), float64, and int64 where they count.

    Raises:
        ValueError: as of ``sample``, but for the memory; and for a path that returns no
            ``Trace``.
        OSError: as of ``sample``.
    """
    job = _jobs.checked(
        path,
        _MOMENTS,
        key,
        num_samples,
        block_size=block_size,
        blocks_per_call=blocks_per_call,
        devices=devices,
        progress=progress,
        run=run,
    )
    parts = (
        summaries.central(*sums)
        for _, blocks in _blocks.reduced(job)
        for sums in zip(*blocks, strict=True)
    )
    moments = functools.reduce(summaries.merge, parts)
    return moments._replace(mean=np.where(moments.count > 0, moments.mean, -np.inf))


def _put(start: int, samples: np.ndarray, blocks: np.ndarray) -> None:
    """Put blocks of samples where they belong, but for those beyond the last."""
    # not reshape(-1, …), as a leaf may be empty
    number = blocks.shape[0] * blocks.shape[1]
    part = blocks.reshape(number, *blocks.shape[2:])
    room = samples[start : start + number]
    room[...] = part[: len(room)]
