"""What a path is, and what it returns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax._tools import checks, norms

Path = Callable[[jax.Array], "Trace"]
"""A pure function of one typed key, free of side effects: the same key gives the same
trace.
"""

Observer = Callable[[jax.Array, jax.Array | None], Any]
"""(x, tangent) -> pytree of arrays of one shape for all layers."""


class Trace(NamedTuple):
    """One product, or a stack of them, layer by layer."""

    # (..., depth): ln R_i, −inf from the layer that died on
    increment: jax.Array | np.ndarray
    # (..., depth): κ before each layer, 0 once dead
    quartic: jax.Array | np.ndarray | None

    @property
    def log_norm(self) -> jax.Array | np.ndarray:  # (...)
        """Σ ln R_i, the log of the SQUARED norm; −inf if dead. NumPy traces sum in
        float64.
        """
        if isinstance(self.increment, np.ndarray):
            return self.increment.sum(-1, dtype=np.float64)
        return self.increment.sum(-1)


def require_observer(observe: object) -> None:
    """Require None, or a function."""
    usable = observe is None or callable(observe)
    allowed = "None, or a function (x, tangent) -> pytree"
    checks.require(usable, "observe", observe, allowed)


def observer(observe: Observer | None) -> Observer:
    """Return a function that observes nothing in place of None."""
    return (lambda x, tangent: None) if observe is None else observe


def finished(trace: Trace, observe: Observer | None, seen: Any) -> Any:
    """Return a trace that stays dead or lost, with what was observed if anything."""
    lasting = norms.lasting(jnp.asarray(trace.increment))
    trace = trace._replace(increment=lasting)
    return trace if observe is None else (trace, seen)
