"""Log-norms recorded inside any chain of optax, layer by layer; ``training`` offers
it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lognorm_jax._tools import checks, norms


class LogNorms(NamedTuple):
    """State of ``log_norms``: what it has seen of each layer; all arrays (layers,),
    float32.
    """

    # ln‖update‖² of the last call; −inf for none, +inf if not finite
    log_norm: jax.Array
    # calls in which it was finite; the name hides tuple.count
    count: jax.Array  # type: ignore[assignment]
    mean: jax.Array  # of log_norm over those; 0 before the first
    m2: jax.Array  # Σ (log_norm − mean)²

    @property
    def variance(self) -> jax.Array:
        """Return the sample variance of log_norm over the steps so far; 0 before the
        second.
        """
        return self.m2 / jnp.maximum(self.count - 1, 1).astype(self.m2.dtype)


def log_norms(
    measure: Callable[[Any], jax.Array] | None = None,
) -> optax.GradientTransformation:
    """Return a transformation that records log squared norms, layer by layer, and
    changes nothing.

    Chain it first to see the gradients, last to see the updates, or both. Its state is
    a ``LogNorms``: of ``optax.chain(log_norms(), optax.adam(1e-3))`` it is
    ``state[0]``. measure: a tree like the parameters -> (layers,) log squared norms,
    such as ``partial(layer_log_norms, network)``; default one a leaf,
    ``leaf_log_norms``.

    Works for parameters of any structure and floating type (norms are computed in
    float32), under jit and vmap, and inside any other transformation of optax.
    """
    measure = leaf_log_norms if measure is None else measure
    checks.require(
        callable(measure), "measure", measure, "None, or a function tree -> (layers,)"
    )

    def init(params):
        shape = jax.eval_shape(measure, params).shape
        # four buffers, as state may be donated
        return LogNorms(
            log_norm=jnp.zeros(shape, jnp.float32),
            count=jnp.zeros(shape, jnp.int32),
            mean=jnp.zeros(shape, jnp.float32),
            m2=jnp.zeros(shape, jnp.float32),
        )

    def update(updates, state, params=None):
        del params
        value = measure(updates).astype(jnp.float32)
        value = jnp.where(jnp.isnan(value), jnp.inf, value)
        usable = jnp.isfinite(value)
        count = state.count + usable.astype(jnp.int32)
        delta = jnp.where(usable, value, state.mean) - state.mean
        mean = state.mean + delta / jnp.maximum(count, 1).astype(jnp.float32)
        m2 = state.m2 + delta * jnp.where(usable, value - mean, 0)
        return updates, LogNorms(value, count, mean, m2)

    return optax.GradientTransformation(init, update)


def leaf_log_norms(tree: Any) -> jax.Array:  # (leaves,)
    """Return the log squared norm of each leaf, in the order of ``jax.tree.leaves``.

    Raises ``ValueError`` for leaves that are not of real floating point.
    """
    leaves = [jnp.asarray(checks.array("leaf", leaf)) for leaf in jax.tree.leaves(tree)]
    for leaf in leaves:
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        allowed, instead = "a real floating type", "optax.masked leaves leaves out."
        checks.require(real, "leaf.dtype", leaf.dtype, allowed, instead)
    leaves = [norms.log_squares(leaf[None]) for leaf in leaves]
    return jnp.concatenate(
        [jnp.zeros(0, jnp.float32), *(x.astype(jnp.float32) for x in leaves)]
    )
