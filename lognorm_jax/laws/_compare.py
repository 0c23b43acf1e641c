"""How far two laws are apart, and whether samples follow a law."""

import dataclasses
import math
from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats

from lognorm_jax._tools import checks
from lognorm_jax.laws import _law

_POINTS = 2048  # of the grid of quantiles on which two smooth laws are compared first


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What samples say about a law; see ``compare``."""

    distance: float  # KS distance of the samples to the law, atoms included
    p_value: float  # of the hypothesis: the true distance is at most the tolerance
    interval: tuple[float, float]  # confidence interval for the true distance
    # number of samples that would bring its half-width down to the resolution
    needed: int
    verdict: str  # "pass", "fail" or "underpowered"


def ks_distance(a: _law.Law, b: _law.Law) -> float:
    """Return sup_x |F_a(x) − F_b(x)| over [−inf, inf), atoms included.

    Exact to rounding if one law is empirical: then the supremum is at a step, or at
    −inf. For two smooth laws the largest differences on a grid of quantiles are refined
    to about 1e-12.

    >>> round(ks_distance(_law.normal(0, 1), _law.normal(1, 1)), 6)
    0.382925
    """
    for name, law in (("a", a), ("b", b)):
        checks.require(
            isinstance(law, _law.Law),
            name,
            law,
            "a Law",
            "For samples take laws.empirical.",
        )
    return _kolmogorov(a, b)


def compare(
    log_norms: Any,
    law: _law.Law,
    tolerance: float = 0.0,
    *,
    confidence: float = 0.9999,
    resolution: float = 0.05,
) -> Comparison:
    """Test whether samples (num_samples,) follow a law, up to a KS distance of
    ``tolerance``.

    * fail: the interval for the true distance lies above the tolerance;
    * underpowered: it does not, but its half-width exceeds the resolution, so a
      departure of that size could hide; ``needed`` says how many samples would show it;
    * pass: otherwise.

    The half-width is the Kolmogorov quantile at the given confidence (for num_samples N
    about 2.2/√N at 0.9999), valid for any law by the Dvoretzky–Kiefer–Wolfowitz–Massart
    inequality and conservative for laws with an atom. If the law is itself empirical,
    with M samples, N·M/(N + M) takes the place of N, which is right for large samples,
    and ``needed`` is the size of either.

    tolerance: in [0, 1), what theory allows an approximate law; 0 asks for equality in
    law. confidence: in [0.5, 1). resolution: in [1e-6, 1). Raises ``ValueError`` for
    anything else.

    >>> rng = np.random.default_rng(0)
    >>> compare(rng.normal(size=10_000), _law.normal(0, 1)).verdict
    'pass'
    >>> compare(rng.normal(size=10_000), _law.normal(0.2, 1)).verdict
    'fail'
    >>> compare(rng.normal(size=100), _law.normal(0, 1)).verdict
    'underpowered'
    """
    allowed = "a number in [0, 1)"
    tolerance = float(checks.real("tolerance", tolerance, allowed))
    checks.require(0 <= tolerance < 1, "tolerance", tolerance, allowed)
    allowed = "a number in [0.5, 1 − 1e-12]"
    confidence = float(checks.real("confidence", confidence, allowed))
    checks.require(0.5 <= confidence <= 1 - 1e-12, "confidence", confidence, allowed)
    allowed = "a number in [1e-6, 1)"
    resolution = float(checks.real("resolution", resolution, allowed))
    checks.require(1e-6 <= resolution < 1, "resolution", resolution, allowed)
    checks.require(
        isinstance(law, _law.Law),
        "law",
        law,
        "a Law",
        "For samples take laws.empirical.",
    )
    seen = _law.empirical(log_norms)
    distance = ks_distance(seen, law)
    samples = 1 if law.samples is None else 2
    size = len(seen.samples)
    if samples == 2:
        size = max(1, size * len(law.samples) // (size + len(law.samples)))
    half_width = float(scipy.stats.kstwo.isf(1 - confidence, size))
    p_value = float(scipy.stats.kstwo.sf(max(distance - tolerance, 0.0), size))
    if p_value < 1 - confidence:
        verdict = "fail"
    elif half_width > resolution:
        verdict = "underpowered"
    else:
        verdict = "pass"
    interval = (max(distance - half_width, 0.0), min(distance + half_width, 1.0))
    needed = samples * math.ceil(math.log(2 / (1 - confidence)) / (2 * resolution**2))
    return Comparison(distance, p_value, interval, needed, verdict)


def _kolmogorov(a: Any, b: Any) -> float:
    """Return sup_x |F_a(x) − F_b(x)| over [−inf, inf); see ``laws.ks_distance``."""
    steps = [law.samples for law in (a, b) if law.samples is not None]
    if steps:
        x = np.unique(np.concatenate([*steps, [-np.inf]]))
        x = np.concatenate([x, np.nextafter(x[np.isfinite(x)], -np.inf)])
        return float(np.max(np.abs(a.cdf(x) - b.cdf(x))))
    return _smooth(a, b)


def _smooth(a: Any, b: Any) -> float:
    # the largest differences at quantiles of either law
    uniform = (np.arange(_POINTS) + 0.5) / _POINTS
    tails = np.geomspace(1e-12, 0.5 / _POINTS, 64)
    q = np.concatenate([tails, uniform, 1 - tails])
    x = np.concatenate([law.quantile(law.atom + (1 - law.atom) * q) for law in (a, b)])
    x = np.unique(x[np.isfinite(x)])
    if len(x) == 0:  # both laws are dead, to rounding
        return abs(a.atom - b.atom)
    gap = np.abs(a.cdf(x) - b.cdf(x))

    # and what they grow to between them
    best = max(abs(a.atom - b.atom), float(gap.max()))
    for i in np.argsort(gap)[-4:]:
        low = x[max(i - 1, 0)]
        high = x[min(i + 1, len(x) - 1)]
        if high > low:
            peak = scipy.optimize.minimize_scalar(
                lambda t: -abs(float(a.cdf(t)) - float(b.cdf(t))),
                bounds=(low, high),
                method="bounded",
                options={"xatol": 1e-10 * (high - low)},
            )
            best = max(best, -float(peak.fun))
    return best
