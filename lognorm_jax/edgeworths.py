"""The Edgeworth series of a law that is nearly normal, tabulated from its cumulants."""

import math

import numpy as np
import scipy.special

from lognorm_jax import checks

_REACH, _NODES = 12, 4801  # of the table: standard deviations to either side, and points

Side = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def tails(mean: float, variance: float, third: float, fourth: float) -> tuple[Side, Side]:
    """Return x, ln P(X ≤ x) and its two derivatives below the mean, and ln P(X > x) above it.

    Each side ends where the hazard rate of the series begins to fall. Raises ``ValueError`` where
    that is within a standard deviation of the mean: the series is not valid there. See
    ``laws.edgeworth``.
    """
    cumulants = [mean, variance, third, fourth]
    allowed = "near those of a normal law"
    instead = "Take laws.normal(κ₁, κ₂), or exact.law."
    sigma = math.sqrt(variance)
    skew = third / variance / sigma
    excess = fourth / variance / variance
    sound = abs(skew) <= 4 and abs(excess) <= 4
    checks.require(sound, "cumulants", cumulants, allowed, instead)
    z = np.linspace(-_REACH, _REACH, _NODES)
    x = mean + sigma * z
    apart = bool(np.all(np.diff(x) > 0))
    checks.require(apart, "cumulants", cumulants, "of a variance that float64 can tell", instead)

    # the part that the series adds to Φ, the density, and its derivative
    phi = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    hermite = np.polynomial.hermite_e.hermeval
    series = np.array([0, 0, skew / 6, excess / 24, 0, skew**2 / 72])
    part = phi * hermite(z, series)
    density = phi * hermite(z, [1, *series])  # φ He_{k+1} = −(φ He_k)′
    change = -phi * hermite(z, [0, 1, *series])

    # ln of each tail, outwards to where the hazard rate falls
    middle = len(z) // 2
    sides = []
    for tail, sign in ((scipy.special.ndtr(z) - part, 1), (scipy.special.ndtr(-z) + part, -1)):
        hazard = density / np.where(tail > 0, tail, np.inf)
        outward = hazard[middle::-sign]
        end = int(np.argmax(np.append(np.diff(outward) <= 0, True)))
        checks.require(z[middle + end] >= 1, "cumulants", cumulants, allowed, instead)
        keep = slice(middle - end, middle + 1) if sign > 0 else slice(middle, middle + end + 1)
        slope = sign * density[keep] / tail[keep] / sigma
        bend = sign * change[keep] / tail[keep] / variance - slope**2
        sides.append((x[keep], np.log(tail[keep]), slope, bend))
    return tuple(sides)
