import math

import numpy as np
import pytest
from scipy.special import digamma, polygamma
from scipy.stats import binom

from lognorm_jax import exact, masks


def mixture(width, keep_prob):
    """Return cumulants 1…3 of ln R by the sum over χ²_B/(pn), B binomial, given B ≥ 1."""
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
    assert np.allclose(got, mixture(width, keep_prob), rtol=1e-9, atol=1e-12)


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
    # width 1, no mask: ln χ²_1; slopes ±1: no mask; slope so small that two clusters lie far apart
    chi = (float(digamma(0.5)) + math.log(2), math.pi**2 / 2)
    assert exact.increment_cumulants(1, masks.identity(), 2) == pytest.approx(chi, rel=1e-11)
    assert exact.increment_cumulants(7, masks.leaky_relu(-1), 2) == pytest.approx(
        exact.increment_cumulants(7, masks.identity(), 2), rel=1e-12
    )
    for slope in (1e-6, 1e-15, 1e-30, 1e10):
        shift = math.log(slope**2)
        mean = chi[0] + shift / 2 - math.log((1 + slope**2) / 2)
        got = exact.increment_cumulants(1, masks.leaky_relu(slope), 2)
        assert got == pytest.approx((mean, chi[1] + shift**2 / 4), rel=1e-9)
    wide = masks.Mask("wide", masks.relu().sample, lambda k: 1, ((1, 0.5), (1e-90, 0.5)))
    with pytest.raises(ValueError, match="within a factor 1e86"):
        exact.increment_cumulants(1, wide, 2)
    cumulants = exact.increment_cumulants(1, masks.identity(), 8)
    polygammas = [float(polygamma(k, 0.5)) for k in range(1, 8)]
    assert cumulants[1:] == pytest.approx(polygammas, rel=1e-9)


def test_exact_series_in_one_over_width():
    for n in (1000, 4000):
        mean, variance = exact.increment_cumulants(n, masks.relu(), 2)
        assert (mean + 5 / (2 * n)) * n**2 == pytest.approx(-49 / 12, rel=5e-3)
        assert (variance - 5 / n) * n**2 == pytest.approx(37 / 2, rel=6e-3)
    # the third terms, which the experiments' allowances are twice of
    n = 2000
    mean, variance = exact.increment_cumulants(n, masks.relu(), 2)
    assert (mean + 2.5 / n + 49 / 12 / n**2) * n**3 == pytest.approx(-12, rel=0.05)
    assert (variance - 5 / n - 18.5 / n**2) * n**3 == pytest.approx(85, rel=0.05)
