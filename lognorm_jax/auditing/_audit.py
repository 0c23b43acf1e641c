"""What an audit found: parameters against their declaration, and what blocks do to
norms.
"""

import dataclasses
import functools
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from lognorm_jax._tools import checks
from lognorm_jax.auditing import _findings, _listing, declarations
from lognorm_jax.auditing._parameters import Measured
from lognorm_jax.probing import reports as probing
from lognorm_jax.probing.reports import IntervalEstimate, Report

ENOUGH = 100  # samples, below which shares are those of a normal law
# what the reports are called
KINDS = {
    "activations": "forward, activations",
    "jvp": "forward, tangents",
    "vjp": "backward, gradients",
}


@dataclasses.dataclass(frozen=True)
class Audit:
    """Parameters, findings and reports; ``str`` of it is all of them as text."""

    name: str
    num_seeds: int
    parameters: tuple[Measured, ...] = dataclasses.field(repr=False)
    declaration: declarations.Declaration = dataclasses.field(repr=False)
    findings: tuple[_findings.Finding, ...]
    # by kind: "activations", "jvp", "vjp"; none where blocks or inputs were not given
    reports: Mapping[str, Report] = dataclasses.field(repr=False)

    @property
    def stable(self) -> bool:
        """Whether no report says that norms surely vanish or explode.

        "borderline" is not sure.
        """
        sure = [
            word
            for report in self.reports.values()
            for word in report.verdict.split(", ")
            if word != "stable" and not word.startswith("borderline")
        ]
        return not sure

    def exit_code(self, require_stable: bool = False) -> int:
        """Return 0, or 1 for a finding; and for what is not stable, if required."""
        return int(bool(self.findings) or (require_stable and not self.stable))

    def __str__(self) -> str:
        """Return the tables, the findings and the verdict."""
        lines = [f"{self.name}: {len(self.parameters)} parameters, {self._seeds()}", ""]
        lines += _parameter_lines(self)
        for kind, report in self.reports.items():
            lines += ["", KINDS[kind], *_report_lines(report)]
        lines += ["", *self.verdict_lines()]
        return "\n".join(lines)

    def verdict_lines(self) -> list[str]:
        """Return the findings, and whether it is stable, as lines."""
        found = [f"FINDING {finding}" for finding in self.findings]
        if not found:
            undeclared = "" if self.declaration else "; nothing was declared"
            found = [f"No finding about the initialisation{undeclared}."]
        unused = declarations.unused(
            self.declaration, [one.name for one in self.parameters]
        )
        if unused:
            found.append(f"Declared, and not there: {', '.join(unused)}.")
        for kind, report in self.reports.items():
            found.append(f"{KINDS[kind]}: {_judged(report)}")
        return found

    def listing(self) -> str:
        """Return the modules as a tree, with sd and ln R beside each."""
        return "\n".join(_listing.lines(self.parameters, self.reports))

    def _seeds(self) -> str:
        return f"{self.num_seeds} fresh initialisations"

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "name": self.name,
            "num_seeds": self.num_seeds,
            "findings": [finding.as_dict() for finding in self.findings],
            "stable": self.stable,
            "parameters": [_as_dict(one, self.declaration) for one in self.parameters],
            "reports": {
                kind: _report_dict(report) for kind, report in self.reports.items()
            },
        }

    def _repr_html_(self) -> str:
        """Return it for a notebook: findings first, tables folded."""
        colour = "#b00020" if self.findings else "#1b7f3b"
        items = "".join(
            f"<li>{html.escape(line)}</li>" for line in self.verdict_lines()
        )
        tables = [("parameters", _parameter_lines(self))]
        tables += [
            (KINDS[kind], _report_lines(report))
            for kind, report in self.reports.items()
        ]
        folded = "".join(
            f"<details><summary>{html.escape(title)}</summary><pre>"
            f"{html.escape(chr(10).join(lines))}</pre></details>"
            for title, lines in tables
        )
        title = html.escape(f"{self.name}, {self._seeds()}")
        return (
            f'<div style="border-left:4px solid {colour};padding-left:1em">'
            f"<b>{title}</b><ul>{items}</ul>{folded}</div>"
        )


