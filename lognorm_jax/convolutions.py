"""Circular convolutions at initialisation: patches, layers, and the variance theory predicts.

An image x has c channels and positions on a circle or a torus; a convolution of k taps multiplies
the patches of x, the columns of P (c·k × positions), by one matrix of iid weights. All positions
share the weights, so the squared norm does not average over them unless they differ: with
C = PᵀP and ρ_tt' the cosines of patches, Var(R | x) is a sum over pairs of positions.

Source: derived, see tests/test_convolutions.py; no published formula is known to us.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import activations, checks, layers, norms, weights


def geometry(channels: Any, positions: Any, taps: Any) -> tuple[tuple[int, ...], ...]:
    """Return channels, positions and taps (one number an axis) as tuples; see ``networks.conv``."""
    sized = isinstance(channels, Sequence | np.ndarray) and np.ndim(channels) == 1
    sized = sized and len(channels) >= 2
    checks.require(sized, "channels", channels, "a sequence of at least two integers ≥ 1")
    channels = tuple(checks.integer(f"channels[{i}]", c, 1) for i, c in enumerate(channels))
    allowed = "one or two integers ≥ 1"
    sized = isinstance(positions, Sequence) and len(positions) in (1, 2)
    checks.require(sized, "positions", positions, allowed)
    positions = tuple(checks.integer(f"positions[{i}]", s, 1) for i, s in enumerate(positions))
    each = tuple(taps) if isinstance(taps, Sequence) else (taps,) * len(positions)
    checks.require(len(each) == len(positions), "taps", taps, f"{len(positions)} numbers, or one")
    each = tuple(checks.integer(f"taps[{i}]", k, 1) for i, k in enumerate(each))
    fits = all(k <= s for k, s in zip(each, positions, strict=True))
    checks.require(fits, "taps", taps, f"no more than the positions {positions}")
    return channels, positions, each


def patches(x: jax.Array, taps: tuple[int, ...]) -> jax.Array:
    """Return the patches of x (c, *positions) as columns, (c·k, number of positions).

    taps: how many along each axis of positions; a patch is centred at its position, or for even
    taps half a step after it.
    """
    shifts = itertools.product(*(range(-((k - 1) // 2), k // 2 + 1) for k in taps))
    axes = tuple(range(1, x.ndim))
    rolled = [jnp.roll(x, [-s for s in shift], axes) for shift in shifts]
    return jnp.stack(rolled, axis=1).reshape(-1, math.prod(x.shape[1:]))


def layer(
    c_in: int,
    c_out: int,
    taps: tuple[int, ...],
    activation: activations.Activation,
    bias_scale: float,
    weight_law: weights.Weights,
) -> layers.Layer:
    """Return the layer x ↦ φ(W * x + b), x (c_in, *positions); parameters as ``networks.conv``."""
    count = math.prod(taps)
    std = (activation.gain / (count * c_out)) ** 0.5

    def init(key):
        dtype = jnp.result_type(float)
        key_weight, key_bias = jax.random.split(key)
        W = std * weight_law.sample(key_weight, (c_out, c_in * count), dtype)
        b = bias_scale * jax.random.normal(key_bias, (c_out,), dtype)
        return {"weight": W.reshape(c_out, c_in, count), "bias": b}

    def apply(params, x):
        W = params["weight"].reshape(c_out, -1)
        z = jnp.matmul(W, patches(x, taps), precision="highest") + params["bias"][:, None]
        return activation.apply(z).reshape(c_out, *x.shape[1:])

    return layers.Layer(init, apply)


def predictable_variance(
    x: jax.Array,
    taps: tuple[int, ...],
    channels: int,
    *,
    tangent: jax.Array | None = None,
    keep_prob: float | None = None,
) -> jax.Array:
    """Return Var(R | x) of a convolution with normal weights of variance 1/(E D² k c_out): E R = 1.

    For a ReLU: (1/c_out) Σ_tt' C_tt C_t't' [2ρ² + S(ρ)]/(tr C)², with
    S(ρ) = (2/π)[(1 + 2ρ²) asin ρ + 3ρ√(1 − ρ²)]. For the Jacobian along a ``tangent`` that does not
    depend on x, with C and ρᵘ of the tangent and ρˣ of x, the bracket is
    (1 + (2/π) asin ρˣ)(1 + 2ρᵘ²) − 1. With ``keep_prob`` p, for masks that are Bernoulli(p) and
    independent in all places: (1/c_out)[2‖C‖_F² + 3((1 − p)/p) Σ_t C_tt²]/(tr C)².

    x, tangent: (c, *positions), of any size. taps: a number, or one an axis. channels: c_out ≥ 1.
    All exact at every width; 0 for an input that is 0.
    """
    channels = checks.integer("channels", channels, 1)
    x = checks.vector("x", x, None, zero=True)
    tangent = None if tangent is None else checks.vector("tangent", tangent, x.shape, zero=True)
    images = x.ndim in (2, 3) and x.size > 0
    checks.require(images, "x.shape", x.shape, "(channels, positions) or (channels, height, width)")
    _, _, taps = geometry((x.shape[0], channels), x.shape[1:], taps)
    inner, rho = _gram(x, taps)
    if tangent is not None and keep_prob is None:
        inner, own = _gram(tangent, taps)
        bracket = (1 + 2 / jnp.pi * jnp.arcsin(rho)) * (1 + 2 * own**2) - 1
    elif keep_prob is None:
        rest = jnp.sqrt(1 - rho**2)
        bracket = 2 * rho**2
        bracket += 2 / jnp.pi * ((1 + 2 * rho**2) * jnp.arcsin(rho) + 3 * rho * rest)
    else:
        p = float(checks.probability("keep_prob", keep_prob))
        inner, rho = _gram(x if tangent is None else tangent, taps)
        bracket = 2 * rho**2 + 3 * (1 - p) / p * jnp.eye(len(rho), dtype=rho.dtype)
    square = jnp.diagonal(inner)
    total = jnp.sum(square[:, None] * square[None] * bracket)
    trace = jnp.sum(square)
    return jnp.where(trace > 0, total / jnp.where(trace > 0, trace, 1) ** 2, 0) / channels


def _gram(x, taps) -> tuple[jax.Array, jax.Array]:
    """Return C = PᵀP and the cosines of the patches; 0 where a patch is 0."""
    columns = patches(norms.normalise(jnp.asarray(x, checks.float_dtype(x)))[1], taps)
    inner = jnp.matmul(columns.T, columns, precision="highest")
    norm = jnp.sqrt(jnp.diagonal(inner))
    inverse = jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0)
    return inner, jnp.clip(inner * inverse[:, None] * inverse[None], -1, 1)
