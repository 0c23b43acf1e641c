"""Nodes and weights that stand for the law of one increment, tilted by e^{tilt y}.

The density of ln R is analytic, so the trapezoid rule on the line converges
exponentially: some 70 nodes give the transform E R^s on a line Re s = tilt, and the
cumulants, to rounding.

Source: derived in theory section 4; held against closed forms in
tests/test_quadrature.py.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from lognorm_jax import masks
from lognorm_jax.theory import _cumulants, _density, _gammas, _tilted

REACH = 38.0  # e-folds below its peak at which a density is cut off
_DEEP = 60.0  # likewise, where its eighth moment is wanted
# bandwidth of the smooth tail: that of one surviving coordinate, e^{−πt/2}
_ROUGH = 26.0
_BLEND = 4  # number of nodes over which the spacing changes


def fall(precision: float, t: np.ndarray) -> np.ndarray:
    """Return −ln |E R^{s+it}/E R^s| of a density of this peak curvature, about.

    |Γ(a + it)/Γ(a)| falls as exp(−t atan(t/a) + ½a ln(1 + t²/a²)) by Stirling's
    formula, and so does the transform of a density of peak curvature a.
    """
    x = t / precision
    return t * np.arctan(x) - 0.5 * t / x * np.log1p(x * x)


def bandwidth(precision: float) -> float:
    """Return the frequency t beyond which that is above 40."""
    t = np.geomspace(1e-6, 1e8, 2000)
    return float(t[np.searchsorted(fall(precision, t), 40.0)])


class Tilted(NamedTuple):
    """Where the density of a layer, tilted by e^{tilt y}, has its mass."""

    tilt: float
    # the tilted density is below e^{−reach} of its peak outside of (low, high)
    low: float
    high: float
    bulk: float  # left of it is a smooth tail
    precision: float  # curvature of ln g at the peak: 1/variance, if it were normal
    # whether a far left tail, in which the tilted density rises again, is left out
    cut: bool


def tilted(
    layer: _density.Increment, tilt: float, count: int = 1, reach: float = REACH
) -> Tilted | None:
    """Find the mass of e^{tilt y} g(y), down to e^{−reach}, of count equal layers.

    For tilt ≤ −edge there is infinite mass in the far left tail, where few coordinates
    survive. For tilt < −edge/2 that tail is left out, behind a dip of at least
    ``reach`` below the peak, and if possible 22 + ln(count) deeper, so that what all
    layers leave out stays negligible; without such a dip return None.
    """
    value = layer.log_density + tilt * layer.y
    cut = tilt < -layer.edge / 2
    if cut:
        start = _behind_dip(value, reach, 22 + math.log(count))
        if start is None:
            return None
        low, peak = start
    else:
        peak = int(value.argmax())
        low = int(np.flatnonzero(value > value[peak] - reach)[0])
    above = np.flatnonzero(value[peak:] > value[peak] - reach)
    high = min(peak + int(above[-1]) + 1, len(value) - 1)

    # the curvature says how dense the nodes must be
    curvature = layer.curvature[low : high + 1]
    near = value[low : high + 1] > value[peak] - 4
    precision = float(max(curvature[near].max(), 0.1))
    y = layer.y[low : high + 1]
    bulk = float(y[np.argmax(curvature > 0.1 * precision)])
    return Tilted(tilt, float(y[0]), float(y[-1]), bulk, precision, cut)


def _behind_dip(
    value: np.ndarray, reach: float, deeper: float
) -> tuple[int, int] | None:
    """Return where the bell behind the dip starts, and its peak; None without a dip."""
    inner = value[1:-1]
    peaks = 1 + np.flatnonzero((inner > value[:-2]) & (inner >= value[2:]))
    if len(peaks) == 0:
        return None
    peak = int(peaks[value[peaks].argmax()])
    below = np.flatnonzero(value[:peak] < value[peak] - reach)
    if len(below) == 0:
        return None
    # still falling to the right
    dip = np.flatnonzero(np.diff(value[: below[-1] + 1]) < 0)
    low = int(dip[-1]) + 1 if len(dip) else 0
    enough = value[peak] - reach - deeper
    return low + int(np.searchsorted(value[low : below[-1]], enough)), peak


def nodes(
    layer: _density.Increment, place: Tilted, band: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes y_j and log weights a_j: Σ exp(a_j + s y_j) = E[R^s; R > 0].

    For Re s = tilt, by the trapezoid rule, exact to rounding for |Im s| ≤ band. The
    nodes are as dense as the curvature of ln g asks for, and sparser in a long left
    tail.
    """
    reach = 1.1 * bandwidth(place.precision)
    fine = 2 * math.pi / (reach + band)
    coarse = max(fine, min(2 * math.pi / (_ROUGH + band), 6 * fine))
    first = math.floor((place.low - place.bulk) / coarse) - _BLEND
    last = math.ceil((place.high - place.bulk) / fine) + _BLEND
    index = np.arange(first, last + 1)
    blend = float(_BLEND)
    bent = blend * np.logaddexp(0, -index / blend)
    y = place.bulk + fine * index - (coarse - fine) * bent
    spacing = fine + (coarse - fine) / (1 + np.exp(np.minimum(index / blend, 600)))
    return y, _density.log_density(layer, y) + np.log(spacing)


