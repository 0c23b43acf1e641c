"""Push a tangent through one layer: what a Jacobian does, without the Jacobian."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lognorm_jax._tools import norms


def jvp_step(
    layer: Callable, x: jax.Array, tangent: jax.Array
) -> tuple[jax.Array, ...]:
    """Push x and a unit tangent through one layer: (layer(x), unit image, ln R).

    ln R is NaN where layer(x) is not finite: a ReLU would take NaN for off, and the
    path for dead.
    """
    x, image = jax.jvp(layer, (x,), (tangent,))
    increment, unit = norms.normalise(image)
    return x, unit, told(increment, tangent, x)


def told(increment: jax.Array, unit: jax.Array, output: jax.Array) -> jax.Array:
    """Return the increment of a unit vector as it was pushed; NaN if not finite."""
    if jnp.finfo(unit.dtype).bits < 32:  # it was rounded: its norm is not 1
        size, _ = norms.normalise(unit)
        increment -= jnp.where(jnp.isneginf(size), 0, size)
    return jnp.where(jnp.all(jnp.isfinite(output)), increment, jnp.nan)
