"""Laws of a log-norm on the host, in float64: predictions, samples, and the distance between them.

A Law is a record of pure functions. Its cdf is that of the whole law: it starts at ``atom``, the
probability of −inf (a dead path); mean and variance are conditional on survival.
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats

from lognorm_jax import checks, distances, edgeworths, records, tables


def no_density(x: Any) -> np.ndarray:
    """Stand for the pdf of a law that has none, or whose is not known: raise ``ValueError``."""
    del x
    allowed = "the density of a smooth law, where this law is one of samples, or was given without"
    instead = "Take law.cdf, a histogram of law.samples, or laws.normal(law.mean, law.variance)."
    checks.require(False, "law.pdf", None, allowed, instead)


def _survival(cdf: Callable[[Any], np.ndarray], x: Any) -> np.ndarray:
    return 1 - cdf(x)


@dataclasses.dataclass(frozen=True)
class Law:
    """A law on [−inf, inf): what a log-norm is predicted, or was seen, to follow.

    Those of the library are pickled as what they are made of, samples or tables, and come back with
    the same functions, bit for bit; one's own, if its functions are those of a module.

    Raises ``ValueError`` for a mean that is NaN or +inf, a variance that is negative or NaN, an
    atom that is not in [0, 1], and for fields that are not of their kind.
    """

    name: str  # shown in tables and legends
    # x -> P(X ≤ x), any shape; cdf(−inf) = atom
    cdf: Callable[[Any], np.ndarray] = dataclasses.field(repr=False)
    # q in [0, 1] -> smallest x with cdf(x) ≥ q
    quantile: Callable[[Any], np.ndarray] = dataclasses.field(repr=False)
    mean: float  # conditional on survival; −inf if nothing survives
    variance: float  # conditional on survival
    atom: float = 0.0  # P(X = −inf)
    # density of the part on the line, mass 1 − atom; where left out, no_density
    pdf: Callable[[Any], np.ndarray] | None = dataclasses.field(
        default=None, repr=False, compare=False
    )
    # sorted; only for an empirical law, whose cdf steps there
    samples: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)
    # P(X > x), to full relative accuracy; where left out, 1 − cdf
    sf: Callable[[Any], np.ndarray] | None = dataclasses.field(
        default=None, repr=False, compare=False
    )
    # the call that pickle repeats, of a constructor of this library
    made: tuple | None = dataclasses.field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self):
        checks.text("name", self.name)
        checks.function("cdf", self.cdf, "a function x -> P(X ≤ x)")
        checks.function("quantile", self.quantile, "a function q -> x")
        _number("mean", self.mean, "a number in [−inf, inf)", -math.inf, np.finfo(float).max)
        _number("variance", self.variance, "a number ≥ 0", 0, math.inf)
        _number("atom", self.atom, "a number in [0, 1]", 0, 1)
        if self.samples is not None:
            in_order = isinstance(self.samples, np.ndarray)
            in_order &= np.array_equal(self.samples, _samples("samples", self.samples))
            checks.require(in_order, "samples", self.samples, "a sorted NumPy array")
        # what was left out
        if self.pdf is None:
            object.__setattr__(self, "pdf", no_density)
        if self.sf is None:
            object.__setattr__(self, "sf", functools.partial(_survival, self.cdf))
        checks.function("pdf", self.pdf, "None, or a function x -> density")
        checks.function("sf", self.sf, "None, or a function x -> P(X > x)")

    def __reduce_ex__(self, protocol):
        return self.made or super().__reduce_ex__(protocol)


def _number(name: str, value: Any, allowed: str, low: float, high: float) -> None:
    """Require a number in [low, high], which may be infinite."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    checks.require(number and low <= value <= high, name, value, allowed)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What samples say about a law; see ``compare``."""

    distance: float  # KS distance of the samples to the law, atoms included
    p_value: float  # of the hypothesis: the true distance is at most the tolerance
    interval: tuple[float, float]  # confidence interval for the true distance
    needed: int  # number of samples that would bring its half-width down to the resolution
    verdict: str  # "pass", "fail" or "underpowered"


