"""The Edgeworth series of a law that is nearly normal, tabulated from its cumulants."""

import math

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from lognorm_jax._tools import checks
from lognorm_jax.laws import _law, _table

# of the table: standard deviations to either side, and points
_REACH, _NODES = 12, 4801


def edgeworth(cumulants: ArrayLike, atom: float = 0.0) -> _law.Law:
    """Return the normal law corrected for skewness and excess kurtosis.

    With z = (x − κ₁)/√κ₂, λ₃ = κ₃/κ₂^{3/2}, λ₄ = κ₄/κ₂² and Hermite polynomials He,

        F(x) = Φ(z) − φ(z) [λ₃ He₂(z)/6 + λ₄ He₃(z)/24 + λ₃² He₅(z)/72].

    Its error is that of the fifth cumulant: O(n⁻³) for a log_norm at fixed β (O(n⁻²)
    without κ₄), where that of the normal law with the same mean and variance is O(n⁻¹).
    The series is valid in the middle of the law, |z| well below 3/|λ₃|; further out its
    density would be negative. There, from where its hazard rate begins to fall, the
    tails are exponential, and a guess.

    Args:
        cumulants: κ₁, κ₂, … given survival: 2, 3 or 4 of them, finite, κ₂ > 0; those
            left out are 0.
        atom: P(X = −inf), in [0, 1).

    Returns:
        The law, tabulated, with the given mean and variance.

    Raises:
        ValueError: for other cumulants and atoms, and where the series is not even
            valid for |z| ≤ 1: beyond about |λ₃| = 1 or λ₄ = 1.5, a little more if both
            are large.

    Source:
        Edgeworth (1905); Cramér, Mathematical Methods of Statistics, 17.7; as in
        theory section 18.

    >>> law = edgeworth([0.0, 1.0, -0.3, 0.1])
    >>> [round(float(law.cdf(x)), 6) for x in (-2, 0, 2)]
    [0.030084, 0.480053, 0.986113]
    """
    allowed = "2, 3 or 4 finite numbers, the second > 0"
    given = checks.on_host("cumulants", cumulants)
    checks.require(given.shape in ((2,), (3,), (4,)), "cumulants", cumulants, allowed)
    kappa = [float(checks.real("cumulants", k, allowed)) for k in given.tolist()]
    checks.require(kappa[1] > 1e-200, "cumulants", cumulants, allowed)
    atom = checks.number("atom", atom, "[0, 1)")

    kappa += [0.0] * (4 - len(kappa))
    lower, upper = _tails(kappa)
    return _law.tabulated("Edgeworth", lower, upper, kappa[0], kappa[1], atom)


def _tails(cumulants: list[float]) -> tuple[_table.Curve, _table.Curve]:
    """Return ln P(X ≤ x) below the mean and ln P(X > x) above it.

    Each side ends where the hazard rate of the series begins to fall. Raises
    ``ValueError`` where that is within a standard deviation of the mean: the series is
    not valid there.
    """
    mean, variance, third, fourth = cumulants
    sigma = math.sqrt(variance)
    skew = third / variance / sigma
    excess = fourth / variance / variance
    _require_sound(abs(skew) <= 4 and abs(excess) <= 4, cumulants)
    z = np.linspace(-_REACH, _REACH, _NODES)
    x = mean + sigma * z
    apart = bool(np.all(np.diff(x) > 0))
    _require_sound(apart, cumulants, "of a variance that float64 can tell")

    # the part that the series adds to Φ, the density, and its derivative
    phi = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    hermite = np.polynomial.hermite_e.hermeval
    series = np.array([0, 0, skew / 6, excess / 24, 0, skew**2 / 72])
    part = phi * hermite(z, series)
    density = phi * hermite(z, [1, *series])  # φ He_{k+1} = −(φ He_k)′
    change = -phi * hermite(z, [0, 1, *series])

    middle = len(z) // 2

    def side(tail, sign):
        """Return ln of a tail, outwards to where its hazard rate falls."""
        hazard = density / np.where(tail > 0, tail, np.inf)
        outward = hazard[middle::-sign]
        end = int(np.argmax(np.append(np.diff(outward) <= 0, True)))
        _require_sound(z[middle + end] >= 1, cumulants)
        first, last = sorted((middle, middle - sign * end))
        keep = slice(first, last + 1)
        slope = sign * density[keep] / tail[keep] / sigma
        bend = sign * change[keep] / tail[keep] / variance - slope**2
        return _table.Curve(x[keep], np.log(tail[keep]), slope, bend)

    lower = side(scipy.special.ndtr(z) - part, 1)
    upper = side(scipy.special.ndtr(-z) + part, -1)
    return lower, upper


def _require_sound(
    ok: bool, cumulants: list[float], allowed: str = "near those of a normal law"
) -> None:
    instead = "Take laws.normal(κ₁, κ₂), or exact.law."
    checks.require(ok, "cumulants", cumulants, allowed, instead)
