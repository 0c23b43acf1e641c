"""Random matrix products followed layer by layer: pure functions ``key -> Trace``.

A path never holds the product: ``dense`` follows one vector, renormalised after each
layer, and ``transport`` draws the increments themselves. It lives in JAX, in JAX's own
precision unless told otherwise, and is meant to be run by ``sampling.sample`` or lifted
by ``vmap``.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax import lax

from lognorm_jax import ensembles, masks
from lognorm_jax._tools import checks, norms, scans, traces

BATCH = 256  # samples that are run together, or so, when tiles are chosen


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


def _tile(width: int, mask: masks.Mask) -> int:
    """Return how many surviving coordinates a tile has room for: all, where few are
    ever lost.

    Only masks with one non-zero value are thinned. The room is that of least expected
    cost: the tile itself, and the whole matrix where some of BATCH samples has more
    survivors, in its rows or its columns. Heuristic: 4 to 5 standard deviations above
    the mean.
    """
    if mask.support is None or len(mask.support) > 1 or mask.keep_prob == 1:
        return width
    # matrices with rows of other sizes take longer to draw
    room = np.arange(8, width, 8)
    overflow = 2 * BATCH * scipy.stats.binom.sf(room, width, float(mask.keep_prob))
    cost = (room / width) ** 2 + np.minimum(overflow, 1)
    return int(room[np.argmin(cost)]) if len(room) and cost.min() < 0.8 else width


def dense(
    ensemble: ensembles.Ensemble,
    direction: Any = None,
    *,
    thinned: bool = True,
    dtype: Any = None,
) -> traces.Path:
    """Return the path that draws the matrices of the product, for any law of weights.

    Layer l draws W and D from ``fold_in(key, 2l)`` and ``fold_in(key, 2l + 1)``, so the
    first layers of a deeper product are the same draws. (Their traces are the same bits
    where they are scanned alike; a layer compiled outside its scan may differ in the
    last one.) The scale 1/(m2 n) enters in the log, not in the matrix. For weights with
    atoms, coordinates of W x that are 0 up to rounding, |(W x)_a| ≤ 4 eps √n ‖x‖, are
    set to 0. Make a path once: each call returns another one, which would be compiled
    again.

    direction: (n_0,), any length but zero; default the flat vector. May be traced (jit,
    grad). thinned: for wide layers under masks with one non-zero value (relu,
    bernoulli, dropout on them) draw only the rows and columns that survive, p² of the
    weights. Rows and columns are exchangeable, so the survivors may as well come first,
    and the law is the same, exactly: where they outnumber the tile meant for them, four
    standard deviations above the mean, the whole matrix is drawn. False draws every
    weight, from other bits. dtype: floating, default JAX's own: float32, or float64
    with x64.

    Raises ``ValueError`` for a bad direction, and the path for a key that is not one
    typed key.

    >>> from lognorm_jax import weights
    >>> ensemble = ensembles.Ensemble((4, 8, 8), weights.normal(), masks.relu())
    >>> dense(ensemble)(jax.random.key(0)).increment.shape
    (2,)
    """
    unit = ensembles.unit_direction(ensemble, direction)
    dtype = checks.floating("dtype", jnp.result_type(float) if dtype is None else dtype)
    checks.require(isinstance(thinned, bool), "thinned", thinned, "True or False")
    widths, law = ensemble.widths, ensemble.weights
    exact_enough = not law.atoms or jnp.finfo(dtype).bits >= 32
    allowed = f"float32 or float64, to tell the exact zeros of {law.name} weights from small numbers"
    checks.require(exact_enough, "dtype", dtype, allowed)
    m2 = np.array([float(mask.moment(1)) for mask in ensemble.masks])
    # (depth,)
    log_scale = ensembles.fan_shift(ensemble) - np.log(m2 * np.array(widths[1:]))
    pairs = list(zip(widths[1:], ensemble.masks, strict=True))
    distinct = {pair: _tile(*pair) if thinned else pair[0] for pair in set(pairs)}
    rows = [distinct[pair] for pair in pairs]
    columns = [widths[0], *rows[:-1]]
    if thinned:
        eights = [8 * -(-m // 8) for m in columns]
        columns = [
            e if e <= 1.1 * m else m for e, m in zip(eights, columns, strict=True)
        ]
    kinds = list(
        zip(widths[:-1], widths[1:], columns, rows, ensemble.masks, strict=True)
    )

    def step_of(key, kind):
        n_in, n_out, tile_in, tile_out, mask = kind
        rounding = 4 * float(jnp.finfo(dtype).eps) * n_in**0.5 if law.atoms else 0.0

        def times_weights(key, x, overflow):
            W = law.sample(key, (tile_out, tile_in), dtype)
            x_tile = jnp.pad(x[:tile_in], (0, max(tile_in - n_in, 0)))
            y = jnp.dot(W, x_tile, precision="highest")
            if tile_out == n_out and tile_in >= n_in:
                return y

            def whole():
                W = law.sample(jax.random.fold_in(key, 1), (n_out, n_in), dtype)
                return jnp.dot(W, x, precision="highest")

            y = jnp.pad(y, (0, n_out - tile_out))
            return jnp.where(
                overflow, lax.cond(_any_of_batch(overflow), whole, lambda: y), y
            )

        def layer_step(carry, row):
            # only the first ``alive`` coordinates of x may differ from 0
            x, alive = carry
            layer, log_scale = row
            own = 2 * layer + jnp.arange(2, dtype=jnp.uint32)
            key_weight, key_mask = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
                key, own
            )
            D = mask.sample(key_mask, (n_out,), dtype)
            alive_next = jnp.int32(n_out)
            if tile_out < n_out:
                alive_next = jnp.sum(D != 0, dtype=jnp.int32)
                value = jnp.asarray(float(mask.support[0][0]), dtype)
                D = jnp.where(
                    jnp.arange(n_out, dtype=jnp.int32) < alive_next,
                    value,
                    jnp.zeros((), dtype),
                )
            overflow = (alive > tile_in) | (alive_next > tile_out)
            y = times_weights(key_weight, x, overflow)
            y = jnp.where(jnp.abs(y) <= rounding, jnp.zeros_like(y), y)
            log_square, x_next = norms.normalise(D * y)
            increment = log_square.astype(dtype) + log_scale
            return (x_next, alive_next), traces.Trace(increment, norms.quartic(x))

        return layer_step

    def path(key):
        step = functools.partial(step_of, key)
        start = scans.unknown(jnp.asarray(unit, dtype)), jnp.int32(widths[0])
        return scans.scan_layers(
            kinds, step, start, scans.numbered(log_scale.astype(dtype))
        )[1]

    # the whole matrices, hardly ever wanted, need room too, but not in the cache
    footprint = max(max(a * b, m * n // 8) for m, n, a, b, _ in kinds)
    return scans.compiled(path, footprint)
