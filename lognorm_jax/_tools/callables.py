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

# what is larger, or closes over more, stays closed: it is not worth to look into
_MOST_PARTS = 1000
_CONSTANTS = {type(None), bool, int, float, complex, str, bytes}


@dataclasses.dataclass(frozen=True)
class Program:
    """What a callable does; equal for those that do the same with other arrays."""

    content: Hashable
    # an iterator over arrays -> the callable that does it with the next of them
    rebuilt: Callable[[Iterator[Any]], Any] = dataclasses.field(compare=False)


def apart(value: Any) -> tuple[Program, list[Any]]:
    """Return what a callable does, and the traced arrays that it does it with.

    Functions are looked into: their code, their defaults, their attributes and what
    they close over; so are bound methods, partial functions and pytrees, such as the
    modules of Flax and Equinox. Two of equal programs do the same at one time: a global
    variable that they depend on may change. Anything else is equal only to itself, and
    so are arrays that are known, of which Python may decide.

    >>> def linear(W):
    ...     return lambda x: W @ x
    >>> def double(W):
    ...     (one, _), (other, arrays) = apart(linear(W)), apart(linear(2 * W))
    ...     assert one == other
    ...     return one.rebuilt(iter(arrays))(W[0])
    >>> jax.jit(double)(np.eye(2)).tolist()
    [2.0, 0.0]
    """
    arrays: list[Any] = []
    opening = _Opening(arrays)
    try:
        return opening.program(value, frozenset()), arrays
    except _TooMany:
        return _constant(value, Same(value)), []


class _TooMany(Exception):
    """More parts than are worth to look into."""


class _Opening:
    """What has been found while a value is taken apart."""

    def __init__(self, arrays: list[Any]):
        self.arrays = arrays
        self.parts = 0

    def program(self, value: Any, inside: frozenset[int]) -> Program:
        """Return the program of a value; inside: of what it is a part of."""
        self.parts += 1
        if self.parts > _MOST_PARTS:
            raise _TooMany
        if checks.traced_array(value):
            self.arrays.append(value)
            weak = getattr(value, "weak_type", False)
            return Program((value.shape, value.dtype, weak), next)
        if isinstance(value, jax.Array | np.ndarray):
            return _constant(value, _known(value))
        if type(value) in _CONSTANTS:
            # with its sign, which zeros that are equal may differ in
            return _constant(value, (type(value), value, repr(value)))

        opened = None if id(value) in inside else _opened(value)
        if opened is None:
            return _constant(value, Same(value))
        kind, held, joined = opened
        programs = [self.program(each, inside | {id(value)}) for each in held]

        def rebuilt(arrays):
            return joined([program.rebuilt(arrays) for program in programs])

        return Program((kind, tuple(programs)), rebuilt)


def _known(array: jax.Array | np.ndarray) -> Hashable:
    """Return what a known array is told by: its numbers, or itself."""
    numbers = isinstance(array, jax.Array) or type(array) is np.ndarray
    extended = jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended)
    if not numbers or extended or array.dtype == object or array.size > _MOST_PARTS:
        return Same(array)
    return type(array), array.shape, array.dtype, np.asarray(array).tobytes()


def _constant(value: Any, content: Hashable) -> Program:
    """Return the program of what is the same whatever the arrays."""
    return Program(content, lambda arrays: value)


Opened = tuple[Hashable, Sequence[Any], Callable[[Sequence[Any]], Any]]


def _opened(value: Any) -> Opened | None:
    """Return (kind, what it holds, how to make it of that); None: it stays closed."""
    if type(value) is types.FunctionType:
        return _function(value)
    if type(value) is types.MethodType:
        both = value.__func__, value.__self__
        return types.MethodType, both, lambda held: types.MethodType(*held)
    if type(value) is functools.partial and not value.__dict__:
        held = value.func, value.args, value.keywords
        return functools.partial, held, _partial
    if type(value) is dict:
        # in its order, which JAX would change
        keys = tuple(value)
        made = functools.partial(_dictionary, keys)
        return (dict, keys), tuple(value.values()), made
    # of other dictionaries JAX may change it, too
    return None if isinstance(value, dict) else _pytree(value)


def _pytree(value: Any) -> Opened | None:
    """Return a pytree opened by one level."""
    try:
        held, tree = jax.tree.flatten(value, is_leaf=lambda part: part is not value)
        hash(tree)
    except Exception:
        # of any kind: it is the class of the tree that raised it
        return None
    if len(held) == 1 and held[0] is value:
        return None
    return _Tree(tree), held, functools.partial(jax.tree.unflatten, tree)


def _dictionary(keys: tuple[Hashable, ...], held: Sequence[Any]) -> dict:
    return dict(zip(keys, held, strict=True))


def _partial(held: Sequence[Any]) -> functools.partial:
    function, args, keywords = held
    return functools.partial(function, *args, **keywords)


def _function(function: types.FunctionType) -> Opened | None:
    """Return what a function of Python is made of."""
    try:
        contents = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # one is empty yet
        return None

    def joined(held):
        defaults, keywords, attributes, *contents = held
        new = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            defaults,
            tuple(map(types.CellType, contents)),
        )
        new.__kwdefaults__ = keywords
        for name in functools.WRAPPER_ASSIGNMENTS:
            setattr(new, name, getattr(function, name))
        new.__dict__.update(attributes)
        return new

    kind = function.__code__, Same(function.__globals__)
    held = function.__defaults__, function.__kwdefaults__, function.__dict__, *contents
    return kind, held, joined


class _Tree:
    """The structure of a pytree, equal to no other where that cannot be told."""

    def __init__(self, tree: Any):
        self.tree = tree

    def __hash__(self) -> int:
        return hash(self.tree)

    def __eq__(self, other: object) -> bool:
        try:
            return isinstance(other, _Tree) and bool(self.tree == other.tree)
        except Exception:
            # of any kind: it is what the tree holds that raised it
            return False


class Same:
    """A value that is equal only to itself, kept so that no other takes its place."""

    def __init__(self, value: Any):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value
