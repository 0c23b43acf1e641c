"""Architectures followed in law, forward and back, against networks that are drawn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy

from lognorm_jax import (
    activations,
    ensembles,
    kernels,
    losses,
    masks,
    networks,
    paths,
    probes,
    sampling,
    summaries,
    training,
    weights,
)
from lognorm_jax._tools import undrawn

RING = np.array([[0.5, 0.5, 0], [0.3, 0.4, 0.3], [0, 0.5, 0.5]])
ORTHOGONAL = weights.orthogonal()
WIDTHS = (4, 5, 5, 3)
TRANSFORMER = functools.partial(networks.transformer, 6, 2, 2, 3, init="lecun")
ARCHITECTURES = {
    "mlp": lambda: networks.mlp(WIDTHS, "tanh", 0.3),
    "relu": lambda: networks.relu_mlp(WIDTHS),
    "sine": lambda: networks.mlp(WIDTHS, activations.sine(2.0), 0.2),
    "residual": lambda: networks.residual(5, 3, activation="gelu", bias_scale=0.2),
    "conv": lambda: networks.conv((2, 3, 3), (4,), 3, "gelu", 0.1),
    "pre-norm": lambda: TRANSFORMER(bias_scale=0.1),
    "post-norm": lambda: TRANSFORMER(
        norm="post", activation="swiglu", normalisation="rms", attention="full"
    ),
    "no norm": lambda: TRANSFORMER(norm="none", activation="relu", residual="depth"),
    "deepnorm": lambda: TRANSFORMER(norm="post", residual="deepnorm"),
    "one token, heads of width 1": lambda: networks.transformer(
        4, 2, 4, 1, init="lecun"
    ),
    "recurrent": lambda: networks.recurrent(4, 4, bias_scale=0.3),
    "graph": lambda: networks.graph(RING, WIDTHS, "gelu", 0.2),
    "graph, relu": lambda: networks.graph(RING, WIDTHS),
    "batch norm": lambda: networks.batch_normalised(WIDTHS, 6),
    "maxout": lambda: networks.maxout(WIDTHS, 3, 0.1),
    "gated": lambda: networks.gated(WIDTHS),
    "orthogonal": lambda: networks.mlp(
        (4, 4, 6, 3), "tanh", 0.3, weight_law=ORTHOGONAL
    ),
    "orthogonal, recurrent": lambda: networks.recurrent(
        4, 4, bias_scale=0.3, weight_law=ORTHOGONAL
    ),
}
LINE = networks.layer(lambda maps, x: maps["line"](x), {"line": networks.linear(2, 2)})
BACKWARD = ("post-norm", "deepnorm", "conv", "batch norm", "maxout", "orthogonal")
QUICK = ("pre-norm", "recurrent", "orthogonal, recurrent", "graph, relu")


def vectors(network, count=2):
    """Return inputs and tangents, (count, *shape), and cotangents of the outputs."""
    rng = np.random.default_rng(0)
    output = network.outputs(jnp.result_type(float))[-1].shape
    inputs, along = rng.normal(size=(2, count, *network.shape))
    return inputs, along, rng.normal(size=(count, *output))


def p_values(a, b):
    """Return the p-value of each column, of two samples."""
    a, b = (np.asarray(part).reshape(len(part), -1).T for part in (a, b))
    return [scipy.stats.ks_2samp(*pair).pvalue for pair in zip(a, b, strict=True)]


def of_two_inputs(path, network, key, count):
    """Return a sample of what two inputs do along tangents: increments, log-norms, and
    how these differ.
    """
    inputs, along, _ = vectors(network)
    if path is paths.gram:
        increment = sampling.sample(path(network, inputs, along), key, count).increment
    else:
        # of one network
        both = [path(network, x, u) for x, u in zip(inputs, along, strict=True)]
        traces = sampling.sample(lambda k: [one(k) for one in both], key, count)
        increment = np.stack([trace.increment for trace in traces], axis=1)
    log_norm = increment.sum(-1)
    # of two that are dead: 0
    alive = np.where(np.isneginf(log_norm), -1e3, log_norm)
    ratio = alive[:, :1] - alive[:, 1:]
    return np.concatenate([increment.reshape(count, -1), log_norm, ratio], axis=1)


def half_square(outputs):
    """A loss that goes back by what came forward."""
    return jnp.sum(outputs**2) / 2


def compared(network, key, count, drawn=None):
    """Return p-values of a network in law against one that is drawn: along tangents,
    and of gradients.
    """
    drawn = network if drawn is None else drawn
    inputs, *_ = vectors(network)
    keys = jax.random.split(key)
    along = p_values(
        of_two_inputs(paths.gram, network, keys[0], count),
        of_two_inputs(paths.jacobian, drawn, keys[1], count),
    )
    followed = paths.gradients(network, inputs, half_square)
    back = p_values(
        sampling.sample(followed, keys[0], count),
        sampling.sample(
            paths.gradients(drawn, inputs, half_square, drawn=True), keys[1], count
        ),
    )
    return along, back


@pytest.mark.parametrize("name", QUICK)
def test_statistical_architectures_equal_drawn_ones_in_law(name, key):
    along, back = compared(ARCHITECTURES[name](), key, 4_000)
    assert min(*along, *back) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_statistical_20_000_of_each_architecture_equal_drawn_ones(name, key):
    along, back = compared(ARCHITECTURES[name](), key, 20_000)
    assert min(*along, *back) > 1e-4


def backward_pair(network, key, count):
    """Return what layers do to the cotangents of two inputs, in law and drawn."""
    inputs, _, cotangents = vectors(network)
    keys = jax.random.split(key)
    mine = sampling.sample(paths.backward(network, inputs, cotangents), keys[0], count)

    def drawn(key):
        layers = network.layers(network.init(key))
        both = zip(inputs, cotangents, strict=True)
        return jnp.stack([probes.vjp_increments(layers, *one) for one in both])

    return mine, sampling.sample(drawn, keys[1], count)


def of_cotangents(increments):
    """Return increments, log-norms and how those of two inputs differ, all finite."""
    increments = np.where(np.isneginf(increments), -1e3, increments)
    whole = increments.sum(-1)
    flat = increments.reshape(len(increments), -1)
    return np.concatenate([flat, whole, whole[:, :1] - whole[:, 1:]], axis=1)


@pytest.mark.parametrize("name", QUICK)
def test_statistical_cotangents_go_back_as_through_drawn_networks(name, key):
    mine, drawn = backward_pair(ARCHITECTURES[name](), key, 4_000)
    assert min(p_values(of_cotangents(mine), of_cotangents(drawn))) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKWARD)
def test_statistical_20_000_cotangents(name, key):
    mine, drawn = backward_pair(ARCHITECTURES[name](), key, 20_000)
    assert min(p_values(of_cotangents(mine), of_cotangents(drawn))) > 1e-4


def test_exact_cotangents_of_one_input_and_of_several(key, rounding):
    """One row each; dead from the layer that kills them back to the first."""
    network = ARCHITECTURES["pre-norm"]()
    inputs, _, (c, _) = vectors(network)
    one = paths.backward(network, inputs[0], c)(key)
    (alone,) = paths.backward(network, inputs[:1], c[None])(key)
    assert one.shape == (4,) and np.allclose(one, alone, rtol=rounding)
    dead = networks.network(
        (2,), [LINE, networks.layer(lambda maps, x: 0 * x, {}), LINE]
    )
    increments = np.asarray(paths.backward(dead, np.ones(2), np.ones(2))(key))
    assert np.array_equal(np.isneginf(increments), [True, True, False])


def test_exact_cotangents_of_any_size(key):
    """What a cotangent does to gradients is its size, and to increments nothing."""
    network = ARCHITECTURES["mlp"]()
    (x, _), _, (c, _) = vectors(network)
    increments = paths.backward(network, x, c)(key)
    logs = paths.gradients(network, x, c)(key)
    K = kernels.path(network, x[None], c)(key)
    for size in (1e39, 1e-40):
        again = paths.backward(network, x, size * c)(key)
        assert np.allclose(again, increments, atol=1e-5)
        moved = paths.gradients(network, x, size * c)(key)
        assert np.allclose(moved - 2 * np.log(size), logs, atol=1e-4)
    assert np.allclose(kernels.path(network, x[None], 1e15 * c)(key) / 1e30, K)


def test_exact_maps_inside_of_transformations_are_refused():
    def apply(maps, X):
        return jax.vmap(maps["a"])(X)

    layer = networks.layer(apply, {"a": networks.linear(3, 3)})
    network = networks.network((2, 3), [layer])
    with pytest.raises(ValueError, match=r"maps a: .*inside of jit, vmap.*outside"):
        paths.gram(network, np.ones((2, 3)))(jax.random.key(0))


def apart(matrix, key, V):
    """Return products of inputs and of tangents with two matrices."""
    return jnp.concatenate(
        [once(matrix, jax.random.fold_in(key, i), V) for i, V in enumerate(halves(V))]
    )


once = undrawn.once


def halves(V):
    return jnp.split(V, 2)


def forgotten(matrix):
    """Return a transpose that has met nothing."""
    return undrawn.normal(matrix.shape[::-1], matrix.std)


def test_statistical_tangents_apart_from_activations_are_found(key, monkeypatch):
    monkeypatch.setattr(undrawn, "once", apart)
    along, _ = compared(ARCHITECTURES["residual"](), key, 4_000)
    assert min(along) < 1e-6


def test_statistical_a_way_back_that_forgets_is_found(key, monkeypatch):
    monkeypatch.setattr(undrawn, "transposed", forgotten)
    network = ARCHITECTURES["mlp"]()
    along, back = compared(network, key, 4_000)
    assert min(along) > 1e-4 and min(back) < 1e-6
    mine, drawn = backward_pair(network, key, 4_000)
    assert min(p_values(of_cotangents(mine), of_cotangents(drawn))) < 1e-6


def test_statistical_a_tied_matrix_drawn_at_each_step_is_found(key):
    samples = [
        of_two_inputs(path, network, key, 4_000)
        for path, network in (
            (paths.gram, networks.mlp((4,) * 5, "tanh", 0.3)),
            (paths.jacobian, ARCHITECTURES["recurrent"]()),
        )
    ]
    assert min(p_values(*samples)) < 1e-6


@pytest.mark.parametrize("pieces", [1, 2, 3, 4])
def test_statistical_limit_law_of_maxout(pieces, key):
    """Along the input; its moments by published numbers."""
    gain = {1: 1, 2: 1, 3: 0.78391, 4: 0.64461}[pieces]
    network = networks.maxout((100,) * 11, pieces, gain=1.1 * gain)
    law = networks.limit_law(network)
    n_variance = {1: 2, 2: 2, 3: 1.5776, 4: 1.2393}[pieces]
    assert np.isclose(law.variance, n_variance / 10, rtol=1e-4)
    assert np.isclose(law.mean, 10 * np.log(1.1) - law.variance / 2, atol=1e-4)
    logs = sampling.sample(paths.gram(network, np.ones(100)), key, 8_000).log_norm
    mean, variance, _ = summaries.estimate(np.asarray(logs, np.float64))
    assert abs(mean.value - law.mean) < 5 * mean.error + 4 / 100 * law.variance
    assert abs(variance.value / law.variance - 1) < 0.08 + 5 * 2**0.5 / 8_000**0.5
    x, u = np.random.default_rng(0).normal(size=(2, 100))
    assert networks.limit_law(network, x, -2 * x).variance == law.variance
    if pieces > 2:
        with pytest.raises(ValueError, match=r"(?s)tangent = .*x itself.*paths.gram"):
            networks.limit_law(network, x, u)


def test_exact_the_first_increment_of_maxout_is_that_of_a_linear_network(key):
    """Of two pieces without biases, in law: E R = 1, Var R = 2/n."""
    network = networks.maxout((6, 20, 20))
    path = paths.gram(network, np.ones(6))
    R = np.exp(sampling.sample(path, key, 20_000).increment[:, 1])
    assert abs(R.mean() - 1) < 5 * R.std() / 20_000**0.5
    error = np.std((R - 1) ** 2) / 20_000**0.5
    assert abs(R.var() - 2 / 20) < 5 * error
    three = paths.gram(networks.maxout((6, 20, 20), 3), np.ones(6))
    R = np.exp(sampling.sample(three, key, 20_000).increment[:, 1])
    assert R.mean() > 1.1


@pytest.mark.parametrize("name", ["pre-norm", "graph, relu", "batch norm", "recurrent"])
def test_exact_equal_tokens_and_zeros_are_normal(name, key):
    """Vectors of any rank: equal rows, rows of zeros, all alike."""
    network = ARCHITECTURES[name]()
    (x, *_), (u, *_), (c, *_) = vectors(network)
    same = np.broadcast_to(x[:1], x.shape) if x.ndim > 1 else x
    some = np.where(np.arange(x.shape[-1]) > 1, x, 0)
    for inputs in (same, np.ones(x.shape), some):
        increment = paths.gram(network, inputs, u)(key).increment
        assert not np.any(np.isnan(increment))
        gradients = paths.gradients(network, inputs, c)(key)
        assert gradients.shape == (len(network.matrices),)
        assert not np.any(np.isnan(gradients))


@pytest.mark.parametrize("name", ["pre-norm", "conv"])
def test_oracle_one_key_is_one_network(name, key, rounding):
    """With tangents and without, alone and beside another input, forward and back."""
    network = ARCHITECTURES[name]()
    inputs, along, cotangents = vectors(network)
    alone = paths.gram(network, inputs[0])(key).increment
    both = paths.gram(network, inputs, along)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2_000 * rounding)
    seen = paths.gram(network, inputs)(key).increment
    close(seen[0], alone)
    assert both(key).increment.shape == seen.shape

    # a loss is its cotangents
    def loss(outputs):
        return jnp.sum(outputs * jnp.asarray(cotangents, outputs.dtype))

    close(
        paths.gradients(network, inputs, loss)(key),
        paths.gradients(network, inputs, cotangents)(key),
    )
    # and twice the cotangents twice the gradients
    close(
        paths.gradients(network, inputs, 2 * cotangents)(key),
        paths.gradients(network, inputs, cotangents)(key) + 2 * np.log(2),
    )


def test_exact_dead_networks_have_no_gradients(key):
    """−inf is a value, of each matrix; NaN is where activations overflow."""
    network = networks.relu_mlp((3, 1, 1, 1, 1))
    path = paths.gradients(network, np.ones(3), np.ones(1))
    logs = np.asarray(sampling.sample(path, key, 200))
    dead = np.isneginf(logs)
    assert not np.isnan(logs).any() and 0 < dead.sum() < dead.size
    # a gradient needs all layers: of a chain of single units all die together
    assert np.all(dead.all(1) | ~dead.any(1))
    huge = networks.mlp((3, 4, 4, 4), "relu", 0.1, gain=1e30)
    lost = paths.gradients(huge, 1e30 * np.ones(3), np.ones(4))(key)
    assert np.all(np.isnan(lost)) or jax.config.jax_enable_x64


def test_exact_orthogonal_weights_are_orthogonal(key, rounding):
    law = weights.orthogonal()
    for shape in ((5, 5), (3, 7), (7, 3), (1, 1)):
        W = np.asarray(law.sample(key, shape, jnp.result_type(float)), np.float64)
        gram = W @ W.T if shape[0] <= shape[1] else W.T @ W
        np.testing.assert_allclose(
            gram, max(shape) * np.eye(min(shape)), atol=100 * rounding
        )


def test_statistical_products_of_orthogonal_matrices(key):
    """Var R = 3/(n + 2) for ReLU masks (Beta law), and ln R = 0 without masks."""
    n, count = 8, 20_000
    relu = ensembles.Ensemble((n,) * 3, weights.orthogonal(), masks.relu())
    R = np.exp(np.asarray(sampling.sample(paths.dense(relu), key, count).increment))
    expected = 3 / (n + 2)
    square = (R[:, 0] - 1) ** 2
    assert abs(square.mean() - expected) < 5 * square.std() / count**0.5
    plain = ensembles.Ensemble((n,) * 3, weights.orthogonal(), masks.identity())
    assert np.abs(paths.dense(plain)(key).increment).max() < 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TRANSFORMER.func(6, 2, 4, 3), r"heads = 4: .*divisor of the width"),
        (lambda: TRANSFORMER.func(6, 2, 2, 0), r"tokens = 0: "),
        (lambda: TRANSFORMER(residual="deepnorm"), r"residual = 'deepnorm': "),
        (lambda: TRANSFORMER(norm="both"), r"norm = 'both': "),
        (lambda: TRANSFORMER(init=0.0), r"init = 0.0: "),
        (lambda: networks.recurrent(0, 3), r"width = 0: "),
        (lambda: networks.graph(np.ones((2, 3)), WIDTHS), r"aggregation.shape = "),
        (lambda: networks.batch_normalised(WIDTHS, 1), r"batch = 1: "),
        (lambda: networks.maxout((3,)), r"widths = \(3,\): "),
        (lambda: networks.gated(WIDTHS, "relux"), r"activation = 'relux': "),
        (lambda: activations.sine(0.0), r"frequency = 0.0: "),
        (lambda: weights.orthogonal().moment(2), r"k = 2: "),
        (lambda: weights.sparse(0.5, ORTHOGONAL), r"base = 'orthogonal': "),
        (
            lambda: paths.gram(
                networks.mlp(WIDTHS, weight_law=weights.rademacher()), np.ones(4)
            ),
            r"network = .*layer 0.*weights are normal or orthogonal",
        ),
        (
            lambda: paths.gradients(ARCHITECTURES["mlp"](), np.ones(4), np.ones(4)),
            r"cotangent",
        ),
        (
            lambda: training.trainer(
                ARCHITECTURES["recurrent"](), optax.sgd(0.1), losses.squared_error, 2
            ),
            r"network = .*share a matrix",
        ),
        (
            lambda: networks.network(
                (4,),
                [
                    networks.layer(
                        lambda maps, x: maps["W"](x),
                        {"W": networks.linear(4, n, tied="W")},
                    )
                    for n in (4, 5)
                ],
            ),
            r"layers\[1\].*tied",
        ),
    ],
)
def test_exact_bad_architectures_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def tied_twice(maps, x):
    return maps["a"](jnp.tanh(maps["b"](x)))


def test_statistical_maps_of_one_layer_that_are_one_matrix(key):
    tied = {name: networks.linear(4, 4, tied="W") for name in "ab"}
    network = networks.network((4,), [networks.layer(tied_twice, tied)] * 2)
    along, back = compared(network, key, 4_000)
    assert network.matrices == ("W",) and min(*along, *back) > 1e-4
    apart = {name: networks.linear(4, 4) for name in "ab"}
    wrong = networks.network((4,), [networks.layer(tied_twice, apart)] * 2)
    other = of_two_inputs(paths.gram, wrong, key, 4_000)
    drawn = of_two_inputs(paths.jacobian, network, key, 4_000)
    assert min(p_values(other, drawn)) < 1e-6


def test_exact_orthogonal_products_of_more_rows_than_dimensions(key):
    """Most of them alike: they take no part of the frame."""
    network = networks.conv((2, 3), (8,), 1, "linear", weight_law=ORTHOGONAL)
    x = np.ones((2, 8))
    x[:, 5:7] = [[3, -1], [1, 2]]
    u = np.random.default_rng(1).normal(size=(2, 8))
    samples = [
        sampling.sample(path(network, x, u), key, 20).log_norm
        for path in (paths.gram, paths.jacobian)
    ]
    # an isometry, which a frame that is cut off is not
    assert np.abs(samples).max() < 1e-5


def test_statistical_gradients_of_inputs_of_other_sizes(key):
    """Activations of 1e±20 whose cotangents make up for it count as much."""
    network = networks.relu_mlp((6, 6, 6))
    x, c = np.random.default_rng(0).normal(size=(2, 2, 6))
    sizes = np.array([[1e-15], [1e15]])
    samples = [
        sampling.sample(paths.gradients(network, *pair, drawn=drawn), key, 4_000)
        for pair, drawn in (((x * sizes, c / sizes), False), ((x, c), True))
    ]
    assert min(p_values(*samples)) > 1e-4


def some_used(maps, x):
    return maps["used"](x)


def pooled(maps, x):
    del maps
    return x[::2] + x[1::2]


def without_maps(maps, x):
    del maps
    return jnp.tanh(x)


def test_exact_maps_that_are_not_used_and_layers_without_any(key):
    linear = functools.partial(networks.linear, 4, 4)
    maps = {"used": linear(), "spare": linear(), "tied": linear(tied="spare")}
    layers = [
        networks.layer(some_used, maps),
        networks.layer(without_maps, {}),
        networks.layer(pooled, {}),
    ]
    network = networks.network((4, 4), [*layers, *layers])
    x, c = np.ones((4, 4)), np.ones((1, 4))
    for drawn in (False, True):
        logs = paths.gradients(network, x, c, drawn=drawn)(key)
        found = dict(zip(network.matrices, np.asarray(logs), strict=True))
        spare = {"0.spare", "3.spare", "spare"}
        assert {name for name in found if np.isneginf(found[name])} == spare
        assert len(found) == 5 and not np.isnan(logs).any()
    for path in (paths.gram, paths.jacobian):
        assert path(network, x, x)(key).increment.shape == (6,)
    with pytest.raises(ValueError, match=r"network = .*with matrices"):
        paths.gradients(networks.network((4,), layers[1:2]), np.ones(4), np.ones(4))


@pytest.mark.parametrize("name", ["recurrent", "pre-norm"])
def test_invariance_of_devices(name, key, rounding):
    """Bit for bit along tangents; the way back, as all of training, to rounding."""
    network = networks.recurrent(6, 4, "relu") if name == "recurrent" else TRANSFORMER()
    inputs, along, cotangents = vectors(network)

    def on(count, path):
        devices = jax.devices()[:count]
        return sampling.sample(path, key, 24, block_size=4, devices=devices)

    path = paths.gram(network, inputs, along)
    for one, four in zip(on(1, path), on(4, path), strict=True):
        assert np.array_equal(one, four, equal_nan=True)
    path = paths.gradients(network, inputs, cotangents)
    np.testing.assert_allclose(on(1, path), on(4, path), rtol=10 * rounding)
