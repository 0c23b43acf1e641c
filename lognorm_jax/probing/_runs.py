"""Layers that do the same with other arrays: scanned, so traced and compiled once.

Only inside a program: by itself a scan would be compiled at each call.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lognorm_jax._tools import callables, scans
from lognorm_jax.probing import _shapes
from lognorm_jax.probing._layers import Labelled


class Run(NamedTuple):
    """Layers that are applied in turn: once, or over and over with other arrays."""

    layers: Labelled  # of one repetition
    programs: Sequence[callables.Program] = ()  # what these do
    arrays: Any = None  # of each, stacked over the repetitions
    times: int = 1

    def scan(
        self, step: Callable, carry: Any, rows: Any = None, *, reverse: bool = False
    ) -> tuple[Any, Any]:
        """Return what ``step(carry, layers, row)`` leads to, and its outputs.

        Rows and outputs are stacked where the layers are repeated.
        """
        if self.times == 1:
            return step(carry, self.layers, rows)

        def repetition(carry, given):
            arrays, row = given
            layers = [
                (label, program.rebuilt(iter(own)))
                for (label, _), program, own in zip(
                    self.layers, self.programs, arrays, strict=True
                )
            ]
            return step(carry, layers, row)

        given = self.arrays, rows
        return lax.scan(repetition, carry, given, self.times, reverse=reverse)


def single(layers: Labelled) -> list[Run]:
    """Return layers as they are, in one run."""
    return [Run(layers)]


def repeated(layers: Labelled, x: jax.Array) -> list[Run]:
    """Return layers as runs: neighbours that do the same with other arrays in one.

    Args:
        layers: that can follow one another, with what errors call them.
        x: an input of the first.
    """
    taken = [callables.apart(layer) for _, layer in layers]
    programs = [program for program, _ in taken]
    runs = []
    for start, period, times in scans.repetitions(_numbers(layers, programs, x)):
        one = slice(start, start + period)
        if times == 1:
            runs.append(Run(layers[one]))
            continue
        repetitions = [
            [arrays for _, arrays in taken[first : first + period]]
            for first in range(start, start + period * times, period)
        ]
        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *repetitions)
        runs.append(Run(layers[one], programs[one], stacked, times))
    return runs


def output(layers: Labelled, x: jax.Array) -> jax.Array:
    """Return what layers give, of which those that do the same are traced once."""

    def follow(x, layers, _):
        for _, layer in layers:
            x = layer(x)
        return x, None

    for run in repeated(layers, x):
        x, _ = run.scan(follow, x)
    return x


def _numbers(
    layers: Labelled, programs: Sequence[callables.Program], x: jax.Array
) -> list[int]:
    """Return a number of each layer: that of what it does, to what shape and type."""
    shape_after = _shapes.shapes_after()
    reached = jax.ShapeDtypeStruct(x.shape, x.dtype)
    number: dict[Any, int] = {}
    numbers = []
    for (_, layer), program in zip(layers, programs, strict=True):
        kind = program, reached.shape, reached.dtype
        numbers.append(number.setdefault(kind, len(number)))
        reached = shape_after(layer, program, reached)
    return numbers
