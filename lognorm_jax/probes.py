"""Log-norm increments through any list of layer callables, by automatic differentiation.

The Jacobian of a network is never formed: a tangent is pushed through one layer at a time and
renormalised after each, so that products of any depth neither overflow nor vanish.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import checks, norms


def jvp_step(layer: Callable, x: jax.Array, tangent: jax.Array) -> tuple[jax.Array, ...]:
    """Push x and a unit tangent through one layer: (layer(x), unit image of the tangent, ln R)."""
    x, image = jax.jvp(layer, (x,), (tangent,))
    increment, tangent = norms.normalise(image)
    return x, tangent, increment


def jvp_increments(
    layers: Sequence[Callable[[jax.Array], jax.Array]], x: Any, tangent: Any
) -> jax.Array:  # (depth,)
    """Return ln R_i = ln(‖J_i … J_1 t‖²/‖J_{i−1} … J_1 t‖²) for each layer, at the input x.

    layers: callables x -> x from any framework, applied in turn, each pure and differentiable.
    x, tangent: arrays of one shape, finite, the tangent not zero; its length does not matter.

    −inf from the first layer that kills the tangent on. Costs one jvp of the network, in the
    floating type of x. The activations are the network's own: where they underflow to 0, a ReLU is
    off and the path dead. Raises ``ValueError``, naming the layer, if a layer cannot take the
    output of the one before.

    >>> increments = jvp_increments([lambda x: 2 * x, jnp.sin], jnp.zeros(3), jnp.ones(3))
    >>> [round(float(value), 6) for value in increments]  # ln 4, ln 1
    [1.386294, 0.0]
    """
    checks.require(isinstance(layers, Iterable), "layers", layers, "a sequence of callables x -> x")
    layers = list(layers)
    checks.require(len(layers) >= 1, "len(layers)", len(layers), "≥ 1")
    x = checks.vector("x", x, None, zero=True)
    tangent = checks.vector("tangent", tangent, np.shape(x))
    x = jnp.asarray(x, checks.float_dtype(x))
    follow(layers, x)
    _, tangent = norms.normalise(jnp.asarray(tangent, x.dtype))
    increments = []
    for layer in layers:
        x, tangent, increment = jvp_step(layer, x, tangent)
        increments.append(increment)
    return jnp.stack(increments)


def follow(layers: Sequence[Callable], x: jax.Array) -> None:
    """Raise a ``ValueError`` that names the first layer which cannot take what reaches it."""
    reached = jax.ShapeDtypeStruct(x.shape, x.dtype)
    for i, layer in enumerate(layers):
        checks.require(callable(layer), f"layers[{i}]", layer, "a callable x -> x")
        before = f"layers[{i}] for an input of shape {reached.shape}"
        try:
            reached = jax.eval_shape(layer, reached)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{before}: {error} Each layer must take the output of the one before."
            ) from error
        floating = hasattr(reached, "dtype") and jnp.issubdtype(reached.dtype, jnp.floating)
        allowed = "one array of floating point, not empty"
        checks.require(floating and reached.size > 0, f"output of {before}", reached, allowed)
