"""A layer followed with matrices that are never drawn: product by product.

What a map is given comes of what the maps before it returned (``_tools/products``);
what it returns is drawn, in law, for all vectors and tangents together.
"""

import collections
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import products, random, scans, undrawn

# beyond the numbers of products: keys of those with the transpose
_BACK = 1 << 16


# the matrices that several layers share, by their names
Tied = dict[str, undrawn.Undrawn]


class Followed(NamedTuple):
    """Inputs and tangents that went through a layer."""

    X: jax.Array  # (m, *shape), of the outputs
    T: jax.Array | None  # (t, *shape)
    finite: jax.Array  # (m,): a ReLU may take NaN for off
    tied: Tied


class Forward(NamedTuple):
    """What the linear maps of a layer met, of inputs (m, …) alone."""

    step: Callable  # (x, answers) -> what the next map is given
    uses: list[products.Product]
    given: tuple[jax.Array, ...]  # (m, *rows, n_in), for each use
    answers: tuple[jax.Array, ...]  # (m, *rows, n_out)
    # of each map, by the name it is tied to or its place, given this
    matrices: dict[str | int, undrawn.Undrawn]
    keys: list[jax.Array]  # of each map

    @property
    def tied(self) -> Tied:
        """The matrices that other layers use as well."""
        return _tied_of(self.matrices)


def _tied_of(matrices: dict[str | int, undrawn.Undrawn]) -> Tied:
    return {name: one for name, one in matrices.items() if isinstance(name, str)}


def followed(
    layer: networks.Layer,
    key: jax.Array,
    number: Any,
    X: jax.Array,
    T: jax.Array | None,
    owner: np.ndarray,
    tied: Tied,
) -> Followed:
    """Return the images of inputs X (m, …) and tangents T (t, …) at X[owner], in law.

    With tangents or without, the images of the inputs are the same.
    """
    run, images = _run(layer, key, number, X, T, owner, tied, forget=True)
    if T is not None:
        T = products.along(run.step, X, run.answers, T, images, owner)
    X, finite = arrived(run, X)
    return Followed(X, T, finite, run.tied)


