"""A layer followed product by product: what its linear maps are given, and what comes
of their answers.

A layer is a function of its linear maps and of x. Run again and again, with what the
first maps answered, it tells what the next is given: each a plain function, which has
derivatives.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np


class Layer(Protocol):
    """What is asked of a layer, such as ``networks.Layer``."""

    @property
    def function(self) -> Callable[[Any, Any, jax.Array], jax.Array]:
        """(maps, fixed, x) -> what it gives."""

    @property
    def maps(self) -> Sequence[Any]:
        """The linear maps."""

    @property
    def names(self) -> Sequence[str]:
        """Their names."""

    def drawn_fixed(self, key: jax.Array) -> Any:
        """Return what else is drawn."""


class Product(NamedTuple):
    """A use of a linear map by a layer."""

    place: int  # of the map in the layer
    rows: tuple[int, ...]  # the leading axes of what it is given


def of_layer(layer: Layer, shape: tuple[int, ...]) -> list[Product]:
    """Return the products of a layer with an input of a shape, in turn."""
    found: list[Product] = []
    given: list[jax.Array] = []

    def met(place, v):
        n_out = layer.maps[place].shape[0]
        found.append(Product(place, v.shape[:-1]))
        given.append(v)
        return jnp.zeros((*v.shape[:-1], n_out), v.dtype)

    def followed(x):
        fixed = layer.drawn_fixed(jax.random.key(0))
        made = layer.function(_answering(layer, met), fixed, x)
        try:
            # of what belongs to a transformation inside of the layer nothing is left
            return made, [v + 0 for v in given]
        except jax.errors.UnexpectedTracerError as error:
            raise ValueError(
                f"layer of the maps {', '.join(layer.names)}: its maps are called "
                "inside of jit, vmap, scan or the like. Call them outside: they take "
                "vectors along the last of any number of axes."
            ) from error

    jax.eval_shape(followed, jax.ShapeDtypeStruct(shape, jnp.result_type(float)))
    return found


def _answering(
    layer: Layer, answer: Callable[[int, jax.Array], jax.Array]
) -> dict[str, Callable]:
    """Return the maps of a layer, which answer (place of the map, what it is given)."""

    def ask(place, v):
        # numbers of any kind, as a matrix would take them
        return answer(place, jnp.asarray(v, jnp.result_type(float)))

    return {
        name: functools.partial(ask, place) for place, name in enumerate(layer.names)
    }


class _Reached(Exception):
    """A product that is not answered yet: what it is given."""


def entering(
    layer: Layer, fixed: Any, x: jax.Array, answers: Sequence[jax.Array]
) -> jax.Array:
    """Return what the next map is given, after these answers, or the layer gives."""
    left = list(answers)

    def answer(place, v):
        del place
        if not left:
            raise _Reached(v)
        return left.pop(0)

    try:
        return layer.function(_answering(layer, answer), fixed, x)
    except _Reached as reached:
        return reached.args[0]


def pulled(
    step: Callable, X: jax.Array, answers: tuple[jax.Array, ...], D: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Return the cotangents of inputs and answers, of those of what ``step`` gives."""

    def one(x, answers, d):
        return jax.vjp(step, x, answers)[1](d)

    return jax.vmap(one)(X, answers, D)


def along(
    step: Callable,
    X: jax.Array,
    answers: tuple[jax.Array, ...],
    T: jax.Array,
    images: tuple[jax.Array, ...],
    owner: np.ndarray,
) -> jax.Array:
    """Return how what ``step`` gives moves along tangents at X[owner]."""
    at, along = (X, answers), (T, images)

    def one(at, along):
        return jax.jvp(step, at, along)[1]

    return jax.vmap(one)(jax.tree.map(lambda leaf: leaf[owner], at), along)
