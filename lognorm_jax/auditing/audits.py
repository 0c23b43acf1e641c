"""Audits: is the initialisation of a model what it is declared to be, and is it stable?

``audit`` takes models of JAX (Flax, Equinox, or any tree of arrays), ``audit_torch``
those of PyTorch. Both give an ``Audit``; printed, it is tables, findings in words with
the likely cause, and a verdict.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lognorm_jax._tools import checks
from lognorm_jax.auditing import _audit, _parameters, declarations, ready
from lognorm_jax.auditing._audit import Audit
from lognorm_jax.auditing._findings import Finding
from lognorm_jax.probing import models, probes, reports

__all__ = ["Audit", "Finding", "audit", "audit_torch"]

# leaves of these names hold weights with the outputs last, or first
_OUTPUTS_LAST = ("kernel", "w")
_OUTPUTS_FIRST = ("weight",)


def audit(
    model: Callable[[jax.Array], Any],
    inputs: ArrayLike | None = None,
    key: jax.Array | None = None,
    *,
    blocks: Sequence[Any] | None = None,
    declaration: str | Mapping[str, Any] | None = None,
    fixed: Sequence[str] = (),
    num_seeds: int = 8,
    num_samples: int = 128,
    kinds: Sequence[str] = probes.KINDS,
    factor: float = 10.0,
    name: str | None = None,
) -> Audit:
    """Return what is found of a model of JAX over fresh initialisations.

    Args:
        model: key -> a module of Flax NNX or Equinox, a tree of arrays such as what
            Linen's ``init`` returns, or a list of callables x -> x.
        inputs: (count, *shape of an input), for reports of what blocks do to norms, as
            for ``probes.probe``; None for parameters alone.
        key: one typed key, of all randomness; default ``jax.random.key(0)``.
        blocks: as for ``models.blocks``; default the list of callables, or the model
            as one.
        declaration: patterns of names and their laws, as in ``declarations``; or one of
            ``ready``: "flax", "equinox". Default none, and only what is surely wrong is
            a finding.
        fixed: patterns of names that may be the same for all seeds.
        num_seeds: initialisations that parameters are measured over, ≥ 2.
        num_samples: initialisations that reports are of, ≥ 100.
        kinds: of reports: "activations", "jvp", "vjp".
        factor: > 1, by which the root mean square of a coordinate may change.
        name: in print; default that of the model.

    Returns:
        The ``Audit``; printed, it is tables, findings and a verdict.

    Raises:
        ValueError: for arguments of another kind or range, a model that cannot be made
            or has no parameters, a declaration of which a pattern fits none or whose
            fans are not known, and where a block cannot take what reaches it.

    Source:
        Levels, and what a finding means: theory section 17. The share of false findings
        is held against the level, and reports against a plain loop, in
        tests/test_audits.py.
    """
    checks.function("model", model, "a function key -> model")
    declared = ready.resolved(declaration)
    count = checks.integer("num_seeds", num_seeds, 2)
    for i, kind in enumerate(kinds):
        checks.one_of(f"kinds[{i}]", kind, probes.KINDS)
    key = jax.random.key(0) if key is None else checks.typed_key(key)
    key_parameters, key_reports = jax.random.split(key)

    drawn = (
        _parameters_of(_made(model, each), fixed)
        for each in jax.random.split(key_parameters, count)
    )
    parameters = _parameters.measured(drawn)
    found: dict[str, reports.Report] = {}
    if inputs is not None and _fresh(parameters):
        layers = _layers_of(model, blocks)
        for i, kind in enumerate(kinds):
            found[kind] = probes.probe(
                layers,
                inputs,
                jax.random.fold_in(key_reports, i),
                num_samples=num_samples,
                kind=kind,
                factor=factor,
            )
    title = getattr(model, "__name__", type(model).__name__) if name is None else name
    return _audit.audited(str(title), count, parameters, declared, found)


def audit_torch(make: Callable[[], Any], inputs: Any = None, **options: Any) -> Audit:
    """Return what is found of a model of PyTorch over fresh initialisations.

    Args:
        make: () -> a module, initialised from torch's global seed, which is set before.
        inputs: a tensor of one batch, or a tuple of arguments, or a dictionary of them;
            None for parameters alone.
        **options: ``blocks``: paths of the modules to follow, in order, or of a list of
            them; default those of the common families, or the longest list of alike
            modules. ``seed``: an integer, of torch's first seed, default 0.
            ``declaration``, ``fixed``, ``num_seeds``, ``kinds``, ``factor`` and
            ``name`` as for ``audit``; the default of ``num_seeds`` is 16, and reports
            are of as many initialisations.

    Returns:
        The ``Audit``; printed, it is tables, findings and a verdict.

    Raises:
        ValueError: without PyTorch, saying how to install it; and as for ``audit``.

    Source:
        As of ``audit``; reports are held against a plain loop, and against matrices, in
        tests/test_torch.py.
    """
    from lognorm_jax.auditing import _torch

    return _torch.audit(make, inputs, **options)


def _made(model: Callable[[jax.Array], Any], key: jax.Array) -> Any:
    """Return the model of a key."""
    try:
        return model(key)
    except Exception as error:
        # of any kind: it is the function that raised it
        raise ValueError(
            f"model(key): {type(error).__name__}: {error}\nmodel must be a function of "
            "a key, such as lambda key: Model(nnx.Rngs(key))."
        ) from error


def _fresh(parameters: Sequence[_parameters.Measured]) -> bool:
    """Return whether an initialisation depends on the key."""
    return not parameters or any(
        not np.array_equal(one.entries[0], one.entries[1]) for one in parameters
    )


def _layers_of(
    model: Callable[[jax.Array], Any], blocks: Sequence[Any] | None
) -> Callable[[jax.Array], list]:
    """Return key -> the callables that are followed."""

    def layers(key: jax.Array) -> list:
        made = model(key)
        if blocks is not None:
            return models.blocks(made, blocks)
        if isinstance(made, Iterable) and not callable(made):
            return list(made)
        return [made]

    return layers


def _parameters_of(model: Any, fixed: Sequence[str]) -> list[_parameters.Parameter]:
    """Return the parameters of a tree of arrays: its floating leaves."""
    leaves = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(_tree(model))[0]:
        array = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
        if array and jnp.issubdtype(leaf.dtype, jnp.inexact):
            leaves.append((_name(path), leaf))
    shapes = {name: np.shape(leaf) for name, leaf in leaves}
    free = {pattern: declarations.constant(0.0) for pattern in fixed}
    tree = _tree(model)
    parameters = []
    for name, leaf in leaves:
        layer = _layer_class(tree, name)
        one = _parameters.Parameter(
            name,
            _on_host(leaf),
            _fans(name, layer, shapes),
            id(leaf),
            declarations.of_name(free, name, layer) is None,
            layer,
        )
        parameters.append(one)
    return parameters


def _on_host(leaf: Any) -> np.ndarray:
    """Return numbers that NumPy computes with."""
    if jnp.iscomplexobj(leaf) or leaf.dtype in (np.float32, np.float64):
        return np.asarray(leaf)
    return np.asarray(leaf, np.float32)


def _layer_class(tree: Any, name: str) -> str:
    """Return the class of the layer that a parameter is of; of dictionaries, the name
    that Flax Linen gives its modules, such as Dense of Dense_0.
    """
    *place, _ = name.split(".")
    layer = tree
    for step in place:
        try:
            if isinstance(layer, Mapping):
                layer = layer[step]
            elif step.isdigit():
                layer = layer[int(step)]
            else:
                layer = getattr(layer, step)
        except (AttributeError, IndexError, KeyError, TypeError):
            return ""
    if isinstance(layer, Mapping):
        word, _, number = place[-1].rpartition("_") if place else ("", "", "")
        return word if number.isdigit() else ""
    return type(layer).__name__


def _tree(model: Any) -> Any:
    """Return a tree of arrays; a list of layers that are functions has none."""
    if isinstance(model, Sequence) and not isinstance(model, str):
        return [getattr(layer, "block", layer) for layer in model]
    return model


def _name(path: tuple) -> str:
    """Return the name of a leaf: its path, joined by dots."""
    steps = [jax.tree_util.keystr((step,), simple=True) for step in path]
    # variables of Flax NNX hold their array as "value"
    if len(steps) > 1 and steps[-1] == "value":
        steps = steps[:-1]
    return ".".join(steps)


def _fans(
    name: str, layer: str, shapes: Mapping[str, tuple[int, ...]]
) -> declarations.Fans | None:
    """Return the fans of the layer that a parameter is of, by its name and class."""
    *place, last = name.split(".")
    for word in (last, *_OUTPUTS_LAST, *_OUTPUTS_FIRST):
        shape = shapes.get(".".join([*place, word]), ())
        # layers that are stacked, or of several axes, have another shape
        flat = layer in ("Linear", "Dense", "Embed", "Embedding")
        if len(shape) < 2 or (flat and len(shape) > 2):
            continue
        if word in _OUTPUTS_LAST:
            return declarations.fans_of((shape[-1], shape[-2], *shape[:-2]))
        if word in _OUTPUTS_FIRST:
            return declarations.fans_of(shape)
    return None
