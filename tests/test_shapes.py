"""Fixed changes of shape are told apart, and left out of the verdict."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax import models, probes, shapes

HE, CHANNELS = 2.0, 8
IMAGE = jax.ShapeDtypeStruct((6, 6, 4), jnp.float32)


def mean_pool(x):
    return x.mean((-3, -2))


def windows(reduce, start):
    return lambda x: jax.lax.reduce_window(
        x, x.dtype.type(start), reduce, (2, 2, 1), (2, 2, 1), "SAME"
    )


FIXED = {
    "flatten": jnp.ravel,
    "mean": mean_pool,
    "jitted mean": jax.jit(mean_pool),
    "scaled sum": lambda x: 0.01 * x.sum((0, 1)),
    "window mean": windows(jax.lax.add, 0),
    "window maximum": windows(jax.lax.max, -np.inf),
    "maximum": lambda x: x.max((0, 1)),
    "median": lambda x: jnp.median(x, 0),
    "stride": lambda x: x[::2, ::2],
    "gather": lambda x: x[np.array([0, 3, 4])],
    "pad": lambda x: jnp.pad(x, ((1, 1), (1, 1), (0, 0))),
    "pad with ones": lambda x: jnp.pad(x, 1, constant_values=1),
    "resize": lambda x: jax.image.resize(x, (3, 3, 4), "linear"),
    "differences": lambda x: jnp.diff(x, axis=0),
}
MATRIX = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
WEIGHTED = {
    "linear": lambda x: x @ MATRIX,
    "of numpy": lambda x: x @ np.ones((4, 3), np.float32),
    "jitted": jax.jit(lambda x: x @ MATRIX),
    "rematerialised": jax.checkpoint(lambda x: x @ MATRIX),
    "mapped": jax.vmap(lambda x: x @ MATRIX),
    "in a branch": lambda x: jax.lax.cond(
        x[0, 0, 0] > 0, lambda: x @ MATRIX, lambda: x[..., :3]
    ),
    "gain": lambda x: MATRIX[0, 0] * x.mean(0),
    "held gain": functools.partial(lambda gain, x: gain * x.mean(0), jnp.float32(3)),
    "drawn": functools.partial(
        lambda key, x: jax.random.normal(key, (2, 6), x.dtype) @ x.mean(0),
        jax.random.key(0),
    ),
}
ACTIVATIONS = {
    "gated": jax.nn.glu,
    "both signs": lambda x: jnp.concatenate([jax.nn.relu(x), jax.nn.relu(-x)]),
    "relu, mean": lambda x: jax.nn.relu(x).mean((0, 1)),
    "mean, tanh": lambda x: jnp.tanh(x.mean((0, 1))),
    "mean size": lambda x: jnp.abs(x).mean((0, 1)),
    "root mean square": lambda x: jnp.sqrt(jnp.mean(x**2, (0, 1)) + 1e-9),
    "normalised": lambda x: (x / jnp.linalg.norm(x)).reshape(-1),
    "logarithm": lambda x: jnp.log(x).reshape(-1),
    "exponential": lambda x: jnp.exp(1e3 * x).reshape(-1),
}
SAME_SHAPE = {"relu": jax.nn.relu, "smoothing": lambda x: (x + jnp.roll(x, 1, 0)) / 2}


def test_exact_what_is_a_fixed_change_of_shape():
    for kind, expected in ((FIXED, True), (WEIGHTED, False), (ACTIVATIONS, False)):
        for name, layer in kind.items():
            assert jax.eval_shape(layer, IMAGE).shape != IMAGE.shape
            assert shapes.is_fixed(layer, IMAGE) == expected, name
    for name, layer in SAME_SHAPE.items():
        assert not shapes.is_fixed(layer, IMAGE), name
    half = jax.ShapeDtypeStruct((64, 8), jnp.bfloat16)
    assert shapes.is_fixed(lambda x: x.sum(0), half) and not shapes.is_fixed(
        jax.nn.glu, half
    )


@pytest.mark.parametrize("literal", [False, True])
def test_exact_weights_are_found_wherever_a_jaxpr_keeps_them(literal):
    option = "jax_use_simplified_jaxpr_constants"
    if not hasattr(jax.config, option):
        pytest.skip("this JAX keeps constants in one way")
    before = getattr(jax.config, option)
    jax.config.update(option, literal)
    try:
        for name, layer in WEIGHTED.items():
            assert shapes.holds_weights(layer, IMAGE), name
        for name, layer in {**FIXED, **ACTIVATIONS, **SAME_SHAPE}.items():
            assert not shapes.holds_weights(layer, IMAGE), name
    finally:
        jax.config.update(option, before)


def convolution(kernel, x):
    return jax.lax.conv_general_dilated(
        x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


def hidden(kernel, x):
    return jax.nn.relu(convolution(kernel, x))


def normal(key, shape, scale):
    """Return a kernel (…, inputs, outputs) of variance scale / fan in."""
    return math.sqrt(scale / math.prod(shape[:-1])) * jax.random.normal(
        key, shape, jnp.float32
    )


def cnn(pool, scale=HE, channels=CHANNELS, depth=2, together=False):
    """Return initialisations of ReLU convolutions, pooled, with a linear head."""

    def init(key):
        keys = jax.random.split(key, depth + 1)
        sizes = [(3, 3, 3, channels)] + [(3, 3, channels, channels)] * (depth - 1)
        kernels = [
            normal(k, size, scale) for k, size in zip(keys[:-1], sizes, strict=True)
        ]
        head = models.named(
            functools.partial(jnp.matmul, b=normal(keys[-1], (channels, 10), 1.0)),
            "head",
        )
        last = [models.chain([pool, head])] if together else [pool, head]
        return [functools.partial(hidden, kernel) for kernel in kernels] + last

    return init


def images(side):
    return np.random.default_rng(0).normal(size=(5, side, side, 3)).astype(np.float32)


@functools.cache
def pooled_report(kind, together=False):
    init = cnn(mean_pool, together=together)
    key = jax.random.key(20190327)
    return probes.probe(init, images(8), key, num_samples=200, kind=kind)


@pytest.mark.parametrize("kind", probes.KINDS)
def test_statistical_a_pooled_he_network_is_stable(kind):
    report = pooled_report(kind)
    assert report.verdict == "stable"
    assert report.vanishing.value < 0.02 and report.exploding.value == 0
    assert report.names[2:] == ("2: mean_pool (fixed)", "3: head")
    assert "not counting what is (fixed)" in str(report)

    # the whole Jacobian is told as it is
    layers = report.layers.mean.value
    assert report.mean.value == pytest.approx(np.sum(layers))
    assert report.mean.value == report.log_norms.mean()
    assert layers[2] < -2


@pytest.mark.slow
@pytest.mark.parametrize("side", [4, 32])
@pytest.mark.parametrize("kind", ["jvp", "vjp"])
def test_statistical_a_pooled_he_network_is_stable_at_any_size(side, kind, key):
    init = cnn(mean_pool, channels=32, depth=4)
    report = probes.probe(init, images(side), key, num_samples=200, kind=kind)
    assert report.verdict == "stable"


def group_norm(x, groups=4):
    parts = x.reshape(*x.shape[:-1], groups, -1)
    centred = parts - parts.mean((0, 1, 3), keepdims=True)
    size = jnp.sqrt(jnp.mean(centred**2, (0, 1, 3), keepdims=True) + 1e-5)
    return (centred / size).reshape(x.shape)


def residual(kernel, x):
    return x + convolution(kernel, jax.nn.relu(group_norm(x)))


def test_statistical_a_pooled_residual_network_is_stable(key):
    def init(key):
        keys = jax.random.split(key, 4)
        kernels = [normal(k, (3, 3, CHANNELS, CHANNELS), HE) for k in keys[1:3]]
        return [
            functools.partial(convolution, normal(keys[0], (3, 3, 3, CHANNELS), HE)),
            *(functools.partial(residual, kernel) for kernel in kernels),
            lambda x: jax.nn.relu(group_norm(x)),
            mean_pool,
            functools.partial(jnp.matmul, b=normal(keys[3], (CHANNELS, 10), 1.0)),
        ]

    assert probes.probe(init, images(8), key, num_samples=100).verdict == "stable"


@pytest.mark.parametrize(
    ("pool", "scale", "verdict"),
    [(lambda x: x.sum((-3, -2)), 0.1, "vanishing"), (mean_pool, 70.0, "exploding")],
)
def test_statistical_pooling_hides_nothing(pool, scale, verdict, key):
    """A sum stretches what decayed, a mean shrinks what grew: each to stability."""
    report = probes.probe(cnn(pool, scale), images(8), key, num_samples=100)
    assert report.verdict == verdict
    growth = np.log(10 / images(8)[0].size)
    hidden = np.mean(np.abs(report.log_norms - growth) > 2 * np.log(10))
    assert hidden < 0.05


def test_exact_pooling_in_one_block_with_weights():
    """A chain is measured in parts, and told as one layer: the same numbers."""
    apart = pooled_report("jvp")
    together = pooled_report("jvp", together=True)
    assert together.names[2:] == ("2: mean_pool (fixed), head",)
    assert np.allclose(together.judged, apart.judged, rtol=0, atol=1e-5)
    assert np.allclose(together.log_norms, apart.log_norms, rtol=0, atol=1e-5)
    means = together.layers.mean.value
    expected = apart.layers.mean.value
    assert means.shape == (3,)
    assert means[2] == pytest.approx(expected[2:].sum(), abs=1e-5)


def test_oracle_what_is_judged(key):
    """Without pooling: ln of the mean square of a coordinate, in NumPy."""
    matrix = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    layers = [jnp.ravel, lambda x: jnp.asarray(matrix) @ x, lambda x: 0.5 * x[::2]]
    inputs, direction = np.ones((1, 3, 1), np.float32), np.array([[1.0], [2.0], [-1.0]])
    image = matrix @ direction[:, 0]
    grown = np.log(np.mean(image**2) / np.mean(direction**2))
    report = probes.probe(layers, inputs, key, num_samples=100, direction=direction)
    assert np.allclose(report.judged, grown, rtol=0, atol=1e-5)
    whole = np.log(np.sum((image[::2] / 2) ** 2) / np.sum(direction**2))
    assert np.allclose(report.log_norms, whole, rtol=0, atol=1e-5)
    # and backwards, where the slice comes first
    cotangent = np.array([2.0, 1.0])
    back = probes.probe(
        layers, inputs, key, num_samples=100, kind="vjp", direction=cotangent
    )
    pulled = matrix[::2].T @ cotangent
    shrunk = np.log(np.mean(pulled**2) / (np.sum(cotangent**2) / 4))
    assert np.allclose(back.judged, shrunk, rtol=0, atol=1e-5)


def test_exact_a_path_that_dies_in_a_fixed_layer_is_dead(key):
    direction = np.array([0.0, 1.0])
    layers = [lambda x: x[::2]]
    report = probes.probe(
        layers, np.ones((1, 2)), key, num_samples=100, direction=direction
    )
    assert (
        report.dead_mass.value == 1
        and report.vanishing.value == 1
        and np.all(report.judged == -np.inf)
    )


def test_exact_layers_without_weights_that_keep_their_shape_count(key):
    dying = [lambda x: 0.1 * x, jax.nn.relu]
    report = probes.probe(dying, np.ones((1, 40), np.float32), key, num_samples=100)
    assert (
        report.names == ("0: <lambda>", "1: relu") and report.layers.mean.value[0] < -4
    )
    assert np.array_equal(report.judged, report.log_norms)


def test_exact_errors_name_the_layer_behind_a_chain(key):
    layers = [
        models.chain([mean_pool, lambda x: x @ jnp.ones((3, 3), x.dtype), jnp.sin])
    ]
    loop = models.named(
        lambda x: jax.lax.while_loop(lambda x: x[0] < 9, lambda x: 2 * x, x), "loop"
    )
    with pytest.raises(ValueError, match=r"layers\[1\] \(loop\): "):
        probes.probe([*layers, loop], images(4), key, num_samples=100, kind="vjp")
    overflow = models.named(lambda x: jnp.exp(1e3 * (1 + x * x)), "overflow")
    with pytest.raises(ValueError, match=r"layers\[1\] \(1: overflow\): "):
        probes.probe([*layers, overflow], images(4), key, num_samples=100)
    with pytest.raises(ValueError, match=r"len\(layers\) = 0"):
        probes.probe([], images(4), key)
