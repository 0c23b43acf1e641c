"""What a command line names to be audited: a function of a module, or a model type."""

import ast
import importlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.auditing import audits, ready
from lognorm_jax.probing import models
from lognorm_jax.tool import spoken

_LARGEST = 10**8  # numbers of an input
_FORMS = "MODULE:FUNCTION, torch:MODULE:FUNCTION or hf:TYPE"


def audit(
    subject: str,
    *,
    settings: Sequence[str] = (),
    declare: str | None = None,
    blocks: Sequence[str] = (),
    fixed: Sequence[str] = (),
    shape: str | None = None,
    tokens: int | None = None,
    seeds: int | None = None,
    kinds: Sequence[str] = (),
    factor: float = 10.0,
) -> audits.Audit:
    """Return the audit of what a command line names.

    Raises:
        ValueError: for what is not there, does not fit, or does not run.
    """
    place, _, rest = subject.partition(":")
    options: dict[str, Any] = {"factor": factor, "fixed": fixed}
    if kinds:
        options["kinds"] = list(kinds)
    if seeds is not None:
        options["num_seeds"] = seeds
    declared = None if declare is None else _declaration(declare)
    checks.require(bool(rest), "subject", subject, _FORMS)

    if place == "hf":
        make, inputs, of_family = ready.of_hub(rest, _settings(settings))
        if shape is not None or tokens is not None:
            inputs = _tensor(shape, tokens)
        declared = of_family if declared is None else declared
        options |= _torch_blocks(blocks)
        return audits.audit_torch(make, inputs, declaration=declared, **options)
    none = "none, which are for hf:TYPE"
    checks.require(not settings, "set", settings, none)
    if place == "torch":
        # before the module, which may be slow to import
        ready.require_torch()
        make, inputs = _torch_parts(_function(rest))
        if shape is not None or tokens is not None:
            inputs = _tensor(shape, tokens)
        _require_inputs(inputs, blocks)
        options |= _torch_blocks(blocks)
        return audits.audit_torch(make, inputs, declaration=declared, **options)

    allowed = "none: JAX has no derivatives by them; give blocks and --input SHAPE"
    checks.require(tokens is None, "tokens", tokens, allowed)
    inputs = None if shape is None else _examples(shape)
    _require_inputs(inputs, blocks)
    if blocks:
        options["blocks"] = [_block(text) for text in blocks]
    return audits.audit(_function(subject), inputs, declaration=declared, **options)


def _require_inputs(inputs: Any, blocks: Sequence[str]) -> None:
    """Require inputs where blocks are to be followed."""
    given = inputs is not None or not blocks
    checks.require(given, "blocks", blocks, "none without --input")


def _examples(shape: str) -> np.ndarray:
    """Return four inputs of standard normal numbers."""
    drawn = np.random.default_rng(0).normal(size=(4, *_sides(shape)))
    return drawn.astype(np.float32)


def _torch_blocks(blocks: Sequence[str]) -> dict[str, list[str]]:
    """Return the option of blocks, where some are named."""
    return {"blocks": list(blocks)} if blocks else {}


def _block(text: str) -> str | tuple:
    """Return a path, or one and the activations that follow it: layers[0]+relu."""
    path, *after = text.split("+")
    if not after:
        return path
    functions = [models.named(spoken.activation(word).apply, word) for word in after]
    return path, *functions


def _function(path: str) -> Callable[..., Any]:
    """Return the function of MODULE:FUNCTION; the folder one is in counts."""
    module, _, name = path.partition(":")
    checks.require(bool(module and name), "subject", path, _FORMS)
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        # of any kind: modules run as they are imported
        raise ValueError(
            f"subject = {path!r}: the module {module!r} cannot be imported from "
            f"{Path.cwd()}: {type(error).__name__}: {error}"
        ) from error
    for step in name.split("."):
        here = [known for known in vars(found) if known[0] != "_"]
        if not hasattr(found, step):
            checks.one_of_many(f"function of {module}", step, here)
        found = getattr(found, step)
    checks.function("subject", found, f"a function: {_FORMS}")
    return found


def _torch_parts(function: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
    """Return a function () -> module and inputs, of one that may return both."""
    try:
        first = function()
    except (Exception, SystemExit) as error:
        # of any kind: it is the function that raised it
        name = getattr(function, "__name__", "function")
        text = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{name}() of the subject: {text}\nIt must take no arguments and return a "
            "module of PyTorch, or (module, inputs)."
        ) from error
    if not isinstance(first, tuple):
        return function, None

    def module() -> Any:
        return function()[0]

    module.__name__ = getattr(function, "__name__", "model")
    checks.require(len(first) == 2, "subject", len(first), "(module, inputs)")
    return module, first[1]


def _tensor(shape: str | None, tokens: int | None) -> Any:
    """Return a tensor of standard normal numbers, or of tokens below a number."""
    torch: Any = importlib.import_module("torch")
    generator = torch.Generator().manual_seed(0)
    sides = _sides(shape or f"1x{ready.TOKENS}")
    if tokens is None:
        return torch.randn(sides, generator=generator)
    count = checks.integer("tokens", tokens, 1)
    return torch.randint(count, sides, generator=generator)


def _sides(shape: str) -> tuple[int, ...]:
    """Return the sides of a shape such as "3x32x32"."""
    pieces = shape.split("x")
    whole = all(piece.isascii() and piece.isdigit() for piece in pieces)
    allowed = f"sides joined by x, such as 3x32x32, of at most {_LARGEST:,} numbers"
    sides = tuple(map(int, pieces)) if whole else ()
    fits = whole and 0 < math.prod(sides) <= _LARGEST
    checks.require(fits, "input", shape, allowed)
    return sides


def _settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return what NAME=VALUE say; values are those of Python, or text."""
    found = {}
    for text in settings:
        name, equals, value = text.partition("=")
        checks.require(bool(name and equals), "set", text, "NAME=VALUE")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def _declaration(text: str) -> Mapping[str, Any]:
    """Return a ready declaration by name, or that of a JSON file."""
    if text in ready.READY:
        return ready.ready(text)
    path = Path(text)
    allowed = f"{', '.join(ready.READY)}, or a JSON file of patterns and laws"
    checks.require(path.is_file(), "declare", text, allowed)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"declare = {text!r}: is no JSON: {error}") from error