def normal(mean: float, variance: float) -> Law:
    """Return N(mean, variance); mean finite, variance finite and > 0, else ``ValueError``.

    >>> float(normal(-2.5, 5.0).cdf(-2.5))
    0.5
    """
    mean = float(checks.real("mean", mean, "a finite number"))
    variance = float(checks.real("variance", variance, "a finite number > 0"))
    checks.require(variance > 0, "variance", variance, "a finite number > 0")
    frozen = scipy.stats.norm(mean, math.sqrt(variance))
    name = f"N({mean:.4g}, {variance:.4g})"

    def quantile(q):
        return frozen.ppf(tables.levels(q))

    cdf, pdf, sf = (_of_numbers(function) for function in (frozen.cdf, frozen.pdf, frozen.sf))
    law = Law(name, cdf, quantile, mean, variance, 0.0, pdf, None, sf)
    return records.made_by(law, normal, mean, variance)


def _of_numbers(function: Callable) -> Callable:
    return lambda x: function(checks.on_host("x", x))


def tabulated(
    name: str,
    lower: tables.Curve,
    upper: tables.Curve,
    mean: float,
    variance: float,
    atom: float = 0.0,
    alive: float | None = None,
) -> Law:
    """Return a smooth law from its table; alive: P(X > −inf), default 1 − atom. See ``tables``."""
    checks.instance("lower", lower, tables.Curve)
    checks.instance("upper", upper, tables.Curve)
    alive = 1 - atom if alive is None else alive
    cdf, quantile, pdf, sf = tables.functions(lower, upper, atom, alive)
    law = Law(name, cdf, quantile, mean, variance, atom, pdf, None, sf)
    return records.made_by(law, tabulated, name, lower, upper, mean, variance, atom, alive)


def edgeworth(cumulants: Any, atom: float = 0.0) -> Law:
    """Return the normal law corrected for skewness and excess kurtosis: κ₁, …, κ₄, given survival.

    With z = (x − κ₁)/√κ₂, λ₃ = κ₃/κ₂^{3/2}, λ₄ = κ₄/κ₂² and Hermite polynomials He,

        F(x) = Φ(z) − φ(z) [λ₃ He₂(z)/6 + λ₄ He₃(z)/24 + λ₃² He₅(z)/72].

    Its error is that of the fifth cumulant: O(n⁻³) for a log_norm at fixed β (O(n⁻²) without κ₄),
    where that of the normal law with the same mean and variance is O(n⁻¹). The series is valid in
    the middle of the law, |z| well below 3/|λ₃|; further out its density would be negative. There,
    from where its hazard rate begins to fall, the tails are exponential, and a guess.

    cumulants: 2, 3 or 4 of them, finite, κ₂ > 0; those left out are 0. atom: in [0, 1). Raises
    ``ValueError`` for anything else, and where the series is not even valid for |z| ≤ 1: beyond
    about |λ₃| = 1 or λ₄ = 1.5, a little more if both are large. Source: Edgeworth (1905); Cramér,
    Mathematical Methods of Statistics, 17.7.

    >>> law = edgeworth([0.0, 1.0, -0.3, 0.1])
    >>> [round(float(law.cdf(x)), 6) for x in (-2, 0, 2)]
    [0.030084, 0.480053, 0.986113]
    """
    allowed = "2, 3 or 4 finite numbers, the second > 0"
    kappa = checks.on_host("cumulants", cumulants)
    checks.require(kappa.shape in ((2,), (3,), (4,)), "cumulants", cumulants, allowed)
    kappa = [float(checks.real("cumulants", k, allowed)) for k in kappa.tolist()]
    checks.require(kappa[1] > 1e-200, "cumulants", cumulants, allowed)
    atom = float(checks.real("atom", atom, "a number in [0, 1)"))
    checks.require(0 <= atom < 1, "atom", atom, "a number in [0, 1)")
    curves = (tables.Curve(*side) for side in edgeworths.tails(*kappa, *[0.0] * (4 - len(kappa))))
    return tabulated("Edgeworth", *curves, kappa[0], kappa[1], atom)


