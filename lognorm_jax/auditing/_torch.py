"""Audits of models of PyTorch, which only this module and ``_blocks`` see."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.auditing import (
    _audit,
    _blocks,
    _parameters,
    _stability,
    declarations,
    ready,
)
from lognorm_jax.probing.reports import Report


def audit(
    make: Callable[[], Any],
    inputs: Any = None,
    *,
    blocks: Sequence[str] | None = None,
    declaration: str | Mapping[str, Any] | None = None,
    fixed: Sequence[str] = (),
    num_seeds: int = 16,
    kinds: Sequence[str] = tuple(_audit.KINDS),
    factor: float = 10.0,
    seed: int = 0,
    name: str | None = None,
) -> _audit.Audit:
    """Return what is found of a model of PyTorch: ``audits.audit_torch``."""
    checks.function("make", make, "a function () -> module of PyTorch")
    declared = ready.resolved(declaration)
    count = checks.integer("num_seeds", num_seeds, 2)
    for i, kind in enumerate(kinds):
        checks.one_of(f"kinds[{i}]", kind, _audit.KINDS)
    library = _blocks.torch()
    increments: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
    followed: list[tuple[list[str], list[int]]] = []
    modules: list[Any] = []

    def draws() -> Iterator[list[_parameters.Parameter]]:
        for i in range(count):
            library.manual_seed(seed + i)
            model = _made(library, make)
            fresh = not modules or model is not modules[0]
            checks.require(fresh, "make()", model, "a fresh module for each call")
            modules[:] = [model]
            _set_to_evaluation(model)
            if inputs is not None and kinds:
                named = _blocks.found(library, model, blocks)
                library.manual_seed(seed + i + 1_000_003)
                of_model, names, sizes = _blocks.increments(
                    library, model, named, inputs, kinds
                )
                followed.append((names, sizes))
                alike = followed[-1] == followed[0]
                allowed = f"those of the first: {followed[0]}"
                checks.require(alike, "blocks and sizes", followed[-1], allowed)
                for kind, values in of_model.items():
                    increments[kind].append(values)
            yield _parameters_of(library, model, fixed)

    # the caller's own random numbers are not touched
    with library.random.fork_rng(devices=[]):
        parameters = _parameters.measured(draws())
    made = {
        kind: _report(kind, values, *followed[0], factor)
        for kind, values in increments.items()
        if values
    }
    title = getattr(make, "__name__", "model") if name is None else name
    return _audit.audited(str(title), count, parameters, declared, made)


def _report(
    kind: str,
    increments: Sequence[np.ndarray],
    names: Sequence[str],
    sizes: Sequence[int],
    factor: float,
) -> Report:
    """Return the report of one kind, of blocks between outputs of these sizes."""
    growth = float(np.log(sizes[1] / sizes[0]))
    grown = -growth if kind == "vjp" else growth
    return _stability.report(np.stack(increments), names, grown, factor)


def _made(library: Any, make: Callable[[], Any]) -> Any:
    """Return a module."""
    try:
        model = make()
    except Exception as error:
        # of any kind: it is the function that raised it
        raise ValueError(f"make(): {type(error).__name__}: {error}") from error
    module = isinstance(model, library.nn.Module)
    checks.require(module, "make()", model, "a module of PyTorch")
    return model


def _set_to_evaluation(model: Any) -> None:
    """Leave out dropout; what is normalised is so by its own statistics, as in
    training, and none are kept.
    """
    model.eval()
    for module in model.modules():
        if getattr(module, "track_running_stats", False):
            module.track_running_stats = False
            module.running_mean = module.running_var = None


def _parameters_of(
    library: Any, model: Any, fixed: Sequence[str]
) -> list[_parameters.Parameter]:
    """Return the parameters of a module, with the fans of the layer of each."""
    free = {pattern: declarations.constant(0.0) for pattern in fixed}
    found = []
    for name, tensor in model.named_parameters(remove_duplicate=False):
        layer = type(model.get_submodule(name.rpartition(".")[0])).__name__
        free_to_repeat = declarations.of_name(free, name, layer) is not None
        trained = tensor.requires_grad and not free_to_repeat
        there = not tensor.is_meta
        checks.require(there, f"parameter {name}", "on meta", "one that has values")
        values = tensor.detach().cpu()
        if values.dtype not in (library.float64, library.complex128):
            values = values.to(
                library.complex64 if values.is_complex() else library.float32
            )
        fans = _fans(model, name)
        one = _parameters.Parameter(
            name, values.numpy(), fans, id(tensor), trained, layer
        )
        found.append(one)
    return found


def _fans(model: Any, name: str) -> declarations.Fans | None:
    """Return the fans of the layer whose weight or bias this is."""
    place, _, last = name.rpartition(".")
    layer = model.get_submodule(place)
    weight = getattr(layer, "weight", None)
    if last not in ("weight", "bias"):
        # such as in_proj_weight, and the matrices of recurrent layers
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
