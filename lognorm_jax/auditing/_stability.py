"""Reports of few initialisations, by the normal law that log-norms nearly follow."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy

from lognorm_jax.probing import reports
from lognorm_jax.probing.reports import IntervalEstimate, Report

ENOUGH = 100  # samples, below which shares are those of a normal law


def report(
    increments: np.ndarray,
    names: Sequence[str],
    growth: float = 0.0,
    factor: float = 10.0,
) -> Report:
    """Return a report of few initialisations: shares are those of a normal law.

    As log-norms nearly follow; their 95% intervals, and that of β, are exact for it (by
    the non-central t, and χ²). Of 100 and more they are counted.
    """
    counted = reports.report(increments, names, growth, factor)
    alive = counted.judged
    if not few(counted.log_norms):
        return counted
    limit = 2 * math.log(factor)
    # the interval of the variance of a normal law
    free = len(alive) - 1
    ends = free / scipy.stats.chi2(free).ppf([0.975, 0.025])
    low, high = (float(counted.beta.value * end) for end in ends)
    return dataclasses.replace(
        counted,
        beta=IntervalEstimate(counted.beta.value, (low, high)),
        vanishing=normal_share(alive, -limit),
        exploding=normal_share(-alive, -limit),
    )


def few(log_norms: np.ndarray) -> bool:
    """Return whether shares are those of a normal law: of few, that are all alive."""
    return 2 <= len(log_norms) < ENOUGH and bool(np.all(np.isfinite(log_norms)))


def normal_share(samples: np.ndarray, limit: float) -> IntervalEstimate:
    """Return P(X < limit) of the normal law that samples follow, with its interval.

    >>> share = normal_share(np.array([-1.0, 0.0, 1.0]), 0.0)
    >>> round(share.value, 3), share.interval[0] < 0.2, share.interval[1] > 0.8
    (0.5, True, True)
    """
    n = len(samples)
    if np.std(samples) <= 1e-12 * (1 + abs(limit)):
        # as if always the same
        value = float(samples.mean() < limit)
        return IntervalEstimate(value, (value, value))
    standard = (limit - samples.mean()) / samples.std(ddof=1)
    # √n standard is (Z + √n δ)/S about the true quantile δ, S² = χ²/(n − 1)
    spread, shares = _spreads(n)
    score = math.sqrt(n) * standard

    def at(level: float) -> float:
        def excess(delta: float) -> float:
            below = scipy.special.ndtr(score * spread - math.sqrt(n) * delta)
            return float(shares @ below) - level

        # where all of the levels are certain
        ends = [float(score * end / math.sqrt(n)) for end in (spread[0], spread[-1])]
        low, high = min(ends) - 5, max(ends) + 5
        quantile = float(scipy.optimize.brentq(excess, low, high))
        return float(scipy.special.ndtr(quantile))

    value = float(scipy.special.ndtr(standard))
    return IntervalEstimate(value, (at(0.975), at(0.025)))


@functools.lru_cache(maxsize=16)
def _spreads(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sd of n standard normal numbers, ascending, and their probabilities."""
    levels, shares = np.polynomial.legendre.leggauss(200)
    squares = scipy.stats.chi2(n - 1).ppf((levels + 1) / 2) / (n - 1)
    return np.sqrt(squares), shares / 2
