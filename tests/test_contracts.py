"""One battery a protocol: every Weights, every Mask, every Law, every Path."""

import functools
import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statistical

from lognorm_jax import ensembles, exact, laws, masks, networks, paths, weights

WEIGHTS = {
    "normal": weights.normal,
    "rademacher": weights.rademacher,
    "uniform": weights.uniform,
    "laplace": weights.laplace,
    "student_t": lambda: weights.student_t(13),
    "student_t, float": lambda: weights.student_t(9.5),
    "sparse": lambda: weights.sparse(Fraction(1, 4)),
    "sparse, float": lambda: weights.sparse(0.5, weights.rademacher()),
}
MASKS = {
    "identity": masks.identity,
    "bernoulli": lambda: masks.bernoulli(0.3),
    "bernoulli, one": lambda: masks.bernoulli(1),
    "relu": masks.relu,
    "leaky_relu": lambda: masks.leaky_relu(Fraction(1, 10)),
    "leaky_relu, negative": lambda: masks.leaky_relu(-0.5),
    "leaky_relu, zero": lambda: masks.leaky_relu(0),
    "dropout": lambda: masks.dropout(0.8),
    "dropout on leaky": lambda: masks.dropout(0.5, masks.leaky_relu(0.2)),
}
NORMAL_RELU = ensembles.Ensemble((5, 4, 4, 3), weights.normal(), masks.relu())
LAWS = {
    "normal": lambda: laws.normal(-2.5, 5.0),
    "limit, fan in": lambda: ensembles.limit_law(
        ensembles.Ensemble((5, 4, 4, 3), weights.laplace(), masks.relu(), "in")
    ),
    "exact": lambda: exact.law(NORMAL_RELU),
    "increment": lambda: exact.increment_law(3, masks.relu()),
    "exact, fan in": lambda: exact.law(
        ensembles.Ensemble((5, 40, 4), weights.normal(), masks.leaky_relu(0.2), "in")
    ),
    "edgeworth": lambda: laws.edgeworth([-1.0, 2.0, -0.5, 0.3], 0.1),
    "empirical": lambda: laws.empirical(np.random.default_rng(1).normal(size=500)),
    "empirical, dead": lambda: laws.empirical([-np.inf, -np.inf, 0.0, 1.0, 1.0, 7.0]),
    "empirical, all dead": lambda: laws.empirical([-np.inf] * 3),
}
# also for test_records: tables take seconds to make
LAWS = {name: functools.cache(make) for name, make in LAWS.items()}
PATHS = {
    "dense": lambda: paths.dense(NORMAL_RELU),
    "dense, direction": lambda: paths.dense(NORMAL_RELU, np.arange(5.0)),
    "dense, depth 1, width 1": lambda: paths.dense(
        ensembles.Ensemble((1, 1), weights.uniform(), masks.identity())
    ),
    "transport": lambda: paths.transport(NORMAL_RELU),
    "transport, cubics": lambda: paths.transport(
        ensembles.Ensemble((2, 3, 3), weights.normal(), masks.leaky_relu(0.01), "in")
    ),
    "network": lambda: networks.jacobian_path(
        networks.relu_mlp((5, 4, 4, 3), 0.1, "in", "linear"), np.ones(5), np.arange(5.0)
    ),
}


def _battery(table):
    return pytest.mark.parametrize("make", table.values(), ids=table.keys())


@pytest.mark.parametrize("make", [*WEIGHTS.values(), *MASKS.values()])
def test_exact_equal_calls_make_equal_laws(make):
    assert make() == make() and hash(make()) == hash(make())
    assert isinstance(make().name, str) and make().name


def test_exact_distinct_laws_are_distinct():
    assert len({make() for make in WEIGHTS.values()}) == len(WEIGHTS)
    assert len({make() for make in MASKS.values()}) == len(MASKS)


def _draw(shape, dtype):
    """Return draws of every law of weights and masks, by name: one compilation."""
    laws = {name: make() for name, make in (WEIGHTS | MASKS).items()}

    @jax.jit
    def draw(key):
        return {name: law.sample(key, shape, dtype) for name, law in laws.items()}

    return jax.device_get(draw(jax.random.key(20190327)))


@pytest.fixture(scope="module")
def many_draws():
    draws = _draw((400_000,), jnp.result_type(float))
    return {name: drawn.astype(np.float64) for name, drawn in draws.items()}


