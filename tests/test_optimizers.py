"""Optimizers of optax, given the stacked layers of a network: against each layer on its
own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_training import batches_for, plain_fit

from lognorm_jax import losses, networks, optimizers, training

pytestmark = pytest.mark.float32

# layers of one kind, so that they are stacked
NETWORK = networks.residual(6, 2, bias_scale=0.1)


def several(tree):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, tree)


BY_ARRAY = {
    "lamb": optax.lamb(1e-2),
    "muon": optax.contrib.muon(1e-2),
    "adafactor": optax.adafactor(1e-2, min_dim_size_to_factor=2),
    "clip": optax.chain(optax.adaptive_grad_clip(0.01), optax.sgd(0.1)),
    "no decay of biases": optax.adamw(1e-2, weight_decay=0.1, mask=several),
    "sm3": optax.sm3(0.1),
}
BY_ENTRY = {
    "adamw": optax.adamw(1e-2),
    "schedule": optax.chain(
        optax.clip_by_global_norm(1.0), optax.sgd(optax.cosine_decay_schedule(0.1, 9))
    ),
    "schedule free": optax.contrib.schedule_free_adamw(1e-2),
    "prodigy": optax.contrib.prodigy(),
    "zero": optax.sgd(0.0),
}


@pytest.fixture(autouse=True)
def promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


def make(optimizer):
    return training.trainer(NETWORK, optimizer, losses.squared_error, 3)


# one of them in float64 too: rounding is that of the plain loop
NAMES = [pytest.param("lamb", marks=pytest.mark.float64), *list(BY_ARRAY)[1:]]


@pytest.mark.parametrize("name", NAMES)
def test_oracle_by_layer_is_the_plain_loop(name, key):
    """Without it, the trainer says so."""
    optimizer, batches = BY_ARRAY[name], batches_for(NETWORK, steps=3)
    with pytest.raises(ValueError, match=r"each layer on its own.*by_layer"):
        make(optimizer)
    _, history = jax.jit(make(optimizers.by_layer(optimizer)))(key, batches)
    _, expected = plain_fit(NETWORK, optimizer, losses.squared_error, key, batches)
    np.testing.assert_allclose(history.loss, expected[0], rtol=1e-4)
    np.testing.assert_allclose(history.update_ratio, expected[3], rtol=2e-3)


@pytest.mark.parametrize("name", BY_ENTRY)
def test_exact_others_need_no_by_layer(name):
    make(BY_ENTRY[name])
    make(optimizers.by_layer(BY_ENTRY[name]))


def test_oracle_by_layer_inside_a_chain_and_with_a_line_search(key):
    batches = batches_for(NETWORK, steps=3)
    chained = optax.chain(
        optax.clip_by_global_norm(1.0), optimizers.by_layer(optax.lamb(1e-2))
    )
    plain = optax.chain(optax.clip_by_global_norm(1.0), optax.lamb(1e-2))
    _, history = jax.jit(make(chained))(key, batches)
    _, expected = plain_fit(NETWORK, plain, losses.squared_error, key, batches)
    np.testing.assert_allclose(history.loss, expected[0], rtol=1e-4)
    searched = optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5))
    histories = [
        jax.jit(make(o))(key, batches)[1]
        for o in (searched, optimizers.by_layer(searched))
    ]
    np.testing.assert_allclose(histories[0].loss, histories[1].loss, rtol=1e-5)
    assert histories[0].loss[-1] < histories[0].loss[0]


def test_exact_log_norms_by_layer_of_layers_apart(key):
    measure = functools.partial(training.layer_log_norms, NETWORK)
    params = jax.jit(NETWORK.init)(key)
    recorder = optimizers.by_layer(training.log_norms(measure))
    _, state = jax.jit(recorder.update)(params, recorder.init(params))
    np.testing.assert_allclose(state.log_norm, measure(params), rtol=1e-6)


def test_exact_stacked_and_apart(key):
    params = jax.jit(NETWORK.init)(key)
    apart = optimizers._apart(params)
    assert [len(own) for own in apart.kinds] == [len(own) for own in NETWORK.places()]
    assert optimizers._apart(apart) is apart
    jax.tree.map(np.testing.assert_array_equal, optimizers.stacked(apart), params)
    assert (
        optimizers.stacked(optimizers._apart([{}, {"weight": jnp.ones((2, 3))}]))[0]
        == {}
    )
