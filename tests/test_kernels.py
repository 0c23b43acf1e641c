"""Tangent kernels without weights, against gradients of drawn networks and exact
moments.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from statistical import assert_near, mean_and_error
from test_architectures import ARCHITECTURES, vectors

from lognorm_jax import kernels, networks, sampling, weights


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
        (lambda net: kernels.path(net, np.ones((2, 4))), r"network = .*one number"),
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
