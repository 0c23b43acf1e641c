"""The path of a product whose matrices are drawn, of any law of weights."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import lax

from lognorm_jax import ensembles, masks, weights
from lognorm_jax._tools import bound, checks, draws, norms, scans, traces
from lognorm_jax.paths import _survivors, _tiles

BATCH = 256  # samples that are run together, or so, when tiles are chosen
_MORE_WEIGHTS = 1.5  # at most, of products that are drawn in tiles


class _Kind(NamedTuple):
    """A kind of layer: its matrix, and the tile of it that is drawn."""

    n_in: int
    n_out: int
    columns: int  # of the tile; more than n_in where that is quicker
    rows: int
    form: int  # the structure of what tells which rows survive


def dense(
    ensemble: ensembles.Ensemble,
    direction: jax.typing.ArrayLike | None = None,
    *,
    thinned: bool = True,
    tiled: bool | None = None,
    dtype: jax.typing.DTypeLike | None = None,
) -> traces.Path:
    """Return the path that draws the matrices of the product, for any law of weights.

    Layer l draws from keys of its own, so the first layers of a deeper product are the
    same draws. (Their traces are the same bits where they are scanned alike; a layer
    compiled outside its scan may differ in the last one.) The scale 1/(m2 n) enters in
    the log, not in the matrix. For weights with atoms, coordinates of W x that are 0 up
    to rounding, |(W x)_a| ≤ 4 eps √n ‖x‖, are set to 0. The direction is an array of
    the path, and so are the numbers of masks, such as slopes, and keep
    probabilities but for the sizes that they choose, and but for 1/2, 1, and at most
    1/1000, which are drawn in other ways; widths, weights, dtype and what kinds of
    masks there are are its program.

    Args:
        ensemble: the product.
        direction: (n_0,), any length but zero; default the flat vector. May be traced
            (jit, grad).
        thinned: for wide layers under masks with one non-zero value (relu, bernoulli,
            dropout on them) draw only the rows and columns that survive, p² of the
            weights. Rows and columns are exchangeable, so the survivors may as well
            come first, and the law is the same, exactly: where they outnumber the tile
            meant for them, four standard deviations above the mean, the whole matrix is
            drawn. False draws every weight, from other bits.
        tiled: draw matrices tile by tile as they are met, by a program that serves any
            widths and depth of the same room, 32, 128, 512, …. False: by one of these
            very shapes, each matrix as a whole, from other bits. None: tiles on CPUs,
            for normal weights where they are at most half as many weights again, and
            for any product of more than four layers that differ in more than numbers.
        dtype: floating, default JAX's own: float32, or float64 with x64.

    Returns:
        A path: key -> Trace, with increments and quartics (depth,) of dtype.

    Raises:
        ValueError: for a direction of another shape, zero or not finite; for other
            dtypes; for tiled=True with orthogonal or structured weights, or wider than
            tiles are; the path, for a key that is not one typed key.

    Source:
        The model of theory section 0; what need not be drawn of it, theory section 4.

    >>> from lognorm_jax import weights
    >>> ensemble = ensembles.Ensemble((4, 8, 8), weights.normal(), masks.relu())
    >>> dense(ensemble)(jax.random.key(0)).increment.shape
    (2,)
    """
    unit = ensembles.unit_direction(ensemble, direction)
    dtype = jnp.result_type(float) if dtype is None else dtype
    dtype = jnp.dtype(checks.floating("dtype", dtype))
    checks.flag("thinned", thinned)
    law = ensemble.weights
    # entries that depend on one another are drawn together
    thinned = thinned and not law.whole
    _require_precision(law, dtype)
    log_scale = _log_scale(ensemble).astype(dtype)
    survivors, kinds = _kinds(ensemble, thinned)
    distinct, order = scans.order_of(kinds)
    if tiled is None:
        tiled = _better_in_tiles(law, distinct, order)
    checks.flag("tiled", tiled)
    if tiled:
        independent = "independent entries in tiles"
        checks.require(not law.whole, "ensemble.weights", law.name, independent)
        allowed = f"at most {_tiles.WIDEST} in tiles"
        widest = max(ensemble.widths)
        checks.require(widest <= _tiles.WIDEST, "max(widths)", widest, allowed)
        return _tiles.path(ensemble, unit, log_scale, thinned, dtype)
    choices: tuple[Any, ...] = law, dtype, distinct, order
    return traces.Path(_product, choices, (unit, log_scale, survivors))


def _product(
    law: weights.Weights,
    dtype: jax.typing.DTypeLike,
    distinct: tuple[_Kind, ...],
    order: bytes,
    unit: jax.Array,
    log_scale: jax.Array,
    survivors: tuple[bound.Bound, ...],
    key: jax.Array,
) -> traces.Trace:
    """Return the trace of one product along a unit vector."""
    kinds = scans.in_order(distinct, order)
    step_of = functools.partial(_product_step, law, dtype, key)

    def rows_of(layers):
        form = survivors[kinds[layers[0]].form]
        chosen = jax.tree.map(lambda leaf: scans.taken(leaf, layers), form)
        return scans.numbers(layers), scans.taken(log_scale, layers), chosen

    start = scans.unknown(jnp.asarray(unit, dtype))
    carry = start, jnp.int32(kinds[0].n_in)
    return scans.scan_layers(kinds, step_of, carry, rows_of)[1]


def _better_in_tiles(
    law: weights.Weights, distinct: tuple[_Kind, ...], order: bytes
) -> bool:
    """Return whether to draw tiles: programs of these very shapes take long to compile
    if there are many, and longer to run where tiles hold little more.

    Others than normal weights are quicker to draw by the matrix. Elsewhere than on CPUs
    tiles are too small to keep a device busy.
    """
    widest = max(max(kind.n_in, kind.n_out) for kind in distinct)
    if jax.default_backend() != "cpu" or widest > _tiles.WIDEST or law.whole:
        return False
    if len(distinct) > _tiles.MOST_KINDS:
        return True
    counts = np.bincount(np.frombuffer(order, np.int32))
    sizes = [(kind.rows, kind.columns) for kind in distinct]
    drawn = counts @ list(map(math.prod, sizes))
    in_tiles = counts @ list(itertools.starmap(_tiles.weights_of, sizes))
    return law.gaussian and bool(in_tiles <= _MORE_WEIGHTS * drawn)


def _require_precision(law: weights.Weights, dtype: jax.typing.DTypeLike) -> None:
    """Require a type that tells exact zeros of sums from small numbers."""
    allowed = "float32 or float64, to tell the exact zeros"
    allowed += f" of {law.name} weights from small numbers"
    precise = not law.atoms or jnp.finfo(dtype).bits >= 32
    checks.require(precise, "dtype", dtype, allowed)


def _log_scale(ensemble: ensembles.Ensemble) -> np.ndarray:  # (depth,)
    """Return what is added to ln ‖D W x‖² of each layer: −ln(m2 n), and the fan's."""
    distinct, table = ensembles.layer_index(ensemble)
    scale = [float(mask.moment(1)) * width for width, mask in distinct]
    return ensembles.fan_shift(ensemble) - np.log(scale)[table]


