"""The blocks of a job in order: computed call by call, or read from the files of a run.

Every process of a cluster yields the same blocks; one of them writes the files.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lognorm_jax.sampling import _fingerprints, _lanes, _programs, runs
from lognorm_jax.sampling._jobs import Job

# raise it when any path, weight or mask draws other numbers from the same key, were it
# only in the last bits: batches of other sizes round otherwise
DRAWS = 7


def reduced(job: Job) -> Iterator[tuple[int, Any]]:
    """Yield (first block, what is kept of some blocks, stacked) until all are done."""
    if job.run is None:
        yield from _computed(job, 0, job.num_blocks)
    else:
        yield from _stored(job, job.run)


def _computed(job: Job, start: int, stop: int) -> Iterator[tuple[int, Any]]:
    """Yield the blocks from start to stop as they are computed, some in each call."""
    platform = job.devices[0].platform
    batch = _programs.batch_size(job.jaxpr, job.block_size, platform)
    call = _programs.call(
        job.path, job.block_size, batch, job.devices, job.reduction.reduce
    )
    with _lanes.opened(call, job.devices, job.jaxpr) as lanes:
        per_round = job.blocks_per_call * len(job.devices) * len(lanes)
        begun = (
            (first, _begun(job, lanes, first, stop))
            for first in range(start, stop, per_round)
        )

        # devices begin the next calls before the reader has what these return
        for (first, results), _ in itertools.pairwise(
            itertools.chain(begun, [(stop, [])])
        ):
            last = min(first + per_round, stop)
            job.report(first, last)
            in_order = functools.partial(_in_order, job, last - first)
            yield first, jax.tree.map(in_order, *results)


def _begun(job: Job, lanes: Sequence[Callable], first: int, stop: int) -> list[Any]:
    """Begin a call in each lane, and return what they will return.

    Blocks are dealt to lanes and devices in turn, so that all have work, however few
    there are.
    """
    shape = job.blocks_per_call, len(lanes), len(job.devices)
    blocks = first + np.arange(math.prod(shape)).reshape(shape)
    valid = np.clip(job.num_samples - blocks * job.block_size, 0, job.block_size)
    valid = np.where(blocks < stop, valid, 0)
    dealt = (
        np.moveaxis(numbers.astype(dtype), 0, -1).reshape(len(lanes), -1)
        for numbers, dtype in ((blocks, np.uint32), (valid, np.int32))
    )
    return [
        lane(job.key_data, *part) for lane, *part in zip(lanes, *dealt, strict=True)
    ]


def _in_order(job: Job, count: int, *leaves: jax.Array) -> np.ndarray:
    """Return what was made of blocks that lanes and devices were dealt, in order."""
    dealt = np.concatenate(leaves)
    places = len(leaves) * len(job.devices), job.blocks_per_call
    in_turn = dealt.reshape(*places, *dealt.shape[1:]).swapaxes(0, 1)
    return job.trimmed(in_turn.reshape(dealt.shape)[:count])


def _stored(job: Job, run: runs.Run) -> Iterator[tuple[int, Any]]:
    """Compute and write what is missing of the run, then yield it, file by file."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(_kept(job))
    named = {f"block{jax.tree_util.keystr(place)}": leaf for place, leaf in leaves}
    writes = jax.process_index() == min(device.process_index for device in job.devices)
    run = run.bind(_spec(job, run, named), job.block_size, _stored_samples(job), writes)
    per_file = run.blocks_per_file
    missing = _missing(job, run, writes)
    for number in np.flatnonzero(~missing).tolist():
        job.report(number * per_file, (number + 1) * per_file)

    # compute what is missing, and write it
    for first, last in _stretches(np.flatnonzero(missing).tolist()):
        for number, blocks in _computed_files(job, first, last, per_file):
            if writes:
                stacked = map(np.stack, zip(*blocks, strict=True))
                run.write(number, dict(zip(named, stacked, strict=True)))
    if _programs.several(job.devices):
        multihost_utils.sync_global_devices("the run is written")

    # read all; NumPy files do not know bfloat16, but keep its bits
    for number in range(len(missing)):
        arrays = run.read(number)
        kept = [arrays[name].view(leaf.dtype) for name, leaf in named.items()]
        yield number * per_file, jax.tree.unflatten(structure, kept)


def _missing(job: Job, run: runs.Run, writes: bool) -> np.ndarray:
    """Return which files of the run are missing, as the process that writes sees it."""
    count = -(-job.num_blocks // run.blocks_per_file)
    missing = np.ones(count, bool)
    if writes:
        missing = np.isin(np.arange(count), run.missing(count))
    if _programs.several(job.devices):
        missing = np.asarray(multihost_utils.broadcast_one_to_all(missing))
    return missing


def _computed_files(
    job: Job, first: int, last: int, per_file: int
) -> Iterator[tuple[int, list[tuple[np.ndarray, ...]]]]:
    """Yield (file, its blocks, each as leaves) from first to last, once computed."""
    stop = min(last * per_file, job.num_blocks)
    blocks = (
        block
        for _, result in _computed(job, first * per_file, stop)
        for block in zip(*jax.tree.leaves(result), strict=True)
    )
    for number in range(first, last):
        count = min(per_file, job.num_blocks - number * per_file)
        yield number, list(itertools.islice(blocks, count))


def _stretches(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the stretches (first, one past the last) of increasing numbers.

    >>> _stretches([0, 1, 2, 5, 7, 8])
    [(0, 3), (5, 6), (7, 9)]
    """
    stretches: list[tuple[int, int]] = []
    for number in numbers:
        if stretches and stretches[-1][1] == number:
            stretches[-1] = (stretches[-1][0], number + 1)
        else:
            stretches.append((number, number + 1))
    return stretches


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
        "path": _fingerprints.fingerprint(job.jaxpr, jax.tree.leaves(job.path)),
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
