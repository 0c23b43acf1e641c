"""Lyapunov exponents, participation and singular values, against enumeration, higher
precision and plain loops.
"""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy
from scipy import special

from lognorm_jax import (
    ensembles,
    exact,
    laws,
    masks,
    networks,
    sampling,
    spectra,
    weights,
)

RELU, LINE = masks.relu(), masks.identity()
ORTHOGONAL = weights.orthogonal()


def products(widths, mask=RELU, law=None, fan="out"):
    return ensembles.Ensemble(widths, law or weights.normal(), mask, fan)


@pytest.mark.parametrize("width", [1, 5, 64, 1000])
def test_oracle_newman_exponents(width):
    j = np.arange(min(width, 7))
    newman = (special.digamma((width - j) / 2) + np.log(2 / width)) / 2
    found = spectra.lyapunov(products((width,) * 4, LINE), len(j))
    assert np.allclose(found, newman, rtol=0, atol=1e-12)


@pytest.mark.parametrize("law", [None, ORTHOGONAL])
def test_exact_exponents_add_up_to_volumes(law):
    """Given that k coordinates survive; and both fans."""
    for fan, k in itertools.product(("out", "in"), (1, 3, 6)):
        ensemble = products((7, 9, 6, 12), RELU, law, fan)
        total = 2 * 3 * spectra.lyapunov(ensemble, k).sum()
        assert np.isclose(total, exact.volume_cumulants(ensemble, k, 1)[0])


def test_statistical_exponents_are_the_means_of_the_path(key):
    ensemble, k = products((6, 9, 7, 8)), 3
    increments = sampling.sample(spectra.path(ensemble, k), key, 20_000)
    alive = np.isfinite(increments).all((1, 2))
    means = np.asarray(increments, np.float64)[alive].sum(1) / 6
    error = means.std(0) / len(means) ** 0.5
    assert np.all(np.abs(means.mean(0) - spectra.lyapunov(ensemble, k)) < 5 * error)


def enumerated(widths, keep):
    """Return E (tr G)² and E tr G² of signs and masks of {0, 1}, all of them."""
    layers = list(itertools.pairwise(widths))
    sizes = [n_in * n for n_in, n in layers]
    first = second = Fraction(0)
    for signs in itertools.product(*(range(2**size) for size in sizes)):
        matrices = [
            np.array([1 - 2 * (sign >> i & 1) for i in range(n_in * n)]).reshape(
                n, n_in
            )
            for sign, (n_in, n) in zip(signs, layers, strict=True)
        ]
        for kept in itertools.product(*(range(2**n) for _, n in layers)):
            M = np.eye(widths[0], dtype=int)
            odds = Fraction(1)
            for W, mask, (_, n) in zip(matrices, kept, layers, strict=True):
                D = np.array([mask >> i & 1 for i in range(n)])
                M = D[:, None] * (W @ M)
                odds *= keep ** int(D.sum()) * (1 - keep) ** int(n - D.sum())
            G = M.T @ M
            first += odds * int(np.trace(G)) ** 2
            second += odds * int(np.trace(G @ G))
    return first, second


@pytest.mark.parametrize(
    ("widths", "keep"),
    [
        ((2, 2), Fraction(1, 2)),
        ((3, 2), Fraction(1, 3)),
        ((1, 3), Fraction(1, 2)),
        ((2, 2, 1), Fraction(2, 3)),
        ((1, 2, 2), Fraction(1, 2)),
        ((2, 2, 2), Fraction(1)),
    ],
)
def test_oracle_participation_by_enumeration(widths, keep):
    first, second = enumerated(widths, keep)
    ensemble = products(widths, masks.bernoulli(keep), weights.rademacher())
    assert spectra.participation(ensemble) == widths[0] * second / first


def test_exact_participation():
    """What ReLU networks were simulated to have: 182.82 and 241.87 (n = 10, L = 4)."""
    found = spectra.participation(products((10,) * 5))
    assert isinstance(found, Fraction)
    assert abs(float(found) - 10 * 182.82 / 241.87) < 1e-3
    assert spectra.participation(products((10,) * 5, fan="in")) == found
    # as wide layers have it, and where one dimension is left
    wide = products((3_000, 1_500, 6_000))
    assert abs(float(spectra.participation(wide)) - 6) < 0.02
    assert spectra.participation_limit(wide) == 6
    assert spectra.participation(products((7, 1), LINE)) == 7
    still = products((5,) * 4, LINE, ORTHOGONAL)
    assert spectra.participation(still) == spectra.participation_limit(still) == 1


