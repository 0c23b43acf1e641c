from fractions import Fraction

import jax
import numpy as np
import pytest
import statistical

from lognorm_jax import ensembles, exact, martingales, masks, paths, sampling, weights


def decomposed(ensemble, key, num_samples, direction=None):
    trace = sampling.sample(paths.dense(ensemble, direction), key, num_samples)
    return trace, martingales.decompose(trace, ensemble)


def test_exact_parts_add_up(key):
    ensemble = ensembles.Ensemble((5, *(8,) * 9), weights.laplace(), masks.relu(), "in")
    trace, parts = decomposed(ensemble, key, 500)
    alive = np.isfinite(trace.log_norm)
    compensator = np.cumsum(parts.drift, axis=-1)
    total = parts.martingale[:, -1] + compensator[:, -1]
    assert np.allclose(total[alive], trace.log_norm[alive], atol=1e-9)
    assert np.allclose(
        np.diff(parts.bracket, axis=-1), parts.predictable_variance[:, 1:], atol=1e-12
    )
    assert all(leaf.shape == (500, 9) and leaf.dtype == np.float64 for leaf in parts)


def test_exact_dead_paths_stay_dead_and_have_no_future(key):
    ensemble = ensembles.Ensemble((3, *(2,) * 8), weights.uniform(), masks.relu())
    trace, parts = decomposed(ensemble, key, 300)
    assert not any(np.any(np.isnan(leaf)) for leaf in parts)
    dead = np.isneginf(trace.increment)
    before = np.concatenate([np.zeros_like(dead[:, :1]), dead[:, :-1]], axis=1)
    assert dead.any() and not dead.all()
    assert np.array_equal(np.isneginf(parts.martingale), dead)
    assert np.all(parts.drift[before] == 0) and np.all(
        parts.predictable_variance[before] == 0
    )
    assert np.all(parts.drift[~before] != 0)


def test_exact_normal_drift_is_a_constant():
    head = (*(masks.relu(),) * 3, masks.identity())
    ensemble = ensembles.Ensemble((4, 9, 9, 20, 7), weights.normal(), head, "in")
    rng = np.random.default_rng(0)
    trace = paths.Trace(rng.normal(size=(50, 4)), rng.uniform(size=(50, 4)))
    parts = martingales.decompose(trace, ensemble)
    expected = [
        exact.increment_cumulants(n, mask, 1)[0] + np.log(n / m)
        for m, n, mask in zip((4, 9, 9, 20), (9, 9, 20, 7), head, strict=True)
    ]
    assert np.allclose(parts.drift, expected)
    without = martingales.decompose(paths.Trace(np.zeros((2, 4)), None), ensemble)
    assert np.allclose(without.drift, expected)


@pytest.mark.parametrize("n", [100, 200])
def test_exact_expansion_is_second_order_for_normal_weights(n):
    for mask in (
        masks.relu(),
        masks.bernoulli(0.3),
        masks.leaky_relu(0.2),
        masks.identity(),
    ):
        ensemble = ensembles.Ensemble((n, n), weights.normal(), mask)
        mean, variance = (x[0] for x in martingales.expansion(ensemble, np.zeros(1)))
        true_mean, true_variance = exact.increment_cumulants(n, mask, 2)
        third = 1000 / n**3  # covers p = 0.3, whose third term is the largest
        assert (
            abs(mean - true_mean) < 0.1 * third
            and abs(variance - true_variance) < third
        )
        first, spread = (
            x[0] for x in martingales.expansion(ensemble, np.zeros(1), order=1)
        )
        assert (
            abs(first - true_mean) > 0.3 / n**2
            and abs(spread - true_variance) > 1 / n**2
        )


