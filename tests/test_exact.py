import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma, polygamma
from scipy.stats import binom

from lognorm_jax import (
    ensembles,
    exact,
    increments,
    laws,
    masks,
    moments,
    paths,
    sampling,
    weights,
)

pytestmark = pytest.mark.float32


def gaussian(widths, mask, fan="out"):
    return ensembles.Ensemble(widths, weights.normal(), mask, fan)


def mixture(width, keep_prob):
    """Return cumulants 1…3 of ln R by the sum over χ²_B/(pn), B binomial, given B ≥
    1.
    """
    b = np.arange(1, width + 1)
    odds = binom.pmf(b, width, keep_prob)
    odds /= odds.sum()
    mean_b = digamma(b / 2) + math.log(2 / (keep_prob * width))
    mean = odds @ mean_b
    var_b, third_b = polygamma(1, b / 2), polygamma(2, b / 2)
    off = mean_b - mean
    return mean, odds @ (var_b + off**2), odds @ (third_b + 3 * off * var_b + off**3)


@pytest.mark.parametrize("width", [1, 2, 6, 33, 1000])
@pytest.mark.parametrize("keep_prob", [1e-12, 0.1, 0.5, 1])
def test_oracle_cumulants_against_the_mixture(width, keep_prob):
    got = exact.increment_cumulants(width, masks.bernoulli(keep_prob), 3)
    assert np.allclose(got, mixture(width, keep_prob), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(
    ("width", "mean", "variance", "skewness"),
    [
        (6, -0.536037, 1.897964, -2.15),
        (10, -0.307461, 0.866734, -1.83),
        (20, -0.137187, 0.311758, -0.82),
        (32, -0.082540, 0.177498, -0.56),
        (100, -0.025421, 0.051940, -0.288),
        (1000, -0.002504, 0.005019, -0.088),
    ],
)
def test_oracle_relu_table(width, mean, variance, skewness):
    cumulants = exact.increment_cumulants(width, masks.relu(), 3)
    assert cumulants[:2] == pytest.approx((mean, variance), abs=6e-7)
    assert cumulants[2] / cumulants[1] ** 1.5 == pytest.approx(skewness, abs=6e-3)


def test_oracle_leaky_relu():
    assert exact.increment_cumulants(5, masks.leaky_relu(0.1), 1)[0] == pytest.approx(
        -0.64816, abs=6e-6
    )
    assert exact.increment_cumulants(10, masks.leaky_relu(0.3), 1)[0] == pytest.approx(
        -0.21445, abs=6e-6
    )


def test_exact_closed_forms():
    # width 1, no mask: ln χ²_1; slopes ±1: no mask; slope so small that two clusters
    # lie far apart
    chi = (float(digamma(0.5)) + math.log(2), math.pi**2 / 2)
    assert exact.increment_cumulants(1, masks.identity(), 2) == pytest.approx(
        chi, rel=1e-13
    )
    assert exact.increment_cumulants(7, masks.leaky_relu(-1), 2) == pytest.approx(
        exact.increment_cumulants(7, masks.identity(), 2), rel=1e-12
    )
    for slope in (1e-3, 1e-8, 1e8):
        shift = math.log(slope**2)
        mean = chi[0] + shift / 2 - math.log((1 + slope**2) / 2)
        got = exact.increment_cumulants(1, masks.leaky_relu(slope), 2)
        assert got == pytest.approx((mean, chi[1] + shift**2 / 4), rel=1e-11)
    cumulants = exact.increment_cumulants(1, masks.identity(), 8)
    polygammas = [float(polygamma(k, 0.5)) for k in range(1, 8)]
    assert cumulants[1:] == pytest.approx(polygammas, rel=1e-12)


def test_exact_series_in_one_over_width():
    for n in (1000, 4000):
        mean, variance = exact.increment_cumulants(n, masks.relu(), 2)
        assert (mean + 5 / (2 * n)) * n**2 == pytest.approx(-49 / 12, rel=5e-3)
        assert (variance - 5 / n) * n**2 == pytest.approx(37 / 2, rel=6e-3)
    n = 10**6  # relative accuracy where the cumulants are tiny
    mean, variance = exact.increment_cumulants(n, masks.relu(), 2)
    assert mean == pytest.approx(-5 / 2 / n - 49 / 12 / n**2, rel=1e-10)
    assert variance == pytest.approx(5 / n + 37 / 2 / n**2, rel=1e-10)
    # the third terms, which the experiments' allowances are twice of
    n = 2000
    mean, variance = exact.increment_cumulants(n, masks.relu(), 2)
    assert (mean + 2.5 / n + 49 / 12 / n**2) * n**3 == pytest.approx(-12, rel=0.05)
    assert (variance - 5 / n - 18.5 / n**2) * n**3 == pytest.approx(85, rel=0.05)


ROWS = json.loads((Path(__file__).parent / "reference/laws.json").read_text())["rows"]


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: f"{row['keep_prob']}, {row['widths_out'][0]}"
)
def test_oracle_reference_laws(row):
    widths = row["widths_out"]
    ensemble = gaussian((widths[0], *widths), masks.bernoulli(row["keep_prob"]))
    law = exact.law(ensemble)
    assert np.allclose(law.cdf(row["x"]), row["cdf"], rtol=0, atol=1e-12)
    assert (law.mean, law.variance) == pytest.approx(
        (row["mean"], row["variance"]), abs=1e-12
    )
    assert law.atom == pytest.approx(row["atom"], rel=1e-10, abs=1e-16)
    # the reference took the supremum over a grid: it is low by up to 5e-8
    distance = laws.ks_distance(law, ensembles.limit_law(ensemble))
    assert row["ks_to_limit"] - 1e-12 < distance < row["ks_to_limit"] + 6e-8