def layer(increment: _density.Increment) -> _tilted.Layer:
    """Return a layer of this density, for the inversion."""
    return _tilted.Layer(increment.edge, functools.partial(_placed, increment))


def _placed(
    increment: _density.Increment, tilt: float, count: int
) -> _tilted.Placed | None:
    place = tilted(increment, tilt, count)
    if place is None:
        return None
    return _tilted.Placed(
        functools.partial(fall, place.precision),
        functools.partial(_part, increment, place),
    )


def _part(increment: _density.Increment, place: Tilted, band: float) -> _tilted.Part:
    """Return a layer, tilted, by nodes that are good up to a frequency."""
    y, log_weight = nodes(increment, place, band)
    rise = place.tilt * y
    plain = logsumexp(log_weight)
    total = logsumexp(log_weight + rise)
    log_mass = float(total - increment.log_alive)
    # to full precision, where the nodes see all the mass
    if abs(plain - increment.log_alive) < 2e-13 and abs(log_mass) < 1:
        log_mass = math.log1p(float(np.exp(log_weight - plain) @ np.expm1(rise)))

    weight = np.exp(log_weight + rise - total)
    weight /= weight.sum()
    mean = float(weight @ y)
    y = y - mean

    def log_transform(t):
        return _gammas.log1p(np.expm1(1j * np.multiply.outer(t, y)) @ weight)

    def log_growth(theta):
        rise = np.multiply.outer(theta, y)
        top = rise.max(axis=1)
        return top + np.log(np.exp(rise - top[:, None]) @ weight)

    def left_out(x):
        jump = np.minimum(place.low, x)
        below = np.interp(jump, increment.y, increment.log_below)
        return below - increment.log_alive

    variance = float(weight @ y**2)
    functions = log_transform, log_growth, left_out if place.cut else None
    return _tilted.Part(log_mass, mean, variance, *functions)


@functools.lru_cache(maxsize=4096)
def cumulants(width: int, mask: masks.Mask) -> tuple[float, ...]:
    """Return the first eight cumulants of ln R given R > 0."""
    layer = _density.increment(width, mask)
    place = tilted(layer, 0.0, reach=_DEEP)
    assert place is not None  # without a tilt there always is a peak
    y, log_weight = nodes(layer, place, 0.0)
    weight = np.exp(log_weight)
    weight /= weight.sum()
    mean = float(weight @ y)
    central = [1.0, 0.0] + [float(weight @ (y - mean) ** k) for k in range(2, 9)]
    return (mean, *_cumulants.from_moments(central))
