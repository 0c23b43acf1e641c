"""What a list of layers does to shapes: whether each takes what reaches it, and which
of them do nothing else than change the shape.

A mean over pixels shrinks a random direction, and a sum stretches it, by what they are
and whatever the weights: that says nothing of depth. So pooling, flattening, slicing
and padding, which hold no weights and act alike on values of any size, are told apart
as fixed changes of shape.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.probing import _frameworks, models


class Piece(NamedTuple):
    """Parts of a layer that are measured as one: all of them, unless some are fixed."""

    place: int  # of the layer in the list
    start: int  # of its parts: those of a chain, or the layer itself
    stop: int
    fixed: bool  # a fixed change of shape
    growth: float  # ln of the number of coordinates after it over that before


def follow(layers: Sequence[Any], x: jax.Array) -> jax.ShapeDtypeStruct:
    """Return the shape of the output; raise ``ValueError``, naming the first layer that
    fails.
    """
    reached = jax.ShapeDtypeStruct(x.shape, x.dtype)
    for place, layer in enumerate(layers):
        _frameworks.refuse_torch(f"layers[{place}]", layer)
        checks.require(callable(layer), f"layers[{place}]", layer, "a callable x -> x")
        before = f"{label(place, layer)} for an input of shape {reached.shape}"
        try:
            after = jax.eval_shape(layer, reached)
        except Exception as error:  # of any kind: it is the layer that raised it
            text = str(error).rstrip(". \n")
            raise ValueError(
                f"{before}: {text}. {_way_out(error, layer, reached)}"
            ) from error
        floating = hasattr(after, "dtype") and jnp.issubdtype(after.dtype, jnp.floating)
        allowed = "one array of floating point, not empty"
        checks.require(
            floating and after.size > 0, f"output of {before}", after, allowed
        )
        reached = after
    return reached


def label(place: int, layer: Any) -> str:
    """Return what errors call a layer: its place and, unless it is a lambda, its
    name.
    """
    name = models.name_of(layer)
    return f"layers[{place}]" + (f" ({name})" if name != "<lambda>" else "")


def labels(layers: Sequence[Any]) -> list[str]:
    """Return what errors call each layer."""
    return [label(place, layer) for place, layer in enumerate(layers)]


@contextlib.contextmanager
def naming(label: str) -> Iterator[None]:
    """Raise ``ValueError``, naming the layer, where it cannot be differentiated."""
    try:
        yield
    except Exception as error:  # of any kind: it is the layer that raised it
        raise ValueError(f"{label}: {error}") from error


def plan(layers: Sequence[Any], x: jax.Array) -> list[Piece]:
    """Return the pieces to measure: each layer, but a fixed change of shape in a chain
    apart.
    """
    pieces, before = [], jax.ShapeDtypeStruct(x.shape, x.dtype)
    for place, layer in enumerate(layers):
        # ask each part for itself
        marks = []
        for part in models.parts(layer):
            after = jax.eval_shape(part, before)
            marks.append(
                (is_fixed(part, before, after), math.log(after.size / before.size))
            )
            before = after
        # and take neighbours that are alike together
        start = 0
        for fixed, run in itertools.groupby(marks, key=lambda mark: mark[0]):
            growths = [growth for _, growth in run]
            stop = start + len(growths)
            pieces.append(Piece(place, start, stop, fixed, math.fsum(growths)))
            start = stop
    return pieces


def cut(layers: Sequence[Any], pieces: Sequence[Piece]) -> list[Any]:
    """Return the callable of each piece, from another list of the same layers."""
    parts = [models.parts(layer) for layer in layers]
    return [
        models.chain(parts[piece.place][piece.start : piece.stop]) for piece in pieces
    ]


def names(layers: Sequence[Any], pieces: Sequence[Piece]) -> list[str]:
    """Return the name of each layer, with its place, and what of it is fixed."""
    named = [[] for _ in layers]
    for piece, part in zip(pieces, cut(layers, pieces), strict=True):
        named[piece.place].append(models.name_of(part) + " (fixed)" * piece.fixed)
    return [f"{place}: {', '.join(each)}" for place, each in enumerate(named)]


def whole(increments: np.ndarray, pieces: Sequence[Piece]) -> np.ndarray:
    """Return the increments (…, depth) of the layers, from those of their pieces."""
    starts = [i for i, piece in enumerate(pieces) if piece.start == 0]
    with np.errstate(invalid="ignore"):  # −inf and NaN of one layer are told of later
        return np.add.reduceat(increments, starts, axis=-1)


def is_fixed(
    layer: Any, before: jax.ShapeDtypeStruct, after: jax.ShapeDtypeStruct | None = None
) -> bool:
    """Return whether a layer is a fixed change of shape, such as pooling or flattening.

    It gives another shape, holds no arrays but indices, and does the same to values of
    any size and sign: with f the layer, f(x + 1) − f(x) is the same at x and −x, and
    f(8x) − f(0) is 8 (f(x) − f(0)). So do means, sums, maxima, slices and paddings, but
    not activations that change the shape, such as gated linear units: what these lose
    is lost layer by layer.

    >>> x = jax.ShapeDtypeStruct((4, 6), jnp.float32)
    >>> [is_fixed(layer, x) for layer in (jnp.ravel, lambda x: x.max(0), jax.nn.glu, jnp.abs)]
    [True, True, False, False]
    """
    after = jax.eval_shape(layer, before) if after is None else after
    if after.shape == before.shape:
        return False
    return not holds_weights(layer, before) and _treats_all_alike(layer, before)


def holds_weights(layer: Any, x: jax.ShapeDtypeStruct) -> bool:
    """Return whether arrays other than indices and masks go into what a layer computes
    of x.
    """
    kinds = (jnp.integer, jnp.bool_)
    arrays = _arrays(jax.make_jaxpr(lambda x: layer(x))(x))
    return any(not any(jnp.issubdtype(a.dtype, kind) for kind in kinds) for a in arrays)


def _arrays(jaxpr: Any) -> Iterator[Any]:
    """Yield the arrays, not the literal numbers, in a jaxpr and those inside it."""
    yield from getattr(jaxpr, "consts", ())
    for equation in jaxpr.eqns:
        values = (getattr(atom, "val", None) for atom in equation.invars)
        yield from (a for a in values if isinstance(a, jax.Array) or np.ndim(a) > 0)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns"):
                    yield from _arrays(inner)


def _treats_all_alike(layer: Any, before: jax.ShapeDtypeStruct) -> bool:
    values = jax.jit(lambda x: layer(x))
    x = jnp.asarray(
        np.random.default_rng(0).uniform(0.5, 1.5, before.shape), before.dtype
    )
    zero, at, above, far, below, back = (
        np.asarray(values(point)).astype(np.float64)
        for point in (0 * x, x, x + 1, 8 * x, -x, 1 - x)
    )
    # half of the digits, as sums over many coordinates lose some
    rounding = math.sqrt(jnp.finfo(before.dtype).eps) * max(
        np.abs(at).max(), np.abs(above).max()
    )
    with np.errstate(invalid="ignore"):  # where it is not finite it does not
        shifts = np.abs((above - at) - (back - below)).max() <= rounding
        scales = np.abs((far - zero) - 8 * (at - zero)).max() <= 8 * rounding
    return bool(shifts and scales)


def _way_out(error: Exception, layer: Any, x: jax.ShapeDtypeStruct) -> str:
    """Return what to do about a layer that cannot take x."""
    if known := _frameworks.way_out(error):
        return known
    with contextlib.suppress(Exception):
        jax.eval_shape(layer, jax.ShapeDtypeStruct(x.shape, jnp.int32))
        return (
            "It takes integers, as an embedding does, which cannot be differentiated: start after "
            "it, and give the embedded inputs."
        )
    return (
        "Each layer must take the output of the one before, for one input, by itself: without a "
        "key, and without state that it changes."
    )