@pytest.mark.parametrize("widths", [(6, 6, 6), (4, 7, 5), (1, 3)])
def test_statistical_participation_of_orthogonal_weights(widths):
    """Haar matrices by QR, with masks; T and Q themselves."""
    rng, count = np.random.default_rng(0), 40_000
    M = np.broadcast_to(np.eye(widths[0]), (count, widths[0], widths[0]))
    for n_in, n in itertools.pairwise(widths):
        N = max(n_in, n)
        Q, R = np.linalg.qr(rng.normal(size=(count, N, N)))
        Q *= np.sign(np.diagonal(R, axis1=1, axis2=2))[:, None, :]
        M = (rng.random((count, n, 1)) < 0.5) * (Q[:, :n, :n_in] @ M)
    G = np.swapaxes(M, 1, 2) @ M
    T = np.trace(G, axis1=1, axis2=2) ** 2
    Q = np.sum(G**2, axis=(1, 2))
    ratio = widths[0] * Q.mean() / T.mean()
    rest = (widths[0] * Q - ratio * T) / T.mean()
    found = float(spectra.participation(products(widths, RELU, ORTHOGONAL)))
    error = rest.std() / count**0.5
    assert abs(found - ratio) <= 5 * error + 1e-12
    assert widths[0] == 1 or abs(found - 1) > 50 * error


def drawn(widths, mask, law, count, rng):
    """Return products by a plain loop, (count, n_d, n_0)."""
    M = np.broadcast_to(np.eye(widths[0]), (count, widths[0], widths[0]))
    for n_in, n in itertools.pairwise(widths):
        keys = jax.random.split(jax.random.key(int(rng.integers(2**31))))
        W = law.sample(keys[0], (count, n, n_in), np.float32)
        D = mask.sample(keys[1], (count, n, 1), np.float32)
        scale = (float(mask.moment(1)) * n) ** -0.5
        M = scale * np.asarray(D, np.float64) * (np.asarray(W, np.float64) @ M)
    return M


@pytest.mark.parametrize(
    ("mask", "law"),
    [
        (RELU, weights.normal()),
        (masks.leaky_relu(0.2), weights.normal()),
        (LINE, weights.rademacher()),
        (RELU, weights.uniform()),
    ],
)
def test_statistical_singular_values_of_products(mask, law, key):
    """By NumPy's SVD of products that are drawn; the volumes by QR, too."""
    widths, count = (4, 6, 5, 7), 4_000
    M = drawn(widths, mask, law, count, np.random.default_rng(0))
    with np.errstate(divide="ignore"):
        theirs = np.log(np.linalg.svd(M, compute_uv=False))
    theirs = np.where(theirs < -15, -50, theirs)
    keys = jax.random.split(key)
    ensemble = products(widths, mask, law)
    mine = sampling.sample(spectra.singular_path(ensemble, 4), keys[0], count)
    mine = np.where(np.isneginf(mine), -50, mine)
    for a, b in zip(mine.T, theirs.T, strict=True):
        assert scipy.stats.ks_2samp(a, b).pvalue > 1e-4
    increments = sampling.sample(spectra.path(ensemble, 4), keys[1], count)
    volumes = np.asarray(increments).sum((1, 2)) / 2
    volumes = np.where(np.isneginf(volumes), -200, volumes)
    theirs = np.where(theirs == -50, -200, theirs).sum(1)
    theirs = np.maximum(theirs, -200)
    assert scipy.stats.ks_2samp(volumes, theirs).pvalue > 1e-4


def test_statistical_volumes_of_the_path_have_their_exact_law(key):
    """Of normal and orthogonal weights, and of ReLU networks with biases."""
    keys = jax.random.split(key, 3)
    network = networks.relu_mlp((7, 9, 8, 10), 0.3)
    cases = [
        (products((5, 8, 6, 7)), {}, exact.volume_law(products((5, 8, 6, 7)), 2)),
        (
            products((20,) * 6, RELU, ORTHOGONAL),
            {},
            exact.volume_law(products((20,) * 6, RELU, ORTHOGONAL), 2),
        ),
        (network, {"x": np.linspace(-1, 2, 7)}, exact.volume_law(network.ensemble, 2)),
    ]
    for k, (source, given, law) in zip(keys, cases, strict=True):
        increments = sampling.sample(spectra.path(source, 2, **given), k, 8_000)
        volumes = np.asarray(increments, np.float64).sum((1, 2))
        assert laws.compare(volumes, law).verdict == "pass"


