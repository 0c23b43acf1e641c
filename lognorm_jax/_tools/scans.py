"""Layers one after another: scanned where they repeat, so compile time does not grow
with depth.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

Kind = TypeVar("Kind", bound=Hashable)
Carry = TypeVar("Carry")
Output = TypeVar("Output")
Tree = TypeVar("Tree")


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
        carry, trace = repeated(pattern_step, carry, rows, times)
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), trace)
        outputs.append(flat)
    return carry, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *outputs)


def repeated(
    step: Callable, carry: Any, rows: Any, times: int, *, reverse: bool = False
) -> tuple[Any, Any]:
    """Return ``lax.scan``; of one row the step itself, which may change shapes."""
    if times > 1:
        return lax.scan(step, carry, rows, times, reverse)
    carry, output = step(carry, jax.tree.map(lambda row: row[0], rows))
    return carry, jax.tree.map(lambda leaf: leaf[None], output)


def scan_room(
    step: Callable, carry: Carry, used: ArrayLike, rows: Any, nothing: Output
) -> tuple[Carry, Output]:
    """Apply ``step(carry, row)`` to the layers that are there, of those there is room
    for.

    Args:
        step: (carry, row) -> (carry, output).
        carry: what the first step is given.
        used: (room,), whether there is such a layer.
        rows: a pytree stacked over the room.
        nothing: the output of a layer that is not there.

    Returns:
        (carry, outputs stacked over the room).
    """

    def step_if_used(carry, place):
        there, row = place
        return lax.cond(there, lambda: step(carry, row), lambda: (carry, nothing))

    return lax.scan(step_if_used, carry, (jnp.asarray(used), rows))


def numbers(layers: np.ndarray) -> jax.Array:
    """Return the indices of layers as rows for ``scan_layers``."""
    return jnp.asarray(layers, jnp.uint32)


def taken(table: ArrayLike, layers: np.ndarray) -> jax.Array:
    """Return the rows of a table, one per layer, of layers that are evenly apart."""
    first, last = int(layers[0]), int(layers[-1])
    step = int(layers[1]) - first if len(layers) > 1 else 1
    return jnp.asarray(table)[first : last + 1 : step]


def by_form(
    trees: Sequence[Tree], places: np.ndarray
) -> tuple[tuple[Tree, ...], np.ndarray]:
    """Return trees that differ in numbers only as one tree of arrays.

    Args:
        trees: of numbers that are known, those of one structure of the same shapes.
        places: (layers,), which of the trees each layer has.

    Returns:
        For each structure a tree, leaves (layers, …), with any numbers for layers of
        another structure; and (layers,), which structure each has.

    >>> forms, form = by_form([(1,), (2,), [3]], np.array([2, 0, 1, 0]))
    >>> [leaf.tolist() for leaf in jax.tree.leaves(forms)], form.tolist()
    ([[1, 1, 2, 1], [3, 3, 3, 3]], [1, 0, 0, 0])
    """
    structures: list[Any] = list(map(jax.tree.structure, trees))
    distinct, order = order_of(structures)
    form = np.frombuffer(order, np.int32)
    forms = []
    for number in range(len(distinct)):
        own = form == number
        first = trees[int(np.argmax(own))]
        rows = [
            tree if is_own else first for tree, is_own in zip(trees, own, strict=True)
        ]
        forms.append(jax.tree.map(lambda *leaves: np.stack(leaves)[places], *rows))
    return tuple(forms), form[places]


def order_of(kinds: Sequence[Kind]) -> tuple[tuple[Kind, ...], bytes]:
    """Return the distinct kinds of layers, and which of them each layer is.

    As bytes, which are quick to compare, and to hash, at any depth.

    >>> distinct, order = order_of("ABAAB")
    >>> distinct, "".join(in_order(distinct, order))
    (('A', 'B'), 'ABAAB')
    """
    number = {kind: i for i, kind in enumerate(dict.fromkeys(kinds))}
    places = np.array([number[kind] for kind in kinds], np.int32)
    return tuple(number), places.tobytes()


def in_order(distinct: Sequence[Kind], order: bytes) -> list[Kind]:
    """Return the kind of each layer, from what ``order_of`` returned."""
    return [distinct[i] for i in np.frombuffer(order, np.int32)]
