"""Functions of a smooth law from a table: ln F below a split point, ln(1 − F) above it.

Logarithms keep the relative accuracy of both tails, and quintic Hermite interpolation
the accuracy of the table; the pdf is the exact derivative of the cdf, and the quantile
its inverse.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy

from lognorm_jax._tools import checks


class Curve(NamedTuple):
    """A monotone function at increasing nodes, with two derivatives.

    Attributes:
        x: the nodes, (nodes,), increasing.
        value: of the function there, (nodes,), monotone.
        slope: its derivative, (nodes,).
        bend: its second derivative, (nodes,).
    """

    x: np.ndarray
    value: np.ndarray
    slope: np.ndarray
    bend: np.ndarray


# x -> (value, slope)
Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def interpolate(curve: Curve) -> Evaluate:
    """Return x -> (value, slope): quintic between the nodes, straight lines beyond."""
    poly = _quintics(curve)
    derivative = poly.derivative()

    def evaluate(x):
        inside = np.clip(x, curve.x[0], curve.x[-1])
        slope = derivative(inside)
        with np.errstate(invalid="ignore"):
            beyond = np.where(x == inside, 0.0, slope * (x - inside))
        return poly(inside) + beyond, slope

    return evaluate


def _quintics(curve: Curve) -> "scipy.interpolate.PPoly":
    """Return the polynomials that have the values and derivatives of both nodes."""
    h = np.diff(curve.x)
    rise = curve.value[1:] - curve.value[:-1]
    slope_left = curve.slope[:-1] * h
    slope_right = curve.slope[1:] * h
    bend_left = curve.bend[:-1] * h**2
    bend_right = curve.bend[1:] * h**2

    # of powers of (x − x_left)/h, from the fifth down
    coefficients = [
        6 * rise - 3 * (slope_left + slope_right) + (bend_right - bend_left) / 2,
        -15 * rise + 8 * slope_left + 7 * slope_right + 1.5 * bend_left - bend_right,
        10 * rise - 6 * slope_left - 4 * slope_right - 1.5 * bend_left + bend_right / 2,
        bend_left / 2,
        slope_left,
        curve.value[:-1],
    ]
    scaled = [c / h ** (5 - k) for k, c in enumerate(coefficients)]
    return scipy.interpolate.PPoly(np.array(scaled), curve.x)


def _inverse(curve: Curve, evaluate: Evaluate, target: np.ndarray) -> np.ndarray:
    """Return x with value(x) = target, by Newton's method between two nodes."""
    x_at, value_at = curve.x, curve.value
    sign = np.sign(curve.slope[0])
    right = np.searchsorted(sign * value_at, sign * target).clip(1, len(x_at) - 1)
    left = right - 1

    # from the chord, without leaving the interval
    low = x_at[left]
    high = x_at[right]
    part = (target - value_at[left]) / (value_at[right] - value_at[left])
    x = np.clip(low + (high - low) * part, low, high)
    for _ in range(4):
        value, slope = evaluate(x)
        x = np.clip(x + (target - value) / slope, low, high)

    # beyond the table: straight lines
    before = sign * (target - value_at[0]) < 0
    after = sign * (target - value_at[-1]) > 0
    end = np.where(before, 0, -1)
    line = x_at[end] + (target - value_at[end]) / curve.slope[end]
    return np.where(before | after, line, x)


def levels(q: object) -> np.ndarray:
    """Return the levels of a quantile, numbers in [0, 1], as float64."""
    checked = checks.on_host("q", q)
    inside = bool(np.all((checked >= 0) & (checked <= 1)))
    checks.require(inside, "q", q, "in [0, 1]")
    return checked


class Functions(NamedTuple):
    """The functions of a law with an atom at −inf, as in ``laws.Law``."""

    cdf: Callable
    quantile: Callable
    pdf: Callable
    sf: Callable


def functions(lower: Curve, upper: Curve, atom: float, alive: float) -> Functions:
    """Return the functions of a law from the logarithms of its tails.

    Beyond the tables the logarithms are straight.

    Args:
        lower: ln P(X ≤ x | alive), up to a split point within ``upper``.
        upper: ln P(X > x | alive).
        atom: the mass at −inf.
        alive: that on the line, which may be too small for 1 − atom.
    """
    split = lower.x[-1]
    log_cdf = interpolate(lower)
    log_sf = interpolate(upper)

    def tails(x):
        """Return (ln F, slope) where x is below the split, (ln(1 − F), slope) above."""
        return log_cdf(np.minimum(x, split)), log_sf(np.maximum(x, split))

    def sf(x):
        x = checks.on_host("x", x)
        (below, _), (above, _) = tails(x)
        return (alive * np.where(x <= split, -np.expm1(below), np.exp(above)))[()]

    def cdf(x):
        x = checks.on_host("x", x)
        (below, _), (above, _) = tails(x)
        low = atom + alive * np.exp(below)
        high = 1 - alive * np.exp(above)
        return np.where(x <= split, low, high)[()]

    def pdf(x):
        x = checks.on_host("x", x)
        below, above = (np.exp(value) * np.abs(slope) for value, slope in tails(x))
        return (alive * np.where(x <= split, below, above))[()]

    def quantile(q):
        q = levels(q)
        mass = max(alive, 1e-300)
        middle = np.exp(lower.value[-1])
        survived = (q - atom) / mass
        with np.errstate(divide="ignore"):
            left = np.log(np.clip(survived, 0, middle))
            right = np.log(np.clip((1 - q) / mass, 0, np.exp(upper.value[0])))
        below = _inverse(lower, log_cdf, left)
        above = _inverse(upper, log_sf, right)
        inside = np.where(survived < middle, below, above)
        return np.where(q == 1, np.inf, np.where(q <= atom, -np.inf, inside))[()]

    return Functions(cdf, quantile, pdf, sf)
