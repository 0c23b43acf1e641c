"""Functions whose first arguments are given: what a program knows, and its arrays."""

import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["arrays"],
    meta_fields=["function", "choices"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Bound:
    """A function of more arguments than these: ``function(*choices, *arrays, …)``.

    A pytree of its arrays. Two of equal structure, which is the function and the
    choices, are one program to ``jax.jit``, whatever their arrays. Equal are those
    whose arrays are equal numbers as well, or the same objects.
    """

    function: Callable[..., Any]  # of a module, or it is equal only to itself
    choices: tuple[Hashable, ...] = ()
    arrays: tuple[Any, ...] = ()  # pytrees

    def __call__(self, *rest: Any) -> Any:
        """Return the value at the rest of the arguments."""
        return self.function(*self.choices, *self.arrays, *rest)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bound):
            return NotImplemented
        own: Any = jax.tree.structure(self)
        if own != jax.tree.structure(other):
            return False
        return all(map(_same, jax.tree.leaves(self), jax.tree.leaves(other)))

    def __hash__(self) -> int:
        return hash((self.function, self.choices))


def _same(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, float) and isinstance(b, float) and a == b)


def bound(function: object) -> Any:
    """Return a function as one that is a pytree: of no arrays unless it is one.

    What a tree has in place of functions, while JAX takes it apart, is left as it is.
    """
    if callable(function) and not isinstance(function, Bound):
        return Bound(function)
    return function
