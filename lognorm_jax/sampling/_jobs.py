"""What a call of ``sampling.sample`` or ``stream`` asks for, checked at the door."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax._tools import checks, traces
from lognorm_jax.sampling import _lapack, _memory, runs

CALL_FLOATS = 1 << 22  # what one call may return for each device, roughly
_OUTSIDE = (
    "Sampling runs on the host: call it outside of jit, vmap and grad; to transform "
    "what is sampled, transform the path, which is a pure function: "
    "jax.vmap(path)(keys)."
)
_SMALLER = (
    "Take fewer samples, or sampling.stream, which keeps only moments; or sample "
    "parts, each with its own key."
)


class Reduction(NamedTuple):
    """What is kept of a block, once it has run."""

    name: str
    # (trace of the block, how many of its samples count) -> what is kept
    reduce: Callable[[Any, jax.Array], Any]
    keeps_samples: bool  # of the block all, also those beyond the last that counts
    # (leaf, depth) -> leaf without the layers that a path only has room for
    trim: Callable[[Any, int], Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """A call of ``sample`` or ``stream``, checked."""

    path: traces.Path
    reduction: Reduction
    key_data: np.ndarray
    num_samples: int
    block_size: int
    blocks_per_call: int  # of each device
    devices: tuple[jax.Device, ...]
    progress: Callable[[int], object] | None
    run: runs.Run | None
    shapes: Any  # of path(key), without layers that it only has room for
    jaxpr: Any  # of (path, key)

    @property
    def num_blocks(self) -> int:
        """Return how many blocks hold the samples."""
        return -(-self.num_samples // self.block_size)

    def trimmed(self, leaf: np.ndarray) -> np.ndarray:
        """Return what is kept of blocks, without layers that are not there."""
        depth = self.path.depth
        return leaf if depth is None else self.reduction.trim(leaf, int(depth))

    def report(self, start: int, stop: int) -> None:
        """Tell how many new samples the blocks from start to stop hold."""
        first = min(start * self.block_size, self.num_samples)
        last = min(stop * self.block_size, self.num_samples)
        if self.progress is not None and last > first:
            self.progress(last - first)


def checked(
    path: Callable[[jax.Array], Any],
    reduction: Reduction,
    key: jax.Array,
    num_samples: int,
    *,
    block_size: int,
    blocks_per_call: int | None,
    devices: Sequence[jax.Device] | None,
    progress: Callable[[int], object] | None,
    run: runs.Run | None,
) -> Job:
    """Return what was asked for, or raise ``ValueError`` naming what is wrong."""
    usable = callable(path) and isinstance(path, Hashable)
    instead = "Make it with a call such as paths.dense(ensemble)."
    checks.require(usable, "path", path, "a hashable function key -> Trace", instead)
    key_data = _key_data(key)
    num_samples = checks.integer("num_samples", num_samples, 1)
    block_size = checks.integer("block_size", block_size, 1)
    _require_options(progress, run)

    # what depends on what the path returns
    program = traces.as_path(path)
    shapes, jaxpr = _traced(program, key)
    increment = getattr(shapes, "increment", None)
    usable = reduction.keeps_samples or getattr(increment, "ndim", 0) == 1
    checks.require(usable, "path(key)", shapes, "a Trace", "sample takes any pytree.")
    chosen = _devices(devices)
    if _lapack.called(jaxpr, chosen):
        chosen = _lapack.one_each(chosen)
    return Job(
        path=program,
        reduction=reduction,
        key_data=key_data,
        num_samples=num_samples,
        block_size=block_size,
        blocks_per_call=_blocks_per_call(blocks_per_call, block_size, shapes),
        devices=chosen,
        progress=progress,
        run=run,
        shapes=shapes,
        jaxpr=jaxpr,
    )


def _require_options(progress: object, run: object) -> None:
    """Require what may be None to be of its kind."""
    if progress is not None:
        allowed = "None, or a function of the new samples"
        checks.function("progress", progress, allowed)
    if run is not None:
        checks.instance("run", run, runs.Run)


def require_room(job: Job) -> None:
    """Raise ``ValueError`` for samples that the free memory does not hold."""
    leaves = jax.tree.leaves(job.shapes)
    needed = job.num_samples * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    free = _memory.free()
    if free is not None and needed > free:
        gigabytes = f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        allowed = f"so small that the result fits in memory: it would take {gigabytes}"
        checks.require(False, "num_samples", job.num_samples, allowed, _SMALLER)


def _devices(given: Sequence[jax.Device] | None) -> tuple[jax.Device, ...]:
    """Return the devices, all if none are given."""
    devices = jax.devices() if given is None else given
    usable = (
        isinstance(devices, Sequence)
        and len(devices) >= 1
        and all(isinstance(device, jax.Device) for device in devices)
        and len(set(devices)) == len(devices)
    )
    allowed = "a sequence of at least one jax.Device, all different"
    checks.require(usable, "devices", given, allowed)
    return tuple(devices)


def _blocks_per_call(given: int | None, block_size: int, shapes: Any) -> int:
    """Return how many blocks a device runs in a call, by default what keeps it busy."""
    if given is None:
        floats = block_size * sum(leaf.size for leaf in jax.tree.leaves(shapes))
        blocks = min(CALL_FLOATS // floats, 16)
    else:
        blocks = checks.integer("blocks_per_call", given, 1)
    # one block would be compiled in another way
    return max(blocks, 2)


def _key_data(key: jax.Array) -> np.ndarray:
    """Return the numbers of a key, where there are any: not if it is traced."""
    checks.typed_key(key)
    try:
        return np.asarray(jax.random.key_data(key))
    except jax.errors.TracerArrayConversionError:
        allowed = "a key that is known, outside of jit"
        checks.require(False, "key", key, allowed, _OUTSIDE)
        raise


def _require_numbers(path: traces.Path) -> None:
    """Require arrays without NaN, before anything is compiled."""
    for place, leaf in jax.tree.leaves_with_path(path):
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.floating) and np.isnan(np.asarray(leaf)).any():
            name = f"path{jax.tree_util.keystr(place)}"
            checks.refuse(name, leaf, "made of numbers, without NaN")


def _refuse_arrays(arrays: list[Any], error: Exception) -> NoReturn:
    """Raise ``ValueError`` for arrays that a program cannot take."""
    shapes = [f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for leaf in arrays]
    reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
    allowed = f"arrays that the path's program takes, which fails with: {reason}"
    instead = "Make the path by its function, with the new numbers."
    checks.refuse("path.arrays", shapes, allowed, instead)


def _traced(path: traces.Path, key: jax.Array) -> tuple[Any, Any]:
    """Return the shapes of path(key), and the jaxpr of (path, key), which JAX keeps."""
    allowed = "a function of its key alone, of known numbers"
    arrays = jax.tree.leaves(path)
    known = not any(map(checks.traced, arrays))
    checks.require(known, "path", path, allowed, _OUTSIDE)
    _require_numbers(path)
    try:
        traced = traces.traced(path, key)
    except (TypeError, ValueError) as error:
        if not arrays:
            raise
        _refuse_arrays(arrays, error)
    # what else is traced becomes another argument
    alone = len(traced.jaxpr.in_avals) == len(arrays) + 1
    checks.require(alone, "path", path, allowed, _OUTSIDE)

    shapes = jax.eval_shape(path.trimmed, traced.out_info)
    leaves = jax.tree.leaves(shapes)
    keys = [jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended) for leaf in leaves]
    usable = not any(keys) and any(leaf.size for leaf in leaves)
    allowed = "a pytree of arrays of numbers, not all empty"
    checks.require(usable, "path(key)", shapes, allowed)
    return shapes, traced.jaxpr
