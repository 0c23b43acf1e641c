"""Functions made anew by the same code, of the same values, taken for the same one.

``optax.sgd(0.1)`` is another pair of functions in each call, and JAX compiles for each.
"""

import collections
import functools
import types
from collections.abc import Hashable
from typing import Any, TypeVar

import jax

from lognorm_jax._tools import callables, checks

Value = TypeVar("Value")

PACKAGES = {"optax", "jax", "lognorm_jax"}
_KEPT = 256
_first: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()


def first_equal(value: Value) -> Value:
    """Return the first value seen that is made of the same code and the same values.

    Functions of ``PACKAGES``, whose code depends on nothing that changes, are looked
    into: their code, their defaults, and what they close over, which counts by its
    value where that cannot change (numbers, strings, tuples, such functions), and
    otherwise by its identity. Any other function is equal only to itself: it may
    depend on a global variable. So what is returned does the same.

    >>> import optax
    >>> first_equal(optax.sgd(0.1)) is first_equal(optax.sgd(0.1))
    True
    >>> first_equal(optax.sgd(0.1)) is first_equal(optax.sgd(0.2))
    False
    """
    try:
        content = _content(value, {})
    except _Traced:
        return value
    known = _first.setdefault(content, value)
    _first.move_to_end(content)
    if len(_first) > _KEPT:
        _first.popitem(last=False)
    return known


def _content(value: Any, open_: dict[int, int]) -> Hashable:
    """Return what a value is made of; open_: the functions that it is inside of."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        # with its sign, which zeros that are equal may differ in
        return type(value), value, repr(value)
    if isinstance(value, jax.Array) and checks.traced(value):
        raise _Traced
    if isinstance(value, tuple):
        return type(value), tuple(_content(entry, open_) for entry in value)
    if isinstance(value, functools.partial):
        parts = value.func, value.args, tuple(sorted(value.keywords.items()))
        return functools.partial, _content(parts, open_)
    if isinstance(value, types.FunctionType) and _is_constant(value):
        return _function(value, open_)
    return callables.Same(value)


def _is_constant(function: types.FunctionType) -> bool:
    """Return whether a function is one of a package that does not change."""
    return str(function.__module__).split(".")[0] in PACKAGES


def _function(function: types.FunctionType, open_: dict[int, int]) -> Hashable:
    """Return what a function is made of."""
    if id(function) in open_:
        return "itself", open_[id(function)]
    inside = {**open_, id(function): len(open_)}
    keywords = function.__kwdefaults__ or {}
    cells = tuple(map(_held, function.__closure__ or ()))
    parts = function.__defaults__, tuple(sorted(keywords.items())), cells
    return (
        function.__code__,
        callables.Same(function.__globals__),
        _content(parts, inside),
    )


def _held(cell: Any) -> Any:
    """Return what a closure's cell holds, or the cell while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return cell


class _Traced(Exception):
    """A function of what JAX traces is of that trace alone."""
