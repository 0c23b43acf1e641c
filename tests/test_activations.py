"""Activations: their masks, gains and slopes; shaped ReLUs against diffusions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statistical
from scipy import special

from lognorm_jax import activations, ensembles, laws, networks, paths, sampling

X, U = np.random.default_rng(0).normal(size=(2, 50))


def test_exact_gains_keep_the_norm_of_a_normal_vector():
    """gain · E φ(z)² = 1 for the piecewise linear ones, by quadrature."""
    z, weight = np.polynomial.hermite_e.hermegauss(200)
    for phi in (
        activations.relu(),
        activations.linear(),
        activations.leaky_relu(0.3),
        activations.shaped_relu(1, -2, 16),
    ):
        image = np.float64(phi.apply(jnp.asarray(z)))
        second = np.sum(weight * image**2) / np.sum(weight)
        assert phi.gain * second == pytest.approx(1, rel=1e-5)
        assert phi.homogeneous and np.allclose(
            phi.apply(jnp.asarray(3 * z)), 3 * image, rtol=1e-5
        )
    assert not activations.tanh().homogeneous and activations.gelu().mask is None


def test_exact_shaped_slopes():
    phi = activations.shaped_relu(0.5, -1, 25)
    assert np.allclose(phi.apply(jnp.array([2.0, -2.0])), [2 * 1.1, -2 * 0.8])
    assert phi.mask.kurtosis == pytest.approx(
        (1.1**4 + 0.8**4) / 2 / ((1.1**2 + 0.8**2) / 2) ** 2
    )
    assert activations.leaky_relu(0).mask.kurtosis == 2


@pytest.mark.parametrize(
    "phi",
    [activations.leaky_relu(-0.3), activations.linear()],
    ids=lambda phi: phi.name,
)
def test_statistical_networks_follow_the_law_of_their_mask(phi, key):
    network = networks.mlp((50,) * 13, phi, 0.2, gain=1.1 * phi.gain)
    log_norms = sampling.sample(paths.gram(network, X, U), key, 8_000).log_norm
    law = networks.limit_law(network, X, U)
    assert laws.compare(log_norms, law, tolerance=1.5 / 50).verdict == "pass"
    assert network.ensemble is None  # it has another gain
    unshifted = ensembles.limit_law(networks.mlp((50,) * 13, phi, 0.2).ensemble)
    assert law.mean == pytest.approx(unshifted.mean + 12 * np.log(1.1))
    assert laws.compare(log_norms, unshifted, tolerance=1.5 / 50).verdict == "fail"


@pytest.mark.slow
def test_statistical_shaped_relu_against_its_diffusion_limit(key):
    """d/n = T = 1/2: log_norm → N(−T, 2T), whatever the slopes c_±."""
    n, T = 200, 0.5
    network = networks.mlp((n,) * (int(n * T) + 1), activations.shaped_relu(0, -1, n))
    x = np.random.default_rng(1).normal(size=n)
    log_norms = sampling.sample(paths.gram(network, x), key, 10_000).log_norm
    limit = laws.normal(-T, 2 * T)
    assert laws.compare(log_norms, limit, tolerance=0.01).verdict == "pass"
    # of a ReLU
    assert laws.compare(log_norms, laws.normal(-2.5 * T, 5 * T)).verdict == "fail"
    exact = networks.limit_law(network)
    assert exact.variance == pytest.approx(2 * T, rel=2 / n)


@pytest.mark.parametrize("slopes", [(1.0, -1.0), (0.0, 1.5), (-2.0, 2.0)])
def test_oracle_cosine_drift_is_that_of_one_wide_layer(slopes):
    """n times what the kernel does to ρ, and the bias of a sample correlation."""
    n, rho = 10**8, np.linspace(-0.8, 0.8, 9)
    above, below = (1 + c / n**0.5 for c in slopes)
    # E of two ReLUs
    both = rho / 2 + (np.sqrt(1 - rho**2) - rho * np.arccos(rho)) / (2 * np.pi)
    kernel = above * below * rho + (above - below) ** 2 * both
    moved = n * (2 * kernel / (above**2 + below**2) - rho)
    # E r = (2/n)(Γ((n + 1)/2)/Γ(n/2))² ρ ₂F₁(½, ½; n/2 + 1; ρ²) of normal pairs
    pairs = 5_000
    factor = (
        2
        / pairs
        * np.exp(2 * (special.gammaln((pairs + 1) / 2) - special.gammaln(pairs / 2)))
    )
    bias = pairs * rho * (factor * special.hyp2f1(0.5, 0.5, pairs / 2 + 1, rho**2) - 1)
    found = activations.cosine_drift(rho, *slopes)
    assert np.allclose(found, moved + bias, rtol=1e-3, atol=1e-3)


def diffusion(rho, T, c_plus, c_minus, num_samples, steps=400):
    """Return ρ(T) of the diffusion of ``cosine_drift``, by Euler and Maruyama."""
    rng, dt = np.random.default_rng(0), T / steps
    rho = np.full(num_samples, float(rho))
    for _ in range(steps):
        drift = np.asarray(activations.cosine_drift(rho, c_plus, c_minus), np.float64)
        noise = (1 - rho**2) * rng.normal(size=num_samples) * dt**0.5
        rho = np.clip(rho + drift * dt + noise, -1, 1)
    return rho


@pytest.mark.slow
def test_statistical_cosine_of_two_inputs_follows_its_diffusion(key):
    n, T, c_plus, c_minus = 200, 0.5, 1.0, -1.0
    phi = activations.shaped_relu(c_plus, c_minus, n)
    network = networks.mlp((n,) * (int(n * T) + 2), phi)
    x = np.zeros((2, n))
    x[0, 0], x[1, :2] = 1, (0.3, (1 - 0.3**2) ** 0.5)
    path = paths.gram(network, x, observe=lambda X, T: X[0] @ X[1])
    _, cosine = sampling.sample(path, key, 10_000)
    seen = cosine[:, -1].astype(np.float64)  # before the last layer: after n·T of them
    expected = diffusion(0.3, T, c_plus, c_minus, 40_000)
    # to first order in 1/n: both are off by some 1/n
    (mean, error), (truth, other) = map(statistical.mean_and_error, (seen, expected))
    statistical.assert_near(mean, np.hypot(error, other), truth, allowance=2 / n)
    (spread, error), (truth, other) = map(
        statistical.variance_and_error, (seen, expected)
    )
    statistical.assert_near(spread, np.hypot(error, other), truth, allowance=1 / n)
    still = diffusion(0.3, T, 0, 0, 40_000)  # without the kink the drift is another
    assert abs(still.mean() - mean) > 0.05


def test_exact_an_activation_of_ones_own(key):
    swish = activations.Activation("swish", jax.nn.silu, 1.8)
    trace = jax.jit(
        networks.jacobian_path(networks.mlp((4, 5, 5), swish, 0.1), X[:4], U[:4])
    )(key)
    assert np.all(np.isfinite(trace.increment))
    for name, call in (
        ("gain", lambda: activations.Activation("x", jnp.tanh, 0)),
        ("apply", lambda: activations.Activation("x", 3)),
        ("slope", lambda: activations.leaky_relu(float("inf"))),
        ("width", lambda: activations.shaped_relu(1, 1, 0)),
        ("c_minus", lambda: activations.shaped_relu(1, "a", 9)),
        ("c_plus", lambda: activations.shaped_relu(-3, 0, 9)),
        ("activation", lambda: activations.named(jnp.tanh)),
        ("head", lambda: networks.mlp((3, 3), "tanh", head="relu")),
        ("keep_prob", lambda: networks.mlp((3, 3), keep_prob=0)),
        ("gain", lambda: networks.mlp((3, 3), gain=-1)),
    ):
        with pytest.raises(ValueError, match=rf"{name} = "):
            call()
