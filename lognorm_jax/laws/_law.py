"""The record of a law, and the laws that are made of numbers, samples or tables."""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from jax.typing import ArrayLike
from scipy import special

from lognorm_jax._tools import checks, records
from lognorm_jax.laws import _table

# numbers of any shape -> numbers of that shape
Function = Callable[[Any], np.ndarray]


def no_density(x: object) -> NoReturn:
    """Stand for the pdf of a law whose density is not known.

    Raises:
        ValueError: always.
    """
    del x
    allowed = (
        "the density of a smooth law, where this law is one of samples, or was given "
        "without"
    )
    instead = (
        "Take law.cdf, a histogram of law.samples, or "
        "laws.normal(law.mean, law.variance)."
    )
    checks.refuse("law.pdf", None, allowed, instead)


def _survival(cdf: Function, x: Any) -> np.ndarray:
    return 1 - cdf(x)


@dataclasses.dataclass(frozen=True)
class Law:
    """A law on [−inf, inf): what a log-norm is predicted, or was seen, to follow.

    Those of the library are pickled as what they are made of, samples or tables, and
    come back with the same functions, bit for bit; one's own, if its functions are
    those of a module.

    Attributes:
        name: shown in tables and legends.
        cdf: x -> P(X ≤ x), any shape; cdf(−inf) = atom.
        quantile: q in [0, 1] -> smallest x with cdf(x) ≥ q, any shape.
        mean: conditional on survival; −inf if nothing survives.
        variance: conditional on survival, ≥ 0.
        atom: P(X = −inf), in [0, 1].
        pdf: x -> density of the part on the line, mass 1 − atom; where left out, it
            refuses every x.
        samples: (num_samples,), sorted; only for an empirical law, whose cdf steps
            there.
        sf: x -> P(X > x), to full relative accuracy; where left out, 1 − cdf.
        made: the call that pickle repeats, of a constructor of this library.

    Raises:
        ValueError: for a mean that is NaN or +inf, a variance that is negative or NaN,
            an atom that is not in [0, 1], and for fields that are not of their kind.
    """

    name: str
    cdf: Function = dataclasses.field(repr=False)
    quantile: Function = dataclasses.field(repr=False)
    mean: float
    variance: float
    atom: float = 0.0
    pdf: Function = dataclasses.field(default=no_density, repr=False, compare=False)
    samples: np.ndarray | None = dataclasses.field(
        default=None, compare=False, repr=False
    )
    sf: Function | None = dataclasses.field(default=None, repr=False, compare=False)
    made: tuple | None = dataclasses.field(
        default=None, init=False, compare=False, repr=False
    )

    def __post_init__(self):
        checks.text("name", self.name)
        checks.function("cdf", self.cdf, "a function x -> P(X ≤ x)")
        checks.function("quantile", self.quantile, "a function q -> x")
        largest = np.finfo(float).max
        _in_range("mean", self.mean, "a number in [−inf, inf)", -math.inf, largest)
        _in_range("variance", self.variance, "a number ≥ 0", 0, math.inf)
        _in_range("atom", self.atom, "a number in [0, 1]", 0, 1)
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

    __reduce_ex__ = records.as_call


