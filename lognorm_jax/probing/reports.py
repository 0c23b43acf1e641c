"""What a probe found: log-norms layer by layer, and whether they vanish or explode."""

import dataclasses
import html
import math
import operator
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import scipy
from jax.typing import ArrayLike

from lognorm_jax import laws
from lognorm_jax._tools import checks
from lognorm_jax.sampling import summaries

__all__ = ["LIMIT", "RELU_VARIANCE", "IntervalEstimate", "Report", "report"]

LIMIT = 0.05  # the share of samples that may change by more than the factor
RELU_VARIANCE = 5  # variance of the log-norm of a ReLU network, over its β


class IntervalEstimate(NamedTuple):
    """A Monte Carlo number with its 95% confidence interval.

    Attributes:
        value: the number.
        interval: (low, high), the ends.

    >>> f"{IntervalEstimate(0.02, (0.01, 0.04)):.1%}"
    '2.0% [1.0%, 4.0%]'
    """

    value: float
    interval: tuple[float, float]

    def __format__(self, spec: str) -> str:
        """Return the number and its interval, each in the format of a float.

        Args:
            spec: of a float, such as ".1%".

        Returns:
            Such as "2.0% [1.0%, 4.0%]".

        Raises:
            ValueError: for what is no format of a float.
        """
        low, high = self.interval
        return f"{self.value:{spec}} [{low:{spec}}, {high:{spec}}]"


@dataclasses.dataclass(frozen=True)
class Report:
    """Log-norms over fresh initialisations; ``str`` of it is a table.

    Moments, β and ``log_norms`` are of the whole Jacobian; ``vanishing``, ``exploding``
    and so the verdict leave out fixed changes of shape, such as pooling: see
    ``probes.is_fixed``. Layers, or parts of them, that are fixed are named so.

    ``report.mean.value`` and ``report.mean.error`` are the mean of the log-norms and
    its standard error; ``report.layers.mean.value`` are those of the layers.

    Attributes:
        names: of the layers, (depth,).
        total: mean and variance of the log-norms that are alive, and the share of the
            others.
        layers: the same of ln R of each layer: arrays (depth,).
        beta: β of a plain ReLU network that is as unstable: the variance over 5.
        factor: > 1, by how much the root mean square of a coordinate may change.
        vanishing: share of samples whose coordinates shrink by more than the factor, or
            die.
        exploding: share of samples whose coordinates grow by more.
        log_norms: of all samples, (num_samples,), −inf where dead.
        judged: ln of by how much the mean square of a coordinate changes, as the
            verdict takes it, (num_samples,).
    """

    names: tuple[str, ...]
    total: summaries.Summary
    layers: summaries.Summary
    beta: IntervalEstimate
    factor: float
    vanishing: IntervalEstimate
    exploding: IntervalEstimate
    log_norms: np.ndarray = dataclasses.field(repr=False)  # (num_samples,)
    judged: np.ndarray = dataclasses.field(repr=False)  # (num_samples,)

    @property
    def num_samples(self) -> int:
        """The number of initialisations."""
        return len(self.log_norms)

    @property
    def mean(self) -> summaries.Estimate:
        """The mean of the log-norms that are alive, with its standard error."""
        return self.total.mean

    @property
    def variance(self) -> summaries.Estimate:
        """The variance of the log-norms that are alive, with its standard error."""
        return self.total.variance

    @property
    def dead_mass(self) -> summaries.Estimate:
        """The share of dead log-norms, with its standard error."""
        return self.total.dead_mass

    @property
    def verdict(self) -> str:
        """Return "stable", "vanishing", "exploding" or, for both, "erratic".

        Stable: at most 5% of all samples there could be change the root mean square of
        a coordinate by more than the factor, up or down; the others say where more than
        5% go. Where the 95% interval of a share straddles 5%, that is open, and called
        "borderline vanishing", "borderline exploding" or "borderline erratic"; or
        "vanishing, borderline exploding" and "exploding, borderline vanishing". More
        samples decide it.
        """
        sure = []
        unsure = []
        for name in ("vanishing", "exploding"):
            low, high = getattr(self, name).interval
            if low > LIMIT:
                sure.append(name)
            elif high > LIMIT:
                unsure.append(name)

        words = []
        if sure:
            words.append(_one_word(sure))
        if unsure:
            words.append(f"borderline {_one_word(unsure)}")
        return ", ".join(words) or "stable"

    @property
    def law(self) -> laws.Law:
        """The law of the log-norms that were seen, for ``laws.ks_distance``."""
        return laws.empirical(self.log_norms)

    def __str__(self) -> str:
        """Return the table of layers, the total and the verdict."""
        return "\n".join([*_table(self), _instability(self), _judgement(self)])

    def _repr_html_(self) -> str:
        """Return it for a notebook: the verdict first."""
        colour = "#1b7f3b" if self.verdict == "stable" else "#b00020"
        *table, judged = map(html.escape, str(self).splitlines())
        return (
            f'<div style="border-left:4px solid {colour};padding-left:1em">'
            f"<b>{judged}</b><pre>{chr(10).join(table)}</pre></div>"
        )