def _kinds(
    ensemble: ensembles.Ensemble, thinned: bool
) -> tuple[tuple[bound.Bound, ...], list[_Kind]]:
    """Return what tells which rows survive, of each structure, and layers' kinds."""
    distinct, table = ensembles.layer_index(ensemble)
    rooms = [_room(*layer) if thinned else layer[0] for layer in distinct]
    rows = [rooms[i] for i in table]
    columns = [ensemble.widths[0], *rows[:-1]]
    if thinned:
        columns = [_quick(count) for count in columns]
    pairs = zip(ensemble.widths[:-1], ensemble.widths[1:], strict=True)
    of_masks = [
        _survivors.of(mask, thinned and room < width)
        for room, (width, mask) in zip(rooms, distinct, strict=True)
    ]
    survivors, form = scans.by_form(of_masks, table)
    layers = zip(pairs, columns, rows, form.tolist(), strict=True)
    return survivors, [_Kind(*widths, *rest) for widths, *rest in layers]


def _room(width: int, mask: masks.Mask) -> int:
    """Return how many surviving coordinates a tile has room for: all if few are lost.

    Only masks with one non-zero value are thinned. The room is that of least expected
    cost: the tile itself, and the whole matrix where some of BATCH samples has more
    survivors, in its rows or its columns. Heuristic: 4 to 5 standard deviations above
    the mean.
    """
    if not _survivors.thin(mask):
        return width
    # matrices with rows of other sizes take longer to draw
    room = np.arange(8, width, 8)
    if not len(room):
        return width
    overflow = 2 * BATCH * scipy.stats.binom.sf(room, width, float(mask.keep_prob))
    cost = (room / width) ** 2 + np.minimum(overflow, 1)
    return int(room[np.argmin(cost)]) if cost.min() < 0.8 else width


