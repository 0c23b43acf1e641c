import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statistical

from lognorm_jax import ensembles, exact, laws, masks, models, probes, weights


def test_oracle_jvp_increments_against_the_whole_jacobian():
    rng = np.random.default_rng(1)
    A, B = (jnp.asarray(rng.normal(size=shape)) for shape in ((5, 3), (4, 5)))
    layers = [
        lambda x: jnp.tanh(A @ x),
        lambda x: B @ x,
        lambda x: x.reshape(2, 2) ** 3,
    ]
    x, tangent = rng.normal(size=3), 7 * rng.normal(size=3)

    def network(x):
        for layer in layers:
            x = layer(x)
        return x

    J = np.asarray(jax.jacobian(network)(jnp.asarray(x, A.dtype))).reshape(4, 3)
    expected = np.log(np.sum((J @ tangent) ** 2) / np.sum(tangent**2))
    increments = probes.jvp_increments(layers, x, tangent)
    assert increments.shape == (3,)
    assert np.allclose(increments.sum(), expected, rtol=0, atol=1e-5)
    both = jax.jit(jax.vmap(lambda x, t: probes.jvp_increments(layers, x, t)))
    many = both(jnp.stack([x] * 3), jnp.stack([tangent] * 3))
    assert np.allclose(many, increments[None], rtol=0, atol=1e-5)


def test_exact_dead_layers():
    layers = [lambda x: x, jax.nn.relu, lambda x: 3 * x]
    x = -jnp.ones(3)
    increments = probes.jvp_increments(layers, x, jnp.ones(3))
    assert np.allclose(increments, [0, -np.inf, -np.inf], atol=1e-6)

    def total(scale):
        layers = [lambda x: scale * x, jax.nn.relu]
        return probes.jvp_increments(layers, x, jnp.ones(3)).sum()

    value, gradient = jax.value_and_grad(total)(2.0)
    assert value == -jnp.inf and np.isfinite(gradient)


def test_exact_layers_that_cannot_follow_are_named():
    first, second = jnp.ones((4, 3)), jnp.ones((2, 5))
    layers = [lambda x: first @ x, lambda x: second @ x]
    with pytest.raises(ValueError, match=r"layers\[1\] for an input of shape \(4,\)"):
        probes.jvp_increments(layers, np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"layers\[1\].*floating point"):
        probes.jvp_increments([lambda x: x, lambda x: (x, x)], np.ones(3), np.ones(3))
    positive = models.named(lambda x: x[x > 0], "positive part")
    with pytest.raises(
        ValueError, match=r"layers\[1\] \(positive part\) for an input of shape"
    ):
        probes.jvp_increments([jnp.sin, positive], np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"layers\[0\].*a callable"):
        probes.jvp_increments([3], np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"len\(layers\) = 0"):
        probes.jvp_increments([], np.ones(3), np.ones(3))


def test_exact_nan_is_not_taken_for_dead():
    layers = [lambda x: x, lambda x: x * jnp.nan, lambda x: x]
    increments = probes.jvp_increments(layers, jnp.ones(3), jnp.ones(3))
    assert increments[0] == pytest.approx(0, abs=1e-6) and np.all(
        np.isnan(increments[1:])
    )


def test_exact_the_floating_type_of_x_is_kept():
    weight = jnp.ones((2, 2), jnp.bfloat16)
    increments = probes.jvp_increments(
        [lambda x: weight @ x], jnp.ones(2, jnp.bfloat16), [1, 1]
    )
    assert increments.dtype == jnp.float32  # of vectors in bfloat16
    assert probes.jvp_increments([jnp.sin], [0, 0], [1, 0]).dtype == jnp.result_type(
        float
    )
    generated = (layer for layer in [jnp.sin, jnp.cos])
    assert probes.jvp_increments(generated, np.ones(2), np.ones(2)).shape == (2,)


def smooth_network():
    """Return layers of uneven shapes, an input, a tangent and a cotangent."""
    rng = np.random.default_rng(1)
    A, B = (jnp.asarray(rng.normal(size=shape)) for shape in ((5, 3), (4, 5)))
    layers = [
        lambda x: jnp.tanh(A @ x),
        lambda x: B @ x,
        lambda x: x.reshape(2, 2) ** 3,
    ]
    return layers, rng.normal(size=3), 7 * rng.normal(size=3), rng.normal(size=(2, 2))


def test_oracle_vjp_increments_against_the_whole_jacobian():
    layers, x, _, cotangent = smooth_network()
    start = jnp.asarray(x, jnp.result_type(float))
    points = [start]
    for layer in layers:
        points.append(layer(points[-1]))
    found = probes.vjp_increments(layers, x, cotangent)
    v, expected = cotangent.ravel(), []
    for layer, point in reversed(list(zip(layers, points[:-1], strict=True))):
        J = np.asarray(jax.jacobian(layer)(point)).reshape(len(v), -1)
        expected.append(np.log(np.sum((J.T @ v) ** 2) / np.sum(v**2)))
        v = J.T @ v
    assert np.allclose(found, expected[::-1], rtol=0, atol=1e-5)
    both = jax.jit(jax.vmap(lambda x, c: probes.vjp_increments(layers, x, c)))
    many = both(jnp.stack([x] * 2), jnp.stack([cotangent] * 2))
    assert np.allclose(many, found[None], rtol=0, atol=1e-5)