def log_tails(law, x):
    """Return ln P(X ≤ x | alive) and ln P(X > x | alive)."""
    alive = 1 - law.atom
    with np.errstate(divide="ignore"):
        return np.log((law.cdf(x) - law.atom) / alive), np.log(law.sf(x) / alive)


def grid(law, reach=40, points=301):
    return law.mean + math.sqrt(law.variance) * np.linspace(-reach, reach, points)


@pytest.mark.parametrize(
    ("width", "lowest"),
    [(1, -38), (2, -70), (5, -35), (100, -300), (1000, -690), (10**6, -690)],
)
def test_oracle_one_linear_layer_is_chi_squared(width, lowest):
    """Both tails, to 1e-8 relative, down to where the docstring says that it ends."""
    law = exact.law(gaussian((3, width), masks.identity()))
    x, chi = grid(law), scipy.stats.chi2(width)
    lower, upper = log_tails(law, x)
    true_lower, true_upper = chi.logcdf(width * np.exp(x)), chi.logsf(width * np.exp(x))
    accurate = 1e-8 if width < 10**6 else 1e-7  # SciPy's own accuracy there
    seen = true_lower > lowest
    assert np.allclose(lower[seen], true_lower[seen], rtol=0, atol=accurate)
    seen = true_upper > -600
    assert np.allclose(upper[seen], true_upper[seen], rtol=0, atol=accurate)


@pytest.mark.parametrize(("width", "lowest"), [(1, -60), (16, -200), (1000, -690)])
def test_oracle_two_linear_layers_are_gamma(width, lowest):
    """χ²_n χ²_{n+1} has the law of G², G gamma of shape n, by the duplication
    formula.
    """
    law = exact.law(gaussian((3, width, width + 1), masks.identity()))
    x, gamma = grid(law), scipy.stats.gamma(width)
    g = np.exp((x + math.log(width * (width + 1))) / 2)
    for got, true, end in zip(
        log_tails(law, x),
        (gamma.logcdf(g), gamma.logsf(g)),
        (lowest, -600),
        strict=True,
    ):
        seen = true > end
        assert np.allclose(got[seen], true[seen], rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("width", "keep_prob", "lowest"),
    [(1, 0.5, -17), (5, 0.3, -17), (50, 0.5, -16), (1000, 0.5, -80)],
)
def test_oracle_one_masked_layer_is_a_mixture(width, keep_prob, lowest):
    law = exact.law(gaussian((3, width), masks.bernoulli(keep_prob)))
    x, b = grid(law), np.arange(1, width + 1)[:, None]
    odds = binom.logpmf(b, width, keep_prob) - math.log1p(-((1 - keep_prob) ** width))
    r = keep_prob * width * np.exp(x)
    lower, upper = log_tails(law, x)
    true_lower = np.logaddexp.reduce(odds + scipy.stats.chi2.logcdf(r, b), axis=0)
    true_upper = np.logaddexp.reduce(odds + scipy.stats.chi2.logsf(r, b), axis=0)
    seen = true_lower > lowest
    # apart from the atom, in float64
    told = 1e-8 + 1e-15 * law.atom / np.exp(true_lower[seen])
    assert np.all(np.abs(lower - true_lower)[seen] < told)
    seen = true_upper > -600
    assert np.allclose(upper[seen], true_upper[seen], rtol=0, atol=1e-8)


