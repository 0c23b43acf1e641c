"""How far two laws are apart, and whether samples follow a law."""

import dataclasses
import math

import numpy as np
import scipy
from jax.typing import ArrayLike

from lognorm_jax._tools import checks
from lognorm_jax.laws import _law

_POINTS = 2048  # of the grid of quantiles on which two smooth laws are compared first


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What samples say about a law; see ``compare``.

    Attributes:
        distance: KS distance of the samples to the law, atoms included, in [0, 1].
        p_value: of the hypothesis: the true distance is at most the tolerance.
        interval: confidence interval for the true distance, (low, high).
        needed: number of samples that would bring its half-width down to the
            resolution.
        verdict: "pass", "fail" or "underpowered".
    """

    distance: float
    p_value: float
    interval: tuple[float, float]
    needed: int
    verdict: str


def ks_distance(a: _law.Law, b: _law.Law) -> float:
    """Return sup_x |F_a(x) − F_b(x)| over [−inf, inf), atoms included.

    Exact to rounding if one law is empirical: then the supremum is at a step, or at
    −inf. For two smooth laws the largest differences on a grid of quantiles are refined
    to about 1e-12.

    Args:
        a: a law.
        b: another.

    Returns:
        The distance, in [0, 1].

    Raises:
        ValueError: for what is no Law.

    >>> round(ks_distance(_law.normal(0, 1), _law.normal(1, 1)), 6)
    0.382925
    """
    _require_law("a", a)
    _require_law("b", b)
    return _kolmogorov(a, b)


def _require_law(name: str, law: object) -> None:
    instead = "For samples take laws.empirical."
    checks.require(isinstance(law, _law.Law), name, law, "a Law", instead)


def compare(
    log_norms: ArrayLike,
    law: _law.Law,
    tolerance: float = 0.0,
    *,
    confidence: float = 0.9999,
    resolution: float = 0.05,
) -> Comparison:
    """Test whether samples follow a law, up to a KS distance of ``tolerance``.

    The verdict is

    * fail: the interval for the true distance lies above the tolerance;
    * underpowered: it does not, but its half-width exceeds the resolution, so a
      departure of that size could hide; ``needed`` says how many samples would show it;
    * pass: otherwise.

    The half-width is the Kolmogorov quantile at the given confidence (for num_samples N
    about 2.2/√N at 0.9999), valid for any law by the Dvoretzky–Kiefer–Wolfowitz–Massart
    inequality and conservative for laws with an atom. If the law is itself empirical,
    with M samples, N·M/(N + M) takes the place of N, which is right for large samples,
    and ``needed`` is the size of either.

    Args:
        log_norms: (num_samples,), numbers in [−inf, inf).
        law: what they should follow.
        tolerance: in [0, 1), what theory allows an approximate law; 0 asks for equality
            in law.
        confidence: in [0.5, 1 − 1e-12].
        resolution: in [1e-6, 1), of the KS distance.

    Returns:
        Distance, p-value, interval, needed samples and verdict.

    Raises:
        ValueError: for NaN, +inf or another shape of the samples, for what is no Law,
            and for other tolerances, confidences and resolutions.

    Source:
        Massart (1990), as in theory section 18.

    >>> rng = np.random.default_rng(0)
    >>> compare(rng.normal(size=10_000), _law.normal(0, 1)).verdict
    'pass'
    >>> compare(rng.normal(size=10_000), _law.normal(0.2, 1)).verdict
    'fail'
    >>> compare(rng.normal(size=100), _law.normal(0, 1)).verdict
    'underpowered'
    """
    tolerance = checks.number("tolerance", tolerance, "[0, 1)")
    confidence = checks.number("confidence", confidence, "[0.5, 0.999999999999]")
    resolution = checks.number("resolution", resolution, "[1e-6, 1)")
    _require_law("law", law)
    sample = _law.empirical(log_norms)
    distance = _kolmogorov(sample, law)

    # a second sample is as good as a smaller first one
    num_samples = 1 if law.samples is None else 2
    size = _count(sample)
    if law.samples is not None:
        size = max(1, size * _count(law) // (size + _count(law)))
    half_width = float(scipy.stats.kstwo.isf(1 - confidence, size))
    p_value = float(scipy.stats.kstwo.sf(max(distance - tolerance, 0.0), size))
    needed = math.ceil(math.log(2 / (1 - confidence)) / (2 * resolution**2))

    if p_value < 1 - confidence:
        verdict = "fail"
    elif half_width > resolution:
        verdict = "underpowered"
    else:
        verdict = "pass"
    return Comparison(
        distance=distance,
        p_value=p_value,
        interval=(max(distance - half_width, 0.0), min(distance + half_width, 1.0)),
        needed=num_samples * needed,
        verdict=verdict,
    )


def _count(law: _law.Law) -> int:
    """Return the number of samples of an empirical law."""
    return 0 if law.samples is None else len(law.samples)


def _kolmogorov(a: _law.Law, b: _law.Law) -> float:
    steps = [law.samples for law in (a, b) if law.samples is not None]
    if not steps:
        return _smooth(a, b)
    x = np.unique(np.concatenate([*steps, [-np.inf]]))
    # and just before each step
    x = np.concatenate([x, np.nextafter(x[np.isfinite(x)], -np.inf)])
    return float(np.max(np.abs(a.cdf(x) - b.cdf(x))))


def _smooth(a: _law.Law, b: _law.Law) -> float:
    # the largest differences at quantiles of either law
    uniform = (np.arange(_POINTS) + 0.5) / _POINTS
    tails = np.geomspace(1e-12, 0.5 / _POINTS, 64)
    q = np.concatenate([tails, uniform, 1 - tails])
    x = np.concatenate([law.quantile(law.atom + (1 - law.atom) * q) for law in (a, b)])
    x = np.unique(x[np.isfinite(x)])
    best = abs(a.atom - b.atom)
    if len(x) == 0:  # both laws are dead, to rounding
        return best
    gap = np.abs(a.cdf(x) - b.cdf(x))

    # and what they grow to between them
    best = max(best, float(gap.max()))
    for i in np.argsort(gap)[-4:]:
        low = x[max(i - 1, 0)]
        high = x[min(i + 1, len(x) - 1)]
        if high > low:
            best = max(best, _peak(a, b, low, high))
    return best


def _peak(a: _law.Law, b: _law.Law, low: float, high: float) -> float:
    """Return the largest difference of two smooth cdfs between two numbers."""
    peak = scipy.optimize.minimize_scalar(
        lambda x: -abs(float(a.cdf(x)) - float(b.cdf(x))),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-10 * (high - low)},
    )
    return -float(peak.fun)
