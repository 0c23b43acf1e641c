"""Circular convolutions at initialisation: patches, and the variance of a layer.

An image x has c channels and positions on a circle or a torus; a convolution of k taps
multiplies the patches of x, the columns of P (c·k × positions), by one matrix of iid
weights. All positions share the weights, so the squared norm does not average over them
unless they differ: with C = PᵀP and ρ_tt' the cosines of patches, Var(R | x) is a sum
over pairs of positions.

Source: derived in theory section 7; held against simulation in
tests/test_convolutions.py; no published formula is known to us.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax._tools import checks, norms

__all__ = ["patches", "predictable_variance"]


def geometry(
    channels: Any, positions: Any, taps: int | Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """Return channels, positions and taps, one per axis; see ``networks.conv``.

    Raises:
        ValueError: for what no circular convolution has.
    """
    allowed = "a sequence of at least two integers ≥ 1"
    sized = isinstance(channels, Sequence | np.ndarray) and np.ndim(channels) == 1
    checks.require(sized and len(channels) >= 2, "channels", channels, allowed)
    channels = _integers("channels", channels)

    sized = isinstance(positions, Sequence) and len(positions) in (1, 2)
    checks.require(sized, "positions", positions, "one or two integers ≥ 1")
    positions = _integers("positions", positions)

    axes = len(positions)
    sizes = tuple(taps) if isinstance(taps, Sequence) else (taps,) * axes
    checks.require(len(sizes) == axes, "taps", taps, f"{axes} numbers, or one")
    sizes = _integers("taps", sizes)
    fits = all(k <= s for k, s in zip(sizes, positions, strict=True))
    checks.require(fits, "taps", taps, f"no more than the positions {positions}")
    return channels, positions, sizes


def _integers(name: str, values: Iterable[object]) -> tuple[int, ...]:
    """Return integers ≥ 1."""
    return tuple(checks.integer(f"{name}[{i}]", v, 1) for i, v in enumerate(values))


def patches(x: jax.Array, taps: tuple[int, ...]) -> jax.Array:
    """Return the patches of an image as columns.

    Args:
        x: (c, *positions).
        taps: how many along each axis of positions, k in all; a patch is centred at its
            position, or for even taps half a step after it.

    Returns:
        (c·k, number of positions), of the dtype of x.
    """
    shifts = itertools.product(*(range(-((k - 1) // 2), k // 2 + 1) for k in taps))
    axes = tuple(range(1, x.ndim))
    rolled = [jnp.roll(x, [-s for s in shift], axes) for shift in shifts]
    return jnp.stack(rolled, axis=1).reshape(-1, math.prod(x.shape[1:]))


def predictable_variance(
    x: jax.Array,
    taps: tuple[int, ...],
    channels: int,
    *,
    tangent: jax.Array | None = None,
    keep_prob: float | None = None,
) -> jax.Array:
    """Return Var(R | x), R the squared-norm ratio of a tangent in one convolution.

    Without biases, for normal weights of variance 1/(E D² k c_out). For a ReLU, with C
    = UᵀU of the patches of the tangent, it is (1/c_out) Σ_tt' C_tt C_t't' B_tt' / (tr
    C)², and B_tt' = 4 E[1(a > 0) 1(b > 0) c² d²] − 1 for jointly normal (a, b, c, d) of
    variance 1, correlated as the patches t, t' of x and t, t' of the tangent are: all
    six correlations matter. Along x itself, B = 2ρ² + S(ρ), S as in
    ``residuals.square_correlation`` and ρ the cosine of the patches of x. With
    ``keep_prob`` p, for masks that are Bernoulli(p) and independent in all places:
    (1/c_out)[2‖C‖_F² + 3((1 − p)/p) Σ_t C_tt²]/(tr C)².

    Args:
        x: (c, *positions), one or two axes of positions, of any size.
        taps: a number, or one per axis, each no more than there are positions.
        channels: c_out, an integer ≥ 1.
        tangent: of the shape of x, any direction; default x itself.
        keep_prob: p in (0, 1]; default ReLUs.

    Returns:
        The variance, exact at every width, whatever the tangent; where a patch of x is
        0 its ReLUs are off, and E R < 1. 0 for an input or tangent that is 0.

    Raises:
        ValueError: for other taps, channels and probabilities, and for vectors of
            another shape or not finite.

    Source:
        Derived in theory section 7; held against simulation and quadrature in
        tests/test_convolutions.py.
    """
    channels = checks.integer("channels", channels, 1)
    x = checks.vector("x", x, None, zero=True)
    along = x
    if tangent is not None:
        along = checks.vector("tangent", tangent, x.shape, zero=True)
    images = x.ndim in (2, 3) and x.size > 0
    allowed = "(channels, positions) or (channels, height, width)"
    checks.require(images, "x.shape", x.shape, allowed)
    _, _, sizes = geometry((x.shape[0], channels), x.shape[1:], taps)

    size, unit = _directions(along, sizes)
    if keep_prob is None:
        bracket = _relu_bracket(_directions(x, sizes)[1], unit)
    else:
        p = float(checks.probability("keep_prob", keep_prob))
        cosines = _cosines(unit, unit)
        diagonal = jnp.eye(len(cosines), dtype=cosines.dtype)
        bracket = 2 * cosines**2 + 3 * (1 - p) / p * diagonal

    # weighted by the share that each pair of patches has of the squared norm
    square = size**2
    total = jnp.sum(square[:, None] * square[None] * bracket)
    return _ratio(total, jnp.sum(square) ** 2) / channels


def _relu_bracket(inputs: jax.Array, tangents: jax.Array) -> jax.Array:
    """Return B_tt', (s, s), of the unit patches of an input and of a tangent."""
    mixed = _cosines(inputs, tangents)
    fourth = _active_fourth(
        _cosines(inputs, inputs), mixed, _cosines(tangents, tangents)
    )
    on = jnp.any(inputs != 0, axis=0)
    return jnp.where(on[:, None] & on[None], 4 * fourth - 1, 0)


