"""Intervals and errors cover what they claim to; what is no trace is refused."""

import math

import numpy as np
import pytest

from lognorm_jax import ensembles, exact, masks, paths, summaries, weights


def plain_interval(x):
    """Return the interval that takes the sample's own fourth moment: too short, and too
    low.
    """
    d = x - x.mean()
    variance = d @ d / (len(x) - 1)
    error = math.sqrt((np.mean(d**4) - np.mean(d**2) ** 2) / len(x)) / variance
    return variance * math.exp(-1.96 * error), variance * math.exp(1.96 * error)


@pytest.mark.parametrize("widths", [(64,) * 3, (16,) * 17])
def test_statistical_the_interval_of_the_variance_covers_it(widths):
    law = exact.law(ensembles.Ensemble(widths, weights.normal(), masks.relu()))
    rng = np.random.default_rng(3)
    samples = law.quantile(law.atom + (1 - law.atom) * rng.random((4000, 100)))
    error = math.sqrt(0.95 * 0.05 / len(samples))

    def covers(interval):
        ends = np.array([interval(x) for x in samples])
        return np.mean((ends[:, 0] < law.variance) & (law.variance < ends[:, 1]))

    assert abs(covers(summaries.variance_interval) - 0.95) < 5 * error
    assert plain_interval(samples[0]) != summaries.variance_interval(samples[0])
    if widths == (64,) * 3:
        assert abs(covers(plain_interval) - 0.95) > 5 * error


def test_exact_variance_interval_scales_and_shifts():
    x = np.random.default_rng(0).gamma(2.0, size=60)
    ends = np.array(summaries.variance_interval(x))
    assert np.allclose(summaries.variance_interval(3 * x - 7), 9 * ends, rtol=1e-10)


def test_exact_that_none_died_is_not_certain():
    for dead, total in ((0, 100), (3, 100), (100, 100)):
        log_norms = np.where(np.arange(total) < dead, -np.inf, 1.0)[:, None]
        found = summaries.estimate(log_norms[:, 0])
        likely = (dead + 0.5) / (total + 1)
        error = math.sqrt(likely * (1 - likely) / total)
        assert found.dead_mass.value == dead / total
        assert found.dead_mass.error == pytest.approx(error, rel=1e-12) and error > 0


def test_exact_summaries_of_bad_input():
    moments = summaries.moments(paths.Trace(np.zeros((5, 2)), None))
    for name, call in (
        ("trace", lambda: summaries.moments(None)),
        ("trace", lambda: summaries.block_sums(None, 3)),
        ("count", lambda: summaries.central(*[None] * 7)),
        ("moments", lambda: summaries.summarise(None)),
        ("a", lambda: summaries.merge(None, moments)),
        ("b", lambda: summaries.merge(moments, None)),
        ("samples", lambda: summaries.variance_interval(None)),
        ("samples", lambda: summaries.variance_interval([math.nan] * 9)),
        (r"samples\.shape", lambda: summaries.variance_interval(np.zeros((9, 2)))),
    ):
        with pytest.raises(ValueError, match=rf"^{name}(\.dtype)? = "):
            call()
