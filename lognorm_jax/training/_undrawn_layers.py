"""Layers in training, followed forward and back with matrices that are never drawn.

What a layer makes of x but for its matrices is known, with its derivatives
(``_tools/products``); what these answer is that of ``_moved``.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import norms, products, random, undrawn
from lognorm_jax.training import _measures, _moved

# of each linear map {"weight": the numbers c, "bias"}, what else is drawn, the matrices
Row = tuple[list[Any], Any, list[_moved.Moved]]


class Ahead(NamedTuple):
    """What a layer met on the way forward, of the inputs of a batch."""

    told: list[_moved.Told]  # of each matrix
    increment: jax.Array  # (), of the tangent
    x: jax.Array  # (b, *shape)
    answers: tuple[jax.Array, ...]  # (b, *rows, n_out), of each use


class Back(NamedTuple):
    """What is found of a layer on the way back."""

    told: list[_moved.Told]  # of each matrix
    bias: list[jax.Array]  # (n_out,), its gradient
    log_gradient: jax.Array  # (), of the weights


def trained(kind: networks.Layer, tree: Any) -> list[Any]:
    """Return of each linear map {"weight": the numbers c, "bias"}, stacked over layers:
    of a tree in which they have the rank of weights.
    """
    return [{**part, "weight": numbers(part["weight"])} for part in kind.parts(tree)]


def numbers(stacked: jax.Array) -> jax.Array:  # (layers, 1 + steps)
    """Return the numbers c of layers, which optimizers are given in the rank of
    weights, (layers, 1 + steps, 1, …).
    """
    return stacked.reshape(stacked.shape[:2])


def counts(network: networks.Network) -> list[list[int]]:
    """Return how many vectors each matrix of each layer is given, of one input."""
    outputs = network.outputs(jnp.result_type(float))
    shapes = [network.shape, *(output.shape for output in outputs[:-1])]
    count = functools.cache(_counts)
    return [count(*pair) for pair in zip(network.kinds, shapes, strict=True)]


def _counts(kind: networks.Layer, shape: tuple[int, ...]) -> list[int]:
    found = [0] * len(kind.maps)
    for place, rows in products.of_layer(kind, shape):
        found[place] += math.prod(rows)
    return found


def keys(
    kind: networks.Layer, key: jax.Array, number: jax.Array, step: jax.Array
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Return the keys of what each matrix meets in a step, ahead and back."""
    pairs, _ = kind.keys(key, number)
    of_step = [random.fold_in(key_weight, step) for key_weight, _ in pairs]
    ahead, back = ([random.fold_in(each, side) for each in of_step] for side in (0, 1))
    return ahead, back


class _Asked(NamedTuple):
    """What the matrices of a layer met, in one use after another."""

    keys: list[jax.Array]
    numbers: list[jax.Array]  # c, of each
    matrices: list[_moved.Moved]  # as they are by now
    found: list[dict[int, undrawn.Met]]  # what each met, by the number of the use


def _asking(
    keys: list[jax.Array], trained: list[Any], moved: list[_moved.Moved]
) -> _Asked:
    numbers = [part["weight"] for part in trained]
    return _Asked(keys, numbers, [*moved], [{} for _ in moved])


def _answer(asked: _Asked, place: int, use: int, V: jax.Array) -> jax.Array:
    """Return what a matrix answers V (m, n), beside all that it was asked before."""
    key = random.fold_in(asked.keys[place], use)
    moved = asked.matrices[place]
    found, answer = _moved.product(moved, asked.numbers[place], key, V)
    asked.matrices[place] = _moved.beside(moved, found)
    asked.found[place][use] = found
    return answer


