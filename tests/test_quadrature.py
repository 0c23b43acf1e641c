import numpy as np
import pytest
from scipy.special import digamma, gammaln, loggamma, polygamma
from scipy.stats import binom

from lognorm_jax import increments, masks, quadrature

pytestmark = pytest.mark.float32


def mellin(width, keep_prob, s):
    """Return E[R^s; R > 0] of the same mixture."""
    b = np.arange(1, width + 1)[:, None]
    terms = binom.logpmf(b, width, keep_prob) + loggamma(b / 2 + s) - gammaln(b / 2)
    return np.sum(np.exp(terms + s * np.log(2 / (keep_prob * width))), axis=0)


# of the bandwidth of the layer: deep and shallow
@pytest.mark.parametrize("share", [0.1, 1.0])
@pytest.mark.parametrize("tilt", [-0.25, 0.3, 5, 30])
@pytest.mark.parametrize(
    ("width", "keep_prob"),
    [(1, 0.5), (5, 0.3), (16, 1), (100, 0.5), (100, 0.05), (300, 0.99)],
)
def test_oracle_transform_on_a_line(width, keep_prob, tilt, share):
    layer = increments.increment(width, masks.bernoulli(keep_prob))
    place = quadrature.tilted(layer, tilt)
    band = quadrature.bandwidth(place.precision)
    t = np.linspace(0, band * share, 40)
    y, log_weight = quadrature.nodes(layer, place, t[-1])
    got = np.exp(1j * np.multiply.outer(t, y)) @ np.exp(log_weight + tilt * y)
    expected = mellin(width, keep_prob, tilt + 1j * t)
    assert np.max(np.abs(got - expected)) < 1e-12 * abs(expected[0])
    assert abs(mellin(width, keep_prob, tilt + 1j * np.array([band]))) < 1e-16 * abs(
        expected[0]
    )


def test_exact_a_far_left_tail_is_left_out_only_behind_a_dip():
    wide = increments.increment(1000, masks.relu())
    narrow = increments.increment(3, masks.relu())
    assert (
        quadrature.tilted(narrow, -0.6) is None
        and quadrature.tilted(narrow, -0.2).cut is False
    )
    place = quadrature.tilted(wide, -5.0)
    assert place.cut and -1 < place.low <= place.bulk < 0 < place.high < 1
    assert quadrature.tilted(wide, -5.0, count=10**6).low < place.low


def test_exact_cumulants_of_one_chi_squared():
    cumulants = quadrature.cumulants(1, masks.identity())
    expected = [float(digamma(0.5)) + np.log(2), *polygamma(np.arange(1, 8), 0.5)]
    assert np.allclose(cumulants, expected, rtol=1e-12)
