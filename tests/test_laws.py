import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lognorm_jax import ensembles, exact, laws, masks, tables, weights

pytestmark = pytest.mark.float32


def test_exact_ks_distance_of_normals():
    # equal variances: the supremum is midway, 2Φ(δ/2σ) − 1; equal means: at a root of
    # the densities
    for delta in (0.01, 0.5, 3.0):
        got = laws.ks_distance(laws.normal(0, 2), laws.normal(delta, 2))
        assert got == pytest.approx(
            2 * scipy.stats.norm.cdf(delta / 2 / math.sqrt(2)) - 1, abs=1e-11
        )
    s, t = 1.0, 1.3
    x = math.sqrt(2 * math.log(t / s) / (1 / s**2 - 1 / t**2))
    expected = scipy.stats.norm.cdf(x / s) - scipy.stats.norm.cdf(x / t)
    assert laws.ks_distance(
        laws.normal(7, s**2), laws.normal(7, t**2)
    ) == pytest.approx(expected, abs=1e-11)


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
    """The reference cdf is within ks_to_limit of the limit law, and sometimes near."""
    rows = json.loads((Path(__file__).parent / "reference/laws.json").read_text())[
        "rows"
    ]
    for row in rows:
        widths, keep_prob = row["widths_out"], row["keep_prob"]
        ensemble = ensembles.Ensemble(
            (widths[0], *widths), weights.normal(), masks.bernoulli(keep_prob)
        )
        gap = np.abs(ensembles.limit_law(ensemble).cdf(row["x"]) - row["cdf"])
        assert np.all(gap <= row["ks_to_limit"] + 1e-12)
        assert gap.max() > 0.5 * row["ks_to_limit"]
        assert ensembles.dead_mass(ensemble) == pytest.approx(
            row["atom"], rel=1e-10, abs=1e-16
        )


@given(
    st.lists(st.sampled_from([-math.inf, -2.0, 0.0, 0.5, 3.0]), min_size=1, max_size=30)
)
@settings(deadline=None)
def test_exact_empirical_law(values):
    law = laws.empirical(values)
    for x in (-math.inf, -2.0, -1.0, 0.0, 3.0):
        assert law.cdf(x) == np.mean(np.array(values) <= x)
    for rank in range(1, len(values) + 1):
        assert law.quantile(rank / len(values)) == sorted(values)[rank - 1]


def test_statistical_compare_verdicts():
    """Fails are rarer than 1 in 100, and the interval covers the truth."""
    rng = np.random.default_rng(1)
    law, shifted = laws.normal(0, 1), laws.normal(0.1, 1)
    truth = laws.ks_distance(law, shifted)
    outcomes, covered = [], 0
    for _ in range(200):
        comparison = laws.compare(rng.normal(size=4000), law, confidence=0.99)
        outcomes.append(comparison.verdict)
        assert (comparison.p_value < 0.01) == (comparison.verdict == "fail")
        low, high = laws.compare(
            rng.normal(size=4000), shifted, confidence=0.99
        ).interval
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
    # no power needed for that
    assert laws.compare(x[::100], laws.normal(5, 1)).verdict == "fail"
    assert laws.compare(x, laws.normal(0, 1)).interval[0] == 0.0


def test_statistical_compare_of_two_samples():
    rng = np.random.default_rng(2)
    a, b, c = (
        rng.normal(size=20_000),
        rng.normal(size=20_000),
        rng.normal(0.1, 1, size=20_000),
    )
    same = laws.compare(a, laws.empirical(b))
    assert same.verdict == "pass"
    assert same.p_value == pytest.approx(
        scipy.stats.ks_2samp(a, b, method="asymp").pvalue, rel=1e-6
    )
    assert laws.compare(a, laws.empirical(c)).verdict == "fail"
    dead = np.where(rng.random(20_000) < 0.1, -np.inf, b)
    assert laws.compare(a, laws.empirical(dead)).verdict == "fail"


