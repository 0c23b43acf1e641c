"""Variance of a convolution, given its input, exactly; and the conv networks that obey
it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statistical

from lognorm_jax import convolutions, masks, networks, probes, residuals, sampling

# one compile a shape, not one an operation
variance_of = jax.jit(
    convolutions.predictable_variance,
    static_argnums=(1, 2),
    static_argnames="keep_prob",
)
C_IN, C_OUT, S = 4, 5, 6
X, U = np.random.default_rng(3).normal(size=(2, C_IN, S))


def ratios(network, x, u, key, num_samples=60_000):
    path = networks.jacobian_path(network, x, u)
    return np.exp(sampling.sample(path, key, num_samples, block_size=1000).log_norm)


def masked(key, x, keep_prob, taps):
    """Return ‖D W * x‖²/‖x‖² with independent masks in all places, variance 1/(p k
    c_out).
    """
    key_weight, key_mask = jax.random.split(key)
    P = convolutions.patches(jnp.asarray(x, jnp.result_type(float)), taps)
    W = jax.random.normal(key_weight, (C_OUT, len(P))) / (keep_prob * 3 * C_OUT) ** 0.5
    z = masks.bernoulli(keep_prob).sample(key_mask, (C_OUT, P.shape[1]), P.dtype) * (
        W @ P
    )
    return jnp.sum(z * z) / np.sum(x**2)


def test_oracle_patches_against_loops():
    x = np.random.default_rng(0).normal(size=(2, 5))
    P = np.asarray(convolutions.patches(jnp.asarray(x), (3,)))
    for t in range(5):
        assert np.allclose(
            P[:, t], np.concatenate([x[c, np.arange(t - 1, t + 2) % 5] for c in (0, 1)])
        )
    x = np.random.default_rng(0).normal(size=(2, 4, 5))
    P = np.asarray(convolutions.patches(jnp.asarray(x), (3, 2))).reshape(2, 3, 2, 4, 5)
    for i, j in ((0, 0), (3, 4), (2, 1)):
        rows, columns = np.arange(i - 1, i + 2) % 4, np.arange(j, j + 2) % 5
        assert np.allclose(P[..., i, j], x[:, rows][:, :, columns])


def test_oracle_layer_against_lax(key, rounding):
    """The same numbers as a circular convolution of jax.lax."""
    network = networks.conv((3, 4), (6, 7), (3, 5), bias_scale=0.3)
    params = network.init(key)
    x = jax.random.normal(key, (3, 6, 7))
    (layer,) = network.layers(params)
    (trained,) = params.trained
    W, b = trained["weight"][0].reshape(4, 3, 3, 5), trained["bias"][0]
    padded = jnp.pad(x, ((0, 0), (1, 1), (2, 2)), mode="wrap")[None]
    expected = jax.lax.conv(padded, W, (1, 1), "VALID", precision="highest")[0]
    assert np.allclose(
        layer(x), jax.nn.relu(expected + b[:, None, None]), atol=10 * rounding
    )


@pytest.mark.parametrize("taps", [1, 3])
def test_statistical_variance_of_a_relu_layer_along_its_input(taps, key):
    network = networks.conv((C_IN, C_OUT), (S,), taps)
    expected = variance_of(jnp.asarray(X), (taps,), C_OUT)
    ratio = ratios(network, X, X, key)
    statistical.assert_near(*statistical.mean_and_error(ratio), 1)
    statistical.assert_near(*statistical.variance_and_error(ratio), float(expected))
    linear = variance_of(jnp.asarray(X), (taps,), C_OUT, keep_prob=1)
    with pytest.raises(AssertionError):  # without S, of the masks
        statistical.assert_near(*statistical.variance_and_error(ratio), float(linear))


@pytest.mark.parametrize("shape", [(S,), (3, 2)])
def test_statistical_variance_of_a_jacobian_along_another_direction(shape, key):
    """The masks depend on x, the tangent does not: the cosines of both count."""
    x, u = X.reshape(C_IN, *shape), U.reshape(C_IN, *shape)
    x = x + 1  # aligned patches
    taps = (3,) if len(shape) == 1 else (2, 2)
    network = networks.conv((C_IN, C_OUT), shape, taps)
    x, u = jnp.asarray(x), jnp.asarray(u)
    expected = float(variance_of(x, taps, C_OUT, tangent=u))
    ratio = ratios(network, np.asarray(x), np.asarray(u), key)
    statistical.assert_near(*statistical.mean_and_error(ratio), 1)
    statistical.assert_near(*statistical.variance_and_error(ratio), expected)
    wrong = float(variance_of(u, taps, C_OUT))
    value, error = statistical.variance_and_error(ratio)
    assert abs(wrong - value) > 5 * error  # the formula along x is another one


def sphere(x, u, taps, points=500):
    """Return Var(R | x) for c_in = 1 and three taps, by a grid over all directions of a
    row of W.

    R is the mean over the rows w of c_out terms, each |w|² f(w/|w|), and E|w|⁴ = 15.
    """
    P, Q = (
        np.array([np.roll(row, 1 - j) for j in range(taps)]) for row in (x[0], u[0])
    )
    # uniform on the sphere, by Archimedes
    height = (np.arange(points) + 0.5) * 2 / points - 1
    around = (np.arange(points) + 0.5) * 2 * np.pi / points
    rest = np.sqrt(1 - height**2)[:, None]
    parts = np.broadcast_arrays(
        height[:, None], rest * np.cos(around), rest * np.sin(around)
    )
    w = np.stack(parts, axis=-1).reshape(-1, 3)
    f = np.sum((w @ P > 0) * (w @ Q) ** 2, axis=1) * 2 / (taps * np.sum(u**2))
    return (15 * np.mean(f**2) - (3 * np.mean(f)) ** 2) / C_OUT


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0, -0.5])
@pytest.mark.parametrize("own", [0.0, 1.0])
def test_oracle_variance_where_patches_of_the_tangent_overlap_those_of_the_input(
    part, own
):
    """One channel: all six correlations of two patches of x and two of the tangent
    count.
    """
    x, u = np.random.default_rng(7).normal(size=(2, 1, 8))
    tangent = own * x + part * u
    if not tangent.any():
        tangent = np.eye(1, 8)
    found = variance_of(x, (3,), C_OUT, tangent=tangent)
    assert float(found) == pytest.approx(sphere(x, tangent, 3), rel=1e-3)
    blank = x * (np.arange(8) > 3)  # some patches of x are 0: there the ReLUs are off
    found = variance_of(blank, (3,), C_OUT, tangent=tangent)
    assert float(found) == pytest.approx(sphere(blank, tangent, 3), rel=1e-3)


def test_statistical_variance_of_many_channels_along_a_tangent_near_the_input():
    """24 channels and u = x + ½u': rows of W in NumPy, enough of them to see 1%."""
    rng = np.random.default_rng(8)
    x, u = rng.normal(size=(2, 24, 8))
    tangent = x + 0.5 * u
    P, Q = (
        np.asarray(convolutions.patches(jnp.asarray(v), (3,)), np.float32)
        for v in (x, tangent)
    )
    rows = np.concatenate(
        [
            np.sum((w @ P > 0) * (w @ Q) ** 2, axis=1)
            for w in (rng.standard_normal((10_000, 72), np.float32) for _ in range(40))
        ]
    )
    rows = rows.astype(np.float64) * 2 / (3 * np.sum(tangent**2))
    expected = float(convolutions.predictable_variance(x, (3,), 1, tangent=tangent))
    value, error = statistical.variance_and_error(rows)
    statistical.assert_near(value, error, expected)
    assert 2 * error < 0.01 * value


