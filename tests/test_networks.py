import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import statistical
from sklearn.datasets import load_digits

from lognorm_jax import (
    ensembles,
    exact,
    laws,
    losses,
    masks,
    networks,
    paths,
    probes,
    sampling,
    training,
    weights,
)

WIDTHS = (64, *(16,) * 6)
IMAGES = load_digits().data[[0, 1, 7]] / 16
NUM_SAMPLES = 20_000


@pytest.fixture(scope="module")
def mask_model():
    ensemble = ensembles.Ensemble(WIDTHS, weights.normal(), masks.relu())
    return sampling.sample(paths.dense(ensemble), jax.random.key(1), NUM_SAMPLES)


@pytest.mark.parametrize("bias_scale", [0.0, 0.3])
@pytest.mark.parametrize("image", range(3))
def test_statistical_network_equals_mask_model_in_law(bias_scale, image, mask_model):
    x = IMAGES[image]
    path = networks.jacobian_path(networks.relu_mlp(WIDTHS, bias_scale), x, x)
    trace = sampling.sample(path, jax.random.key(2 + image), NUM_SAMPLES)
    assert (
        laws.compare(trace.log_norm, laws.empirical(mask_model.log_norm)).verdict
        == "pass"
    )
    layer = laws.compare(
        trace.increment[:, 3], laws.empirical(mask_model.increment[:, 3])
    )
    assert layer.verdict == "pass"
    scaled = laws.empirical(mask_model.log_norm * math.sqrt(0.8))
    assert laws.compare(trace.log_norm, scaled).verdict == "fail"  # 4β instead of 5β


def test_statistical_linear_head(key):
    """A linear layer has ln R = ln χ²_n/n: mean ψ(n/2) + ln(2/n), variance ψ'(n/2)."""
    from scipy.special import digamma, polygamma

    network = networks.relu_mlp((8, 16, 3), head="linear")
    assert network.ensemble.masks[-1] is masks.identity()
    increment = sampling.sample(
        networks.jacobian_path(network, np.ones(8), np.arange(8.0)), key, 40_000
    ).increment[:, -1]
    alive = increment[np.isfinite(increment)].astype(np.float64)
    mean, variance = digamma(1.5) + math.log(2 / 3), polygamma(1, 1.5)
    statistical.assert_near(*statistical.mean_and_error(alive), float(mean))
    statistical.assert_near(*statistical.variance_and_error(alive), float(variance))


@pytest.mark.parametrize(
    ("widths", "fan"), [((3, 5, 4, 5, 4), "out"), ((4, 1, 1), "in")]
)
def test_oracle_path_equals_layers_of_init(widths, fan, key, rounding):
    network = networks.relu_mlp(widths, 0.2, fan, "linear")
    x, tangent = np.linspace(0.5, 1, widths[0]), np.arange(1.0, 1 + widths[0])
    layers = network.layers(network.init(key))
    probe = jax.jit(lambda x, tangent: probes.jvp_increments(layers, x, tangent))
    trace = jax.jit(networks.jacobian_path(network, x, tangent))(key)
    assert np.allclose(trace.increment, probe(x, tangent), rtol=0, atol=10 * rounding)
    assert len(layers) == len(widths) - 1

    out = jnp.asarray(x, jnp.result_type(float))
    for layer, width in zip(layers, widths[1:], strict=True):
        out = layer(out)
        assert out.shape == (width,)


def test_oracle_first_layer_by_hand(key, rounding):
    network = networks.relu_mlp((3, 4), 0.5)
    (params,) = network.init(key).trained
    W, b = np.float64(params["weight"][0]), np.float64(params["bias"][0])
    x, u = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 0.0])
    y = (W @ x + b > 0) * (W @ u)
    increment = networks.jacobian_path(network, x, u)(key).increment
    assert np.any(y) and np.allclose(
        increment, np.log(np.sum(y**2)), atol=10 * rounding
    )


def test_statistical_scale_of_parameters(key):
    for fan, expected in (("out", 2 / 50), ("in", 2 / 80)):
        (params,) = networks.relu_mlp((80, 50), 0.3, fan).init(key).trained
        W, b = np.float64(params["weight"]).ravel(), np.float64(params["bias"]).ravel()
        statistical.assert_near(*statistical.variance_and_error(W), expected)
        statistical.assert_near(*statistical.variance_and_error(b), 0.09)