def _active_fourth(
    inputs: jax.Array, mixed: jax.Array, tangents: jax.Array
) -> jax.Array:
    """Return E[1(a > 0) 1(b > 0) c² d²] for all pairs (t, t') of positions, (s, s).

    (a, b, c, d) are normal, of variance 1; a, b belong to the patches t, t' of the
    input and c, d to those of the tangent. inputs, tangents: the cosines of patches;
    mixed: (input, tangent).

    With ρ = cos θ the correlation of a and b, a = cos(θ/2) g + sin(θ/2) h and b =
    cos(θ/2) g − sin(θ/2) h for independent g and h: both are positive where (g, h) lies
    within π/2 − θ/2 of the axis of g. There c and d, given g and h, are normal.
    """
    # t = t': the angle is 0, not what rounding makes of it
    same = jnp.eye(len(inputs), dtype=bool)
    cosine = _root(jnp.where(same, 1, (1 + inputs) / 2))  # of θ/2
    sine = _root(jnp.where(same, 0, (1 - inputs) / 2))
    with_a = jnp.broadcast_to(jnp.diagonal(mixed)[:, None], mixed.shape)  # E ac
    with_b = mixed.T  # E bc
    even = _ratio(with_a + with_b, 2 * cosine)
    odd = _ratio(with_a - with_b, 2 * sine)
    c = _in_disc(even, odd)
    d = c[0].T, -c[1].T  # the same with t and t' exchanged, which turns h around
    rest_c = 1 - c[0] ** 2 - c[1] ** 2
    rest_d = 1 - d[0] ** 2 - d[1] ** 2
    rest_cd = tangents - c[0] * d[0] - c[1] * d[1]

    # E over the wedge of products of the parts of c and d that g and h make
    angle = jnp.arctan2(cosine, sine)
    double = jnp.sin(2 * angle)
    quadruple = jnp.sin(4 * angle)
    none = angle / jnp.pi
    gg = (angle + double / 2) / jnp.pi
    hh = (angle - double / 2) / jnp.pi
    gggg = (3 * angle + 2 * double + quadruple / 4) / jnp.pi
    gghh = (angle - quadruple / 4) / jnp.pi
    hhhh = (3 * angle - 2 * double + quadruple / 4) / jnp.pi

    fourth = (c[0] * d[0]) ** 2 * gggg + (c[1] * d[1]) ** 2 * hhhh
    crossed = (c[0] * d[1]) ** 2 + (c[1] * d[0]) ** 2
    fourth += (crossed + 4 * c[0] * c[1] * d[0] * d[1]) * gghh
    second = rest_d * (c[0] ** 2 * gg + c[1] ** 2 * hh)
    second += rest_c * (d[0] ** 2 * gg + d[1] ** 2 * hh)
    second += 4 * rest_cd * (c[0] * d[0] * gg + c[1] * d[1] * hh)
    return fourth + second + (rest_c * rest_d + 2 * rest_cd**2) * none


def _directions(x: jax.Array, taps: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Return the norms (s,) of patches of x/‖x‖, and these as unit columns, or 0."""
    image = norms.normalise(jnp.asarray(x, checks.float_dtype(x)))[1]
    columns = patches(image, taps)
    size = _root(jnp.sum(columns**2, axis=0))
    return size, _ratio(columns, size[None])


def _cosines(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the inner products of unit columns, in [−1, 1]."""
    return jnp.clip(jnp.matmul(a.T, b, precision="highest"), -1, 1)


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a/b, and 0 where b is 0."""
    return jnp.where(b != 0, a / jnp.where(b != 0, b, 1), 0)


def _root(square: jax.Array) -> jax.Array:
    """Return the square root, with derivative 0 at 0."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def _in_disc(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return points of the plane, back in the unit disc where rounding led beyond."""
    size = jnp.sqrt(jnp.maximum(a**2 + b**2, 1))
    return a / size, b / size
