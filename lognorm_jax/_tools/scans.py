"""Layers one after another: scanned where they repeat, so compile time does not grow
with depth.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lognorm_jax._tools import checks


def repetitions(
    kinds: Sequence[Hashable], longest: int = 8
) -> Iterator[tuple[int, int, int]]:
    """Yield (start, period, times): consecutive stretches of layers, each a pattern
    repeated.

    Greedy: from each start the pattern, of at most ``longest`` layers, that repeats
    over the most.

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


def unknown(start: Any) -> Any:
    """Return the vectors that a path starts from, such that the compiler does not know
    them.

    What it computes of constants by itself may differ in the last bits from what
    devices compute, and it does so on one device but not on several.
    """
    return lax.optimization_barrier(start)


def scan_layers(
    kinds: Sequence[Hashable],
    step_of: Callable,
    carry: Any,
    rows_of: Callable[[np.ndarray], Any],
) -> tuple[Any, Any]:
    """Apply ``step_of(kind)(carry, row)`` layer after layer.

    Stretches of repeated kinds are scanned, so compile time does not grow with their
    length.

    Args:
        kinds: one per layer.
        step_of: kind -> step, (carry, row) -> (carry, output).
        carry: what the first step is given.
        rows_of: indices of layers of one kind -> their rows, a pytree stacked over
            them.

    Returns:
        (carry, outputs stacked over all layers).
    """
    outputs = []
    for start, period, times in repetitions(kinds):
        steps = [step_of(kind) for kind in kinds[start : start + period]]

        def pattern_step(carry, rows, steps=steps):
            traces = []
            for step, row in zip(steps, rows, strict=True):
                carry, trace = step(carry, row)
                traces.append(trace)
            return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *traces)

        rows = [rows_of(start + i + period * np.arange(times)) for i in range(period)]
        if times == 1:
            carry, trace = pattern_step(carry, jax.tree.map(lambda row: row[0], rows))
        else:
            carry, trace = lax.scan(pattern_step, carry, rows)
            trace = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), trace)
        outputs.append(trace)
    return carry, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *outputs)


def numbers(layers: np.ndarray) -> jax.Array:
    """Return the indices of layers as rows for ``scan_layers``."""
    return jnp.asarray(layers, jnp.uint32)


def compiled(path: Callable) -> Callable:
    """Return a path that is compiled once, however often it is called by itself.

    Scans of a plain function would be compiled anew in each eager call, and their
    programs kept. In the engine, or under any transformation, it is the plain function.

    Raises:
        ValueError: the path, for a key that is not one typed key.
    """
    whole = jax.jit(path, inline=True)

    def called(key):
        return whole(checks.typed_key(key))

    return called