@pytest.mark.parametrize(
    "mask", [masks.relu(), masks.identity(), masks.leaky_relu(0.1)]
)
@pytest.mark.parametrize("width", [16, 64, 256])
def test_exact_edgeworth_beats_the_moment_matched_normal(mask, width):
    """Against the exact law, at d/n = 1; the gain grows with the width."""
    ensemble = ensembles.Ensemble((width,) * (width + 1), weights.normal(), mask)
    law, cumulants = exact.law(ensemble), exact.cumulants(ensemble)
    matched = laws.ks_distance(law, laws.normal(*cumulants[:2]))
    third = laws.ks_distance(law, laws.edgeworth(cumulants[:3], law.atom))
    fourth = laws.ks_distance(law, laws.edgeworth(cumulants, law.atom))
    assert matched < laws.ks_distance(law, ensembles.limit_law(ensemble))
    assert third < matched / (0.2 * width) and fourth < third / 2
    assert fourth < 1 / width**2


def test_exact_edgeworth_series():
    """The textbook's series in the middle, exponential tails, the atom below all."""
    k = (1.0, 4.0, -2.4, 2.0)  # skewness −0.3, excess 0.125
    law, atom = laws.edgeworth(k, 0.25), 0.25
    z = np.linspace(-2.5, 2.5, 101)
    phi, Phi = scipy.stats.norm.pdf(z), scipy.stats.norm.cdf(z)
    he = [scipy.special.eval_hermitenorm(i, z) for i in range(7)]
    series = Phi - phi * (-0.3 * he[2] / 6 + 0.125 * he[3] / 24 + 0.09 * he[5] / 72)
    density = phi * (1 - 0.3 * he[3] / 6 + 0.125 * he[4] / 24 + 0.09 * he[6] / 72) / 2
    assert np.allclose(
        law.cdf(1 + 2 * z), atom + (1 - atom) * series, rtol=0, atol=1e-11
    )
    assert np.allclose(law.pdf(1 + 2 * z), (1 - atom) * density, rtol=0, atol=1e-8)
    assert (law.mean, law.variance, law.atom) == (1, 4, 0.25)
    far = np.linspace(-60, 60, 10_001)
    assert np.all(np.diff(law.cdf(far)) >= 0) and np.all(law.pdf(far) >= 0)
    assert law.cdf(-np.inf) == atom and law.cdf(np.inf) == 1
    plain = laws.edgeworth([1.0, 4.0])
    assert laws.ks_distance(plain, laws.normal(1, 4)) < 1e-11
    for bad in ([1, 4, -12], [1, 4, 0, 80], [1, 0], [1], [1, 2, 3, 4, 5], [1, -1]):
        with pytest.raises(ValueError, match="cumulants"):
            laws.edgeworth(bad)
    for bad in (-0.1, 1, math.nan, "0"):
        with pytest.raises(ValueError, match="atom"):
            laws.edgeworth(k, bad)


def test_exact_tabulated_logistic_law():
    """ln F and ln(1 − F) of a logistic law: all functions, far into both tails."""
    x = np.linspace(-30, 30, 601)
    value, slope = -np.logaddexp(0, -x), scipy.special.expit(-x)
    bend = -slope * (1 - slope)
    lower = tables.Curve(*(f[:301] for f in (x, value, slope, bend)))
    upper = tables.Curve(x[295:], *(f[::-1][295:] for f in (value, -slope, bend)))
    law = laws.tabulated("logistic", lower, upper, 0.0, math.pi**2 / 3, 0.1)
    logistic, at = scipy.stats.logistic, np.linspace(-200, 200, 4001)
    assert np.allclose(law.cdf(at), 0.1 + 0.9 * logistic.cdf(at), rtol=0, atol=1e-12)
    assert np.allclose(law.sf(at), 0.9 * logistic.sf(at), rtol=1e-9, atol=0)
    assert np.allclose(law.pdf(at), 0.9 * logistic.pdf(at), rtol=1e-7, atol=0)
    q = np.array([0.1, 0.100001, 0.3, 0.5, 0.7, 1 - 1e-12, 1])
    expected = logistic.ppf((q - 0.1) / 0.9)
    assert (
        np.allclose(law.quantile(q), expected, rtol=1e-4)
        and law.quantile(0.05) == -np.inf
    )
    assert law.quantile(0.55) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="q = "):
        law.quantile([0.5, 1.5])
