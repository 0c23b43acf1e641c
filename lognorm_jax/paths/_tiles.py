"""The program of products of many shapes: matrices are drawn tile by tile, as they are
met.

Widths and depth are data: vectors have room for wider layers and layers for deeper
products, loops end where the product does, and one program serves them all. A matrix is
never there as a whole; that of its tiles at (r, c) is a draw of its own, whatever the
sizes of the matrix and of the vectors.
"""

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lognorm_jax import ensembles, weights
from lognorm_jax._tools import bound, checks, draws, norms, random, scans, traces
from lognorm_jax.paths import _survivors

TILE = 8, 24  # rows and columns
# room for coordinates (a multiple of both), and for layers; then four times as much, …
ROOM, DEPTH = 48, 64
MOST_KINDS = 4  # of layers that are compiled each by itself
_ROW = 1 << 16  # more tiles than a row of them has
WIDEST = 1 << 18  # of a layer, so that each tile has a number of its own


class Layers(NamedTuple):
    """The layers of a product, and of what there is room for: each (room,)."""

    used: np.ndarray | jax.Array  # whether there is such a layer
    n_in: np.ndarray | jax.Array
    n_out: np.ndarray | jax.Array
    # key -> which rows survive, for each structure; and which of them
    survivors: tuple[bound.Bound, ...]
    form: np.ndarray | jax.Array
    log_scale: np.ndarray | jax.Array


def path(
    ensemble: ensembles.Ensemble,
    unit: jax.Array | np.ndarray,
    log_scale: np.ndarray,
    thinned: bool,
    dtype: jax.typing.DTypeLike,
) -> traces.Path:
    """Return the path of a product along a unit vector, (n_0,)."""
    room = room_of(max(ensemble.widths), ROOM)
    distinct, order = scans.order_of(ensemble.masks)
    of_masks = [_survivors.of(mask, thinned) for mask in distinct]
    survivors, form = scans.by_form(of_masks, np.frombuffer(order, np.int32))
    layers = Layers(
        used=np.ones(ensemble.depth, bool),
        n_in=np.array(ensemble.widths[:-1], np.int32),
        n_out=np.array(ensemble.widths[1:], np.int32),
        survivors=survivors,
        form=form,
        log_scale=log_scale,
    )
    spare = room_of(ensemble.depth, DEPTH) - ensemble.depth
    layers = jax.tree.map(lambda leaf: np.pad(leaf, (0, spare)), layers)
    padded = jnp.pad if isinstance(unit, jax.Array) else np.pad
    start = padded(unit, (0, room - ensemble.widths[0]))
    choices: tuple[Any, ...] = ensemble.weights, dtype
    depth = np.int32(ensemble.depth)
    return traces.Path(_product, choices, (start, layers), depth)


def room_of(size: int, least: int) -> int:
    """Return the room for so many coordinates, or layers: 1, 4, 16, … times the least.

    >>> [room_of(size, 48) for size in (1, 48, 49, 1000)]
    [48, 48, 192, 3072]
    """
    return next(least * 4**i for i in itertools.count() if least * 4**i >= size)


def weights_of(rows: int, columns: int) -> int:
    """Return how many weights the tiles of a matrix hold."""
    return math.prod(map(_tiles_of, (rows, columns), TILE)) * math.prod(TILE)


