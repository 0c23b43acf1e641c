"""What an audit found: parameters against their declaration, and what blocks do to
norms.
"""

import dataclasses
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lognorm_jax._tools import checks, tables
from lognorm_jax.auditing import _findings, _listing, _stability, declarations
from lognorm_jax.auditing._parameters import Measured
from lognorm_jax.probing.reports import Report

# what the reports are called
KINDS = {
    "activations": "forward, activations",
    "jvp": "forward, tangents",
    "vjp": "backward, gradients",
}


@dataclasses.dataclass(frozen=True)
class Audit:
    """Parameters, findings and reports; ``str`` of it is all of them as text.

    Attributes:
        name: of the model, in print.
        num_seeds: how many initialisations parameters were measured over.
        parameters: what was measured of each.
        declaration: what they were declared to be; empty if nothing was.
        findings: what is wrong, each with its likely cause; empty if nothing is.
        reports: what blocks do to norms, by kind: "activations", "jvp", "vjp"; empty
            where blocks or inputs were not given.
    """

    name: str
    num_seeds: int
    parameters: tuple[Measured, ...] = dataclasses.field(repr=False)
    declaration: declarations.Declaration = dataclasses.field(repr=False)
    findings: tuple[_findings.Finding, ...]
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
        """Return 0, or 1 for a finding; and for what is not stable, if required.

        What was not followed is not known to be stable.

        Args:
            require_stable: whether what is not stable counts, too.

        Returns:
            0 or 1.
        """
        known = bool(self.reports) and self.stable
        return int(bool(self.findings) or (require_stable and not known))

    def __str__(self) -> str:
        """Return the tables, the findings and the verdict."""
        lines = [f"{self.name}: {len(self.parameters)} parameters, {self._seeds()}", ""]
        lines += _parameter_lines(self)
        for kind, report in self.reports.items():
            lines += ["", KINDS[kind], *_report_lines(report)]
        lines += ["", *self.verdict_lines()]
        return "\n".join(lines)

    def verdict_lines(self) -> list[str]:
        """Return the findings, and whether it is stable, as lines.

        Returns:
            Sentences, at least one.
        """
        found = [f"FINDING {finding}" for finding in self.findings]
        if not found:
            undeclared = "" if self.declaration else "; nothing was declared"
            found = [f"No finding about the initialisation{undeclared}."]
        silent = [one for one in self.parameters if self._silent(one)]
        if self.declaration and silent:
            names = _findings.pattern([one.name for one in silent])
            total = len(self.parameters)
            found.append(f"Not declared: {len(silent)} of {total}, such as {names}.")
        for kind, report in self.reports.items():
            found.append(f"{KINDS[kind]}: {_judged(report)}")
        return found

    def listing(self) -> str:
        """Return the modules as a tree, with sd and ln R beside each.

        Returns:
            The text, of several lines.
        """
        return "\n".join(_listing.lines(self.parameters, self.reports))

    def _silent(self, one: Measured) -> bool:
        """Return whether nothing is declared of a parameter that is trained."""
        declared = declarations.of_name(self.declaration, one.name, one.layer)
        said = declared is not None and declared.std(one.fans) is not None
        return one.trained and not said

    def _seeds(self) -> str:
        return f"{self.num_seeds} fresh initialisations"

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold.

        Returns:
            Name, num_seeds, findings, whether it is stable, parameters and reports;
            numbers that are not finite are None.
        """
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
        ValueError: for a model without parameters; and for a declaration, if it is not
            a ready one, of which a pattern fits none, or that is by fans that are not
            known.
    """
    some = bool(parameters)
    checks.require(some, name, "no parameters", "a model with arrays of floats")
    unused = declarations.unused(
        declaration, [(one.name, one.layer) for one in parameters]
    )
    unchecked = declarations.unchecked(
        declaration, [(one.name, one.layer, one.fans) for one in parameters]
    )
    # of ready declarations most are of other layers
    own = not isinstance(declaration, declarations.Ready)
    bad = unused if own else unused[: len(unused) == len(declaration) > 0]
    names = ", ".join(one.name for one in parameters[:8])
    allowed = f"patterns that fit parameters, such as {names}"
    checks.require(not bad, "declaration", bad, allowed)
    allowed = "in layers of a kernel, weight or w: otherwise declare its sd, normal:0.1"
    known = not (own and unchecked)
    checks.require(known, "declared by fans", unchecked, allowed)
    return Audit(
        name,
        num_seeds,
        tuple(parameters),
        declaration,
        tuple(_findings.found(parameters, declaration)),
        dict(found_reports),
    )


def _parameter_lines(audit: Audit) -> list[str]:
    """Return the table of parameters, those that are alike in one row."""
    groups: dict[tuple, list[Measured]] = {}
    for one in audit.parameters:
        declared = declarations.of_name(audit.declaration, one.name, one.layer)
        told = "" if declared is None else declared.told(one.fans)
        alike_in = one.shape, one.constant, one.finite
        kind = _findings.pattern_of(one.name), *alike_in, told
        groups.setdefault(kind, []).append(one)

    rows = [("parameter", "shape", "mean", "sd", "declared")]
    for (_, sides, constant, _, told), alike in groups.items():
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
    return tables.columns(rows)


def _range(values: Sequence[float], form: str) -> str:
    """Return the smallest and the largest of some numbers, or the one that all are."""
    ends = form.format(min(values)), form.format(max(values))
    return ends[0] if ends[0] == ends[1] else "…".join(ends)


def _report_lines(report: Report) -> list[str]:
    """Return the table of blocks; sentences are told with the verdict."""
    return str(report).splitlines()[:-1]


def _judged(report: Report) -> str:
    """Return the verdict on one report."""
    how = ", by a normal law" if _stability.few(report.log_norms) else ""
    return (
        f"{report.verdict}; {report.vanishing:.1%} shrink and {report.exploding:.1%} "
        f"grow by more than a factor {report.factor:g}{how}."
    )


def _as_dict(one: Measured, declaration: declarations.Declaration) -> dict[str, Any]:
    """Return one parameter as JSON can hold it."""
    declared = declarations.of_name(declaration, one.name, one.layer)
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