def test_statistical_spectra_of_networks(key):
    """A small transformer's, against singular values of Jacobians that are drawn."""
    network = networks.transformer(4, 1, 2, 2, init="lecun")
    x = np.random.default_rng(0).normal(size=(2, 4))
    keys = jax.random.split(key)
    path = spectra.singular_path(network, 8, x)
    mine = sampling.sample(path, keys[0], 2_000)

    def whole(key):
        params = network.init(key)
        at = jnp.asarray(x, jnp.result_type(float))
        J = jax.jacobian(lambda x: network.apply(params, x))(at)
        return J.reshape(8, 8)

    J = np.asarray(sampling.sample(whole, keys[1], 2_000), np.float64)
    theirs = np.log(np.linalg.svd(J, compute_uv=False))
    path = spectra.singular_path(network, 8, x, drawn=True)
    drawn = sampling.sample(path, keys[1], 2_000)
    for a, b, c in zip(np.asarray(mine).T, drawn.T, theirs.T, strict=True):
        assert scipy.stats.ks_2samp(a, c).pvalue > 1e-4
        # of one key one network, but for a frame that does not matter
        # to rounding of the largest
        rounded = np.abs(b - c) * np.exp(c - theirs[:, 0])
        assert np.max(rounded) < 1e-5


@pytest.mark.float64
@pytest.mark.parametrize(("width", "depth"), [(8, 200), (5, 50), (3, 1), (8, 3)])
def test_oracle_singular_values_by_many_digits(width, depth, rounding):
    """Each to 1e-10 in float64; in float32 to 1e-4 where no factor is much worse
    conditioned than the others, and else to what the errors of all add up to.
    """
    rng = np.random.default_rng(width * depth)
    factors = rng.normal(size=(depth, width, width)).astype(np.float32) / 4
    factors = factors.astype(np.float64)
    with mpmath.workdps(400):
        product = mpmath.eye(width)
        for factor in factors:
            product = mpmath.matrix(factor.tolist()) * product
        values = mpmath.svd_r(product, compute_uv=False)
        expected = np.sort([float(mpmath.log(value)) for value in values])[::-1]
    found = np.asarray(spectra.log_singular_values(factors), np.float64)
    limit = 1e-10 if jax.config.x64_enabled else 1e-4
    assert np.max(np.abs(found - expected)) < limit
    # nearer to one another than that they would not be told apart
    assert np.min(np.diff(-expected)) > 10 * limit


@pytest.mark.float64
@pytest.mark.parametrize("times", [5, 20, 60])
def test_oracle_factors_that_grow_in_the_last_directions(times, rounding):
    """Whatever order a caller's directions have, and when others come after them."""
    D = np.diag([0.1, 1.0, 10.0])
    G = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    for factors in ([D] * times + [G], [D] * times + [G] + [D] * times):
        with mpmath.workdps(300):
            product = mpmath.eye(3)
            for factor in factors:
                product = mpmath.matrix(factor.astype(float).tolist()) * product
            values = mpmath.svd_r(product, compute_uv=False)
            expected = np.sort([float(mpmath.log(value)) for value in values])[::-1]
        found = spectra.log_singular_values(np.stack(factors))
        # condition numbers add up to 100 · times
        assert np.max(np.abs(found - expected)) < 100 * rounding * times / 5


def test_exact_products_that_are_not_finite_or_far_from_1():
    """NaN is told, and no size is lost."""
    bad = np.ones((2, 3, 3), np.float32)
    bad[1, 0, 2] = np.nan
    with pytest.raises(ValueError, match=r"factors"):
        spectra.log_singular_values(bad)
    assert np.isnan(jax.jit(spectra.log_singular_values)(bad)).all()
    for size in (1e300, 1e-300, 3e38, 1e-40):
        found = spectra.log_singular_values(np.stack([np.diag([size, size / 8])] * 2))
        expected = 2 * np.log([size, size / 8])
        assert np.allclose(found, expected, rtol=1e-5)
    G = np.random.default_rng(0).normal(size=(3, 3, 3))
    small = spectra.log_singular_values(1e-37 * G)
    same = spectra.log_singular_values(G)
    assert np.allclose(small - 3 * np.log(1e-37), same, atol=1e-3)


