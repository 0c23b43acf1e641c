"""Random matrix products followed layer by layer: pure functions ``key -> Trace``.

A path holds one vector, renormalised after each layer, and never the product. It lives in JAX, in
float32 unless told otherwise, and is meant to be run by ``sampling.sample`` or lifted by ``vmap``.
"""

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lognorm_jax import checks, ensembles, probes

Path = Callable[[jax.Array], "Trace"]
"""A pure function of one typed key, free of side effects: the same key gives the same trace.

It may carry an attribute ``footprint``, the number of floats that one sample keeps alive at once;
the engine then batches samples so that they stay in cache.
"""


class Trace(NamedTuple):
    """One product, or a stack of them, layer by layer."""

    increment: jax.Array | np.ndarray  # (..., depth): ln R_i, −inf from the layer that died on
    quartic: jax.Array | np.ndarray | None  # (..., depth): κ before each layer, 0 once dead

    @property
    def log_norm(self) -> jax.Array | np.ndarray:  # (...)
        """Σ ln R_i, the log of the SQUARED norm; −inf if dead. NumPy traces sum in float64."""
        if isinstance(self.increment, np.ndarray):
            return self.increment.sum(-1, dtype=np.float64)
        return self.increment.sum(-1)


def repetitions(kinds: Sequence[Hashable], longest: int = 8) -> Iterator[tuple[int, int, int]]:
    """Yield (start, period, times): consecutive stretches of layers, each a pattern repeated.

    Greedy: from each start the pattern, of at most ``longest`` layers, that repeats over the most.

    >>> list(repetitions("ABCBCBCDD"))
    [(0, 1, 1), (1, 2, 3), (7, 1, 2)]
    """
    start = 0
    while start < len(kinds):
        best = (1, 1, 1)  # covered, period, times
        for period in range(1, min(longest, (len(kinds) - start) // 2) + 1):
            stop = start + period
            while stop < len(kinds) and kinds[stop] == kinds[stop - period]:
                stop += 1
            times = (stop - start) // period
            if times > 1 and times * period > best[0]:
                best = (times * period, period, times)
        covered, period, times = best
        yield start, period, times
        start += covered


def scan_layers(
    kinds: Sequence[Hashable], step_of: Callable, carry: Any, constants: np.ndarray
) -> tuple[Any, Any]:
    """Apply ``step_of(kind)(carry, (layer, constant))`` layer after layer.

    Stretches of repeated kinds are scanned, so compile time does not grow with their length.
    kinds, constants: one entry a layer. Returns (carry, outputs stacked over layers).
    """
    outputs = []
    for start, period, times in repetitions(kinds):
        steps = [step_of(kind) for kind in kinds[start : start + period]]

        def pattern_step(carry, rows, steps=steps):
            traces = []
            for step, row in zip(steps, zip(*rows, strict=True), strict=True):
                carry, trace = step(carry, row)
                traces.append(trace)
            return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *traces)

        layers = start + np.arange(times * period).reshape(times, period)
        rows = jnp.asarray(layers, jnp.uint32), jnp.asarray(constants[layers])
        if times == 1:
            carry, trace = pattern_step(carry, jax.tree.map(lambda row: row[0], rows))
        else:
            carry, trace = lax.scan(pattern_step, carry, rows)
            trace = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), trace)
        outputs.append(trace)
    return carry, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *outputs)


def dense(ensemble: ensembles.Ensemble, direction: Any = None, *, dtype: Any = None) -> Path:
    """Return the path that draws every matrix of the product whole, for any law of weights.

    Layer l draws W and D from ``fold_in(key, 2l)`` and ``fold_in(key, 2l + 1)``, so the first
    layers of a deeper product are the same draws. (Their traces are the same bits where they are
    scanned alike; a layer compiled outside its scan may differ in the last one.) The scale 1/(m2 n)
    enters in the log, not in the matrix. For weights with atoms, coordinates of W x that are 0 up
    to rounding, |(W x)_a| ≤ 4 eps √n ‖x‖, are set to 0. Make a path once: each call returns another
    one, which would be compiled again.

    direction: (n_0,), any length but zero; default the flat vector. May be traced (jit, grad).
    dtype: floating, default JAX's own: float32, or float64 with x64.

    Raises ``ValueError`` for a bad direction, and the path for a key that is not one typed key.

    >>> from lognorm_jax import masks, weights
    >>> ensemble = ensembles.Ensemble((4, 8, 8), weights.normal(), masks.relu())
    >>> dense(ensemble)(jax.random.key(0)).increment.shape
    (2,)
    """
    unit = ensembles.unit_direction(ensemble, direction)
    dtype = checks.floating("dtype", jnp.result_type(float) if dtype is None else dtype)
    widths, law = ensemble.widths, ensemble.weights
    exact_enough = not law.atoms or jnp.finfo(dtype).bits >= 32
    allowed = (
        f"float32 or float64, to tell the exact zeros of {law.name} weights from small numbers"
    )
    checks.require(exact_enough, "dtype", dtype, allowed)
    m2 = np.array([float(mask.moment(1)) for mask in ensemble.masks])
    log_scale = ensembles.fan_shift(ensemble) - np.log(m2 * np.array(widths[1:]))  # (depth,)
    kinds = list(zip(widths[:-1], widths[1:], ensemble.masks, strict=True))

    def step_of(key, kind):
        n_in, n_out, mask = kind
        rounding = 4 * float(jnp.finfo(dtype).eps) * n_in**0.5 if law.atoms else 0.0

        def layer_step(x, row):
            layer, log_scale = row
            own = 2 * layer + jnp.arange(2, dtype=jnp.uint32)
            key_weight, key_mask = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, own)
            W = law.sample(key_weight, (n_out, n_in), dtype)
            D = mask.sample(key_mask, (n_out,), dtype)
            y = jnp.dot(W, x, precision="highest")
            y = jnp.where(jnp.abs(y) <= rounding, jnp.zeros_like(y), y)
            log_square, x_next = probes.normalise(D * y)
            return x_next, Trace(log_square + log_scale, probes.quartic(x))

        return layer_step

    def path(key):
        step = functools.partial(step_of, checks.typed_key(key))
        return scan_layers(kinds, step, jnp.asarray(unit, dtype), log_scale.astype(dtype))[1]

    path.footprint = max(n_in * n_out for n_in, n_out, _ in kinds)
    return path
