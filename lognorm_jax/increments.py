"""The density of one increment ln R, exactly, for Gaussian weights and any discrete mask.

R = Σ_a D_a² z_a²/(n m2) has the Laplace transform φ(t) = L(t/(n m2))^n, L(τ) = E(1 + 2τD²)^{−1/2},
and r f(r), the density of ln R, has the transform −φ', in which the atom at R = 0 is gone:

    g(y) = (n/2πi) ∫ S(τ) L(τ)^{n−1} exp(n m2 τ e^y) dτ,    S(τ) = E[D² (1 + 2τD²)^{−3/2}].

With 1 + 2τ max D² = v² the branch point is at v = 0, and the vertical line through the real saddle
point v(y) is a contour on which the integrand is bell-shaped: the trapezoid rule converges
exponentially, every term is of the size of the result, and so the RELATIVE error stays near 1e-13
over hundreds of orders of magnitude, at a cost that does not depend on n.

Source: derived; tests/test_increments.py holds it against the mixture of χ² laws.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lognorm_jax import checks, masks

_STEP, _TERMS = 0.35, 26  # of the contour: step in widths of the bell, and terms at a time
REACH = 38.0  # e-folds below its peak at which a density is cut off
_DEEP = 60.0  # likewise, where its eighth moment is wanted
_ROUGH = 26.0  # bandwidth of the smooth tail: that of one surviving coordinate, e^{−πt/2}
_BLEND = 4  # number of nodes over which the spacing changes


class Increment(NamedTuple):
    """One layer: its parameters, and its density in the saddle-point approximation on a grid."""

    width: int  # n
    square: np.ndarray  # (values,): D²/max D² of the support
    prob: np.ndarray  # (values,)
    rate: float  # λ = n m2/(2 max D²)
    log_alive: float  # ln P(R > 0)
    edge: float  # E R^s is finite for s > −edge
    y: np.ndarray  # (grid,) increasing: ln R
    log_density: np.ndarray  # (grid,): ln g(y), to about 0.3
    log_below: np.ndarray  # (grid,): ln P(0 < R ≤ e^y), likewise
    log_v: np.ndarray  # (grid,): ln of the saddle point
    bend: np.ndarray  # (grid,): second derivative of the exponent in ln v
    curvature: np.ndarray  # (grid,): −d² ln g/dy²


@functools.lru_cache(maxsize=4096)
def increment(width: int, mask: masks.Mask) -> Increment:
    """Return the record of a layer of this output width and mask, fan "out".

    width: n ≥ 1. mask: any with a support whose values are within a factor 1e8 of one another.
    Raises ``ValueError`` for anything else.
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
    square = np.array([float(value) ** 2 for value, _ in mask.support])
    prob = np.array([float(prob) for _, prob in mask.support])
    checks.require(
        square.min() >= 0.99e-16 * square.max(),
        f"support of {mask.name}",
        mask.support,
        "values of size within a factor 1e8 of one another",
        "Drop the smaller ones, or sample the mask with paths.dense.",
    )
    keep_prob = float(mask.keep_prob)
    log_alive = math.log(-math.expm1(width * math.log1p(-keep_prob))) if keep_prob < 1 else 0.0
    rate = width * float(mask.moment(1)) / (2 * square.max())
    edge = 0.5 if keep_prob < 1 else width / 2
    layer = Increment(width, square / square.max(), prob, rate, log_alive, edge, *(None,) * 6)
    return layer._replace(**_profile(layer))


def log1p(z):
    """Return ln(1 + z) to full precision for small complex z, which np.log1p does not give."""
    if not np.iscomplexobj(z):
        return np.log1p(z)
    x, y = z.real, z.imag
    near = np.abs(z) < 0.5
    small = 0.5 * np.log1p(np.where(near, x * (2 + x) + y * y, 0))
    large = np.log(np.where(near, 1, np.maximum(np.abs(1 + z), 1e-300)))
    return np.where(near, small, large) + 1j * np.arctan2(y, 1 + x)


