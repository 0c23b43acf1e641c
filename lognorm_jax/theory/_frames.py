"""What one layer does to the volume of a frame of k vectors, exactly, for {0, 1} masks.

A mask keeps B ~ Bin(n, p) of n coordinates. Given B, with normal weights the squared
volume det((D W V)ᵀ D W V) is a product of independent χ²_{B−j} over (p n)^k, j < k;
with orthogonal weights, from N = max(n, n_in) dimensions, of Beta((B − j)/2, (N −
B)/2) over (p n/N)^k. So E e^{sY} of its log Y is a sum over b of products of Γ((b −
j)/2 + s): known, for complex s, without a density.

Source: Bartlett's decomposition; tests/test_volumes.py holds it against simulation.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
from scipy import special

from lognorm_jax.theory import _cumulants, _gammas, _tilted

_NEGLIGIBLE = 60.0  # e-folds below the largest weight at which a value of B is left out
_SPACING = 0.33  # of values of B, in standard deviations: a whole bell's sum is exact
_ALL = 4096  # widths up to which every value of B is looked at
_DEEP = 38.0  # e-folds below the peak of a dip behind which a tail may be left out


class Frame(NamedTuple):
    """One layer, and k vectors that go through it."""

    width: int  # n
    keep: float  # p, the probability that a coordinate is kept
    size: int  # k ≥ 1
    # N, where weights are orthogonal; 0 for normal ones
    dimensions: int = 0

    @property
    def fixed(self) -> bool:
        """Whether volumes are kept as they are."""
        return self.keep == 1 and self.width == self.dimensions


class Values(NamedTuple):
    """Numbers of coordinates that are kept, and their probabilities given survival."""

    kept: np.ndarray  # (values,), b ≥ k
    log_prob: np.ndarray  # (values,), times the distance between values


def log_alive(frame: Frame) -> float:
    """Return ln P(B ≥ k)."""
    if frame.keep == 1:
        return 0.0
    dead = scipy.stats.binom.cdf(frame.size - 1, frame.width, frame.keep)
    if dead < 0.5:
        return math.log1p(-dead)
    return float(scipy.stats.binom.logsf(frame.size - 1, frame.width, frame.keep))


def log_transform(frame: Frame, kept: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Return ln E[e^{sY} | B = b], (values, points), less multiples of 2πi.

    Two of the χ² at a time, by Legendre's duplication: χ²_b χ²_{b−1} has the law of a
    squared Gamma(b − 1).

    Args:
        frame: k vectors.
        kept: b, (values,).
        s: (points,), Re s > −(b − k + 1)/2.
    """
    b = kept[:, None]
    unit = frame.keep * frame.width
    total = _product(b, frame.size, s, unit)
    if frame.dimensions:
        N = float(frame.dimensions)
        total = total - _product(np.full((1, 1), N), frame.size, s, N)
    return total


def _product(b: np.ndarray, size: int, s: np.ndarray, unit: float) -> np.ndarray:
    """Return Σ_j ln Γ((b − j)/2 + s)/Γ((b − j)/2) − k s ln(unit/2), j < size."""
    pairs, odd = divmod(size, 2)
    total = np.zeros(np.broadcast_shapes(b.shape, s.shape), s.dtype)
    if pairs:
        total = total + pairs * _gammas.log_ratio(b - 1, 2 * s, unit)
        for i in range(1, 2 * pairs - 1):
            more = pairs - (i + 1) // 2
            total = total - more * _gammas.log1p(2 * s / (b - 1 - i))
    if odd:
        total = total + _gammas.log_ratio((b - size + 1) / 2, s, unit / 2)
    return total


def conditional_cumulants(
    frame: Frame, kept: np.ndarray, order: int, tilt: float = 0.0
) -> np.ndarray:
    """Return the first cumulants of Y given B = b, tilted: (order, values)."""
    total = np.zeros((order, len(kept)))
    for i, j in itertools.product(range(order), range(frame.size)):
        total[i] += _cumulant_of(frame, kept, j, i, tilt)
    return total


def _cumulant_of(
    frame: Frame, kept: np.ndarray, j: int, order: int, tilt: float
) -> np.ndarray:
    """Return the cumulant of ln R_jj² after ``order`` derivatives of the mean, given B
    = b, tilted: (values,).
    """
    unit = frame.keep * frame.width / 2
    found = _gammas.polygamma(order, (kept - j) / 2 + tilt, unit)
    N = frame.dimensions
    if N:
        found = found - _gammas.polygamma(order, np.array((N - j) / 2 + tilt), N / 2)
    return found


