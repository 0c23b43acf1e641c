"""Models of any framework as lists of callables x -> x, by naming their blocks.

Nothing here imports a framework: Flax NNX and Equinox modules are callables with
attributes, Flax Linen modules have ``bind`` and ``apply``.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.probing import _frameworks

# some of which Linen variables have
COLLECTIONS = ("params", "batch_stats", "constants")


@dataclasses.dataclass(frozen=True)
class Chain:
    """Callables applied in turn, as one: a layer whose parts are known."""

    parts: tuple[Callable[[jax.Array], jax.Array], ...]

    @property
    def __name__(self) -> str:
        """The joint name of the parts."""
        return ", ".join(map(name_of, self.parts))

    def __call__(self, x: Any) -> Any:
        for part in self.parts:
            x = part(x)
        return x


def blocks(
    model: Any, names: Sequence[Any], variables: Any = None, *, example: Any = None
) -> list[Callable[[jax.Array], jax.Array]]:
    """Return the named blocks of a model as callables x -> x, to probe in this order.

    model: a Flax NNX or Equinox module; or a Flax Linen module, with its ``variables``;
    for blocks that a Linen module makes as it runs (``nn.compact``) also ``example``,
    an input of the model. names: what is applied, in order; each the path of a block in
    the model, such as "encoder" or "layers[0].linear"; or a function, such as
    ``jax.nn.relu``, for what the model does between; or a tuple of these, which are
    then one layer. Nothing of the model is changed. What its own ``__call__`` does
    between the blocks is not known here, such as activations: name all of it, and let
    ``same`` compare the whole.

    Each callable has the name of its block, for error messages. Raises ``ValueError``
    for a name that the model does not have.

    >>> class Model:
    ...     double = staticmethod(lambda x: 2 * x)
    >>> [layer.__name__ for layer in blocks(Model(), ["double", ("double", abs)])]
    ['double', 'double, abs']
    """
    listed = (
        isinstance(names, Sequence) and not isinstance(names, str) and len(names) >= 1
    )
    allowed = "a sequence of paths, functions and tuples of these"
    checks.require(listed, "names", names, allowed)
    _frameworks.refuse_torch("model", model)
    made = "an instance of a module, such as Model(nnx.Rngs(key))"
    checks.require(
        not isinstance(model, type), "model", model, made, "This is its class."
    )
    linen = variables is not None or example is not None
    find = _linen(model, variables, example) if linen else _attribute(model)

    def one(name, place):
        if isinstance(name, str):
            found = find(name, place)
            checks.require(
                callable(found), place, name, "the path of a block that can be called"
            )
            return named(found, name)
        checks.require(
            callable(name), place, name, "the path of a block, or a function"
        )
        return named(name, getattr(name, "__name__", repr(name)))

    layers = []
    for i, name in enumerate(names):
        parts = name if isinstance(name, tuple) else (name,)
        checks.require(len(parts) >= 1, f"names[{i}]", name, allowed)
        layers.append(chain([one(part, f"names[{i}]") for part in parts]))
    return layers


def same(
    layers: Sequence[Callable[[jax.Array], jax.Array]],
    model: Callable,
    x: Any,
    rtol: float = 1e-4,
) -> None:
    """Raise ``ValueError`` unless the layers in turn give what the model, x -> output,
    gives for x.

    rtol: relative to the largest coordinate of the output. For a Flax Linen module let
    the model be ``lambda x: module.apply(variables, x)``.

    >>> same([abs, lambda x: 2 * x], lambda x: 2 * abs(x), -3.0)
    """
    allowed = "a sequence of callables x -> x"
    checks.require(isinstance(layers, Iterable), "layers", layers, allowed)
    layers = list(layers)
    for i, layer in enumerate(layers):
        checks.require(callable(layer), f"layers[{i}]", layer, "a callable x -> x")
    instead = "For a Linen module: lambda x: module.apply(variables, x)."
    checks.require(callable(model), "model", model, "a callable x -> output", instead)
    checks.vector("x", x, None, zero=True)
    allowed = "a finite number ≥ 0"
    rtol = float(checks.real("rtol", rtol, allowed))
    checks.require(rtol >= 0, "rtol", rtol, allowed)
    wanted = np.asarray(model(x))
    found = np.asarray(chain(layers)(x))
    allowed = f"that of the model, {wanted.shape}"
    checks.require(
        found.shape == wanted.shape, "shape of the last layer", found.shape, allowed
    )
    apart = float(np.max(np.abs(found - wanted), initial=0))
    limit = rtol * float(np.max(np.abs(wanted), initial=0))
    text = f"at most {limit:.3g}"
    instead = "Is an activation, reshape or sum missing between the named blocks?"
    checks.require(
        apart <= limit, "largest difference to the model", apart, text, instead
    )


def functions(
    layers: Sequence[Callable] | Mapping[str, Callable], params: Any
) -> list[Callable[[jax.Array], jax.Array]]:
    """Return functions f(params, x) with their params bound, as callables x -> x.

    layers: a sequence of functions, with ``params`` a sequence as long; or a dictionary
    of them, with ``params`` a dictionary of the same keys, whose names the callables
    get.
    """
    listed = isinstance(layers, Sequence | Mapping)
    allowed = "a sequence or dictionary of functions f(params, x)"
    checks.require(listed and not isinstance(layers, str), "layers", layers, allowed)
    if isinstance(layers, Mapping):
        fits = isinstance(params, Mapping) and set(params) == set(layers)
        checks.require(
            fits, "params", params, f"a dictionary with the keys {sorted(layers)}"
        )
        pairs = [(name, layer, params[name]) for name, layer in layers.items()]
    else:
        fits = isinstance(params, Sequence) and len(params) == len(layers)
        checks.require(
            fits, "params", params, f"a sequence of {len(layers)}, one a layer"
        )
        called = [getattr(layer, "__name__", repr(layer)) for layer in layers]
        pairs = list(zip(called, layers, params, strict=True))
    return [named(lambda x, f=f, p=p: f(p, x), name) for name, f, p in pairs]


def named(layer: Callable, name: str) -> Callable:
    """Return the callable under another name."""

    def apply(x):
        return layer(x)

    apply.__name__ = name
    return apply


def chain(layers: Sequence[Callable]) -> Callable:
    """Return callables applied in turn, as one, of their joint name."""
    return (
        layers[0]
        if len(layers) == 1
        else Chain(tuple(p for one in layers for p in parts(one)))
    )


def parts(layer: Callable) -> tuple[Callable, ...]:
    """Return the callables that a chain applies in turn; any other layer is one
    part.
    """
    return layer.parts if isinstance(layer, Chain) else (layer,)


def name_of(layer: Callable) -> str:
    """Return the name of a function, or that of the class of an object."""
    return getattr(layer, "__name__", type(layer).__name__)


def _attribute(model: Any) -> Callable[[str, str], Any]:
    def find(path, place):
        found = model
        whole = re.fullmatch(r"\w+(\.\w+|\[-?\d+\]|\[\w+\])*", path)
        checks.require(whole, place, path, "a path such as encoder.layers[0].linear")
        for step in re.findall(r"[^.\[\]]+", path):
            try:
                indexed = step.lstrip("-").isdigit() or isinstance(found, Mapping)
                key = int(step) if step.lstrip("-").isdigit() else step
                found = found[key] if indexed else getattr(found, step)
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                allowed = f"the path of a block: {type(found).__name__} has no {step!r} ({error})"
                there = [
                    name for name in getattr(found, "__dict__", ()) if name[0] != "_"
                ]
                instead = f"It has {', '.join(there)}." if there else ""
                if isinstance(found, Sequence):
                    instead = f"It has {len(found)} entries."
                if hasattr(model, "bind"):
                    instead = "For a Linen module give variables, the whole dictionary that init "
                    instead += (
                        "returned, and for blocks that it makes as it runs, example."
                    )
                checks.require(False, place, path, allowed, instead)
        return found

    return find


def _linen(model: Any, variables: Any, example: Any) -> Callable[[str, str], Any]:
    """Return the search for blocks of a Linen module: attributes, or those made as it
    runs.
    """
    usable = hasattr(model, "bind") and hasattr(model, "apply")
    checks.require(
        usable, "model", model, "a Flax Linen module, where variables are given"
    )
    whole = isinstance(variables, Mapping) and any(c in variables for c in COLLECTIONS)
    allowed = "the whole dictionary that init returned, of collections such as 'params'"
    shown = list(variables) if isinstance(variables, Mapping) else type(variables)
    checks.require(whole, "variables", shown, allowed)
    made = {}

    def note(module, method):
        if method == "__call__" and module.path:
            made.setdefault(".".join(module.path), module.clone(parent=None))
        return False

    if example is not None:
        try:
            model.apply(
                variables,
                example,
                capture_intermediates=note,
                mutable=["intermediates"],
            )
        except Exception as error:  # of any kind: it is the model that raised it
            text = f"example of shape {np.shape(example)}: {error}"
            raise ValueError(
                " ".join([text, _frameworks.way_out(error)]).rstrip()
            ) from error

    def find(path, place):
        key = re.sub(r"\[(-?\d+)\]", r"_\1", path)
        if key not in made and made:
            names = ", ".join(made)
            checks.require(
                hasattr(model, path.split("[")[0]), place, path, f"one of {names}"
            )
        if key not in made:
            return _attribute(model.bind(variables))(path, place)
        module = made[key]
        own = {}
        for collection, tree in variables.items():
            for step in key.split("."):
                tree = tree.get(step, {}) if isinstance(tree, Mapping) else {}
            own[collection] = tree
        return lambda x: module.apply(own, x)

    return find