LAWS = {
    "rademacher": weights.rademacher(),
    "uniform": weights.uniform(),
    "laplace": weights.laplace(),
    "normal": weights.normal(),
}
# the error of the drift that decompose states, for one layer with ReLU masks
STATED = {
    (16, "flat"): {"rademacher": 0.004, "uniform": 0.004, "laplace": 0.01, "normal": 0},
    (16, "coordinate"): {
        "rademacher": 0.004,
        "uniform": 0.004,
        "laplace": 0.06,
        "normal": 0,
    },
    (64, "flat"): dict.fromkeys(LAWS, 0.003) | {"normal": 0},
    (64, "coordinate"): dict.fromkeys(LAWS, 0.003) | {"normal": 0},
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("n", [16, 64])
def test_statistical_drift_error_is_the_one_stated(name, n):
    rng = np.random.default_rng(n)
    for kind, entries in (("coordinate", 1), ("flat", n)):
        size = 1_600_000 // n if kind == "flat" else 200_000
        draw = {
            "rademacher": lambda shape: rng.integers(0, 2, shape) * 2.0 - 1,
            "uniform": lambda shape: rng.uniform(-(3**0.5), 3**0.5, shape),
            "laplace": lambda shape: rng.laplace(0, 0.5**0.5, shape),
            "normal": lambda shape: rng.normal(size=shape),
        }[name]
        y = np.zeros((size, n))
        for _ in range(entries):
            y += draw((size, n)) / np.sqrt(entries)
        R = 2 * np.mean((rng.random(y.shape) < 0.5) * y**2, axis=1)
        mean, error = statistical.mean_and_error(np.log(R[R > 1e-12]))
        ensemble = ensembles.Ensemble((n, n), LAWS[name], masks.relu())
        trace = paths.Trace(np.zeros(1), np.array([1 / entries]))
        drift = martingales.decompose(trace, ensemble).drift[0]
        statistical.assert_near(drift, error + STATED[n, kind][name] / 5, mean)
        with pytest.raises(AssertionError):  # the sign the slides have
            statistical.assert_near(-drift, error + STATED[n, kind][name] / 5, mean)


@pytest.mark.parametrize(
    "law", [weights.rademacher(), weights.laplace()], ids=lambda law: law.name
)
def test_statistical_increments_are_orthogonal(law, key):
    """At n = 16 the raw increments of these weights are correlated; the martingale's
    are not.
    """
    ensemble = ensembles.Ensemble((16,) * 13, law, masks.relu())
    trace, parts = decomposed(ensemble, key, 20_000)
    alive = np.isfinite(trace.log_norm)

    def lag_one(x):
        correlations = np.diagonal(np.corrcoef(x[alive], rowvar=False), 1)
        return correlations.mean(), 1 / np.sqrt(len(correlations) * alive.sum())

    statistical.assert_near(*lag_one(trace.increment - parts.drift), 0)
    if law is weights.rademacher():
        with pytest.raises(AssertionError):
            statistical.assert_near(*lag_one(trace.increment), 0)


def test_statistical_mean_and_variance_of_the_martingale(key):
    ensemble = ensembles.Ensemble((64,) * 9, weights.uniform(), masks.relu())
    trace, parts = decomposed(ensemble, key, 10_000, np.eye(64)[0])
    final = parts.martingale[:, -1]
    statistical.assert_near(*statistical.mean_and_error(final), 0)
    variance, error = statistical.variance_and_error(final)
    second = martingales.expansion(ensemble, trace.quartic)[1].sum(-1).mean()
    statistical.assert_near(variance, error, second)
    assert parts.bracket[:, -1].mean() < second < 1.1 * parts.bracket[:, -1].mean()


def test_exact_bad_traces_are_refused():
    ensemble = ensembles.Ensemble((4, 4, 4), weights.laplace(), masks.relu())
    with pytest.raises(ValueError, match=r"trace.increment.shape = \(3,\)"):
        martingales.decompose(paths.Trace(np.zeros(3), np.ones(3)), ensemble)
    with pytest.raises(ValueError, match="laplace weights need it"):
        martingales.decompose(paths.Trace(np.zeros(2), None), ensemble)


def test_exact_infinite_sixth_moment_falls_back_to_first_order(key):
    heavy = weights.student_t(5)
    ensemble = ensembles.Ensemble((32,) * 5, heavy, masks.relu())
    _, parts = decomposed(ensemble, key, 100)
    normal = exact.increment_cumulants(32, masks.relu(), 1)[0]
    extra = parts.predictable_variance - 5 / 32
    assert np.allclose(parts.drift, normal - extra / 2)
    with pytest.raises(ValueError, match="higher moments are infinite"):
        martingales.expansion(ensemble, np.zeros(4))


def test_exact_one_trace_and_a_stack_agree(key):
    ensemble = ensembles.Ensemble((8,) * 5, weights.laplace(), masks.relu())
    trace = jax.vmap(paths.dense(ensemble))(jax.random.split(key, 4))
    stack = martingales.decompose(trace, ensemble)
    one = martingales.decompose(jax.tree.map(lambda leaf: leaf[2], trace), ensemble)
    assert all(np.array_equal(a[2], b) for a, b in zip(stack, one, strict=True))


def test_statistical_kurtosis_three_does_not_make_a_law_normal():
    """Sparse signs of density 1/3 have the kurtosis of the normal law and another
    drift.
    """
    law = weights.sparse(Fraction(1, 3), weights.rademacher())
    assert law.kurtosis == 3
    rng, n = np.random.default_rng(0), 32
    w = rng.choice([-(3**0.5), 0, 0, 0, 0, 3**0.5], size=(400_000, n))
    R = 2 * np.mean((rng.random(w.shape) < 0.5) * w**2, axis=1)
    mean, error = statistical.mean_and_error(np.log(R[R > 0]))
    ensemble = ensembles.Ensemble((n, n), law, masks.relu())
    drift = martingales.decompose(paths.Trace(np.zeros(1), np.ones(1)), ensemble).drift[
        0
    ]
    statistical.assert_near(drift, error + 0.003 / 5, mean)
    normal = exact.increment_cumulants(n, masks.relu(), 1)[0]
    with pytest.raises(AssertionError):
        statistical.assert_near(normal, error, mean)
    with pytest.raises(ValueError, match="weights need it"):
        martingales.decompose(paths.Trace(np.zeros(1), None), ensemble)
