"""Bad input raises a ValueError that names the argument, the value and the allowed set."""

import math

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lognorm_jax import (
    ensembles,
    exact,
    laws,
    martingales,
    masks,
    moments,
    networks,
    paths,
    probes,
    sampling,
    summaries,
    weights,
)

GOOD = ensembles.Ensemble((4, 3, 3), weights.normal(), masks.relu())
NETWORK = networks.relu_mlp((4, 3, 3))
KEY = jax.random.key(0)

not_a_number = st.sampled_from(
    [math.nan, math.inf, -math.inf, 10**400, "1", None, True, [0.5], 1j, np.ones(2)]
)
not_an_object = st.sampled_from(["e", None, 3, (4, 3), masks.relu])
not_a_width = st.one_of(
    st.integers(-5, 0),
    st.floats(0.1, 9.9),
    st.sampled_from([None, "8", True, math.nan, 8.0, 10**400]),
)
not_a_count = st.one_of(st.integers(-9, 0), st.sampled_from([1.5, 100.0, "10", None, True]))
not_a_probability = st.one_of(
    st.floats(max_value=0), st.floats(min_value=1, exclude_min=True), not_a_number
)


def spoilt(good, bad, place):
    """Return the list ``good`` with ``bad`` put in one place."""
    return [*good[: place % len(good)], bad, *good[place % len(good) + 1 :]]


bad_widths = st.one_of(
    st.builds(spoilt, st.lists(st.integers(1, 9), min_size=2), not_a_width, st.integers(0)),
    st.lists(st.integers(1, 9), max_size=1),
    st.sampled_from(["64", 64, None, [[1, 2], [3, 4]]]),
)
bad_vector = st.one_of(
    st.lists(st.floats(0.1, 1), max_size=9).filter(lambda v: len(v) != 4),
    st.builds(spoilt, st.just([1.0] * 4), st.sampled_from([math.nan, math.inf]), st.integers(0)),
    st.just([0.0] * 4),
    st.just([1j] * 4),
    st.just(np.ones((4, 1))),
)
bad_key = st.sampled_from(
    [
        jax.random.PRNGKey(0),
        jax.random.split(jax.random.key(0), 3),
        jax.random.key(0, impl="rbg"),
        np.zeros(2, np.uint32),
        0,
        None,
    ]
)
bad_masks = st.one_of(
    st.integers(0, 5).filter(lambda n: n != 2).map(lambda n: [masks.relu()] * n),
    st.sampled_from(["relu", None, 0.5, [masks.relu(), "relu"], weights.normal()]),
)

