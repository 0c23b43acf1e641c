"""Rows of an experiment's table: a measured number, its error, what was expected, a
verdict.
"""

import math
from typing import NamedTuple

import numpy as np

from lognorm_jax import laws

# a Monte Carlo number passes within this many standard errors of what is expected
SIGMAS = 5
SEEN = 0.2  # the relative error of a term that a row about it must be able to see

LEGEND = """\
A cell reads: measured ± standard error (expected ± allowance), and passes within 5
standard errors and the allowance; or KS distance [its 99.99% interval] (allowed), and
passes unless the interval lies above what is allowed; or number ≤ bound; or number [its
95% interval] > bound or ± bound, and passes if all of the interval is above or between.
✗ marks what fails; ~ what is only shown, since an error of a fifth of the very term
would not be seen.
"""


class Row(NamedTuple):
    """One quantity of one case."""

    case: str
    quantity: str
    measured: float
    error: float | None = None  # standard error of measured
    expected: float | None = None
    # how far theory itself says that measured may be from expected
    allowance: float = 0.0
    # confidence interval, where not ± error
    interval: tuple[float, float] | None = None
    # "pass", "fail", "underpowered", or "" for a number that is only shown
    verdict: str = ""
    relation: str = ""  # what an interval has to be, such as "> 0.9"

    def __str__(self) -> str:
        """Return the cell of the table, as ``LEGEND`` explains it."""
        only_shown = self.expected is not None and not self.verdict
        return self._numbers() + (
            " ✗" if self.verdict == "fail" else " ~" if only_shown else ""
        )

    def _numbers(self) -> str:
        if self.interval is not None:
            return self._with_interval()
        if self.error is None:
            bound = f" ≤ {self.allowance:.3g}" if self.verdict else ""
            return f"{self.measured:.4g}{bound}"
        if self.error == 0:
            allowed = f" ± {self.allowance:.4f}" if self.allowance else ""
            return f"{self.measured:.4f} ({self.expected:.4f}{allowed})"
        if self.error < 1e-4:
            expected = "" if self.expected is None else f" ({self.expected:.2g})"
            return f"{self.measured:.2g} ± {self.error:.0e}{expected}"
        return self._with_error()

    def _with_interval(self) -> str:
        low, high = self.interval
        text = f"{self.measured:.3f} [{low:.3f}, {high:.3f}]"
        if self.relation:
            return f"{text} {self.relation}"
        return f"{text} (allowed {self.allowance:.3f})" if self.verdict else text

    def _with_error(self) -> str:
        # the error to two digits, and all else to as many
        digits = max(1 - math.floor(math.log10(self.error)), 0)
        text = f"{self.measured:.{digits}f} ± {self.error:.{digits}f}"
        if self.expected is None:
            return text
        visible = self.allowance > 0.5 * 10**-digits
        allowed = f" ± {self.allowance:.{digits}f}" if visible else ""
        return f"{text} ({self.expected:.{digits}f}{allowed})"


def show(case: str, quantity: str, measured: float, error: float | None = None) -> Row:
    """Return a row without a verdict."""
    return Row(case, quantity, float(measured), None if error is None else float(error))


def agree(
    case: str,
    quantity: str,
    measured: float,
    error: float,
    expected: float,
    allowance: float = 0.0,
) -> Row:
    """Return a row that passes if |measured − expected| ≤ 5 standard errors +
    allowance.
    """
    measured, error, expected, allowance = map(
        float, (measured, error, expected, allowance)
    )
    near = abs(measured - expected) <= SIGMAS * error + allowance
    return Row(
        case,
        quantity,
        measured,
        error,
        expected,
        allowance,
        verdict="pass" if near else "fail",
    )