def test_oracle_activation_increments():
    layers, x, _, _ = smooth_network()
    found, sizes = probes.activation_increments(layers, x), [np.sum(x**2)]
    point = jnp.asarray(x, jnp.result_type(float))
    for layer in layers:
        point = layer(point)
        sizes.append(float(jnp.sum(point * point)))
    assert np.allclose(found, np.diff(np.log(sizes)), rtol=0, atol=1e-5)
    dying = [lambda x: x, lambda x: 0 * x, lambda x: x + 1]
    assert np.allclose(
        probes.activation_increments(dying, x), [0, -np.inf, -np.inf], atol=1e-6
    )
    with pytest.raises(ValueError, match=r"x = .*not all zero"):
        probes.activation_increments(layers, 0 * x)


def test_exact_dead_layers_backwards():
    layers = [lambda x: 3 * x, jax.nn.relu, lambda x: x]
    increments = probes.vjp_increments(layers, -jnp.ones(3), jnp.ones(3))
    assert np.allclose(increments, [-np.inf, -np.inf, 0], atol=1e-6)
    with pytest.raises(ValueError, match=r"cotangent\.shape = \(2,\)"):
        probes.vjp_increments(layers, np.ones(3), np.ones(2))


def mlp_of_ones_own(key, scale=2**0.5, depth=6):
    keys = jax.random.split(key, depth)
    weight = jax.vmap(lambda key: scale * jax.random.normal(key, (40, 40)) / 40**0.5)(
        keys
    )
    return [lambda x, W=W: jax.nn.relu(W @ x) for W in weight]


def test_statistical_probe_finds_the_law_of_a_relu_network(key):
    inputs = np.random.default_rng(0).normal(size=(5, 40))
    ensemble = ensembles.Ensemble((40,) * 7, weights.normal(), masks.relu())
    law = exact.law(ensemble)
    for kind in ("jvp", "vjp"):
        report = probes.probe(
            mlp_of_ones_own, inputs, key, num_samples=4_000, kind=kind
        )
        assert report.verdict == "stable" and len(report.names) == 6
        statistical.assert_near(*report.mean, law.mean)
        statistical.assert_near(*report.variance, law.variance)
        assert report.beta.value == report.variance.value / 5
        assert report.beta.interval[0] < law.variance / 5 < report.beta.interval[1]
        assert laws.compare(report.log_norms, law).verdict == "pass"
    mean, variance = exact.increment_cumulants(40, masks.relu(), 2)
    statistical.assert_near(*report.layers.mean, mean)
    statistical.assert_near(*report.layers.variance, variance)
    assert laws.ks_distance(report.law, law) < 0.05
    text = str(report)
    assert text.count("\n") == 9 and "stable: of 4000 samples" in text


@pytest.mark.parametrize(
    ("scale", "verdict"), [(0.8, "vanishing"), (2.4, "exploding"), (0.0, "vanishing")]
)
def test_exact_verdicts(scale, verdict, key):
    inputs = np.ones((1, 40))

    def init(key):
        return mlp_of_ones_own(key, scale, 10)

    report = probes.probe(init, inputs, key, num_samples=200)
    assert report.verdict == verdict
    assert report.dead_mass.value == (scale == 0)


def test_exact_erratic_and_fixed_models(key):
    def init(key):
        return [lambda x: jnp.exp(6 * jax.random.normal(key)) * x]

    assert (
        probes.probe(init, np.ones((2, 3)), key, num_samples=200).verdict == "erratic"
    )
    fixed = probes.probe([jnp.sin], np.zeros((2, 3)), key, num_samples=100)
    assert (
        fixed.variance.value == pytest.approx(0, abs=1e-10)
        and fixed.verdict == "stable"
    )
    inputs = np.ones((2, 3), np.float32)
    copies = jnp.asarray(np.tile(np.eye(3), (1000, 1)), jnp.float32)
    wide = probes.probe([lambda x: copies @ x], inputs, key, num_samples=100)
    assert wide.verdict == "stable"  # norms grow by √1000, coordinates do not
    back = probes.probe(
        [lambda x: copies @ x], inputs, key, num_samples=100, kind="vjp"
    )
    assert back.verdict == "exploding"  # its transpose adds up 1000 coordinates


