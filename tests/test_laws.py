import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lognorm_jax import ensembles, laws, masks, weights


def test_exact_ks_distance_of_normals():
    # equal variances: the supremum is midway, 2Φ(δ/2σ) − 1; equal means: at a root of the densities
    for delta in (0.01, 0.5, 3.0):
        got = laws.ks_distance(laws.normal(0, 2), laws.normal(delta, 2))
        assert got == pytest.approx(
            2 * scipy.stats.norm.cdf(delta / 2 / math.sqrt(2)) - 1, abs=1e-11
        )
    s, t = 1.0, 1.3
    x = math.sqrt(2 * math.log(t / s) / (1 / s**2 - 1 / t**2))
    expected = scipy.stats.norm.cdf(x / s) - scipy.stats.norm.cdf(x / t)
    assert laws.ks_distance(laws.normal(7, s**2), laws.normal(7, t**2)) == pytest.approx(
        expected, abs=1e-11
    )


def test_oracle_ks_distance_against_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=300), np.round(rng.normal(0.2, 1, size=170), 1)
    one = laws.ks_distance(laws.empirical(a), laws.normal(0, 1))
    assert one == pytest.approx(scipy.stats.kstest(a, "norm").statistic, abs=1e-14)
    two = laws.ks_distance(laws.empirical(a), laws.empirical(b))
    assert two == pytest.approx(scipy.stats.ks_2samp(a, b).statistic, abs=1e-14)
    assert laws.ks_distance(laws.empirical(b), laws.empirical(a)) == two


def test_exact_ks_distance_counts_atoms():
    dead = laws.empirical([-np.inf, -np.inf, -np.inf, 0.0])
    assert laws.ks_distance(dead, laws.empirical([0.0])) == 0.75
    assert laws.ks_distance(dead, laws.normal(0, 1)) == pytest.approx(0.75)
    high = laws.normal(-50, 1)  # all its mass lies between the two atoms
    assert laws.ks_distance(dead, high) == pytest.approx(0.75)
    shifted = laws.Law("shifted", high.cdf, high.quantile, -50, 1, 0.0, high.pdf)
    smooth = laws.Law(
        "half dead",
        lambda x: 0.5 + 0.5 * high.cdf(x),
        lambda q: high.quantile(np.clip(2 * np.asarray(q) - 1, 0, 1)),
        -50,
        1,
        0.5,
    )
    assert laws.ks_distance(smooth, shifted) == pytest.approx(0.5)


def test_exact_reference_limit_distance_is_a_distance():
    """The reference cdf values are within ks_to_limit of the limit law, and sometimes near it."""
    rows = json.loads((Path(__file__).parent / "reference/laws.json").read_text())["rows"]
    for row in rows:
        widths, keep_prob = row["widths_out"], row["keep_prob"]
        ensemble = ensembles.Ensemble(
            (widths[0], *widths), weights.normal(), masks.bernoulli(keep_prob)
        )
        gap = np.abs(ensembles.limit_law(ensemble).cdf(row["x"]) - row["cdf"])
        assert np.all(gap <= row["ks_to_limit"] + 1e-12)
        assert gap.max() > 0.5 * row["ks_to_limit"]
        assert ensembles.dead_mass(ensemble) == pytest.approx(row["atom"], rel=1e-10, abs=1e-16)


@given(st.lists(st.sampled_from([-math.inf, -2.0, 0.0, 0.5, 3.0]), min_size=1, max_size=30))
@settings(deadline=None)
def test_exact_empirical_law(values):
    law = laws.empirical(values)
    for x in (-math.inf, -2.0, -1.0, 0.0, 3.0):
        assert law.cdf(x) == np.mean(np.array(values) <= x)
    for rank in range(1, len(values) + 1):
        assert law.quantile(rank / len(values)) == sorted(values)[rank - 1]


def test_statistical_compare_verdicts():
    """Under the law itself fails are rarer than 1 in 100, and the interval covers the truth."""
    rng = np.random.default_rng(1)
    law, shifted = laws.normal(0, 1), laws.normal(0.1, 1)
    truth = laws.ks_distance(law, shifted)
    outcomes, covered = [], 0
    for _ in range(200):
        comparison = laws.compare(rng.normal(size=4000), law, confidence=0.99)
        outcomes.append(comparison.verdict)
        assert (comparison.p_value < 0.01) == (comparison.verdict == "fail")
        low, high = laws.compare(rng.normal(size=4000), shifted, confidence=0.99).interval
        covered += low <= truth <= high
    assert outcomes.count("fail") <= 8 and outcomes.count("underpowered") == 0
    assert covered >= 192


def test_exact_compare_tolerance_and_power():
    x = scipy.stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    shifted = laws.normal(0.2, 1)  # KS distance 0.0797
    assert laws.compare(x, shifted).verdict == "fail"
    assert laws.compare(x, shifted, 0.06).verdict == "fail"
    assert laws.compare(x, shifted, 0.07).verdict == "pass"
    few = laws.compare(x[::100], laws.normal(0, 1))
    assert few.verdict == "underpowered" and few.needed == 1981
    assert laws.compare(x[:: 20_000 // few.needed], laws.normal(0, 1)).verdict == "pass"
    assert laws.compare(x[::100], laws.normal(5, 1)).verdict == "fail"  # no power needed for that
    assert laws.compare(x, laws.normal(0, 1)).interval[0] == 0.0


def test_statistical_compare_of_two_samples():
    rng = np.random.default_rng(2)
    a, b, c = rng.normal(size=20_000), rng.normal(size=20_000), rng.normal(0.1, 1, size=20_000)
    same = laws.compare(a, laws.empirical(b))
    assert same.verdict == "pass"
    assert same.p_value == pytest.approx(
        scipy.stats.ks_2samp(a, b, method="asymp").pvalue, rel=1e-6
    )
    assert laws.compare(a, laws.empirical(c)).verdict == "fail"
    dead = np.where(rng.random(20_000) < 0.1, -np.inf, b)
    assert laws.compare(a, laws.empirical(dead)).verdict == "fail"