@pytest.mark.parametrize("keep_prob", [0.5, 0.8])
def test_statistical_variance_with_independent_masks(keep_prob, key):
    expected = convolutions.predictable_variance(
        jnp.asarray(X), (3,), C_OUT, keep_prob=keep_prob
    )
    ratio = sampling.sample(lambda key: masked(key, X, keep_prob, (3,)), key, 60_000)
    statistical.assert_near(*statistical.mean_and_error(ratio.astype(np.float64)), 1)
    statistical.assert_near(
        *statistical.variance_and_error(ratio.astype(np.float64)), float(expected)
    )


def test_exact_limits_of_the_formula():
    """One position, or all alike: 5/c, the dense law; many orthogonal patches: 5/(c
    s).
    """
    ones = jnp.ones((3, 8))
    variance = variance_of
    assert variance(ones, (3,), 10) == pytest.approx(5 / 10, rel=1e-5)
    assert variance(jnp.arange(4.0)[:, None], (1,), 10) == pytest.approx(
        5 / 10, rel=1e-5
    )
    assert variance(jnp.eye(8), (1,), 10) == pytest.approx(5 / (10 * 8), rel=1e-5)
    assert variance(jnp.zeros((3, 8)), (3,), 10) == 0
    assert variance(ones, (3,), 10, keep_prob=1) == pytest.approx(2 / 10, rel=1e-5)
    both = variance(ones, (3,), 10, tangent=jnp.eye(3, 8))
    # aligned masks are less independent
    assert both > variance(jnp.eye(3, 8), (3,), 10)


def test_statistical_depth_aligns_the_positions(key):
    """So the variance of a layer climbs from 5/(c s) towards 5/c: the effective width
    is c.
    """
    c, s, depth = 16, 8, 40
    network = networks.conv((c,) * (depth + 1), (s,), 3)
    x = np.random.default_rng(1).normal(size=(c, s))

    def observe(x, tangent):
        return convolutions.predictable_variance(x, (3,), c)

    path = networks.jacobian_path(network, x, x, observe=observe)
    trace, predicted = sampling.sample(path, key, 1_500)
    assert predicted.shape == (1_500, depth)
    climbing = c * predicted.mean(0)
    assert (
        climbing[0] < 1.5 and climbing[-1] > 3.5 and np.all(np.diff(climbing[:10]) > 0)
    )
    total, error = statistical.variance_and_error(trace.log_norm)
    statistical.assert_near(
        total, error, predicted.sum(1).mean(), allowance=0.25 * total
    )
    assert total > 5 * (5 * depth / (c * s))


