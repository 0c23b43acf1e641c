"""Networks of many widths, followed by one program."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_tiles import whole

from lognorm_jax import (
    activations,
    exact,
    laws,
    masks,
    networks,
    paths,
    sampling,
    weights,
)
from lognorm_jax.paths import _padded, _tiles

WIDTHS = (20, 30, 25, 12, 40, 9, 17)
X, U = np.random.default_rng(0).normal(size=(2, 20))
MLP = functools.partial(networks.mlp, WIDTHS)
NETWORKS = {
    "relu": MLP("relu"),
    "relu, biases": MLP("relu", 0.3),
    "tanh, linear head": MLP("tanh", 0.2, head="linear"),
    "gelu, fan in": MLP("gelu", 0.2, "in"),
    "leaky, dropout": MLP(activations.leaky_relu(0.2), 0.2, keep_prob=0.6),
}


def by_shape(follow, *args, monkeypatch):
    """Return the path that compiles each layer by itself."""
    with monkeypatch.context() as patch:
        patch.setattr(_tiles, "MOST_KINDS", 100)
        return follow(*args)


def test_exact_which_networks_are_padded():
    few, many = networks.relu_mlp((9, 5, 4, 3)), NETWORKS["relu"]
    for follow in (paths.jacobian, paths.gram):
        assert follow(few, np.ones(9), np.ones(9)).depth is None
        assert follow(many, X, U).depth == 6
    # with matrices of another kind, or observed by its user, it is not
    assert _padded.program(networks.conv(WIDTHS, (2,), 1)) is None
    assert paths.gram(many, X, U, observe=lambda x, u: 0).depth is None
    # nor where the room would be seen
    assert _padded.program(of_softmax(6)) is None


def softmax(fixed, x, z):
    del fixed, x
    return jax.nn.softmax(z)


def of_softmax(depth):
    shapes = itertools.pairwise(WIDTHS[: depth + 1])
    kinds = [
        networks.layer(networks.Matrix((b, a), 1.0, weights.normal(), after=softmax))
        for a, b in shapes
    ]
    return networks.Network("softmax", WIDTHS[:1], tuple(kinds), False)


@pytest.mark.parametrize("follow", [paths.gram, paths.jacobian])
def test_exact_layers_that_mix_entries_are_the_same_at_any_depth(follow, key, rounding):
    """A sum over the room, and not over the layer, would be another function."""
    few, many = (follow(of_softmax(depth), X, U)(key).increment for depth in (4, 6))
    assert np.allclose(few, many[:4], rtol=10 * rounding, atol=10 * rounding)


@pytest.mark.parametrize("name", NETWORKS)
def test_oracle_jacobian_against_numpy(name, key, rounding):
    """With the path's own draws: weights by tiles, and biases of their room."""
    network, dtype = NETWORKS[name], jnp.result_type(float)
    increment, quartic = paths.jacobian(network, X, U)(key)
    x = X / np.linalg.norm(X) if network.homogeneous else X
    tangent = U / np.linalg.norm(U)
    for layer, kind in enumerate(network.kinds):
        assert np.isclose(quartic[layer], np.sum(tangent**4), rtol=10 * rounding)
        matrix = kind.matrix
        folded = jax.random.fold_in(key, layer)
        key_weight, key_bias, key_fixed = jax.random.split(folded, 3)
        W = matrix.std * whole(weights.normal(), key_weight, matrix.shape, dtype)
        b = jax.random.normal(key_bias, (48,), dtype)[: matrix.shape[0]]
        z = W @ x + (matrix.bias_scale or 0) * np.float64(b)
        D = masks.bernoulli(0.6).sample(key_fixed, (48,), dtype)[: matrix.shape[0]]
        after = functools.partial(matrix.after, matrix.fixed and D, None)
        x, image = jax.jvp(after, (jnp.asarray(z),), (jnp.asarray(W @ tangent),))
        expected = np.log(np.sum(np.float64(image) ** 2))
        assert np.isclose(
            increment[layer], expected, rtol=10 * rounding, atol=10 * rounding
        )
        tangent = np.float64(image) / np.linalg.norm(np.float64(image))
        x = np.float64(x)
        if network.homogeneous:
            x = x / np.linalg.norm(x)


@pytest.mark.parametrize("follow", [paths.jacobian, paths.gram])
@pytest.mark.parametrize("seed", [0, 1])
def test_statistical_exact_law_of_a_relu_network(follow, seed):
    network = NETWORKS["relu, biases"]
    path = follow(network, X, U)
    samples = sampling.sample(path, jax.random.key(seed), 20_000).log_norm
    law = exact.law(network.ensemble)
    assert laws.compare(samples, law).p_value > 1e-4
    # a variance wrong by a fifth is seen
    wrong = laws.compare(law.mean + 1.2**0.5 * (samples - law.mean), law)
    assert wrong.p_value < 1e-4


@pytest.mark.parametrize("name", ["tanh, linear head", "gelu, fan in"])
@pytest.mark.parametrize("tangent", [U, None])
def test_statistical_gram_equals_the_layers_by_their_shapes(
    name, tangent, key, monkeypatch
):
    network = NETWORKS[name]
    one = paths.gram(network, X, tangent)
    other = by_shape(paths.gram, network, X, tangent, monkeypatch=monkeypatch)
    assert other.depth is None
    a, b = (sampling.sample(path, key, 20_000) for path in (one, other))
    for found, expected in zip(
        (a.log_norm, *a.increment.T), (b.log_norm, *b.increment.T), strict=True
    ):
        assert laws.compare(found, laws.empirical(expected)).p_value > 1e-4
    gain = networks.mlp(WIDTHS, name[:4], 0.2, network_fan(name), gain=1.3)
    wrong = sampling.sample(paths.gram(gain, X, tangent), key, 20_000)
    assert laws.compare(wrong.log_norm, laws.empirical(b.log_norm)).p_value < 1e-4


def network_fan(name):
    return "in" if "fan in" in name else "out"


def test_oracle_one_key_is_one_network_in_any_room(key, rounding):
    """With and without tangents, alone and in a deeper, wider network."""
    network = NETWORKS["tanh, linear head"]
    wider = networks.mlp((*WIDTHS[:-1], *range(50, 80)), "tanh", 0.2)
    forward, deeper = (paths.gram(n, X)(key).increment for n in (network, wider))
    assert deeper.shape == (35,)
    assert np.allclose(deeper[:5], forward[:5], rtol=rounding, atol=10 * rounding)
    inputs = np.stack([X, U])
    both = paths.gram(network, inputs)(key).increment
    assert both.shape == (2, 6)
    assert np.allclose(both[0], forward, rtol=10 * rounding, atol=10 * rounding)


def test_exact_one_program_for_many_widths(key, programs):
    networks_of = [networks.relu_mlp(range(20 + i, 10 - i, -1), 0.1) for i in range(4)]
    for network in networks_of:
        x = np.ones(network.shape)
        for follow in (paths.jacobian, paths.gram):
            sampling.sample(follow(network, x, x), key, 8, block_size=8)
        if network is networks_of[0]:
            del programs[:]
    assert not programs


def test_exact_what_overflows_is_not_dead(key):
    """Where float32 holds no activations: NaN from there on, never −inf."""
    huge = networks.mlp(WIDTHS, "relu", 0.1, gain=1e30)
    for follow in (paths.gram, paths.jacobian):
        increment = follow(huge, X * 1e30, U)(key).increment
        if jax.config.jax_enable_x64:
            assert np.all(np.isfinite(increment))
        else:
            assert np.all(np.isnan(increment[1:]))
