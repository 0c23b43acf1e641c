"""Bad input raises a ValueError that names the argument, the value and the allowed
set.
"""

import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lognorm_jax import (
    activations,
    datasets,
    declarations,
    ensembles,
    exact,
    laws,
    losses,
    martingales,
    masks,
    moments,
    networks,
    optimizers,
    paths,
    plots,
    probes,
    sampling,
    summaries,
    tables,
    training,
    transports,
    weights,
)

pytestmark = pytest.mark.float32

GOOD = ensembles.Ensemble((4, 3, 3), weights.normal(), masks.relu())
SIGNS = ensembles.Ensemble((4, 3, 3), weights.rademacher(), masks.relu())
NETWORK = networks.relu_mlp((4, 3, 3))
PARAMS = NETWORK.init(jax.random.key(0))
KEY = jax.random.key(0)
NORMAL = laws.normal(0, 1)
OUTPUTS = np.zeros((2, 3), np.float32)

not_a_number = st.sampled_from(
    [math.nan, math.inf, -math.inf, 10**400, "1", None, True, [0.5], 1j, np.ones(2)]
)
not_an_object = st.sampled_from(["e", None, 3, (4, 3), masks.relu])
not_a_width = st.one_of(
    st.integers(-5, 0),
    st.floats(0.1, 9.9),
    st.sampled_from([None, "8", True, math.nan, 8.0, 10**400]),
)
not_a_count = st.one_of(
    st.integers(-9, 0), st.sampled_from([1.5, 100.0, "10", None, True])
)
not_a_probability = st.one_of(
    st.floats(max_value=0), st.floats(min_value=1, exclude_min=True), not_a_number
)
not_a_function = st.sampled_from([None, 3, "f", [1], math.nan, True, {}])
not_a_name = st.sampled_from([None, 3, [1], b"w"])
not_a_flag = st.sampled_from([None, 3, "x", math.nan])
not_numbers = st.sampled_from(
    ["a", None, 1j, {}, [None], [[1.0, 2.0], [3.0]], np.array(["a"])]
)
not_an_optimizer = st.sampled_from([None, 3, "sgd", [1], optax.sgd, (1, 2)])
not_a_network = st.sampled_from([None, 3, "x", networks.relu_mlp])
not_params = st.sampled_from([None, 3, "x", [1], {}, math.nan])


def spoilt(good, bad, place):
    """Return the list ``good`` with ``bad`` put in one place."""
    return [*good[: place % len(good)], bad, *good[place % len(good) + 1 :]]


