"""The law of vanilla residual networks at one input: closed forms, simulation,
refusals.
"""

import numpy as np
import pytest
import statistical

from lognorm_jax import laws, networks, paths, residuals, sampling, vanilla, weights

HALF = 0.5**0.5
N, D = 100, 30


def input_with(positive, size=N):
    """Return an input of entries ±1, so many of them positive."""
    return np.where(np.arange(size) < positive, 1.0, -1.0)


def nearly_off(positive):
    """Return an input of entries −1, but for a few of 0.1."""
    return np.where(np.arange(64) < positive, 0.1, -1.0)


def simulated(x, depth, alpha, lam, num_samples):
    """Return ln(‖z^d‖²/‖x‖²): each layer adds normals of variance (2λ²/n)‖φ(z)‖²."""
    rng = np.random.default_rng(5)
    z = np.broadcast_to(x / np.sqrt(np.mean(x**2)), (num_samples, len(x)))
    for _ in range(depth):
        drive = 2 * lam**2 * np.mean(np.maximum(z, 0) ** 2, axis=1, keepdims=True)
        z = alpha * z + np.sqrt(drive) * rng.standard_normal(z.shape)
    return np.log(np.mean(z**2, axis=1))


@pytest.mark.parametrize(
    ("depth", "alpha"), [(1, HALF), (30, HALF), (20, 0.95), (7, 0.2)]
)
def test_exact_generic_inputs_have_the_closed_form(depth, alpha):
    """Entries that are normal from the start: S, K and the sums over pairs of layers
    come out.
    """
    lam = (1 - alpha**2) ** 0.5
    for n in (50, 200):
        mean, variance, _ = vanilla.log_moments(
            np.zeros(n), depth, alpha, lam, spread=1.0
        )
        expected = residuals.log_moments("vanilla", n, depth, alpha, lam)
        start = -1 / n, 2 / n  # mean and variance of ln‖z^0‖²/n
        assert np.allclose((mean, variance), np.add(expected, start), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kurtosis", [1.0, 3.0, 6.0])
def test_exact_one_block(kurtosis):
    """Var R = (4α²q + 2q² + (μ4 − 3) q² κ(φ(x)))/n for R of mean α² + q, q =
    2λ²‖φ(x)‖²/n.
    """
    alpha, lam, n = 0.6, 0.8, 9
    x = np.random.default_rng(0).normal(size=n)
    x /= np.sqrt(np.mean(x**2))
    on = np.maximum(x, 0) ** 2
    drive = 2 * lam**2 * np.mean(on)
    kappa = np.sum(on**2) / np.sum(on) ** 2
    mean = alpha**2 + drive
    expected = 4 * alpha**2 * drive + (2 + (kurtosis - 3) * kappa) * drive**2
    expected /= n * mean**2
    found = vanilla.log_moments(x, 1, alpha, lam, kurtosis=kurtosis)[:2]
    assert np.allclose(found, (np.log(mean) - expected / 2, expected), rtol=1e-12)


@pytest.mark.parametrize(
    ("x", "more"),
    [
        (input_with(50), 0),
        (input_with(25), 0.04),
        (input_with(15), 0.12),
        (input_with(200, 400), 0),
        (input_with(60, 400), 0.02),
        (input_with(40, 400), 0.04),
    ],
    ids=["50 of 100", "25 of 100", "15 of 100", "200 of 400", "60 of 400", "40 of 400"],
)
def test_statistical_inputs_with_few_positive_coordinates(x, more):
    """What first order leaves is a relative 8/n of the variance, which is low, and some
    more.
    """
    n = len(x)
    law = networks.limit_law(networks.residual(n, D), x, x)
    log_norm = simulated(x, D, HALF, HALF, 3_000_000 // n)
    mean, mean_error = statistical.mean_and_error(log_norm)
    variance, error = statistical.variance_and_error(log_norm)
    bound = (8 / n + more) * law.variance
    assert -5 * error < variance - law.variance < bound + 5 * error
    second = bound / 2
    statistical.assert_near(mean, mean_error, law.mean, allowance=second)


def test_statistical_the_law_at_an_input_is_that_of_the_network(key):
    """Real inputs, by the gram path; the law of generic inputs is another one."""
    x = input_with(15)
    network = networks.residual(N, D)
    log_norm = sampling.sample(paths.gram(network, x, x), key, 12_000).increment.sum(1)
    law = networks.limit_law(network, 3 * x, -x)  # their length does not matter
    assert laws.compare(log_norm, law, 0.02).verdict == "pass"
    generic = residuals.log_moments("vanilla", N, D, HALF, HALF)
    growth = residuals.input_growth(x, D, HALF, HALF)
    old = laws.normal(generic[0] + growth, generic[1])
    assert laws.compare(log_norm, old, 0.02).verdict == "fail"


@pytest.mark.slow
def test_statistical_kurtosis_of_the_weights(key):
    """One large positive coordinate: the fourth moment of its weights shows in each
    block.
    """
    n, depth = 64, 2
    x = np.append(12.0, np.random.default_rng(1).normal(size=n - 1))
    rows = []
    for law in (weights.rademacher(), weights.laplace()):
        network = networks.residual(n, depth, weight_law=law)
        trace = sampling.sample(networks.jacobian_path(network, x, x), key, 30_000)
        seen = statistical.variance_and_error(trace.increment.sum(1))
        rows.append((*seen, networks.limit_law(network, x, x).variance))
    (few, few_error, low), (many, many_error, high) = rows
    error = np.hypot(few_error, many_error)
    statistical.assert_near(many - few, error, high - low, allowance=0.2 * (high - low))
    assert high - low > 30 * error


def test_exact_kurtosis_of_the_weights_of_generic_inputs():
    """λ⁴·2(μ4 − 3)·3/n² a block, with and without a linear layer first."""
    for entry in (None, N):
        shapes = [
            networks.residual(N, D, weight_law=law, input_width=entry)
            for law in (weights.normal(), weights.laplace())
        ]
        normal, laplace = map(networks.limit_law, shapes)
        assert laplace.variance - normal.variance == pytest.approx(D / 4 * 6 * 3 / N**2)


def test_exact_what_has_no_law_is_refused():
    x = np.random.default_rng(0).normal(size=N)
    network = networks.residual(N, D)
    entered = networks.residual(N, D, input_width=N)
    for given, message in (
        ((network, None, x), r"tangent = .*along x.*Give x = tangent.*paths\.gram"),
        ((entered, None, x), r"tangent = .*Give x = tangent"),
        ((network, x, x + np.eye(N)[0]), r"tangent = .*along x.*paths\.gram"),
        ((entered, x, np.eye(N)[0]), r"tangent = .*along x"),
        (
            (network, input_with(5), None),
            r"x = .*more positive coordinates.*paths\.gram",
        ),
        ((network, input_with(1), input_with(1)), r"x = .*more positive coordinates"),
        # few numbers decide when the ReLUs of all others come on, though the variance
        # looks small
        (
            (networks.residual(256, 40), input_with(1, 256), None),
            r"x = .*ln ‖φ\(z\)‖²/‖z‖²",
        ),
        ((networks.residual(64, 40), nearly_off(4), None), r"x = .*ln ‖φ\(z\)‖²/‖z‖²"),
        ((networks.residual(64, 40), nearly_off(1), None), r"x = .*ln ‖φ\(z\)‖²/‖z‖²"),
    ):
        with pytest.raises(ValueError, match=f"(?s){message}"):
            networks.limit_law(*given)
    assert networks.limit_law(entered, x, x).name == networks.limit_law(entered).name


def test_exact_extreme_inputs_do_not_overflow():
    tiny = np.append(1e-150, -np.ones(N - 1))
    for x in (1e200 * input_with(50), 1e-200 * input_with(50)):
        law = networks.limit_law(networks.residual(N, 4), x)
        plain = networks.limit_law(networks.residual(N, 4), input_with(50))
        assert law.mean == pytest.approx(plain.mean, rel=1e-9)
    with pytest.raises(ValueError, match=r"(?s)x = .*more positive coordinates"):
        networks.limit_law(networks.residual(N, 4_000), tiny)


@pytest.mark.slow
def test_statistical_the_bound_at_many_shapes():
    """8/n of the variance and 12% more, wherever a law is given."""
    rng = np.random.default_rng(2)
    for n, depth, alpha in (
        (50, 50, HALF),
        (30, 15, 0.6),
        (100, 100, HALF),
        (100, 100, 0.99),
    ):
        lam = (1 - alpha**2) ** 0.5
        network = networks.residual(n, depth, skip_scale=alpha, branch_scale=lam)
        for share in (0.5, 0.4, 0.3, 0.2):
            x = input_with(round(share * n), n) * np.abs(rng.normal(size=n))
            try:
                law = networks.limit_law(network, x, x)
            except ValueError:
                continue
            variance, error = statistical.variance_and_error(
                simulated(x, depth, alpha, lam, 20_000)
            )
            bound = (0.12 + 8 / n) * law.variance
            assert (
                -5 * error - 4 / n * law.variance
                < variance - law.variance
                < bound + 5 * error
            )


def test_exact_branches_that_are_nearly_nothing():
    x = np.random.default_rng(0).normal(size=N)
    for lam in (1e-7, 1e-8, 1e-20):
        network = networks.residual(N, 10, skip_scale=1.0, branch_scale=lam)
        law = networks.limit_law(network, x, x)
        assert 0 < law.variance < 100 * lam**2 and abs(law.mean) < 1e3 * lam**2 + 1e-12
    nothing = networks.residual(N, 10, skip_scale=1.0, branch_scale=1e-200)
    with pytest.raises(ValueError, match="branch_scale = 1e-200: must be at least"):
        networks.limit_law(nothing, x, x)
