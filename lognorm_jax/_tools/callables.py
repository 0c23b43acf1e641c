"""Callables taken apart: what they do, and the arrays that they do it with.

The layers of a model are often one function of different weights. Taken apart they can
be told to be, and the function be given the weights of each.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from lognorm_jax._tools import checks

# whole numbers and masks up to this size count by their values
_FEW = 1 << 12


@dataclasses.dataclass(frozen=True)
class Program:
    """What a callable does; equal for those that do the same with other arrays."""

    content: Hashable
    # an iterator over arrays -> the callable that does it with the next of them
    rebuilt: Callable[[Iterator[Any]], Any] = dataclasses.field(compare=False)


def apart(value: Any) -> tuple[Program, list[Any]]:
    """Return what a callable does, and the arrays that it does it with.

    Functions are looked into: their code, their defaults and what they close over; so
    are bound methods, partial functions and pytrees, such as the modules of Flax and
    Equinox. Two of equal programs do the same at one time: a global variable that they
    depend on may change. Anything else is equal only to itself, with the arrays that
    it holds.

    >>> def linear(W):
    ...     return lambda x: W @ x
    >>> program, _ = apart(linear(np.eye(2)))
    >>> other, arrays = apart(linear(2 * np.eye(2)))
    >>> program == other, program.rebuilt(iter(arrays))(np.ones(2))
    (True, array([2., 2.]))
    """
    arrays: list[Any] = []
    return _apart(value, arrays, frozenset()), arrays


def _apart(value: Any, arrays: list[Any], inside: frozenset[int]) -> Program:
    """Return the program of a value; its arrays are added to those before.

    inside: the functions that it is inside of.
    """
    if isinstance(value, jax.Array | np.ndarray):
        return _array(value, arrays)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        # with its sign, which zeros that are equal may differ in
        return _constant(value, (type(value), value, repr(value)))

    kind, held, joined = _opened(value, inside)
    if joined is None:
        return _constant(value, kind)
    inside |= {id(value)}
    programs = [_apart(each, arrays, inside) for each in held]

    def rebuilt(arrays):
        return joined([program.rebuilt(arrays) for program in programs])

    return Program((kind, tuple(programs)), rebuilt)


def _constant(value: Any, content: Hashable) -> Program:
    """Return the program of what is the same whatever the arrays."""
    return Program(content, lambda arrays: value)


def _array(value: Any, arrays: list[Any]) -> Program:
    """Return the program of an array: any other, unless Python may decide by it."""
    typed = value.shape, value.dtype, getattr(value, "weak_type", False)
    keys = jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
    numbers = jax.dtypes.issubdtype(value.dtype, np.inexact) and value.size > 1
    if keys or numbers or checks.traced(value):
        arrays.append(value)
        return Program(typed, next)
    if value.size <= _FEW:
        return _constant(value, (typed, np.asarray(value).tobytes()))
    return _constant(value, Same(value))


def _opened(
    value: Any, inside: frozenset[int]
) -> tuple[Hashable, Sequence[Any], Callable[[Sequence[Any]], Any] | None]:
    """Return (kind, what it holds, how to make it of that); None: it stays closed."""
    if isinstance(value, types.FunctionType):
        return _function(value, inside)
    if isinstance(value, types.MethodType):
        both = value.__func__, value.__self__
        return types.MethodType, both, lambda held: types.MethodType(*held)
    if isinstance(value, functools.partial):
        held = value.func, value.args, value.keywords
        return functools.partial, held, _partial

    leaves, tree = jax.tree.flatten(value)
    if (len(leaves) == 1 and leaves[0] is value) or not _is_hashable(tree):
        return Same(value), (), None
    return tree, leaves, functools.partial(jax.tree.unflatten, tree)


def _partial(held: Sequence[Any]) -> functools.partial:
    function, args, keywords = held
    return functools.partial(function, *args, **keywords)


def _function(
    function: types.FunctionType, inside: frozenset[int]
) -> tuple[Hashable, Sequence[Any], Callable[[Sequence[Any]], Any] | None]:
    """Return what a function of Python is made of, unless it calls itself."""
    try:
        contents = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # one is empty yet
        return Same(function), (), None
    if id(function) in inside:
        return Same(function), (), None

    def joined(held):
        defaults, keywords, *contents = held
        new = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            defaults,
            tuple(map(types.CellType, contents)),
        )
        new.__kwdefaults__ = keywords
        return functools.update_wrapper(new, function)

    held = function.__defaults__, function.__kwdefaults__, *contents
    return (function.__code__, Same(function.__globals__)), held, joined


def _is_hashable(value: Any) -> bool:
    """Return whether a value can be told from others by its hash."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


class Same:
    """A value that is equal only to itself, kept so that no other takes its place."""

    def __init__(self, value: Any):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value