def empirical(log_norms: Any) -> Law:
    """Return the law of a sample (num_samples,); −inf is a value, NaN and +inf are refused.

    Mean and variance (divisor N − 1) are those of the finite values; with no finite value the mean
    is −inf, and with fewer than two the variance is 0.

    >>> law = empirical([0.0, 1.0, 3.0, float("-inf")])
    >>> law.atom, law.mean, float(law.cdf(0.5)), float(law.quantile(0.75))
    (0.25, 1.3333333333333333, 0.5, 1.0)
    """
    samples = _samples("log_norms", log_norms)
    count = len(samples)
    alive = samples[np.isfinite(samples)]
    mean = float(alive.mean()) if len(alive) else -math.inf
    variance = float(alive.var(ddof=1)) if len(alive) > 1 else 0.0

    def cdf(x):
        x = checks.on_host("x", x)
        return np.where(np.isnan(x), np.nan, np.searchsorted(samples, x, side="right") / count)[()]

    def quantile(q):
        q = tables.levels(q)
        rank = np.ceil(q * count - 1e-9).astype(int)
        return np.where(q > 0, samples[np.clip(rank, 1, count) - 1], -np.inf)[()]

    atom = (count - len(alive)) / count
    law = Law(f"{count} samples", cdf, quantile, mean, variance, atom, None, samples)
    return records.made_by(law, empirical, samples)


def _samples(name: str, values: Any) -> np.ndarray:
    """Return sorted float64 samples in [−inf, inf)."""
    samples = checks.on_host(name, values)
    checks.require(samples.ndim == 1, f"{name}.shape", samples.shape, "(num_samples,)")
    checks.require(len(samples) > 0, f"len({name})", len(samples), "≥ 1")
    samples = np.sort(samples)
    bad = np.isnan(samples) | (samples == np.inf)
    checks.require(not bad.any(), name, samples[bad][:3], "numbers in [−inf, inf)")
    return samples


def ks_distance(a: Law, b: Law) -> float:
    """Return sup_x |F_a(x) − F_b(x)| over [−inf, inf), atoms included.

    Exact to rounding if one law is empirical: then the supremum is at a step, or at −inf. For two
    smooth laws the largest differences on a grid of quantiles are refined to about 1e-12.

    >>> round(ks_distance(normal(0, 1), normal(1, 1)), 6)
    0.382925
    """
    for name, law in (("a", a), ("b", b)):
        checks.require(isinstance(law, Law), name, law, "a Law", "For samples take laws.empirical.")
    return distances.kolmogorov(a, b)


def compare(
    log_norms: Any,
    law: Law,
    tolerance: float = 0.0,
    *,
    confidence: float = 0.9999,
    resolution: float = 0.05,
) -> Comparison:
    """Test whether samples (num_samples,) follow a law, up to a KS distance of ``tolerance``.

    * fail: the interval for the true distance lies above the tolerance;
    * underpowered: it does not, but its half-width exceeds the resolution, so a departure of that
      size could hide; ``needed`` says how many samples would show it;
    * pass: otherwise.

    The half-width is the Kolmogorov quantile at the given confidence (for num_samples N about
    2.2/√N at 0.9999), valid for any law by the Dvoretzky–Kiefer–Wolfowitz–Massart inequality and
    conservative for laws with an atom. If the law is itself empirical, with M samples, N·M/(N + M)
    takes the place of N, which is right for large samples, and ``needed`` is the size of either.

    tolerance: in [0, 1), what theory allows an approximate law; 0 asks for equality in law.
    confidence: in [0.5, 1). resolution: in [1e-6, 1). Raises ``ValueError`` for anything else.

    >>> rng = np.random.default_rng(0)
    >>> compare(rng.normal(size=10_000), normal(0, 1)).verdict
    'pass'
    >>> compare(rng.normal(size=10_000), normal(0.2, 1)).verdict
    'fail'
    >>> compare(rng.normal(size=100), normal(0, 1)).verdict
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
    checks.require(isinstance(law, Law), "law", law, "a Law", "For samples take laws.empirical.")
    seen = empirical(log_norms)
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
