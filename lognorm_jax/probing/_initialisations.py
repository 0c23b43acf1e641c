"""Fresh initialisations of a model, or a model as it is, and an input for each of them.

A model is a list of callables x -> x; an initialisation is a function of a key that
returns one.
"""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lognorm_jax._tools import checks
from lognorm_jax.probing import _frameworks, _layers, _shapes
from lognorm_jax.probing._layers import Layer

Layers = Callable[[jax.Array], Iterable[Layer]] | Iterable[Layer]

WHOLE = "For a model that is called itself: lambda key: [Model(nnx.Rngs(key))]."


def inputs_of(inputs: ArrayLike) -> jax.Array:
    """Return inputs as an array (count, *shape of an input), of floating type."""
    _frameworks.refuse_torch("inputs", inputs)
    inputs = checks.vector("inputs", inputs, None, zero=True)
    shape = np.shape(inputs)
    batch = len(shape) >= 2 and shape[0] >= 1
    checks.require(batch, "inputs.shape", shape, "(count, *shape of an input)")
    inputs = jnp.asarray(inputs, checks.float_dtype(inputs))
    return checks.vector("inputs", inputs, None, zero=True)


def first(
    layers: Layers, key: jax.Array, x: jax.Array
) -> tuple[list[Layer], jax.ShapeDtypeStruct]:
    """Return a first list of layers, and the shape that they reach.

    Args:
        layers: key -> list of callables x -> x, or one such list.
        key: for the first list.
        x: an input.

    Raises:
        ValueError: for what gives no lists, and for lists that do not depend on the
            key.
    """
    _frameworks.refuse_torch("layers", layers)
    allowed = "a function key -> list of callables x -> x, or such a list"
    usable = callable(layers) or isinstance(layers, Iterable)
    checks.require(usable, "layers", layers, allowed, WHOLE)
    if not callable(layers):
        return followed(layers, x)

    try:
        drawn = layers(key)
        others = layers(jax.random.fold_in(key, 1))
    except Exception as error:
        # of any kind: it is the function that raised it
        text = f"layers(key): {error}\nlayers must be {allowed}. {WHOLE}"
        raise ValueError(text) from error
    _frameworks.refuse_torch("layers(key)", drawn)
    several = isinstance(drawn, Iterable)
    checks.require(several, "layers(key)", drawn, "a list", WHOLE)
    drawn, reached = followed(drawn, x)

    fresh = _are_fresh(drawn, others, x)
    allowed = "a fresh initialisation for each key"
    instead = "It gives the same for all. For a model as it is give the list itself."
    checks.require(fresh, "layers", layers, allowed, instead)
    return drawn, reached


def followed(
    layers: Iterable[Layer], x: jax.Array
) -> tuple[list[Layer], jax.ShapeDtypeStruct]:
    """Return the layers as a list, not empty, and the shape that x reaches."""
    layers = _layers.listed(layers)
    checks.require(len(layers) >= 1, "len(layers)", len(layers), "≥ 1")
    return layers, _shapes.follow(layers, x)


def _are_fresh(layers: Sequence[Layer], others: Iterable[Layer], x: jax.Array) -> bool:
    """Return whether two lists give different outputs, or no output but zero."""
    y = x
    for layer, other in zip(layers, others, strict=True):
        x = layer(x)
        y = other(y)
    output = np.asarray(x)
    return bool(np.any(output != np.asarray(y)) or not np.any(output))


def drawn(
    layers: Layers, inputs: jax.Array, key: jax.Array
) -> tuple[list[Layer], jax.Array, jax.Array]:
    """Return a list of layers, one of the inputs, and a key for a direction."""
    key_layers, key_input, key_direction = jax.random.split(key, 3)
    x = inputs[jax.random.randint(key_input, (), 0, len(inputs))]
    fresh = layers(key_layers) if callable(layers) else layers
    return list(fresh), x, key_direction


def finite(layers: Layers, inputs: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Return key -> whether the output of each layer is finite."""

    def path(key):
        fresh, x, _ = drawn(layers, inputs, key)
        flags = []
        for layer in fresh:
            x = layer(x)
            flags.append(jnp.all(jnp.isfinite(x)))
        return jnp.stack(flags)

    return path
