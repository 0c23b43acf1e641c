"""How much a sample needs while it runs, read off the operations that JAX traced.

The engine runs samples together in batches that fit the cache. Batches of another size
change last bits, so the estimate depends on the jaxpr alone, which is a part of a run's
identity, and on no machine.
"""

import functools
import math
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

RARELY = 8  # by how much a branch that may hardly ever be taken counts less


def _remembered(function: Callable) -> Callable:
    """Return a function of a jaxpr that remembers its values, while these live.

    A program asked again is the same jaxpr, and reading it takes some milliseconds.
    """
    known: MutableMapping[Any, Any] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def remembered(jaxpr):
        if jaxpr not in known:
            known[jaxpr] = function(jaxpr)
        return known[jaxpr]

    return remembered


@_remembered
def floats(jaxpr: Any) -> int:
    """Return about how many numbers one sample keeps alive at once.

    The largest array that any operation makes, as the compiler fuses what is done to
    it; inside of a loop also, twice, what the loop carries, before and after a step,
    where a step does not update it in place.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> floats(jax.make_jaxpr(lambda x: jnp.outer(x, x).sum())(jnp.ones(50)))
    2500
    """
    return _most(jaxpr)


def _most(jaxpr: Any) -> int:
    return max(map(_live, jaxpr.eqns), default=0)


@_remembered
def operations(jaxpr: Any) -> frozenset[str]:
    """Return the names of all operations of a jaxpr, and of those inside of it."""
    return frozenset(_operations(jaxpr))


def _operations(jaxpr: Any) -> Iterator[str]:
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for body in _bodies(list(equation.params.values())):
            yield from _operations(body)


def _live(equation: Any) -> int:
    """Return what one operation needs, with all that is inside of it."""
    sizes = list(map(_size, equation.outvars))
    inside = [_most(body) for body in _bodies(list(equation.params.values()))]
    name = equation.primitive.name
    if name == "cond":
        # a branch for the worst case needs room too, but not in the cache
        inside = [min(inside), max(inside) // RARELY]
    if name in ("scan", "while"):
        step = equation.params["jaxpr" if name == "scan" else "body_jaxpr"].jaxpr
        carry = step.outvars[: equation.params.get("num_carry")]
        updated = _updated(step)
        carried = sum(_size(value) for value in carry if id(value) not in updated)
        inside = [2 * carried + size for size in inside]
    return max([*sizes, *inside], default=0)


def _size(variable: Any) -> int:
    """Return how many numbers an array of a jaxpr holds."""
    return math.prod(getattr(variable.aval, "shape", ()))


def _updated(jaxpr: Any) -> set[int]:
    """Return which arrays, by id, are others with a part of them replaced."""
    return {
        id(equation.outvars[0])
        for equation in jaxpr.eqns
        if equation.primitive.name in ("dynamic_update_slice", "scatter")
    }


def _bodies(value: Any) -> Iterator[Any]:
    """Yield the jaxprs, open or closed, among the parameters of an operation."""
    if hasattr(value, "eqns"):
        yield value
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from _bodies(entry)
