"""Functions of a smooth law from a table: ln F below a split point, ln(1 − F) above it.

Logarithms keep the relative accuracy of both tails, and quintic Hermite interpolation
the accuracy of the table; the pdf is the exact derivative of the cdf, and the quantile
its inverse.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PPoly

from lognorm_jax._tools import checks


class Curve(NamedTuple):
    """A monotone function at increasing nodes, with two derivatives: each (nodes,)."""

    x: np.ndarray
    value: np.ndarray
    slope: np.ndarray
    bend: np.ndarray


def interpolate(curve: Curve):
    """Return x -> (value, slope): quintic between the nodes, straight lines beyond
    them.
    """
    h = np.diff(curve.x)
    (y0, y1), (s0, s1), (b0, b1) = ((f[:-1], f[1:]) for f in curve[1:])
    rise, s0, s1, b0, b1 = y1 - y0, s0 * h, s1 * h, b0 * h**2, b1 * h**2
    coefficients = [
        6 * rise - 3 * (s0 + s1) + (b1 - b0) / 2,
        -15 * rise + 8 * s0 + 7 * s1 + 1.5 * b0 - b1,
        10 * rise - 6 * s0 - 4 * s1 - 1.5 * b0 + b1 / 2,
        b0 / 2,
        s0,
        y0,
    ]
    powers = [h**k for k in range(5, -1, -1)]
    poly = PPoly(
        np.array([c / p for c, p in zip(coefficients, powers, strict=True)]), curve.x
    )
    derivative = poly.derivative()

    def evaluate(x):
        inside = np.clip(x, curve.x[0], curve.x[-1])
        slope = derivative(inside)
        with np.errstate(invalid="ignore"):
            beyond = np.where(x == inside, 0.0, slope * (x - inside))
        return poly(inside) + beyond, slope

    return evaluate


def _inverse(curve: Curve, evaluate, target):
    """Return x with value(x) = target, by Newton's method within the interval that
    holds it.
    """
    sign = np.sign(curve.slope[0])
    right = np.searchsorted(sign * curve.value, sign * target).clip(1, len(curve.x) - 1)
    (low, y0), (high, y1) = ((curve.x[i], curve.value[i]) for i in (right - 1, right))
    x = np.clip(low + (high - low) * (target - y0) / (y1 - y0), low, high)
    for _ in range(4):
        value, slope = evaluate(x)
        x = np.clip(x + (target - value) / slope, low, high)
    # beyond the table: straight lines
    end = np.where(sign * (target - curve.value[0]) < 0, 0, -1)
    outside = (end == 0) | (sign * (target - curve.value[-1]) > 0)
    line = curve.x[end] + (target - curve.value[end]) / curve.slope[end]
    return np.where(outside, line, x)


def levels(q) -> np.ndarray:
    """Return the levels of a quantile, float64; NaN and what is not in [0, 1] are
    refused.
    """
    levels = checks.on_host("q", q)
    checks.require(bool(np.all((levels >= 0) & (levels <= 1))), "q", q, "in [0, 1]")
    return levels


class Functions(NamedTuple):
    """The functions of a law with an atom at −inf, as in ``laws.Law``."""

    cdf: Callable
    quantile: Callable
    pdf: Callable
    sf: Callable


def functions(lower: Curve, upper: Curve, atom: float, alive: float) -> Functions:
    """Return the functions of a law from ln P(X ≤ x | alive) = lower, ln P(X > x |
    alive) = upper.

    lower ends, at the split point, within upper. Beyond the tables the logarithms are
    straight. atom, alive: the mass at −inf, and that on the line, which may be too
    small for 1 − atom.
    """
    split, given = lower.x[-1], max(alive, 1e-300)
    log_cdf, log_sf = interpolate(lower), interpolate(upper)

    def sf(x):
        x = checks.on_host("x", x)
        below = -np.expm1(log_cdf(np.minimum(x, split))[0])
        return (
            alive * np.where(x <= split, below, np.exp(log_sf(np.maximum(x, split))[0]))
        )[()]

    def cdf(x):
        x = checks.on_host("x", x)
        below = atom + alive * np.exp(log_cdf(np.minimum(x, split))[0])
        above = 1 - alive * np.exp(log_sf(np.maximum(x, split))[0])
        return np.where(x <= split, below, above)[()]

    def pdf(x):
        x = checks.on_host("x", x)
        sides = (log_cdf(np.minimum(x, split)), log_sf(np.maximum(x, split)))
        below, above = (np.exp(value) * np.abs(slope) for value, slope in sides)
        return (alive * np.where(x <= split, below, above))[()]

    def quantile(q):
        q = levels(q)
        middle, survived = np.exp(lower.value[-1]), (q - atom) / given
        with np.errstate(divide="ignore"):
            left = np.log(np.clip(survived, 0, middle))
            right = np.log(np.clip((1 - q) / given, 0, np.exp(upper.value[0])))
        below, above = _inverse(lower, log_cdf, left), _inverse(upper, log_sf, right)
        inside = np.where(survived < middle, below, above)
        return np.where(q == 1, np.inf, np.where(q <= atom, -np.inf, inside))[()]

    return Functions(cdf, quantile, pdf, sf)
