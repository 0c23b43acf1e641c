"""What a probe found: the law of a model's log-norm, layer by layer, and what to make
of it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

from lognorm_jax import laws
from lognorm_jax._tools import checks
from lognorm_jax.sampling import summaries

LIMIT = 0.05  # the share of samples that may change by more than the factor


@dataclasses.dataclass(frozen=True)
class Report:
    """Log-norms over fresh initialisations; ``str`` of it is a table. Errors are
    standard errors.

    Means and variances are of the samples that are alive; arrays are (depth,). They, β
    and ``log_norms`` are of the whole Jacobian; ``vanishing``, ``exploding`` and so the
    verdict leave out what fixed changes of shape do, such as pooling: see
    ``shapes.is_fixed``. Layers, or parts of them, that are fixed are named so.
    """

    names: tuple[str, ...]  # of the layers
    num_samples: int
    mean: float
    mean_error: float
    variance: float
    variance_error: float
    dead_mass: float
    dead_mass_error: float
    beta: float  # variance / 5: the β of a plain ReLU network that is as unstable
    beta_interval: tuple[float, float]  # 95%
    layer_mean: np.ndarray
    layer_mean_error: np.ndarray
    layer_variance: np.ndarray
    layer_variance_error: np.ndarray
    layer_dead_mass: np.ndarray  # dead by then
    factor: float
    # share of samples whose coordinates shrink by more than the factor, or die
    vanishing: float
    vanishing_interval: tuple[float, float]  # 95%, exact
    exploding: float  # share whose coordinates grow by more
    exploding_interval: tuple[float, float]
    log_norms: np.ndarray = dataclasses.field(repr=False)  # (num_samples,)
    # (num_samples,): ln of the mean square of a coordinate, without fixed changes of
    # shape
    judged: np.ndarray = dataclasses.field(repr=False)

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
        shares = {
            "vanishing": self.vanishing_interval,
            "exploding": self.exploding_interval,
        }
        sure = [name for name, (low, _) in shares.items() if low > LIMIT]
        unsure = [name for name, (low, high) in shares.items() if low <= LIMIT < high]
        words = [("erratic" if len(sure) == 2 else name) for name in sure[:1]]
        words += [
            f"borderline {'erratic' if len(unsure) == 2 else name}"
            for name in unsure[:1]
        ]
        return ", ".join(words) or "stable"

    @property
    def law(self) -> laws.Law:
        """The law of the log-norms that were seen, for ``laws.ks_distance``."""
        return laws.empirical(self.log_norms)

    def __str__(self) -> str:
        """Return the table of layers, the total and the verdict."""
        return "\n".join([*_table(self), _instability(self), _judgement(self)])


def report(
    increments: Any,
    names: Sequence[str],
    growth: float = 0.0,
    factor: float = 10.0,
    judged: Any = None,
) -> Report:
    """Return the report of sampled increments (num_samples, depth), −inf where dead.

    judged: (num_samples,), the log-norms that the verdict is about: those without fixed
    changes of shape; default all. growth: ln of how many times as many coordinates come
    out as go in, over the same layers. factor > 1. Raises ``ValueError`` for other
    values, and increments that are NaN.
    """
    increments = np.asarray(increments, np.float64)
    sampled = increments.ndim == 2 and len(increments) >= 1
    checks.require(
        sampled, "increments.shape", increments.shape, "(num_samples, depth)"
    )
    known = not np.any(np.isnan(increments) | (increments == np.inf))
    checks.require(
        known, "increments", increments, "finite numbers, or −inf where dead"
    )
    fits = isinstance(names, Sequence) and len(names) == increments.shape[1]
    checks.require(
        fits, "names", names, f"a sequence of {increments.shape[1]}, one a layer"
    )
    growth = float(checks.real("growth", growth, "a finite number"))
    factor = above_one(factor)
    # what is judged, and how often it changes by more than the factor
    log_norms = increments.sum(1)
    judged = log_norms if judged is None else np.asarray(judged, np.float64)
    checks.require(
        judged.shape == log_norms.shape, "judged.shape", judged.shape, "(num_samples,)"
    )
    judged = np.where(np.isneginf(log_norms), -np.inf, judged) - growth
    vanishing = np.sum(judged < -2 * np.log(factor))
    exploding = np.sum(judged > 2 * np.log(factor))
    moments = _moments(increments)
    low, high = summaries.variance_interval(log_norms[np.isfinite(log_norms)])
    return Report(
        names=tuple(names),
        num_samples=len(increments),
        **moments,
        beta=moments["variance"] / 5,
        beta_interval=(low / 5, high / 5),
        factor=factor,
        vanishing=float(vanishing / len(increments)),
        vanishing_interval=_share_interval(vanishing, len(increments)),
        exploding=float(exploding / len(increments)),
        exploding_interval=_share_interval(exploding, len(increments)),
        log_norms=log_norms,
        judged=judged,
    )


def above_one(factor: Any) -> float:
    """Return the factor by which a coordinate may change; ``ValueError`` unless it is >
    1.
    """
    allowed = "a number > 1"
    factor = float(checks.real("factor", factor, allowed))
    checks.require(factor > 1, "factor", factor, allowed)
    return factor


def _moments(increments: np.ndarray) -> dict[str, Any]:
    """Return the fields of a report that are moments: of all, and of each layer."""
    summary = summaries.summarise(summaries.moments(increments))
    found = {}
    for name, estimate in summary._asdict().items():
        found |= {name: estimate.value, f"{name}_error": estimate.error}
    of_layers = {f"layer_{name}": values[:-1] for name, values in found.items()}
    del of_layers["layer_dead_mass_error"]
    return {name: float(values[-1]) for name, values in found.items()} | of_layers


def _share_interval(count: int, total: int) -> tuple[float, float]:
    """Return the exact 95% interval of a probability (Clopper and Pearson, 1934)."""
    interval = scipy.stats.binomtest(int(count), total).proportion_ci(0.95, "exact")
    return float(interval.low), float(interval.high)


def _table(report: Report) -> list[str]:
    """Return the lines of the table: each layer, and all."""
    wide = max(len(name) for name in (*report.names, "layer", "all"))
    rows = zip(
        (*report.names, "all"),
        (*report.layer_mean, report.mean),
        (*report.layer_mean_error, report.mean_error),
        (*report.layer_variance, report.variance),
        (*report.layer_variance_error, report.variance_error),
        (*report.layer_dead_mass, report.dead_mass),
        strict=True,
    )
    lines = [f"{'layer':{wide}}  mean of ln R       variance of ln R   dead"]
    for name, mean, mean_error, variance, variance_error, dead in rows:
        lines.append(
            f"{name:{wide}}  {mean:8.3f} ± {mean_error:<7.2g} "
            f"{variance:8.3f} ± {variance_error:<7.2g} {dead:.3g}"
        )
    return lines


def _instability(report: Report) -> str:
    if report.dead_mass == 1:
        return "No sample got through: is the input zero, or a layer always off?"
    low, high = report.beta_interval
    return f"As unstable as a ReLU network of β = {report.beta:.3g} [{low:.3g}, {high:.3g}]."


def _judgement(report: Report) -> str:
    shares = [
        f"{share:.1%} [{low:.1%}, {high:.1%}] {verb}"
        for verb, share, (low, high) in (
            ("shrink", report.vanishing, report.vanishing_interval),
            ("grow", report.exploding, report.exploding_interval),
        )
    ]
    text = f"{report.verdict}: of {report.num_samples} samples {' and '.join(shares)} by more than "
    text += f"a factor {report.factor:g} a coordinate"
    return text + (", not counting what is (fixed)." if _leaves_out(report) else ".")


def _leaves_out(report: Report) -> bool:
    """Return whether some layers are named as fixed."""
    return any("(fixed)" in name for name in report.names)
