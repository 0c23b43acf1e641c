"""The same model in Flax NNX, Flax Linen, Equinox and plain JAX, by naming its
models.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax import models, probes

pytestmark = pytest.mark.float32

SHAPES = ((6, 5), (5, 5), (5, 4))
WEIGHTS = [
    np.random.default_rng(i).normal(size=s).astype(np.float32)
    for i, s in enumerate(SHAPES)
]
X, U, C = np.arange(1.0, 7) / 6, np.ones(6), np.array([1.0, -2, 0.5, 1])


def nnx_blocks():
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(*shape, rngs=rngs) for shape in SHAPES])

    model = Model(nnx.Rngs(0))
    for layer, W in zip(model.layers, WEIGHTS, strict=True):
        layer.kernel[...] = jnp.asarray(W)
    return models.blocks(
        model, [("layers[0]", nnx.relu), ("layers.1", nnx.relu), "layers[-1]"]
    )


def linen_params(name):
    own = [{"kernel": jnp.asarray(W), "bias": jnp.zeros(W.shape[1])} for W in WEIGHTS]
    return {"params": {f"{name}_{i}": each for i, each in enumerate(own)}}


def linen_blocks():
    nn = pytest.importorskip("flax.linen")

    class Model(nn.Module):
        def setup(self):
            self.dense = [nn.Dense(shape[1]) for shape in SHAPES]

        def __call__(self, x):
            for layer in self.dense[:-1]:
                x = nn.relu(layer(x))
            return self.dense[-1](x)

    names = [("dense[0]", nn.relu), ("dense[1]", nn.relu), "dense[2]"]
    return models.blocks(Model(), names, linen_params("dense"))


def compact_blocks():
    nn = pytest.importorskip("flax.linen")

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            for shape in SHAPES[:-1]:
                x = nn.relu(nn.Dense(shape[1])(x))
            return nn.Dense(SHAPES[-1][1])(x)

    names = [("Dense_0", nn.relu), ("Dense_1", nn.relu), "Dense_2"]
    variables = linen_params("Dense")
    with pytest.raises(
        ValueError, match=r"names\[0\] = 'Dense_0': .*give variables.*example"
    ):
        models.blocks(Model(), names, variables)
    return models.blocks(Model(), names, variables, example=jnp.ones(6))


def equinox_blocks():
    eqx = pytest.importorskip("equinox")

    class Model(eqx.Module):
        layers: list

    linear = [
        eqx.tree_at(
            lambda one: (one.weight, one.bias),
            eqx.nn.Linear(*W.shape, key=jax.random.key(0)),
            (jnp.asarray(W.T), jnp.zeros(W.shape[1])),
        )
        for W in WEIGHTS
    ]
    names = [("layers[0]", jax.nn.relu), ("layers[1]", jax.nn.relu), "layers[2]"]
    return models.blocks(Model(linear), names)


def plain_blocks():
    def hidden(W, x):
        return jax.nn.relu(x @ W)

    return models.functions(
        [hidden, hidden, lambda W, x: x @ W], [jnp.asarray(W) for W in WEIGHTS]
    )


MADE = (nnx_blocks, linen_blocks, compact_blocks, equinox_blocks)


def increments_of(make):
    """Return the names of the layers, and all increments, at two inputs."""
    names = []

    @jax.jit
    @jax.vmap
    def all_increments(x, u, c):
        layers = make()
        names.extend(layer.__name__ for layer in layers)
        return (
            probes.jvp_increments(layers, x, u),
            probes.vjp_increments(layers, x, c),
            probes.activation_increments(layers, x),
        )

    twice = [np.stack([v, v]).astype(np.float32) for v in (X, U, C)]
    return names, np.asarray(all_increments(*twice))


increments_of_plain = functools.cache(lambda: increments_of(plain_blocks))


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_oracle_every_framework_gives_the_same_increments(make):
    names, increments = increments_of(make)
    assert len(names) == 3 and names[0].endswith("relu")
    assert increments.shape == (3, 2, 3)
    assert np.allclose(increments, increments_of_plain()[1], rtol=0, atol=1e-6)


def test_statistical_a_fresh_flax_model_a_key(key):
    """Lecun initialisation halves the square of a ReLU layer: it vanishes."""
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(32, 32, rngs=rngs) for _ in range(5)])

    def init(key):
        names = [(f"layers[{i}]", nnx.relu) for i in range(5)]
        return models.blocks(Model(nnx.Rngs(key)), names)

    inputs = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    report = probes.probe(init, inputs, key, num_samples=400)
    assert report.verdict == "vanishing" and report.names[1] == "1: layers[1], relu"
    expected = 5 * (np.log(0.5) - 2.5 / 32)
    assert abs(report.mean.value - expected) < 5 * report.mean.error + 0.05


def test_exact_bad_names():
    class Model:
        head = staticmethod(lambda x: x)

        def __init__(self):
            self.layers, self.width, self.parts = [abs, abs], 3, {"first": abs}

    model = Model()
    found = models.blocks(model, ["layers[1]", "parts.first", ("head", abs)])
    assert [layer(-2) for layer in found] == [2, 2, 2]
    for names, message in (
        (["layers[2]"], r"names\[0\] = 'layers\[2\]': .*has no '2'"),
        (
            ["head", "tail"],
            r"names\[1\] = 'tail': .*has no 'tail'.*It has layers, width, parts",
        ),
        (["width"], r"names\[0\] = 'width': .*can be called"),
        ([3], r"names\[0\] = 3: .*or a function"),
        ([], r"names = \[\]"),
        ("head", r"names = 'head'"),
        ([()], r"names\[0\] = \(\)"),
        (["layers[0"], r"names\[0\] = 'layers\[0': .*a path such as"),
    ):
        with pytest.raises(ValueError, match=message):
            models.blocks(model, names)
    with pytest.raises(ValueError, match=r"model = .*Flax Linen module"):
        models.blocks(model, ["head"], {"params": {}})
    with pytest.raises(ValueError, match=r"model = .*an instance"):
        models.blocks(Model, ["head"])
    with pytest.raises(ValueError, match=r"layers = .*functions f\(params, x\)"):
        models.functions(abs, [1])
    named = models.functions({"a": lambda p, x: p * x}, {"a": 3})
    assert named[0].__name__ == "a" and named[0](2) == 6
    for layers, params in (({"a": abs}, {"b": 1}), ([abs], [1, 2]), ([abs], 3)):
        with pytest.raises(ValueError, match=r"params = "):
            models.functions(layers, params)


def test_exact_linen_variables_are_whole():
    nn = pytest.importorskip("flax.linen")

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x)

    model, x = Model(), jnp.ones(2)
    variables = model.init(jax.random.key(0), x)
    for given, example, message in (
        (variables["params"], x, r"variables = \['Dense_0'\]: .*whole dictionary"),
        (jax.random.key(0), x, "variables = .*whole dictionary"),
        (None, x, "variables = .*whole dictionary"),
        (variables, jnp.ones(5), r"example of shape \(5,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            models.blocks(model, ["Dense_0"], given, example=example)
    with pytest.raises(
        ValueError, match=r"names\[0\] = 'Dense0': must be one of Dense_0"
    ):
        models.blocks(model, ["Dense0"], variables, example=x)


def test_exact_blocks_that_leave_something_out_are_told_from_the_model():
    layers = [lambda x: 2 * x, abs]
    models.same(layers, lambda x: 2 * abs(x), -X)
    with pytest.raises(
        ValueError, match=r"largest difference to the model = .*activation"
    ):
        models.same(layers[:1], lambda x: 2 * abs(x), -X)
    with pytest.raises(ValueError, match="shape of the last layer"):
        models.same(layers, lambda x: x[:2], X)
    for name, arguments in (
        ("layers", (None, abs, X)),
        (r"layers\[1\]", ([abs, None], abs, X)),
        ("model", (layers, None, X)),
        (r"x\.dtype", (layers, abs, None)),
        ("rtol", (layers, abs, X, None)),
        ("rtol", (layers, abs, X, -1)),
    ):
        with pytest.raises(ValueError, match=f"^{name} = "):
            models.same(*arguments)


def test_exact_chains_know_their_parts():
    inner = models.chain([abs, jnp.sin])
    outer = models.chain([inner, jnp.cos])
    assert models.parts(outer) == (abs, jnp.sin, jnp.cos) and models.parts(abs) == (
        abs,
    )
    assert models.name_of(outer) == "abs, sin, cos" and models.chain([abs]) is abs
    assert outer(-2.0) == jnp.cos(jnp.sin(2.0))
    equinox = pytest.importorskip("equinox")
    linear = equinox.nn.Linear(2, 2, key=jax.random.key(0))
    assert models.name_of(models.chain([linear, abs])) == "Linear, abs"


def increments_at(layers, x):
    """Return the increments of x itself, in one program."""
    return jax.jit(lambda x: probes.jvp_increments(layers, x, x))(x)


def refused(layers, x, message):
    """Fail unless a probe of the layers says what to do."""
    with pytest.raises(ValueError, match=message):
        probes.probe(layers, x, jax.random.key(0), num_samples=100)


def test_exact_layers_of_nnx_in_training_mode_are_told_apart():
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(4, 4, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)

    x = np.ones((2, 1, 4), np.float32)
    for name in ("dropout", "norm"):

        def init(key, name=name, evaluate=False):
            model = Model(nnx.Rngs(key))
            if evaluate:
                model.eval()
            return models.blocks(model, ["linear", name])

        refused(
            init,
            x,
            rf"layers\[1\] \({name}\) .*Set the model to evaluation, model\.eval\(\)",
        )
        evaluated = init(jax.random.key(0), evaluate=True)
        assert np.all(np.isfinite(increments_at(evaluated, x[0])))


def test_exact_recurrent_layers_of_nnx_have_a_way_out():
    nnx = pytest.importorskip("flax.nnx")
    layer, x = (
        nnx.RNN(nnx.LSTMCell(4, 3, rngs=nnx.Rngs(0))),
        np.ones((2, 5, 4), np.float32),
    )
    refused(
        [layer],
        x,
        r"layers\[0\] \(RNN\) .*graph, state = nnx\.split\(layer\), .*nnx\.merge",
    )
    graph, state = nnx.split(layer)
    anew = [lambda x: nnx.merge(graph, state, copy=True)(x)]
    wanted = layer(x[0])
    assert np.allclose(anew[0](x[0]), wanted)
    assert np.isfinite(increments_at(anew, x[0])[0])


def test_exact_layers_of_linen_in_training_mode_are_told_apart():
    nn = pytest.importorskip("flax.linen")

    class Model(nn.Module):
        train: bool = True

        def setup(self):
            self.norm = nn.BatchNorm(use_running_average=not self.train)
            self.dropout = nn.Dropout(0.5, deterministic=not self.train)

        def __call__(self, x):
            return self.dropout(self.norm(x))

    class Compact(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dropout(0.5)(nn.BatchNorm(use_running_average=False)(x))

    x = np.ones((2, 1, 4), np.float32)
    variables = Model(False).init(jax.random.key(0), x[0])
    for name, way_out in (
        ("norm", "use_running_average=True for batch normalisation"),
        ("dropout", "deterministic=True for dropout"),
    ):
        refused(
            models.blocks(Model(), [name], variables), x, rf"\({name}\) .*{way_out}"
        )
        evaluated = models.blocks(Model(False), [name], variables)
        assert np.isfinite(increments_at(evaluated, x[0])[0])
    whole = {"params": {"BatchNorm_0": variables["params"]["norm"]}}
    whole["batch_stats"] = {"BatchNorm_0": variables["batch_stats"]["norm"]}
    with pytest.raises(
        ValueError, match=r"example of shape \(1, 4\): .*use_running_average=True"
    ):
        models.blocks(Compact(), ["Dropout_0"], whole, example=x[0])


def test_exact_layers_of_equinox_in_training_mode_are_told_apart():
    eqx = pytest.importorskip("equinox")
    x = np.ones((2, 4), np.float32)
    refused([eqx.nn.Dropout(0.5)], x, r"\(Dropout\) .*eqx\.nn\.inference_mode\(model\)")
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        4, axis_name="batch", mode="ema"
    )
    refused(
        [norm], x, r"\(BatchNorm\) .*inference_mode.*lambda x: layer\(x, state\)\[0\]"
    )
    norm = eqx.nn.inference_mode(norm)
    assert np.isfinite(increments_at([lambda x: norm(x, state)[0]], x[0])[0])


def test_exact_tokens_are_embedded_first():
    nnx = pytest.importorskip("flax.nnx")
    eqx = pytest.importorskip("equinox")
    tokens, table = np.ones((2, 5), np.int32), jnp.ones((7, 4))
    embed = nnx.Embed(7, 4, rngs=nnx.Rngs(0))
    for layer in (
        embed,
        jax.vmap(eqx.nn.Embedding(7, 4, key=jax.random.key(0))),
        lambda x: table[x],
    ):
        refused(
            [layer],
            tokens,
            r"layers\[0\].* It takes integers.*give the embedded inputs",
        )
    refused([lambda x: x.no_such_thing], tokens, "Each layer must take the output")
    report = probes.probe(
        [jnp.sin], embed(jnp.asarray(tokens)), jax.random.key(0), num_samples=100
    )
    assert report.dead_mass.value == 0


class Torch:
    """A stand-in for a module or tensor of PyTorch."""

    def __call__(self, x):
        raise TypeError("linear(): argument 'input' must be Tensor")


Torch.__module__ = "torch.nn.modules.module"


class Perceptron(Torch):
    """A module of one's own."""


