"""Exact laws of volumes, and of orthogonal weights, against simulation and other
inversions.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy
from scipy import special, stats

from lognorm_jax import (
    ensembles,
    exact,
    laws,
    masks,
    moments,
    networks,
    paths,
    sampling,
    weights,
)
from lognorm_jax.theory import _frames, _gammas, _inversion, _quadrature

RELU, LINE = masks.relu(), masks.identity()
ORTHOGONAL = weights.orthogonal()


def products(widths, mask=RELU, law=None):
    return ensembles.Ensemble(widths, law or weights.normal(), mask)


def log_volumes(matrices, k):
    """Return ln det((M V)ᵀ(M V)) for V the first k coordinates, −inf for 0."""
    frames = matrices[:, :, :k]
    gram = np.swapaxes(frames, 1, 2) @ frames
    sign, log = np.linalg.slogdet(gram)
    # of fewer than k dimensions, to rounding
    lost = np.linalg.matrix_rank(frames) < k
    return np.where(lost | (sign <= 0), -np.inf, log)


def drawn_masks(widths, keep, count, rng):
    """Return products of normal matrices with masks, (count, n_d, n_0)."""
    M = np.broadcast_to(np.eye(widths[0]), (count, widths[0], widths[0]))
    for n_in, n in itertools.pairwise(widths):
        W = rng.normal(size=(count, n, n_in)) / (keep * n) ** 0.5
        M = (rng.random((count, n, 1)) < keep) * W @ M
    return M


def drawn_relu(widths, count, rng):
    """Return Jacobians of ReLU networks with biases at one input."""
    x = np.broadcast_to(np.linspace(-1, 2, widths[0]), (count, widths[0]))
    M = np.broadcast_to(np.eye(widths[0]), (count, widths[0], widths[0]))
    for n_in, n in itertools.pairwise(widths):
        W = rng.normal(size=(count, n, n_in)) * (2 / n) ** 0.5
        z = np.einsum("sij,sj->si", W, x) + 0.3 * rng.normal(size=(count, n))
        x, M = np.maximum(z, 0), (z > 0)[:, :, None] * (W @ M)
    return M


@pytest.mark.parametrize(
    ("widths", "mask", "k", "mean", "variance", "alive"),
    [
        ((5, 8, 6, 7), RELU, 2, -3.832, 12.87, 0.8056),
        ((5, 8, 6, 7), LINE, 3, -3.153, 3.755, 1.0),
        ((12,) * 4, RELU, 3, -4.549, 12.961, None),
    ],
)
def test_exact_moments_of_volumes(widths, mask, k, mean, variance, alive):
    """What simulations of 10⁵ products confirmed before there was this code."""
    law = exact.volume_law(products(widths, mask), k)
    assert abs(law.mean - mean) < 6e-4
    assert abs(law.variance - variance) < 6e-3
    if alive is not None:
        assert abs(1 - law.atom - alive) < 6e-5
    both = exact.volume_cumulants(products(widths, mask), k, 2)
    assert np.allclose(both, (law.mean, law.variance))


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["masks", "relu", "linear"])
def test_statistical_100_000_volumes(kind, k):
    """Each has its law; that of one dimension more or less is told apart."""
    widths, count = (5, 8, 6, 7), 100_000
    rng = np.random.default_rng(k)
    keep = 1.0 if kind == "linear" else 0.5
    M = (
        drawn_relu(widths, count, rng)
        if kind == "relu"
        else drawn_masks(widths, keep, count, rng)
    )
    ensemble = products(widths, LINE if kind == "linear" else RELU)
    samples = log_volumes(M, k)
    assert laws.compare(samples, exact.volume_law(ensemble, k)).verdict == "pass"
    for other in (k - 1, k + 1):
        if other:
            wrong = laws.compare(samples, exact.volume_law(ensemble, other))
            assert wrong.verdict == "fail"


def test_statistical_volumes_of_relu_networks():
    widths, count = (5, 8, 6, 7), 10_000
    samples = log_volumes(drawn_relu(widths, count, np.random.default_rng(0)), 2)
    right = laws.compare(samples, exact.volume_law(products(widths), 2))
    assert right.verdict == "pass"
    for other in (1, 3):
        wrong = laws.compare(samples, exact.volume_law(products(widths), other))
        assert wrong.verdict == "fail"


def gil_pelaez(widths, keep, k, x, orthogonal=False):
    """Return P(X ≤ x | alive), by Gil-Pelaez's formula with scipy's log-gamma."""
    step = 0.005
    t = step * (np.arange(120_000) + 0.5)
    phi = np.ones(len(t), complex)
    for n_in, n in itertools.pairwise(widths):
        b = np.arange(k, n + 1)
        prob = stats.binom.pmf(b, n, keep)
        prob /= prob.sum()
        N = max(n_in, n)
        each = np.zeros(len(t), complex)
        for one, p in zip(b, prob, strict=True):
            if p < 1e-30:
                continue
            total = np.zeros(len(t), complex)
            for j in range(k):
                a = (one - j) / 2
                total += special.loggamma(a + 1j * t) - special.gammaln(a)
                if orthogonal:
                    a = (N - j) / 2
                    total -= special.loggamma(a + 1j * t) - special.gammaln(a)
            scale = N / (keep * n) if orthogonal else 2 / (keep * n)
            each += p * np.exp(total + 1j * t * k * math.log(scale))
        phi *= each
    return [
        0.5 - step / np.pi * np.sum(np.imag(np.exp(-1j * t * at) * phi) / t) for at in x
    ]


@pytest.mark.parametrize(
    ("widths", "keep", "k", "orthogonal"),
    [
        ((12,) * 9, 0.5, 3, False),
        ((7, 9, 11, 8, 8), 1.0, 4, False),
        ((30, 20, 40, 20), 0.8, 2, False),
        ((20,) * 9, 0.5, 1, True),
        ((20,) * 9, 0.5, 2, True),
        ((12, 20, 15), 1.0, 2, True),
    ],
)
def test_oracle_cdf_by_another_inversion(widths, keep, k, orthogonal):
    mask = LINE if keep == 1 else masks.bernoulli(keep)
    law = exact.volume_law(
        products(widths, mask, ORTHOGONAL if orthogonal else None), k
    )
    x = law.mean + law.variance**0.5 * np.array([-3, -1, -0.2, 0.5, 2])
    other = gil_pelaez(widths, keep, k, x, orthogonal)
    mine = (law.cdf(x) - law.atom) / (1 - law.atom)
    assert np.max(np.abs(mine - other)) < 1e-9


@pytest.mark.parametrize(
    ("width", "mask", "depth"),
    [
        (3, RELU, 2),
        (16, RELU, 16),
        (1000, RELU, 100),
        (50, masks.bernoulli(0.999), 20),
        (100_000, masks.bernoulli(0.9999), 20),
        (3_000, masks.bernoulli(0.01), 20),
        (1_000_000, RELU, 100),
        (1_000_000, LINE, 30),
    ],
)
def test_oracle_one_vector_by_its_density_and_by_its_transform(width, mask, depth):
    """Two inversions that have nothing but the trapezoid rule in common."""
    law = exact.law(products((width,) * (depth + 1), mask))
    frame = _frames.Frame(width, float(mask.keep_prob), 1)
    both = _frames.cumulants(frame), _quadrature.cumulants(width, mask)
    size = both[0][1] ** (np.arange(1, 9) / 2)
    # in units of the standard deviation; quadrature sees less of high ones
    first, second = np.array(both) / size
    assert np.allclose(first[:6], second[:6], rtol=1e-9, atol=1e-10)
    assert np.allclose(first[6:], second[6:], rtol=1e-9, atol=1e-7)
    mean, variance = (depth * c for c in _frames.cumulants(frame)[:2])
    sigma = variance**0.5
    lower, upper = _inversion.curves([(_frames.layer(frame), depth)], mean, sigma)
    x = mean + sigma * np.linspace(-5, 5, 41)
    alive = math.exp(depth * _frames.log_alive(frame))
    assert abs(alive - (1 - law.atom)) < 1e-14
    other = laws.tabulated("", lower, upper, mean, variance, law.atom, alive)
    assert np.max(np.abs(law.cdf(x) - other.cdf(x))) < 1e-9
    assert np.max(np.abs(law.sf(x) / other.sf(x) - 1)) < 1e-7


def test_oracle_log_gamma_ratios():
    """By log-gammas while they are small, and by a product where they are huge."""
    for a in (0.5, 3.0, 29.0, 31.0, 200.0):
        for s in (0.3, -0.2, 1.5 + 3j, 2 - 20j):
            got = _gammas.log_ratio(np.array([a]), np.array([s]), 2.0)[0]
            exactly = special.loggamma(a + s) - special.loggamma(a) - s * math.log(2)
            assert abs(got - exactly) < 1e-12
    a, m = 5e6, 40
    got = _gammas.log_ratio(np.array([a]), np.array([float(m)]), a)[0]
    assert abs(got - np.sum(np.log1p(np.arange(m) / a))) < 1e-14


@pytest.mark.parametrize(
    ("n", "keep", "k"),
    [
        (1000, 0.5, 500),
        (1000, 0.5, 450),
        (400, 0.5, 200),
        (5000, 0.01, 40),
        (5000, 0.01, 22),
        (20_000, 0.01, 150),
    ],
)
def test_oracle_as_many_vectors_as_masks_keep(n, keep, k):
    """Where the number of coordinates is cut off at k amid its law: moments by a sum
    over all numbers, and the law by its own moments.
    """
    mask = masks.bernoulli(keep)
    b = np.arange(k, n + 1)
    odds = stats.binom.pmf(b, n, keep)
    odds /= odds.sum()
    mean, variance = np.zeros((2, len(b)))
    for j in range(k):
        mean += special.digamma((b - j) / 2) - np.log(keep * n / 2)
        variance += special.polygamma(1, (b - j) / 2)
    center = odds @ mean
    spread = odds @ (variance + (mean - center) ** 2)
    found = exact.volume_cumulants(products((n, n), mask), k, 2)
    assert np.allclose(found, (center, spread), rtol=1e-9)
    if k > 100:
        return
    law = exact.volume_law(products((n, n), mask), k)
    x = np.linspace(center - 12 * spread**0.5, center + 8 * spread**0.5, 20_001)
    density = law.pdf(x) / (1 - law.atom)
    assert abs(scipy.integrate.trapezoid(density, x) - 1) < 1e-6
    assert abs(scipy.integrate.trapezoid(density * x, x) - center) < 1e-4
    assert np.all(np.diff(law.cdf(x)) >= 0)


@pytest.mark.parametrize("k", [4_999, 5_000])
def test_oracle_nearly_all_vectors_of_wide_layers(k):
    """Where masks that lose next to nothing have to keep nearly all."""
    n, keep = 5_000, 0.9999
    b = np.arange(k, n + 1)
    odds = stats.binom.pmf(b, n, keep)
    given = np.subtract.outer(b, np.arange(k)) / 2
    means = np.sum(special.digamma(given) - np.log(keep * n / 2), axis=1)
    expected = odds @ means / odds.sum()
    mask = masks.bernoulli(keep)
    found = exact.triangle_means(products((n, n), mask), k).sum()
    assert np.isclose(found, expected, rtol=1e-11)


def test_oracle_determinants():
    """Of square linear layers ln |det|² is a sum of ln χ²: here of 1, 2 and 3."""
    law = exact.volume_law(products((3, 3), LINE), 3)
    rng = np.random.default_rng(0)
    z = rng.chisquare([1, 2, 3], size=(100_000, 3))
    assert laws.compare(np.log(z).sum(1) - 3 * math.log(3), law).verdict == "pass"


def test_oracle_cumulants_of_volumes():
    """By the law itself; and the fan convention only shifts."""
    ensemble = products((9, 12, 10, 11))
    law = exact.volume_law(ensemble, 2)
    x = np.linspace(law.mean - 60, law.mean + 30, 400_001)
    density = law.pdf(x) / (1 - law.atom)
    central = [
        scipy.integrate.trapezoid(density * (x - law.mean) ** k, x) for k in (2, 3, 4)
    ]
    found = exact.volume_cumulants(ensemble, 2, 4)
    assert np.allclose(found[1:3], central[:2], rtol=1e-5)
    assert np.isclose(found[3], central[2] - 3 * central[0] ** 2, rtol=1e-4)
    fan_in = ensembles.Ensemble((9, 12, 10, 11), weights.normal(), RELU, "in")
    shifted = exact.volume_law(fan_in, 2)
    assert np.isclose(shifted.mean - law.mean, 2 * math.log(11 / 9))
    assert np.allclose(shifted.cdf(x + 2 * math.log(11 / 9)), law.cdf(x), atol=1e-12)


@pytest.mark.parametrize("law", [None, ORTHOGONAL])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_exact_limit_of_volumes(k, law):
    """Moments and distance fall as 1/n at equal β; the limit is not −v/2 for k > 1."""
    near, far = (products((n,) * (n // 2 + 1), RELU, law) for n in (400, 100))
    limits = [exact.volume_limit_law(ensemble, k) for ensemble in (near, far)]
    assert np.isclose(limits[0].variance, limits[1].variance)
    exactly = [exact.volume_law(ensemble, k) for ensemble in (near, far)]
    for name in ("mean", "variance"):
        gaps = [
            abs(getattr(a, name) / getattr(b, name) - 1)
            for a, b in zip(exactly, limits, strict=True)
        ]
        assert gaps[0] < 0.3 * gaps[1] < 0.1
    apart = [laws.ks_distance(a, b) for a, b in zip(exactly, limits, strict=True)]
    assert apart[0] < 0.35 * apart[1] < 0.05
    if k == 1:
        assert np.isclose(limits[0].variance, 2.5 if law is None else 1.5)


def test_exact_wide_and_deep_volumes():
    """Up to 10⁶ units; next to the limit."""
    for k in (2, 10):
        ensemble = products((10**6,) * 101)
        law, limit = exact.volume_law(ensemble, k), exact.volume_limit_law(ensemble, k)
        assert laws.ks_distance(law, limit) < 1e-3
        assert abs(law.variance / limit.variance - 1) < 5e-5


def test_exact_laws_of_orthogonal_weights():
    """Mean and variance that simulations confirmed; linear square ones keep all."""
    found = exact.cumulants(products((8,) * 5, RELU, ORTHOGONAL), 2)
    assert np.allclose(found, (-1.0744, 3.8527), atol=1e-4)
    n_variance = [
        n * exact.cumulants(products((n, n), RELU, ORTHOGONAL), 2)[1]
        for n in (50, 100, 400)
    ]
    assert np.allclose(n_variance, (3.37, 3.17, 3.04), atol=5e-3)
    still = exact.law(products((6,) * 4, LINE, ORTHOGONAL))
    assert (still.mean, still.variance, float(still.quantile(0.3))) == (0, 0, 0)
    assert exact.cumulants(products((5, 5), LINE, ORTHOGONAL)) == (0, 0, 0, 0)
    # only the last layer drops coordinates: Beta(30, 30) of 120 dimensions, doubled
    funnel = exact.law(products((60, 120, 120, 60), LINE, ORTHOGONAL))
    share = stats.beta(30, 30)
    x = np.array([-0.3, 0.0, 0.2])
    assert np.allclose(funnel.cdf(x), share.cdf(np.exp(x) / 2), atol=1e-9)


@pytest.mark.parametrize("widths", [(5, 5), (4, 7, 3), (6, 2, 9, 9)])
def test_oracle_moments_of_orthogonal_weights(widths):
    """By Beta variables given how many coordinates are kept, in Fractions; and of
    other masks the second by the variance of each layer.
    """
    ensemble = products(widths, RELU, ORTHOGONAL)
    for k in range(5):
        expected = Fraction(1)
        for n_in, n in itertools.pairwise(widths):
            N = max(n_in, n)
            rising = [
                math.prod((Fraction(b + 2 * j, N + 2 * j) for j in range(k)), start=1)
                for b in range(n + 1)
            ]
            odds = [Fraction(math.comb(n, b), 2**n) for b in range(n + 1)]
            mean = sum(o * r for o, r in zip(odds, rising, strict=True))
            expected *= Fraction(2 * N, n) ** k * mean
        assert moments.norm_moment(ensemble, k) == expected
    leaky = products(widths, masks.leaky_relu(0.3), ORTHOGONAL)
    variances = ensembles.predictable_variance(leaky, np.zeros(leaky.depth))
    second = float(moments.norm_moment(leaky, 2, np.arange(1.0, widths[0] + 1)))
    assert np.isclose(second, np.prod(1 + variances))


@pytest.mark.parametrize("widths", [(20,) * 7, (10, 20, 14, 16, 16, 16)])
def test_statistical_orthogonal_relu_networks_with_biases(widths, key):
    """Followed, and drawn whole by QR; of other weights the law is another."""
    network = networks.relu_mlp(widths, 0.3, weight_law=ORTHOGONAL)
    x, u = np.random.default_rng(0).normal(size=(2, widths[0]))
    law = exact.law(network.ensemble)
    fast = sampling.sample(paths.gram(network, x, u), key, 20_000)
    assert laws.compare(fast.log_norm, law).verdict == "pass"
    drawn = sampling.sample(paths.jacobian(network, x, u), key, 4_000)
    assert laws.compare(drawn.log_norm, law).verdict == "pass"
    dense = sampling.sample(paths.dense(network.ensemble), key, 4_000)
    assert laws.compare(dense.log_norm, law).verdict == "pass"
    normal = exact.law(products(widths))
    assert laws.compare(fast.log_norm, normal).verdict == "fail"


def test_statistical_orthogonal_volumes():
    """Of two vectors, by QR of NumPy with its signs mended."""
    n, depth, count = 14, 4, 10_000
    rng = np.random.default_rng(0)
    Q, R = np.linalg.qr(rng.normal(size=(depth, count, n, n)))
    Q *= np.sign(np.diagonal(R, axis1=-2, axis2=-1))[..., None, :]
    M = np.broadcast_to(np.eye(n), (count, n, n))
    for layer in Q:
        M = 2**0.5 * (rng.random((count, n, 1)) < 0.5) * layer @ M
    law = exact.volume_law(products((n,) * (depth + 1), RELU, ORTHOGONAL), 2)
    assert laws.compare(log_volumes(M, 2), law).verdict == "pass"


def test_statistical_orthogonal_matrices_are_haar(key):
    """The law of one entry, on the diagonal and off, signs among them; and its trace
    has mean 0 and variance 1, which a QR of any other sign convention has not.
    """
    n, count = 5, 20_000
    draw = lambda key: ORTHOGONAL.sample(key, (n, n), np.float32) / n**0.5  # noqa: E731
    U = np.asarray(sampling.sample(draw, key, count), np.float64)
    square = stats.beta(0.5, (n - 1) / 2)
    for i, j in ((0, 0), (3, 3), (4, 4), (1, 3)):
        entry = U[:, i, j]
        cdf = lambda x: 0.5 + np.sign(x) * square.cdf(x**2) / 2  # noqa: E731
        assert stats.kstest(entry, cdf).pvalue > 1e-4
    trace = np.trace(U, axis1=1, axis2=2)
    assert abs(trace.mean()) < 5 / count**0.5
    assert abs(trace.var() - 1) < 5 * 2**0.5 / count**0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: exact.volume_law(products((5, 3, 4)), 4),
            r"k = 4: .*1…3, the sm",
        ),
        (lambda: exact.volume_law(products((5, 3, 4)), 0), r"k = 0"),
        (lambda: exact.volume_law(products((5, 3, 4)), 1.5), r"k = 1.5"),
        (
            lambda: exact.volume_law(products((5, 5), masks.leaky_relu(0.1)), 2),
            r"mask = .*\{0, 1\} mask.*spectra.path",
        ),
        (
            lambda: exact.volume_law(products((5, 5), RELU, weights.uniform()), 2),
            r"ensemble.weights = 'uniform'",
        ),
        (
            lambda: exact.law(products((5, 5), masks.leaky_relu(0.1), ORTHOGONAL)),
            r"mask = .*\{0, 1\} mask",
        ),
        (lambda: exact.law(products((4, 4), RELU, ORTHOGONAL)), r"steps.*spectra.path"),
        (
            lambda: exact.volume_limit_law(products((5, 5), LINE, ORTHOGONAL), 2),
            r"ensemble = .*volumes vary",
        ),
        (lambda: exact.volume_law("relu", 2), r"ensemble = 'relu'"),
    ],
)
def test_exact_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
