"""Audits of models of PyTorch: the only module that sees torch.

Blocks are followed in the model as it runs: hooks read what comes out of each, and
``torch.func.jvp`` and a backward pass give the derivatives by what goes into the first.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.auditing import _audit, _parameters, _stability, declarations
from lognorm_jax.probing.reports import Report

MISSING = 'Models of PyTorch need torch: pip install "lognorm_jax[torch]"'
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


def audit(
    make: Callable[[], Any],
    inputs: Any = None,
    *,
    blocks: Sequence[str] | None = None,
    declaration: Mapping[str, Any] | None = None,
    fixed: Sequence[str] = (),
    num_seeds: int = 16,
    kinds: Sequence[str] = tuple(_audit.KINDS),
    factor: float = 10.0,
    seed: int = 0,
    name: str | None = None,
) -> _audit.Audit:
    """Return what is found of a model of PyTorch: ``audits.audit_torch``."""
    checks.function("make", make, "a function () -> module of PyTorch")
    declaration = declarations.checked({} if declaration is None else declaration)
    count = checks.integer("num_seeds", num_seeds, 2)
    for i, kind in enumerate(kinds):
        checks.one_of(f"kinds[{i}]", kind, _audit.KINDS)
    library = torch()
    increments: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
    sizes: list[int] = []
    names: list[str] = []

    def draws() -> Iterator[list[_parameters.Parameter]]:
        for i in range(count):
            library.manual_seed(seed + i)
            model = make()
            module = isinstance(model, library.nn.Module)
            checks.require(module, "make()", model, "a module of PyTorch")
            _set_to_evaluation(library, model)
            if inputs is not None and kinds:
                found = _found_blocks(library, model, blocks)
                names[:] = list(found)
                library.manual_seed(seed + i + 1_000_003)
                of_model, sizes[:] = _increments(
                    library, model, list(found.values()), inputs, kinds
                )
                for kind, values in of_model.items():
                    increments[kind].append(values)
            yield _parameters_of(library, model, fixed)

    parameters = _parameters.measured(draws())
    made: dict[str, Report] = {}
    growth = np.log(sizes[1] / sizes[0]) if sizes else 0.0
    for kind, values in increments.items():
        if values:
            grown = -growth if kind == "vjp" else growth
            stacked = np.stack(values)
            made[kind] = _stability.report(stacked, names, float(grown), factor)
    title = getattr(make, "__name__", "model") if name is None else name
    return _audit.audited(str(title), count, parameters, declaration, made)


def _set_to_evaluation(library: Any, model: Any) -> None:
    """Leave out dropout; batches are normalised by their own statistics, as in
    training, and none are kept.
    """
    model.eval()
    for module in model.modules():
        if isinstance(module, library.nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = None


def _parameters_of(
    library: Any, model: Any, fixed: Sequence[str]
) -> list[_parameters.Parameter]:
    """Return the parameters of a module, with the fans of the layer of each."""
    free = {pattern: declarations.constant(0.0) for pattern in fixed}
    found = []
    for name, tensor in model.named_parameters(remove_duplicate=False):
        trained = tensor.requires_grad and declarations.of_name(free, name) is None
        values = tensor.detach().cpu()
        if values.dtype in (library.float16, library.bfloat16):
            values = values.float()
        fans = _fans(model, name)
        one = _parameters.Parameter(name, values.numpy(), fans, id(tensor), trained)
        found.append(one)
    return found


def _fans(model: Any, name: str) -> declarations.Fans | None:
    """Return the fans of the layer whose weight or bias this is."""
    place, _, last = name.rpartition(".")
    layer = model.get_submodule(place)
    weight = getattr(layer, "weight", None)
    if last not in ("weight", "bias"):
        # such as in_proj_weight
        weight = getattr(layer, last)
    if weight is None or weight.dim() < 2:
        return None
    if type(layer).__name__.endswith("Embedding"):
        return None
    shape = tuple(weight.shape)
    # (in, out), as in the layer of GPT-2, and in transposed convolutions
    kind = type(layer).__name__
    if kind == "Conv1D" or kind.startswith("ConvTranspose"):
        shape = (shape[1], shape[0], *shape[2:])
    return declarations.fans_of(shape)


def _found_blocks(
    library: Any, model: Any, blocks: Sequence[str] | None
) -> dict[str, Any]:
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


def _increments(
    library: Any, model: Any, blocks: Sequence[Any], inputs: Any, kinds: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Return ln R of each block, by kind, and the sizes of the first input and last
    output.
    """
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
        x = given["in"].detach()

        def follow(x: Any) -> tuple:
            met.clear()
            given["in"] = x
            _called(model, inputs)
            return tuple(met)

        found = {}
        if "activations" in kinds or "jvp" in kinds:
            tangent = library.randn_like(x)
            outputs, pushed = library.func.jvp(follow, (x,), (tangent,))
            if "activations" in kinds:
                found["activations"] = _ratios([x, *outputs])
            if "jvp" in kinds:
                found["jvp"] = _ratios([tangent, *pushed])
        if "vjp" in kinds:
            x = x.clone().requires_grad_(True)
            outputs = follow(x)
            cotangent = library.randn_like(outputs[-1])
            met_before = [x, *outputs[:-1]]
            pulled = library.autograd.grad(
                outputs[-1], met_before, cotangent, allow_unused=True
            )
            zeros = [
                library.zeros_like(one) if gradient is None else gradient
                for one, gradient in zip(met_before, pulled, strict=True)
            ]
            found["vjp"] = -_ratios([*zeros, cotangent])
    return found, [x.numel(), outputs[-1].numel()]


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
