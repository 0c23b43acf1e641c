"""Models of any framework as lists of callables x -> x, by naming their blocks.

Nothing here imports a framework: Flax NNX and Equinox modules are callables with
attributes, Flax Linen modules have ``bind`` and ``apply``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from lognorm_jax._tools import checks
from lognorm_jax.probing import _layers, _lookup
from lognorm_jax.probing._layers import Chain, Layer, chain, name_of, named, parts

__all__ = [
    "Chain",
    "Layer",
    "blocks",
    "chain",
    "functions",
    "name_of",
    "named",
    "parts",
    "same",
]


def blocks(
    model: object,
    names: Sequence[str | Layer | tuple[str | Layer, ...]],
    variables: Mapping[str, Any] | None = None,
    *,
    example: object = None,
) -> list[Layer]:
    """Return the named blocks of a model as callables x -> x, to probe in this order.

    Nothing of the model is changed. What its own ``__call__`` does between the blocks
    is not known here, such as activations: name all of it, and let ``models.same``
    compare the whole.

    Args:
        model: a Flax NNX or Equinox module, or a Flax Linen module.
        names: what is applied, in order: each the path of a block in the model, such
            as "encoder" or "layers[0].linear"; or a function, such as
            ``jax.nn.relu``, for what the model does between; or a tuple of these,
            which are then one layer.
        variables: of a Linen module, the whole dictionary that ``init`` returned.
        example: an input of a Linen module, for blocks that it makes as it runs
            (``nn.compact``).

    Returns:
        One callable for each entry of names, with the name of its block; a ``Chain``
        for a tuple.

    Raises:
        ValueError: for a name that the model does not have, or that cannot be called;
            for a class in place of a model, a model of PyTorch, and variables that are
            not the whole dictionary.

    >>> class Model:
    ...     double = staticmethod(lambda x: 2 * x)
    >>> [layer.__name__ for layer in blocks(Model(), ["double", ("double", abs)])]
    ['double', 'double, abs']
    """
    allowed = "a sequence of paths, functions and tuples of these"
    several = isinstance(names, Sequence) and not isinstance(names, str)
    checks.require(several and len(names) >= 1, "names", names, allowed)
    find = _lookup.finder(model, variables, example)

    layers = []
    for i, name in enumerate(names):
        applied = name if isinstance(name, tuple) else (name,)
        checks.require(len(applied) >= 1, f"names[{i}]", name, allowed)
        layers.append(chain([_block(find, each, f"names[{i}]") for each in applied]))
    return layers


def _block(find: _lookup.Find, name: Any, argument: str) -> Layer:
    """Return the block of a path, or a function as it is, with its name."""
    if not isinstance(name, str):
        checks.function(argument, name, "the path of a block, or a function")
        return named(name, name_of(name))
    block = find(name, argument)
    allowed = "the path of a block that can be called"
    checks.require(callable(block), argument, name, allowed)
    return named(block, name)


def same(
    layers: Iterable[Layer],
    model: Callable[[Any], Any],
    x: ArrayLike,
    rtol: float = 1e-4,
) -> None:
    """Raise ``ValueError`` unless the layers in turn give what the model gives for x.

    Args:
        layers: callables x -> x, as ``models.blocks`` returns them.
        model: x -> output; for a Flax Linen module
            ``lambda x: module.apply(variables, x)``.
        x: an input of the model, finite.
        rtol: ≥ 0, relative to the largest coordinate of the output.

    Raises:
        ValueError: with the largest difference, or the two shapes, where they do not;
            and for arguments of another kind or range.

    >>> same([abs, lambda x: 2 * x], lambda x: 2 * abs(x), -3.0)
    """
    layers = _layers.listed(layers)
    instead = "For a Linen module: lambda x: module.apply(variables, x)."
    checks.require(callable(model), "model", model, "a callable x -> output", instead)
    checks.vector("x", x, None, zero=True)
    rtol = checks.number("rtol", rtol, "[0, inf)")

    wanted = np.asarray(model(x))
    output = np.asarray(Chain(tuple(layers))(x))
    allowed = f"that of the model, {wanted.shape}"
    alike = output.shape == wanted.shape
    checks.require(alike, "shape of the last layer", output.shape, allowed)

    difference = float(np.max(np.abs(output - wanted), initial=0))
    limit = rtol * float(np.max(np.abs(wanted), initial=0))
    name = "largest difference to the model"
    instead = "Is an activation, reshape or sum missing between the named blocks?"
    close = difference <= limit
    checks.require(close, name, difference, f"at most {limit:.3g}", instead)


def functions(
    layers: Sequence[Callable] | Mapping[str, Callable],
    params: Any,
) -> list[Layer]:
    """Return functions f(params, x) with their params bound, as callables x -> x.

    Args:
        layers: a sequence of functions, or a dictionary of them, whose keys are then
            the names of the callables.
        params: a sequence as long, or a dictionary of the same keys.

    Returns:
        One callable for each function, in order, of its name.

    Raises:
        ValueError: for layers that are no sequence or dictionary, and params that do
            not fit them.

    >>> (triple,) = functions({"triple": lambda factor, x: factor * x}, {"triple": 3})
    >>> triple.__name__, triple(2.0)
    ('triple', 6.0)
    """
    several = isinstance(layers, Sequence | Mapping) and not isinstance(layers, str)
    allowed = "a sequence or dictionary of functions f(params, x)"
    checks.require(several, "layers", layers, allowed)

    if isinstance(layers, Mapping):
        fits = isinstance(params, Mapping) and set(params) == set(layers)
        allowed = f"a dictionary with the keys {sorted(layers)}"
        checks.require(fits, "params", params, allowed)
        return [_bound(name, layers[name], params[name]) for name in layers]

    fits = isinstance(params, Sequence) and len(params) == len(layers)
    allowed = f"a sequence of {len(layers)}, one per layer"
    checks.require(fits, "params", params, allowed)
    pairs = zip(layers, params, strict=True)
    return [_bound(name_of(layer), layer, values) for layer, values in pairs]


def _bound(name: str, layer: Callable[[Any, Any], Any], params: Any) -> Layer:
    """Return x -> layer(params, x), of that name."""
    return named(lambda x: layer(params, x), name)
