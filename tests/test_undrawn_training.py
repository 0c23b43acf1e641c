"""Training without matrices: against plain training of the very matrices, where all of
them is met; and in law against networks that are drawn.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from experiments import _data
from lognorm_jax import (
    losses,
    networks,
    runs,
    sampling,
    training,
    weights,
)
from lognorm_jax.training import (
    _crossover,
    _moved,
    _steps,
    _undrawn,
    _undrawn_layers,
    _undrawn_passes,
)

SLOW = optax.linear_schedule(0.2, 0.05, 4)
MOMENTUM = optax.sgd(SLOW, momentum=0.9, nesterov=True)
DECAY = optax.chain(optax.add_decayed_weights(0.3), optax.sgd(0.2))
KS = functools.partial(scipy.stats.ks_2samp, method="asymp")
FORGOTTEN = ("right", "images")
FIELDS = ("loss", "log_gradient", "increment", "update_ratio")


def batches(network, num_steps, batch, seed=1):
    """Return normal inputs and targets."""
    rng = np.random.default_rng(seed)
    output = network.outputs(jnp.result_type(float))[-1].shape
    inputs = rng.normal(size=(num_steps, batch, *network.shape))
    return inputs, rng.normal(size=(num_steps, batch, *output))


def met(network, end):
    """Return the weights of all layers, of matrices that met vectors of all
    directions: of each kind and linear map.
    """
    by_layer = {}
    pairs = zip(_undrawn_passes.stretches(network), end.moved, strict=True)
    for (_, places), of_stretch in pairs:
        for layers, matrices in zip(places, of_stretch, strict=True):
            found = [known(one.base) for one in matrices]
            for i, layer in enumerate(layers):
                by_layer[int(layer)] = [W[i] for W in found]
    return [
        [
            jnp.stack(of_map)
            for of_map in zip(*(by_layer[i] for i in places), strict=True)
        ]
        for places in network.places()
    ]


def known(base):
    """Return matrices W_0 of which all is met, stacked."""
    n_out, n_in = base.shape
    assert np.linalg.matrix_rank(base.right[0], tol=1e-3) == n_in
    W = jnp.einsum("lro,lri->loi", base.images, base.right)
    if not isinstance(base, _moved.undrawn.Normal):
        W = base.scale[:, None, None] * W
    return W[:, :n_out, :n_in]


def plain(network, optimizer, loss, key, given, weight):
    """Return the History of networks with these weights, by plain training."""
    inputs, targets = given
    drawn = network.init(key)
    trained = []
    for kind, own, of_kind in zip(
        dict.fromkeys(network.kinds), drawn.trained, weight, strict=True
    ):
        each = [
            {**part, "weight": W.reshape(part["weight"].shape)}
            for part, W in zip(kind.parts(own), of_kind, strict=True)
        ]
        trained.append(kind.named(each))
    probe = inputs[0, 0]
    tangent = probe / jnp.linalg.norm(probe)
    step = _steps.train_step(network, optimizer, loss, drawn.fixed, probe, tangent)
    start = _steps.State(trained, optimizer.init(trained), jnp.bool_(True))
    end, history = jax.lax.scan(step, start, (inputs, targets))
    return networks.Params(end.trained, drawn.fixed), history


def twice(maps, x):
    """Return a layer's output that uses one matrix twice, and another between."""
    return x + maps["one"](jnp.tanh(maps["other"](jnp.tanh(maps["one"](x)))))


TWICE = networks.network(
    (4,),
    [
        networks.layer(
            twice,
            {
                "one": networks.linear(4, 4, bias_scale=0.2),
                "other": networks.linear(4, 4, weight_law=weights.orthogonal()),
            },
        )
    ]
    * 2,
)
ALL_MET = [
    (networks.relu_mlp((3, 4, 4, 2), bias_scale=0.3), MOMENTUM),
    (networks.mlp((4, 4, 4), "tanh", weight_law=weights.orthogonal()), MOMENTUM),
]
ALL_MET_TOO = [
    (networks.mlp((3, 4, 4, 2), "tanh", 0.1, head="linear"), DECAY),
    (networks.residual(4, 3, "vanilla", input_width=3), optax.sgd(0.1, 0.5)),
    (networks.residual(4, 3, "balanced", input_width=3), optax.sgd(0.1)),
    (networks.conv((1, 2, 2), (4,), 3, "tanh", 0.1), MOMENTUM),
    (networks.transformer(4, 1, heads=2, tokens=3), optax.sgd(0.05)),
    (networks.gated((4, 4, 2)), optax.sgd(0.1)),
    (TWICE, optax.sgd(0.1, 0.9)),
]


