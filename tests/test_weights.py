import math
import pickle
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import statistical
from scipy.special import gammaln

from lognorm_jax import ensembles, masks, moments, paths, sampling, summaries, weights

KEY = jax.random.key(0)


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


STRUCTURED = {
    "3 of a row": (weights.fixed_fan_in(3), 8),
    "2 of 4": (weights.n_of_m(2, 4, weights.uniform()), 12),
    "1 of 2": (weights.n_of_m(1, 2, weights.rademacher()), 4),
    "all": (weights.fixed_fan_in(5, weights.laplace()), 5),
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_statistical_rows_of_so_many_weights(name, key):
    """As many in each group, at uniform places, of variance 1."""
    law, n_in = STRUCTURED[name]
    W = np.asarray(law.sample(key, (20_000, n_in), np.float32), np.float64)
    group = law.rows.group or n_in
    kept = (W != 0).reshape(len(W), -1, group)
    assert np.all(kept.sum(2) == law.rows.kept)
    share = law.rows.kept / group
    assert np.all(np.abs(kept.mean(0) - share) <= 5 * 0.5 / len(W) ** 0.5)
    assert abs(np.mean(W**2) - 1) < 5 * np.std(W**2) / W.size**0.5 + 1e-6
    # pairs of one group, and of two
    both = np.mean(kept[:, 0, 0] & kept[:, 0, -1])
    pairs = share * (law.rows.kept - 1) / (group - 1)
    assert abs(both - pairs) <= 5 * 0.5 / len(W) ** 0.5
    assert pickle.loads(pickle.dumps(law)) is law


@pytest.mark.parametrize("name", STRUCTURED)
@pytest.mark.parametrize("direction", ["flat", "coordinate", "uneven"])
def test_statistical_second_moment_of_rows_along_a_direction(name, direction, key):
    """Of one layer with ReLU masks, Var R is exact, along any direction."""
    law, n_in = STRUCTURED[name]
    rng = np.random.default_rng(0)
    u = {"flat": np.ones(n_in), "coordinate": np.eye(n_in)[0]}.get(direction)
    u = np.cumsum(rng.random(n_in)) ** 2 if u is None else u
    n, count = 3, 20_000
    W = np.asarray(law.sample(key, (count * n, n_in), np.float32), np.float64)
    D = rng.random((count, n)) < 0.5
    R = np.sum(D * (W @ u).reshape(count, n) ** 2, axis=1) / (0.5 * n * u @ u)
    square = (R - 1) ** 2
    ensemble = ensembles.Ensemble((n_in, n), law, masks.relu())
    expected = ensembles.log_variance(ensemble, u)
    error = square.std() / count**0.5
    assert abs(square.mean() - expected) < 5 * error
    if law.rows.group is None:
        kappa = np.sum(u**4) / np.sum(u**2) ** 2
        exactly = ensembles.predictable_variance(ensemble, np.array([kappa]))
        assert np.isclose(exactly[0], expected)
    # what independent entries of this law would have
    apart = weights.sparse(law.rows.kept / (law.rows.group or n_in))
    other = ensembles.log_variance(
        ensembles.Ensemble((n_in, n), apart, masks.relu()), u
    )
    if name == "3 of a row" and direction == "flat":
        assert abs(square.mean() - other) > 10 * error


@pytest.mark.parametrize(("n", "kept"), [(10, 3), (50, 8), (7, 7)])
def test_exact_variance_over_random_directions(n, kept):
    """Published: (5n − 2 + 12n/k)/(n(n + 2)) of a ReLU layer with k normal weights a
    row; κ of a uniform direction is 3/(n + 2) in mean.
    """
    ensemble = ensembles.Ensemble((n, n), weights.fixed_fan_in(kept), masks.relu())
    found = ensembles.predictable_variance(ensemble, np.array([3 / (n + 2)]))[0]
    assert np.isclose(found, (5 * n - 2 + 12 * n / kept) / (n * (n + 2)))


@pytest.mark.parametrize("law", [weights.fixed_fan_in(12), weights.n_of_m(2, 4)])
def test_statistical_networks_of_structured_weights(law, key):
    """The variance of the limit law, and not that of dense weights."""
    n, count = 64, 3_000
    ensemble = ensembles.Ensemble((n,) * 9, law, masks.relu())
    log_norms = sampling.sample(paths.dense(ensemble), key, count).log_norm
    variance, error = summaries.estimate(np.asarray(log_norms, np.float64)).variance
    expected = ensembles.log_variance(ensemble)
    assert abs(variance - expected) < 5 * error + 8 / n * expected
    if law.rows.group is None:
        assert variance - 5 * error > 5 * ensembles.beta(ensemble) * 1.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: weights.fixed_fan_in(0), r"kept = 0"),
        (lambda: weights.n_of_m(5, 4), r"kept = 5: .*1…4"),
        (lambda: weights.n_of_m(1, 2, weights.orthogonal()), r"base = 'orthogonal'"),
        (lambda: weights.sparse(0.5, weights.fixed_fan_in(2)), r"base = "),
        (
            lambda: weights.fixed_fan_in(4).sample(KEY, (2, 3), np.float32),
            r"shape = \(2, 3\).*≥ 4",
        ),
        (
            lambda: weights.n_of_m(2, 4).sample(KEY, (2, 6), np.float32),
            r"shape = .*multiple of 4",
        ),
        (lambda: weights.fixed_fan_in(2).kurtosis, r"k = 2"),
        (
            lambda: ensembles.Ensemble(
                (8, 3, 8), weights.fixed_fan_in(4), masks.relu()
            ),
            r"widths\[1\] = 3: .*at least 4",
        ),
        (
            lambda: ensembles.Ensemble((6, 8), weights.n_of_m(2, 4), masks.relu()),
            r"widths\[0\] = 6: .*multiple of 4",
        ),
        (
            lambda: moments.norm_moment(
                ensembles.Ensemble((4, 4), weights.n_of_m(2, 4), masks.relu()), 2
            ),
            r"ensemble.weights = .*paths.dense",
        ),
        (
            lambda: ensembles.predictable_variance(
                ensembles.Ensemble((4, 4), weights.n_of_m(2, 4), masks.relu()), [0.3]
            ),
            r"ensemble.weights = .*log_variance",
        ),
    ],
)
def test_exact_structured_weights_refuse_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