def test_exact_singular_values_under_transformations():
    """Of traced factors in their own precision: the same to rounding."""
    factors = np.random.default_rng(0).normal(size=(2, 10, 4, 4)).astype(np.float32)
    found = jax.jit(jax.vmap(spectra.log_singular_values))(factors)
    known = [spectra.log_singular_values(each) for each in factors]
    assert found.dtype == known[0].dtype == jnp.result_type(float)
    assert np.allclose(found, known, atol=1e-3)


def test_exact_singular_products():
    """Of lower rank, of size 0, and of sizes that float32 does not hold."""
    rng = np.random.default_rng(0)
    tall, wide = rng.normal(size=(4, 2)), rng.normal(size=(2, 4))
    found = np.asarray(spectra.log_singular_values(np.stack([tall @ wide, np.eye(4)])))
    expected = np.log(np.linalg.svd(tall @ wide, compute_uv=False)[:2])
    assert np.allclose(found[:2], expected, atol=1e-5) and np.all(found[2:] < -12)
    zero = np.asarray(spectra.log_singular_values(np.zeros((2, 3, 3))))
    assert np.all(np.isneginf(zero))
    scales = np.diag([8.0, 1.0, 0.125])
    found = spectra.log_singular_values(np.stack([scales] * 5))
    assert np.allclose(found, 5 * np.log(np.diag(scales)), atol=1e-4)
    one = spectra.log_singular_values(np.full((3, 1, 1), -2.0))
    assert np.allclose(one, 3 * np.log(2), rtol=1e-6)


def test_exact_long_and_wide_products_are_finite(key):
    ensemble = products((16,) * 2_001, LINE)
    found = np.asarray(spectra.singular_path(ensemble, 16)(key), np.float64)
    assert np.isfinite(found).all()
    per_layer = found / 2_000
    assert np.allclose(per_layer, spectra.lyapunov(ensemble, 16), atol=0.05)
    assert np.isfinite(spectra.path(products((10**6,) * 3), 4)(key)).all()


def test_exact_masks_that_keep_too_few(key):
    """Directions that are lost are −inf, at each layer, and never NaN."""
    ensemble = products((3, 3, 3, 3, 3))
    increments = np.asarray(sampling.sample(spectra.path(ensemble, 3), key, 500))
    values = np.asarray(sampling.sample(spectra.singular_path(ensemble, 3), key, 500))
    assert not np.isnan(increments).any() and not np.isnan(values).any()
    lost = np.isneginf(increments).any((1, 2))
    assert 0.9 < lost.mean() <= 1 and np.isneginf(values[:, 2]).mean() > 0.9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: spectra.path(products((5, 3)), 4), r"k = 4: .*1…3, the smallest wid"),
        (lambda: spectra.path(products((5, 3)), 0), r"k = 0"),
        (lambda: spectra.path(products((5, 3)), 1, np.ones(5)), r"x = .*None"),
        (lambda: spectra.path("relu", 1), r"source = 'relu'"),
        (
            lambda: spectra.path(
                networks.relu_mlp((5, 3), weight_law=weights.uniform()), 1, np.ones(5)
            ),
            r"network = .*drawn=True",
        ),
        (
            lambda: spectra.participation(
                products((4, 4), RELU, weights.fixed_fan_in(2))
            ),
            r"ensemble.weights = .*independent",
        ),
        (lambda: spectra.path(products((5, 3)), 1, drawn=True), r"drawn = True"),
        (lambda: spectra.path(products((5, 3)), 1, drawn=1), r"drawn = 1"),
        (lambda: spectra.path(networks.relu_mlp((5, 3)), 1), r"x = None.*\(5,\)"),
        (
            lambda: spectra.path(networks.relu_mlp((5, 3)), 1, np.ones(4)),
            r"x.shape = \(4,\)",
        ),
        (
            lambda: spectra.path(networks.relu_mlp((5, 3)), 4, np.ones(5)),
            r"k = 4: .*1…3",
        ),
        (lambda: spectra.lyapunov(products((5, 3), masks.leaky_relu(0.1)), 2), r"mask"),
        (lambda: spectra.log_singular_values(np.ones((2, 3))), r"factors.shape"),
        (lambda: spectra.log_singular_values(np.ones((1, 2, 3))), r"factors.shape"),
        (lambda: spectra.participation("relu"), r"ensemble = 'relu'"),
    ],
)
def test_exact_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