def _sums(layer: Increment, v):
    """Return E v q^{−1/2}, E D² v³ q^{−3/2} and E D⁴ v⁵ q^{−5/2}, q = 1 + (v² − 1)D², max D = 1."""
    shape = (-1,) + (1,) * np.ndim(v)
    square, prob = layer.square.reshape(shape), layer.prob.reshape(shape)
    q = square + (1 - square) / v**2
    return [np.sum(prob * square**k * q ** -(k + 0.5), axis=0) for k in range(3)]


def _exponent(layer: Increment, v, r):
    """Return the log of the integrand S L^{n−1} e^{λ r (v² − 1)}/max D² at v, real or complex."""
    shape = (-1,) + (1,) * np.ndim(v)
    square, prob = layer.square.reshape(shape), layer.prob.reshape(shape)
    first, second, _ = _sums(layer, v)
    near_one = np.sum(prob * np.expm1(-0.5 * log1p((v**2 - 1) * square)), axis=0)  # L − 1
    near = np.abs(near_one) < 0.5
    far = np.log(np.where(near, 1, 1 - np.sum(layer.prob) + first / v))
    log_l = np.where(near, log1p(np.where(near, near_one, 0)), far)
    return np.log(second) - 3 * np.log(v) + (layer.width - 1) * log_l + layer.rate * r * (v**2 - 1)


def _profile(layer: Increment) -> dict[str, np.ndarray]:
    """Tabulate the saddle point: y(v) is explicit and monotone, so no equation is solved."""
    grain = 0.2 / math.sqrt(layer.width * layer.prob.sum() + 1)
    step = np.linspace(-math.asinh(6 / grain), math.asinh(150 / grain), 800)
    log_v = np.unique(np.add.outer(-0.5 * np.log(layer.square), grain * np.sinh(step)))[::-1]
    v = np.exp(log_v)
    lost = 1 - np.sum(layer.prob)
    first, second, third = _sums(layer, v)
    slope = 3 * third / second + (layer.width - 1) * second / (lost * v + first)
    r = slope / (2 * layer.rate * v**2)
    y = np.log(r)
    bend = np.maximum(2 * slope - np.gradient(slope, log_v), 1.0)
    peak = _exponent(layer, v, r) + 2 * log_v + math.log(layer.width)
    curvature = -np.gradient(layer.rate * r * (v**2 - 1), y)
    density = peak - 0.5 * np.log(2 * math.pi * bend)
    pieces = density + np.log(np.diff(y, prepend=y[0] - 1 / layer.edge))
    return {
        "y": y,
        "log_density": density,
        "log_below": np.logaddexp.accumulate(pieces),
        "log_v": log_v,
        "bend": bend,
        "curvature": curvature,
    }


def log_density(layer: Increment, y: np.ndarray) -> np.ndarray:
    """Return ln g(y) of ln R, (points,), of mass P(R > 0): relative error of g about 1e-13."""
    v = np.exp(np.interp(y, layer.y, layer.log_v))
    step = np.minimum(_STEP / np.sqrt(np.interp(y, layer.y, layer.bend)), 1 / 6)
    r = np.exp(y)
    top = _exponent(layer, v, r) + np.log(v)
    total = np.full(np.shape(y), -0.5)
    open_ = np.arange(len(y))  # where the bell has not yet died away
    for first in range(0, 64 * _TERMS, _TERMS):
        u = step[open_] * np.arange(first, first + _TERMS)[:, None]
        contour = v[open_] * (1 + 1j * u)
        bell = np.exp(_exponent(layer, contour, r[open_]) + np.log(contour) - top[open_])
        total[open_] += bell.real.sum(0)
        open_ = open_[np.abs(bell[-1]) > 1e-17]
        if len(open_) == 0:
            break
    return top + np.log(layer.width / math.pi * v * step * total)


def bandwidth(layers: Sequence[tuple[float, int]]) -> float:
    """Return the frequency t beyond which Π |E R^{s+it}/E R^s|^count is below e^{−40}.

    layers: (precision, count) pairs. |Γ(a + it)/Γ(a)| falls as exp(−t atan(t/a) + ½a ln(1 + t²/a²))
    by Stirling's formula, and so does the transform of a density of peak curvature a.
    """
    t = np.geomspace(1e-6, 1e8, 2000)
    ratios = [(t / precision, count) for precision, count in layers]
    fall = sum(count * (t * np.arctan(x) - 0.5 * t / x * np.log1p(x * x)) for x, count in ratios)
    return float(t[np.searchsorted(fall, 40.0)])