bad_widths = st.one_of(
    st.builds(
        spoilt, st.lists(st.integers(1, 9), min_size=2), not_a_width, st.integers(0)
    ),
    st.lists(st.integers(1, 9), max_size=1),
    st.sampled_from(["64", 64, None, [[1, 2], [3, 4]]]),
)
bad_vector = st.one_of(
    st.lists(st.floats(0.1, 1), max_size=9).filter(lambda v: len(v) != 4),
    st.builds(
        spoilt,
        st.just([1.0] * 4),
        st.sampled_from([math.nan, math.inf]),
        st.integers(0),
    ),
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


def _law(**fields):
    """Return N(0, 1) with other fields."""
    known = {"name": "mine", "cdf": NORMAL.cdf, "quantile": NORMAL.quantile}
    return laws.Law(**(known | {"mean": 0.0, "variance": 1.0} | fields))


def _weights(**fields):
    law = weights.normal()
    return weights.Weights(
        **({"name": "w", "sample": law.sample, "moment": law.moment} | fields)
    )


def _mask(**fields):
    mask = masks.relu()
    return masks.Mask(
        **({"name": "m", "sample": mask.sample, "moment": mask.moment} | fields)
    )


def _activation(**fields):
    return activations.Activation(**({"name": "phi", "apply": jnp.tanh} | fields))


CASES = {
    "widths": (
        bad_widths,
        lambda w: ensembles.Ensemble(w, weights.normal(), masks.relu()),
    ),
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
    "dropout base": (
        st.sampled_from(["relu", 0.5]),
        lambda base: masks.dropout(0.5, base),
    ),
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
    "network": (
        not_an_object,
        lambda n: networks.jacobian_path(n, np.ones(4), np.ones(4)),
    ),
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
    "widths of a family": (
        st.sampled_from([4, None]),
        lambda w: ensembles.equal_beta(1, w),
    ),
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
    "num_samples, stream": (
        not_a_count,
        lambda n: sampling.stream(paths.dense(GOOD), KEY, n),
    ),
    "block_size": (
        not_a_count,
        lambda n: sampling.sample(paths.dense(GOOD), KEY, 9, block_size=n),
    ),
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
    "laws": (
        st.sampled_from([[0.0], None]),
        lambda law: laws.ks_distance(law, laws.normal(0, 1)),
    ),
    "variance": (
        st.one_of(st.floats(max_value=0), not_a_number),
        lambda v: laws.normal(0, v),
    ),
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

# what a user makes by hand
CASES |= {
    "name of weights": (not_a_name, lambda v: _weights(name=v)),
    "sampler of weights": (not_a_function, lambda v: _weights(sample=v)),
    "moment of weights": (not_a_function, lambda v: _weights(moment=v)),
    "second moment of weights": (
        st.sampled_from([None, "1", [1], 1j, math.nan, 2]),
        lambda v: _weights(moment=lambda k: v),
    ),
    "atoms": (not_a_flag, lambda v: _weights(atoms=v)),
    "symmetric": (not_a_flag, lambda v: _weights(symmetric=v)),
    "base of sparse weights": (
        st.sampled_from([3, "x", weights.normal, masks.relu()]),
        lambda v: weights.sparse(0.5, v),
    ),
    "name of a mask": (not_a_name, lambda v: _mask(name=v)),
    "sampler of a mask": (not_a_function, lambda v: _mask(sample=v)),
    "moment of a mask": (not_a_function, lambda v: _mask(moment=v)),
    "moments of a mask": (
        st.sampled_from([None, "1", [1], math.nan, math.inf, -1, 0]),
        lambda v: _mask(moment=lambda k: v if k else 0.5),
    ),
    "support": (
        st.sampled_from(
            [3, "x", [1], math.nan, True, {}, (), ((1,),), ((1, 0.5, 2),), ((1, -0.5),)]
        )
        | st.sampled_from(
            [
                ((0, 0.5), (1, 0.5)),
                ((1, math.nan),),
                ((1, "a"),),
                (("a", 0.5),),
                ((1, 0.4),),
            ]
        )
        | st.sampled_from([((1, 0.75), (1, -0.25)), ((1, 0),)]),
        lambda v: _mask(support=v),
    ),
    "mask that may be dead": (not_an_object, lambda v: masks.log_alive(v, 3)),
    "width that may be dead": (not_a_width, lambda v: masks.log_alive(masks.relu(), v)),
    "name of an activation": (not_a_name, lambda v: _activation(name=v)),
    "activation itself": (not_a_function, lambda v: _activation(apply=v)),
    "mask of an activation": (
        st.sampled_from([3, "relu", [1], True, {}, masks.relu, weights.normal()]),
        lambda v: _activation(mask=v),
    ),
    "homogeneous": (not_a_flag, lambda v: _activation(homogeneous=v)),
    "name of a law": (not_a_name, lambda v: _law(name=v)),
    "cdf": (not_a_function, lambda v: _law(cdf=v)),
    "quantile": (not_a_function, lambda v: _law(quantile=v)),
    "pdf": (not_a_function.filter(lambda v: v is not None), lambda v: _law(pdf=v)),
    "sf": (not_a_function.filter(lambda v: v is not None), lambda v: _law(sf=v)),
    "mean of a law": (
        st.sampled_from([math.nan, math.inf, "1", None, True, [0.5], 1j, np.ones(2)]),
        lambda v: _law(mean=v),
    ),
    "variance of a law": (
        st.sampled_from(
            [math.nan, -1, -math.inf, "1", None, True, [0.5], 1j, np.ones(2)]
        ),
        lambda v: _law(variance=v),
    ),
    "atom of a law": (
        not_a_number | st.sampled_from([-0.1, 1.1]),
        lambda v: _law(atom=v),
    ),
    "samples of a law": (
        st.sampled_from([3, "x", [1], math.nan])
        | st.sampled_from([[math.nan], [[1.0, 1.0]], [2.0, 1.0], []]).map(np.array),
        lambda v: _law(samples=v),
    ),
}

# functions of laws
CASES |= {
    f"{part} of {law.name}": (not_numbers, getattr(law, part))
    for law in (
        NORMAL,
        laws.edgeworth([0, 1, 0.1]),
        laws.empirical([0.0]),
        exact.law(GOOD),
    )
    for part in ("cdf", "quantile", "sf", "pdf")
}
CASES |= {
    "density of samples": (
        st.sampled_from([0.0, [0.0], np.ones(2)]),
        laws.empirical([0.0]).pdf,
    ),
    "density of a law without": (st.sampled_from([0.0, np.ones(2)]), _law().pdf),
    "cumulants": (
        st.sampled_from(
            [None, 3, "ab", [], [1], [1j, 1], [[0, 1], [0, 1]], {0: 1}, [[0], [1, 2]]]
        )
        | st.sampled_from(
            [[0, -1], [0, 0], [0, math.nan], [math.nan, 1], [0, 1, 9], [0, 1, 0, 9]]
        )
        | st.just([0, 1, 0, 0, 0]),
        laws.edgeworth,
    ),
    "curve": (not_an_object, lambda v: laws.tabulated("t", v, v, 0.0, 1.0)),
    "laws of a transport": (
        st.sampled_from(
            [None, 3, "x", [], [None], NORMAL, {}, [laws.empirical([0.0])], [_law()]]
        ),
        transports.fit,
    ),
    "levels": (not_numbers | st.sampled_from([-0.1, 1.1, math.nan]), tables.levels),
    "samples": (not_numbers, laws.empirical),
}

# theory
CASES |= {
    "cosine": (
        not_numbers | st.sampled_from([2, -2, math.nan, math.inf, [2.0]]),
        lambda v: activations.cosine_drift(v, 0.0, 1.0),
    ),
    "c_plus": (
        not_a_number.filter(lambda v: v is not True),
        lambda v: activations.cosine_drift(0.5, v, 1.0),
    ),
    "c_minus": (
        not_a_number.filter(lambda v: v is not True),
        lambda v: activations.cosine_drift(0.5, 1.0, v),
    ),
    "partitions": (
        st.sampled_from([-1, 51, 1000, 10**400, math.nan, None, "3", 1.5, True, [3]]),
        moments.partitions,
    ),
    "ragged direction": (
        st.just([[1, 2], [3]]),
        lambda v: moments.norm_moment(GOOD, 2, v),
    ),
    "listed width": (
        st.just([3]),
        lambda v: exact.increment_cumulants(v, masks.relu()),
    ),
    "listed mask": (
        st.sampled_from([[1], {}]),
        lambda v: exact.increment_cumulants(4, v),
    ),
    "width of a point": (st.just(np.array(3)), networks.relu_mlp),
    "no widths": (st.just([]), lambda v: ensembles.equal_beta(0.5, v)),
    "increments": (
        not_numbers,
        lambda v: martingales.decompose(paths.Trace(v, None), GOOD),
    ),
    "trace without quartic": (
        st.just(types.SimpleNamespace(increment=np.zeros(2))),
        lambda v: martingales.decompose(v, SIGNS),
    ),
    "order of an expansion": (
        st.sampled_from([0, 3, None, "2", 1.5, True, [1], math.nan, np.ones(2)]),
        lambda v: martingales.expansion(GOOD, [0.5, 0.5], v),
    ),
}

# training
CASES |= {
    "outputs": (
        not_numbers
        | st.sampled_from([3.0, np.ones(2), np.ones((3, 3)), np.ones((2, 0))]),
        lambda v: losses.cross_entropy(v, np.array([0, 1])),
    ),
    "outputs that are whole": (
        st.just(np.ones((2, 3), int)),
        lambda v: losses.cross_entropy(v, np.array([0, 1])),
    ),
    "labels": (
        not_numbers
        | st.sampled_from([3, [0, 3], [-1, 0], [5, 5], [0, 1, 2], [0.0, 1.0], [[0, 1]]])
        | st.sampled_from([[0, 3], [-1, 0], [True, False]]).map(jnp.array),
        lambda v: losses.cross_entropy(OUTPUTS, v),
    ),
    "probabilities": (
        st.sampled_from([1.0, -1.0, math.nan, 0.5]).map(
            lambda v: np.full((2, 3), v, np.float32)
        ),
        lambda v: losses.cross_entropy(OUTPUTS, v),
    ),
    "outputs of an error": (
        not_numbers | st.sampled_from([3.0, np.ones((2, 2))]),
        lambda v: losses.squared_error(v, OUTPUTS),
    ),
    "targets": (
        not_numbers | st.sampled_from([3.0, np.ones((2, 2))]),
        lambda v: losses.squared_error(OUTPUTS, v),
    ),
    "optimizer by layer": (not_an_optimizer, optimizers.by_layer),
    "optimizer promoted": (not_an_optimizer, optimizers.promoting),
    "optimizer": (not_an_optimizer, lambda v: optimizers.require(NETWORK, v)),
    "optimizer of a trainer": (
        not_an_optimizer,
        lambda v: training.trainer(NETWORK, v, losses.squared_error, 2),
    ),
    "network to train": (
        not_a_network,
        lambda v: optimizers.require(v, optax.sgd(0.1)),
    ),
    "distance": (
        not_a_number | st.sampled_from([-1, 1e200]),
        lambda v: datasets.clouds(KEY, 4, 2, distance=v),
    ),
    "inputs": (
        st.sampled_from([None, 3, "x", [], [[1, 2], [3]], {}, np.ones((3, 4))]),
        lambda v: datasets.batches(KEY, v, np.zeros(8, int), 2, 4),
    ),
    "leaf": (
        st.sampled_from(["a", 3, [1j], [True], {"a": "b"}, [np.zeros(2, int)]]),
        training.leaf_log_norms,
    ),
    "network of norms": (not_a_network, lambda v: training.layer_log_norms(v, PARAMS)),
    "tree of norms": (not_params, lambda v: training.layer_log_norms(NETWORK, v)),
    "network of increments": (
        not_a_network,
        lambda v: training.jacobian_increments(v, PARAMS, np.ones(4), np.ones(4)),
    ),
    "params of increments": (
        not_params,
        lambda v: training.jacobian_increments(NETWORK, v, np.ones(4), np.ones(4)),
    ),
    "x of increments": (
        not_numbers | st.sampled_from([np.ones(3), np.ones((4, 1)), [math.nan] * 4]),
        lambda v: training.jacobian_increments(NETWORK, PARAMS, v, np.ones(4)),
    ),
    "tangent of increments": (
        not_numbers | bad_vector,
        lambda v: training.jacobian_increments(NETWORK, PARAMS, np.ones(4), v),
    ),
    "params to split": (not_params.filter(lambda v: v != {}), training.split),
    "params to join": (
        not_params.filter(lambda v: v != {}),
        lambda v: training.join(v, v),
    ),
    "parts of different networks": (st.just([]), lambda v: training.join(PARAMS, v)),
}


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_exact_bad_input_is_refused(name, data):
    """Some 150 arguments, with up to 15 bad values each."""
    bad, call = CASES[name]
    value = data.draw(bad)
    with pytest.raises(ValueError, match=r"(?s) = .*must be "):
        call(value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: masks.bernoulli(1.5),
            r"keep_prob = 1.5: must be a number in \(0, 1\]",
        ),
        (
            lambda: masks.leaky_relu(math.nan),
            r"slope = nan: must be 0, or a finite number",
        ),
        (
            lambda: CASES["widths"][1]([4, 0]),
            r"widths\[1\] = 0: must be an integer ≥ 1",
        ),
        (
            lambda: CASES["widths"][1]([4, 2.5]),
            r"widths\[1\] = 2.5: must be an integer ≥ 1",
        ),
        (lambda: CASES["widths"][1]([4]), r"widths = \[4\]: must be .* at least two"),
        (
            lambda: CASES["masks"][1]([masks.relu()]),
            r"len\(masks\) = 1: must be 2: one Mask",
        ),
        (
            lambda: paths.dense(GOOD, np.ones(3)),
            r"direction.shape = \(3,\): must be .*\(4,\)",
        ),
        (lambda: paths.dense(GOOD, np.zeros(4)), r"direction = .*not all zero"),
        (lambda: sampling.sample(paths.dense(GOOD), KEY, 0), r"num_samples = 0: .*≥ 1"),
        (
            lambda: paths.dense(GOOD)(jax.random.PRNGKey(0)),
            r"key = .*jax.random.key\(seed\)",
        ),
        (
            lambda: paths.dense(GOOD)(jax.random.split(KEY, 2)),
            r"key.shape = \(2,\): .*vmap",
        ),
        (
            lambda: weights.student_t(4),
            r"dof = .*fourth moment is finite.*weights.laplace",
        ),
        (
            lambda: _activation(mask="relu"),
            r"mask = 'relu': must be None or a Mask.*masks.relu()",
        ),
        (
            lambda: _weights(sample=None),
            r"sample = None: must be .*\(key, shape, dtype\)",
        ),
        (lambda: _law(variance=-1), r"variance = -1: must be a number ≥ 0"),
        (lambda: laws.empirical([0.0]).pdf(0.0), r"law.pdf = None: .*Take law.cdf"),
        (
            lambda: jax.jit(NORMAL.cdf)(0.0),
            r"x = .*functions of the host.*outside of jit",
        ),
        (
            lambda: losses.cross_entropy(OUTPUTS, np.array([0, 3])),
            r"(?s)targets = .*: must be labels in \[0, 3\)",
        ),
        (
            lambda: optimizers.by_layer("sgd"),
            r"optimizer = 'sgd': .*GradientTransf.*optax.sgd\(",
        ),
        (
            lambda: activations.cosine_drift(2, 0, 1),
            r"cosine = .*: must be numbers in \[−1, 1\]",
        ),
        (lambda: moments.partitions(1000), r"k = 1000: must be an integer in 0…50"),
        (
            lambda: declarations.fan_in(1, "orthogonal"),
            r"kind of a law with a fan = 'orthogonal': must be 'normal'",
        ),
        (
            lambda: plots.reports({"tangents": None}),
            r"kind of a report = 'tangents': must be 'activations'",
        ),
    ],
)
def test_exact_errors_teach(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_exact_labels_are_looked_at_only_where_they_are_known():
    """Under jit the loss is that of optax, operation by operation."""
    labels = np.array([0, 3])
    optax_loss = optax.losses.softmax_cross_entropy_with_integer_labels
    both = [
        str(jax.make_jaxpr(loss)(OUTPUTS, labels))
        for loss in (losses.cross_entropy, optax_loss)
    ]
    assert both[0] == both[1]
    assert np.isnan(jax.jit(losses.cross_entropy)(OUTPUTS, labels)[1])


def test_exact_long_values_are_cut():
    with pytest.raises(ValueError, match="must be") as caught:
        paths.dense(GOOD, np.ones(100_000).tolist())
    assert len(str(caught.value)) < 500
