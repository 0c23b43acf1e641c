"""Laws of residual networks: every term against simulation, and against its own
absence.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import statistical
from scipy import stats

from lognorm_jax import (
    activations,
    ensembles,
    masks,
    networks,
    paths,
    residuals,
    sampling,
    weights,
)

HALF = 0.5**0.5
N, D = 200, 100


def simulated(network, key, num_samples, observe=None):
    """Return increments of the blocks, and what was observed after them, along a
    generic input.
    """
    x = np.random.default_rng(0).normal(size=network.shape[0])
    return sampling.sample(paths.gram(network, x, observe=observe), key, num_samples)


@pytest.fixture(scope="module")
def vanilla():
    """Return log_norms of the blocks of a vanilla network, (num_samples,), and shares
    z_a > 0.
    """
    network = networks.residual(N, D, input_width=N)
    trace, active = simulated(
        network, jax.random.key(1), 20_000, lambda z, tangent: jnp.mean(z > 0)
    )
    return trace.increment[:, 1:].sum(-1, dtype=np.float64), active[:, 2:]


def assert_law(log_norms, law, allowance):
    """Hold mean and variance against a law to first order; allowance is that of the
    variance.
    """
    mean, variance = (
        statistical.mean_and_error(log_norms),
        statistical.variance_and_error(log_norms),
    )
    statistical.assert_near(*mean, law.mean, allowance=allowance / 4)
    statistical.assert_near(*variance, law.variance, allowance=allowance)


def test_oracle_correlations_by_quadrature():
    for rho in (-0.9, -0.2, 0.0, 0.5, 0.99):
        density = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]]).pdf

        def moment(power, density=density):  # E a² b^power over the quadrant
            def integrand(b, a):
                return a**2 * b**power * density([a, b])

            return scipy.integrate.dblquad(integrand, 0, 8, 0, 8, epsabs=1e-7)[0]

        S, K = residuals.square_correlation(rho), residuals.product_correlation(rho)
        assert 4 * (moment(2) - 0.25) == pytest.approx(S + 2 * rho**2, abs=1e-5)
        assert 4 * (moment(0) - 0.25) == pytest.approx(K, abs=1e-5)
    assert (
        residuals.square_correlation(1) == 3 and residuals.product_correlation(1) == 1
    )


@pytest.mark.parametrize(
    "law", [weights.normal(), weights.rademacher(), weights.laplace()]
)
@pytest.mark.parametrize("mask", [masks.relu(), masks.leaky_relu(0.2)])
def test_statistical_variance_of_one_block_of_the_mask_model(law, mask, key):
    """Exact at width 6, for a direction that is neither flat nor a coordinate."""
    alpha, lam, u = 0.6, 0.8, np.arange(1.0, 7.0)
    phi = activations.Activation("any", lambda z: z, 1.0, mask)
    kind = {
        "activation": phi,
        "weight_law": law,
        "skip_scale": alpha,
        "branch_scale": lam,
    }
    network = networks.residual(6, 1, "mask model", **kind)
    ratio = np.exp(
        sampling.sample(
            networks.jacobian_path(network, u, u), key, 60_000, block_size=1000
        ).log_norm
    )
    expected = residuals.predictable_variance(
        6,
        alpha,
        lam,
        mask_kurtosis=mask.kurtosis,
        kurtosis=law.kurtosis,
        quartic=np.sum(u**4) / np.sum(u**2) ** 2,
    )
    statistical.assert_near(*statistical.mean_and_error(ratio), 1)
    statistical.assert_near(*statistical.variance_and_error(ratio), expected)


@pytest.mark.parametrize("kind", ["balanced", "mask model"])
def test_statistical_balanced_law(kind, key):
    """n = 2d = 100: variance 1.125, for a direction other than the input."""
    network = networks.residual(100, 50, kind)
    x, u = np.random.default_rng(1).normal(size=(2, 100))
    log_norms = sampling.sample(paths.gram(network, x, u), key, 5_000).log_norm
    law = networks.limit_law(network, x, u)
    limit = networks.limit_law(network)  # on average over directions
    assert limit.variance == pytest.approx(1.125) and limit.mean == pytest.approx(
        -0.5625
    )
    second = 50 * 18.5 / 100**2 / 4  # of plain ReLU layers, λ⁴ = 1/4
    statistical.assert_near(
        *statistical.mean_and_error(log_norms), law.mean, allowance=second / 4
    )
    statistical.assert_near(
        *statistical.variance_and_error(log_norms), law.variance, allowance=second
    )


@pytest.mark.slow
def test_statistical_vanilla_law(vanilla):
    """To first order in 1/n: second order is below 4% of the variance at n = 200, d =
    100.
    """
    log_norms, _ = vanilla
    mean, variance = residuals.log_moments("vanilla", N, D, HALF, HALF)
    seen_mean, seen_variance = (
        statistical.mean_and_error(log_norms),
        statistical.variance_and_error(log_norms),
    )
    statistical.assert_near(*seen_mean, mean, allowance=0.03)
    statistical.assert_near(*seen_variance, variance, allowance=0.04 * variance)
    law = networks.limit_law(networks.residual(N, D, input_width=N))
    assert law.mean == pytest.approx(mean - 1 / N) and law.variance == pytest.approx(
        variance + 2 / N
    )
    # no interlayer terms
    without, _ = residuals.log_moments("balanced", N, D, HALF, HALF)
    for wrong, seen in ((without, seen_mean), (-2 * without, seen_variance)):
        with pytest.raises(AssertionError):
            statistical.assert_near(*seen, wrong, allowance=0.04 * abs(wrong))


def test_statistical_the_norm_of_vanilla_networks_grows_in_mean(vanilla):
    log_norms, _ = vanilla
    expected = residuals.log_mean_growth(N, D, HALF, HALF)
    growth, error = statistical.mean_and_error(np.exp(log_norms))
    statistical.assert_near(
        np.log(growth), error / growth, expected, allowance=0.05 * expected
    )
    assert expected > 10 * error / growth


def test_statistical_hypoactivation(vanilla):
    _, active = vanilla
    expected = residuals.active_share(N, D, HALF, HALF)[:-1]
    assert active.shape[1] == len(expected) == D - 1
    mean, error = statistical.mean_and_error(active.mean(1))
    statistical.assert_near(
        mean, error, expected.mean(), allowance=0.05 * (0.5 - expected.mean())
    )
    assert 0.5 - expected.mean() > 8 * error  # so that a half would be refused
    early, late = active[:, 0], active[:, 50:].mean(1)
    statistical.assert_near(*statistical.mean_and_error(early), expected[0])
    statistical.assert_near(
        *statistical.mean_and_error(late), expected[50:].mean(), allowance=1e-4
    )


@pytest.mark.slow
def test_statistical_hypoactivation_to_3_percent(key):
    """Enough to tell the factor √(1 − α^{2k}) in its sum, worth 15%."""
    network = networks.residual(N, 40, input_width=N)
    _, active = simulated(network, key, 200_000, lambda z, tangent: jnp.mean(z > 0))
    expected = 0.5 - residuals.active_share(N, 40, HALF, HALF)[9:-1].mean()
    mean, error = statistical.mean_and_error(
        0.5 - active[:, 11:].mean(1, dtype=np.float64)
    )
    assert error < 0.02 * expected
    statistical.assert_near(mean, error, expected, allowance=2 / N * expected)


@pytest.mark.parametrize("depth", [20, 80])
def test_statistical_small_branches_are_stable(depth, key):
    """λ² = 1/d: the log-variance is O(1/n) at any depth."""
    scales = {"skip_scale": (1 - 1 / depth) ** 0.5, "branch_scale": depth**-0.5}
    network = networks.residual(64, depth, input_width=64, **scales)
    log_norms = simulated(network, key, 10_000).log_norm
    law = networks.limit_law(network)
    assert law.variance < 9 / 64
    second = 60 / 64**2
    statistical.assert_near(
        *statistical.mean_and_error(log_norms), law.mean, allowance=second / 4
    )
    statistical.assert_near(
        *statistical.variance_and_error(log_norms), law.variance, allowance=second
    )


@pytest.mark.parametrize("x", [np.ones(8), np.array([3.0, -1, 2, 0.5, -2, 1, 1, -4])])
def test_statistical_post_activation_blocks_are_not_mean_one(x, key):
    alpha, lam = 0.8, 0.6
    network = networks.residual(8, 1, "post", skip_scale=alpha, branch_scale=lam)
    ratio = np.exp(sampling.sample(paths.gram(network, x), key, 60_000).log_norm)
    cosine = x.sum() / np.linalg.norm(x) / 8**0.5
    expected = residuals.post_growth(8, alpha, lam, cosine)
    assert abs(expected - 1) > 0.01
    statistical.assert_near(*statistical.mean_and_error(ratio), float(expected))


def test_exact_scales_that_do_not_add_up_are_reported(key):
    with pytest.warns(
        UserWarning, match=r"skip_scale² \+ branch_scale² = 2: squared norms grow"
    ):
        network = networks.residual(50, 4, "balanced", skip_scale=1, branch_scale=1)
    law = networks.limit_law(network)
    plain = networks.limit_law(networks.residual(50, 4, "balanced"))
    assert law.mean == pytest.approx(plain.mean + 4 * np.log(2))
    assert law.variance == pytest.approx(plain.variance)
    x = np.random.default_rng(0).normal(size=50)
    same = [
        paths.gram(n, x)(key).log_norm
        for n in (network, networks.residual(50, 4, "balanced"))
    ]
    assert same[0] - same[1] == pytest.approx(4 * np.log(2), abs=1e-4)


def test_exact_a_residual_network_without_skips_is_a_plain_one():
    mean, variance = residuals.log_moments("balanced", 30, 7, 0, 1)
    plain = ensembles.Ensemble((30,) * 8, weights.normal(), masks.relu())
    assert variance == pytest.approx(ensembles.log_variance(plain))
    assert mean == pytest.approx(-variance / 2)
    assert residuals.log_moments("vanilla", 30, 7, 1, 0) == (0, 0)


def test_exact_correlations_of_a_number_are_numbers():
    for value in (
        residuals.square_correlation(0.5),
        residuals.product_correlation(0.5),
    ):
        assert isinstance(value, float)
    assert residuals.square_correlation(np.ones(2)).shape == (2,)


def test_exact_bad_input():
    for name, call in (
        ("kind", lambda: networks.residual(8, 2, "fancy")),
        ("kind", lambda: residuals.log_moments("post", 8, 2, HALF, HALF)),
        ("width", lambda: networks.residual(0, 2)),
        ("depth", lambda: networks.residual(8, 2.5)),
        ("skip_scale", lambda: networks.residual(8, 2, skip_scale=-1)),
        ("branch_scale", lambda: networks.residual(8, 2, branch_scale=float("nan"))),
        ("activation", lambda: networks.residual(8, 2, activation=jnp.tanh)),
        (
            "activation",
            lambda: networks.residual(8, 2, "mask model", activation="tanh"),
        ),
        ("bias_scale", lambda: networks.residual(8, 2, bias_scale=-1)),
        ("input_width", lambda: networks.residual(8, 2, input_width=0)),
        ("network", lambda: networks.limit_law(networks.residual(8, 2, "post"))),
        ("network", lambda: networks.limit_law(networks.mlp((8, 8), "tanh"))),
        (
            "tangent",
            lambda: networks.limit_law(networks.residual(2, 2), [1, 0], [0, 1]),
        ),
        ("cosine", lambda: residuals.square_correlation(1.1)),
    ):
        with pytest.raises(ValueError, match=rf"{name} = "):
            call()


@pytest.mark.parametrize("sign", [1, -1, None])
def test_statistical_what_the_input_adds_to_vanilla_networks(sign, key):
    """A positive image grows, for its ReLUs are all on; the mean is right to order
    1/n.
    """
    width, depth = 128, 20
    x = np.random.default_rng(0).normal(size=width)
    x = np.abs(x) if sign is None else sign * x
    network = networks.residual(width, depth)
    increments = sampling.sample(paths.gram(network, x, x), key, 8_000).increment
    law = networks.limit_law(network, x, x)
    statistical.assert_near(
        *statistical.mean_and_error(increments.sum(1)), law.mean, allowance=4 / width
    )
    assert abs(law.mean - networks.limit_law(network).mean) > 0.1
    with pytest.raises(ValueError, match=r"(?s)x = .*positive coordinate"):
        networks.limit_law(network, -np.abs(x), -np.abs(x))
    with pytest.raises(ValueError, match=r"x\.shape"):
        networks.limit_law(network, np.ones(3))


def test_exact_input_growth():
    x, a = np.array([3.0, 0, -4, 0]), 0.6  # the first block doubles the share of φ(x)
    first = np.log(a**2 + 2 * (1 - a**2) * 9 / 25)
    assert np.isclose(
        residuals.input_growth(x, 1, a, (1 - a**2) ** 0.5), first, rtol=1e-12
    )
    assert abs(residuals.input_growth(np.array([1.0, -1.0]), 50, a, 0.8)) < 1e-12
    scaled = residuals.input_growth(1e200 * x, 9, 3.0, 4.0)
    assert np.isclose(scaled, residuals.input_growth(x, 9, 0.6, 0.8), rtol=1e-12)


@pytest.mark.parametrize("kind", ["balanced", "mask model"])
@pytest.mark.parametrize(
    "law", [weights.normal(), weights.rademacher()], ids=lambda w: w.name
)
def test_statistical_direction_of_residual_networks(kind, law, key):
    """A direction of few coordinates varies more, or with Rademacher weights less."""
    width, depth, few = 200, 6, 8
    u = (np.arange(width) < few).astype(float)
    network = networks.residual(width, depth, kind, weight_law=law)
    x = np.random.default_rng(0).normal(size=width)
    normal = law == weights.normal()
    path = (
        paths.gram(network, x, u) if normal else networks.jacobian_path(network, x, u)
    )
    log_norm = sampling.sample(path, key, 5_000, block_size=125).increment.sum(1)
    predicted = networks.limit_law(network, x, u)
    generic = networks.limit_law(network).variance
    added = predicted.variance / generic - 1
    assert added > 0.4 if kind == "balanced" else abs(added) < 0.05
    allowance = 0.05 * predicted.variance
    variance = statistical.variance_and_error(log_norm)
    statistical.assert_near(*variance, predicted.variance, allowance=allowance)
    statistical.assert_near(
        *statistical.mean_and_error(log_norm), predicted.mean, allowance=allowance
    )
    if kind == "balanced":
        with pytest.raises(ValueError, match=r"(?s)tangent = .*not nearly normal"):
            networks.limit_law(network, x, np.eye(width)[0])


def test_exact_kurtosis_of_weights_along_a_coordinate():
    """The first layer of the mask model is ``predictable_variance``; depth 1 is all of
    it.
    """
    n, half = 60, 0.5**0.5
    u = np.eye(n)[0]
    for kurtosis in (1.0, 3.0, 6.0):
        _, variance = residuals.law_moments(
            "mask model", n, 1, half, half, None, u, 2.0, kurtosis
        )
        exact = residuals.predictable_variance(
            n, half, half, kurtosis=kurtosis, quartic=1.0
        )
        assert np.isclose(variance, exact, rtol=1e-12)


def test_exact_kurtosis_of_weights_in_the_entry():
    """A linear layer of variance 1/n: Var R = (2 + (μ4 − 3) κ)/n, (μ4 − 1)/n for a
    coordinate.
    """
    n, half = 60, 0.5**0.5
    for kurtosis in (1.0, 3.0, 6.0):
        mean, variance = residuals.law_moments(
            "vanilla", n, 4, half, half, np.eye(9)[0], None, 2.0, kurtosis, entered=True
        )
        rest = residuals.law_moments(
            "vanilla", n, 4, half, half, None, None, 2.0, kurtosis
        )
        entry = (kurtosis - 1) / n
        assert np.isclose(variance - rest[1], entry, rtol=1e-9, atol=1e-15)
        assert np.isclose(mean - rest[0], -entry / 2, rtol=1e-9, atol=1e-15)
