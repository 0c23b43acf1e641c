import math

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import binom

from lognorm_jax import increments, masks
from lognorm_jax.theory import _gammas

pytestmark = pytest.mark.float32


def chi_mixture(width, keep_prob, y):
    """Return ln of the density of ln R, R = χ²_B/(pn), B binomial: the sum over B."""
    b = np.arange(1, width + 1)[:, None]
    x = y + math.log(keep_prob * width)
    terms = binom.logpmf(b, width, keep_prob) + b / 2 * (x - math.log(2))
    return np.logaddexp.reduce(terms - np.exp(x) / 2 - gammaln(b / 2), axis=0)


@pytest.mark.parametrize(
    ("width", "keep_prob"),
    [
        (1, 1),
        (1, 0.5),
        (3, 0.3),
        (10, 0.05),
        (16, 1),
        (100, 0.5),
        (300, 0.99),
        (1000, 0.001),
    ],
)
def test_oracle_density_over_300_orders_of_magnitude(width, keep_prob):
    layer = increments.increment(width, masks.bernoulli(keep_prob))
    seen = layer.log_density > layer.log_density.max() - 700
    y = np.linspace(layer.y[seen].min(), layer.y[seen].max(), 400)
    expected = chi_mixture(width, keep_prob, y)
    assert np.allclose(increments.log_density(layer, y), expected, rtol=0, atol=5e-12)
    # the saddle-point profile only places nodes: it need not be better than this
    assert np.allclose(
        np.interp(y, layer.y, layer.log_density), expected, rtol=0, atol=0.5
    )


@pytest.mark.parametrize("slope", [0.9, 0.1, -1, 30, 0.02, 1e-3, 1e-4])
def test_exact_density_of_one_leaky_unit(slope):
    layer = increments.increment(1, masks.leaky_relu(slope))
    y = np.arange(-60, 9, 0.05)

    def log_chi(x):
        return x / 2 - np.exp(x) / 2 - math.log(2 * math.pi) / 2

    x = y + math.log((1 + slope**2) / 2)
    expected = np.logaddexp(log_chi(x), log_chi(x - math.log(slope**2))) - math.log(2)
    seen = expected > -300
    assert np.allclose(
        increments.log_density(layer, y)[seen], expected[seen], rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("width", [2, 10, 50, 1000])
@pytest.mark.parametrize("slope", [0.1, 0.02, 1e-3, 1e-8])
def test_exact_mass_of_many_scales(width, slope):
    """The right mass in every cluster: some units of scale 1, the others of the
    slope.
    """
    layer = increments.increment(width, masks.leaky_relu(slope))
    assert len(layer.scales) == 1 + (slope < 0.02)
    y = np.arange(-90, 6, 0.01)
    mass = np.exp(increments.log_density(layer, y)) * 0.01
    assert np.sum(mass) == pytest.approx(1, abs=1e-11)
    if slope < 1e-6:  # the small units alone: far below the rest
        assert np.sum(mass[y < -20]) == pytest.approx(2.0**-width, rel=1e-3)


def test_oracle_log1p():
    z = np.array([1e-9 + 1e-12j, -1e-9j, 0.3 - 0.4j, -2 + 1j, -1 + 1e-9j, 1e-170j])
    exact = [
        1e-9 - 5e-19 + 1e-12j,
        5e-19 - 1e-9j,
        *np.log(1 + z[2:4]),
        np.log(1e-9) + 0.5j * np.pi,
    ]
    got = _gammas.log1p(z)
    assert np.allclose(got.real[:5], np.real(exact), rtol=1e-9, atol=0)
    assert np.allclose(got.imag[:5], np.imag(exact), rtol=1e-9, atol=1e-24)
    assert np.isfinite(_gammas.log1p(np.array([-1 + 0j]))[0])
