"""Log-norms recorded inside any chain of optax, layer by layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lognorm_jax._tools import checks, norms

# a tree like the parameters -> (layers,) log squared norms
Measure = Callable[[Any], jax.Array]


class LogNorms(NamedTuple):
    """State of ``log_norms``: what it recorded of each layer; all arrays (layers,).

    Attributes:
        log_norm: float32, ln‖update‖² of the last call; −inf for none, +inf if not
            finite.
        count: int32, calls in which it was finite.
        mean: float32, of log_norm over those; 0 before the first.
        m2: float32, Σ (log_norm − mean)² over those.
    """

    log_norm: jax.Array
    # tuples have a method of that name
    count: jax.Array  # type: ignore[assignment]
    mean: jax.Array
    m2: jax.Array

    @property
    def variance(self) -> jax.Array:
        """Sample variance of log_norm over the steps so far; 0 before the second."""
        return self.m2 / jnp.maximum(self.count - 1, 1).astype(self.m2.dtype)


def log_norms(measure: Measure | None = None) -> optax.GradientTransformation:
    """Return a transformation that records log squared norms and changes nothing.

    Chain it first to see the gradients, last to see the updates, or both. Its state is
    a ``LogNorms``: of ``optax.chain(log_norms(), optax.adam(1e-3))`` it is
    ``state[0]``.

    Works for parameters of any structure and floating type (norms are computed in
    float32), under jit and vmap, and inside any other transformation of optax.

    Args:
        measure: a tree like the parameters -> (layers,) log squared norms, such as
            ``partial(layer_log_norms, network)``; default ``leaf_log_norms``, one per
            leaf.

    Returns:
        The transformation; ``update`` returns the updates as they are.

    Raises:
        ValueError: for what is no function.

    Source:
        Mean and m2 by Welford, Technometrics 4 (1962) 419–420; held against a plain
        loop in tests/test_training.py.
    """
    measure = leaf_log_norms if measure is None else measure
    checks.function("measure", measure, "None, or a function tree -> (layers,)")

    def init(params):
        layers = jax.eval_shape(measure, params).shape
        # four buffers of their own, so that a state may be donated
        return LogNorms(
            log_norm=jnp.zeros(layers, jnp.float32),
            count=jnp.zeros(layers, jnp.int32),
            mean=jnp.zeros(layers, jnp.float32),
            m2=jnp.zeros(layers, jnp.float32),
        )

    def update(updates, state, params=None):
        del params
        return updates, _recorded(state, measure(updates).astype(jnp.float32))

    return optax.GradientTransformation(init, update)


def leaf_log_norms(tree: Any) -> jax.Array:
    """Return the log squared norm of each leaf, in the order of ``jax.tree.leaves``.

    Args:
        tree: of arrays of a real floating type.

    Returns:
        ln‖leaf‖², (leaves,), float32: −inf for zeros.

    Raises:
        ValueError: for leaves of other types.
    """
    log_squares = [jnp.zeros(0, jnp.float32)]
    for leaf in jax.tree.leaves(tree):
        array = jnp.asarray(checks.array("leaf", leaf))
        floating = jnp.issubdtype(array.dtype, jnp.floating)
        instead = "optax.masked leaves leaves out."
        allowed = "a real floating type"
        checks.require(floating, "leaf.dtype", array.dtype, allowed, instead)
        log_squares.append(norms.log_squares(array[None]).astype(jnp.float32))
    return jnp.concatenate(log_squares)


def _recorded(state: LogNorms, log_norm: jax.Array) -> LogNorms:
    """Return the state after one more call: Welford's update, of finite ones."""
    log_norm = jnp.where(jnp.isnan(log_norm), jnp.inf, log_norm)
    finite = jnp.isfinite(log_norm)
    count = state.count + finite.astype(jnp.int32)
    delta = jnp.where(finite, log_norm, state.mean) - state.mean
    mean = state.mean + delta / jnp.maximum(count, 1).astype(jnp.float32)
    m2 = state.m2 + delta * jnp.where(finite, log_norm - mean, 0)
    return LogNorms(log_norm=log_norm, count=count, mean=mean, m2=m2)