def resolve(
    case: str,
    quantity: str,
    measured: float,
    error: float,
    expected: float,
    allowance: float = 0.0,
    without: float = 0.0,
) -> Row:
    """Return the row of ``agree`` if it would fail were its term wrong by a fifth; else
    show it.

    The term is what the expected, or the measured, number is away from ``without``,
    whichever is more: a theory that denies the term is held against it all the same. A
    fifth of it must exceed the 5 standard errors and the allowance that the row
    forgives, and 2 more standard errors, by which the measured number may happen to lie
    on the wrong theory's side.
    """
    row = agree(case, quantity, measured, error, expected, allowance)
    term = np.maximum(abs(row.expected - without), abs(row.measured - without))
    # never of NaN, which fails
    unseen = (SIGMAS + 2) * row.error + row.allowance > SEEN * term
    return row._replace(verdict="") if unseen else row


def controlled(samples: np.ndarray, *controls: np.ndarray) -> tuple[float, float]:
    """Return a mean and its standard error, less what controls of mean zero explain.

    samples: (count,), finite. controls: (count,) each, with expectation exactly 0, so
    that taking off any multiple leaves the mean as it is; the multiples are fitted by
    least squares.
    """
    ones = np.ones(len(samples))
    design = np.stack([ones, *(np.asarray(c, np.float64) for c in controls)], axis=1)
    samples = np.asarray(samples, np.float64)
    fitted, *_ = np.linalg.lstsq(design, samples, rcond=None)
    rest = samples - design @ fitted
    freedom = len(samples) - design.shape[1]
    return float(fitted[0]), float(np.sqrt(rest @ rest / freedom / len(samples)))


def below(case: str, quantity: str, measured: float, bound: float) -> Row:
    """Return a row that passes if measured ≤ bound, for numbers without sampling
    error.
    """
    verdict = "pass" if measured <= bound else "fail"
    return Row(case, quantity, float(measured), allowance=float(bound), verdict=verdict)


def distance(
    case: str, quantity: str, comparison: laws.Comparison, tolerance: float = 0.0
) -> Row:
    """Return a row for a KS distance and the tolerance it was compared under."""
    return Row(
        case,
        quantity,
        comparison.distance,
        allowance=float(tolerance),
        interval=comparison.interval,
        verdict=comparison.verdict,
    )


def above(
    case: str,
    quantity: str,
    measured: float,
    low: float,
    high: float,
    bound: float | None = None,
) -> Row:
    """Return a row that passes if all of an interval is above a bound; None: without a
    verdict.
    """
    verdict = "" if bound is None else "pass" if low > bound else "fail"
    relation = "" if bound is None else f"> {bound:g}"
    return Row(
        case,
        quantity,
        float(measured),
        None,
        bound,
        0.0,
        (low, high),
        verdict,
        relation,
    )


def between(
    case: str, quantity: str, measured: float, low: float, high: float, bound: float
) -> Row:
    """Return a row that passes if all of an interval is between −bound and bound."""
    verdict, relation = (
        "pass" if -bound < low and high < bound else "fail",
        f"± {bound:g}",
    )
    return Row(
        case,
        quantity,
        float(measured),
        None,
        0.0,
        bound,
        (low, high),
        verdict,
        relation,
    )


def overall(rows: list[Row]) -> str:
    """Return the worst verdict."""
    verdicts = {row.verdict for row in rows}
    return next((v for v in ("fail", "underpowered") if v in verdicts), "pass")


def table(rows: list[Row]) -> str:
    """Return a text table: one line a case, one column a quantity, a verdict at the
    end.
    """
    quantities = list(dict.fromkeys(row.quantity for row in rows))
    cases = list(dict.fromkeys(row.case for row in rows))
    lines = [["", *quantities, "verdict"]]
    for case in cases:
        mine = {row.quantity: row for row in rows if row.case == case}
        cells = [str(mine[q]) if q in mine else "" for q in quantities]
        judged = [row for row in mine.values() if row.verdict]
        lines.append([case, *cells, overall(judged) if judged else ""])
    sizes = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(c.ljust(s) for c, s in zip(line, sizes, strict=True)).rstrip()
        for line in lines
    )