def test_oracle_path_of_a_conv_network_equals_its_layers(key, rounding):
    network = networks.conv((2, 3, 3, 4), (5,), 3, "tanh", 0.2)
    x, u = np.random.default_rng(0).normal(size=(2, 2, 5))
    layers = network.layers(network.init(key))
    increments = probes.jvp_increments(layers, x, u)
    trace = jax.jit(networks.jacobian_path(network, x, u))(key)
    assert np.allclose(trace.increment, increments, rtol=0, atol=10 * rounding)


def test_exact_bad_input():
    small = networks.conv((2, 2), (4,))
    for name, call in (
        ("taps", lambda: networks.conv((2, 2), (4,), 5)),
        ("taps", lambda: networks.conv((2, 2), (4, 4), (3,))),
        (r"taps\[0\]", lambda: networks.conv((2, 2), (4,), 0)),
        ("channels", lambda: networks.conv((2,), (4,))),
        (r"channels\[1\]", lambda: networks.conv((2, 0), (4,))),
        ("positions", lambda: networks.conv((2, 2), (4, 4, 4))),
        ("activation", lambda: networks.conv((2, 2), (4,), activation="swish")),
        ("bias_scale", lambda: networks.conv((2, 2), (4,), bias_scale=-1)),
        ("network", lambda: networks.limit_law(networks.conv((2, 2), (4,)))),
        (
            r"tangent\.shape",
            lambda: networks.jacobian_path(small, np.ones((2, 4)), np.ones(8)),
        ),
        (
            "channels",
            lambda: convolutions.predictable_variance(jnp.ones((2, 3)), (1,), 0),
        ),
    ):
        with pytest.raises(ValueError, match=rf"{name} = "):
            call()


def test_exact_predictable_variance_knows_no_scale():
    x = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
    expected = variance_of(x, (3, 3), 4)
    for scale in (1e-20, 1e15):
        found = variance_of(np.float32(scale) * x, 3, 4)
        assert np.isclose(found, expected, rtol=1e-5)
    whole = np.arange(1, 5).reshape(1, 4) * 10**5
    near = variance_of(whole / 1e5, (3,), 4)
    assert np.isclose(variance_of(whole, (3,), 4), near, rtol=1e-5)
    for image, taps, tangent, message in (
        (x, (3,), None, "taps = "),
        (x, 5, None, "taps = "),
        (x[0, 0], 3, None, r"x\.shape"),
        (x * np.nan, 3, None, "x = "),
        (x, 3, x[:, :1], r"tangent\.shape"),
    ):
        with pytest.raises(ValueError, match=message):
            convolutions.predictable_variance(image, taps, 4, tangent=tangent)


@pytest.mark.parametrize("along", [True, False])
def test_oracle_predictable_variance_has_a_derivative(along, rounding):
    """Against differences; and float32 is as exact as its numbers, whatever is
    alike.
    """
    rng = np.random.default_rng(1)
    x, u = jnp.asarray(rng.normal(size=(2, 2, 5)))

    def variance(x):
        return variance_of(x, 3, 4, tangent=x if along else u)

    gradient = jax.jit(jax.grad(variance))
    slope = gradient(x)
    step = 1e-2
    unit = jnp.asarray(rng.normal(size=x.shape))
    expected = (variance(x + step * unit) - variance(x - step * unit)) / (2 * step)
    assert np.isclose(jnp.sum(slope * unit), expected, rtol=5e-3, atol=1e-4)
    blank = x.at[:, :3].set(0)  # one patch is 0
    assert np.all(np.isfinite(gradient(blank)))
    narrow = jnp.asarray(x[:, :1] + 1e-3 * x, jnp.float32)  # patches are nearly alike
    wide = closed_form(np.asarray(narrow, np.float64), 3) / 4
    found = variance_of(narrow, 3, 4)
    assert np.isclose(found, wide, rtol=3e-5)


def closed_form(x, taps):
    """Return Σ C_tt C_t't' [2ρ² + S(ρ)]/(tr C)² in NumPy."""
    P = np.concatenate([[np.roll(row, 1 - j) for j in range(taps)] for row in x])
    C = P.T @ P
    size = np.diagonal(C)
    rho = np.clip(C / np.sqrt(np.outer(size, size)), -1, 1)
    bracket = 2 * rho**2 + residuals.square_correlation(rho)
    return np.sum(np.outer(size, size) * bracket) / size.sum() ** 2
