"""Functions of what is not known yet, as a learning rate under vmap, tried out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from lognorm_jax._tools import checks

STAND_IN = 0.05  # for a floating-point number that is not known; 1 for others


def out(function: Callable, *args: Any) -> tuple[list[jax.Array], bool]:
    """Return what a function returns, with numbers in place of what it closes over and
    is not known while JAX traces.

    Args:
        function: of arrays.
        args: which are known.

    Returns:
        The leaves, known; and whether all was known.
    """
    with jax.ensure_compile_time_eval():
        closed = jax.make_jaxpr(function)(*args)
        known = not any(map(checks.traced_array, closed.consts))
        consts = [_stand_in(const) for const in closed.consts]
        run = jax.jit(core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr, consts)))
        return run(*jax.tree.leaves(args)), known


def _stand_in(const: Any) -> Any:
    """Return a constant, or something in its place while it is not known."""
    if not checks.traced_array(const):
        return const
    number = STAND_IN if jnp.issubdtype(const.dtype, jnp.floating) else 1
    return jnp.full(const.shape, number, const.dtype)