def test_oracle_far_tails_of_deep_products():
    """ln P(X ≤ mean + zσ | alive), by the same integral in 60-digit arithmetic on
    another line.
    """
    for width, depth, values in [
        (100, 100, {-8: -32.66630124854, -6: -19.73746743561, -4: -10.06331808216}),
        (16, 16, {-6: -11.55263481111, -4: -7.89806145411}),
    ]:
        law = exact.law(gaussian((width,) * (depth + 1), masks.relu()))
        x = law.mean + math.sqrt(law.variance) * np.array(list(values))
        told = 1e-10 + 1e-15 * law.atom / np.exp(list(values.values()))
        assert np.all(np.abs(log_tails(law, x)[0] - list(values.values())) < told)


MIXED = (masks.relu(), masks.identity(), masks.dropout(0.5, masks.leaky_relu(0.2)))
CASES = {
    "relu, uneven": gaussian((8, 20, 5, 30, 5), masks.relu()),
    "bernoulli": gaussian((9,) * 7, masks.bernoulli(0.3)),
    "leaky": gaussian((7, 6, 6, 6), masks.leaky_relu(0.1)),
    "identity": gaussian((5, 4, 3), masks.identity()),
    "dropout": gaussian((10,) * 5, masks.dropout(0.8)),
    "mixed, fan in": gaussian((64, 30, 25, 10), MIXED, "in"),
    "one": gaussian((1, 1), masks.relu()),
}


@pytest.mark.parametrize("ensemble", CASES.values(), ids=CASES)
def test_exact_law_agrees_with_its_mean_variance_and_moments(ensemble):
    law = exact.law(ensemble)
    sigma = math.sqrt(law.variance)
    x = np.linspace(law.mean - 40 * sigma, law.mean + 20 * sigma, 20_001)
    pdf = law.pdf(x)

    def expect(f):
        return np.trapezoid(f * pdf, x) / (1 - law.atom)

    assert expect(1) == pytest.approx(1, abs=1e-9)
    assert expect(x) == pytest.approx(law.mean, abs=1e-7)
    assert expect((x - law.mean) ** 2) == pytest.approx(law.variance, rel=1e-6)
    third = exact.cumulants(ensemble, 3)[2]
    assert expect((x - law.mean) ** 3) == pytest.approx(third, rel=1e-5)
    for k in (1, 2, 3):
        moment = float(moments.norm_moment(ensemble, k))
        assert np.trapezoid(np.exp(k * x) * pdf, x) == pytest.approx(moment, rel=1e-9)


def dense_against_law(name, key, num_samples):
    ensemble = CASES[name]
    log_norms = sampling.sample(paths.dense(ensemble), key, num_samples).log_norm
    law = exact.law(ensemble)
    comparison = laws.compare(log_norms, law)
    assert comparison.verdict == "pass" and comparison.p_value > 1e-3
    assert (
        laws.compare(log_norms, laws.normal(law.mean, law.variance)).verdict == "fail"
    )


