"""The Kolmogorov–Smirnov distance of two laws: with atoms, steps, both or neither."""

from typing import Any

import numpy as np
import scipy.optimize

_POINTS = 2048  # of the grid of quantiles on which two smooth laws are compared first


def kolmogorov(a: Any, b: Any) -> float:
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