def test_exact_pytorch_is_refused_with_a_way_out():
    x, way_out = (
        np.ones((2, 3), np.float32),
        r".* PyTorch's\. Write its layers as functions f\(",
    )
    for layers, name in (
        (Perceptron(), "layers"),
        ([jnp.sin, Perceptron()], r"layers\[1\]"),
        (lambda key: Perceptron(), r"layers\(key\)"),
        (lambda key: [Perceptron()], r"layers\[0\]"),
    ):
        refused(layers, x, f"^{name} = {way_out}")
    refused([jnp.sin], Torch(), f"^inputs = {way_out}")
    with pytest.raises(ValueError, match=f"^model = {way_out}"):
        models.blocks(Perceptron(), ["layers.0"])
    with pytest.raises(ValueError, match=r"^layers\[0\] = "):
        probes.jvp_increments([Torch()], x[0], x[0])


def test_exact_pools_of_the_frameworks_are_fixed_changes_of_shape():
    nn = pytest.importorskip("flax.linen")
    eqx = pytest.importorskip("equinox")
    image = jax.ShapeDtypeStruct((6, 6, 4), jnp.float32)
    with jax.numpy_dtype_promotion("standard"):  # as the frameworks need it
        for pool in (
            lambda x: nn.avg_pool(x, (2, 2), (2, 2)),
            lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False),
            lambda x: nn.max_pool(x, (2, 2), (2, 2)),
            eqx.nn.AvgPool2d(2, 2),
            eqx.nn.MaxPool2d(2, 2),
            eqx.nn.AdaptiveAvgPool2d(2),
        ):
            assert probes.is_fixed(pool, image)
    linear = eqx.nn.Linear(4, 3, key=jax.random.key(0))
    assert not probes.is_fixed(jax.vmap(jax.vmap(linear)), image)
