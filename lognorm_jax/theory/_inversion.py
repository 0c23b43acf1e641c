"""From increments of layers to the law of their sum: inversion of the Mellin transform.

E[e^{sX} | alive] = Π_i E[R_i^s | alive] is inverted along lines Re s = c. Along one
line rounding is relative to the peak of the tilted law e^{cx} f(x), so one line sees
some five of its standard deviations to either side; a few lines, each a window, see the
whole law with full relative accuracy. Lines with c > 0 give P(X > x), those with c < 0
give P(X ≤ x).

Source: derived in theory section 4; held against closed forms and reference laws in
tests/test_exact.py. The tilt is that of saddle-point approximations (Daniels 1954), but
the integrals are done in full, by the trapezoid rule, which converges exponentially.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from lognorm_jax import laws
from lognorm_jax.theory import _tilted

_FAR = -700.0  # ln of the probability at which the tables of a law end
_NOISE = 1e-7  # of the peak of a tilted law: below it, rounding may exceed 1e-9
_AGREE = 1e-7  # relative probability by which two windows may differ where they meet
_LEFT_OUT = 1e-10  # relative probability that a window may leave out
# ln of a probability: a window that leaves something out must reach below it
_SHALLOW = -25.0
_SETTLED = 1e-8  # relative noise of a slope: nearer to its limit, it is the limit

# distinct layers, and how often each appears
Layers = list[tuple[_tilted.Layer, int]]


class Window(NamedTuple):
    """The law of X = log_norm given survival, seen through the factor e^{tilt x}."""

    tilt: float  # c
    log_mass: float  # K(c) = ln E e^{cX}
    mean: float  # K'(c), of the tilted law
    sigma: float  # √K''(c)
    x: np.ndarray  # (points,), where what follows is known to 1e-9 relative
    value: np.ndarray  # (points,): ln P(X > x), or ln P(X ≤ x) if tilt < 0
    slope: np.ndarray  # (points,): its derivative
    bend: np.ndarray  # (points,): its second derivative
    # whether its left end is set by rounding, not by the tails that nodes leave out
    whole: bool


class _Repeated(NamedTuple):
    """One distinct layer under the tilted law, and how often it appears."""

    repeats: int
    part: _tilted.Part


def _parts(layers: Layers, tilt: float) -> tuple[list[_Repeated], float] | None:
    """Return layers under the tilted law, and the frequency where their product dies
    away.
    """
    placed = []
    for layer, count in layers:
        place = layer.place(tilt, count)
        if place is None:
            return None
        placed.append((place, count))
    band = _band(placed)
    if band is None:
        return None
    return [_Repeated(count, place.part(band)) for place, count in placed], band


def _band(placed: list[tuple[_tilted.Placed, int]]) -> float | None:
    """Return the frequency beyond which Π |E e^{itY}|^count is below e^{−40}, or about
    as small as it gets if that is below e^{−30}; None where the law has steps.
    """
    t = np.geomspace(1e-6, 1e8, 2000)
    fall = np.sum([count * place.fall(t) for place, count in placed], axis=0)
    if fall[-1] < 30:
        return None
    return float(t[np.searchsorted(fall, min(40.0, fall[-1] - 0.1))])


def _transform(parts: list[_Repeated], t: np.ndarray) -> np.ndarray:
    """Return E e^{it(X − mean)} of the tilted law, precise for 10⁶ layers of φ ≈ 1."""
    log_phi = np.zeros(len(t), complex)
    for count, part in parts:
        log_phi += count * part.log_transform(t)
    return np.exp(log_phi)


def _reach(parts: list[_Repeated], sigma: float, sign: int) -> float:
    """Return how far to one side of its mean the tilted law falls below e^{−40}.

    By Chernoff's bound: a law of two clusters reaches much further than its sigma says.
    """
    theta = np.geomspace(0.02, 200, 30) / sigma
    growth = np.zeros(len(theta))
    for count, part in parts:
        growth += count * part.log_growth(sign * theta)
    return float(np.min((40 + growth) / theta))


def _left_out(
    parts: list[_Repeated], tilt: float, log_mass: float, x: np.ndarray
) -> np.ndarray:
    """Return a bound on ln P(X ≤ x, some layer in the far tail its nodes leave out).

    By Chernoff's bound the other layers then sum to z with probability at most e^{K(c)
    − cz} and 1.
    """
    bound = np.full(len(x), -np.inf)
    for count, part in parts:
        if part.left_out is not None:
            tail = part.left_out(x - (log_mass - part.log_mass) / tilt)
            bound = np.logaddexp(bound, math.log(count) + tail)
    return bound


def window(layers: Layers, tilt: float) -> Window | None:
    """Invert along Re s = tilt ≠ 0 by one FFT; None where a layer has no transform."""
    placed = _parts(layers, tilt)
    if placed is None:
        return None
    parts, band = placed
    mean = sum(count * part.mean for count, part in parts)
    log_mass = sum(count * part.log_mass for count, part in parts)
    variance = sum(count * part.variance for count, part in parts)
    sigma = math.sqrt(variance)
    sides = max(_reach(parts, sigma, 1), _reach(parts, sigma, -1), 7 * sigma)

    offset, (tail, density, change) = _invert(parts, tilt, band, sides)
    x = mean + offset
    # where rounding, relative to the peak, does not show
    low, high = _loud(np.abs(tail))
    x, tail, density, change = (f[low:high] for f in (x, tail, density, change))
    value = log_mass - tilt * x + np.log(np.abs(tail))
    slope = -density / tail
    bend = -change / tail - slope**2
    # and what the nodes leave out does not either
    missing = _left_out(parts, tilt, log_mass, x) > value + math.log(_LEFT_OUT)
    start = 1 + int(np.max(np.flatnonzero(missing), initial=-1))
    return Window(
        tilt=tilt,
        log_mass=log_mass,
        mean=mean,
        sigma=sigma,
        x=x[start:],
        value=value[start:],
        slope=slope[start:],
        bend=bend[start:],
        whole=start == 0,
    )


def _invert(
    parts: list[_Repeated], tilt: float, band: float, sides: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return x less its mean, (points,), and the tilted tail, density and change."""
    period = 2 * sides + 40 / abs(tilt)
    t = np.arange(math.ceil(band * period / (2 * math.pi))) * (2 * math.pi / period)
    s = tilt + 1j * t
    flip = 1 - 2 * (np.arange(len(t)) % 2)  # puts the mean in the middle of the period
    orders = np.array([1 / s, np.ones_like(s), -s])
    spectrum = np.conj(flip * _transform(parts, t) * orders)
    size = 1 << math.ceil(math.log2(2 * band * period))
    curves = np.fft.irfft(spectrum, size, axis=-1) * (size / period)
    return (np.arange(size) - size // 2) * (period / size), curves


def _loud(size: np.ndarray) -> tuple[int, int]:
    """Return the range around the peak in which a curve exceeds its noise."""
    peak = int(size.argmax())
    quiet = np.flatnonzero(size <= _NOISE * size[peak])
    low = np.max(quiet, where=quiet < peak, initial=-1) + 1
    high = np.min(quiet, where=quiet > peak, initial=len(size))
    return int(low), int(high)


def _value(w: Window, x: float) -> float:
    """Return the value of a window at one point between its nodes."""
    i = int(np.clip(np.searchsorted(w.x, x), 1, len(w.x) - 1))
    near = slice(i - 1, i + 1)
    curve = laws.Curve(w.x[near], w.value[near], w.slope[near], w.bend[near])
    return float(laws.interpolate(curve)(np.asarray(x))[0])


def joint(a: Window, b: Window) -> float | None:
    """Return the point where two windows of one side are equally good.

    None where one of them is not good there, or they do not agree.
    """
    x = (a.mean * b.sigma + b.mean * a.sigma) / (a.sigma + b.sigma)
    if not all(len(w.x) and w.x[0] < x < w.x[-1] for w in (a, b)):
        return None
    return x if abs(_value(a, x) - _value(b, x)) < _AGREE else None


def _inner(layers: Layers, mean: float, sigma: float) -> tuple[Window, Window]:
    """Return a window to either side, both of which see the mean of the law.

    Tilts by one sigma see most; smaller ones see on when far clusters would outweigh
    the middle, or when the far left tail of a layer must not be left out.
    """
    edge = min(layer.edge for layer, _ in layers)
    tilts = [1.0, min(1.0, sigma * edge / 2), *np.geomspace(0.3, 1e-4, 8)]

    def sees(w: Window) -> bool:
        deep = w.whole or np.min(w.value, initial=0) < _SHALLOW
        return bool(deep and len(w.x) and w.x[0] < mean < w.x[-1])

    def first(candidates: list[float]) -> Window:
        for tilt in candidates:
            w = window(layers, tilt / sigma)
            if w and sees(w):
                return w
        raise ArithmeticError(
            "The two sides of the law do not meet: please report this ensemble."
        )

    return first([-tilt for tilt in tilts]), first([1.0, 0.1])


def _outwards(layers: Layers, first: Window) -> list[Window]:
    """Return a window and further ones to one side, each overlapping the last."""
    last = first
    windows = [first]
    while last.log_mass - last.tilt * last.mean > _FAR:
        steps = (math.copysign(step, first.tilt) for step in (8, 4, 2))
        further = (window(layers, last.tilt + step / last.sigma) for step in steps)
        beyond = next((w for w in further if w and joint(last, w)), None)
        if beyond is None:
            break
        windows.append(beyond)
        last = beyond
    return windows


def _join(windows: list[Window], low: float, high: float) -> laws.Curve:
    """Join windows, in order of x, to one curve from low to high."""
    joints = [joint(a, b) for a, b in itertools.pairwise(windows)]
    pieces = []
    for w, left, right in zip(windows, [low, *joints], [*joints, high], strict=True):
        mine = (w.x >= left) & (w.x < right)
        pieces.append(np.array([w.x, w.value, w.slope, w.bend])[:, mine])
    return laws.Curve(*np.concatenate(pieces, axis=1))


def _settled(lower: laws.Curve, edge: float) -> laws.Curve:
    """Return a lower tail that goes on with its asymptotic exponent, once it is there.

    P(X ≤ x) falls as e^{edge x} at last. The rounding noise of the slope of one node,
    1e-9, would grow with the distance from the table.
    """
    if abs(lower.slope[0] / edge - 1) > _SETTLED:
        return lower
    slope = lower.slope.copy()
    slope[0] = edge
    return lower._replace(slope=slope)


def curves(layers: Layers, mean: float, sigma: float) -> tuple[laws.Curve, laws.Curve]:
    """Return ln P(X ≤ x | alive) below the mean, and ln P(X > x | alive) above it.

    What the two are short of 1, rounding over many layers, is divided out.

    Raises:
        ArithmeticError: if they do not add up to 1 within 1e-6 where they meet.
    """
    left, right = (_outwards(layers, first) for first in _inner(layers, mean, sigma))
    edge = min(layer.edge for layer, _ in layers)
    lower = _settled(_join(left[::-1], -math.inf, mean), edge)
    upper = _join(right, mean - sigma / 2, math.inf)
    above = float(laws.interpolate(upper)(lower.x[-1])[0])
    total = math.exp(lower.value[-1]) + math.exp(above)
    if not abs(total - 1) < 1e-6:
        raise ArithmeticError(
            f"P(X ≤ x) + P(X > x) = {total}: please report this ensemble."
        )
    short = math.log(total)
    lower = lower._replace(value=lower.value - short)
    upper = upper._replace(value=upper.value - short)
    return lower, upper
