import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import statistical
from scipy.special import gammaln

from lognorm_jax import weights


def draw(law, key, shape):
    """Return float32 draws of a law: one compilation."""
    drawn = jax.jit(lambda key: law.sample(key, shape, jnp.float32))(key)
    assert drawn.shape == shape and drawn.dtype == jnp.float32
    return np.asarray(drawn, np.float64)


pytestmark = pytest.mark.float64


@pytest.mark.parametrize(
    ("law", "moments"),
    [
        (weights.normal(), [1, 3, 15, 105]),
        (weights.rademacher(), [1, 1, 1, 1]),
        (weights.uniform(), [1, Fraction(9, 5), Fraction(27, 7), 9]),
        (weights.laplace(), [1, 6, 90, 2520]),
        (weights.sparse(Fraction(1, 3)), [1, 9, 135, 2835]),
    ],
)
def test_exact_moments(law, moments):
    assert [law.moment(k) for k in (1, 2, 3, 4)] == moments
    assert all(isinstance(law.moment(k), Fraction) for k in (1, 2, 3))


@pytest.mark.parametrize("dof", [9, 9.5, 30])
def test_oracle_student_t_moments(dof):
    law = weights.student_t(dof)
    for k in (1, 2, 3, 4):
        log_raw = (
            gammaln(k + 0.5) + gammaln(dof / 2 - k) - gammaln(0.5) - gammaln(dof / 2)
        )
        moment = math.exp(log_raw + k * math.log(dof - 2))
        assert float(law.moment(k)) == pytest.approx(moment, rel=1e-12)


def test_statistical_student_t_law(key):
    w = draw(weights.student_t(5), key, (200_000,))
    law = scipy.stats.t(5, scale=np.sqrt(3 / 5))
    assert scipy.stats.kstest(w, law.cdf).pvalue > 1e-4
    beyond = int(np.sum(np.abs(w) > 12))
    assert scipy.stats.binomtest(beyond, len(w), 2 * law.sf(12.0)).pvalue > 1e-4


def test_exact_infinite_moments_are_refused():
    with pytest.raises(
        ValueError, match=r"k = 3: must be < dof/2 = 6/2: higher moments are inf"
    ):
        weights.student_t(6).moment(3)
    with pytest.raises(ValueError, match=r"dof = .*4.*must be a number > 4"):
        weights.student_t(4)


def test_exact_own_law_must_be_standardised():
    with pytest.raises(ValueError, match="standard deviation"):
        weights.Weights("double", lambda key, shape, dtype: None, lambda k: 4**k)


def test_exact_atoms():
    assert weights.rademacher().atoms and weights.sparse(0.5).atoms
    assert not weights.normal().atoms and not weights.sparse(1).atoms


@pytest.mark.parametrize(
    "shape", [(), (1,), (33,), (5, 7), (31, 40), (64, 33), (2, 32, 32)]
)
@pytest.mark.parametrize("law", [weights.rademacher(), weights.uniform()])
def test_exact_packed_draws_of_any_shape(law, shape, key):
    drawn = draw(law, key, shape)
    assert np.all((np.abs(drawn) == 1) == (law is weights.rademacher()))
    assert np.all(np.abs(drawn) < 1.7321)


def test_exact_uniform_of_halves_has_variance_one():
    values = (np.arange(65536) - 32767.5) * math.sqrt(12 / (2**32 - 1))
    assert np.mean(values**2) == pytest.approx(1, abs=1e-12)
    for k in (2, 3, 4, 6):
        expected = float(weights.uniform().moment(k))
        assert np.mean(values ** (2 * k)) == pytest.approx(expected, rel=k**2 * 1e-9)


@pytest.mark.parametrize("law", [weights.rademacher(), weights.uniform()])
def test_statistical_packed_draws_are_independent(law, key):
    """Weights that share a random word: no correlation between any two places of it."""
    W = draw(law, key, (2**14, 64))
    for V in (W, W**2 - 1):
        error = max(V.var(), 1e-12) / math.sqrt(len(V))
        off = (V.T @ V / len(V))[np.triu_indices(64, 1)]
        statistical.assert_near(off, error, 0, sigmas=5.5)  # the largest of 2,016
    statistical.assert_near(*statistical.mean_and_error(W), 0)


def test_statistical_uniform_of_halves(key):
    w = draw(weights.uniform(), key, (512, 512)).ravel()
    law = scipy.stats.uniform(-math.sqrt(3), 2 * math.sqrt(3))
    assert scipy.stats.kstest(w, law.cdf).pvalue > 1e-4
