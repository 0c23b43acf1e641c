"""The blocks of a job in order: computed call by call, or read from the files of a run.

Every process of a cluster yields the same blocks; one of them writes the files.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lognorm_jax.sampling import _fingerprints, _programs, runs
from lognorm_jax.sampling._jobs import Job

# raise it when any path, weight or mask draws other numbers from the same key, were it
# only in the last bits: batches of other sizes round otherwise
DRAWS = 4


def reduced(job: Job) -> Iterator[tuple[int, Any]]:
    """Yield (first block, what is kept of some blocks, stacked) until all are done."""
    if job.run is None:
        yield from _computed(job, 0, job.num_blocks)
    else:
        yield from _stored(job, job.run)


def _computed(job: Job, start: int, stop: int) -> Iterator[tuple[int, Any]]:
    """Yield the blocks from start to stop as they are computed, some in each call."""
    per_call = job.blocks_per_call * len(job.devices)
    call = _programs.compiled(
        job.path, job.block_size, job.devices, job.reduction.reduce
    )
    begun = (
        (first, call(job.key_data, *_dealt(job, first, stop)))
        for first in range(start, stop, per_call)
    )

    # devices begin the next call before the reader has what this one returns
    for (first, result), _ in itertools.pairwise(
        itertools.chain(begun, [(stop, None)])
    ):
        last = min(first + per_call, stop)
        job.report(first, last)
        in_order = functools.partial(_in_order, job, last - first)
        yield first, jax.tree.map(in_order, result)


def _dealt(job: Job, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the blocks of one call, and how many samples count in each.

    Dealt to the devices in turn, so that all have work, however few there are.
    """
    shape = job.blocks_per_call, len(job.devices)
    blocks = first + np.arange(shape[0] * shape[1]).reshape(shape).T.ravel()
    valid = np.clip(job.num_samples - blocks * job.block_size, 0, job.block_size)
    valid = np.where(blocks < stop, valid, 0)
    return blocks.astype(np.uint32), valid.astype(np.int32)


def _in_order(job: Job, count: int, leaf: jax.Array) -> np.ndarray:
    """Return what the devices made of the blocks dealt to them, in the blocks' order."""
    shape = len(job.devices), job.blocks_per_call, *leaf.shape[1:]
    by_device = np.asarray(leaf).reshape(shape)
    return by_device.swapaxes(0, 1).reshape(leaf.shape)[:count]


def _stored(job: Job, run: runs.Run) -> Iterator[tuple[int, Any]]:
    """Compute and write what is missing of the run, then yield it, file by file."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(_kept(job))
    named = {f"block{jax.tree_util.keystr(place)}": leaf for place, leaf in leaves}
    several = _programs.several(job.devices)
    writes = jax.process_index() == min(device.process_index for device in job.devices)
    count = -(-job.num_blocks // run.blocks_per_file)

    # the files of this job, and which of them are missing
    run = run.bind(_spec(job, run, named), job.block_size, _stored_samples(job), writes)
    missing = np.ones(count, bool)
    if writes:
        missing = np.isin(np.arange(count), run.missing(count))
    if several:
        missing = np.asarray(multihost_utils.broadcast_one_to_all(missing))
    for number in np.flatnonzero(~missing).tolist():
        first = number * run.blocks_per_file
        job.report(first, first + run.blocks_per_file)

    # compute those, and write them
    def calls(start, stop):
        for _, result in _computed(job, start, stop):
            yield dict(zip(named, jax.tree.leaves(result), strict=True))

    run.fill(np.flatnonzero(missing).tolist(), job.num_blocks, calls, writes)
    if several:
        multihost_utils.sync_global_devices("the run is written")

    # read all; NumPy files do not know bfloat16, but keep its bits
    for number in range(count):
        arrays = run.read(number)
        kept = [arrays[name].view(leaf.dtype) for name, leaf in named.items()]
        yield number * run.blocks_per_file, jax.tree.unflatten(structure, kept)


def _kept(job: Job) -> Any:
    """Return the shapes of what is kept of one block."""
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((job.block_size, *leaf.shape), leaf.dtype),
        job.shapes,
    )
    valid = jax.ShapeDtypeStruct((), np.int32)
    return jax.eval_shape(job.reduction.reduce, batch, valid)


def _stored_samples(job: Job) -> int:
    """Return how many samples the files hold, or sum up."""
    if job.reduction.keeps_samples:
        return job.num_blocks * job.block_size
    return job.num_samples


def _spec(job: Job, run: runs.Run, named: dict[str, Any]) -> dict[str, Any]:
    """Return what the blocks of a run depend on, besides what its caller says."""
    return {
        "path": _fingerprints.fingerprint(job.jaxpr),
        "reduction": job.reduction.name,
        "key": job.key_data.tolist(),
        "block_size": job.block_size,
        "blocks_per_file": run.blocks_per_file,
        "leaves": {
            name: [str(leaf.dtype), *leaf.shape] for name, leaf in named.items()
        },
        "platform": job.devices[0].platform,
        "jax": jax.__version__,
        "threefry_partitionable": bool(jax.config.values["jax_threefry_partitionable"]),
        "draws": DRAWS,
    }