def test_statistical_dense_samples_follow_the_exact_law(key):
    dense_against_law("mixed, fan in", key, 8_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_statistical_100_000_dense_samples_follow_the_exact_law(name, key):
    dense_against_law(name, key, 100_000)


shapes = st.lists(st.integers(1, 300), min_size=1, max_size=5)


@given(shapes, st.integers(1, 12), st.floats(0.05, 1))
@settings(max_examples=15)
def test_exact_law_of_random_ensembles(widths, repeats, keep_prob):
    """Depth 1 … 60: cdf monotone from the atom to 1, sf its complement, quantile its
    inverse.
    """
    ensemble = gaussian((1, *widths * repeats), masks.bernoulli(keep_prob))
    law = exact.law(ensemble)
    x = grid(law, 15, 1501)
    cdf, sf, pdf = law.cdf(x), law.sf(x), law.pdf(x)
    assert np.all(np.diff(cdf) >= 0) and np.all((cdf >= law.atom) & (cdf <= 1))
    assert law.cdf(-np.inf) == law.atom and law.cdf(np.inf) == 1 and law.sf(np.inf) == 0
    assert np.allclose(cdf + sf, 1, rtol=0, atol=1e-14) and np.all(pdf >= 0)
    told = 1e-9 + 1e-15 / np.maximum(pdf, 1e-300)  # what a cdf in float64 can tell of x
    inner = (told < 1e-6) & (sf > 0)
    assert np.all(np.abs(law.quantile(cdf[inner]) - x[inner]) < told[inner])
    assert law.quantile(law.atom) == -np.inf and law.quantile(1.0) == np.inf
    middle = law.quantile(law.atom + (1 - law.atom) * np.linspace(1e-4, 1 - 1e-4, 99))
    if law.atom < 1 - 1e-9:
        slopes = (law.cdf(middle + 1e-5) - law.cdf(middle - 1e-5)) / 2e-5
        assert np.allclose(law.pdf(middle), slopes, rtol=1e-5, atol=1e-9)


def test_exact_ks_distance_between_exact_laws():
    """To 1e-8, against the maximum over a grid of a million points, refined."""
    a = exact.law(CASES["relu, uneven"])
    for other in ("bernoulli", "leaky"):
        b = exact.law(CASES[other])
        x = np.linspace(-30, 10, 300_001)
        gap = np.abs(a.cdf(x) - b.cdf(x))
        i = gap.argmax()
        fine = np.linspace(x[i - 1], x[i + 1], 10_001)
        best = max(abs(a.atom - b.atom), np.abs(a.cdf(fine) - b.cdf(fine)).max())
        assert laws.ks_distance(a, b) == pytest.approx(best, abs=1e-9)
    assert laws.ks_distance(a, exact.law(CASES["relu, uneven"])) == 0


def test_exact_extreme_ensembles():
    """Cost and accuracy depend neither on width nor on depth; dead products have a
    law.
    """
    huge = exact.law(gaussian((2, *(10**6,) * 100), masks.relu()))
    assert huge.mean == pytest.approx(-100 * (2.5e-6 + 49 / 12e12), rel=1e-10)
    v = huge.variance
    assert laws.ks_distance(huge, laws.normal(huge.mean, v)) == pytest.approx(
        laws.ks_distance(
            huge,
            laws.edgeworth(
                exact.cumulants(gaussian((2, *(10**6,) * 100), masks.relu()), 2)
            ),
        ),
        rel=1e-6,
    )
    deep = exact.law(gaussian((2, *(1000,) * 50_000), masks.relu()))
    one = exact.increment_cumulants(1000, masks.relu(), 2)
    assert (deep.mean, deep.variance) == pytest.approx(
        tuple(50_000 * c for c in one), rel=1e-12
    )
    assert deep.cdf(deep.mean) == pytest.approx(0.5, abs=0.01)
    dead = exact.law(gaussian((3, *(1,) * 100), masks.relu()))
    assert dead.atom == 1 and dead.cdf(-1e9) == 1 and dead.quantile(0.5) == -np.inf
    assert (
        dead.sf(-1e9) == pytest.approx(0.5**100, rel=1e-12) and dead.pdf(dead.mean) > 0
    )
    assert dead.quantile(1.0) == np.inf and laws.ks_distance(dead, dead) == 0


@pytest.mark.parametrize(
    ("widths", "mask"),
    [
        ((3, *(150,) * 10), masks.leaky_relu(30)),
        ((3, *(200,) * 10), masks.leaky_relu(1e-3)),
        ((3, 400), masks.leaky_relu(0.05)),
        ((3, 40), masks.leaky_relu(1e-3)),
        ((3, 1000), masks.dropout(0.5, masks.leaky_relu(1e-3))),
        ((3, 20), masks.leaky_relu(1e-4)),
        ((3, 10, 10), masks.leaky_relu(1e-8)),
        ((3, 100_000), masks.leaky_relu(1e-6)),
    ],
)
def test_exact_law_of_far_clusters(widths, mask):
    """Few large values among many small ones: clusters of little mass, far to the
    left.
    """
    law = exact.law(gaussian(widths, mask))
    sigma = math.sqrt(law.variance)
    x = np.linspace(law.mean - 50 * sigma, law.mean + 20 * sigma, 12_001)
    cdf, pdf = law.cdf(x), law.pdf(x)
    assert np.all(np.diff(cdf) >= 0) and np.all(np.isfinite(pdf))
    assert np.trapezoid(pdf, x) == pytest.approx(1, abs=1e-12)
    assert np.trapezoid(pdf * x, x) == pytest.approx(law.mean, abs=1e-8 * sigma)
    assert np.trapezoid(pdf * (x - law.mean) ** 2, x) == pytest.approx(
        law.variance, rel=1e-6
    )
    if len(widths) == 2:  # one layer: against its own density, summed
        layer = increments.increment(widths[1], mask)
        step, density = x[1] - x[0], np.exp(increments.log_density(layer, x))
        summed = (np.cumsum(density) - density / 2) * step
        summed -= step**2 / 12 * np.gradient(density, step)  # Euler–Maclaurin
        assert np.allclose(cdf - law.atom, summed, rtol=0, atol=1e-8)
