"""Where in a model the block of a path is: by attributes, or in a Flax Linen module."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.probing import _frameworks

# (path, argument that it was given as, for errors) -> block
Find = Callable[[str, str], Any]

PATH = re.compile(r"\w+(\.\w+|\[-?\d+\]|\[\w+\])*")
# some of which the variables of a Linen module have
COLLECTIONS = ("params", "batch_stats", "constants")


def finder(model: object, variables: object, example: object) -> Find:
    """Return the search for the blocks of a model, from any framework but PyTorch."""
    _frameworks.refuse_torch("model", model)
    allowed = "an instance of a module, such as Model(nnx.Rngs(key))"
    instance = not isinstance(model, type)
    checks.require(instance, "model", model, allowed, "This is its class.")
    if variables is None and example is None:
        return _by_attributes(model)
    return _in_linen(model, variables, example)


def _by_attributes(model: object) -> Find:
    """Return the search by attributes, indices and keys."""

    def find(path, argument):
        allowed = "a path such as encoder.layers[0].linear"
        checks.require(bool(PATH.fullmatch(path)), argument, path, allowed)
        block = model
        for step in re.findall(r"[^.\[\]]+", path):
            try:
                block = _follow(block, step)
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                kind = type(block).__name__
                allowed = f"the path of a block: {kind} has no {step!r} ({error})"
                instead = _way_out(model, block)
                checks.require(False, argument, path, allowed, instead)
        return block

    return find


def _follow(block: Any, step: str) -> Any:
    """Return the entry or attribute of that name."""
    if step.lstrip("-").isdigit():
        return block[int(step)]
    if isinstance(block, Mapping):
        return block[step]
    return getattr(block, step)


def _way_out(model: object, block: object) -> str:
    """Return what to ask for instead of what a block does not have."""
    if hasattr(model, "bind"):
        return (
            "For a Linen module give variables, the whole dictionary that init "
            "returned, and for blocks that it makes as it runs, example."
        )
    if isinstance(block, Sequence):
        return f"It has {len(block)} entries."
    public = [name for name in getattr(block, "__dict__", ()) if name[0] != "_"]
    return f"It has {', '.join(public)}." if public else ""


def _in_linen(model: Any, variables: Any, example: Any) -> Find:
    """Return the search in a Linen module, also for what it makes as it runs."""
    linen = hasattr(model, "bind") and hasattr(model, "apply")
    allowed = "a Flax Linen module, where variables are given"
    checks.require(linen, "model", model, allowed)

    mapping = isinstance(variables, Mapping)
    whole = mapping and any(name in variables for name in COLLECTIONS)
    shown = list(variables) if mapping else type(variables)
    allowed = "the whole dictionary that init returned, of collections such as 'params'"
    checks.require(whole, "variables", shown, allowed)

    made = {} if example is None else _made(model, variables, example)

    def find(path, argument):
        key = re.sub(r"\[(-?\d+)\]", r"_\1", path)
        if key in made:
            module = made[key]
            its_variables = _of_module(variables, key)
            return lambda x: module.apply(its_variables, x)
        known = not made or hasattr(model, path.split("[")[0])
        checks.require(known, argument, path, f"one of {', '.join(made)}")
        return _by_attributes(model.bind(variables))(path, argument)

    return find


def _made(model: Any, variables: Any, example: Any) -> dict[str, Any]:
    """Return the modules that a Linen module calls for an input, by their paths."""
    made: dict[str, Any] = {}

    def note(module, method):
        if method == "__call__" and module.path:
            made.setdefault(".".join(module.path), module.clone(parent=None))
        return False

    options = {"capture_intermediates": note, "mutable": ["intermediates"]}
    try:
        model.apply(variables, example, **options)
    except Exception as error:
        # of any kind: it is the model that raised it
        text = f"example of shape {np.shape(example)}: {error}"
        text = f"{text} {_frameworks.way_out(error)}".rstrip()
        raise ValueError(text) from error
    return made


def _of_module(variables: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the variables of one module, from those of the module it is in."""
    of_module = {}
    for collection, tree in variables.items():
        for step in path.split("."):
            tree = tree.get(step, {}) if isinstance(tree, Mapping) else {}
        of_module[collection] = tree
    return of_module