def _tiles_of(count: Any, edge: int) -> Any:
    """Return how many tiles of an edge hold a count, which may be traced."""
    return -(-count // edge)


def _product(
    law: weights.Weights,
    dtype: Any,
    start: jax.Array,
    layers: Layers,
    key: jax.Array,
) -> traces.Trace:
    """Return the trace of one product; zeros for layers that it does not have."""
    x = scans.unknown(jnp.asarray(start, dtype))
    room = len(x)
    # in another room, tiles at its end would lie elsewhere
    checks.require(room_of(room, ROOM) == room, "room", room, "48, 192, 768, …")
    step = functools.partial(_layer_step, law, dtype)
    nothing = traces.Trace(jnp.zeros((), dtype), jnp.zeros((), dtype))

    layers = jax.tree.map(jnp.asarray, layers)
    rows = layers, draws.of_layers(key, len(layers.used), 2)
    carry = x, layers.n_in[0]
    return scans.scan_room(step, carry, layers.used, rows, nothing)[1]


def _layer_step(
    law: weights.Weights,
    dtype: Any,
    carry: tuple[jax.Array, jax.Array],
    row: tuple[Layers, jax.Array],
) -> tuple[tuple[jax.Array, jax.Array], traces.Trace]:
    """Return what a layer makes of (x, how many of its first coordinates may not be 0),
    and its trace.
    """
    x, alive = carry
    layer, (key_weight, key_mask) = row
    branches = [
        functools.partial(form, dtype, key_mask, len(x)) for form in layer.survivors
    ]
    if len(branches) == 1:
        D, alive_next = branches[0](layer.n_out)
    else:
        D, alive_next = lax.switch(layer.form, branches, layer.n_out)

    y = product(law, key_weight, x, alive_next, alive)
    if law.atoms:
        # sums of weights with atoms may cancel exactly, but for rounding
        eps = 4 * float(jnp.finfo(dtype).eps)
        rounding = eps * jnp.sqrt(layer.n_in.astype(dtype))
        y = jnp.where(jnp.abs(y) <= rounding, jnp.zeros_like(y), y)

    # what the layer did to the norm, and the direction that goes on
    log_square, x_next = norms.normalise(D * y)
    increment = log_square.astype(dtype) + layer.log_scale.astype(dtype)
    return (x_next, alive_next), traces.Trace(increment, norms.quartic(x))


def product(
    law: weights.Weights,
    key: jax.Array,
    x: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
) -> jax.Array:
    """Return W x, of the first rows and columns of a matrix that is drawn as it is met.

    Rows and columns beyond these are those of other samples that run together; x is 0
    there, and what is returned means nothing.

    Args:
        law: of a weight.
        key: of the matrix.
        x: (room,), a multiple of the edges of a tile, or several, (room, k).
        rows: how many of W, at most the room.
        columns: how many of W, and of x, at most the room.
    """
    rows, columns = map(_tiles_of, (_most(rows), _most(columns)), TILE)

    def over_tiles(add, x):
        def tile_step(t, y):
            row, column = t // columns, t % columns
            key_tile = random.fold_in(key, row * _ROW + column)
            W = law.sample(key_tile, (math.prod(TILE),), x.dtype).reshape(TILE)
            return add(W, row * TILE[0], column * TILE[1], x, y)

        return lax.fori_loop(0, rows * columns, tile_step, jnp.zeros_like(x))

    # a linear map whose transpose is stated: for derivatives of any kind, without
    # keeping a matrix
    return lax.custom_linear_solve(
        lambda y: y,
        x,
        lambda _, x: over_tiles(_add_product, x),
        lambda _, y: over_tiles(_add_transposed, y),
    )


def _add_product(W, row, column, x, y):
    """Return y plus the product of one tile with its part of x."""
    rows, columns = W.shape
    part = lax.dynamic_slice_in_dim(x, column, columns)
    more = jnp.dot(W, part, precision="highest")
    old = lax.dynamic_slice_in_dim(y, row, rows)
    return lax.dynamic_update_slice_in_dim(y, old + more, row, axis=0)


def _add_transposed(W, row, column, y, x):
    """Return x plus the product of one tile, transposed, with its part of y."""
    return _add_product(W.T, column, row, y, x)


@jax.custom_batching.custom_vmap
def _most(count: jax.Array) -> jax.Array:
    """Return the largest count of all samples that are run together with this one.

    The same for all of them, so that under vmap loops still end for all at once.
    """
    return count


@_most.def_vmap
def _most_rule(axis_size, in_batched, count):
    del axis_size, in_batched
    return _most(jnp.max(count)), False