def _in_range(name: str, value: Any, allowed: str, low: float, high: float) -> None:
    """Require a number in [low, high], which may be infinite."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    checks.require(number and low <= value <= high, name, value, allowed)


def normal(mean: float, variance: float) -> Law:
    """Return the normal law N(mean, variance).

    Args:
        mean: finite.
        variance: finite and > 0.

    Returns:
        The law, without an atom.

    Raises:
        ValueError: for other numbers.

    >>> float(normal(-2.5, 5.0).cdf(-2.5))
    0.5
    """
    mean = checks.number("mean", mean, "(-inf, inf)")
    variance = checks.number("variance", variance, "(0, inf)")
    sd = math.sqrt(variance)

    def cdf(x):
        return special.ndtr((x - mean) / sd)

    def sf(x):
        return special.ndtr((mean - x) / sd)

    def pdf(x):
        z = (x - mean) / sd
        with np.errstate(over="ignore"):
            return np.exp(-(z**2) / 2) / (sd * math.sqrt(2 * math.pi))

    def quantile(q):
        return mean + sd * special.ndtri(_table.levels(q))

    law = Law(
        name=f"N({mean:.4g}, {variance:.4g})",
        cdf=_of_numbers(cdf),
        quantile=quantile,
        mean=mean,
        variance=variance,
        pdf=_of_numbers(pdf),
        sf=_of_numbers(sf),
    )
    return records.made_by(law, normal, mean, variance)


def _of_numbers(function: Callable) -> Function:
    return lambda x: function(checks.on_host("x", x))


def tabulated(
    name: str,
    lower: _table.Curve,
    upper: _table.Curve,
    mean: float,
    variance: float,
    atom: float = 0.0,
    alive: float | None = None,
) -> Law:
    """Return a smooth law from a table of the logarithms of both tails.

    Args:
        name: of the law.
        lower: ln P(X ≤ x | alive), up to a split point within ``upper``.
        upper: ln P(X > x | alive).
        mean: given survival.
        variance: given survival, ≥ 0.
        atom: P(X = −inf), in [0, 1].
        alive: P(X > −inf), which may be too small for 1 − atom; default that.

    Returns:
        The law. Beyond the tables the logarithms of its tails are straight lines.

    Raises:
        ValueError: where an argument is not of its kind.
    """
    checks.instance("lower", lower, _table.Curve)
    checks.instance("upper", upper, _table.Curve)
    alive = 1 - atom if alive is None else alive
    functions = _table.functions(lower, upper, atom, alive)
    law = Law(name=name, mean=mean, variance=variance, atom=atom, **functions._asdict())
    return records.made_by(
        law, tabulated, name, lower, upper, mean, variance, atom, alive
    )


def empirical(log_norms: ArrayLike) -> Law:
    """Return the law of a sample; −inf is a value, NaN and +inf are refused.

    Mean and variance (divisor N − 1) are those of the finite values; with no finite
    value the mean is −inf, and with fewer than two the variance is 0.

    Args:
        log_norms: (num_samples,), in any order.

    Returns:
        The law, whose cdf has steps and which has no density.

    Raises:
        ValueError: for NaN, +inf, another shape, and no sample at all.

    >>> law = empirical([0.0, 1.0, 3.0, float("-inf")])
    >>> law.atom, law.mean, float(law.cdf(0.5)), float(law.quantile(0.75))
    (0.25, 1.3333333333333333, 0.5, 1.0)
    """
    samples = _samples("log_norms", log_norms)
    count = len(samples)
    alive = samples[np.isfinite(samples)]

    def cdf(x):
        x = checks.on_host("x", x)
        below = np.searchsorted(samples, x, side="right")
        return np.where(np.isnan(x), np.nan, below / count)[()]

    def quantile(q):
        q = _table.levels(q)
        rank = np.ceil(q * count - 1e-9).astype(int)
        return np.where(q > 0, samples[np.clip(rank, 1, count) - 1], -np.inf)[()]

    law = Law(
        name=f"{count} samples",
        cdf=cdf,
        quantile=quantile,
        mean=float(alive.mean()) if len(alive) else -math.inf,
        variance=float(alive.var(ddof=1)) if len(alive) > 1 else 0.0,
        atom=(count - len(alive)) / count,
        samples=samples,
    )
    return records.made_by(law, empirical, samples)


def _samples(name: str, values: object) -> np.ndarray:
    """Return sorted float64 samples in [−inf, inf)."""
    samples = checks.on_host(name, values)
    checks.require(samples.ndim == 1, f"{name}.shape", samples.shape, "(num_samples,)")
    checks.require(len(samples) > 0, f"len({name})", len(samples), "≥ 1")
    samples = np.sort(samples)
    bad = np.isnan(samples) | (samples == np.inf)
    checks.require(not bad.any(), name, samples[bad][:3], "numbers in [−inf, inf)")
    return samples