CASES = {
    "widths": (bad_widths, lambda w: ensembles.Ensemble(w, weights.normal(), masks.relu())),
    "network widths": (bad_widths, networks.relu_mlp),
    "masks": (bad_masks, lambda m: ensembles.Ensemble((4, 3, 3), weights.normal(), m)),
    "weights": (
        st.sampled_from([None, "normal", weights.normal, masks.relu()]),
        lambda law: ensembles.Ensemble((4, 3), law, masks.relu()),
    ),
    "fan": (
        st.sampled_from(["avg", None, "OUT", 1]),
        lambda fan: ensembles.Ensemble((4, 3), weights.normal(), masks.relu(), fan),
    ),
    "keep_prob": (not_a_probability, masks.bernoulli),
    "dropout": (not_a_probability, masks.dropout),
    "dropout base": (st.sampled_from(["relu", 0.5]), lambda base: masks.dropout(0.5, base)),
    "density": (not_a_probability, weights.sparse),
    "slope": (not_a_number, masks.leaky_relu),
    "dof": (st.one_of(st.floats(max_value=4), not_a_number), weights.student_t),
    "direction": (bad_vector, lambda u: paths.dense(GOOD, u)),
    "direction of a law": (bad_vector, lambda u: ensembles.limit_law(GOOD, u)),
    "dtype": (
        st.sampled_from([np.int32, bool, complex, "foo", np.float64]),
        lambda t: paths.dense(GOOD, dtype=t),
    ),
    "tangent": (bad_vector, lambda u: networks.jacobian_path(NETWORK, np.ones(4), u)),
    "ensemble": (not_an_object, ensembles.beta),
    "ensemble of a law": (not_an_object, ensembles.limit_law),
    "ensemble of a mass": (not_an_object, ensembles.dead_mass),
    "ensemble of a path": (not_an_object, paths.dense),
    "ensemble of a trace": (
        not_an_object,
        lambda e: martingales.decompose(paths.Trace(np.zeros(2), np.ones(2)), e),
    ),
    "network": (not_an_object, lambda n: networks.jacobian_path(n, np.ones(4), np.ones(4))),
    "ensemble of an exact law": (not_an_object, exact.law),
    "weights of an exact law": (
        st.sampled_from([weights.laplace(), weights.rademacher(), weights.sparse(0.5)]),
        lambda law: exact.law(ensembles.Ensemble((4, 3), law, masks.relu())),
    ),
    "order of a moment": (
        st.sampled_from([-1, 13, 1.0, "2", None, True]),
        lambda k: moments.norm_moment(GOOD, k),
    ),
    "direction of a moment": (bad_vector, lambda u: moments.norm_moment(GOOD, 2, u)),
    "ensemble of a moment": (not_an_object, lambda e: moments.norm_moment(e, 2)),
    "kurtosis": (
        st.one_of(st.floats(max_value=0.99), not_a_number),
        lambda k: moments.pre_activation_kurtosis(GOOD, k),
    ),
    "covariance": (
        st.one_of(st.floats(max_value=-1.01), not_a_number),
        lambda c: moments.pre_activation_kurtosis(GOOD, 3, c),
    ),
    "mask": (not_an_object, lambda mask: exact.increment_cumulants(4, mask)),
    "mask of a family": (
        not_an_object.filter(bool),
        lambda m: ensembles.equal_beta(1, [4], mask=m),
    ),
    "widths of a family": (st.sampled_from([4, None]), lambda w: ensembles.equal_beta(1, w)),
    "params": (st.sampled_from([[], None, 5, [{}] * 3]), NETWORK.layers),
    "layers": (
        st.sampled_from([None, jax.nn.relu, [None], [lambda x: x[:0]]]),
        lambda layers: probes.jvp_increments(layers, np.ones(4), np.ones(4)),
    ),
    "quartic": (
        st.sampled_from([[math.nan, 0], [-5, 0], [7, 0], [0.5], 0.5, "a"]),
        lambda q: ensembles.predictable_variance(GOOD, q),
    ),
    "trace": (
        st.sampled_from(
            [
                None,
                paths.Trace(np.array([math.nan, 0]), np.ones(2)),
                paths.Trace(np.zeros(3), np.ones(3)),
                paths.Trace(np.zeros(2), np.ones(1)),
            ]
        ),
        lambda trace: martingales.decompose(trace, GOOD),
    ),
    "single trace": (
        st.just(paths.Trace(np.zeros(2), np.ones(2))),
        summaries.moments,
    ),
    "progress": (
        st.just(5),
        lambda p: sampling.sample(paths.dense(GOOD), KEY, 9, progress=p),
    ),
    "empty path": (
        st.sampled_from([lambda key: None, lambda key: np.zeros(0)]),
        lambda path: sampling.sample(path, KEY, 9),
    ),
    "confidence": (
        st.sampled_from([0.0, 1.0, 1e-300, math.nan]),
        lambda c: laws.compare([0.0], laws.normal(0, 1), confidence=c),
    ),
    "resolution": (
        st.sampled_from([0.0, 1.0, 1e-200, math.nan]),
        lambda r: laws.compare([0.0], laws.normal(0, 1), resolution=r),
    ),
    "q": (st.sampled_from([-0.1, 1.1, math.nan]), laws.empirical([0.0]).quantile),
    "ragged": (st.just([[1.0], [1.0, 2.0], 3.0, 4.0]), lambda u: paths.dense(GOOD, u)),
    "huge slope": (st.floats(1e31, 1e299), masks.leaky_relu),
    "tiny slope": (st.floats(1e-299, 1e-31), masks.leaky_relu),
    "tiny keep_prob": (st.floats(1e-299, 1e-31), masks.bernoulli),
    "huge dof": (st.floats(1.1e6, 1e299), weights.student_t),
    "x": (
        bad_vector.filter(lambda v: np.any(v)),
        lambda x: networks.jacobian_path(NETWORK, x, np.ones(4)),
    ),
    "probe tangent": (
        bad_vector,
        lambda u: probes.jvp_increments([lambda x: x], np.ones(4), u),
    ),
    "bias_scale": (
        st.one_of(st.floats(max_value=-1e-9), not_a_number),
        lambda b: networks.relu_mlp((4, 3), b),
    ),
    "head": (
        st.sampled_from(["softmax", None, "RELU"]),
        lambda h: networks.relu_mlp((4, 3), head=h),
    ),
    "key": (bad_key, lambda key: sampling.sample(paths.dense(GOOD), key, 10)),
    "key of a path": (bad_key, lambda key: paths.dense(GOOD)(key)),
    "key of init": (bad_key, NETWORK.init),
    "num_samples": (not_a_count, lambda n: sampling.sample(paths.dense(GOOD), KEY, n)),
    "num_samples, stream": (not_a_count, lambda n: sampling.stream(paths.dense(GOOD), KEY, n)),
    "block_size": (not_a_count, lambda n: sampling.sample(paths.dense(GOOD), KEY, 9, block_size=n)),
    "blocks_per_call": (
        not_a_count.filter(lambda n: n is not None),
        lambda n: sampling.sample(paths.dense(GOOD), KEY, 9, blocks_per_call=n),
    ),
    "devices": (
        st.sampled_from([[], ["cpu"], [None]]),
        lambda d: sampling.sample(paths.dense(GOOD), KEY, 9, devices=d),
    ),
    "path": (st.sampled_from([None, GOOD]), lambda path: sampling.sample(path, KEY, 9)),
    "path of no trace": (
        st.just(lambda key: jax.random.normal(key, (2,))),
        lambda path: sampling.stream(path, KEY, 9),
    ),
    "laws": (st.sampled_from([[0.0], None]), lambda law: laws.ks_distance(law, laws.normal(0, 1))),
    "variance": (st.one_of(st.floats(max_value=0), not_a_number), lambda v: laws.normal(0, v)),
    "log_norms": (
        st.sampled_from([[], [math.nan], [math.inf], [[1.0]], 3.0, ["a"], None, [1j]]),
        lambda x: laws.compare(x, laws.normal(0, 1)),
    ),
    "tolerance": (
        st.one_of(st.floats(max_value=-1e-9), st.floats(min_value=1), not_a_number),
        lambda t: laws.compare([0.0], laws.normal(0, 1), t),
    ),
    "law": (st.sampled_from([[0.0], None]), lambda law: laws.compare([0.0], law)),
    "beta": (
        st.one_of(st.floats(max_value=0), not_a_number),
        lambda b: ensembles.equal_beta(b, [10]),
    ),
    "order": (
        st.sampled_from([0, 9, -1, 1.5, 2.0, "2", None]),
        lambda k: exact.increment_cumulants(4, masks.relu(), k),
    ),
}


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_exact_bad_input_is_refused(name, data):
    """Some sixty arguments, with up to 15 bad values each."""
    bad, call = CASES[name]
    value = data.draw(bad)
    with pytest.raises(ValueError, match=r"(?s) = .*must be "):
        call(value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masks.bernoulli(1.5), r"keep_prob = 1.5: must be a number in \(0, 1\]"),
        (lambda: masks.leaky_relu(math.nan), r"slope = nan: must be 0, or a finite number"),
        (lambda: CASES["widths"][1]([4, 0]), r"widths\[1\] = 0: must be an integer ≥ 1"),
        (lambda: CASES["widths"][1]([4, 2.5]), r"widths\[1\] = 2.5: must be an integer ≥ 1"),
        (lambda: CASES["widths"][1]([4]), r"widths = \[4\]: must be .* at least two"),
        (lambda: CASES["masks"][1]([masks.relu()]), r"len\(masks\) = 1: must be 2: one Mask"),
        (lambda: paths.dense(GOOD, np.ones(3)), r"direction.shape = \(3,\): must be .*\(4,\)"),
        (lambda: paths.dense(GOOD, np.zeros(4)), r"direction = .*not all zero"),
        (lambda: sampling.sample(paths.dense(GOOD), KEY, 0), r"num_samples = 0: .*≥ 1"),
        (lambda: paths.dense(GOOD)(jax.random.PRNGKey(0)), r"key = .*jax.random.key\(seed\)"),
        (lambda: paths.dense(GOOD)(jax.random.split(KEY, 2)), r"key.shape = \(2,\): .*vmap"),
        (lambda: weights.student_t(4), r"dof = .*fourth moment is finite.*weights.laplace"),
    ],
)
def test_exact_errors_teach(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_exact_long_values_are_cut():
    with pytest.raises(ValueError, match="must be") as caught:
        paths.dense(GOOD, np.ones(100_000).tolist())
    assert len(str(caught.value)) < 500