@pytest.mark.parametrize("dtype", [None, jnp.float16, jnp.bfloat16])
def test_exact_samples_have_the_dtype_and_shape_asked_for(dtype):
    dtype = jnp.result_type(float) if dtype is None else dtype
    for name, drawn in _draw((3, 2), dtype).items():
        assert drawn.shape == (3, 2) and drawn.dtype == dtype, name
        assert np.all(np.isfinite(drawn.astype(np.float64))), name


@pytest.mark.parametrize("name", WEIGHTS)
def test_statistical_weights_moments(name, many_draws):
    law, w = WEIGHTS[name](), many_draws[name]
    statistical.assert_near(*statistical.mean_and_error(w), 0)  # symmetric
    statistical.assert_near(*statistical.mean_and_error(w**3), 0)
    for k in (1, 2, 3):
        statistical.assert_near(
            *statistical.mean_and_error(w ** (2 * k)), float(law.moment(k))
        )
    assert law.moment(0) == 1 and law.moment(1) == 1 and law.kurtosis == law.moment(2)


@pytest.mark.parametrize("name", MASKS)
def test_statistical_mask_moments(name, many_draws):
    mask, D = MASKS[name](), many_draws[name]
    statistical.assert_near(*statistical.mean_and_error(D != 0), float(mask.keep_prob))
    for k in (1, 2, 3):
        mean, error = statistical.mean_and_error(D ** (2 * k))
        statistical.assert_near(mean, error + 1e-7, float(mask.moment(k)))
    assert mask.kurtosis == mask.moment(2) / mask.moment(1) ** 2
    assert mask.kurtosis * mask.keep_prob >= 1 - 1e-12  # Cauchy–Schwarz


@_battery(MASKS)
def test_exact_mask_support_gives_its_moments(make):
    mask = make()
    for k in range(5):
        total = sum(prob * value ** (2 * k) for value, prob in mask.support)
        assert abs(total - mask.moment(k)) < 1e-15


@pytest.mark.parametrize("make", [*WEIGHTS.values(), *MASKS.values()])
def test_exact_moment_refuses_what_is_no_order(make):
    for k in (-1, 0.5, "2", None, True):
        with pytest.raises(ValueError, match="k = "):
            make().moment(k)


@_battery(LAWS)
def test_exact_law(make):
    law = make()
    x = np.linspace(-30, 30, 4001)
    cdf = law.cdf(x)
    assert cdf.shape == x.shape and np.all(np.diff(cdf) >= 0)
    assert np.all((cdf >= law.atom) & (cdf <= 1))
    assert law.cdf(-np.inf) == law.atom and law.cdf(1e300) == 1
    q = np.linspace(0.01, 0.99, 99)
    assert np.all(law.cdf(law.quantile(q)) >= q - 1e-12)
    below = np.nextafter(law.quantile(q), -np.inf)
    alive = np.isfinite(below)
    assert np.all(law.cdf(below[alive]) <= q[alive] + 1e-12)
    assert law.variance >= 0 and not np.isnan(law.mean)
    assert laws.ks_distance(law, law) == 0
    if law.pdf is not laws.no_density:
        assert abs(np.trapezoid(law.pdf(x), x) - (cdf[-1] - cdf[0])) < 1e-6
        assert cdf[0] < law.atom + 1e-5 and cdf[-1] > 1 - 1e-9
    assert np.allclose(law.sf(x) + cdf, 1, rtol=0, atol=1e-14) and law.sf(np.inf) == 0


@_battery(PATHS)
def test_exact_path(make, key):
    path = make()
    one = jax.eval_shape(path, key)
    assert one.increment.ndim == 1
    assert one.quartic is None or one.increment.shape == one.quartic.shape
    run = jax.jit(jax.vmap(path))
    keys = jax.random.split(key, 500)
    many = jax.device_get(run(keys))
    assert np.array_equal(many.increment, run(keys).increment)
    assert not np.any(np.isnan(many.increment))
    dead = np.isneginf(many.increment)
    assert np.all(dead[:, 1:] >= dead[:, :-1])  # dead is for ever
    if many.quartic is not None:
        before = np.concatenate([np.zeros_like(dead[:, :1]), dead[:, :-1]], axis=1)
        assert np.all((np.asarray(many.quartic) == 0) == before)
        assert np.all(np.asarray(many.quartic) <= 1 + 1e-6)
    spread = np.asarray(many.increment, dtype=np.float64)
    assert len(np.unique(spread[~dead])) > 0.99 * np.sum(~dead)  # a key, a path


def test_exact_path_refuses_bad_keys():
    for make, key in itertools.product(
        PATHS.values(),
        (jax.random.PRNGKey(0), jax.random.split(jax.random.key(0), 2), 0, None),
    ):
        with pytest.raises(ValueError, match="key"):
            make()(key)
