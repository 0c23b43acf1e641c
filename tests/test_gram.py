"""The gram path against the network whose matrices it does not draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statistical

from lognorm_jax import exact, grams, laws, networks, paths, sampling, weights

WIDTHS = (20, 30, 24, 40, 16)
RNG = np.random.default_rng(0)
X, U = RNG.normal(size=(2, 20))
NETWORKS = {
    "relu": lambda: networks.mlp(WIDTHS, "relu"),
    "relu, biases": lambda: networks.mlp(WIDTHS, "relu", 0.3),
    "tanh, biases": lambda: networks.mlp(WIDTHS, "tanh", 0.2),
    "gelu, biases": lambda: networks.mlp(WIDTHS, "gelu", 0.1),
    "dropout, fan in": lambda: networks.mlp(WIDTHS, "relu", 0.2, "in", keep_prob=0.8),
    "gelu, linear head": lambda: networks.mlp(WIDTHS, "gelu", 0.2, head="linear"),
    "vanilla": lambda: networks.residual(20, 6),
    "vanilla, entry": lambda: networks.residual(30, 5, input_width=20),
    "balanced": lambda: networks.residual(20, 6, "balanced"),
    "balanced, biases": lambda: networks.residual(20, 6, "balanced", bias_scale=0.2),
    "post": lambda: networks.residual(20, 6, "post"),
    "mask model": lambda: networks.residual(20, 6, "mask model"),
}
QUICK = ("tanh, biases", "vanilla")  # of a ReLU network the biases change nothing


def equal_in_law(network, tangent, num_samples, key):
    keys = jax.random.split(key)
    followed = sampling.sample(paths.gram(network, X, tangent), keys[0], num_samples)
    drawn = sampling.sample(
        networks.jacobian_path(network, X, tangent), keys[1], num_samples
    )
    for name, a, b in (
        ("log_norm", followed.log_norm, drawn.log_norm),
        ("third increment", followed.increment[:, 2], drawn.increment[:, 2]),
        ("last quartic", followed.quartic[:, -1], drawn.quartic[:, -1]),
    ):
        comparison = laws.compare(a, laws.empirical(b))
        assert comparison.verdict == "pass" and comparison.p_value > 1e-4, (
            name,
            comparison,
        )
    wrong = laws.empirical(1.3 * drawn.increment[:, 2])
    assert laws.compare(followed.increment[:, 2], wrong).verdict == "fail"


@pytest.mark.parametrize("name", QUICK)
def test_statistical_gram_equals_the_network_in_law(name, key):
    equal_in_law(NETWORKS[name](), X if name == "vanilla" else U, 8_000, key)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "relu"])
def test_statistical_50_000_gram_paths_equal_the_network_in_law(name, key):
    """Along x where that has a law of its own, and in another direction elsewhere."""
    equal_in_law(
        NETWORKS[name](), X if "vanilla" in name or name == "post" else U, 50_000, key
    )


def forward(network, x, key):
    """Return the increments of ‖x_i‖² through the matrices of the network."""
    increments = []
    for layer in network.layers(network.init(key)):
        y = layer(x)
        increments.append(jnp.log(jnp.sum(y * y)) - jnp.log(jnp.sum(x * x)))
        x = y
    return jnp.stack(increments)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_statistical_forward_increments(activation, key):
    network = networks.mlp((20,) * 5, activation)
    x = jnp.asarray(X, jnp.result_type(float))
    keys = jax.random.split(key)
    followed = sampling.sample(paths.gram(network, X), keys[0], 8_000)
    drawn = sampling.sample(lambda key: forward(network, x, key), keys[1], 8_000)
    for i in (0, 3):
        comparison = laws.compare(followed.increment[:, i], laws.empirical(drawn[:, i]))
        assert comparison.verdict == "pass" and comparison.p_value > 1e-4
    assert followed.increment.shape == followed.quartic.shape == (8_000, 4)


@pytest.mark.slow
def test_statistical_several_inputs_and_tangents_of_one_network(key):
    """Joint laws: differences of log-norms of two inputs, and of two tangents at
    one.
    """
    network = networks.relu_mlp((20,) * 5, 0.3)
    x, dtype = np.stack([X, X + 0.5 * U]), jnp.result_type(float)
    both = sampling.sample(paths.gram(network, x), key, 8_000)
    assert both.increment.shape == (8_000, 2, 4)

    def drawn(key):
        return jnp.stack([forward(network, row, key) for row in jnp.asarray(x, dtype)])

    seen = sampling.sample(drawn, jax.random.key(5), 8_000)
    total, other = both.increment.sum(-1), seen.sum(-1)
    for a, b in (
        (total[:, 0] - total[:, 1], other[:, 0] - other[:, 1]),
        (total[:, 1], other[:, 1]),
    ):
        comparison = laws.compare(a, laws.empirical(b))
        assert comparison.verdict == "pass" and comparison.p_value > 1e-4
    tangents = np.stack([U, X, U + 0.3 * X])
    three = sampling.sample(paths.gram(network, X, tangents), key, 256)
    one = sampling.sample(paths.gram(network, X, U), key, 256)
    # the first draws are its
    assert np.allclose(three.increment[:, 0], one.increment, atol=2e-4)
    paired = sampling.sample(
        paths.gram(network, x, tangents[:2]), key, 8_000
    ).increment.sum(-1)
    single = sampling.sample(
        paths.gram(network, x[1], X), jax.random.key(6), 8_000
    ).log_norm
    assert laws.compare(paired[:, 1], laws.empirical(single)).verdict == "pass"


def test_exact_one_key_is_one_network(key):
    """Along x in a network without biases J x = f(x): forward and Jacobian increments
    agree.
    """
    network = networks.relu_mlp((20,) * 5)
    ahead, jacobian = (
        jax.jit(paths.gram(network, X, tangent))(key).increment for tangent in (None, X)
    )
    assert np.allclose(ahead, jacobian, atol=2e-4)
    observed = paths.gram(network, X, U, observe=lambda x, u: {"x": x @ x, "xu": x @ u})
    trace, seen = jax.jit(observed)(key)
    assert trace.increment.shape == (4,) and np.allclose(seen["x"], 1, atol=1e-5)
    assert np.allclose(
        seen["xu"][0], X @ U / np.linalg.norm(X) / np.linalg.norm(U), atol=1e-5
    )


def test_oracle_triangle_against_numpy(rounding):
    V = RNG.normal(size=(4, 9)) * np.array([1, 1e-25, 1e10, 3])[:, None]
    V[3] = V[0] + 1e-3 * V[3]
    rows = grams.triangle(jnp.asarray(V, jnp.result_type(float)))
    L = np.float64(rows)
    assert np.all(L[np.triu_indices(4, 1)] == 0)
    expected = np.linalg.qr(V.T)[1].T
    expected = expected * np.sign(np.diag(expected))
    size = np.linalg.norm(V, axis=1)[:, None]
    assert np.allclose(L / size, expected / size, rtol=0, atol=20 * rounding)
    twice = grams.triangle(jnp.ones((2, 5)))
    assert twice[1][1] < 1e-6 and np.all(
        np.float64(grams.triangle(jnp.zeros((2, 3)))[1]) == 0
    )


def test_exact_dead_and_tiny_vectors(key):
    narrow = networks.relu_mlp((3, *(1,) * 8))
    trace = jax.jit(jax.vmap(paths.gram(narrow, np.ones(3), np.ones(3))))(
        jax.random.split(key, 99)
    )
    dead = np.isneginf(trace.increment)
    assert dead[:, -1].sum() > 0 and not np.any(np.isnan(trace.increment))
    assert np.all(dead[:, 1:] >= dead[:, :-1])
    tanh = networks.mlp((50, 50, 50), "tanh")
    trace = jax.jit(paths.gram(tanh, np.full(50, 1e-25)))(key)
    assert np.all(np.abs(trace.increment) < 2)
    biased = networks.mlp((3, *(2,) * 30), "relu", 0.5)
    trace = jax.jit(jax.vmap(paths.gram(biased, np.ones(3))))(jax.random.split(key, 99))
    assert not np.any(np.isnan(trace.increment)) and np.any(
        np.isneginf(trace.increment)
    )


def test_exact_compile_size_does_not_grow_with_depth(key):
    def lines(depth):
        path = paths.gram(
            networks.relu_mlp((8,) * (depth + 1), 0.1), np.ones(8), np.arange(8.0)
        )
        return len(jax.jit(path).lower(key).as_text().splitlines())

    assert lines(1000) == lines(100)


def test_statistical_wide_layers_do_not_fluctuate(key):
    """Width 100,000, depth 100: the cosine of two ReLU inputs follows the arc-cosine
    kernel.
    """
    network = networks.relu_mlp((1000, *(100_000,) * 100))
    x = np.eye(2, 1000) + 1e-9
    path = paths.gram(network, x, observe=lambda X, T: X[0] @ X[1])
    trace, cosine = jax.jit(path)(key)
    assert np.all(np.abs(trace.increment) < 5 * (5 / 1e5) ** 0.5)
    kernel = lambda rho: (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / np.pi  # noqa: E731
    expected = [0.0]
    for _ in range(99):
        expected.append(kernel(min(expected[-1], 1)))
    assert np.allclose(cosine, expected, atol=0.03) and expected[-1] > 0.98


def test_exact_bad_input(key):
    network = NETWORKS["relu"]()
    wrong = networks.relu_mlp(WIDTHS, weight_law=weights.laplace())
    with pytest.raises(ValueError, match=r"layer 0.*weights are normal.*jacobian"):
        paths.gram(wrong, np.ones(wrong.shape))
    with pytest.raises(ValueError, match=r"x\.shape = \(19,\)"):
        paths.gram(network, X[:-1])
    with pytest.raises(
        ValueError, match=r"tangent\.shape = \(3, 20\): must be .*\(2, 20\)"
    ):
        paths.gram(network, np.stack([X, U]), np.ones((3, 20)))
    with pytest.raises(ValueError, match=r"(?s)tangent = .*not all zero"):
        paths.gram(network, X, np.stack([U, 0 * X]))
    with pytest.raises(ValueError, match=r"network = 3: must be a Network"):
        paths.gram(3, X)
    with pytest.raises(ValueError, match=r"key"):
        paths.gram(network, X)(3)
    with pytest.raises(ValueError, match=r"activation = 'swish': .*relu, linear, tanh"):
        networks.mlp(WIDTHS, "swish")


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_invariance_devices_of_tangents(activation, key):
    """Bitwise, also where nothing but products follows the normals of a layer."""
    x, u = RNG.normal(size=(2, 7))
    path = paths.gram(networks.mlp((7, 16, 9, 9), activation), x, u)
    one = sampling.sample(path, key, 200, block_size=32, devices=jax.devices()[:1])
    several = sampling.sample(path, key, 200, block_size=32)
    np.testing.assert_array_equal(one.increment, several.increment)


def test_exact_overflow_is_not_taken_for_dead_in_networks(key):
    network = networks.mlp((8,) * 61, "relu", 0.1, gain=64.0)
    x = np.ones(8)
    followed = sampling.sample(paths.gram(network, x, x), key, 256).increment
    drawn = sampling.sample(networks.jacobian_path(network, x, x), key, 256).increment
    if not jax.config.jax_enable_x64:
        assert np.isnan(followed).any() and np.isnan(drawn).any()
    for increments in (followed, drawn):  # (1 − 2⁻⁸)⁶⁰ = 79% of all paths survive
        assert np.isneginf(increments).any(1).mean() < 0.3


def test_exact_bad_vectors():
    network = networks.mlp((3, 3))
    for x, tangent, message in (
        ([[1], [1, 2]], None, "x = "),
        (np.zeros((0, 3)), None, r"x\.shape = \(0, 3\)"),
        (np.ones(3), [[1], [1, 2]], "tangent = "),
        (np.ones(3), np.ones((0, 3)), "tangent = "),
    ):
        with pytest.raises(ValueError, match=message):
            paths.gram(network, x, tangent)
    with pytest.raises(ValueError, match="observe = 5"):
        paths.gram(network, np.ones(3), observe=5)


def test_exact_laws_are_only_of_what_they_describe():
    skew = weights.Weights(
        "skew",
        lambda k, s, d: jax.random.exponential(k, s, d) - 1,
        lambda k: {0: 1, 1: 1, 2: 9}[k],
        symmetric=False,
    )
    assert networks.mlp((4, 4), weight_law=skew).ensemble is None
    with pytest.raises(ValueError, match="limit law is known"):
        networks.limit_law(networks.mlp((4, 4), weight_law=skew))
    gained = networks.mlp((4, 4), gain=1.0)
    assert gained.ensemble is None and networks.limit_law(gained).variance > 0


@pytest.mark.slow
def test_statistical_dropout_at_initialisation_drops(key):
    """A share 1 − q of the units, in the network drawn whole and in the one followed in
    law.
    """
    network = networks.mlp((20, *(30,) * 4), "relu", keep_prob=0.6)
    wide = networks.mlp((3, 5_000), "tanh", keep_prob=0.6)
    params = wide.init(key)
    output = np.asarray(wide.apply(params, jnp.ones(3)))
    fixed = np.asarray(params.fixed[0][0])
    assert set(np.unique(fixed)) == {0.0, 1.0} and np.array_equal(
        output == 0, fixed == 0
    )
    statistical.assert_near(*statistical.mean_and_error(fixed), 0.6)
    law = exact.law(network.ensemble)
    without = exact.law(networks.mlp((20, *(30,) * 4), "relu").ensemble)
    for path in (paths.gram(network, X, U), networks.jacobian_path(network, X, U)):
        log_norm = sampling.sample(path, key, 8_000).log_norm
        assert laws.compare(log_norm, law).verdict == "pass"
        assert laws.compare(log_norm, without).verdict == "fail"


def test_exact_each_tangent_belongs_to_its_own_input(key, rounding):
    """Where all coordinates of an input are negative its ReLUs are off, and R = α²
    exactly.
    """
    n, alpha = 12, 0.6
    network = networks.residual(n, 1, skip_scale=alpha, branch_scale=0.8)
    positive, tangents = np.abs(X[:n]), np.stack([U[:n], U[:n], U[:n]])
    push = jax.jit(lambda x: paths.gram(network, x, tangents)(key).increment[:, 0])
    for signs in ((1, -1, -1), (-1, 1, -1), (-1, -1, 1)):
        increment = push(np.array(signs)[:, None] * positive)
        off = np.isclose(increment, np.log(alpha**2), atol=10 * rounding)
        assert np.array_equal(off, np.array(signs) < 0)


@pytest.mark.slow
def test_statistical_tangents_of_several_inputs_each_have_their_law(key):
    """Blocks whose ReLU comes last: which of its units are on depends on the input."""
    network = networks.residual(8, 2, "post", skip_scale=0.6, branch_scale=0.8)
    x = np.stack([np.ones(8), np.eye(8)[0]])
    u = np.stack([np.eye(8)[0], np.eye(8)[0]])
    both = sampling.sample(paths.gram(network, x, u), key, 20_000).increment
    other = jax.random.fold_in(key, 1)
    alone = [
        laws.empirical(
            sampling.sample(
                networks.jacobian_path(network, x[i], u[i]), other, 20_000
            ).log_norm
        )
        for i in (0, 1)
    ]
    for i in (0, 1):
        assert laws.compare(both[:, i].sum(1), alone[i]).verdict == "pass"
        assert laws.compare(both[:, i].sum(1), alone[1 - i]).verdict == "fail"
