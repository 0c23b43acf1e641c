"""Ways through networks whose matrices are not drawn, in training: forward and back,
layer by layer, and what is told of layers in their order.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import scans
from lognorm_jax.training import _moved, _undrawn_layers

# a pattern of layers, and the indices of its repetitions, for each of its places
Stretch = tuple[tuple[networks.Layer, ...], list[np.ndarray]]

# of each stretch, place of its pattern and linear map, stacked over repetitions
Matrices = list[list[list[_moved.Moved]]]


def stretches(network: networks.Network) -> list[Stretch]:
    """Return the consecutive stretches of a network."""
    found = []
    for start, period, times in scans.repetitions(network.kinds):
        places = [start + i + period * np.arange(times) for i in range(period)]
        found.append((network.kinds[start : start + period], places))
    return found


def forward(
    stretches: list[Stretch],
    key: jax.Array,
    step: jax.Array,
    rows_of: Callable,
    carry: tuple[jax.Array, jax.Array],
    moved: Matrices,
) -> tuple[Any, list[list[_undrawn_layers.Ahead]]]:
    """Return inputs and tangent after all layers, and what each layer met."""
    left = []
    for (kinds, places), of_stretch in zip(stretches, moved, strict=True):

        def pattern(carry, given, kinds=kinds, of_stretch=of_stretch):
            time, rows = given
            told = []
            for kind, (number, row), own in zip(kinds, rows, of_stretch, strict=True):
                keys, _ = _undrawn_layers.keys(kind, key, number, step)
                row = (*row, _moved.of_layer(own, time))
                carry, met = _undrawn_layers.ahead(kind, keys, step, carry, row)
                told.append(met)
            return carry, told

        rows = _rows(kinds, places, rows_of)
        carry, met = scans.repeated(pattern, carry, rows, len(places[0]))
        left.append(met)
    return carry, left


def backward(
    stretches: list[Stretch],
    key: jax.Array,
    step: jax.Array,
    rows_of: Callable,
    D: jax.Array,
    moved: Matrices,
    left: list[list[_undrawn_layers.Ahead]],
) -> list[list[_undrawn_layers.Back]]:
    """Return what is found of each layer's gradient."""
    found: list[Any] = []
    of_stretches = reversed([*zip(stretches, moved, left, strict=True)])
    for (kinds, places), of_stretch, met in of_stretches:

        def pattern(D, given, kinds=kinds, of_stretch=of_stretch):
            (time, rows), met = given
            told: list[Any] = []
            each = zip(kinds, rows, of_stretch, met, strict=True)
            for kind, (number, row), own, ahead in reversed([*each]):
                _, keys = _undrawn_layers.keys(kind, key, number, step)
                row = (*row, _moved.of_layer(own, time))
                D, back = _undrawn_layers.back(kind, keys, step, D, row, ahead)
                told.insert(0, back)
            return D, told

        rows = _rows(kinds, places, rows_of), met
        D, told = scans.repeated(pattern, D, rows, len(places[0]), reverse=True)
        found.insert(0, told)
    return found


def outputs(
    network: networks.Network,
    key: jax.Array,
    number: int,
    params: networks.Params,
    moved: Matrices,
    X: jax.Array,
) -> jax.Array:
    """Return the outputs (m, …) of inputs (m, *shape), asked for at once.

    Args:
        network: any.
        key: its own.
        number: of the step, of which the matrices' answers are.
        params: the numbers c and biases, and what is fixed.
        moved: the matrices.
        X: inputs.
    """
    rows_of = network.rows(params)
    for (kinds, places), of_stretch in zip(stretches(network), moved, strict=True):

        def pattern(X, given, kinds=kinds, of_stretch=of_stretch):
            time, rows = given
            for kind, (layer, row), own in zip(kinds, rows, of_stretch, strict=True):
                keys, _ = _undrawn_layers.keys(kind, key, layer, jnp.uint32(number))
                row = (*row, _moved.of_layer(own, time))
                X = _undrawn_layers.outputs(kind, keys, X, row)
            return X, ()

        rows = _rows(kinds, places, rows_of)
        X, _ = scans.repeated(pattern, X, rows, len(places[0]))
    return X