def test_invariance_layers_of_a_deeper_network_are_the_same_draws(key):
    shallow, deep = (
        networks.relu_mlp((5,) * (d + 1), 0.1).init(key).trained[0] for d in (3, 8)
    )
    assert np.array_equal(shallow["weight"], deep["weight"][:3])
    assert np.array_equal(shallow["bias"], deep["bias"][:3])


def test_statistical_atoms_break_the_equality_in_law(key):
    """Rademacher, n_0 = n_1 = 2, x = (1, 1), u = e_1: z = 0 half the time, so E‖Ju‖² =
    1/2.
    """
    network = networks.relu_mlp((2, 2), weight_law=weights.rademacher())
    path = networks.jacobian_path(network, np.ones(2), np.array([1.0, 0.0]))
    ratio = np.exp(sampling.sample(path, key, 20_000).log_norm)
    statistical.assert_near(*statistical.mean_and_error(ratio), 0.5)


def test_exact_dead_network_and_its_gradient(key):
    network = networks.relu_mlp((4, 1, 1, 1, 1), 0.1)
    keys = jax.random.split(key, 64)

    def log_norm(params, x):
        return probes.jvp_increments(network.layers(params), x, jnp.ones(4)).sum()

    x = jnp.ones(4)
    params = jax.vmap(network.init)(keys)
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(log_norm), (0, None)))(
        params, x
    )
    dead = np.isneginf(value)
    assert 10 < dead.sum() < 64 and not np.any(np.isnan(value))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_exact_deep_network_without_biases_does_not_die_of_underflow(key):
    """Its activations shrink like e^(−5d/4n); only their direction matters, and it is
    kept.
    """
    network = networks.relu_mlp((32,) * 3001)
    path = networks.jacobian_path(network, np.ones(32), np.ones(32))
    trace = sampling.sample(path, key, 8, block_size=8)
    assert ensembles.dead_mass(network.ensemble) < 1e-6
    assert np.all(np.isfinite(trace.increment))
    mean, variance = exact.increment_cumulants(32, masks.relu(), 2)
    error = math.sqrt(variance / trace.increment.size)
    statistical.assert_near(trace.log_norm.mean() / 3000, error, mean)


@pytest.mark.parametrize(
    "kind", ["apply", "gram", "jacobian", "dense", "fit", "training path"]
)
def test_exact_eager_calls_compile_once(kind, key, programs):
    """Called by itself, again and again, none may compile again, or keep another
    program.
    """
    network = networks.relu_mlp((5, 4, 4, 4))
    params, x = network.init(key), np.ones(5, np.float32)
    batches = np.ones((2, 3, 5)), np.ones((2, 3, 4))
    fit = training.trainer(network, optax.sgd(0.1), losses.squared_error, 2)
    call = {
        "apply": lambda: network.apply(params, x.astype(jnp.result_type(float))),
        "gram": functools.partial(paths.gram(network, x, x), key),
        "jacobian": functools.partial(networks.jacobian_path(network, x, x), key),
        "dense": functools.partial(paths.dense(network.ensemble), key),
        "fit": functools.partial(fit, key, batches),
        "training path": functools.partial(training.path(fit, batches), key),
    }[kind]
    first = call()
    assert programs  # the listener hears of them
    del programs[:]
    again = call()
    assert not programs
    same = jax.tree.map(np.array_equal, first, again)
    assert all(jax.tree.leaves(same))


def test_exact_parameters_of_another_network_are_refused(key):
    network, x = networks.mlp((4, 3, 3), keep_prob=0.5), np.ones(4, np.float32)
    params = network.init(key)
    for other in (
        networks.mlp((4, 3, 3)).init(key),  # without dropout
        networks.mlp((4, 5, 3), keep_prob=0.5).init(key),
        networks.mlp((4, 3, 3, 3), keep_prob=0.5).init(key),
        params._replace(trained=params.trained[:1]),
        params._replace(trained=[{"weight": None}, *params.trained[1:]]),
        None,
    ):
        for call in (lambda p: network.apply(p, x), network.layers):
            with pytest.raises(
                ValueError, match=r"(?s)params.*(network\.init|init returns)"
            ):
                call(other)
    with pytest.raises(ValueError, match="observe = 3: must be None, or a function"):
        networks.jacobian_path(network, x, x, observe=3)