def arrived(run: Forward, X: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return what the layer makes of inputs X, and whether all of it is finite."""
    X = jax.vmap(run.step)(X, run.answers)
    return X, functools.reduce(jnp.logical_and, map(_all_finite, (X, *run.answers)))


def met(
    layer: networks.Layer,
    key: jax.Array,
    number: Any,
    X: jax.Array,
    tied: Tied,
    told: Sequence[jax.Array] | None = None,
) -> Forward:
    """Return what the maps of a layer met: the same as in ``followed``.

    told: what tied maps answered; None to ask them.
    """
    nobody = np.zeros(0, int)
    return _run(layer, key, number, X, None, nobody, tied, told, forget=False)[0]


def told(layer: networks.Layer, run: Forward) -> list[jax.Array]:
    """Return what the tied maps of a layer answered."""
    pairs = zip(run.uses, run.answers, strict=True)
    return [answer for use, answer in pairs if layer.maps[use.place].tied]


def _keys_of_products(
    layer: networks.Layer, pairs: Sequence[tuple[jax.Array, jax.Array]], number: Any
) -> list[jax.Array]:
    """Return the key of the products of each map: each layer asks tied maps something
    else.
    """
    return [
        random.fold_in(key_weight, number) if one.tied else key_weight
        for one, (key_weight, _) in zip(layer.maps, pairs, strict=True)
    ]


def _run(
    layer: networks.Layer,
    key: jax.Array,
    number: Any,
    X: jax.Array,
    T: jax.Array | None,
    owner: np.ndarray,
    tied: Tied,
    told: Sequence[jax.Array] | None = None,
    *,
    forget: bool,
) -> tuple[Forward, tuple[jax.Array, ...]]:
    """Return what the maps met, and the images of tangents.

    forget: whether nothing more is asked of matrices that are used once.
    """
    pairs, key_fixed = layer.keys(key, number)
    keys = _keys_of_products(layer, pairs, number)
    matrices: dict[str | int, undrawn.Undrawn] = dict(tied.items())
    matrices |= {i: unmet(one) for i, one in enumerate(layer.maps) if not one.tied}
    known = iter(told or ())
    step = functools.partial(products.entering, layer, layer.drawn_fixed(key_fixed))
    given: tuple[jax.Array, ...] = ()
    answers: tuple[jax.Array, ...] = ()
    images: tuple[jax.Array, ...] = ()

    uses = products.of_layer(layer, X.shape[1:])
    times = collections.Counter(use.place for use in uses)
    for call, (place, rows) in enumerate(uses):
        one = layer.maps[place]
        entered = jax.vmap(step)(X, answers)
        given = (*given, entered)
        if one.tied and told is not None:
            answers = (*answers, next(known))
            continue

        # what it returns, for all that it is given, and for how that moves
        V = extended(one, entered.reshape(-1, one.shape[1]))
        if T is not None:
            moved = products.along(step, X, answers, T, images, owner)
            V = _beside(V, moved.reshape(-1, one.shape[1]))
        alone = times[place] == 1 and not one.tied
        key_call = keys[place] if alone else random.fold_in(keys[place], call)
        if alone and forget:
            Z = undrawn.once(matrices[place], key_call, V)
        else:
            name = one.tied or place
            matrices[name], Z = undrawn.product(matrices[name], key_call, V)

        inputs, along = jnp.split(Z, [entered.size // one.shape[1]])
        inputs = inputs.reshape(*entered.shape[:-1], -1)
        answers = (*answers, _with_biases(one, pairs[place][1], inputs))
        if T is not None:
            images = (*images, along.reshape(len(T), *rows, -1))
    return Forward(step, uses, given, answers, matrices, keys), images


def _beside(V: jax.Array, moved: jax.Array) -> jax.Array:
    """Return rows with tangents after them, which have no coordinate of biases."""
    spare = V.shape[1] - moved.shape[1]
    return jnp.concatenate([V, jnp.pad(moved, ((0, 0), (0, spare)))])


def _with_biases(one: networks.Map, key: jax.Array, Z: jax.Array) -> jax.Array:
    """Return products with biases, where these are no coordinate of a normal matrix."""
    if one.bias_scale is None or not one.weights.orthogonal:
        return Z
    b = one.bias_scale * random.normal(key, Z.shape[-1:], Z.dtype)
    return Z + jnp.broadcast_to(b, Z.shape)


class Pulled(NamedTuple):
    """Cotangents that went back through a layer."""

    D: jax.Array  # (m, *shape), of the inputs
    # of each map, over all its uses: what it was given (m, rows, n_in), and cotangents
    # of what it returned (m, rows, n_out); its gradient is the sum of their products
    given: list[jax.Array]
    pulls: list[jax.Array]
    tied: Tied


def pulled(
    layer: networks.Layer,
    key: jax.Array,
    number: Any,
    X: jax.Array,
    D: jax.Array,
    tied: Tied,
    told: Sequence[jax.Array],
) -> Pulled:
    """Return the cotangents of inputs X (m, …), of those D (m, …) of outputs, in law.

    The matrices are those of ``followed``, given what they met.
    """
    run = met(layer, key, number, X, tied, told)
    matrices = run.matrices
    D, pulls = products.pulled(run.step, X, run.answers, D)
    ends = list(pulls)
    for call, (place, _) in reversed([*enumerate(run.uses)]):
        # through the map, transposed
        one = layer.maps[place]
        n_out, n_in = one.shape
        name = one.tied or place
        key_call = random.fold_in(run.keys[place], _BACK + call)
        turned = undrawn.transposed(matrices[name])
        turned, back = undrawn.product(turned, key_call, ends[call].reshape(-1, n_out))
        matrices[name] = undrawn.transposed(turned)

        # and through what it was given
        back = back[:, :n_in].reshape(run.given[call].shape)
        more, pulls = products.pulled(run.step, X, run.answers[:call], back)
        D = D + more
        ends[:call] = [a + b for a, b in zip(ends[:call], pulls, strict=True)]

    given, ends = _by_map(layer, run, 1, run.given), _by_map(layer, run, 0, ends)
    return Pulled(D, given, ends, _tied_of(matrices))


def _by_map(
    layer: networks.Layer, run: Forward, side: int, parts: Sequence[jax.Array]
) -> list[jax.Array]:
    """Return parts (m, *rows, n) of each use, one after another, for each map."""
    found: list[list[jax.Array]] = [[] for _ in layer.maps]
    for part, use in zip(parts, run.uses, strict=True):
        found[use.place].append(part.reshape(len(part), -1, part.shape[-1]))

    # of a map that is not used: nothing
    for one, own in zip(layer.maps, found, strict=True):
        if not own:
            count = len(parts[0]) if parts else 1
            own.append(jnp.zeros((count, 1, one.shape[side])))
    return [jnp.concatenate(own, axis=1) for own in found]


def unmet(one: networks.Map, room: tuple[int, int] | None = None) -> undrawn.Undrawn:
    """Return the matrix of a linear map, which has met nothing.

    A normal bias is the normal weight of one more coordinate.
    """
    if one.weights.orthogonal:
        return undrawn.orthogonal(one.shape, one.std, room)
    n_out, n_in = one.shape
    shape = n_out, n_in + (one.bias_scale is not None)
    return undrawn.normal(shape, one.std, room)


def unmet_tied(network: networks.Network, ahead: int, back: int = 0) -> Tied:
    """Return the matrices that several layers share, which have met nothing.

    With room for all that they will meet.

    Args:
        network: whose layers they are of.
        ahead: how many inputs and tangents are followed.
        back: how many cotangents.
    """
    kinds = dict.fromkeys(network.kinds)
    maps = {one.tied: one for kind in kinds for one in kind.maps if one.tied}
    if not maps:
        return {}
    rows: collections.Counter[str] = collections.Counter()
    outputs = network.outputs(jnp.result_type(float))
    shapes = [network.shape, *(output.shape for output in outputs[:-1])]
    uses = functools.cache(products.of_layer)
    for kind, shape in zip(network.kinds, shapes, strict=True):
        for use in uses(kind, shape):
            rows[kind.maps[use.place].tied] += math.prod(use.rows)
    # such that the compiler does not know them, as it may round otherwise
    return scans.unknown(
        {
            name: unmet(one, (ahead * rows[name], back * rows[name]))
            for name, one in maps.items()
        }
    )


def extended(one: networks.Map, V: jax.Array) -> jax.Array:
    """Return what a map is given (rows, n_in), with the coordinate of its biases."""
    if one.bias_scale is None or one.weights.orthogonal:
        return V
    size = jnp.asarray(one.bias_scale / one.std, V.dtype)
    return jnp.concatenate([V, jnp.broadcast_to(size, (len(V), 1))], axis=1)


def _all_finite(rows: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(rows), axis=tuple(range(1, rows.ndim)))