def ahead(
    kind: networks.Layer,
    keys: list[jax.Array],
    step: jax.Array,
    carry: tuple[jax.Array, jax.Array],
    row: Row,
) -> tuple[tuple[jax.Array, jax.Array], Ahead]:
    """Return what a layer makes of inputs (b + 1, …), the last of them the probe, and
    of a unit tangent at the probe; and what it met.
    """
    X, T = carry
    trained, fixed, moved = row
    enter = functools.partial(products.entering, kind, fixed)
    batch, probe = len(X) - 1, np.array([len(X) - 1])
    uses = products.of_layer(kind, X.shape[1:])

    # what each matrix is given, and answers
    asked = _asking(keys, trained, moved)
    answers: tuple[jax.Array, ...] = ()
    images: tuple[jax.Array, ...] = ()
    for use, (place, rows) in enumerate(uses):
        n_in = kind.maps[place].shape[1]
        given = jax.vmap(enter)(X, answers)
        along = products.along(enter, X, answers, T[None], images, probe)
        V = jnp.concatenate([given.reshape(-1, n_in), along.reshape(-1, n_in)])
        whole = _answer(asked, place, use, V).reshape(len(X) + 1, *rows, -1)
        answers = (*answers, _biased(whole[:-1], trained[place]["bias"]))
        images = (*images, whole[-1:])

    # what comes out
    out = jax.vmap(enter)(X, answers)
    (pushed,) = products.along(enter, X, answers, T[None], images, probe)
    increment, T = norms.normalise(pushed)
    increment = jnp.where(jnp.all(jnp.isfinite(out[-1])), increment, jnp.nan)

    told = _told(asked, uses, batch, moved, step, 0)
    kept = tuple(answer[:batch] for answer in answers)
    return (out, T), Ahead(told, increment, X[:batch], kept)


def _biased(Z: jax.Array, bias: jax.Array) -> jax.Array:
    return Z + jnp.broadcast_to(bias, Z.shape)


def _told(
    asked: _Asked,
    uses: Sequence[products.Product],
    batch: int,
    moved: list[_moved.Moved],
    step: jax.Array,
    side: int,
) -> list[_moved.Told]:
    """Return what each matrix met in a step: on the right for side 0, else the left."""
    told = []
    for own, found in zip(moved, asked.found, strict=True):
        # how many of the vectors gradients are made of: all but probe and tangent
        counts = {use: batch * math.prod(uses[use].rows) for use in found}
        at = _moved.places(own, step, sum(counts.values()))[side]
        room = (len(own.base.right), len(_moved.lefts(own.base)))[side]
        told.append(_moved.told(found, counts, room, at))
    return told


def back(
    kind: networks.Layer,
    keys: list[jax.Array],
    step: jax.Array,
    D: jax.Array,
    row: Row,
    met: Ahead,
) -> tuple[jax.Array, Back]:
    """Return cotangents of what entered a layer, of those D (b, …) of what came out;
    and what is found of it.

    row: with matrices that know what they met on the way forward.
    """
    trained, fixed, moved = row
    enter = functools.partial(products.entering, kind, fixed)
    uses = products.of_layer(kind, met.x.shape[1:])
    batch = len(met.x)

    # through the layer, and through each matrix and what it was given
    asked = _asking(keys, trained, list(map(_moved.turned, moved)))
    D, pulls = products.pulled(enter, met.x, met.answers, D)
    ends = list(pulls)
    for use, (place, rows) in reversed([*enumerate(uses)]):
        P = ends[use].reshape(-1, kind.maps[place].shape[0])
        pulled = _answer(asked, place, use, P)
        more, pulls = products.pulled(
            enter, met.x, met.answers[:use], pulled.reshape(batch, *rows, -1)
        )
        D = D + more
        ends[:use] = [a + b for a, b in zip(ends[:use], pulls, strict=True)]

    # what their gradients are
    told = _told(asked, uses, batch, moved, step, 1)
    bias = [jnp.zeros(one.shape[0], D.dtype) for one in kind.maps]
    for (place, _), end in zip(uses, ends, strict=True):
        bias[place] = bias[place] + end.reshape(-1, end.shape[-1]).sum(0)
    log_squares = [
        _moved.log_square(right.coordinates, left.coordinates)
        for right, left in zip(met.told, told, strict=True)
    ]
    return D, Back(told, bias, _measures.together(log_squares, ()))


def outputs(
    kind: networks.Layer, keys: list[jax.Array], X: jax.Array, row: Row
) -> jax.Array:
    """Return what a layer makes of inputs (m, …)."""
    trained, fixed, moved = row
    enter = functools.partial(products.entering, kind, fixed)
    asked = _asking(keys, trained, moved)
    answers: tuple[jax.Array, ...] = ()
    for use, (place, rows) in enumerate(products.of_layer(kind, X.shape[1:])):
        V = jax.vmap(enter)(X, answers).reshape(-1, kind.maps[place].shape[1])
        Z = _answer(asked, place, use, V).reshape(len(X), *rows, -1)
        answers = (*answers, _biased(Z, trained[place]["bias"]))
    return jax.vmap(enter)(X, answers)
