"""Audits of models of PyTorch, which only this module and ``_blocks`` see."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.auditing import _audit, _blocks, _parameters, _stability, declarations
from lognorm_jax.probing.reports import Report

MISSING = 'Models of PyTorch need torch: pip install "lognorm_jax[torch]"'


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
                found = _blocks.found(library, model, blocks)
                names[:] = list(found)
                library.manual_seed(seed + i + 1_000_003)
                of_model, sizes[:] = _blocks.increments(
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
