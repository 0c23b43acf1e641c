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

Source: derived in theory section 4; held against the mixture of χ² laws in
tests/test_increments.py.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from lognorm_jax import masks
from lognorm_jax._tools import checks
from lognorm_jax.theory import _gammas

# of the contour: step in widths of the bell, and terms at a time
_STEP, _TERMS = 0.35, 26
_SCALE = 50.0  # values of D so far apart are of different scales


class Values(NamedTuple):
    """The values of D² whose largest |D| is of one scale, and all smaller ones.

    Values of D a factor 50 apart or more belong to different scales: their densities
    are different bells, which are integrated one by one. One scale has the transform
    F_0 − F_largest, F_i being the S L^{n−1} of the values from the i-th on, so that
    F_largest is that of the smaller scales alone.
    """

    width: int  # n
    square: np.ndarray  # (values,): D² over the largest of them
    prob: np.ndarray  # (values,)
    largest: int  # number of values of this scale, the first ones
    lost: float  # P(D = 0)
    missing: float  # P(D of a larger scale)
    rate: float  # λ = n m2/(2 max D²)

    @property
    def alone(self) -> bool:
        """Whether there are no smaller scales."""
        return self.largest == len(self.square)


class Scale(NamedTuple):
    """The density of the paths of one scale by the saddle point alone."""

    values: Values
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

    Args:
        width: n ≥ 1.
        mask: any with a support whose values are within a factor 1e8 of one another.

    Raises:
        ValueError: for a mask without such a support.
    """
    square, prob = _support(mask)
    lost = float(1 - mask.keep_prob)
    # the rounding of a sum of probabilities
    if lost < 1e-14:
        lost = 0.0
    gaps = 1 + np.flatnonzero(square[1:] * _SCALE**2 < square[:-1])
    scales = []
    for start, end in itertools.pairwise([0, *gaps.tolist(), len(square)]):
        values = Values(
            width=width,
            square=square[start:] / square[start],
            prob=prob[start:],
            largest=end - start,
            lost=lost,
            missing=float(prob[:start].sum()),
            rate=width * float(mask.moment(1)) / (2 * square[start]),
        )
        scales.append(_profile(values))
    log_alive = masks.log_alive(mask, width) if lost else 0.0
    edge = 0.5 if lost else width / 2
    return Increment(tuple(scales), log_alive, edge, *_merge(scales, edge))


def _support(mask: masks.Mask) -> tuple[np.ndarray, np.ndarray]:
    """Return D² in descending order and their probabilities, each (values,)."""
    name = f"support of {mask.name}"
    support = mask.support or ()
    checks.require(
        len(support) > 0,
        name,
        mask.support,
        "(value, probability) pairs",
        "Give the Mask its support, or sample it with paths.dense.",
    )
    pairs = sorted(((float(v) ** 2, float(p)) for v, p in support), reverse=True)
    square, prob = np.array(pairs).T
    checks.require(
        square[-1] >= 0.99e-16 * square[0],
        name,
        mask.support,
        "values of size within a factor 1e8 of one another",
        "Drop the smaller ones, or sample the mask with paths.dense.",
    )
    return square, prob


def _from(values: Values, first: int, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return D² and probabilities from the first on, with as many axes after as v."""
    shape = (-1,) + (1,) * np.ndim(v)
    return values.square[first:].reshape(shape), values.prob[first:].reshape(shape)


def _sums(values: Values, v: np.ndarray, first: int) -> list[np.ndarray]:
    """Return E D^{2k} v^{2k+1} q^{−k−1/2}, k ≤ 2, q = 1 + (v² − 1)D², max D = 1."""
    square, prob = _from(values, first, v)
    q = square + (1 - square) / v**2
    return [np.sum(prob * square**k * q ** -(k + 0.5), axis=0) for k in range(3)]


def _log_transform(values: Values, v: np.ndarray, first: int) -> np.ndarray:
    """Return ln F_first = ln S L^{n−1}/max D² over the values from the first on."""
    square, prob = _from(values, first, v)
    once, twice, _ = _sums(values, v, first)

    # ln L, by L − 1 where that is small
    less = np.sum(prob * np.expm1(-0.5 * _gammas.log1p((v**2 - 1) * square)), axis=0)
    less = less - values.missing - values.prob[:first].sum()
    near = np.abs(less) < 0.5
    far = np.log(np.where(near, 1, values.lost + once / v))
    log_l = np.where(near, _gammas.log1p(np.where(near, less, 0)), far)
    return np.log(twice) - 3 * np.log(v) + (values.width - 1) * log_l