def _quick(columns: int) -> int:
    """Return a number of columns that is quick to draw, 10% more at most."""
    eights = 8 * -(-columns // 8)
    return eights if eights <= 1.1 * columns else columns


def _product_step(
    law: weights.Weights, dtype: jax.typing.DTypeLike, key: jax.Array, kind: _Kind
) -> Callable:
    """Return the step through a layer: (carry, row) -> (carry, trace)."""
    multiply = _multiplier(law, dtype, kind)
    width = jnp.int32(kind.n_out)
    # sums of weights with atoms may cancel exactly, but for rounding
    rounding = 4 * float(jnp.finfo(dtype).eps) * kind.n_in**0.5 if law.atoms else 0.0

    def layer_step(carry, row):
        # only the first ``alive`` coordinates of x may differ from 0
        x, alive = carry
        layer, log_scale, survivors = row
        key_weight, key_mask, key_whole = draws.keys(key, layer, 3)

        # which rows survive; they come first
        D, alive_next = survivors(dtype, key_mask, kind.n_out, width)

        # only the weights that matter, or all where a tile overflows
        overflow = (alive > kind.columns) | (alive_next > kind.rows)
        y = multiply(key_weight, key_whole, x, overflow)
        y = jnp.where(jnp.abs(y) <= rounding, jnp.zeros_like(y), y)

        # what the layer did to the norm, and the direction that goes on
        log_square, x_next = norms.normalise(D * y)
        increment = log_square.astype(dtype) + log_scale
        return (x_next, alive_next), traces.Trace(increment, norms.quartic(x))

    return layer_step


def _multiplier(
    law: weights.Weights, dtype: jax.typing.DTypeLike, kind: _Kind
) -> Callable:
    """Return (key of the tile, key of the whole, x, overflow) -> W x."""

    def drawn(key, shape, x):
        return jnp.dot(law.sample(key, shape, dtype), x, precision="highest")

    def multiply(key_tile, key_whole, x, overflow):
        spare = max(kind.columns - kind.n_in, 0)
        x_tile = jnp.pad(x[: kind.columns], (0, spare))
        y = drawn(key_tile, (kind.rows, kind.columns), x_tile)
        if kind.rows == kind.n_out and kind.columns >= kind.n_in:
            return y

        # hardly ever, but then for all samples that are run together
        y = jnp.pad(y, (0, kind.n_out - kind.rows))
        shape = kind.n_out, kind.n_in
        whole = lax.cond(
            _any_of_batch(overflow), lambda: drawn(key_whole, shape, x), lambda: y
        )
        return jnp.where(overflow, whole, y)

    return multiply


@jax.custom_batching.custom_vmap
def _any_of_batch(flag: jax.Array) -> jax.Array:
    """Return whether the flag is up in any sample that is run together with this one.

    The same for all of them, so that under vmap a ``lax.cond`` on it still runs one
    branch only.
    """
    return flag


@_any_of_batch.def_vmap
def _any_of_batch_rule(axis_size, in_batched, flag):
    del axis_size, in_batched
    return _any_of_batch(jnp.any(flag)), False