def _survivors(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return values of B given survival, and their probabilities, each (values,)."""
    found = _values(frame, 0.0, 0.0)
    assert found is not None  # without a tilt all is finite
    kept, log_prob = found[0]
    return kept, np.exp(log_prob - special.logsumexp(log_prob))


def triangle_means(frame: Frame) -> np.ndarray:
    """Return the mean of ln R_jj² for each vector, given survival, (k,)."""
    kept, weight = _survivors(frame)
    given = [_cumulant_of(frame, kept, j, 0, 0.0) for j in range(frame.size)]
    return np.array(given) @ weight


def _log_binomial(frame: Frame, kept: np.ndarray) -> np.ndarray:
    """Return ln P(B = b), to absolute accuracy at any width, (values,)."""
    n, p = frame.width, frame.keep
    if p == 1:
        return np.where(kept == n, 0.0, -np.inf)
    # from its mode on, so that nothing large cancels
    mode = min(int((n + 1) * p), n)
    step = (kept - mode).astype(np.float64)
    ahead = _gammas.log_ratio(np.array(mode + 1.0), step, mode + 1.0)
    behind = _gammas.log_ratio(np.array(n - mode + 1.0), -step, n - mode + 1.0)
    odds = math.log(p / (1 - p)) + math.log((n - mode + 1) / (mode + 1))
    relative = step * odds - ahead - behind
    return relative + _log_mode(mode, n, p)


@functools.lru_cache(maxsize=4096)
def _log_mode(mode: int, n: int, p: float) -> float:
    return float(scipy.stats.binom.logpmf(mode, n, p))


def _values(frame: Frame, tilt: float, deep: float) -> tuple[Values, bool] | None:
    """Return the values of B that matter under the tilted law, and whether smaller ones
    are left out; None where these have infinite mass and no dip is that deep.
    """
    n, p, k = frame.width, frame.keep, frame.size
    if p == 1:
        return Values(np.array([n]), np.zeros(1)), False
    mean, spread = n * p, math.sqrt(n * p * (1 - p))
    few = mean + 50 * spread + 200 <= _ALL or n <= _ALL
    cut = tilt < -0.25
    kept = np.arange(k, min(n, _ALL) + 1) if few else _zoomed(frame, tilt)

    # P(B = b) E[e^{tilt Y} | b]
    level = np.full(len(kept), -np.inf)
    there = kept - k + 1 > -2 * tilt
    log_mass = log_transform(frame, kept[there], np.array([tilt]))[:, 0]
    log_prob = _log_binomial(frame, kept)
    level[there] = log_prob[there] + log_mass
    low = 0
    peak = int(level.argmax())
    if cut and few:
        behind = _behind(level, there, deep)
        if behind is None:
            return None
        low, peak = behind
    inside = np.flatnonzero(level[low:] > level[peak] - _NEGLIGIBLE) + low

    # no more of them than needed
    weight = np.exp(level[inside] - level[peak])
    weight /= weight.sum()
    center = weight @ kept[inside]
    sigma = math.sqrt(weight @ (kept[inside] - center) ** 2)
    gap = kept[1] - kept[0] if len(kept) > 1 else 1
    step = max(1, int(_SPACING * sigma / gap))
    # where the law is cut off, at B = k, a sum over every other value is not the sum
    if level[0] > level[peak] - _NEGLIGIBLE and kept[0] == k:
        step = 1
    inside = inside[::step]
    return Values(kept[inside], log_prob[inside] + math.log(step * gap)), cut


def _behind(
    level: np.ndarray, there: np.ndarray, deep: float
) -> tuple[int, int] | None:
    """Return where the bell behind a dip starts, and its peak; None without such a
    dip.
    """
    first = int(np.argmax(there))
    inner = level[1:-1]
    peaks = 1 + np.flatnonzero((inner > level[:-2]) & (inner >= level[2:]))
    peaks = peaks[peaks > first]
    if len(peaks) == 0:
        return None
    peak = int(peaks[level[peaks].argmax()])
    low = int(level[first : peak + 1].argmin()) + first
    # where there is no transform at all, the dip is beyond
    dip = level[peak] - level[low]
    return (low, peak) if dip > deep else None


def _zoomed(frame: Frame, tilt: float) -> np.ndarray:
    """Return values of B around the peak of the tilted law, equally spaced: of great
    widths, of which those below a quarter of the mean do not matter.
    """
    n, k = frame.width, frame.size

    def level(kept):
        log_mass = log_transform(frame, kept, np.array([tilt]))[:, 0]
        return _log_binomial(frame, kept) + log_mass

    low, high = max(k, int(n * frame.keep / 4)), n
    gap, peak = high - low, high
    while gap > 1:
        kept = np.unique(np.linspace(low, high, 65).astype(np.int64))
        gap = int(np.diff(kept).max())
        peak = kept[level(kept).argmax()]
        low, high = max(low, peak - 2 * gap), min(high, peak + 2 * gap)

    # how far it reaches to either side
    least = level(np.array([peak]))[0] - _NEGLIGIBLE
    start = _end(level, peak, -1, k, least)
    end = _end(level, peak, 1, n, least)
    # all of them where the law is cut off
    step = 1 if start == k else max(1, (end - start) // 256)
    return np.arange(start, end + 1, step)


def _end(level: Callable, peak: int, sign: int, bound: int, least: float) -> int:
    """Return a value to one side of a peak beyond which all are below a level."""
    reach = 1
    while sign * (bound - peak) > reach:
        end = peak + sign * reach
        if level(np.array([end]))[0] < least:
            return end
        reach *= 2
    return bound


@functools.lru_cache(maxsize=4096)
def cumulants(frame: Frame) -> tuple[float, ...]:
    """Return the first eight cumulants of Y given survival."""
    kept, weight = _survivors(frame)
    given = conditional_cumulants(frame, kept, 8)
    mean = float(weight @ given[0])
    given[0] -= mean

    # moments about the mean, given B and on average
    moments = _cumulants.to_moments(list(given))
    central = [1.0, 0.0] + [float(weight @ moment) for moment in moments[2:]]
    return (mean, *_cumulants.from_moments(central))


def layer(frame: Frame) -> _tilted.Layer:
    """Return the layer, for the inversion; not of a frame that is ``fixed``."""
    rough = frame.keep < 1
    edge = 0.5 if rough else (frame.width - frame.size + 1) / 2
    return _tilted.Layer(edge, functools.partial(_placed, frame))


def _placed(frame: Frame, tilt: float, count: int) -> _tilted.Placed | None:
    edge = 0.0 if frame.keep < 1 else (frame.width - frame.size + 1) / 2
    if edge and tilt <= -edge:
        return None
    found = _values(frame, tilt, _DEEP + 22 + math.log(count))
    if found is None:
        return None
    values, cut = found
    part = _part(frame, tilt, values, cut)

    # of one layer it is normal for small t, and known for others
    sigma = math.sqrt(part.variance)
    grid = np.geomspace(0.3, 1e3, 150) / sigma
    seen = -part.log_transform(grid).real

    def fall(t):
        normal = (sigma * t) ** 2 / 2
        return np.where(t < grid[0], normal, np.interp(t, grid, seen))

    return _tilted.Placed(fall, lambda band: part)


def _part(frame: Frame, tilt: float, values: Values, cut: bool) -> _tilted.Part:
    """Return the layer under the tilted law."""
    kept, log_prob = values
    given = log_prob - log_alive(frame)
    real = log_transform(frame, kept, np.array([tilt]))[:, 0]
    log_mass = float(special.logsumexp(given + real))
    weight = np.exp(given + real - log_mass)
    weight /= weight.sum()
    # to full precision, where the values are all that there are
    whole = abs(special.logsumexp(given)) < 2e-13
    if whole and abs(log_mass) < 1:
        log_mass = math.log1p(float(np.exp(given) @ np.expm1(real)))
    means, variances = conditional_cumulants(frame, kept, 2, tilt)
    mean = float(weight @ means)
    variance = float(weight @ (variances + (means - mean) ** 2))

    def of_values(s):
        """Return ln E[e^{s (Y − mean)} | b] under the tilted law, (values, points)."""
        whole = log_transform(frame, kept, tilt + s)
        return whole - real[:, None] - s * mean

    def transformed(t):
        z = of_values(1j * t)
        return _gammas.log1p(np.expm1(z).T @ weight)

    def growth(theta):
        total = np.full(len(theta), np.inf)
        finite = tilt + theta > -(kept.min() - frame.size + 1) / 2
        rise = of_values(theta[finite])
        total[finite] = special.logsumexp(rise, axis=0, b=weight[:, None])
        return total

    def left_out(x):
        below = scipy.stats.binom.logcdf(kept.min() - 1, frame.width, frame.keep)
        return np.full(len(x), below - log_alive(frame))

    return _tilted.Part(
        log_mass, mean, variance, transformed, growth, left_out if cut else None
    )