def _exponent(values: Values, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Return ln of (F_0 − F_largest) e^{λ r (v² − 1)} at v, real or complex."""
    total = _log_transform(values, v, 0)
    if not values.alone:
        log_share = _log_transform(values, v, values.largest) - total
        total = total + np.log(-np.expm1(log_share))
    return total + values.rate * r * (v**2 - 1)


def _fall(values: Values, v: np.ndarray, first: int) -> np.ndarray:
    """Return −d ln F_first/d ln v."""
    once, twice, thrice = _sums(values, v, first)
    power = (values.width - 1) * twice / (values.lost * v + once)
    return 3 * thrice / twice + power


def _profile(values: Values) -> Scale:
    """Tabulate the saddle point: y(v) is explicit, no equation to solve."""
    grain = 0.2 / math.sqrt(values.width * values.prob.sum() + 1)
    step = np.linspace(-math.asinh(6 / grain), math.asinh(150 / grain), 800)
    grid = np.add.outer(-0.5 * np.log(values.square), grain * np.sinh(step))
    log_v = np.unique(grid)[::-1]
    v = np.exp(log_v)

    # where the exponent is stationary
    fall = _fall(values, v, 0)
    if not values.alone:
        total = _log_transform(values, v, 0)
        log_share = _log_transform(values, v, values.largest) - total
        smaller = np.exp(log_share) * _fall(values, v, values.largest)
        fall = (fall - smaller) / -np.expm1(log_share)
    r = fall / (2 * values.rate * v**2)
    y = np.log(r)

    bend = np.maximum(2 * fall - np.gradient(fall, log_v), 1.0)
    peak = _exponent(values, v, r) + 2 * log_v + math.log(values.width)
    slope = values.rate * r * (v**2 - 1)
    return Scale(
        values=values,
        log_v=log_v,
        bend=bend,
        y=y,
        log_density=peak - 0.5 * np.log(2 * math.pi * bend),
        slope=slope,
        curvature=-np.gradient(slope, y),
    )


def _merge(
    scales: list[Scale], edge: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return y, ln g, ln P(0 < R ≤ e^y) and −d² ln g/dy² of the sum of the scales."""
    y = np.unique(np.concatenate([scale.y for scale in scales]))
    y = y[(y >= max(scale.y[0] for scale in scales)) & (y <= scales[0].y[-1])]

    # of a mixture: each scale by its share
    parts = np.array([np.interp(y, p.y, p.log_density, right=-np.inf) for p in scales])
    log_density = np.logaddexp.reduce(parts, axis=0)
    share = np.exp(parts - log_density)
    slope = np.array([np.interp(y, p.y, p.slope, right=0) for p in scales])
    curvature = np.array([np.interp(y, p.y, p.curvature, right=0) for p in scales])
    spread = np.sum(share * (slope - np.sum(share * slope, axis=0)) ** 2, axis=0)

    pieces = log_density + np.log(np.diff(y, prepend=y[0] - 1 / edge))
    log_below = np.logaddexp.accumulate(pieces)
    return y, log_density, log_below, np.sum(share * curvature, axis=0) - spread


def log_density(layer: Increment, y: np.ndarray) -> np.ndarray:
    """Return ln g(y) of ln R, (points,), of mass P(R > 0), to about 1e-12."""
    total = np.full(np.shape(y), -np.inf)
    most = np.interp(y, layer.y, layer.log_density)
    for scale in layer.scales:
        own = np.interp(y, scale.y, scale.log_density, right=-np.inf)
        matters = own > most - 45
        part = _log_density(scale, y[matters])
        total[matters] = np.logaddexp(total[matters], part)
    return total


def _log_density(scale: Scale, y: np.ndarray) -> np.ndarray:
    """Return ln g(y) of one scale, by the trapezoid rule along the contour."""
    values = scale.values
    v = np.exp(np.interp(y, scale.y, scale.log_v))
    step = np.minimum(_STEP / np.sqrt(np.interp(y, scale.y, scale.bend)), 1 / 6)
    r = np.exp(y)
    top = _exponent(values, v, r) + np.log(v)

    total = np.full(np.shape(y), -0.5)
    running = np.arange(len(y))  # where the bell has not yet died away
    for first in range(0, 64 * _TERMS, _TERMS):
        if len(running) == 0:
            break
        u = step[running] * np.arange(first, first + _TERMS)[:, None]
        contour = v[running] * (1 + 1j * u)
        with np.errstate(all="ignore"):
            exponent = _exponent(values, contour, r[running]) + np.log(contour)
            bell = np.exp(exponent - top[running])
            total[running] += bell.real.sum(0)
        running = running[np.abs(bell[-1]) > 1e-17]
    with np.errstate(all="ignore"):
        value = top + np.log(values.width / math.pi * v * step * total)

    # Heuristic: just above a cluster of much smaller values the integrand has two
    # bells. Where the sum then fails, 200 e-folds below the peak, the saddle-point
    # approximation stands in.
    saddle = np.interp(y, scale.y, scale.log_density)
    return np.where(np.abs(value - saddle) < 1, value, saddle)