class Tilted(NamedTuple):
    """Where the density of a layer, tilted by e^{tilt y}, has its mass."""

    tilt: float
    low: float  # the tilted density is below e^{−reach} of its peak outside of (low, high)
    high: float
    bulk: float  # left of it is a smooth tail
    precision: float  # curvature of ln g at the peak: 1/variance, if it were normal
    cut: bool  # whether a far left tail, in which the tilted density rises again, is left out


def tilted(layer: Increment, tilt: float, count: int = 1, reach: float = REACH) -> Tilted | None:
    """Find the mass of e^{tilt y} g(y), down to e^{−reach}, for a layer that appears count times.

    For tilt ≤ −edge there is infinite mass in the far left tail, where few coordinates survive. It
    is left out, and so it is for tilt near −edge, if there is a deep enough dip in between.
    Else return None.
    """
    value = layer.log_density + tilt * layer.y
    cut = tilt < -layer.edge / 2
    if not cut:
        peak = int(value.argmax())
        low = np.flatnonzero(value > value[peak] - reach)[0]
    else:
        inner = value[1:-1]
        peaks = 1 + np.flatnonzero((inner > value[:-2]) & (inner >= value[2:]))
        if len(peaks) == 0:
            return None
        peak = int(peaks[value[peaks].argmax()])
        below = np.flatnonzero(value[:peak] < value[peak] - reach)
        if len(below) == 0:
            return None
        dip = np.flatnonzero(np.diff(value[: below[-1] + 1]) < 0)  # still falling to the right
        low = dip[-1] + 1 if len(dip) else 0
        enough = value[peak] - reach - 22 - math.log(count)
        low += int(np.searchsorted(value[low : below[-1]], enough))
    high = min(peak + np.flatnonzero(value[peak:] > value[peak] - reach)[-1] + 1, len(value) - 1)
    curvature = layer.curvature[low : high + 1]
    near = value[low : high + 1] > value[peak] - 4
    precision = float(max(curvature[near].max(), 0.1))
    y = layer.y[low : high + 1]
    bulk = float(y[np.argmax(curvature > 0.1 * precision)])
    return Tilted(tilt, float(y[0]), float(y[-1]), bulk, precision, cut)


def nodes(layer: Increment, place: Tilted, band: float) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes y_j and log weights a_j: Σ exp(a_j + s y_j) = E[R^s; R > 0], Re s = tilt.

    By the trapezoid rule, exact to rounding for |Im s| ≤ band. The nodes are as dense as the
    curvature of ln g asks for, and sparser in a long left tail.
    """
    own = 1.1 * bandwidth([(place.precision, 1)])
    fine = 2 * math.pi / (own + band)
    coarse = max(fine, min(2 * math.pi / (_ROUGH + band), 6 * fine))
    first = math.floor((place.low - place.bulk) / coarse) - _BLEND
    last = math.ceil((place.high - place.bulk) / fine) + _BLEND
    index, blend = np.arange(first, last + 1), float(_BLEND)
    y = place.bulk + fine * index - (coarse - fine) * blend * np.logaddexp(0, -index / blend)
    spacing = fine + (coarse - fine) / (1 + np.exp(np.minimum(index / blend, 600)))
    return y, log_density(layer, y) + np.log(spacing)


@functools.lru_cache(maxsize=4096)
def cumulants(width: int, mask: masks.Mask) -> tuple[float, ...]:
    """Return the first eight cumulants of ln R given R > 0."""
    layer = increment(width, mask)
    place = tilted(layer, 0.0, reach=_DEEP)
    y, log_weight = nodes(layer, place, 0.0)
    weight = np.exp(log_weight)
    weight /= weight.sum()
    mean = float(weight @ y)
    central = [1.0, 0.0] + [float(weight @ (y - mean) ** k) for k in range(2, 9)]
    found = [0.0, 0.0]
    for k in range(2, 9):
        known = sum(math.comb(k - 1, j - 1) * found[j] * central[k - j] for j in range(2, k))
        found.append(central[k] - known)
    return (mean, *found[2:])
