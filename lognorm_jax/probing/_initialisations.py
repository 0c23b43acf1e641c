"""Fresh initialisations of a model, or a model as it is, and an input for each of them.

A model is a list of callables x -> x; an initialisation is a function of a key that
returns one.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.probing import _frameworks, _shapes


def inputs_of(inputs: Any) -> jax.Array:
    """Return inputs as an array (count, *shape of an input), of floating type."""
    _frameworks.refuse_torch("inputs", inputs)
    inputs = checks.vector("inputs", inputs, None, zero=True)
    batch = np.ndim(inputs) >= 2 and len(inputs) >= 1
    checks.require(
        batch, "inputs.shape", np.shape(inputs), "(count, *shape of an input)"
    )
    inputs = jnp.asarray(inputs, checks.float_dtype(inputs))
    return checks.vector("inputs", inputs, None, zero=True)


def first(
    layers: Any, key: jax.Array, x: jax.Array
) -> tuple[list[Callable], jax.ShapeDtypeStruct]:
    """Return a first list of layers, and the shape that they reach; refuse what gives
    no lists.
    """
    _frameworks.refuse_torch("layers", layers)
    allowed = "a function key -> list of callables x -> x, or such a list"
    instead = "For a model that is called itself: lambda key: [Model(nnx.Rngs(key))]."
    iterable = isinstance(layers, Iterable)
    checks.require(callable(layers) or iterable, "layers", layers, allowed, instead)
    if not callable(layers):
        return followed(layers, x)
    try:
        first, second = layers(key), layers(jax.random.fold_in(key, 1))
    except Exception as error:  # of any kind: it is the function that raised it
        raise ValueError(
            f"layers(key): {error}\nlayers must be {allowed}. {instead}"
        ) from error
    _frameworks.refuse_torch("layers(key)", first)
    checks.require(isinstance(first, Iterable), "layers(key)", first, "a list", instead)
    first, reached = followed(first, x)
    one, other = x, x
    for a, b in zip(first, second, strict=True):
        one, other = a(one), b(other)
    fresh = not bool(jnp.all(one == other)) or not bool(jnp.any(one))
    allowed = "a fresh initialisation for each key"
    instead = "It gives the same for all. For a model as it is give the list itself."
    checks.require(fresh, "layers", layers, allowed, instead)
    return first, reached


def followed(
    layers: Iterable, x: jax.Array
) -> tuple[list[Callable], jax.ShapeDtypeStruct]:
    """Return the layers as a list, not empty, and the shape that x reaches."""
    layers = list(layers)
    checks.require(len(layers) >= 1, "len(layers)", len(layers), "≥ 1")
    return layers, _shapes.follow(layers, x)


def drawing(layers: Any, inputs: jax.Array) -> Callable:
    """Return key -> (a list of layers, one of the inputs, a key for a direction)."""

    def draw(key):
        key_layers, key_input, key_direction = jax.random.split(key, 3)
        x = inputs[jax.random.randint(key_input, (), 0, len(inputs))]
        return (
            list(layers(key_layers) if callable(layers) else layers),
            x,
            key_direction,
        )

    return draw


def finite(draw: Callable) -> Callable[[jax.Array], jax.Array]:
    """Return key -> whether the output of each layer is finite."""

    def path(key):
        layers, x, _ = draw(key)
        outputs = [x := layer(x) for layer in layers]
        return jnp.stack([jnp.all(jnp.isfinite(output)) for output in outputs])

    return path
