"""Fresh initialisations of a model, or a model as it is, and an input for each of them.

A model is a list of callables x -> x; an initialisation is a function of a key that
returns one.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lognorm_jax._tools import checks, random
from lognorm_jax.probing import _frameworks, _layers, _pieces, _runs, _shapes
from lognorm_jax.probing._layers import Layer

Layers = Callable[[jax.Array], Iterable[Layer]] | Iterable[Layer]
# key -> layers
Source = Callable[[jax.Array], Iterable[Layer]]

ALLOWED = "a function key -> list of callables x -> x, or such a list"
WHOLE = "For a model that is called itself: lambda key: [Model(nnx.Rngs(key))]."


class Plan(NamedTuple):
    """What is known of the layers of a model before their numbers are."""

    source: Source
    output: jax.ShapeDtypeStruct
    pieces: list[_pieces.Piece]  # that are measured as one
    names: list[str]  # of the layers, in reports
    labels: list[str]  # of the pieces, in errors


@dataclasses.dataclass(frozen=True)
class _Source:
    """A function of the user's, given keys of a kind."""

    layers: Callable[[jax.Array], Iterable[Layer]]
    kind: Callable[[jax.Array], jax.Array]

    def __call__(self, key: jax.Array) -> Iterable[Layer]:
        return self.layers(self.kind(key))


def inputs_of(inputs: ArrayLike) -> jax.Array:
    """Return inputs as an array (count, *shape of an input), of floating type."""
    _frameworks.refuse_torch("inputs", inputs)
    inputs = checks.vector("inputs", inputs, None, zero=True)
    shape = np.shape(inputs)
    batch = len(shape) >= 2 and shape[0] >= 1
    checks.require(batch, "inputs.shape", shape, "(count, *shape of an input)")
    inputs = jnp.asarray(inputs, checks.float_dtype(inputs))
    return checks.vector("inputs", inputs, None, zero=True)


def planned(layers: Layers, key: jax.Array, x: jax.Array) -> Plan:
    """Return what is known of the layers before their numbers are.

    Args:
        layers: key -> list of callables x -> x, or one such list.
        key: for the list.
        x: an input.

    Raises:
        ValueError: for what gives no lists, and for lists that do not depend on the
            key.
    """
    _frameworks.refuse_torch("layers", layers)
    usable = callable(layers) or isinstance(layers, Iterable)
    checks.require(usable, "layers", layers, ALLOWED, WHOLE)
    # some modules, made of a list, can be called, too
    if isinstance(layers, Iterable):
        return _plan_of_list(layers, x)
    try:
        return _plan_of_function(layers, random.held, key, x)
    except Exception:
        # of any kind: keys of JAX's own kind may do, or raise it again
        return _plan_of_function(layers, lambda key: key, key, x)


def _plan_of_list(layers: Iterable[Layer], x: jax.Array) -> Plan:
    """Return the plan of a model as it is."""
    layers, output = followed(layers, x)
    pieces = _pieces.plan(layers, x)
    return Plan(lambda key: layers, output, pieces, *_pieces.told(layers, pieces))


def _plan_of_function(
    layers: Callable[[jax.Array], Iterable[Layer]],
    kind: Callable[[jax.Array], jax.Array],
    key: jax.Array,
    x: jax.Array,
) -> Plan:
    """Return the plan of fresh initialisations, of keys of a kind."""
    source = _Source(layers, kind)
    plans = []

    def output(key):
        try:
            drawn = source(key)
        except Exception as error:
            # of any kind: it is the function that raised it
            text = f"layers(key): {_told(error)}\nlayers must be {ALLOWED}. {WHOLE}"
            raise ValueError(text) from error
        _frameworks.refuse_torch("layers(key)", drawn)
        several = isinstance(drawn, Iterable)
        checks.require(several, "layers(key)", drawn, "a list", WHOLE)

        drawn, reached = followed(drawn, x)
        pieces = _pieces.plan(drawn, x)
        names = _pieces.told(drawn, pieces)
        plans.append(Plan(source, reached, pieces, *names))
        return _runs.output(_layers.labelled(drawn), x)

    # nothing of it is computed
    fresh = _depends(jax.make_jaxpr(output)(key))
    allowed = "a fresh initialisation for each key"
    instead = (
        "It gives the same for all: its numbers must come from the key. For a model as "
        "it is give the list itself."
    )
    checks.require(fresh, "layers", layers, allowed, instead)
    return plans[0]


def _told(error: Exception) -> str:
    """Return what an error says, or what it is where that says little."""
    text = str(error)
    return (
        text
        if isinstance(error, ValueError | TypeError)
        else f"{type(error).__name__}: {text}"
    )


def followed(
    layers: Iterable[Layer], x: jax.Array
) -> tuple[list[Layer], jax.ShapeDtypeStruct]:
    """Return the layers as a list, not empty, and the shape that x reaches."""
    layers = _layers.listed(layers)
    checks.require(len(layers) >= 1, "len(layers)", len(layers), "≥ 1")
    return layers, _shapes.follow(layers, x)


def _depends(closed: Any) -> bool:
    """Return whether the outputs of a jaxpr depend on its inputs, as far as it shows.

    What is called inside is taken to depend on all that it is given.
    """
    known = {id(var) for var in closed.jaxpr.invars}
    for equation in closed.jaxpr.eqns:
        if any(id(atom) in known for atom in equation.invars):
            known.update(map(id, equation.outvars))
    return any(id(atom) in known for atom in closed.jaxpr.outvars)


def drawn(
    source: Source, inputs: jax.Array, key: jax.Array
) -> tuple[list[Layer], jax.Array, jax.Array]:
    """Return a list of layers, one of the inputs, and a key for a direction."""
    key_layers, key_input, key_direction = random.split(key, 3)
    x = inputs[jax.random.randint(random.held(key_input), (), 0, len(inputs))]
    return list(source(key_layers)), x, key_direction


def finite(source: Source, inputs: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Return key -> whether the output of each layer is finite."""

    def path(key):
        fresh, x, _ = drawn(source, inputs, key)
        flags = []
        for layer in fresh:
            x = layer(x)
            flags.append(jnp.all(jnp.isfinite(x)))
        return jnp.stack(flags)

    return path
