import math

import numpy as np
import pytest
from scipy.special import gammaln, loggamma
from scipy.stats import binom

from lognorm_jax import increments, masks


def chi_mixture(width, keep_prob, y):
    """Return ln of the density of ln R, R = χ²_B/(pn), B binomial: the sum over B."""
    b = np.arange(1, width + 1)[:, None]
    x = y + math.log(keep_prob * width)
    terms = binom.logpmf(b, width, keep_prob) + b / 2 * (x - math.log(2))
    return np.logaddexp.reduce(terms - np.exp(x) / 2 - gammaln(b / 2), axis=0)


def mellin(width, keep_prob, s):
    """Return E[R^s; R > 0] of the same mixture."""
    b = np.arange(1, width + 1)[:, None]
    terms = binom.logpmf(b, width, keep_prob) + loggamma(b / 2 + s) - gammaln(b / 2)
    return np.sum(np.exp(terms + s * math.log(2 / (keep_prob * width))), axis=0)


@pytest.mark.parametrize(
    ("width", "keep_prob"),
    [(1, 1), (1, 0.5), (3, 0.3), (10, 0.05), (16, 1), (100, 0.5), (300, 0.99), (1000, 0.001)],
)
def test_oracle_density_over_300_orders_of_magnitude(width, keep_prob):
    layer = increments.increment(width, masks.bernoulli(keep_prob))
    seen = layer.log_density > layer.log_density.max() - 700
    y = np.linspace(layer.y[seen].min(), layer.y[seen].max(), 400)
    expected = chi_mixture(width, keep_prob, y)
    assert np.allclose(increments.log_density(layer, y), expected, rtol=0, atol=5e-12)
    # the saddle-point profile only places nodes: it need not be better than this
    assert np.allclose(np.interp(y, layer.y, layer.log_density), expected, rtol=0, atol=0.5)


@pytest.mark.parametrize("slope", [0.9, 0.1, -1, 30, 1e-4, 1e-8])
def test_exact_density_of_one_leaky_unit(slope):
    layer = increments.increment(1, masks.leaky_relu(slope))
    y = np.arange(-60, 9, 0.05)

    def log_chi(x):
        return x / 2 - np.exp(x) / 2 - math.log(2 * math.pi) / 2

    x = y + math.log((1 + slope**2) / 2)
    expected = np.logaddexp(log_chi(x), log_chi(x - math.log(slope**2))) - math.log(2)
    seen = expected > -300
    assert np.allclose(increments.log_density(layer, y)[seen], expected[seen], rtol=0, atol=1e-10)


@pytest.mark.parametrize("share", [0.1, 1.0])  # of the bandwidth of the layer: deep and shallow
@pytest.mark.parametrize("tilt", [-0.25, 0.3, 5, 30])
@pytest.mark.parametrize(
    ("width", "keep_prob"), [(1, 0.5), (5, 0.3), (16, 1), (100, 0.5), (100, 0.05), (300, 0.99)]
)
def test_oracle_transform_on_a_line(width, keep_prob, tilt, share):
    layer = increments.increment(width, masks.bernoulli(keep_prob))
    place = increments.tilted(layer, tilt)
    band = increments.bandwidth([(place.precision, 1)])
    t = np.linspace(0, band * share, 40)
    y, log_weight = increments.nodes(layer, place, t[-1])
    got = np.exp(1j * np.multiply.outer(t, y)) @ np.exp(log_weight + tilt * y)
    expected = mellin(width, keep_prob, tilt + 1j * t)
    assert np.max(np.abs(got - expected)) < 1e-12 * abs(expected[0])
    assert abs(mellin(width, keep_prob, tilt + 1j * np.array([band]))) < 1e-16 * abs(expected[0])


def test_exact_a_far_left_tail_is_left_out_only_behind_a_dip():
    wide = increments.increment(1000, masks.relu())
    narrow = increments.increment(3, masks.relu())
    assert increments.tilted(narrow, -0.6) is None and increments.tilted(narrow, -0.2).cut is False
    place = increments.tilted(wide, -5.0)
    assert place.cut and -1 < place.low <= place.bulk < 0 < place.high < 1
    assert increments.tilted(wide, -5.0, count=10**6).low < place.low


def test_oracle_log1p():
    z = np.array([1e-9 + 1e-12j, -1e-9j, 0.3 - 0.4j, -2 + 1j, -1 + 1e-9j, 1e-170j])
    exact = [1e-9 - 5e-19 + 1e-12j, 5e-19 - 1e-9j, *np.log(1 + z[2:4]), np.log(1e-9) + 0.5j * np.pi]
    got = increments.log1p(z)
    assert np.allclose(got.real[:5], np.real(exact), rtol=1e-9, atol=0)
    assert np.allclose(got.imag[:5], np.imag(exact), rtol=1e-9, atol=1e-24)
    assert np.isfinite(increments.log1p(np.array([-1 + 0j]))[0])