def report(
    increments: ArrayLike,
    names: Sequence[str],
    growth: float = 0.0,
    factor: float = 10.0,
    judged: ArrayLike | None = None,
) -> Report:
    """Return the report of sampled increments.

    Args:
        increments: (num_samples, depth), −inf where dead.
        names: of the layers, one a layer.
        growth: finite, ln of how many times as many coordinates come out as go in, over
            the layers that are judged.
        factor: > 1, by how much the root mean square of a coordinate may change.
        judged: (num_samples,), the log-norms that the verdict is about: those without
            fixed changes of shape; default all.

    Returns:
        The ``Report``; printed, it is a table.

    Raises:
        ValueError: for arguments of another shape or range, and increments that are NaN
            or +inf.

    Source:
        β is the variance over 5, by theory section 1, with the interval of
        ``summaries.variance_interval``; shares have the exact interval of Clopper and
        Pearson, Biometrika 26 (1934) 404–413, see theory section 18. Held against the
        binomial law in tests/test_reports.py.

    >>> print(report(np.zeros((100, 1)), ["identity"]).verdict)
    stable
    """
    increments = _checked(increments, names)
    growth = checks.number("growth", growth, "(-inf, inf)")
    factor = checks.number("factor", factor, "(1, inf)")
    log_norms = increments.sum(1)
    judged = log_norms if judged is None else np.asarray(judged, np.float64)
    alike = judged.shape == log_norms.shape
    checks.require(alike, "judged.shape", judged.shape, "(num_samples,)")
    checks.require(not np.isnan(judged).any(), "judged", judged, "numbers without NaN")

    # what dies in a fixed change of shape is dead too
    judged = np.where(np.isneginf(log_norms), -np.inf, judged) - growth
    limit = 2 * math.log(factor)
    total = summaries.estimate(log_norms)
    low, high = summaries.variance_interval(log_norms[np.isfinite(log_norms)])
    return Report(
        names=tuple(names),
        total=total,
        layers=summaries.estimate(increments),
        beta=IntervalEstimate(
            total.variance.value / RELU_VARIANCE,
            (low / RELU_VARIANCE, high / RELU_VARIANCE),
        ),
        factor=factor,
        vanishing=_share(judged < -limit),
        exploding=_share(judged > limit),
        log_norms=log_norms,
        judged=judged,
    )


def _checked(increments: ArrayLike, names: Sequence[str]) -> np.ndarray:
    """Return increments (num_samples, depth), with a name for each layer."""
    values = np.asarray(increments, np.float64)
    sampled = values.ndim == 2 and len(values) >= 1
    shape = values.shape
    checks.require(sampled, "increments.shape", shape, "(num_samples, depth)")

    known = not np.any(np.isnan(values) | (values == np.inf))
    allowed = "finite numbers, or −inf where dead"
    checks.require(known, "increments", increments, allowed)

    fits = isinstance(names, Sequence) and len(names) == shape[1]
    allowed = f"a sequence of {shape[1]}, one per layer"
    checks.require(fits, "names", names, allowed)
    return values


def _share(counted: np.ndarray) -> IntervalEstimate:
    """Return a share with its exact interval (Clopper and Pearson, 1934)."""
    test = scipy.stats.binomtest(int(counted.sum()), len(counted))
    interval = test.proportion_ci(0.95, "exact")
    bounds = (float(interval.low), float(interval.high))
    return IntervalEstimate(float(counted.mean()), bounds)


def _one_word(verdicts: Sequence[str]) -> str:
    """Return the word for one or both of vanishing and exploding."""
    return "erratic" if len(verdicts) == 2 else verdicts[0]


def _table(report: Report) -> Iterable[str]:
    """Yield the lines of the table: each layer, and all."""
    wide = max(len(name) for name in (*report.names, "layer", "all"))
    yield f"{'layer':{wide}}  mean of ln R       variance of ln R   dead"
    for i, name in enumerate(report.names):
        layer = jax.tree.map(operator.itemgetter(i), report.layers)
        yield f"{name:{wide}}  {_row(layer)}"
    yield f"{'all':{wide}}  {_row(report.total)}"


def _row(summary: summaries.Summary) -> str:
    """Return mean, variance and dead mass as a row of the table."""
    cells = [f"{_short(x.value):>8} ± {x.error:<7.2g}" for x in summary[:2]]
    return f"{' '.join(cells)} {summary.dead_mass.value:.3g}"


def _short(value: float) -> str:
    """Return a number with three decimals, or two digits where it is smaller."""
    small = 0 < abs(value) < 0.01
    return f"{value:.2g}" if small else f"{value:.3f}"


def _instability(report: Report) -> str:
    """Return the sentence about β."""
    if report.dead_mass.value == 1:
        return "No sample got through: is the input zero, or a layer always off?"
    return f"As unstable as a ReLU network of β = {report.beta:.3g}."


def _judgement(report: Report) -> str:
    """Return the verdict and the shares that it follows from."""
    fixed = any("(fixed)" in name for name in report.names)
    ending = ", not counting what is (fixed)." if fixed else "."
    return (
        f"{report.verdict}: of {report.num_samples} samples "
        f"{report.vanishing:.1%} shrink and {report.exploding:.1%} grow "
        f"by more than a factor {report.factor:g} a coordinate{ending}"
    )
