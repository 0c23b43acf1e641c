"""What networks that are followed in law start from, and what is measured of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import checks, norms
from lognorm_jax._tools.undrawn import triangle

__all__ = ["measured", "quartics", "require", "triangle", "vectors"]


def require(network: networks.Network) -> None:
    """Require a network of layers with normal or orthogonal weights.

    Raises:
        ValueError: for others, naming the layer.
    """
    checks.instance("network", network, networks.Network)
    for kind, places in zip(
        dict.fromkeys(network.kinds), network.places(), strict=True
    ):
        where = f"{network.name}, layer {places[0]}"
        laws = [one.weights for one in kind.maps]
        normal = all(law.gaussian or law.orthogonal for law in laws)
        allowed = "a layer whose weights are normal or orthogonal"
        instead = "Take paths.jacobian, which draws all weights."
        checks.require(normal, "network", where, allowed, instead)
        # the size of one more coordinate
        for one in kind.maps:
            ratio = 0 if one.bias_scale is None else one.bias_scale / one.std
            small = checks.traced(ratio) or ratio <= 1e30
            allowed = "one whose biases are at most 1e30 of its weights"
            checks.require(bool(small), "network", where, allowed)


def vectors(
    shape: tuple[int, ...],
    x: jax.typing.ArrayLike,
    tangent: jax.typing.ArrayLike | None,
) -> tuple[Any, Any, np.ndarray]:
    """Return inputs, unit tangents, and which input each tangent belongs to.

    Args:
        shape: of one input.
        x: (*shape) or (m, *shape), m ≥ 1.
        tangent: None, (*shape), with several x (m, *shape), else (t, *shape), t ≥ 1.

    Returns:
        Inputs (m, *shape), tangents (t, *shape) or None, and owners (t,).
    """
    X = inputs(shape, x)
    if tangent is None:
        return X, None, np.zeros(0, int)

    # one for each input, or any number at the only one
    directions = checks.vector("tangent", tangent, None)
    given = np.shape(directions)
    if np.ndim(x) > len(shape):
        wanted = X.shape
        owner = np.arange(len(X))
    else:
        count = given[0] if len(given) > len(shape) else 1
        wanted = given[: len(given) - len(shape)][:1] + shape
        owner = np.zeros(count, int)
    checks.require(given == wanted, "tangent.shape", given, f"{wanted}")

    units = [_unit(row, shape) for row in directions.reshape(-1, *shape)]
    # on the host where they are known: nothing to compile
    stack: Any = jnp.stack if any(map(checks.traced, units)) else np.stack
    return X, stack(units).astype(X.dtype), owner


def inputs(shape: tuple[int, ...], x: jax.typing.ArrayLike) -> Any:
    """Return one input or several as (m, *shape), in the type they are used in."""
    x = checks.vector("x", x, None, zero=True)
    given = np.shape(x)
    fits = given == shape or (given[1:] == shape and given[0] > 0)
    of_several = ", ".join(map(str, ("number of inputs", *shape)))
    checks.require(fits, "x.shape", given, f"{shape} or ({of_several})")
    # on the host where they are known: nothing to compile
    dtype = jnp.result_type(float)
    if checks.traced(x):
        return jnp.asarray(x, dtype).reshape(-1, *shape)
    with np.errstate(over="ignore"):
        X = np.asarray(x).astype(dtype)
    checks.vector("x", X, None, zero=True)
    return X.reshape(-1, *shape)


def _unit(tangent: jax.typing.ArrayLike, shape: tuple[int, ...]) -> Any:
    return norms.unit(checks.vector("tangent", tangent, shape))


def quartics(X: jax.Array, T: jax.Array | None) -> jax.Array:
    """Return κ of the vectors that are followed: the tangents, or without any the
    inputs.
    """
    return jax.vmap(norms.quartic)(norms.normalise_rows(X if T is None else T)[1])


def measured(
    X: jax.Array,
    log_size: jax.Array,
    T: jax.Array | None,
    finite: jax.Array,
    owner: np.ndarray,
    homogeneous: bool,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array | None], jax.Array]:
    """Return (inputs, their log squared norms, tangents) to go on with, and what a
    layer did to the norms of the tangents, or of the inputs; NaN where not finite.
    """
    X, log_size, increment = _growth(X, log_size, homogeneous)
    if T is not None:
        increment, T = norms.normalise_rows(T)
        finite = finite[owner]
    return (X, log_size, T), jnp.where(finite, increment, jnp.nan)


def _growth(
    X: jax.Array, log_size: jax.Array, homogeneous: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return inputs (m, n) to go on with, their log squared norms, and the growth."""
    log_next, unit = norms.normalise_rows(X)
    if homogeneous:
        return unit, log_next, log_next
    # −inf less −inf is not wanted
    dead = jnp.isneginf(log_next) | jnp.isneginf(log_size)
    growth = log_next - jnp.where(dead, 0, log_size)
    return X, jnp.where(dead, -jnp.inf, log_next), jnp.where(dead, -jnp.inf, growth)
