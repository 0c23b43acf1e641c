"""Blocks of a module of PyTorch, followed in the model as it runs.

Hooks read what comes out of each, and ``torch.func.jvp`` and a backward pass give the
derivatives by what goes into the first.
"""

import contextlib
import copy
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.auditing import _audit

Follow = Callable[[Any], tuple]  # what goes into the first block -> outputs of all
MISSING = (
    'Models of PyTorch need torch: pip install "lognorm_jax[torch]"; in a clone, pip '
    'install -e ".[torch]"'
)
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


def torch() -> Any:
    """Return PyTorch.

    Raises:
        ValueError: without it, saying how to install it.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ValueError(f"{MISSING} ({error})") from error


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
        if place in modules and isinstance(modules[place], library.nn.ModuleList):
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
    library: Any,
    model: Any,
    blocks: Mapping[str, Any],
    inputs: Any,
    kinds: Sequence[str],
) -> tuple[dict[str, np.ndarray], list[str], list[int]]:
    """Return ln R of each block, by kind, their paths in the order of use, and the
    sizes of the first input and last output.
    """
    found = {}
    with _followed(library, model, blocks, inputs) as (names, x, follow):
        if "activations" in kinds or "jvp" in kinds:
            tangent = library.randn_like(x)
            outputs, pushed = library.func.jvp(follow, (x,), (tangent,))
            found["activations"] = _ratios([x, *outputs])
            found["jvp"] = _ratios([tangent, *pushed])
        if "vjp" in kinds:
            outputs, pulled = _pulled(library, x, follow)
            # from the output on
            found["vjp"] = _ratios(pulled[::-1])[::-1]
    wanted = {kind: values for kind, values in found.items() if kind in kinds}
    for kind, values in wanted.items():
        bad = np.isnan(values) | (values == np.inf)
        if bad.any():
            place = np.flatnonzero(bad)[-1 if kind == "vjp" else 0]
            raise ValueError(
                f"blocks[{place}] ({names[place]}): its output, or its derivative, is "
                "not finite."
            )
    return wanted, names, [x.numel(), outputs[-1].numel()]


def _pulled(library: Any, x: Any, follow: Follow) -> tuple[Sequence[Any], list[Any]]:
    """Return outputs of blocks, and the cotangents before each and after the last."""
    x = x.clone().requires_grad_(True)
    with library.enable_grad():
        outputs = follow(x)
    cotangent = library.randn_like(outputs[-1])
    before = [x, *outputs[:-1]]
    try:
        pulled = library.autograd.grad(
            outputs[-1], before, cotangent, allow_unused=True
        )
    except RuntimeError as error:
        raise ValueError(
            f"No gradients come back through the model: {error}\nIs it under no_grad, "
            "or does it overwrite what it needs? Without them: kinds activations, jvp."
        ) from error
    gradients = [
        library.zeros_like(one) if gradient is None else gradient
        for one, gradient in zip(before, pulled, strict=True)
    ]
    return outputs, [*gradients, cotangent]


@contextlib.contextmanager
def _followed(
    library: Any, model: Any, blocks: Mapping[str, Any], inputs: Any
) -> Iterator[tuple[list[str], Any, Follow]]:
    """Yield paths of blocks in the order of use, what goes into the first, and a
    function of it: the outputs of all.
    """
    with _plain_attention(library):
        names = _order(library, model, blocks, inputs)
        used = [blocks[name] for name in names]
        met: list[Any] = []
        given: dict[str, Any] = {}

        def before(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            del module
            place = _first_float(library, args, kwargs, names[0])
            if isinstance(place, int):
                given.setdefault("in", args[place])
                # what overwrites its input does not overwrite this
                x = given["in"].clone()
                return (*args[:place], x, *args[place + 1 :]), kwargs
            given.setdefault("in", kwargs[place])
            return args, {**kwargs, place: given["in"].clone()}

        def after(module: Any, args: tuple, output: Any) -> Any:
            del module, args
            tensor = _first_tensor(library, output)
            met.append(tensor)
            # what comes after may overwrite what it is given
            return _with_first(library, output, tensor.clone())

        def follow(x: Any) -> tuple:
            met.clear()
            given["in"] = x
            _called(model, inputs)
            return tuple(met)

        handles = [used[0].register_forward_pre_hook(before, with_kwargs=True)]
        handles += [block.register_forward_hook(after) for block in used]
        with contextlib.ExitStack() as stack:
            for handle in handles:
                stack.callback(handle.remove)
            with library.no_grad():
                _called(model, inputs)
            yield names, given["in"].detach(), follow


def _order(
    library: Any, model: Any, blocks: Mapping[str, Any], inputs: Any
) -> list[str]:
    """Return the paths of blocks in the order of use.

    Raises:
        ValueError: for blocks that are not used once.
    """
    used: list[str] = []
    with contextlib.ExitStack() as stack:
        for name, block in blocks.items():

            def note(module: Any, args: tuple, output: Any, name: str = name) -> None:
                del module, args, output
                used.append(name)

            stack.callback(block.register_forward_hook(note).remove)
        with library.no_grad():
            _called(model, inputs)
    for name in blocks:
        times = used.count(name)
        once = "used once, or it cannot be said what it does; leave it out"
        checks.require(times == 1, f"times that block {name!r} is used", times, once)
    return used


def _first_float(library: Any, args: tuple, kwargs: dict, name: str) -> int | str:
    """Return the place of the first tensor of floats among arguments."""
    for place, value in [*enumerate(args), *kwargs.items()]:
        if _is_float(library, value):
            return place
    allowed = "one that takes a tensor of floats: begin with the block after"
    checks.refuse("first block", name, allowed)


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


def _with_first(library: Any, output: Any, tensor: Any) -> Any:
    """Return what a block gives, with another first tensor."""
    if isinstance(output, library.Tensor):
        return tensor
    if isinstance(output, tuple | list):
        first = _with_first(library, output[0], tensor)
        named: Any = output
        if hasattr(named, "_replace"):
            return named._replace(**{named._fields[0]: first})
        return type(output)([first, *output[1:]])
    changed = copy.copy(output)
    name = next(iter(output))
    changed[name] = _with_first(library, output[name], tensor)
    return changed


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
    """Return ln of the ratios of squared norms of tensors in turn; once dead, −inf."""
    squares = [float(one.detach().double().square().sum()) for one in tensors]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(squares)
        ratios = np.diff(logs)
    # what biases make of nothing knows nothing of the input
    dead = np.logical_or.accumulate(np.isneginf(logs[1:]))
    return np.where(dead, -np.inf, ratios)
