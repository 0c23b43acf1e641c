"""The parts of layers that are measured as one, and the layers made of them again."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from lognorm_jax._tools import callables
from lognorm_jax.probing import _layers, _shapes
from lognorm_jax.probing._layers import Layer


class Piece(NamedTuple):
    """Parts of a layer that are measured as one: all of them, unless some are fixed."""

    place: int  # of the layer in the list
    start: int  # of its parts: those of a chain, or the layer itself
    stop: int
    fixed: bool  # a fixed change of shape
    growth: float  # ln of the number of coordinates after it over that before


def plan(layers: Sequence[Layer], x: jax.Array) -> list[Piece]:
    """Return each layer as a piece, but fixed changes of shape in a chain apart."""
    pieces: list[Piece] = []
    shape_after = _shapes.shapes_after()
    before = jax.ShapeDtypeStruct(x.shape, x.dtype)
    for place, layer in enumerate(layers):
        for start, part in enumerate(_layers.parts(layer)):
            program, _ = callables.apart(part)
            after = shape_after(part, program, before)
            fixed = _shapes.changes_only_shape(part, before, after)
            growth = math.log(after.size / before.size)
            # neighbours in a layer that are alike are one piece
            if start > 0 and pieces[-1].fixed == fixed:
                last = pieces.pop()
                growth += last.growth
                first = last.start
            else:
                first = start
            pieces.append(Piece(place, first, start + 1, fixed, growth))
            before = after
    return pieces


def cut(layers: Sequence[Layer], pieces: Sequence[Piece]) -> list[Layer]:
    """Return the callable of each piece, from another list of the same layers."""
    cuts = []
    for piece in pieces:
        parts = _layers.parts(layers[piece.place])
        cuts.append(_layers.chain(parts[piece.start : piece.stop]))
    return cuts


def told(
    layers: Sequence[Layer], pieces: Sequence[Piece]
) -> tuple[list[str], list[str]]:
    """Return the name of each layer, with its place, and what of it is fixed; and what
    errors call each piece.
    """
    of_layers: list[list[str]] = [[] for _ in layers]
    for piece, part in zip(pieces, cut(layers, pieces), strict=True):
        suffix = " (fixed)" if piece.fixed else ""
        of_layers[piece.place].append(_layers.name_of(part) + suffix)
    names = [f"{place}: {', '.join(parts)}" for place, parts in enumerate(of_layers)]
    labels = [_layers.label(piece.place, layers[piece.place]) for piece in pieces]
    return names, labels


def whole(increments: np.ndarray, pieces: Sequence[Piece]) -> np.ndarray:
    """Return the increments (…, depth) of the layers, from those of their pieces."""
    starts = [i for i, piece in enumerate(pieces) if piece.start == 0]
    # −inf and NaN of one layer are told of later
    with np.errstate(invalid="ignore"):
        return np.add.reduceat(increments, starts, axis=-1)
