"""Blocks of a module of PyTorch, followed in the model as it runs.

Hooks read what comes out of each, and ``torch.func.jvp`` and a backward pass give the
derivatives by what goes into the first.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.auditing import _audit

Follow = Callable[[Any], tuple]  # what goes into the first block -> outputs of all
# where the common families have their blocks
_PLACES = (
    "transformer.h",
    "h",
    "model.layers",
    "layers",
    "encoder.layer",
    "encoder.layers",
)
_STAGES = ("encoder.stages", "resnet.encoder.stages")


def found(library: Any, model: Any, blocks: Sequence[str] | None) -> dict[str, Any]:
    """Return the modules that are followed, by their paths."""
    if blocks is not None:
        named = {}
        for i, path in enumerate(_audit.named(blocks)):
            try:
                block = model.get_submodule(path)
            except AttributeError as error:
                known = ", ".join(name for name, _ in model.named_children())
                allowed = f"the path of a module ({error}); at the top are {known}"
                checks.refuse(f"blocks[{i}]", path, allowed)
            named.update(_unpacked(library, path, block))
        return named
    modules = dict(model.named_modules())
    for place in _PLACES:
        if place in modules and len(list(modules[place].children())) > 1:
            return _unpacked(library, place, modules[place])
    for place in _STAGES:
        if place in modules:
            return {
                f"{place}.{i}.layers.{j}": layer
                for i, stage in enumerate(modules[place])
                for j, layer in enumerate(stage.layers)
            }
    lists = [
        (path, module)
        for path, module in modules.items()
        if isinstance(module, library.nn.ModuleList | library.nn.Sequential)
        and len(module) > 1
    ]
    allowed = "given, for models without a list of blocks: paths in the order of use"
    checks.require(bool(lists), "blocks", blocks, allowed)
    path, module = max(lists, key=lambda entry: len(entry[1]))
    return _unpacked(library, path, module)


def _unpacked(library: Any, path: str, block: Any) -> dict[str, Any]:
    """Return the modules of a list, or one module."""
    several = isinstance(block, library.nn.ModuleList | library.nn.Sequential)
    if not several or len(block) == 0:
        return {path: block}
    prefix = f"{path}." if path else ""
    return {f"{prefix}{i}": module for i, module in enumerate(block)}


def increments(
    library: Any, model: Any, blocks: Sequence[Any], inputs: Any, kinds: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Return ln R of each block, by kind, and the sizes of the first input and last
    output.
    """
    found = {}
    with _followed(library, model, blocks, inputs) as (x, follow):
        if "activations" in kinds or "jvp" in kinds:
            tangent = library.randn_like(x)
            outputs, pushed = library.func.jvp(follow, (x,), (tangent,))
            found["activations"] = _ratios([x, *outputs])
            found["jvp"] = _ratios([tangent, *pushed])
        if "vjp" in kinds:
            outputs, pulled = _pulled(library, x, follow)
            found["vjp"] = -_ratios(pulled)
    wanted = {kind: values for kind, values in found.items() if kind in kinds}
    return wanted, [x.numel(), outputs[-1].numel()]


def _pulled(library: Any, x: Any, follow: Follow) -> tuple[Sequence[Any], list[Any]]:
    """Return outputs of blocks, and the cotangents before each and after the last."""
    x = x.clone().requires_grad_(True)
    outputs = follow(x)
    cotangent = library.randn_like(outputs[-1])
    before = [x, *outputs[:-1]]
    pulled = library.autograd.grad(outputs[-1], before, cotangent, allow_unused=True)
    gradients = [
        library.zeros_like(one) if gradient is None else gradient
        for one, gradient in zip(before, pulled, strict=True)
    ]
    return outputs, [*gradients, cotangent]


@contextlib.contextmanager
def _followed(
    library: Any, model: Any, blocks: Sequence[Any], inputs: Any
) -> Iterator[tuple[Any, Follow]]:
    """Yield what goes into the first block, and a function of it: all their outputs."""
    met: list[Any] = []
    given: dict[str, Any] = {}

    def before(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        del module
        names = [name for name, value in kwargs.items() if _is_float(library, value)]
        if "in" not in given:
            given["in"] = args[0] if args else kwargs[names[0]]
            return None
        if args:
            return (given["in"], *args[1:]), kwargs
        return args, {**kwargs, names[0]: given["in"]}

    def after(module: Any, args: tuple, output: Any) -> None:
        del module, args
        met.append(_first_tensor(library, output))

    def follow(x: Any) -> tuple:
        met.clear()
        given["in"] = x
        _called(model, inputs)
        return tuple(met)

    handles = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.register_forward_hook(after) for block in blocks]
    with contextlib.ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        stack.enter_context(_plain_attention(library))
        with library.no_grad():
            _called(model, inputs)
        count = len(met)
        allowed = f"{len(blocks)}: each block runs once"
        checks.require(count == len(blocks), "outputs of blocks", count, allowed)
        yield given["in"].detach(), follow


def _called(model: Any, inputs: Any) -> Any:
    """Return what a model gives for a tensor, several, or named ones."""
    try:
        if isinstance(inputs, Mapping):
            return model(**inputs)
        if isinstance(inputs, tuple):
            return model(*inputs)
        return model(inputs)
    except Exception as error:
        # of any kind: it is the model that raised it
        given = ", ".join(inputs) if isinstance(inputs, Mapping) else "these inputs"
        raise ValueError(
            f"The model does not run on {given}: {type(error).__name__}: {error}\n"
            "Give all that its forward needs: a tuple of arguments, or a dictionary "
            "of named ones."
        ) from error


def _first_tensor(library: Any, output: Any) -> Any:
    """Return the first tensor of what a block gives."""
    if isinstance(output, library.Tensor):
        return output
    if isinstance(output, tuple | list) and output:
        return _first_tensor(library, output[0])
    if isinstance(output, Mapping) and output:
        return _first_tensor(library, next(iter(output.values())))
    checks.refuse("output of a block", type(output).__name__, "a tensor, or some first")


def _is_float(library: Any, value: Any) -> bool:
    return isinstance(value, library.Tensor) and value.is_floating_point()


def _plain_attention(library: Any) -> Any:
    """Return a context in which attention has forward derivatives."""
    try:
        attention = importlib.import_module("torch.nn.attention")
    except ImportError:
        return contextlib.nullcontext()
    return attention.sdpa_kernel(attention.SDPBackend.MATH)


def _ratios(tensors: Sequence[Any]) -> np.ndarray:
    """Return ln of the ratios of the squared norms of tensors in turn."""
    squares = [float(one.detach().double().square().sum()) for one in tensors]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(squares)
        ratios = np.diff(logs)
    # once dead, dead: its increments are −inf
    return np.where(np.isneginf(logs[1:]), -np.inf, ratios)
