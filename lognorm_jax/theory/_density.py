"""The density of one increment ln R, exactly, for Gaussian weights and any discrete
mask.

R = Σ_a D_a² z_a²/(n m2) has the Laplace transform φ(t) = L(t/(n m2))^n, L(τ) = E(1 +
2τD²)^{−1/2}, and r f(r), the density of ln R, has the transform −φ', in which the atom
at R = 0 is gone:

    g(y) = (n/2πi) ∫ S(τ) L(τ)^{n−1} exp(n m2 τ e^y) dτ,    S(τ) = E[D² (1 +
    2τD²)^{−3/2}].

With 1 + 2τ max D² = v² the branch point is at v = 0, and the vertical line through the
real saddle point v(y) is a contour on which the integrand is bell-shaped: the trapezoid
rule converges exponentially, every term is of the size of the result, and so the
RELATIVE error stays near 1e-13 over hundreds of orders of magnitude, at a cost that
does not depend on n.

Source: derived; tests/test_increments.py holds it against the mixture of χ² laws.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from lognorm_jax import masks
from lognorm_jax._tools import checks

# of the contour: step in widths of the bell, and terms at a time
_STEP, _TERMS = 0.35, 26
_SCALE = 50.0  # values of D so far apart are of different scales


class Scale(NamedTuple):
    """The paths whose largest |D| is of one scale, and their density by the saddle
    point alone.

    Values of D a factor 50 apart or more belong to different scales: their densities
    are different bells, which are integrated one by one. One scale has the transform
    F_0 − F_own, F_i being the S L^{n−1} of the values from the i-th on, so that F_own
    is that of the smaller scales alone.
    """

    width: int  # n
    # (values,): D² of this scale and of smaller ones over the largest of them
    square: np.ndarray
    prob: np.ndarray  # (values,)
    own: int  # number of values of this scale, the first ones
    lost: float  # P(D = 0)
    missing: float  # P(D of a larger scale)
    rate: float  # λ = n m2/(2 max D²)
    log_v: np.ndarray  # (grid,): ln of the saddle point
    bend: np.ndarray  # (grid,): second derivative of the exponent in ln v
    y: np.ndarray  # (grid,) increasing: ln R
    log_density: np.ndarray  # (grid,): ln g(y), to about 0.3
    slope: np.ndarray  # (grid,): d ln g/dy
    curvature: np.ndarray  # (grid,): −d² ln g/dy²


class Increment(NamedTuple):
    """One layer: its scales, and what they add up to on one grid."""

    scales: tuple[Scale, ...]
    log_alive: float  # ln P(R > 0)
    edge: float  # E R^s is finite for s > −edge
    y: np.ndarray  # (grid,) increasing: ln R
    log_density: np.ndarray  # (grid,): ln g(y), to about 0.3
    log_below: np.ndarray  # (grid,): ln P(0 < R ≤ e^y), likewise
    curvature: np.ndarray  # (grid,): −d² ln g/dy²


@functools.lru_cache(maxsize=4096)
def increment(width: int, mask: masks.Mask) -> Increment:
    """Return the record of a layer of this output width and mask, fan "out".

    width: n ≥ 1. mask: any with a support whose values are within a factor 1e8 of one
    another. Raises ``ValueError`` for anything else.
    """
    width = checks.integer("width", width, 1)
    checks.instance("mask", mask, masks.Mask)
    checks.require(
        mask.support is not None,
        f"support of {mask.name}",
        mask.support,
        "(value, probability) pairs",
        "Give the Mask its support, or sample it with paths.dense.",
    )
    values = sorted(((float(v) ** 2, float(p)) for v, p in mask.support), reverse=True)
    square, prob = np.array(values).T
    checks.require(
        square[-1] >= 0.99e-16 * square[0],
        f"support of {mask.name}",
        mask.support,
        "values of size within a factor 1e8 of one another",
        "Drop the smaller ones, or sample the mask with paths.dense.",
    )
    lost = float(1 - mask.keep_prob)
    lost = 0.0 if lost < 1e-14 else lost  # the rounding of a sum of probabilities
    log_alive = masks.log_alive(mask, width) if lost else 0.0
    starts = [
        0,
        *(np.flatnonzero(square[1:] * _SCALE**2 < square[:-1]) + 1),
        len(square),
    ]
    scales = []
    for start, end in itertools.pairwise(starts):
        rate = width * float(mask.moment(1)) / (2 * square[start])
        missing = float(prob[:start].sum())
        scaled = square[start:] / square[start]
        scale = Scale(
            width,
            scaled,
            prob[start:],
            int(end - start),
            lost,
            missing,
            rate,
            *(None,) * 6,
        )
        scales.append(scale._replace(**_profile(scale)))
    edge = 0.5 if lost else width / 2
    return Increment(tuple(scales), log_alive, edge, *_merge(scales, edge))


def log1p(z):
    """Return ln(1 + z) to full precision for small complex z, which np.log1p does not
    give.
    """
    if not np.iscomplexobj(z):
        return np.log1p(z)
    x, y = z.real, z.imag
    near = np.abs(z) < 0.5
    small = 0.5 * np.log1p(np.where(near, x * (2 + x) + y * y, 0))
    large = np.log(np.where(near, 1, np.maximum(np.abs(1 + z), 1e-300)))
    return np.where(near, small, large) + 1j * np.arctan2(y, 1 + x)


def _sums(scale: Scale, v, first: int):
    """Return E v q^{−1/2}, E D² v³ q^{−3/2} and E D⁴ v⁵ q^{−5/2}, q = 1 + (v² − 1)D²,
    max D = 1.
    """
    shape = (-1,) + (1,) * np.ndim(v)
    square, prob = (
        scale.square[first:].reshape(shape),
        scale.prob[first:].reshape(shape),
    )
    q = square + (1 - square) / v**2
    return [np.sum(prob * square**k * q ** -(k + 0.5), axis=0) for k in range(3)]


def _log_transform(scale: Scale, v, first: int):
    """Return ln F_first = ln S L^{n−1}/max D² over the values from the first on."""
    shape = (-1,) + (1,) * np.ndim(v)
    square, prob = (
        scale.square[first:].reshape(shape),
        scale.prob[first:].reshape(shape),
    )
    once, twice, _ = _sums(scale, v, first)
    # L − 1
    near_one = np.sum(prob * np.expm1(-0.5 * log1p((v**2 - 1) * square)), axis=0)
    near_one = near_one - scale.missing - scale.prob[:first].sum()
    near = np.abs(near_one) < 0.5
    far = np.log(np.where(near, 1, scale.lost + once / v))
    log_l = np.where(near, log1p(np.where(near, near_one, 0)), far)
    return np.log(twice) - 3 * np.log(v) + (scale.width - 1) * log_l


def _exponent(scale: Scale, v, r):
    """Return the log of the integrand (F_0 − F_own) e^{λ r (v² − 1)} at v, real or
    complex.
    """
    total = _log_transform(scale, v, 0)
    if scale.own < len(scale.square):
        total = total + np.log(-np.expm1(_log_transform(scale, v, scale.own) - total))
    return total + scale.rate * r * (v**2 - 1)


def _fall(scale: Scale, v, first: int):
    """Return −d ln F_first/d ln v."""
    once, twice, thrice = _sums(scale, v, first)
    return 3 * thrice / twice + (scale.width - 1) * twice / (scale.lost * v + once)


def _profile(scale: Scale) -> dict[str, np.ndarray]:
    """Tabulate the saddle point: y(v) is explicit and monotone, so no equation is
    solved.
    """
    grain = 0.2 / math.sqrt(scale.width * scale.prob.sum() + 1)
    step = np.linspace(-math.asinh(6 / grain), math.asinh(150 / grain), 800)
    log_v = np.unique(np.add.outer(-0.5 * np.log(scale.square), grain * np.sinh(step)))[
        ::-1
    ]
    v = np.exp(log_v)
    fall = _fall(scale, v, 0)
    if scale.own < len(scale.square):
        log_share = _log_transform(scale, v, scale.own) - _log_transform(scale, v, 0)
        share = np.exp(log_share)
        fall = (fall - share * _fall(scale, v, scale.own)) / -np.expm1(log_share)
    r = fall / (2 * scale.rate * v**2)
    y = np.log(r)
    bend = np.maximum(2 * fall - np.gradient(fall, log_v), 1.0)
    peak = _exponent(scale, v, r) + 2 * log_v + math.log(scale.width)
    slope = scale.rate * r * (v**2 - 1)
    return {
        "log_v": log_v,
        "bend": bend,
        "y": y,
        "log_density": peak - 0.5 * np.log(2 * math.pi * bend),
        "slope": slope,
        "curvature": -np.gradient(slope, y),
    }


def _merge(scales: list[Scale], edge: float):
    """Return y, ln g, ln P(0 < R ≤ e^y) and −d² ln g/dy² of the sum of the scales."""
    y = np.unique(np.concatenate([scale.y for scale in scales]))
    y = y[(y >= max(scale.y[0] for scale in scales)) & (y <= scales[0].y[-1])]
    each = np.array([np.interp(y, p.y, p.log_density, right=-np.inf) for p in scales])
    log_density = np.logaddexp.reduce(each, axis=0)
    share = np.exp(each - log_density)
    slope = np.array([np.interp(y, p.y, p.slope, right=0) for p in scales])
    curvature = np.array([np.interp(y, p.y, p.curvature, right=0) for p in scales])
    spread = np.sum(share * (slope - np.sum(share * slope, axis=0)) ** 2, axis=0)
    pieces = log_density + np.log(np.diff(y, prepend=y[0] - 1 / edge))
    log_below = np.logaddexp.accumulate(pieces)
    return y, log_density, log_below, np.sum(share * curvature, axis=0) - spread


def log_density(layer: Increment, y: np.ndarray) -> np.ndarray:
    """Return ln g(y) of ln R, (points,), of mass P(R > 0): relative error of g about
    1e-12.
    """
    total = np.full(np.shape(y), -np.inf)
    most = np.interp(y, layer.y, layer.log_density)
    for scale in layer.scales:
        seen = np.interp(y, scale.y, scale.log_density, right=-np.inf) > most - 45
        total[seen] = np.logaddexp(total[seen], _log_density(scale, y[seen]))
    return total


def _log_density(scale: Scale, y: np.ndarray) -> np.ndarray:
    v = np.exp(np.interp(y, scale.y, scale.log_v))
    step = np.minimum(_STEP / np.sqrt(np.interp(y, scale.y, scale.bend)), 1 / 6)
    r = np.exp(y)
    top = _exponent(scale, v, r) + np.log(v)
    total = np.full(np.shape(y), -0.5)
    open_ = np.arange(len(y))  # where the bell has not yet died away
    for first in range(0, 64 * _TERMS, _TERMS):
        if len(open_) == 0:
            break
        u = step[open_] * np.arange(first, first + _TERMS)[:, None]
        contour = v[open_] * (1 + 1j * u)
        with np.errstate(all="ignore"):
            bell = np.exp(
                _exponent(scale, contour, r[open_]) + np.log(contour) - top[open_]
            )
            total[open_] += bell.real.sum(0)
        open_ = open_[np.abs(bell[-1]) > 1e-17]
    with np.errstate(all="ignore"):
        value = top + np.log(scale.width / math.pi * v * step * total)
    # Heuristic: just above a cluster of much smaller values the integrand has two
    # bells. Where the sum then fails, 200 e-folds below the peak, the saddle-point
    # approximation stands in.
    saddle = np.interp(y, scale.y, scale.log_density)
    return np.where(np.abs(value - saddle) < 1, value, saddle)
