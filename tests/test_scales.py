"""Gains, biases and the scales of residual networks as data: derivatives and maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax import ensembles, masks, networks, paths, residuals, weights

N, D = 6, 3
X, U = np.random.default_rng(0).normal(size=(2, N))
WIDTHS = (N,) * (D + 1)
NETWORKS = {  # of two scales, and how it is followed
    "mlp": (
        lambda a, b: networks.mlp(WIDTHS, "tanh", a, gain=b),
        networks.jacobian_path,
    ),
    "vanilla": (
        lambda a, b: networks.residual(N, D, skip_scale=a, branch_scale=b),
        paths.gram,
    ),
    "balanced": (
        lambda a, b: networks.residual(N, D, "balanced", skip_scale=a, branch_scale=b),
        networks.jacobian_path,
    ),
    "post": (
        lambda a, b: networks.residual(
            N, D, "post", branch_scale=a, bias_scale=b, skip_scale=0.8
        ),
        paths.gram,
    ),
    "mask model": (
        lambda a, b: networks.residual(
            N, D, "mask model", skip_scale=a, branch_scale=b
        ),
        networks.jacobian_path,
    ),
    "conv": (
        lambda a, b: networks.conv((2, 2, 2), (3,), 3, "tanh", a + b),
        networks.jacobian_path,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_oracle_derivatives_by_scales_against_differences(name, key):
    make, follow = NETWORKS[name]

    def log_norm(scales):
        network = make(*scales)
        x, u = (v.reshape(network.shape) for v in (X, U))
        return follow(network, x, u)(key).log_norm

    at = jnp.array([0.7, 0.9])
    value = jax.jit(jax.value_and_grad(log_norm))
    found = value(at)[1]
    assert np.max(np.abs(found)) > 0.1
    step = 1e-3 if jax.config.jax_enable_x64 else 1e-2
    for i, unit in enumerate(step * np.eye(2, dtype=at.dtype)):
        slope = (value(at + unit)[0] - value(at - unit)[0]) / (2 * step)
        assert np.isclose(found[i], slope, rtol=5e-3, atol=2e-3)


def test_oracle_a_map_over_scales_equals_a_loop(key):
    def log_norm(gain, bias_scale):
        network = networks.mlp(WIDTHS, "tanh", bias_scale, gain=gain)
        return paths.gram(network, X, U)(key).log_norm

    gains, biases = np.array([0.5, 1.0, 1.5]), np.array([0.0, 0.1, 0.3])
    mapped = jax.jit(jax.vmap(log_norm))(gains, biases)
    looped = [
        jax.jit(paths.gram(networks.mlp(WIDTHS, "tanh", b, gain=g), X, U))(key).log_norm
        # without biases xi is another shape
        for g, b in zip(gains[1:], biases[1:], strict=True)
    ]
    assert np.allclose(mapped[1:], looped, atol=1e-5)
    assert np.isfinite(mapped[0])


def test_exact_the_gain_scales_every_masked_layer(key, rounding):
    """ln‖J u‖² = layers · ln gain + …, but a linear head has its own variance."""

    @jax.jit(static_argnums=1)
    def total(gain, head):
        network = networks.mlp(WIDTHS, "relu", gain=gain, head=head)
        return paths.gram(network, X, U)(key).log_norm

    for head, layers in (("same", D), ("linear", D - 1)):
        moved = total(4.5, head) - total(1.5, head)
        assert np.isclose(moved, layers * np.log(3), rtol=100 * rounding)
        law = networks.limit_law(networks.mlp(WIDTHS, "relu", gain=3.0, head=head))
        plain = networks.limit_law(networks.mlp(WIDTHS, "relu", head=head))
        assert law.mean - plain.mean == pytest.approx(layers * np.log(1.5))
        assert law.variance == pytest.approx(plain.variance)


def test_oracle_a_mean_over_samples_has_a_derivative(key):
    """What one would descend: the mean over seeds, by the gain and the biases."""

    def mean(scales):
        network = networks.mlp((N, 4, 5), "tanh", scales[1], gain=scales[0])
        keys = jax.random.split(key, 64)
        return jnp.mean(jax.vmap(paths.gram(network, X, U))(keys).log_norm)

    at, step = jnp.array([1.5, 0.2]), 1e-2
    value = jax.jit(jax.value_and_grad(mean))
    slopes = value(at)[1]
    for i, unit in enumerate(np.eye(2, dtype=at.dtype)):
        slope = (value(at + step * unit)[0] - value(at - step * unit)[0]) / (2 * step)
        assert np.isclose(slopes[i], slope, rtol=1e-2, atol=1e-3)


def test_exact_where_a_number_is_needed_the_error_says_how_to_go_on():
    products = ensembles.Ensemble((N, N), weights.normal(), masks.relu())
    network = networks.relu_mlp((N, N))
    for name, function in (
        (
            "gain",
            lambda s: networks.limit_law(networks.mlp((N, N), "relu", gain=s)).mean,
        ),
        (
            "skip_scale",
            lambda s: networks.limit_law(networks.residual(N, 2, skip_scale=s)).mean,
        ),
        ("branch_scale", lambda s: residuals.log_moments("vanilla", N, 2, 0.6, s)[0]),
        ("tangent", lambda s: networks.limit_law(network, X, s * U).mean),
        ("x", lambda s: networks.limit_law(networks.residual(N, 2), s * X).mean),
        ("direction", lambda s: ensembles.limit_law(products, s * U).mean),
        ("direction", lambda s: ensembles.log_variance(products, s * U)),
    ):
        with pytest.raises(
            ValueError, match=rf"(?s)^{name} = .*known.*outside jit, grad and vmap"
        ):
            jax.grad(function)(0.5)
    for name, call in (
        ("gain", lambda: networks.mlp((N, N), gain=jnp.ones(2))),
        ("gain", lambda: networks.mlp((N, N), gain=jnp.float32(-1.0))),
        ("bias_scale", lambda: networks.relu_mlp((N, N), True)),
        ("bias_scale", lambda: networks.relu_mlp((N, N), jnp.bool_(True))),
        ("bias_scale", lambda: networks.relu_mlp((N, N), "0.1")),
        ("skip_scale", lambda: networks.residual(N, 2, skip_scale=jnp.nan)),
    ):
        with pytest.raises(ValueError, match=f"{name} = "):
            call()
    # known: a number
    assert networks.mlp((N, N), gain=jnp.float32(2.0)).ensemble is not None
