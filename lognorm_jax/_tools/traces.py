"""What a path is, and what it returns."""

import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax._tools import checks, norms

Observer = Callable[[jax.Array, jax.Array | None], Any]
"""(x, tangent) -> pytree of arrays of one shape for all layers."""


class Trace(NamedTuple):
    """One product, or a stack of them, layer by layer.

    Attributes:
        increment: (..., depth), ln R_i, −inf from the layer that died on.
        quartic: (..., depth), κ before each layer, 0 once dead; None where it was not
            followed.
    """

    increment: jax.Array | np.ndarray
    quartic: jax.Array | np.ndarray | None

    @property
    def log_norm(self) -> jax.Array | np.ndarray:  # (...)
        """Σ ln R_i, the log of the SQUARED norm; −inf if dead. NumPy traces sum in
        float64.
        """
        if isinstance(self.increment, np.ndarray):
            return self.increment.sum(-1, dtype=np.float64)
        return self.increment.sum(-1)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["arrays", "depth"],
    meta_fields=["function", "choices"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Path:
    """A pure function of one typed key: a program, and the arrays that it is given.

    The same key gives the same trace. A pytree of the arrays: the program is what is
    compiled, once for all paths that share it, and new arrays are passed to it. So a
    path can be mapped over its arrays, differentiated by them, and stored.

    Attributes:
        function: (*choices, *arrays, key) -> Trace, or any pytree: a function of a
            module.
        choices: static, hashable arguments, which make it a program.
        arrays: what the program is given.
        depth: of a program with room for more layers, how many it has; the others are
            0. None where it has as many as it has room for.

    Raises:
        ValueError: the path, for a key that is not one typed key.
    """

    function: Callable[..., Any]
    choices: tuple[Hashable, ...] = dataclasses.field(default=(), repr=False)
    arrays: tuple[Any, ...] = dataclasses.field(default=(), repr=False)
    depth: Any = None

    def __call__(self, key: jax.Array) -> Any:
        """Return the trace of a key; compiled once, however often it is called.

        Args:
            key: one typed key, ``jax.random.key(seed)``.

        Returns:
            What ``function`` returns, a ``Trace`` of one path or another pytree.

        Raises:
            ValueError: for anything else than one typed key.
        """
        return self.trimmed(_compiled(self, checks.typed_key(key)))

    def trimmed(self, trace: Any) -> Any:
        """Return a trace without the layers that are not there: all, if depth is
        traced.

        Args:
            trace: what ``run`` returned.

        Returns:
            Leaves (..., depth).
        """
        depth = None if self.depth is None else checks.known(self.depth)
        if depth is None or depth.ndim:
            return trace
        return jax.tree.map(lambda leaf: leaf[..., : int(depth)], trace)

    def run(self, key: jax.Array) -> Any:
        """Return the trace of a key, as operations of whatever traces or compiles.

        Args:
            key: one typed key, which is not looked at.

        Returns:
            What ``function`` returns, with all layers that there is room for.
        """
        return self.function(*self.choices, *self.arrays, key)


@functools.partial(jax.jit, inline=True)
def _compiled(path: Path, key: jax.Array) -> Any:
    return path.run(key)


def as_path(function: Callable[[jax.Array], Any]) -> Path:
    """Return any function of a key as a path: a program of its own."""
    return function if isinstance(function, Path) else Path(_called, (function,))


def _called(function: Callable[[jax.Array], Any], key: jax.Array) -> Any:
    return function(key)


def traced(path: Path, key: jax.Array) -> Any:
    """Return (path, key) -> trace as JAX traces it, once for each program.

    A function that ``as_path`` was given is traced by itself: JAX forgets it when it is
    gone.
    """
    if path.function is _called:
        function: Any = path.choices[0]
        return jax.jit(function).trace(key)
    return _compiled.trace(path, key)


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