def test_exact_probe_names_what_fails(key):
    overflow = [jnp.sin, models.named(lambda x: jnp.exp(1e3 * x), "blow up"), jnp.cos]
    for kind in probes.KINDS:
        with pytest.raises(
            ValueError, match=r"layers\[1\] \(1: blow up\): .*not finite"
        ):
            probes.probe(overflow, np.ones((1, 3)), key, num_samples=100, kind=kind)
    with pytest.raises(
        ValueError, match=r"layers\[1\] \(narrow\) for an input of shape \(3,\)"
    ):
        narrow = models.named(lambda x: jnp.ones((2, 4)) @ x, "narrow")
        probes.probe([jnp.sin, narrow], np.ones((1, 3)), key)
    for name, call in (
        ("kind", lambda: probes.probe([jnp.sin], np.ones((1, 3)), key, kind="hvp")),
        (
            "num_samples",
            lambda: probes.probe([jnp.sin], np.ones((1, 3)), key, num_samples=9),
        ),
        ("factor", lambda: probes.probe([jnp.sin], np.ones((1, 3)), key, factor=1)),
        (r"inputs\.shape", lambda: probes.probe([jnp.sin], np.ones(3), key)),
        (
            r"direction\.shape",
            lambda: probes.probe([jnp.sin], np.ones((1, 3)), key, direction=np.ones(2)),
        ),
        ("key", lambda: probes.probe([jnp.sin], np.ones((1, 3)), 0)),
    ):
        with pytest.raises(ValueError, match=rf"{name} = "):
            call()


class Doubled:
    """A layer that is an object."""

    def __call__(self, x):
        return 2 * x


def test_exact_probe_refuses_what_gives_no_lists(key):
    inputs = np.ones((2, 3), np.float32)
    for layers, message in (
        (None, "layers = None: must be a function key -> list"),
        (lambda: [abs], r"layers\(key\): .*\n.*lambda key"),
        (lambda key: Doubled(), r"layers\(key\) = .*must be a list"),
        (lambda x: [jnp.dot(x, x)], r"layers\(key\): .*\n.*lambda key"),
        (lambda key: [jnp.sin], "layers = .*a fresh initialisation for each key"),
    ):
        with pytest.raises(ValueError, match=message):
            probes.probe(layers, inputs, key, num_samples=100)
    report = probes.probe([Doubled()], inputs, key, num_samples=100)
    assert report.names == ("0: Doubled",)
    dead = probes.probe([lambda x: 0 * x], inputs, key, num_samples=100)
    assert "No sample got through" in str(dead) and dead.verdict == "vanishing"


@pytest.mark.parametrize("kind", probes.KINDS)
def test_exact_overflow_is_not_taken_for_dead(kind, key):
    """A ReLU has derivative 0 at NaN: what is not finite must not look like a dead
    path.
    """

    def grow(x):
        return jax.nn.relu(1e6 * x)

    x = jnp.ones(3, jnp.float32)
    increments = probes.jvp_increments([grow] * 9, x, x)
    assert np.isfinite(increments[:5]).all() and np.isnan(increments[7:]).all()
    assert np.isnan(probes.vjp_increments([grow] * 9, x, x)).any()
    for layers in (
        [grow] * 9,
        [lambda x: x + jnp.nan, jax.nn.relu],
        [lambda x: x + jnp.nan],
    ):
        with pytest.raises(ValueError, match=r"layers\[\d\].* not finite, for 100"):
            probes.probe(layers, x[None], key, num_samples=100, kind=kind)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_exact_half_precision_adds_no_variance(dtype, key):
    """The norm of a rounded unit vector is not 1, and its square overflows in
    float16.
    """
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(5, 1000)), dtype)
    report = probes.probe([lambda x: x] * 20, inputs, key, num_samples=200)
    assert report.variance.value < 1e-9 and abs(report.mean.value) < 1e-4
    wide = jnp.ones(70_000, dtype)
    assert abs(probes.jvp_increments([lambda x: x], wide, np.ones(70_000))[0]) < 1e-5


def test_exact_the_length_of_a_tangent_does_not_matter():
    x, layers = jnp.zeros(3, jnp.float32), [lambda x: 2 * x, jnp.sin]
    for size in (1e-50, 1e39):
        for increments in (probes.jvp_increments, probes.vjp_increments):
            found = increments(layers, x, size * np.ones(3))
            assert np.allclose(found, [np.log(4), 0], atol=1e-6)
    if not jax.config.jax_enable_x64:
        with (
            pytest.raises(ValueError, match=r"x = .*finite"),
            np.errstate(over="ignore"),
        ):
            probes.jvp_increments(layers, 1e39 * np.ones(3), np.ones(3))


def test_exact_layers_without_a_derivative_are_named():
    @jax.custom_vjp
    def backwards(x):
        return x

    backwards.defvjp(lambda x: (x, None), lambda _, c: (c,))
    with pytest.raises(ValueError, match=r"layers\[1\] \(backwards\): "):
        probes.jvp_increments([jnp.sin, backwards], np.ones(2), np.ones(2))
    loop = lambda x: jax.lax.while_loop(lambda x: x[0] < 9, lambda x: 2 * x, x)  # noqa: E731
    with pytest.raises(ValueError, match=r"layers\[0\]"):
        probes.vjp_increments([loop], np.ones(2), np.ones(2))
