"""Fingerprints of computations: tell whether two paths, made in two processes, are the
same.

The fingerprint is of the jaxpr, the list of operations that JAX traced: of what is
computed and of all numbers in it, however deep inside, but of no names, addresses or
order of tracing.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

PARTS = ("operations", "constants")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
_NAMES = {"name"}  # parameters of operations that only name a function


def fingerprint(jaxpr: Any) -> dict[str, str]:
    """Return the digests of a closed jaxpr: {"operations": …, "constants": …}.

    constants: arrays and scalars, each by its type, shape and bytes. Functions that JAX
    keeps as such (callbacks to the host, rules of derivatives and batching that were
    not applied) count by their name only.

    >>> def times(scale):
    ...     return fingerprint(jax.make_jaxpr(lambda x: scale * x)(1.0))
    >>> times(2) == times(2), difference(times(2), times(3))
    (True, 'another computation, of other constants')
    """
    return dict(zip(PARTS, _closed(jaxpr, {}), strict=True))


def difference(before: Any, now: Any) -> str:
    """Return in words how two fingerprints differ; "" if that is not what they are."""
    if not all(
        isinstance(each, Mapping) and set(each) == set(PARTS) for each in (before, now)
    ):
        return ""
    other = [part for part in PARTS if before[part] != now[part]]
    return f"another computation, of other {' and '.join(other)}"


def _closed(closed: Any, seen: dict) -> tuple[str, str]:
    """Return the digests of the operations and of the constants of a closed jaxpr."""
    operations, constants = _open(closed.jaxpr, seen)
    return operations, _digest([constants, *map(_number, closed.consts)])


def _open(jaxpr: Any, seen: dict) -> tuple[str, str]:
    """Return the digests of a jaxpr, but for the constants that it is called with.

    seen: those of the jaxprs that were met already, by identity. Variables are numbered
    as they come.
    """
    if id(jaxpr) in seen:
        return seen[id(jaxpr)]
    numbers, places, lines = [], {}, []

    def place(variable):
        if hasattr(variable, "val"):  # a literal, not a variable
            numbers.append(_number(variable.val))
            return f"literal {variable.aval}"
        return f"{places.setdefault(variable, len(places))} {variable.aval}"

    lines.append(str([place(each) for each in (*jaxpr.constvars, *jaxpr.invars)]))
    for equation in jaxpr.eqns:
        taken = [place(each) for each in equation.invars]
        kept = {
            name: equation.params[name]
            for name in equation.params
            if name not in _NAMES
        }
        told = _text(kept, numbers, seen)
        made = [place(each) for each in equation.outvars]
        lines.append(f"{equation.primitive} {taken} {told} {made}")
    lines.append(str([place(each) for each in jaxpr.outvars]))
    seen[id(jaxpr)] = _digest(lines), _digest(numbers)
    return seen[id(jaxpr)]


def _text(value: Any, numbers: list[str], seen: dict) -> str:
    """Return what a parameter of an operation says; digests of constants go to
    ``numbers``.
    """
    # of a branch, a loop, a function: with its constants, or without
    if hasattr(value, "eqns"):
        operations, constants = (_closed if hasattr(value, "consts") else _open)(
            value, seen
        )
        numbers.append(constants)
        return operations
    if isinstance(value, np.ndarray | jax.Array):
        numbers.append(_number(value))
        return f"array {value.dtype} {value.shape}"
    if isinstance(value, Mapping):
        pairs = sorted(value.items(), key=lambda pair: str(pair[0]))
        return str([(str(name), _text(entry, numbers, seen)) for name, entry in pairs])
    if isinstance(value, tuple | list):
        return str([_text(entry, numbers, seen) for entry in value])
    if isinstance(value, set | frozenset):
        return str(sorted(_text(entry, numbers, seen) for entry in value))
    return _ADDRESS.sub("", repr(value))


def _number(value: Any) -> str:
    """Return the digest of an array or scalar: its type, shape and bytes."""
    kind = getattr(value, "dtype", None)
    if kind is not None and jax.dtypes.issubdtype(kind, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    return _digest(
        [str(kind), str(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    )


def _digest(texts: Iterable[str]) -> str:
    """Return the digest of texts, which no other texts share, however they are cut."""
    return hashlib.sha256(repr(list(texts)).encode()).hexdigest()[:32]