@pytest.mark.parametrize(
    ("network", "optimizer"),
    [*ALL_MET, *(pytest.param(*c, marks=pytest.mark.slow) for c in ALL_MET_TOO)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_oracle_training_of_the_matrices_that_were_met(network, optimizer, key):
    """A batch of all directions tells all of a matrix; then there is nothing left to
    chance, and what was recorded is what plain training of it records.
    """
    fit = training.trainer(network, optimizer, losses.squared_error, 4, drawn=False)
    given = fit.checked(batches(network, 4, 12))
    at = fit._probe_and_tangent(given[0])
    train = functools.partial(
        _undrawn.train, network, fit.optimizer, fit.loss, key, given
    )
    outputs, history = train(*at)
    end = outputs.args[3]
    params, expected = plain(
        network, fit.optimizer, fit.loss, key, given, met(network, end)
    )
    close = {"rtol": 2e-3, "atol": 2e-4}
    if jax.config.jax_enable_x64:
        close = {"rtol": 1e-9, "atol": 1e-10}
    for field in FIELDS:
        seen, wanted = getattr(history, field), getattr(expected, field)
        np.testing.assert_allclose(seen, wanted, err_msg=field, **close)
    assert history.finite.all()

    # and so is what the trained network makes of other inputs
    others, _ = batches(network, 1, 5, seed=2)
    apply = jax.vmap(functools.partial(network.apply, params))
    others = jnp.asarray(others[0], jnp.result_type(float))
    np.testing.assert_allclose(outputs(others), apply(others), **close)


def p_values(network, optimizer, num_steps, batch, count, steps=None):
    """Return the p-values of all that is recorded at some steps, and of outputs on
    other inputs, of networks that are drawn and not.
    """
    given = batches(network, num_steps, batch)
    others = batches(network, 1, 3, seed=2)[0][0]
    others = jnp.asarray(others, jnp.result_type(float))

    def of_drawn(params):
        apply = jax.vmap(functools.partial(network.apply, params))
        return jnp.mean(jnp.square(apply(others)))

    def of_undrawn(outputs):
        return jnp.mean(jnp.square(outputs(others)))

    seen = []
    for seed, drawn, observe in ((0, True, of_drawn), (1, False, of_undrawn)):
        fit = training.trainer(
            network, optimizer, losses.squared_error, num_steps, drawn=drawn
        )
        path = training.path(fit, given, observe=observe)
        seen.append(sampling.sample(path, jax.random.key(seed), count))
    (drawn, error), (undrawn, other) = seen
    # of seeds that diverged they may be anything but finite
    errors = (np.where(np.isfinite(each), each, np.inf) for each in (error, other))
    found = {("outputs",): KS(*errors).pvalue}
    for field in FIELDS:
        pair = [
            np.asarray(getattr(each, field)).reshape(count, num_steps, -1)
            for each in (drawn, undrawn)
        ]
        for step in range(num_steps) if steps is None else steps:
            for layer in range(pair[0].shape[2]):
                columns = (each[:, step, layer] for each in pair)
                p = KS(*columns).pvalue
                found[field, step, layer] = p
    return found


UNUSED = networks.network(
    (4,),
    [
        networks.layer(
            lambda maps, x: maps["used"](x),
            {"used": networks.linear(4, 4), "not": networks.linear(4, 4)},
        )
    ],
)
CASES = {
    "relu": (networks.relu_mlp((6, 9, 9, 3), bias_scale=0.3), MOMENTUM),
    "tanh": (networks.mlp((6, 8, 8, 2), "tanh", 0.1, head="linear"), optax.sgd(0.2)),
    "residual": (
        networks.residual(8, 3, "vanilla", input_width=5),
        optax.sgd(0.05, momentum=0.5),
    ),
    "transformer": (networks.transformer(4, 1, heads=2, tokens=2), optax.sgd(0.05)),
    "orthogonal": (
        networks.mlp((6, 8, 8, 5), "tanh", 0.1, weight_law=weights.orthogonal()),
        optax.sgd(0.2),
    ),
}


def test_statistical_training_is_that_of_drawn_networks():
    found = p_values(*CASES["relu"], 3, 2, 1_000)
    assert min(found.values()) > 1e-4, min(found, key=found.get)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_statistical_twenty_steps_are_those_of_drawn_networks(case):
    """10,000 seeds, at steps 0, 1, 2, 5 and 20."""
    found = p_values(*CASES[case], 21, 2, 10_000, (0, 1, 2, 5, 20))
    assert min(found.values()) > 1e-4, min(found, key=found.get)


@pytest.mark.slow
def test_statistical_products_drawn_apart_are_seen(monkeypatch):
    """If the way back knew nothing of the way forward, it would be another law."""
    turned = _moved.turned

    def forgetful(moved):
        base = moved.base
        nothing = {name: jnp.zeros_like(getattr(base, name)) for name in FORGOTTEN}
        return turned(moved._replace(base=dataclasses.replace(base, **nothing)))

    monkeypatch.setattr(_undrawn_layers._moved, "turned", forgetful)
    found = p_values(*CASES["tanh"], 3, 2, 2_000)
    assert min(found.values()) < 1e-6


@pytest.mark.float32
@pytest.mark.parametrize(
    ("network", "optimizer", "message"),
    [
        (CASES["tanh"][0], optax.adam(1e-3), "update = 'not linear'.*drawn"),
        (CASES["tanh"][0], optax.rmsprop(1e-3), "not linear"),
        (CASES["tanh"][0], optax.sgd(np.inf), "not finite.*learning rate"),
        (
            CASES["tanh"][0],
            optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
            "not linear.*clipping",
        ),
        (CASES["tanh"][0], optax.chain(optax.clip(1.0), optax.sgd(0.1)), "not linear"),
        (
            networks.mlp((4, 4, 2), weight_law=weights.rademacher()),
            optax.sgd(0.1),
            "network = .*layer 0.*normal or orthogonal.*drawn=True",
        ),
        (UNUSED, optax.sgd(0.1), "network = .*layer 0.*uses all of its linear maps"),
    ],
)
def test_exact_what_needs_matrices_is_refused(network, optimizer, message):
    with pytest.raises(ValueError, match=message):
        training.trainer(network, optimizer, losses.squared_error, 2, drawn=False)


@pytest.mark.float32
def test_exact_a_layer_without_maps(key):
    """It has no weights, whose norm is 0, and does not change."""
    linear = networks.linear(4, 4)
    layers = [
        networks.layer(lambda maps, x: maps["one"](x), {"one": linear}),
        networks.layer(lambda maps, x: jnp.tanh(x), {}),
        # of any name, that of its parts among them
        networks.layer(lambda maps, x: maps["weight"](x), {"weight": linear}),
    ]
    network = networks.network((4,), layers)
    for drawn in (True, False):
        fit = training.trainer(
            network, optax.sgd(0.1), losses.squared_error, 3, drawn=drawn
        )
        history = training.path(fit, batches(network, 3, 2))(key)
        assert np.all(np.isneginf(history.log_gradient[:, 1]))
        assert np.all(np.isfinite(history.log_gradient[:, [0, 2]]))
        assert np.all(history.update_ratio[:, 1] == 0)
        assert np.all(history.update_ratio[:, [0, 2]] > 0)
        assert history.finite.all()


@pytest.mark.float32
@pytest.mark.parametrize("drawn", [False, None])
def test_exact_the_trained_network_is_asked_once(drawn, key):
    """Two questions would be answered by two networks; a derivative is of none."""
    network, optimizer = CASES["tanh"]
    fit = training.trainer(network, optimizer, losses.squared_error, 2, drawn=drawn)
    X = np.ones((3, 6), np.float32)
    for observe, message in (
        (lambda ask: ask(X) + ask(-X), "asks twice.*concatenate"),
        (
            lambda ask: jax.grad(lambda x: ask(x).sum())(jnp.asarray(X)),
            "differentiate.*drawn=True",
        ),
    ):
        path = training.path(fit, batches(network, 2, 2), observe=observe)
        with pytest.raises(ValueError, match=message):
            path(key)


@pytest.mark.float32
def test_exact_none_gives_the_network_whatever_it_settles_on(key):
    """A function of inputs, also where weights have to be drawn."""
    network, sgd = CASES["tanh"]
    X = np.ones((3, 6), np.float32)
    for optimizer in (sgd, optax.adam(0.1)):
        fit = training.trainer(network, optimizer, losses.squared_error, 2, drawn=None)
        path = training.path(fit, batches(network, 2, 2), observe=lambda ask: ask(X))
        assert path(key)[1].shape == (3, 2)
    # of one that cannot be tried out
    fit = training.trainer(network, optax.lbfgs(), losses.squared_error, 2, drawn=None)
    assert fit.drawn is None and fit.settled(1).drawn


@pytest.mark.float32
@pytest.mark.parametrize("drawn", [True, False])
def test_exact_large_inputs_and_small_cotangents(drawn, key):
    """Squares of the former overflow; what is learned does not."""
    network = networks.relu_mlp((5, 6, 3), head="linear")
    inputs, targets = batches(network, 3, 1)
    fit = training.trainer(
        network, optax.sgd(0.5), lambda outputs, t: outputs * t, 3, drawn=drawn
    )
    given = inputs * np.float32(1e20), targets * np.float32(1e-30)
    history = sampling.sample(training.path(fit, given), key, 16)
    assert history.finite.all()


def test_exact_a_seed_that_diverges_stays_where_it_was(key):
    """No NaN is recorded, and the others are not touched."""
    network = networks.mlp((4, 8, 8, 8, 2), "relu", head="linear")
    fit = training.trainer(
        network, optax.sgd(30.0), losses.squared_error, 8, drawn=False
    )
    history = sampling.sample(training.path(fit, batches(network, 8, 2)), key, 64)
    assert not any(np.isnan(leaf).any() for leaf in history)
    assert not history.finite.all() and history.finite[:, 0].all()
    lost = ~history.finite
    assert np.isposinf(history.loss[lost]).all()
    assert np.isfinite(history.loss[history.finite]).all()


@pytest.mark.float32
def test_exact_what_diverged_does_not_touch_what_is_asked_later(key):
    """A step whose numbers overflow leaves the network that was there before."""
    network = networks.mlp((4, 8, 8, 8, 2), "relu", head="linear")
    fit = training.trainer(
        network, optax.sgd(0.01), losses.squared_error, 8, drawn=False
    )
    inputs, targets = batches(network, 8, 2)
    inputs[4] *= 1e38  # and then as before

    def ends(outputs):
        return jnp.max(jnp.abs(outputs(jnp.ones((3, 4)))))

    path = training.path(fit, (inputs, targets), observe=ends)
    history, end = sampling.sample(path, key, 16)
    assert history.finite[:, :4].all() and not history.finite[:, 4:].any()
    assert np.isfinite(end).all() and np.median(end) < 100


@pytest.mark.float32
@pytest.mark.parametrize("drawn", [True, False])
def test_exact_updates_that_are_too_large_are_not_made(key, drawn):
    """Their norm is above a quarter of the largest number, though each number is
    finite: the first step is where both ways of training stop.
    """
    network = networks.mlp((4, 8, 2), "relu", head="linear")

    def loss(outputs, targets):
        return outputs * targets

    inputs, targets = batches(network, 3, 2)
    for scale, finite in ((1e18, True), (3e20, False)):
        fit = training.trainer(network, optax.sgd(1e18), loss, 1, drawn=drawn)
        given = inputs[:1], scale * np.sign(targets[:1])
        history = sampling.sample(training.path(fit, given), key, 8)
        assert (history.finite == finite).all()


def test_invariance_of_blocks_and_resumption(key, tmp_path):
    network, optimizer = CASES["tanh"]
    fit = training.trainer(network, optimizer, losses.squared_error, 3, drawn=False)
    path = training.path(fit, batches(network, 3, 2))
    whole = sampling.sample(path, key, 24, block_size=8)
    spec = {"path": "training without matrices"}
    run = runs.open_run(tmp_path, spec)
    sampling.sample(path, key, 8, block_size=8, run=run)
    again = sampling.sample(
        path, key, 24, block_size=8, run=runs.open_run(tmp_path, spec)
    )
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.float32
def test_exact_wide_layers_are_not_drawn():
    """10⁸ weights a layer, in a moment: they would not fit."""
    width = 10_000
    network = networks.relu_mlp((width,) * 4)
    fit = training.trainer(
        network, optax.sgd(0.1), losses.squared_error, 2, drawn=False
    )
    rng = np.random.default_rng(0)
    given = rng.normal(size=(2, 2, 2, width)).astype("float32") / width**0.5
    history = training.path(fit, tuple(given))(jax.random.key(0))
    assert bool(history.finite.all())
    assert np.all(np.abs(history.increment) < 0.5)  # 5/n and the drift are small


def test_exact_digits_are_learned_without_matrices(key):
    """Real data, and the labels' loss."""
    images, labels, *_ = _data.digits()
    network = networks.mlp((64, 32, 32, 10), "relu", head="linear")
    chosen = np.random.default_rng(0).integers(0, len(images), (20, 8))
    fit = training.trainer(
        network, optax.sgd(0.05), losses.cross_entropy, 20, drawn=False
    )
    path = training.path(fit, (images[chosen], labels[chosen]))
    history = sampling.sample(path, key, 8, block_size=8)
    assert history.loss[:, -5:].mean() < 0.7 * history.loss[:, :2].mean()


@pytest.mark.float32
def test_statistical_norm_of_a_matrix_that_met_a_few_vectors():
    """The rest of it is drawn at the end: in all it is χ² of as many degrees of freedom
    as there are weights.
    """
    (one,) = networks.mlp((7, 6), "tanh").kinds[0].maps

    def square(key):
        ahead, back, rest, given = jax.random.split(key, 4)
        V, P = (
            jax.random.normal(each, shape)
            for each, shape in zip(
                jax.random.split(given), [(2, 7), (3, 6)], strict=True
            )
        )
        moved, c = _moved.unmoved(one, 3, 2, 1), jnp.array([1.0, 0.0])
        found, _ = _moved.product(moved, c, ahead, V)
        turned = _moved.turned(_moved.beside(moved, found))
        found, _ = _moved.product(turned, c, back, P)
        base = _moved.turned(_moved.beside(turned, found)).base
        return _moved._square(base, rest) / one.std**2

    squares = jax.vmap(square)(jax.random.split(jax.random.key(0), 20_000))
    assert scipy.stats.kstest(squares, scipy.stats.chi2(42).cdf).pvalue > 1e-4


@pytest.mark.float32
def test_exact_no_key_is_used_twice(key):
    """By layers, steps, and the two directions; nor is that of a layer's biases."""
    network, _ = CASES["tanh"]
    used = []
    for layer, kind in enumerate(network.kinds):
        (pair,), fixed = kind.keys(key, layer)
        used += [*pair, fixed]
        for step in (0, 1, 20, _undrawn._AFTER):
            for side in _undrawn_layers.keys(kind, key, layer, jnp.uint32(step)):
                used += side
    data = np.stack([jax.random.key_data(each) for each in used])
    assert len(np.unique(data, axis=0)) == len(used)


@pytest.mark.float32
def test_exact_directions_stay_orthonormal_over_fifty_steps(key):
    """Of digits; probe and tangent are met again and again by the first layer, and
    rounding of what was met must not become a direction.
    """
    images, labels, test_images, _ = _data.digits()
    network = networks.relu_mlp((64, *(128,) * 4, 10), fan="in", head="linear")
    fit = training.trainer(
        network,
        optax.sgd(2 / (128 * 5)),
        losses.squared_error,
        51,
        probe=test_images[0],
        tangent=np.random.default_rng(0).normal(size=64),
        drawn=False,
    )
    given = fit.checked((images[:51, None], np.eye(10)[labels[:51]][:, None]))
    at = fit._probe_and_tangent(given[0])

    @jax.jit
    def train(key):
        outputs, history = _undrawn.train(
            network, fit.optimizer, fit.loss, key, given, *at
        )
        return outputs.args[3].moved, history

    moved, history = train(key)
    assert history.finite.all() and history.loss[-5:].mean() < history.loss[0]
    for matrix in jax.tree.leaves(moved, is_leaf=lambda x: isinstance(x, _moved.Moved)):
        for rows in (matrix.base.right, _moved.lefts(matrix.base)):
            rows = np.asarray(rows, np.float64)
            gram = np.einsum("lrn,lsn->lrs", rows, rows)
            there = np.einsum("lrr->lr", gram).round()
            wanted = np.einsum("lr,rs->lrs", there, np.eye(there.shape[1]))
            assert np.abs(gram - wanted).max() < 3e-6


@pytest.mark.float32
def test_exact_weights_are_drawn_where_that_is_less_work():
    wide = networks.relu_mlp((4, 400, 400, 2), fan="in", head="linear")
    narrow = networks.relu_mlp((4, 8, 8, 2), fan="in", head="linear")

    def make(network, optimizer, drawn=None):
        return training.trainer(
            network, optimizer, losses.squared_error, 3, drawn=drawn
        )

    assert make(wide, optax.sgd(0.1)).settled(2).drawn is False
    assert make(narrow, optax.sgd(0.1)).settled(2).drawn is True
    assert make(wide, optax.sgd(0.1)).settled(64).drawn is True
    # there is no other way
    assert make(wide, optax.adam(0.1)).settled(2).drawn is True
    rademacher = networks.mlp((4, 400, 2), weight_law=weights.rademacher())
    assert make(rademacher, optax.sgd(0.1)).settled(2).drawn is True
    assert make(wide, optax.sgd(0.1), True).settled(2).drawn is True

    # the trained network is a function of inputs, either way
    for network in (wide, narrow):
        given = batches(network, 3, 2)
        fit = make(network, optax.sgd(0.01))
        path = training.path(fit, given, observe=lambda ask: ask(np.ones((5, 4))))
        history, outputs = path(jax.random.key(0))
        assert outputs.shape == (5, 2) and history.finite.all()
        params, same = fit(jax.random.key(0), given)
        np.testing.assert_allclose(same.loss, history.loss, rtol=1e-4)
        assert (params is None) == (network is wide)
    apply = functools.partial(narrow.apply, params)
    np.testing.assert_allclose(outputs, jax.vmap(apply)(jnp.ones((5, 4))), rtol=1e-4)
    with pytest.raises(ValueError, match="drawn = 1: "):
        make(wide, optax.sgd(0.1), 1)


@pytest.mark.float32
@pytest.mark.parametrize(
    "network",
    [
        networks.transformer(4, 2, heads=2, tokens=3),
        networks.mlp((3, 7, 2, 5), "tanh", weight_law=weights.orthogonal()),
    ],
    ids=lambda network: network.name,
)
def test_oracle_numbers_that_are_kept(network):
    """Of the state itself, but for the coordinates of gradients, which are few."""
    steps, batch = 5, 2
    weights, met = _crossover.numbers(network, batch, steps)
    params = network.init(jax.random.key(0)).trained
    sizes = [
        leaf.size
        for path, leaf in jax.tree.leaves_with_path(params)
        if path[-1].key == "weight"
    ]
    assert weights == sum(sizes)
    optimizer = optax.sgd(0.1)
    state = jax.eval_shape(
        lambda key: _undrawn._fresh(
            network, optimizer, network.init(key), batch, steps
        ),
        jax.random.key(0),
    )
    matrices = jax.tree.leaves(
        state.moved, is_leaf=lambda x: isinstance(x, _moved.Moved)
    )
    fields = ("right", "images", "left", "pulled")
    kept = sum(
        getattr(m.base, name).size
        for m in matrices
        for name in fields
        if hasattr(m.base, name)
    )
    assert met == kept
