"""The first steps of optimization: against jax.grad and optax in plain loops, and the
exact law.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from statistical import assert_near, mean_and_error, variance_and_error

from lognorm_jax import exact, losses, networks, probes, sampling, training

# its oracle, which has everything in it, runs in float64 too
pytestmark = pytest.mark.float32

STEPS, BATCH = 4, 5
# time goes by the number of kinds of layers that are compiled: as few as a test needs
NETWORKS = {
    "relu": networks.mlp((6,) * 5),
    "tanh, biases, dropout": networks.mlp(
        (6, 8, 8, 3), "tanh", 0.3, "in", "linear", keep_prob=0.7
    ),
    "alternating widths": networks.mlp((6, 4, 6, 4, 6, 3), head="linear"),
    "depth 1": networks.mlp((6, 3), head="linear"),
    "width 1": networks.mlp((6, 1, 1, 3), "tanh", head="linear"),
    "balanced": networks.residual(6, 3, "balanced"),
    "vanilla": networks.residual(7, 4, "vanilla", input_width=6),
}
HUGE = 1e250 if jax.config.jax_enable_x64 else 1.0
CONV = networks.conv((2, 3, 3), (4,), 3)


@pytest.fixture(autouse=True)
def promotion():
    """optax counts on the standard promotion of types."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def batches_for(network, targets=None, steps=STEPS):
    rng = np.random.default_rng(7)
    inputs = rng.normal(size=(steps, BATCH, *network.shape))
    outputs = network.outputs(jnp.result_type(float))[-1].shape
    if targets == "labels":
        return inputs, rng.integers(0, outputs[0], (steps, BATCH))
    return inputs, rng.normal(size=(steps, BATCH, *outputs))


@functools.cache
def plain_functions(network, loss):
    """Return the loss with its gradient, and increments, layer after layer."""

    def layers_of(trained, fixed):
        params = map(networks.Params, trained, fixed)
        pairs = zip(network.kinds, params, strict=True)
        return [functools.partial(kind.apply, own) for kind, own in pairs]

    def objective(trained, fixed, inputs, targets):
        outputs = []
        for x in inputs:
            for layer in layers_of(trained, fixed):
                x = layer(x)
            outputs.append(x)
        return jnp.mean(loss(jnp.stack(outputs), targets))

    def increments(trained, fixed, x):
        return probes.jvp_increments(layers_of(trained, fixed), x, x)

    return jax.jit(jax.value_and_grad(objective)), jax.jit(increments)


def plain_fit(network, optimizer, loss, key, batches):
    """Train by the loop one would write; return params and history.

    Layers are not stacked, and nothing is scanned.
    """
    params = [None] * len(network.kinds)
    drawn = jax.tree.map(np.asarray, jax.jit(network.init)(key))
    for places, stacked in zip(network.places(), drawn.by_kind(), strict=True):
        for row, i in enumerate(places):
            params[i] = jax.tree.map(lambda leaf, row=row: leaf[row], stacked)
    trained, fixed = networks.Params.of_kinds(params)

    def advance(gradient, state, trained):
        updates, state = optimizer.update(gradient, state, trained)
        return updates, state, optax.apply_updates(trained, updates)

    def size(tree):
        return np.array([np.linalg.norm(np.float64(part["weight"])) for part in tree])

    differentiated, increments = plain_functions(network, loss)
    inputs, targets = np.asarray(batches[0], jnp.result_type(float)), batches[1]
    advance, state = jax.jit(advance), jax.jit(optimizer.init)(trained)
    history = []
    for x, y in zip(inputs, targets, strict=True):
        value, gradient = differentiated(trained, fixed, x, jnp.asarray(y))
        increment = increments(trained, fixed, inputs[0, 0])
        updates, state, moved = advance(gradient, state, trained)
        ratio = size(updates) / size(trained)
        history.append((value, 2 * np.log(size(gradient)), increment, ratio))
        trained = moved
    return trained, [np.stack(leaves) for leaves in zip(*history, strict=True)]


