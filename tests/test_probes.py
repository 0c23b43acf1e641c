"""Increments of single networks against closed forms, and what a probe reports."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
import statistical

from lognorm_jax import ensembles, exact, laws, masks, models, networks, probes, weights
from lognorm_jax.probing import _runs

ONES = np.ones((2, 3), np.float32)
RNG = np.random.default_rng(1)
A, B = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 5))
X, TANGENT, COTANGENT = RNG.normal(size=3), 7 * RNG.normal(size=3), RNG.normal(size=4)
SMOOTH = [  # of uneven shapes
    lambda x: jnp.tanh(jnp.asarray(A, x.dtype) @ x),
    lambda x: jnp.asarray(B, x.dtype) @ x,
    lambda x: x.reshape(2, 2) ** 3,
]


@functools.cache
def smooth_oracle():
    """Return the activations and Jacobians of the smooth layers, in NumPy."""
    one = np.tanh(A @ X)
    two = B @ one
    jacobians = [(1 - one**2)[:, None] * A, B, np.diag(3 * two**2)]
    return [X, one, two, two**3], jacobians


def log_ratios(vectors):
    return np.diff([np.log(np.sum(v**2)) for v in vectors])


def in_one_program(increments, layers, *vectors):
    """Return increments at two copies of the vectors, jitted and vmapped."""
    dtype = jnp.result_type(float)
    twice = [np.stack([vector, vector]).astype(dtype) for vector in vectors]
    both = jax.jit(jax.vmap(lambda *args: increments(layers, *args)))(*twice)
    assert np.array_equal(both[0], both[1], equal_nan=True)
    return np.asarray(both[0])


def test_oracle_jvp_increments():
    pushed = [TANGENT]
    for J in smooth_oracle()[1]:
        pushed.append(J @ pushed[-1])
    increments = in_one_program(probes.jvp_increments, SMOOTH, X, TANGENT)
    assert increments.shape == (3,)
    assert np.allclose(increments, log_ratios(pushed), rtol=0, atol=1e-5)


def test_oracle_vjp_increments():
    pulled = [COTANGENT]
    for J in smooth_oracle()[1][::-1]:
        pulled.append(J.T @ pulled[-1])
    cotangent = COTANGENT.reshape(2, 2)
    increments = in_one_program(probes.vjp_increments, SMOOTH, X, cotangent)
    assert np.allclose(increments[::-1], log_ratios(pulled), rtol=0, atol=1e-5)


def test_oracle_activation_increments():
    increments = in_one_program(probes.activation_increments, SMOOTH, X)
    assert np.allclose(increments, log_ratios(smooth_oracle()[0]), rtol=0, atol=1e-5)
    dying = [lambda x: x, lambda x: 0 * x, lambda x: x + 1]
    increments = in_one_program(probes.activation_increments, dying, X)
    assert np.allclose(increments, [0, -np.inf, -np.inf], atol=1e-6)
    with pytest.raises(ValueError, match=r"x = .*not all zero"):
        probes.activation_increments(SMOOTH, 0 * X)


def test_exact_dead_layers():
    x, u = -np.ones(3), np.ones(3)
    layers = [lambda x: x, jax.nn.relu, lambda x: 3 * x]
    increments = in_one_program(probes.jvp_increments, layers, x, u)
    assert np.allclose(increments, [0, -np.inf, -np.inf], atol=1e-6)
    increments = in_one_program(probes.vjp_increments, layers[::-1], x, u)
    assert np.allclose(increments, [-np.inf, -np.inf, 0], atol=1e-6)

    @jax.jit
    @jax.value_and_grad
    def total(scale):
        layers = [lambda x: scale * x, jax.nn.relu]
        return probes.jvp_increments(layers, x, u).sum()

    value, gradient = total(2.0)
    assert value == -jnp.inf and np.isfinite(gradient)


def test_exact_nan_is_not_taken_for_dead():
    layers = [lambda x: x, lambda x: x * jnp.nan, lambda x: x]
    increments = in_one_program(probes.jvp_increments, layers, np.ones(3), np.ones(3))
    assert increments[0] == pytest.approx(0, abs=1e-6)
    assert np.all(np.isnan(increments[1:]))


def test_exact_layers_that_cannot_follow_are_named():
    first, second = np.ones((4, 3), np.float32), np.ones((2, 5), np.float32)
    x = ONES[0]
    apart = [lambda x: first @ x, lambda x: second @ x]
    positive = models.named(lambda x: x[x > 0], "positive part")
    for layers, message in (
        (apart, r"layers\[1\] for an input of shape \(4,\)"),
        ([lambda x: x, lambda x: (x, x)], r"layers\[1\].*floating point"),
        ([jnp.sin, positive], r"layers\[1\] \(positive part\) for an input of shape"),
        ([3], r"layers\[0\].*a callable"),
        ([], r"len\(layers\) = 0"),
    ):
        with pytest.raises(ValueError, match=message):
            probes.jvp_increments(layers, x, x)
    with pytest.raises(ValueError, match=r"cotangent\.shape = \(2,\)"):
        probes.vjp_increments([jnp.sin], x, np.ones(2))


def test_exact_the_floating_type_of_x_is_kept():
    half = np.ones(3, jnp.bfloat16)
    for layers, x, dtype in (
        ([lambda x: 2 * x], half, jnp.float32),  # of vectors in bfloat16
        ((layer for layer in [jnp.sin, jnp.cos]), [1, 2, 3], jnp.result_type(float)),
    ):
        increments = jax.jit(lambda ls=layers, x=x: probes.jvp_increments(ls, x, x))
        assert increments().dtype == dtype


def test_exact_the_length_of_a_tangent_does_not_matter():
    x, layers = np.zeros(3, np.float32), [lambda x: 2 * x, jnp.sin]
    for size in (1e-50, 1e39):
        for increments in (probes.jvp_increments, probes.vjp_increments):
            one = jax.jit(lambda x, f=increments, s=size: f(layers, x, s * np.ones(3)))
            assert np.allclose(one(x), [np.log(4), 0], atol=1e-6)
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
        probes.jvp_increments([jnp.sin, backwards], np.ones(3), np.ones(3))

    def loop(x):
        return jax.lax.while_loop(lambda x: x[0] < 9, lambda x: 2 * x, x)

    with pytest.raises(ValueError, match=r"layers\[0\]"):
        probes.vjp_increments([loop], np.ones(3), np.ones(3))


def relu_layers(width, depth, scale=2**0.5):
    """Return initialisations of a ReLU network, weights of variance scale²/width."""

    def init(key):
        shape = (depth, width, width)
        matrices = scale * jax.random.normal(key, shape) / width**0.5
        return [lambda x, W=W: jax.nn.relu(W @ x) for W in matrices]

    return init


@pytest.mark.parametrize("kind", ["jvp", "vjp"])
def test_statistical_probe_finds_the_law_of_a_relu_network(kind, key):
    width, depth = 12, 3
    law = exact.law(
        ensembles.Ensemble((width,) * (depth + 1), weights.normal(), masks.relu())
    )
    init, inputs = relu_layers(width, depth), RNG.normal(size=(5, width))
    report = probes.probe(init, inputs, key, num_samples=4_000, kind=kind)

    assert report.verdict == "stable" and len(report.names) == depth
    statistical.assert_near(*report.mean, law.mean)
    statistical.assert_near(*report.variance, law.variance)
    assert report.beta.value == report.variance.value / 5
    low, high = report.beta.interval
    assert low < law.variance / 5 < high
    assert laws.compare(report.log_norms, law).verdict == "pass"
    assert laws.ks_distance(report.law, law) < 0.05

    mean, variance = exact.increment_cumulants(width, masks.relu(), 2)
    statistical.assert_near(*report.layers.mean, mean)
    statistical.assert_near(*report.layers.variance, variance)
    text = str(report)
    assert text.count("\n") == depth + 3 and "stable: of 4000 samples" in text


def test_exact_a_vanishing_model(key):
    init = relu_layers(40, 2, 0.1)
    report = probes.probe(init, np.ones((1, 40)), key, num_samples=100)
    assert report.verdict == "vanishing" and report.dead_mass.value == 0


def test_exact_an_erratic_model(key):
    def init(key):
        return [lambda x: jnp.exp(6 * jax.random.normal(key, (), x.dtype)) * x]

    assert probes.probe(init, ONES, key, num_samples=200).verdict == "erratic"


def test_exact_verdicts_count_coordinates(key):
    copies = jnp.asarray(np.tile(np.eye(3, dtype=np.float32), (1000, 1)))
    layers = [lambda x: copies @ x]
    wide = probes.probe(layers, ONES, key, num_samples=100)
    assert wide.verdict == "stable"  # norms grow by √1000, coordinates do not
    back = probes.probe(layers, ONES, key, num_samples=100, kind="vjp")
    assert back.verdict == "exploding"  # its transpose adds up 1000 coordinates


def grow(x):
    return jax.nn.relu(float(jnp.finfo(x.dtype).max) ** 0.75 * x)


def lose(x):
    return x + jnp.nan


def test_exact_overflow_is_not_taken_for_dead():
    """A ReLU has derivative 0 at NaN: what is not finite must not look dead."""
    x = np.ones(3)
    layers = [grow, grow, grow]
    increments = in_one_program(probes.jvp_increments, layers, x, x)
    assert np.isfinite(increments[0]) and np.isnan(increments[1:]).all()
    increments = in_one_program(probes.vjp_increments, layers, x, x)
    assert np.isnan(increments[1:]).all()
    for layers in ([lose, jax.nn.relu], [jnp.sin, lose]):
        for increments in (probes.jvp_increments, probes.vjp_increments):
            assert np.isnan(in_one_program(increments, layers, x, x)).any()
        increments = in_one_program(probes.activation_increments, layers, x)
        assert np.isnan(increments).any()


def test_exact_a_layer_that_is_not_finite_is_named(key):
    layers = [jnp.sin, models.named(lose, "lose"), jax.nn.relu]
    with pytest.raises(ValueError, match=r"layers\[1\] \(1: lose\): .* for 100"):
        probes.probe(layers, ONES, key, num_samples=100, kind="vjp")


def test_exact_a_derivative_that_is_not_finite_is_named(key):
    layers = [jnp.sin, models.named(jnp.sqrt, "root"), jnp.sin]
    with pytest.raises(ValueError, match=r"layers\[1\] \(1: root\): .*for 100"):
        probes.probe(layers, 0 * ONES, key, num_samples=100, kind="vjp")


def test_exact_probe_of_bad_input(key):
    def probe(layers=(jnp.sin,), inputs=ONES, key=key, **options):
        return lambda: probes.probe(layers, inputs, key, **options)

    narrow = models.named(lambda x: np.ones((2, 4)) @ x, "narrow")
    for message, call in (
        (r"layers\[1\] \(narrow\) for an input of shape \(3,\)", probe([abs, narrow])),
        ("kind = ", probe(kind="hvp")),
        ("num_samples = ", probe(num_samples=9)),
        ("factor = ", probe(factor=1)),
        (r"inputs\.shape = ", probe(inputs=np.ones(3))),
        (r"direction\.shape = ", probe(direction=np.ones(2))),
        ("key = ", probe(key=0)),
    ):
        with pytest.raises(ValueError, match=message):
            call()


class Doubled:
    """A layer that is an object."""

    def __call__(self, x):
        return 2 * x


def test_exact_probe_refuses_what_gives_no_lists(key):
    for layers, message in (
        (None, "layers = None: must be a function key -> list"),
        (lambda: [abs], r"layers\(key\): .*\n.*lambda key"),
        (lambda key: Doubled(), r"layers\(key\) = .*must be a list"),
        (lambda x: [jnp.dot(x, x)], r"layers\(key\): .*\n.*lambda key"),
        (lambda key: [jnp.sin], "layers = .*a fresh initialisation for each key"),
    ):
        with pytest.raises(ValueError, match=message):
            probes.probe(layers, ONES, key, num_samples=100)


def test_exact_fixed_and_dead_models(key):
    fixed = probes.probe([Doubled()], 0 * ONES, key, num_samples=100)
    assert fixed.names == ("0: Doubled",) and fixed.verdict == "stable"
    assert fixed.variance.value == pytest.approx(0, abs=1e-10)
    dead = probes.probe([lambda x: 0 * x], ONES, key, num_samples=100)
    assert "No sample got through" in str(dead) and dead.verdict == "vanishing"
    assert dead.dead_mass.value == 1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_exact_half_precision_adds_no_variance(dtype):
    """A rounded unit vector has not norm 1, and its square overflows in float16."""

    @jax.jit
    @jax.vmap
    def log_norm(x, tangent):
        return probes.jvp_increments([lambda x: x] * 4, x, tangent).sum()

    rng = np.random.default_rng(0)
    x, tangents = rng.normal(size=(2, 200, 1000)).astype(dtype)
    log_norms = np.asarray(log_norm(x, tangents), np.float64)
    assert log_norms.var() < 1e-9 and abs(log_norms.mean()) < 1e-4
    wide = np.ones((1, 70_000), dtype)
    assert abs(log_norm(wide, wide)) < 1e-5


def bound(W, size):
    return lambda x: jnp.cos(W[:size, :size] @ x)


MATRICES = RNG.normal(size=(9, 4, 4)).astype(np.float32)


def repeating(matrices):
    return [
        jnp.sin,
        lambda x: jnp.asarray(B[:, :3], x.dtype) @ x,
        *(layer for W in matrices[:4] for layer in (bound(W, 4), jnp.tanh)),
        lambda x: x[:3],
        *(bound(W, 3) for W in matrices[4:]),
        jnp.sinh,
        jnp.sinh,
    ]


@pytest.mark.float32
@pytest.mark.parametrize(
    ("kind", "increments"),
    [
        ("jvp", probes.jvp_increments),
        ("vjp", probes.vjp_increments),
        ("activations", lambda layers, x, _: probes.activation_increments(layers, x)),
    ],
)
def test_oracle_layers_that_repeat_are_as_one_by_one(kind, increments, key):
    """A probe scans them."""

    def init(key):
        # the same for all keys, but not to what sees where it comes from
        return repeating(MATRICES + 0 * jax.random.normal(key, MATRICES.shape))

    x, vector = np.array([0.3, -1.2, 0.7], np.float32), np.array([1.0, -2.0, 3.0])
    options = {} if kind == "activations" else {"direction": vector}
    report = probes.probe(init, x[None], key, num_samples=100, kind=kind, **options)
    expected = increments(repeating(list(MATRICES)), x, vector)
    assert np.allclose(report.layers.mean.value, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 1


@pytest.mark.float32
def test_exact_which_layers_repeat():
    found = []

    def trace(matrices):
        labelled = [(str(i), layer) for i, layer in enumerate(repeating(matrices))]
        runs = _runs.repeated(labelled, jnp.ones(3))
        found.extend((len(run.layers), run.times) for run in runs)
        return matrices

    jax.eval_shape(trace, MATRICES)
    assert found == [(1, 1), (1, 1), (2, 4), (1, 1), (1, 5), (1, 2)]


@pytest.mark.float32
@pytest.mark.parametrize("wrapped", [False, True])
def test_exact_layers_that_decide_by_numpy_arrays_and_modules_of_lists(wrapped, key):
    """Known arrays stay known; a list that can be called is a list."""
    W = np.float32(RNG.normal(size=(3, 3)))
    layers = [lambda x: W @ x / np.linalg.norm(W, 2), lambda x: x * W[0, 0]]

    class Sequential(list):
        def __call__(self, x):
            raise NotImplementedError

    model = Sequential(layers) if wrapped else layers
    x = np.ones(3, np.float32)
    report = probes.probe(model, x[None], key, num_samples=100, direction=x)
    expected = probes.jvp_increments(layers, x, x)
    assert np.allclose(report.layers.mean.value, expected, rtol=0, atol=1e-5)


@pytest.mark.float32
def test_exact_a_layer_that_was_changed_is_followed_anew():
    class Layer:
        W = np.ones((4, 3), np.float32)

        def __call__(self, x):
            return self.W @ x

    layer = Layer()
    for rows in (4, 6):
        layer.W = np.ones((rows, 3), np.float32)
        assert probes.vjp_increments([layer], np.ones(3), np.ones(rows)).shape == (1,)


TRACED = []


def noted(W, x):
    TRACED.append(x.shape)
    return W @ x


@pytest.mark.float32
def test_exact_a_probe_traces_layers_that_repeat_once_a_phase(key):
    """However many there are: where shapes are followed, and where they are pushed."""
    counts = []
    for depth in (10, 40):
        TRACED.clear()

        def model(key, depth=depth):
            matrices = jax.random.normal(key, (depth, 3, 3))
            return models.functions([noted] * depth, list(matrices))

        probes.probe(model, ONES, key, num_samples=100)
        counts.append(len(TRACED))
    assert counts[0] == counts[1] <= 12


@pytest.mark.float32
def test_exact_models_may_need_keys_of_the_kind_of_jax(key):
    """Keys that compile sooner are of another type."""

    def model(key):
        keys = jnp.stack([key, jax.random.key(0)])
        return [lambda x: jax.random.normal(keys[0], (3, 3)) @ x]

    def usual(key):
        return [lambda x: jax.random.normal(key, (3, 3)) @ x]

    needs, does_not = (
        probes.probe(layers, ONES, key, num_samples=100) for layers in (model, usual)
    )
    assert np.allclose(needs.log_norms, does_not.log_norms, rtol=0, atol=1e-5)


def network_in_law(**options):
    return networks.mlp((3, 5, 4), "tanh", 0.5, **options)


INPUTS = RNG.normal(size=(2, 3))


@pytest.mark.parametrize("kind", probes.KINDS)
def test_statistical_probe_of_a_network_in_law_is_that_of_drawn_ones(kind, key):
    """Layer by layer, and in their sum, over inputs and directions; also along one."""
    network = network_in_law()
    along = np.ones(3 if kind == "jvp" else 4)
    for direction in (None, along):
        options = {"kind": kind, "num_samples": 4_000, "direction": direction}
        keys = jax.random.split(key)
        mine = probes.probe(network, INPUTS, keys[0], **options)
        drawn = lambda key: network.layers(network.init(key))  # noqa: E731
        theirs = probes.probe(drawn, INPUTS, keys[1], **options)
        same = scipy.stats.ks_2samp(mine.log_norms, theirs.log_norms).pvalue
        assert same > 1e-4
        for a, b in zip(mine.layers[:2], theirs.layers[:2], strict=True):
            apart = np.abs(a.value - b.value) / np.hypot(a.error, b.error)
            assert np.all(apart < 5)
        # judged by the coordinate
        growth = np.log(4 / 3) * (-1 if kind == "vjp" else 1)
        assert np.allclose(mine.judged, mine.log_norms - growth)
        assert np.allclose(theirs.judged, theirs.log_norms - growth)


def test_exact_probe_of_networks(key):
    """Weights that cannot be followed are drawn; layers are named by their maps."""
    options = {"num_samples": 200}
    network = network_in_law(weight_law=weights.uniform())
    drawn = lambda key: network.layers(network.init(key))  # noqa: E731
    mine = probes.probe(network, INPUTS, key, **options)
    theirs = probes.probe(drawn, INPUTS, key, **options)
    assert np.array_equal(mine.log_norms, theirs.log_norms)
    assert mine.names == theirs.names == ("0: layer", "1: layer")
    block = networks.transformer(4, 1, 2, 3)
    x = np.ones((1, 3, 4))
    assert probes.probe(block, x, key, **options).names == (
        "0: qkv, out",
        "1: up, down",
    )
    with pytest.raises(ValueError, match=r"inputs.shape = .*\(count, 3, 4\)"):
        probes.probe(block, x[0], key)
    with pytest.raises(ValueError, match=r"direction.shape = "):
        probes.probe(block, x, key, direction=np.ones(3))
    with pytest.raises(ValueError, match=r"direction"):
        probes.probe(block, x, key, kind="activations", direction=np.zeros(3))
    still = networks.network((2,), [networks.layer(lambda maps, x: 3 * x, {})])
    report = probes.probe(still, np.ones((1, 2)), key, **options)
    assert np.allclose(report.log_norms, 2 * np.log(3))


@pytest.mark.parametrize("kind", probes.KINDS)
def test_exact_probe_of_networks_that_overflow(kind, key):
    """The layer whose output is not finite is named, whichever way it is probed."""
    line = networks.linear(4, 4)
    layers = [
        networks.layer(lambda maps, x: maps["one"](x), {"one": line}),
        networks.layer(lambda maps, x: jnp.exp(1e4 * maps["two"](x)), {"two": line}),
    ]
    network = networks.network((4,), layers)
    with pytest.raises(ValueError, match=r"layers\[1\] \(1: two\): .*not finite"):
        probes.probe(network, np.ones((1, 4)), key, kind=kind, num_samples=100)


@pytest.mark.parametrize("kind", probes.KINDS)
def test_exact_probe_of_networks_leaves_out_fixed_layers(kind, key):
    pool = networks.layer(lambda maps, x: jnp.mean(x.reshape(-1, 50), 1), {})
    wide = networks.layer(lambda maps, x: maps["a"](x), {"a": networks.linear(8, 200)})
    network = networks.network((8,), [wide, pool])
    options = {"kind": kind, "num_samples": 1_000}
    mine = probes.probe(network, np.ones((1, 8)), key, **options)
    drawn = lambda key: network.layers(network.init(key))  # noqa: E731
    theirs = probes.probe(drawn, np.ones((1, 8)), key, **options)
    assert mine.names == theirs.names
    assert "(fixed)" in mine.names[1]
    assert mine.verdict == theirs.verdict == "stable"
    assert scipy.stats.ks_2samp(mine.judged, theirs.judged).pvalue > 1e-4