def audited(
    name: str,
    num_seeds: int,
    parameters: Sequence[Measured],
    declaration: declarations.Declaration,
    found_reports: Mapping[str, Report],
) -> Audit:
    """Return the audit of measured parameters and reports.

    Raises:
        ValueError: for a declaration of which no pattern fits any parameter.
    """
    unused = declarations.unused(declaration, [one.name for one in parameters])
    names = ", ".join(one.name for one in parameters[:8])
    allowed = f"patterns of which one fits a parameter, such as {names}"
    none = bool(declaration) and len(unused) == len(declaration)
    checks.require(not none, "declaration", list(declaration), allowed)
    return Audit(
        name,
        num_seeds,
        tuple(parameters),
        declaration,
        tuple(_findings.found(parameters, declaration)),
        dict(found_reports),
    )


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
    counted = probing.report(increments, names, growth, factor)
    alive = counted.judged[np.isfinite(counted.judged)]
    few = len(counted.judged) < ENOUGH and len(alive) == len(counted.judged) > 2
    if not few or float(np.std(alive)) == 0:
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


def normal_share(samples: np.ndarray, limit: float) -> IntervalEstimate:
    """Return P(X < limit) of the normal law that samples follow, with its interval.

    >>> share = normal_share(np.array([-1.0, 0.0, 1.0]), 0.0)
    >>> round(share.value, 3), share.interval[0] < 0.2, share.interval[1] > 0.8
    (0.5, True, True)
    """
    n = len(samples)
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


def _parameter_lines(audit: Audit) -> list[str]:
    """Return the table of parameters, those that are alike in one row."""
    groups: dict[tuple, list[Measured]] = {}
    for one in audit.parameters:
        declared = declarations.of_name(audit.declaration, one.name)
        told = "" if declared is None else declared.told(one.fans)
        kind = _findings.pattern_of(one.name), one.shape, one.constant, told
        groups.setdefault(kind, []).append(one)

    rows = [("parameter", "shape", "mean", "sd", "declared")]
    for (_, sides, constant, told), alike in groups.items():
        name = _findings.pattern([one.name for one in alike])
        name = " = ".join([name, *alike[0].tied])
        shape = "×".join(map(str, sides)) or "one"
        if constant:
            values = [one.low[0] for one in alike]
            cells = _range(values, "{:.4g}"), "constant"
        else:
            means = _range([one.pooled_mean for one in alike], "{:.1e}")
            cells = means, _range([one.pooled_std for one in alike], "{:.4g}")
        rows.append((name, shape, *cells, told))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _range(values: Sequence[float], form: str) -> str:
    """Return the smallest and the largest of some numbers, or the one that all are."""
    ends = form.format(min(values)), form.format(max(values))
    return ends[0] if ends[0] == ends[1] else "…".join(ends)


def _report_lines(report: Report) -> list[str]:
    """Return the table of blocks; sentences are told with the verdict."""
    return str(report).splitlines()[:-1]


def _judged(report: Report) -> str:
    """Return the verdict on one report."""
    how = "" if report.num_samples >= ENOUGH else ", by a normal law"
    return (
        f"{report.verdict}; {report.vanishing:.1%} shrink and {report.exploding:.1%} "
        f"grow by more than a factor {report.factor:g}{how}."
    )


def _as_dict(one: Measured, declaration: declarations.Declaration) -> dict[str, Any]:
    """Return one parameter as JSON can hold it."""
    declared = declarations.of_name(declaration, one.name)
    return {
        "name": one.name,
        "tied": list(one.tied),
        "shape": list(one.shape),
        "trained": one.trained,
        "constant": one.constant,
        "mean": _finite(one.pooled_mean),
        "sd": _finite(one.pooled_std),
        "declared": None if declared is None else declared.told(one.fans),
    }


def _report_dict(report: Report) -> dict[str, Any]:
    """Return one report as JSON can hold it."""
    estimates = zip(
        report.names,
        np.atleast_1d(report.layers.mean.value),
        np.atleast_1d(report.layers.mean.error),
        np.atleast_1d(report.layers.variance.value),
        strict=True,
    )
    return {
        "verdict": report.verdict,
        "mean": _finite(report.mean.value),
        "mean_error": _finite(report.mean.error),
        "variance": _finite(report.variance.value),
        "variance_error": _finite(report.variance.error),
        "dead": float(report.dead_mass.value),
        "beta": _finite(report.beta.value),
        "beta_interval": list(map(_finite, report.beta.interval)),
        "vanishing": report.vanishing.value,
        "vanishing_interval": list(report.vanishing.interval),
        "exploding": report.exploding.value,
        "exploding_interval": list(report.exploding.interval),
        "layers": [
            {
                "name": name,
                "mean": _finite(mean),
                "mean_error": _finite(error),
                "variance": _finite(variance),
            }
            for name, mean, error, variance in estimates
        ],
    }


def _finite(value: Any) -> float | None:
    """Return a number, or None for what JSON cannot hold."""
    return float(value) if np.isfinite(value) else None


def named(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of blocks, checked."""
    names = tuple(names)
    for i, name in enumerate(names):
        checks.text(f"blocks[{i}]", name)
    return names
