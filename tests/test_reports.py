"""Verdicts and intervals say how sure they are."""

import math

import numpy as np
import pytest
import scipy.stats

from lognorm_jax import reports, summaries


def report_of(shrunk, grown, total=1000):
    log_norms = np.zeros((total, 1))
    log_norms[:shrunk] = -5.0
    log_norms[total - grown :] = 5.0
    return reports.report(log_norms, ["all of it"])


@pytest.mark.parametrize(
    ("shrunk", "grown", "verdict"),
    [
        (0, 0, "stable"),
        (30, 0, "stable"),
        (50, 0, "borderline vanishing"),
        (60, 0, "borderline vanishing"),
        (80, 0, "vanishing"),
        (0, 50, "borderline exploding"),
        (0, 80, "exploding"),
        (80, 80, "erratic"),
        (50, 50, "borderline erratic"),
        (80, 50, "vanishing, borderline exploding"),
        (50, 80, "exploding, borderline vanishing"),
    ],
)
def test_exact_a_share_near_the_limit_is_borderline(shrunk, grown, verdict):
    report = report_of(shrunk, grown)
    assert report.verdict == verdict and f"\n{verdict}: of 1000 samples" in str(report)
    assert report.vanishing.value == shrunk / 1000
    assert report.exploding.value == grown / 1000
    low, high = report.vanishing.interval
    assert f"{shrunk / 1000:.1%} [{low:.1%}, {high:.1%}] shrink" in str(report)


def test_oracle_share_intervals_are_exact():
    """At the ends of the interval, what was seen or more has probability 2.5%."""
    for seen in (1, 7, 50):
        low, high = report_of(seen, 0, 100).vanishing.interval
        assert scipy.stats.binom.sf(seen - 1, 100, low) == pytest.approx(
            0.025, rel=1e-6
        )
        assert scipy.stats.binom.cdf(seen, 100, high) == pytest.approx(0.025, rel=1e-6)
    assert report_of(0, 0, 100).vanishing.interval == pytest.approx(
        (0, 1 - 0.025**0.01)
    )


def test_statistical_a_true_share_at_the_limit_is_seldom_judged():
    """Before, half of such models were called stable, and half vanishing."""
    counts = np.random.default_rng(0).binomial(400, reports.LIMIT, 300)
    verdicts = {
        count: report_of(count, 0, 400).verdict for count in set(counts.tolist())
    }
    sure = np.mean(
        [not verdicts[count].startswith("borderline") for count in counts.tolist()]
    )
    assert sure < 0.05 + 5 * math.sqrt(0.05 * 0.95 / 300)


def test_exact_beta_interval_is_a_fifth_of_that_of_the_variance():
    x = np.random.default_rng(0).normal(size=(100, 2))
    low, high = summaries.variance_interval(x.sum(1))
    report = reports.report(x, ["a", "b"])
    assert (
        report.beta.interval == (low / 5, high / 5)
        and low < report.variance.value < high
    )
    with_dead = np.concatenate([x, [[0.0, -np.inf]]])
    assert reports.report(with_dead, ["a", "b"]).beta.interval == (low / 5, high / 5)
    # what cannot be told
    assert summaries.variance_interval(np.ones(9)) == (0, 0)
    assert summaries.variance_interval(np.ones(4)) == (0, math.inf)
    assert reports.report(np.full((9, 1), -np.inf), ["a"]).beta.interval == (
        0,
        math.inf,
    )


def test_exact_reports_of_bad_input():
    good = np.zeros((5, 2))
    for name, arguments in (
        ("factor", (good, ["a", "b"], 0.0, math.nan)),
        ("factor", (good, ["a", "b"], 0.0, 1)),
        ("factor", (good, ["a", "b"], 0.0, None)),
        ("growth", (good, ["a", "b"], math.nan)),
        ("names", (good, ["a"])),
        ("names", (good, None)),
        ("increments", (np.full((5, 2), math.nan), ["a", "b"])),
        ("increments", (np.full((5, 2), math.inf), ["a", "b"])),
        (r"increments\.shape", (np.zeros(5), ["a"])),
        (r"increments\.shape", (np.zeros((0, 1)), ["a"])),
        (r"increments\.shape", (None, ["a"])),
        (r"judged\.shape", (good, ["a", "b"], 0.0, 10, np.zeros(4))),
        ("judged", (good, ["a", "b"], 0.0, 10, np.full(5, math.nan))),
    ):
        with pytest.raises(ValueError, match=rf"^{name} = "):
            reports.report(*arguments)


def test_exact_numbers_come_with_their_errors():
    x = np.random.default_rng(0).normal(size=(100, 2))
    x[:4, 1] = -np.inf
    report = reports.report(x, ["a", "b"])
    assert report.num_samples == 100
    for name in ("mean", "variance", "dead_mass"):
        total = getattr(summaries.estimate(x.sum(1)), name)
        assert getattr(report, name) == total and isinstance(total.value, float)
        of_layers = getattr(report.layers, name)
        for i in range(2):
            value, error = getattr(summaries.estimate(x[:, i]), name)
            assert of_layers.value[i] == pytest.approx(value, rel=1e-12)
            assert of_layers.error[i] == pytest.approx(error, rel=1e-12)
    table = str(report).splitlines()
    assert len(table) == 6 and table[2].endswith(" 0.04")
    assert f"β = {report.beta:.3g}." in table[4]


def test_exact_reports_are_shown_in_notebooks():
    increments = np.random.default_rng(0).normal(0, 0.1, size=(200, 2))
    page = reports.report(increments, ["<a>", "b"])._repr_html_()
    assert "&lt;a&gt;" in page and "<a>" not in page and "<b>stable: of 200" in page
