"""Fingerprints of computations: whether two paths, of two processes, are the same.

The fingerprint is of the jaxpr, the list of operations that JAX traced: of what is
computed and of all numbers in it, however deep inside, but of no names, addresses or
order of tracing.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

PARTS = ("operations", "constants")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
_NAMES = {"name"}  # parameters of operations that only name a function


def fingerprint(jaxpr: Any, arrays: Sequence[Any] = ()) -> dict[str, str]:
    """Return the digests of what a computation does, and of the numbers in it.

    Functions that JAX keeps as such (callbacks to the host, rules of derivatives and
    batching that were not applied) count by their name only.

    Args:
        jaxpr: closed, as ``jax.make_jaxpr`` makes it.
        arrays: that it is given, which count as constants.

    Returns:
        {"operations": …, "constants": …}; constants are arrays and scalars, each by its
        type, shape and bytes.

    >>> def times(scale):
    ...     return fingerprint(jax.make_jaxpr(lambda x: scale * x)(1.0))
    >>> times(2) == times(2), difference(times(2), times(3))
    (True, 'another computation, of other constants')
    """
    operations, constants = _closed(jaxpr, {})
    constants = _digest([constants, *map(_number, arrays)])
    return dict(zip(PARTS, (operations, constants), strict=True))


def difference(before: object, now: object) -> str:
    """Return in words how two fingerprints differ; "" if that is not what they are."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return ""
    if not set(before) == set(now) == set(PARTS):
        return ""
    other = [part for part in PARTS if before[part] != now[part]]
    return f"another computation, of other {' and '.join(other)}"


def _closed(closed: Any, known: dict) -> tuple[str, str]:
    """Return the digests of the operations and of the constants of a closed jaxpr."""
    operations, constants = _open(closed.jaxpr, known)
    return operations, _digest([constants, *map(_number, closed.consts)])


def _open(jaxpr: Any, known: dict) -> tuple[str, str]:
    """Return the digests of a jaxpr, but for the constants that it is called with.

    known: those of the jaxprs that were met already, by identity.
    """
    if id(jaxpr) not in known:
        known[id(jaxpr)] = _digests(jaxpr, known)
    return known[id(jaxpr)]


def _digests(jaxpr: Any, known: dict) -> tuple[str, str]:
    """Return the digests of a jaxpr, its variables numbered as they come."""
    numbers: list[str] = []
    places: dict[Any, int] = {}

    def place(variable):
        if hasattr(variable, "val"):  # a literal, not a variable
            numbers.append(_number(variable.val))
            return f"literal {variable.aval}"
        return f"{places.setdefault(variable, len(places))} {variable.aval}"

    lines = [str(list(map(place, (*jaxpr.constvars, *jaxpr.invars))))]
    for equation in jaxpr.eqns:
        taken = list(map(place, equation.invars))
        params = equation.params.items()
        telling = {name: value for name, value in params if name not in _NAMES}
        text = _text(telling, numbers, known)
        made = list(map(place, equation.outvars))
        lines.append(f"{equation.primitive} {taken} {text} {made}")
    lines.append(str(list(map(place, jaxpr.outvars))))
    return _digest(lines), _digest(numbers)


def _text(value: Any, numbers: list[str], known: dict) -> str:
    """Return what a parameter says; digests of constants go to ``numbers``."""
    # of a branch, a loop, a function: with its constants, or without
    if hasattr(value, "eqns"):
        digests = _closed if hasattr(value, "consts") else _open
        operations, constants = digests(value, known)
        numbers.append(constants)
        return operations
    if isinstance(value, np.ndarray | jax.Array):
        numbers.append(_number(value))
        return f"array {value.dtype} {value.shape}"
    if isinstance(value, Mapping):
        pairs = sorted(value.items(), key=lambda pair: str(pair[0]))
        return str([(str(name), _text(entry, numbers, known)) for name, entry in pairs])
    if isinstance(value, tuple | list):
        return str([_text(entry, numbers, known) for entry in value])
    if isinstance(value, set | frozenset):
        return str(sorted(_text(entry, numbers, known) for entry in value))
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