def _rows(
    kinds: tuple[networks.Layer, ...], places: list[np.ndarray], rows_of: Callable
) -> tuple[jax.Array, list[Any]]:
    """Return what a stretch is scanned over: the number of the repetition, and of each
    layer its number, and what is trained and fixed of it.

    Matrices are not among it: they are taken from where they are, which copies those of
    many seeds no more than once.
    """
    rows = []
    for kind, layers in zip(kinds, places, strict=True):
        params = rows_of(layers)
        trained = _undrawn_layers.trained(kind, params.trained)
        rows.append((scans.numbers(layers), (trained, params.fixed)))
    return jnp.arange(len(places[0])), rows


def met_ahead(moved: Matrices, told: list[list[Any]], step: jax.Array) -> Matrices:
    """Return matrices after what they met on the way forward."""
    return _each(functools.partial(_ahead, step), moved, told)


def met_back(moved: Matrices, told: list[list[Any]], step: jax.Array) -> Matrices:
    """Return matrices after what they met on the way back."""
    return _each(functools.partial(_back, step), moved, told)


def _each(after: Callable, moved: Matrices, told: list[list[Any]]) -> Matrices:
    """Return matrices after what was told of the layers that they are of."""
    return [
        [
            list(map(after, matrices, one.told))
            for matrices, one in zip(of_stretch, told_of_stretch, strict=True)
        ]
        for of_stretch, told_of_stretch in zip(moved, told, strict=True)
    ]


def _ahead(step: jax.Array, moved: _moved.Moved, told: _moved.Told) -> _moved.Moved:
    """Return matrices after what they met on the way forward."""
    at, _ = _moved.places(moved, step, told.coordinates.shape[-2])
    return _moved.after(moved, told, at, step)


def _back(step: jax.Array, moved: _moved.Moved, told: _moved.Told) -> _moved.Moved:
    """Return matrices after what they met on the way back."""
    _, at = _moved.places(moved, step, told.coordinates.shape[-2])
    return _moved.turned(_moved.after(_moved.turned(moved), told, at, step))


def in_order(places: Sequence[np.ndarray], stacked: Sequence[jax.Array]) -> jax.Array:
    """Return what there is of layers, (layers, …), in the layers' order.

    Args:
        places: the numbers of layers.
        stacked: what there is of them, likewise.
    """
    order = np.argsort(np.concatenate(places))
    whole = jnp.concatenate(stacked)
    return whole if np.array_equal(order, np.arange(len(order))) else whole[order]


def by_layer(stretches: list[Stretch], told: list[Any], name: str) -> jax.Array:
    """Return a number told of each layer, (depth,)."""
    places = [layers for _, of_stretch in stretches for layers in of_stretch]
    stacked = [getattr(one, name) for of_stretch in told for one in of_stretch]
    return in_order(places, stacked)


def by_kind(
    network: networks.Network, stretches: list[Stretch], told: list[Any], name: str
) -> list[Any]:
    """Return what is told of each layer, stacked over those of each kind."""
    found: dict[networks.Layer, list[tuple[np.ndarray, Any]]] = {
        kind: [] for kind in network.kinds
    }
    for (kinds, places), of_stretch in zip(stretches, told, strict=True):
        for kind, layers, one in zip(kinds, places, of_stretch, strict=True):
            found[kind].append((layers, getattr(one, name)))
    stacked = []
    for pairs in found.values():
        own, trees = zip(*pairs, strict=True)
        stacked.append(
            jax.tree.map(lambda *leaves, own=own: in_order(own, leaves), *trees)
        )
    return stacked