@pytest.mark.float64
@pytest.mark.parametrize("name", NETWORKS)
def test_oracle_fit_is_the_plain_loop(name, key):
    network, optimizer = NETWORKS[name], optax.adam(1e-2)
    batches = batches_for(network)
    fit = training.trainer(network, optimizer, losses.squared_error, STEPS)
    params, history = jax.jit(fit)(key, batches)
    plain, expected = plain_fit(network, optimizer, losses.squared_error, key, batches)
    assert history.finite.all()
    for got, wanted in zip(history[:-1], expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-5)
    trained = jax.tree.map(np.asarray, params.trained)
    for kind, places in zip(trained, network.places(), strict=True):
        for row, i in enumerate(places):
            for part, value in plain[i].items():
                np.testing.assert_allclose(kind[part][row], value, rtol=1e-5, atol=1e-5)
    assert (
        history.log_gradient.shape
        == history.increment.shape
        == (STEPS, len(network.kinds))
    )


SMALL = networks.mlp((4, 5, 3), head="linear", bias_scale=0.1)
CLIPPED = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(1e-2, 0, 9))
)


@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [
        (optax.sgd(0.1, momentum=0.9, nesterov=True), losses.cross_entropy),
        (optax.adamw(1e-2), losses.cross_entropy),
        (CLIPPED, losses.cross_entropy),
        (optax.inject_hyperparams(optax.sgd)(learning_rate=0.1), losses.cross_entropy),
        (optax.lamb(1e-2), losses.cross_entropy),
        (CLIPPED, optax.losses.huber_loss),
    ],
    ids=["momentum", "adamw", "schedule", "inject", "lamb", "huber"],
)
def test_oracle_any_optimizer_and_loss(optimizer, loss, key):
    network = SMALL
    labels = "labels" if loss is losses.cross_entropy else None
    batches = batches_for(network, labels, 2)
    _, history = jax.jit(training.trainer(network, optimizer, loss, 2))(key, batches)
    _, expected = plain_fit(network, optimizer, loss, key, batches)
    np.testing.assert_allclose(history.loss, expected[0], rtol=1e-5)
    np.testing.assert_allclose(history.log_gradient, expected[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(history.update_ratio, expected[3], rtol=1e-3)


def test_oracle_convolutional_network(key):
    network = CONV
    batches = batches_for(network)
    fit = training.trainer(network, optax.sgd(0.05), losses.squared_error, STEPS)
    _, history = jax.jit(fit)(key, batches)
    _, expected = plain_fit(
        network, optax.sgd(0.05), losses.squared_error, key, batches
    )
    for got, wanted in zip(history[:-1], expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-5)


def test_exact_signs_and_dropout_masks_are_not_trained(key):
    network = NETWORKS["tanh, biases, dropout"]
    fit = training.trainer(network, optax.adamw(0.1), losses.squared_error, STEPS)
    params, _ = jax.jit(fit)(key, batches_for(network))
    drawn = jax.jit(network.init)(key)
    jax.tree.map(np.testing.assert_array_equal, drawn.fixed, params.fixed)
    assert jax.tree.leaves(drawn.fixed)
    for before, after in zip(drawn.trained, params.trained, strict=True):
        assert np.abs(before["weight"] - after["weight"]).max() > 0.01


def test_invariance_alone_under_vmap_and_in_the_engine(key):
    network = NETWORKS["relu"]
    batches = batches_for(network)
    fit = training.trainer(network, optax.adam(1e-2), losses.squared_error, STEPS)
    keys = jax.random.split(key, 3)
    together, one_fit = jax.jit(jax.vmap(fit, (0, None)))(keys, batches), jax.jit(fit)
    for i in range(3):
        alone = one_fit(keys[i], batches)
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-5, atol=1e-5)
    run = functools.partial(
        sampling.sample, training.path(fit, batches), key, 9, block_size=4
    )
    one, all_devices = run(devices=jax.devices()[:1]), run()
    for a, b in zip(one, all_devices, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    again = run(blocks_per_call=5)
    for a, b in zip(again, all_devices, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.increment.shape == (9, STEPS, len(network.kinds))


def test_oracle_many_learning_rates_and_what_is_observed_of_the_parameters(key):
    network = NETWORKS["relu"]
    batches = batches_for(network)

    def fit_at(rate):
        return training.trainer(network, optax.sgd(rate), losses.squared_error, STEPS)

    def output(params):
        return network.apply(
            params, jnp.asarray(batches[0][0, 0], jnp.result_type(float))
        )

    rates = np.array([0.01, 0.1])
    path_at = jax.vmap(
        lambda rate: training.path(fit_at(rate), batches, observe=output)(key)
    )
    together = jax.jit(path_at)(rates)
    for i, rate in enumerate(rates):
        history, seen = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        params, alone = jax.jit(fit_at(rate))(key, batches)
        for a, b in zip((*alone, output(params)), (*history, seen), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_statistical_step_zero_is_the_exact_law(key):
    network = networks.mlp((10,) * 13)
    fit = training.trainer(network, optax.sgd(0.1), losses.squared_error, 1)
    path = training.path(fit, batches_for(network, steps=1))
    history = sampling.sample(path, key, 20_000, block_size=512)
    log_norm, law = history.increment[:, 0].sum(-1), exact.law(network.ensemble)
    alive = np.isfinite(log_norm)
    assert_near(*mean_and_error(log_norm[alive]), law.mean)
    assert_near(*variance_and_error(log_norm[alive]), law.variance)
    dead = 1 - alive.mean()
    assert abs(dead - law.atom) < 5 * np.sqrt(law.atom / len(alive))


def test_exact_a_diverged_seed_is_frozen_flagged_and_alone(key):
    network = networks.mlp((6, 8, 8, 3), head="linear")
    inputs, targets = batches_for(network, steps=40)
    fit = training.trainer(network, optax.sgd(30.0), losses.squared_error, 40)
    params, history = jax.jit(fit)(key, (inputs, targets))
    first = int(np.argmin(history.finite))
    assert 0 < first < 40 and not history.finite[first:].any()
    for leaf in history[:-1]:
        assert np.isinf(leaf[first:]).all() and (leaf[first:] > 0).all()
        assert not np.isnan(leaf).any() and not (leaf[:first] == np.inf).any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    # a seed that diverges stays so, whatever comes, and leaves the others beside it as
    # they are
    burst = np.where(np.arange(40)[:, None, None] == 3, 1e30, 1) * inputs
    wide = np.stack([inputs, burst, inputs])
    calm = training.trainer(network, optax.sgd(1e-2), losses.squared_error, 40)
    keys = jnp.stack([key] * 3)
    _, mixed = jax.jit(jax.vmap(calm, (0, (0, None))))(keys, (wide, targets))
    assert mixed.finite.sum(1).tolist() == [40, 3, 40] and mixed.finite[1, :3].all()
    np.testing.assert_array_equal(mixed.loss[0], mixed.loss[2])


@pytest.mark.parametrize(("phi", "expected"), [("relu", np.inf), ("tanh", -np.inf)])
def test_exact_a_probe_that_overflows_stops_no_training(phi, expected):
    """Its increments are +inf, or a saturated tanh's; zero is a probe too, given a
    tangent.
    """
    network = networks.mlp((6,) * 4, phi, 0.3)
    batches = batches_for(network)
    largest = float(jnp.finfo(jnp.result_type(float)).max)
    make = functools.partial(
        training.trainer, network, optax.sgd(0.1), losses.squared_error, STEPS
    )
    plain = jax.jit(make())(jax.random.key(0), batches)[1]
    for probe in (np.full(6, largest), np.zeros(6)):
        fit = make(probe=probe, tangent=np.ones(6))
        history = jax.jit(fit)(jax.random.key(0), batches)[1]
        assert history.finite.all()
        np.testing.assert_array_equal(history.loss, plain.loss)
        if probe.any():
            np.testing.assert_array_equal(history.increment, expected)
    assert np.isfinite(history.increment).all()


def test_exact_parameters_stay_finite_at_the_largest_rates():
    """Also where a ReLU hides what overflowed before it, so that loss and updates are
    finite.
    """
    network = networks.mlp((6,) * 5, bias_scale=0.5)
    batches, keys = batches_for(network), jax.random.split(jax.random.key(0), 256)
    rate = float(jnp.finfo(jnp.result_type(float)).max) / 1e3
    fit = training.trainer(network, optax.sgd(rate), losses.squared_error, STEPS)
    params, history = jax.jit(jax.vmap(fit, (0, None)))(keys, batches)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert (
        not np.isnan(history.log_gradient).any()
        and 0 < history.finite[:, 1:].mean() < 0.1
    )


def test_exact_steps_whose_sum_overflows_are_not_taken(key):
    def update(updates, state, params=None):
        largest = 0.6 * jnp.finfo(jnp.result_type(float)).max
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, largest), updates), state

    network = networks.mlp((6, 3), "tanh")
    optimizer = optax.GradientTransformation(lambda params: (), update)
    fit = training.trainer(network, optimizer, losses.squared_error, STEPS)
    params, history = jax.jit(fit)(key, batches_for(network))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert not history.finite.any()


def test_exact_a_dead_network_has_gradient_minus_infinity():
    network = networks.mlp((2, 1, 1, 1, 1, 2), head="linear")
    fit = training.trainer(network, optax.adam(0.1), losses.squared_error, 2)
    _, history = jax.jit(jax.vmap(fit, (0, None)))(
        jax.random.split(jax.random.key(0), 20), batches_for(network, steps=2)
    )
    dead = np.isneginf(history.increment[:, 0]).any(-1)
    assert 0 < dead.sum() < 20 and history.finite.all()
    assert (
        np.isneginf(history.log_gradient).any()
        and not np.isnan(history.log_gradient).any()
    )
    assert (history.update_ratio >= 0).all() and np.isfinite(history.update_ratio).all()


def test_exact_compilation_does_not_grow_with_depth_or_steps():
    def size(depth, steps):
        network = networks.mlp((6,) * depth)
        fit = training.trainer(network, optax.adam(0.1), losses.squared_error, steps)
        key, batches = jax.random.key(0), batches_for(network, steps=steps)
        return len(
            jax.jit(lambda key: fit(key, batches)[1]).lower(key).as_text().splitlines()
        )

    assert size(64, 3) == size(8, 3) == size(8, 9)


def test_exact_losses():
    outputs, targets = (
        jnp.array([[1.0, 2.0], [0.0, 0.0]]),
        jnp.array([[1.0, 0.0], [3.0, 4.0]]),
    )
    np.testing.assert_allclose(
        losses.squared_error(outputs, targets), [2, 12.5], rtol=1e-6
    )
    nats = np.log(1 + np.exp(-1.0)), np.log(2.0)
    labels = losses.cross_entropy(outputs, jnp.array([1, 0]))
    np.testing.assert_allclose(labels, nats, rtol=1e-6)
    both = losses.cross_entropy(outputs, jnp.array([[0.0, 1.0], [0.5, 0.5]]))
    np.testing.assert_allclose(both, nats, rtol=1e-6)


BAD = {
    "network": lambda net, b: training.trainer(
        "mlp", optax.sgd(1.0), losses.squared_error, 4
    ),
    "optimizer": lambda net, b: training.trainer(net, "adam", losses.squared_error, 4),
    "loss =": lambda net, b: training.trainer(net, optax.sgd(1.0), "mse", 4),
    "num_steps = 0": lambda net, b: training.trainer(
        net, optax.sgd(1.0), losses.squared_error, 0
    ),
    "num_steps = 2.5": lambda net, b: training.trainer(
        net, optax.sgd(1.0), losses.squared_error, 2.5
    ),
    "optimizer's update = .*finite .*learning rate": lambda net, b: training.trainer(
        net, optax.sgd(np.nan), losses.squared_error, 4
    ),
    "Is its learning rate finite": lambda net, b: training.trainer(
        net, optax.adam(np.inf), losses.squared_error, 4
    ),
    "probe.shape": lambda net, b: training.trainer(
        net, optax.sgd(1.0), losses.squared_error, 4, probe=np.ones(3)
    ),
    "tangent = ": lambda net, b: training.trainer(
        net, optax.sgd(1.0), losses.squared_error, 4, tangent=np.zeros(6)
    ),
    "inputs.shape": lambda net, b: _fit(net)(jax.random.key(0), (b[0][:3], b[1][:3])),
    "inputs.shape = \\(4, 5, 5\\)": lambda net, b: _fit(net)(
        jax.random.key(0), (b[0][..., :5], b[1])
    ),
    "inputs = ": lambda net, b: _fit(net)(jax.random.key(0), (b[0] * np.nan, b[1])),
    "targets.shape": lambda net, b: _fit(net)(jax.random.key(0), (b[0], b[1][:3])),
    "loss: does not take": lambda net, b: _fit(net)(
        jax.random.key(0), (b[0], b[1][..., :2])
    ),
    "batches = array": lambda net, b: _fit(net)(jax.random.key(0), b[0]),
    "key = 0": lambda net, b: _fit(net)(0, b),
    "(?s)targets = .*labels": lambda net, b: _fit(net, losses.cross_entropy)(
        jax.random.key(0), (b[0], np.full((4, 5), 3))
    ),
    "fit = ": lambda net, b: training.path(np.sin, b),
    "batches = ": lambda net, b: training.path(_fit(net), b[0]),
    "inputs.shape = \\(3, 5, 6\\)": lambda net, b: training.path(
        _fit(net), (b[0][:3], b[1])
    ),
    "x.shape = \\(5, 6\\).*vmap": lambda net, b: net.apply(
        net.init(jax.random.key(0)), b[0][0]
    ),
    "probe = .*finite in float": lambda net, b: training.trainer(
        net, optax.sgd(0.1), losses.squared_error, 4, probe=np.full(6, 1e39 * HUGE)
    ),
    "(?s)inputs = .*finite in float": lambda net, b: _fit(net)(
        jax.random.key(0), (b[0] * 1e39 * HUGE, b[1])
    ),
    "inputs\\[0, 0\\] .*tangent.*not all zero": lambda net, b: training.path(
        _fit(net), (0 * b[0], b[1])
    ),
    "inputs\\[0, 0\\] .*tangent.*= Array.*not all zero": lambda net, b: training.path(
        _fit(net), (jnp.asarray(0 * b[0]), b[1])
    ),
    "(?s)targets = .*probabilities that sum": lambda net, b: training.path(
        _fit(net, losses.cross_entropy), b
    ),
    "(?s)targets = .*labels in": lambda net, b: training.path(
        _fit(net, losses.cross_entropy), (b[0], np.full((4, 5), 1 + (1 << 32)))
    ),
    "(?s)targets = .*labels in .0, 3": lambda net, b: training.path(
        _fit(net, optax.losses.softmax_cross_entropy_with_integer_labels),
        (b[0], np.full((4, 5), -1)),
    ),
    "targets = .*integer labels of 5": lambda net, b: training.path(
        _fit(net, losses.cross_entropy), (b[0], np.ones((4, 5)))
    ),
    "observe": lambda net, b: training.path(_fit(net), b, observe="accuracy"),
    "loss.outputs, targets..shape = \\(5, 5\\).*one an example": lambda net, b: _fit(
        networks.mlp((6, 1), head="linear"),
        lambda outputs, targets: (outputs - targets[None]) ** 2,
    )(jax.random.key(0), (b[0], b[1][..., 0])),
    "loss.outputs, targets..shape = \\(0,\\)": lambda net, b: _fit(
        net, lambda outputs, targets: outputs[:0, 0]
    )(jax.random.key(0), b),
    "a Trace": lambda net, b: sampling.stream(
        training.path(_fit(net), b), jax.random.key(0), 4, block_size=4
    ),
    "leaf.dtype = .*complex": lambda net, b: training.log_norms().init(np.ones(3) * 1j),
    "leaf.dtype = .*int": lambda net, b: training.log_norms().init({"a": np.arange(3)}),
    "measure": lambda net, b: training.log_norms("leaves"),
}


def _fit(network, loss=losses.squared_error):
    return training.trainer(network, optax.sgd(0.1), loss, 4)


@pytest.mark.parametrize("message", BAD)
def test_exact_bad_input(message):
    network = networks.mlp((6, 3), head="linear")
    with pytest.raises(ValueError, match=message):
        BAD[message](network, batches_for(network))


def log_norms_loop(trees):
    """Return last, mean and variance of the log squared norm of each leaf, by a plain
    loop.
    """
    logs = np.array(
        [
            [
                np.log(np.sum(np.square(np.float64(leaf))))
                for leaf in jax.tree.leaves(tree)
            ]
            for tree in trees
        ]
    )
    return logs[-1], logs.mean(0), logs.var(0, ddof=1)


def gradients(dtype, steps=5):
    rng = np.random.default_rng(3)

    def tree(scale):
        return {
            "a": jnp.asarray(scale * rng.normal(size=(3, 4)), dtype),
            "b": [
                jnp.asarray(scale * rng.normal(size=7), dtype),
                jnp.asarray(scale, dtype),
            ],
        }

    return [tree(10.0 ** rng.normal()) for _ in range(steps)]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_oracle_log_norms_is_a_plain_loop(dtype):
    trees, recorder = gradients(dtype), training.log_norms()
    state, update = recorder.init(trees[0]), jax.jit(recorder.update)
    for tree in trees:
        same, state = update(tree, state)
        jax.tree.map(np.testing.assert_array_equal, same, tree)
    last, mean, variance = log_norms_loop(trees)
    np.testing.assert_allclose(state.log_norm, last, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state.mean, mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state.variance, variance, rtol=1e-5)
    assert state.count.tolist() == [5, 5, 5]


def test_exact_state_of_log_norms_may_be_donated():
    optimizer = optax.chain(training.log_norms(), optax.sgd(0.1))
    tree = {"a": jnp.ones(3), "b": jnp.ones(()), "c": 2.0}
    state = optimizer.init(tree)
    for _ in range(2):
        _, state = jax.jit(optimizer.update, donate_argnums=1)(tree, state)
    np.testing.assert_allclose(state[0].mean, np.log([3, 1, 4]), rtol=1e-6)


def test_oracle_log_norms_under_vmap():
    """Each of the trees that are mapped over has the numbers of its own loop."""
    trees, recorder = gradients(jnp.float32, 10), training.log_norms()
    pairs = [
        jax.tree.map(lambda a, b: jnp.stack([a, b]), *pair)
        for pair in zip(trees[:5], trees[5:], strict=True)
    ]
    state, update = (
        jax.vmap(recorder.init)(pairs[0]),
        jax.jit(jax.vmap(recorder.update)),
    )
    for pair in pairs:
        _, state = update(pair, state)
    for i, own in enumerate((trees[:5], trees[5:])):
        last, mean, variance = log_norms_loop(own)
        np.testing.assert_allclose(state.log_norm[i], last, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.mean[i], mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.variance[i], variance, rtol=1e-5)


def test_oracle_log_norms_sees_gradients_first_and_updates_last():
    trees = gradients(jnp.float32)
    optimizer = optax.chain(
        training.log_norms(), optax.scale(-0.5), training.log_norms()
    )
    bare, state, update = (
        optax.scale(-0.5),
        optimizer.init(trees[0]),
        jax.jit(optimizer.update),
    )
    for tree in trees:
        updates, state = update(tree, state)
        wanted, _ = bare.update(tree, bare.init(tree))
        jax.tree.map(np.testing.assert_array_equal, updates, wanted)
    np.testing.assert_allclose(
        state[2].mean, state[0].mean + np.log(0.25), rtol=1e-5, atol=1e-6
    )


def test_oracle_log_norms_inside_other_transformations():
    trees = gradients(jnp.float32)
    labels = {"a": "train", "b": ["train", "freeze"]}
    parts = {
        "train": optax.chain(training.log_norms(), optax.scale(-1.0)),
        "freeze": optax.set_to_zero(),
    }
    optimizer = optax.apply_if_finite(optax.multi_transform(parts, labels), 3)
    state, update = optimizer.init(trees[0]), jax.jit(optimizer.update)
    for i, tree in enumerate(trees):
        if i == 2:  # one gradient is not finite: that step is left out
            _, state = update({"a": tree["a"] * jnp.nan, "b": tree["b"]}, state)
        _, state = update(tree, state)
    last, mean, _ = log_norms_loop(trees)
    np.testing.assert_allclose(
        optax.tree.get(state, "log_norm"), last[:2], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        optax.tree.get(state, "mean"), mean[:2], rtol=1e-5, atol=1e-5
    )
    assert optax.tree.get(state, "m2").shape == (2,)


def test_exact_log_norms_of_nothing_zero_and_not_finite():
    recorder = training.log_norms()
    assert recorder.update({}, recorder.init({}))[1].log_norm.shape == (0,)
    trees = [
        jnp.ones(3),
        jnp.zeros(3),
        jnp.array([1.0, jnp.nan, 0.0]),
        jnp.full(3, 2.0),
    ]
    state = recorder.init(trees[0])
    seen = []
    for tree in trees:
        _, state = recorder.update(tree, state)
        seen.append(float(state.log_norm[0]))
    np.testing.assert_allclose(
        seen, [np.log(3), -np.inf, np.inf, np.log(12)], rtol=1e-6
    )
    assert state.count.tolist() == [2]
    np.testing.assert_allclose(state.mean, [np.log(6)], rtol=1e-6)
    np.testing.assert_allclose(state.variance, [np.log(4) ** 2 / 2], rtol=1e-5)


def test_oracle_log_norms_by_layer_of_a_network_in_a_fit(key):
    network = NETWORKS["relu"]
    measure = functools.partial(training.layer_log_norms, network)
    optimizer = optax.chain(training.log_norms(measure), optax.sgd(0.1))
    batches = batches_for(network)
    fit = training.trainer(network, optimizer, losses.squared_error, STEPS)
    bare = training.trainer(network, optax.sgd(0.1), losses.squared_error, STEPS)
    (params, history), (plain, _) = (jax.jit(f)(key, batches) for f in (fit, bare))
    jax.tree.map(np.testing.assert_array_equal, params, plain)
    gradient = jax.grad(
        lambda p: jnp.mean(
            losses.squared_error(
                jax.vmap(lambda x: network.apply(p, x))(
                    jnp.asarray(batches[0][0], jnp.float32)
                ),
                jnp.asarray(batches[1][0], jnp.float32),
            )
        )
    )
    if not jax.config.jax_enable_x64:
        first = measure(gradient(network.init(key)))
        np.testing.assert_allclose(history.log_gradient[0], first, rtol=1e-5, atol=1e-5)


def test_oracle_norms_of_layers_of_several_linear_maps(key):
    """Of all of a layer's matrices together, and of no bias."""
    network = networks.transformer(4, 2, heads=2, tokens=3)
    trained = network.init(key).trained
    found = training.layer_log_norms(network, trained)
    assert found.shape == (len(network.kinds),)
    for kind, places in zip(trained, network.places(), strict=True):
        for row, layer in enumerate(places):
            squares = [np.square(part["weight"][row]).sum() for part in kind.values()]
            np.testing.assert_allclose(found[layer], np.log(sum(squares)), rtol=1e-5)
