"""Tangent kernels without weights, against gradients of drawn networks and exact
moments.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from statistical import assert_near, mean_and_error
from test_architectures import ARCHITECTURES, vectors

from lognorm_jax import activations, kernels, networks, sampling, weights


def drawn(network, inputs, cotangent, scaled):
    """Return key -> the kernel of a network that is drawn, gradient by gradient."""
    inputs, cotangent = map(jnp.asarray, (inputs, cotangent))

    def of_key(key):
        params = network.init(key)

        def f(trained, x):
            return jnp.vdot(
                cotangent, network.apply(params._replace(trained=trained), x)
            )

        slopes = [jax.grad(f)(params.trained, x) for x in inputs]
        total = jnp.zeros((len(inputs), len(inputs)))
        tied = {}
        for places, *of_kind in zip(network.places(), *slopes, strict=True):
            for row, layer in enumerate(places):
                kind = network.kinds[layer]
                for name, one in zip(kind.names, kind.maps, strict=True):
                    parts = [
                        of_input[name] if name else of_input for of_input in of_kind
                    ]
                    sizes = {"weight": one.std, "bias": one.bias_scale}
                    for part, size in sizes.items():
                        if size is None:
                            continue
                        G = jnp.stack([each[part][row].ravel() for each in parts])
                        G = G * (size if scaled else 1.0)
                        if one.tied:
                            tied[part] = tied.get(part, 0) + G
                        else:
                            total = total + G @ G.T
        return total + sum(G @ G.T for G in tied.values())

    return of_key


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("name", ["mlp", "recurrent", "pre-norm"])
def test_statistical_kernels_are_those_of_gradients(name, scaled, key):
    if (name, scaled) == ("pre-norm", True):
        pytest.skip("all that is new is seen in one")
    network = ARCHITECTURES[name]()
    inputs, _, (c, *_) = vectors(network)
    keys = jax.random.split(key)
    path = kernels.path(network, inputs, c, scaled=scaled)
    mine = np.asarray(sampling.sample(path, keys[0], 4_000))
    theirs = sampling.sample(drawn(network, inputs, c, scaled), keys[1], 4_000)
    size = np.sqrt(mine[:, 0, 0] * mine[:, 1, 1])
    assert np.all(np.abs(mine[:, 0, 1] - mine[:, 1, 0]) <= 1e-5 * size)
    statistics = [
        np.stack([K[:, 0, 0], K[:, 0, 1], K[:, 1, 1], np.linalg.det(K)])
        for K in (mine, np.asarray(theirs))
    ]
    pairs = zip(*statistics, strict=True)
    assert min(scipy.stats.ks_2samp(*pair).pvalue for pair in pairs) > 1e-4


def test_statistical_exact_moments_of_relu_networks(key):
    """E K = d ‖x‖²/n_0, and E K²/(E K)² by its sum over pairs of layers."""
    n, d, count = 50, 5, 20_000
    network = networks.relu_mlp((n,) * d + (1,), fan="in", head="linear")
    x = np.linspace(-1, 2, n)
    path = kernels.path(network, x[None])
    K = np.asarray(sampling.sample(path, key, count), np.float64)[:, 0, 0]
    scale = x @ x / n
    assert_near(*mean_and_error(K), d * scale)

    i, j = np.indices((d, d))
    m = abs(i - j)
    terms = (1 + 5 / n) ** (d - 1 - m)
    terms = terms * ((1 + 5 / n) ** m + 2 * (1 - 1 / n) ** m) / 3
    terms = np.where(m == 0, (1 + 5 / n) ** (d - 1), terms)
    square, error = mean_and_error((K / (d * scale)) ** 2)
    assert_near(square, error, terms.mean())
    # a term wrong by a fifth is seen
    assert abs(square - 1 - 0.8 * (terms.mean() - 1)) > 5 * error


def enumerated(widths, head, fan):
    """Return E K, E K² and E f ⟨∇f, ∇K⟩ of all masks, and of weights of three values.

    These have the moments of normal weights up to the fifth; of each weight no higher
    one than the fourth matters. K and its gradient are written out in NumPy.
    """
    layers = list(itertools.pairwise(widths))
    d = len(layers)
    gains = [2] * (d - 1) + [1 if head == "linear" else 2]
    scales = [
        (gain / (n if fan == "out" else n_in)) ** 0.5
        for gain, (n_in, n) in zip(gains, layers, strict=True)
    ]
    masked = widths[1:] if head == "relu" else widths[1:-1]
    values, odds = np.array([-(3**0.5), 0, 3**0.5]), np.array([1 / 6, 2 / 3, 1 / 6])
    sizes = [n_in * n for n_in, n in layers]
    x = np.full(widths[0], widths[0] ** -0.5)
    total = np.zeros(3)
    for picks in itertools.product(range(3), repeat=sum(sizes)):
        chance = odds[list(picks)].prod()
        parts = np.split(values[list(picks)], np.cumsum(sizes)[:-1])
        W = [part.reshape(n, m) for part, (m, n) in zip(parts, layers, strict=True)]
        for bits in itertools.product((0, 1), repeat=sum(masked)):
            D = np.split(np.array(bits, float), np.cumsum(masked))[: len(masked)]
            D += [np.ones(1)] if head == "linear" else []
            # matrices, and what is to the left and to the right of each
            A = [D[i][:, None] * W[i] * scales[i] for i in range(d)]
            before, after = [x], [np.ones((1, 1))]
            for matrix in A:
                before.append(matrix @ before[-1])
            for matrix in reversed(A):
                after.insert(0, after[0] @ matrix)
            f = before[-1][0]
            slopes = [
                scales[i] * np.outer(after[i + 1][0] * D[i], before[i])
                for i in range(d)
            ]
            K = sum(np.sum(slope**2) for slope in slopes)
            # ⟨∇f, ∇K⟩ = 2 ∇fᵀ H ∇f, H ∇f by a step along ∇f, exact in each pair
            change = 0.0
            for i, j in itertools.permutations(range(d), 2):
                moved = list(A)
                moved[j] = scales[j] * D[j][:, None] * slopes[j]
                row = np.ones((1, 1))
                for matrix in reversed(moved[i + 1 :]):
                    row = row @ matrix
                column = x
                for matrix in moved[:i]:
                    column = matrix @ column
                along = scales[i] * np.outer(row[0] * D[i], column)
                change += 2 * np.sum(slopes[i] * along)
            weight = chance / 2 ** sum(masked)
            total += weight * np.array([K, K**2, f * change])
    return total


@pytest.mark.parametrize(
    ("widths", "head", "fan"),
    [
        ((2, 1), "linear", "in"),
        ((1, 2, 1), "relu", "in"),
        ((2, 2, 1), "linear", "out"),
        ((1, 2, 1, 1), "linear", "in"),
        ((1, 1, 2, 1), "relu", "out"),
    ],
)
def test_oracle_moments_by_enumeration(widths, head, fan):
    first, second, change = enumerated(widths, head, fan)
    assert np.isclose(kernels.mean(widths, head, fan), first)
    assert np.isclose(kernels.second_moment(widths, head, fan), second / first**2)
    assert np.isclose(kernels.first_step(widths, head, fan), change / first)


def test_exact_moments_of_equal_widths():
    """Published sums over pairs of layers; the limit, and what e^{5b} is of it."""
    for n, d in ((40, 9), (64, 5), (7, 3)):
        i, j = np.indices((d, d))
        m = abs(i - j)
        rising = (1 + 5 / n) ** (d - 1 - m)
        both = rising * ((1 + 5 / n) ** m + 2 * (1 - 1 / n) ** m) / 3
        both = np.where(m == 0, (1 + 5 / n) ** (d - 1), both)
        widths = (n,) * d + (1,)
        assert np.isclose(kernels.second_moment(widths), both.mean(), rtol=1e-12)
        change = rising * ((1 + 5 / n) ** m - (1 - 1 / n) ** m)
        change = 2 / (3 * d) * np.sum(np.where(m > 0, change, 0)) / n
        assert np.isclose(kernels.first_step(widths), change, rtol=1e-12)
        assert np.isclose(kernels.mean(widths), d / n, rtol=1e-12)
    assert kernels.second_moment((1,) * 451) == kernels.first_step((1,) * 451) == np.inf
    # at b = (d − 1)/n = 1/2
    share = 1 / 3 + 4 / 3 * (3 - 1 + np.exp(-3)) / 9
    found = kernels.second_moment((2_000,) * 1_001 + (1,))
    assert np.isclose(found, np.exp(2.5) * share, rtol=5e-3)


@pytest.mark.parametrize(
    ("widths", "head"),
    [
        ((40,) * 9 + (1,), "linear"),
        ((10, 30, 20, 60, 1), "linear"),
        ((50, 12, 40, 15, 1), "relu"),
        ((6, 50, 50, 1), "linear"),
        ((20, 25, 1), "relu"),
    ],
)
def test_statistical_sampled_kernels_have_their_exact_moments(widths, head, key):
    """Within 5 standard errors, of 10⁴ effective samples or more."""
    network = networks.relu_mlp(widths, fan="in", head=head)
    x = np.linspace(-1, 2, widths[0])
    path = kernels.path(network, x[None], scaled=True)
    K = np.asarray(sampling.sample(path, key, 20_000), np.float64)[:, 0, 0] / (x @ x)
    # a head that is off has no gradient
    assert_near(*mean_and_error(K), kernels.mean(widths, head))
    square, error = mean_and_error((K / kernels.mean(widths, head)) ** 2)
    assert_near(square, error, kernels.second_moment(widths, head))
    effective = np.sum(K**2) ** 2 / np.sum(K**4)
    assert effective > 100


def residual_enumerated(before, x, depth, alpha, lam, values, odds, kept):
    """Return E K²/(E K)² over all masks, of two values, and weights of these values."""
    n = len(x)
    std = (n * np.mean(kept**2)) ** -0.5
    entries = np.array(list(itertools.product(range(len(values)), repeat=n * n)))
    matrices = list(
        zip(values[entries].reshape(-1, n, n), odds[entries].prod(1), strict=True)
    )
    blocks = [
        (std * W, np.diag(D), chance / 2**n)
        for W, chance in matrices
        for D in itertools.product(kept, repeat=n)
    ]
    first = second = 0.0
    for layers in itertools.product(blocks, repeat=depth):
        chance = np.prod([one[2] for one in layers])
        J = [
            alpha * np.eye(n) + lam * (W @ D if before else D @ W) for W, D, _ in layers
        ]
        # K = cᵀ B c of the cotangent c
        B = np.zeros((n, n))
        z = x
        for i, (_, D, _) in enumerate(layers):
            after = np.eye(n)
            for matrix in J[i + 1 :]:
                after = matrix @ after
            pulled = after if before else after @ D
            met = D @ z if before else z
            B += (lam * std) ** 2 * (met @ met) * pulled @ pulled.T
            z = J[i] @ z
        first += chance * np.trace(B)
        second += chance * (np.trace(B) ** 2 + 2 * np.sum(B**2))
    return first, second / first**2


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("law", ["normal", "rademacher"])
@pytest.mark.parametrize(("n", "depth"), [(1, 3), (2, 1), (2, 2)])
def test_oracle_residual_moments_by_enumeration(before, law, n, depth):
    normal = np.array([-(3**0.5), 0, 3**0.5]), np.array([1 / 6, 2 / 3, 1 / 6])
    values, odds = {
        "normal": normal,
        "rademacher": (np.array([-1.0, 1]), np.array([0.5, 0.5])),
    }[law]
    if (law, n, depth) == ("normal", 2, 2):
        pytest.skip("a million networks; signs know every term but one")
    x = np.array([0.6, -1.3])[:n]
    kept, alpha, lam = np.array([1.0, 0.25]), 0.9, 0.7
    enumerated = residual_enumerated(before, x, depth, alpha, lam, values, odds, kept)
    size = alpha**2 + lam**2
    assert np.isclose(enumerated[0], depth * lam**2 * size ** (depth - 1) * (x @ x))
    found = kernels.residual_second_moment(
        n,
        depth,
        "balanced" if before else "mask model",
        skip_scale=alpha,
        branch_scale=lam,
        activation=activations.leaky_relu(0.25),
        weight_law=getattr(weights, law)(),
        quartic=np.sum(x**4) / (x @ x) ** 2,
    )
    assert np.isclose(found, enumerated[1], rtol=1e-12)


@pytest.mark.parametrize("kind", ["balanced", "mask model"])
def test_statistical_kernels_of_residual_networks(kind, key):
    """Of real networks with ReLUs, along normal cotangents."""
    n, depth, count = 20, 8, 20_000
    network = networks.residual(n, depth, kind)
    x = np.linspace(-1, 2, n)

    def of_key(key):
        of_c, of_weights = jax.random.split(key)
        c = jax.random.normal(of_c, (n,))
        return kernels.path(network, x[None], c)(of_weights)[0, 0]

    K = np.asarray(sampling.sample(of_key, key, count), np.float64)
    mean = depth / 2 * (x @ x)
    assert_near(*mean_and_error(K), mean)
    square, error = mean_and_error((K / mean) ** 2)
    quartic = np.sum(x**4) / (x @ x) ** 2
    theory = kernels.residual_second_moment(n, depth, kind, quartic=quartic)
    assert_near(square, error, theory)
    assert error < 0.06 * (theory - 1)


def test_exact_residual_moments_at_any_depth():
    """Where branches shrink with depth it tends to a limit."""
    deep = [
        kernels.residual_second_moment(
            40, d, skip_scale=(1 - 1 / d) ** 0.5, branch_scale=d**-0.5
        )
        for d in (10**3, 10**6)
    ]
    assert np.isclose(*deep, rtol=1e-3)
    assert kernels.residual_second_moment(1, 10**5) == np.inf


def test_statistical_the_first_step_of_a_network(key):
    """By second derivatives of networks that are drawn."""
    widths, count = (8, 20, 12, 1), 8_000
    network = networks.relu_mlp(widths, fan="in", head="linear")
    x = jnp.linspace(-1.0, 2.0, 8)

    def of_key(key):
        params = network.init(key)
        std = [kind.maps[0].std for kind in network.kinds]
        weights_of = [part["weight"] for part in params.trained]

        def f(standard):
            y = x
            for i, W in enumerate(standard):
                z = std[i] * W[0] @ y
                y = z if i == len(standard) - 1 else jax.nn.relu(z)
            return y[0]

        standard = [W / s for W, s in zip(weights_of, std, strict=True)]
        K = lambda at: sum(jnp.sum(g**2) for g in jax.grad(f)(at))  # noqa: E731
        _, change = jax.jvp(K, (standard,), (jax.grad(f)(standard),))
        return f(standard) * change, K(standard)

    change, K = sampling.sample(of_key, key, count)
    value, error = mean_and_error(np.asarray(change, np.float64))
    scale = float(x @ x) * float(np.mean(K))
    assert_near(value / scale, error / scale, kernels.first_step(widths))
    assert error < 0.04 * value


def test_exact_kernels_of_sizes_that_are_only_large_in_parts(key):
    network = networks.mlp((4, 4), "gelu")
    x, c = np.ones((1, 4)), np.ones(4)
    one = kernels.path(network, x, c, scaled=False)(key)
    for size in (1e-10, 1e10):
        path = kernels.path(network, size * x, c / size**2, scaled=False)
        assert np.all(np.isfinite(path(key)))
    near = kernels.path(network, x, 1e18 * c, scaled=False)(key)
    assert np.allclose(near / 1e36, one)
    dead = networks.relu_mlp((2, 1, 1, 2))
    path = kernels.path(dead, np.ones((1, 2)), 1e18 * np.ones(2))
    assert np.all(np.isfinite(sampling.sample(path, key, 200)))


def test_exact_wide_and_deep_kernels_are_finite(key):
    widths = 10, *(3_000,) * 30, 1
    network = networks.mlp(widths, "tanh", 0.1, "in", "linear")
    inputs = np.random.default_rng(0).normal(size=(3, 10))
    K = np.asarray(kernels.path(network, inputs)(key))
    assert K.shape == (3, 3) and np.all(np.isfinite(K))
    assert np.all(np.linalg.eigvalsh(K) > 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: kernels.path(net, np.ones(4)), r"inputs.shape = "),
        (
            lambda net: kernels.path(
                networks.network((2,), [networks.layer(lambda maps, x: 2 * x, {})]),
                np.ones((1, 2)),
                np.ones(2),
            ),
            r"network = .*matrices",
        ),
        (lambda net: kernels.second_moment((4, 3)), r"widths = \(4, 3\).*kernels.path"),
        (lambda net: kernels.second_moment((1,)), r"widths = "),
        (lambda net: kernels.mean((4, 1), "tanh"), r"head = 'tanh'"),
        (lambda net: kernels.first_step((4, 1), fan="avg"), r"fan = 'avg'"),
        (lambda net: kernels.path(net, np.ones((2, 4))), r"network = .*one number"),
        (lambda net: kernels.residual_second_moment(4, 2, "post"), r"kind = 'post'"),
        (
            lambda net: kernels.residual_second_moment(4, 2, activation="tanh"),
            r"activation = 'tanh'.*kernels.path",
        ),
        (
            lambda net: kernels.residual_second_moment(4, 2, quartic=0.1),
            r"quartic = 0.1",
        ),
        (
            lambda net: kernels.residual_second_moment(
                4, 2, weight_law=weights.orthogonal()
            ),
            r"weight_law = .*independent",
        ),
        (lambda net: kernels.path(net, np.ones((2, 4)), np.ones(2)), r"cotangent"),
        (
            lambda net: kernels.path(net, np.ones((2, 4)), np.ones(3), scaled=1),
            r"scaled = 1",
        ),
        (
            lambda net: kernels.path(
                networks.mlp((4, 1), weight_law=weights.uniform()), np.ones((2, 4))
            ),
            r"weights are normal",
        ),
    ],
)
def test_exact_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(networks.mlp((4, 5, 3), "tanh"))
