"""Audits: each finding has a model that has it and one that has not; levels and
intervals against their definitions.
"""

import json
import re

import equinox
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from flax import nnx

from lognorm_jax import audits, declarations, probes, ready, testing
from lognorm_jax.auditing import _findings, _parameters, _stability

pytestmark = pytest.mark.float32


class Stack(nnx.Module):
    def __init__(self, rngs, width=64, depth=4, init=None):
        kwargs = {} if init is None else {"kernel_init": init}
        self.layers = nnx.List(
            [nnx.Linear(width, width, rngs=rngs, **kwargs) for _ in range(depth)]
        )


def stack(**kwargs):
    return lambda key: Stack(nnx.Rngs(key), **kwargs)


def weights_of(law, shape=(80, 60), names=("weight",)):
    """Return key -> arrays drawn by a function (key, shape) -> array."""

    def model(key):
        keys = jax.random.split(key, len(names))
        return {name: law(one, shape) for name, one in zip(names, keys, strict=True)}

    return model


def normal(scale):
    return lambda key, shape: scale * jax.random.normal(key, shape)


def problems(model, declaration=None, **options):
    """Return the findings of a model as one text."""
    found = audits.audit(model, declaration=declaration, **options)
    assert found.exit_code() == bool(found.findings)
    return "\n".join(map(str, found.findings))


@pytest.mark.parametrize(
    ("make", "declared"),
    [
        (stack(), ready.READY["flax"]),
        (lambda key: equinox.nn.MLP(50, 50, 50, 3, key=key), ready.READY["equinox"]),
        (
            lambda key: flax.linen.Dense(60).init(key, jnp.ones((1, 70))),
            ready.READY["flax"],
        ),
        (stack(init=nnx.initializers.he_normal()), {"*kernel": "fan_in:1.41421"}),
        (
            stack(init=nnx.initializers.glorot_uniform(), width=30),
            {"*kernel": "fan_average:1:uniform"},
        ),
        (stack(init=nnx.initializers.orthogonal()), {"*kernel": "orthogonal"}),
        (weights_of(normal(0.02)), {"*": "normal:0.02"}),
        (weights_of(jax.random.laplace), {"*": declarations.anything(2**0.5)}),
    ],
)
def test_statistical_what_is_as_declared_has_no_finding(make, declared):
    assert problems(make, declared) == ""


@pytest.mark.parametrize(
    ("factor", "cause"),
    [
        (3**-0.5, "√3 too small"),
        (3**0.5, "√3 too large"),
        (2**-0.5, "gain of ReLU is missing"),
        (0.01, "the variance was taken for the sd"),
        (100**0.5, "the sd was taken for the variance"),
        (0.87963, "cut off at two sd, and not rescaled"),
        (100.0, "standard normal numbers"),
        (2.0, "0.02, whatever the width"),
    ],
)
def test_statistical_an_sd_that_is_off_has_its_likely_cause(factor, cause):
    text = problems(weights_of(normal(0.01 * factor)), {"*": "normal:0.01"})
    assert re.search(r"sd 0\.\d+|sd 1", text) and cause in text
    assert "× as large" in text


@pytest.mark.parametrize(
    ("declared", "std", "cause"),
    [
        ("fan_in:1", 80**-0.5, "that of fan-out, not fan-in"),
        ("fan_out:1", 60**-0.5, "that of fan-in, not fan-out"),
        ("fan_in:1", 70**-0.5, "average of the fans"),
        ("fan_in:2", (3 * 60) ** -0.5, "PyTorch's and Equinox's default"),
        ("normal:0.7", (2 / 60) ** 0.5, "He's"),
        ("normal:0.7", (2 / 140) ** 0.5, "Glorot's"),
    ],
)
def test_statistical_an_sd_of_another_fan(declared, std, cause):
    assert cause in problems(weights_of(normal(std)), {"*": declared})


def test_statistical_a_residual_scale_that_is_missing():
    declared = {"*": declarations.residual(declarations.normal(0.02), 12)}
    assert "1/√(2L), L = 12" in problems(weights_of(normal(0.02)), declared)
    assert "1/√L, not" in problems(weights_of(normal(0.02 / 12**0.5)), declared)
    assert problems(weights_of(normal(0.02 / 24**0.5)), declared) == ""


@pytest.mark.parametrize(
    ("law", "declared", "words"),
    [
        (jax.random.uniform, "uniform:1", "no entry is negative"),
        (lambda key, shape: normal(1.0)(key, shape) + 0.2, "normal:1", "mean 0.2"),
        (
            lambda key, shape: jax.random.uniform(key, shape, minval=-1, maxval=1),
            declarations.normal(3**-0.5),
            r"the law is not normal .*it is uniform",
        ),
        (normal(3**-0.5), "uniform:1", r"the law is not uniform .*it is normal"),
        (lambda key, shape: jnp.zeros(shape), "normal:1", "all entries are 0"),
        (normal(0.1), "constant:0", "declared constant 0"),
        (lambda key, shape: jnp.ones(shape), "constant:0", "all entries are 1"),
    ],
)
def test_statistical_other_laws(law, declared, words):
    assert re.search(words, problems(weights_of(law), {"*": declared}))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda key: Stack(nnx.Rngs(0)), "the same for all seeds"),
        (weights_of(lambda key, shape: jnp.full(shape, jnp.nan)), "not finite"),
        (weights_of(lambda key, shape: jnp.full(shape, 0.3)), "all entries are 0.3"),
        (
            lambda key: {"a": normal(1)(key, (9, 9)), "b": normal(1)(key, (9, 9))},
            "b: is equal to a",
        ),
        (
            lambda key: {"a": normal(1)(key, (9, 9)), "b": normal(2)(key, (9, 9))},
            "b: is a multiple of a",
        ),
        (
            lambda key: {"a": normal(1)(key, (9, 9)), "b": normal(2)(key, (20, 30))},
            "b: is a multiple of a",
        ),
        (
            weights_of(lambda key, shape: jnp.stack([normal(1)(key, shape)] * 3)),
            "slices along the first axis are equal",
        ),
    ],
)
def test_exact_what_is_surely_wrong_is_found_without_a_declaration(model, words):
    assert words in problems(model)


def test_exact_what_may_be_is_no_finding():
    """Zeros, constants of vectors, ties, rows of padding, and what is named fixed."""

    def model(key):
        keys = jax.random.split(key, 3)
        W = jax.random.normal(keys[0], (9, 9))
        padded = [jax.random.normal(each, (20, 9)).at[0].set(0.0) for each in keys[1:]]
        return {
            "zero": jnp.zeros((5, 5)),
            "scale": jnp.full((1, 7), 0.1),
            "tied": [W, W],
            "padded": padded,
            "count": jnp.arange(3),
            "table": jnp.sin(jnp.arange(90.0) / 5).reshape(15, 6),
            "states": jnp.log(jnp.tile(jnp.arange(1.0, 17.0), (9, 1))),
            "identity": jnp.eye(20),
            "features": jax.random.normal(jax.random.key(0), (9, 9)),
        }

    assert problems(model).startswith("features: is the same for all seeds")
    found = audits.audit(model, fixed=("feat*",))
    assert found.findings == ()
    (tied,) = [one for one in found.parameters if one.tied]
    assert tied.name == "tied.0" and tied.tied == ("tied.1",)
    assert {one.name for one in found.parameters} == {
        *("zero", "scale", "tied.0", "padded.0", "padded.1", "table"),
        *("states", "identity", "features"),
    }


def test_statistical_false_findings_are_at_the_level():
    """Of 2,000 parameters, small ones too, none; at 5% a test, about 5% of them."""
    rng = np.random.default_rng(0)
    laws = {
        "normal": lambda shape: rng.normal(size=shape),
        "uniform": lambda shape: rng.uniform(-(3**0.5), 3**0.5, shape),
        "truncated normal": lambda shape: (
            scipy.stats.truncnorm(-2, 2).rvs(shape, random_state=rng)
            / declarations.CUT_OFF
        ),
    }
    counts = []
    for kind, law in laws.items():
        for side in (1, 3, 10, 40):
            declared = declarations.Declared(kind, 0.3)
            drawn = [
                _parameters.measured(
                    [
                        [_parameters.Parameter("W", 0.3 * law((side, side)), None, 0)]
                        for _ in range(4)
                    ]
                )[0]
                for _ in range(200)
            ]
            assert not any(_findings._against(one, declared, 1e-6 / 3) for one in drawn)
            wrong = [bool(_findings._against(one, declared, 0.05)) for one in drawn]
            counts.append(np.mean(wrong))
    assert 0.005 < np.mean(counts) < 0.15


def test_oracle_moments_of_parameters_are_those_of_all_entries():
    rng = np.random.default_rng(0)
    W = rng.normal(1.0, 2.0, size=(4, 700, 60)).astype(np.float32)
    draws = [[_parameters.Parameter("W", each, None, 1)] for each in W]
    (found,) = _parameters.measured(draws)
    assert np.isclose(found.pooled_mean, W.mean(), atol=1e-6)
    assert np.isclose(found.pooled_std, W.std(), rtol=1e-5)
    assert found.total == W.size and found.shape == (700, 60)


def test_exact_entries_are_spread_over_rows_and_columns():
    W = np.arange(6_000 * 50, dtype=np.float32).reshape(6_000, 50)
    few = _parameters._spread(W.ravel(), 1_000, 50)
    rows, columns = np.unique(few // 50), np.unique(few % 50)
    assert len(few) <= 1_000 and len(columns) == 50 and len(rows) == len(few)


def test_exact_initialisations_with_other_parameters_are_refused():
    one = _parameters.Parameter("a", np.zeros(3), None, 1)
    with pytest.raises(ValueError, match="initialisation 1"):
        _parameters.measured([[one], [one._replace(name="b")]])


def test_statistical_shares_of_a_normal_law_are_covered():
    """The 95% interval, from 6 and from 16 initialisations."""
    rng = np.random.default_rng(0)
    truth = scipy.stats.norm.cdf(-1.5)
    for n in (6, 16):
        shares = [
            _stability.normal_share(rng.normal(size=n), -1.5) for _ in range(2_000)
        ]
        inside = [low <= truth <= high for _, (low, high) in shares]
        assert abs(np.mean(inside) - 0.95) < 5 * (0.95 * 0.05 / 2_000) ** 0.5


def test_exact_reports_of_few_initialisations_are_of_a_normal_law():
    rng = np.random.default_rng(0)
    few = _stability.report(rng.normal(0, 0.1, size=(16, 3)), "abc")
    assert few.verdict == "stable"
    shifted = _stability.report(rng.normal(-3, 0.1, size=(16, 3)), "abc")
    assert shifted.verdict == "vanishing"
    still = _stability.report(np.zeros((16, 3)), "abc")
    assert still.verdict == "stable" and still.vanishing == (0.0, (0.0, 0.0))
    wide = _stability.report(rng.normal(-0.9, 0.6, size=(16, 3)), "abc")
    assert "borderline" in wide.verdict
    values = np.asarray(few.log_norms)
    low, high = few.beta.interval
    ends = 15 * values.var(ddof=1) / 5 / scipy.stats.chi2(15).ppf([0.975, 0.025])
    assert np.allclose([low, high], ends)


def test_statistical_reports_are_those_of_a_plain_loop():
    """Means over initialisations of ln R, by jax.jvp one block after another."""
    make = stack(width=48, depth=3)
    x = np.random.default_rng(0).normal(size=(1, 48)).astype(np.float32)
    names = [(f"layers[{i}]", jax.nn.relu) for i in range(3)]
    found = audits.audit(make, x, blocks=names, kinds=("jvp",), num_samples=400)
    totals = []
    for key in jax.random.split(jax.random.key(5), 400):
        key_model, key_tangent = jax.random.split(key)
        h, u = x[0], jax.random.normal(key_tangent, (48,))
        total = -jnp.log(u @ u)
        for layer in make(key_model).layers:
            h, u = jax.jvp(lambda z, layer=layer: jax.nn.relu(layer(z)), (h,), (u,))
        totals.append(float(total + jnp.log(u @ u)))
    report = found.reports["jvp"]
    error = np.hypot(report.mean.error, np.std(totals) / 20)
    assert abs(report.mean.value - np.mean(totals)) < 5 * error
    assert abs(report.mean.value + 3 * np.log(2)) < 0.4
    outside = np.abs(totals) > 2 * np.log(10)
    assert (report.verdict == "stable") == (outside.mean() < 0.05)


def test_exact_an_audit_reads_as_text_json_and_html():
    found = audits.audit(
        stack(width=8, depth=2),
        np.ones((2, 8), np.float32),
        blocks=["layers[0]", "layers[1]"],
        declaration={"*kernel": "normal:3"},
        num_samples=100,
        name="<Stack>",
    )
    text = str(found)
    for words in ("FINDING layers.*.kernel (2)", "backward, gradients", "<Stack>"):
        assert words in text
    told = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert len(told["findings"]) == 1 and set(told["reports"]) == set(probes.KINDS)
    page = found._repr_html_()
    assert "&lt;Stack&gt;" in page and "<Stack>" not in page and "FINDING" in page
    assert probes.audit is audits.audit


def test_statistical_matrices_that_are_not_orthogonal():
    """Of the right sd; and orthogonal ones of any shape are no finding."""
    law = {"*": "orthogonal"}
    crooked = lambda key: {"kernel": 0.1 * jax.random.normal(key, (100, 40))}  # noqa: E731
    assert "not orthogonal" in problems(crooked, law)
    draw = nnx.initializers.orthogonal()
    for shape in ((100, 40), (40, 100), (3, 3, 16, 8), (7, 7), (5, 1)):

        def straight(key, shape=shape):
            return {"kernel": draw(key, shape)}

        assert problems(straight, law) == ""


def test_statistical_layers_of_plain_arrays():
    """Haiku's w is (in, out); of other names fans are not known, and that is told."""
    model = lambda name: (  # noqa: E731
        lambda key: {name: jax.random.normal(key, (300, 20))}
    )
    assert "17.4 × as large" in problems(model("w"), {"w": "fan_in:1"})
    with pytest.raises(ValueError, match=r"declared by fans = \['matrix'\]"):
        problems(model("matrix"), {"matrix": "fan_in:1"})
    assert problems(model("matrix"), {"matrix": "normal:1"}) == ""
    assert problems(model("matrix"), {"matrix": "any"}) == ""


def test_exact_what_was_not_declared_is_told():
    found = audits.audit(stack(), declaration={"*bias": "constant:0"})
    assert "Not declared: 4 of 8, such as layers.*.kernel (4)." in found.verdict_lines()
    with pytest.raises(ValueError, match=r"declaration = \['\*kernal'\]"):
        audits.audit(stack(), declaration={"*bias": "constant:0", "*kernal": "any"})


def test_statistical_opposite_problems_are_two_findings():
    def model(key):
        keys = jax.random.split(key, 3)
        scales = (0.3, 3.7, 1.0)
        return [
            {"weight": scale * jax.random.normal(one, (60, 60))}
            for scale, one in zip(scales, keys, strict=True)
        ]

    found = audits.audit(model, declaration={"*": "normal:1"}).findings
    assert [finding.parameters for finding in found] == [("0.weight",), ("1.weight",)]


def test_statistical_small_parameters_at_the_level():
    """One number of a uniform law, as biases are; its square is 0 often enough."""
    declared = declarations.uniform(1.0)
    rng = np.random.default_rng(0)
    for draws in (2, 4, 8):
        values = rng.uniform(-1, 1, size=(6_000, draws))
        # the smallest of all of them
        worst = values[np.argsort(np.sum(values**2, axis=1))[:20]]
        for row in worst:
            (one,) = _parameters.measured(
                [
                    [_parameters.Parameter("b", np.array([value]), None, 0)]
                    for value in row
                ]
            )
            assert _findings.found([one], {"b": declared}) == []


def test_exact_complex_parameters_are_pairs_of_numbers():
    def model(key):
        real, imaginary = jax.random.normal(key, (2, 40, 40))
        return {
            "weight": jax.lax.complex(0 * real, imaginary),
            "other": jax.lax.complex(real, imaginary),
        }

    (table,) = [one for one in audits.audit(model).parameters if one.name == "other"]
    assert np.isclose(table.pooled_std, 1, atol=0.05)
    assert not any(one.constant for one in audits.audit(model).parameters)


FLAX = [
    lambda key: nnx.List(
        [
            nnx.MultiHeadAttention(4, 32, rngs=nnx.Rngs(key)),
            nnx.BatchNorm(9, rngs=nnx.Rngs(key)),
        ]
    ),
    lambda key: nnx.OptimizedLSTMCell(20, 30, rngs=nnx.Rngs(key)),
    lambda key: nnx.List(
        [
            nnx.LinearGeneral(32, (4, 8), rngs=nnx.Rngs(key)),
            nnx.LayerNorm(9, rngs=nnx.Rngs(key)),
        ]
    ),
    lambda key: {
        "cell": flax.linen.OptimizedLSTMCell(24).init(
            key, (jnp.zeros((1, 24)), jnp.zeros((1, 24))), jnp.zeros((1, 16))
        ),
        "Dense_0": flax.linen.Dense(9).init(key, jnp.zeros((1, 16)))["params"],
        "attention": flax.linen.MultiHeadDotProductAttention(4).init(
            key, jnp.zeros((1, 5, 32)), jnp.zeros((1, 5, 32))
        ),
    },
]
EQUINOX = [
    lambda key: [equinox.nn.Embedding(30, 8, key=key)],
    lambda key: [
        equinox.filter_vmap(lambda k: equinox.nn.Linear(9, 8, key=k))(
            jax.random.split(key, 5)
        )
    ],
    lambda key: [equinox.nn.LayerNorm((4, 16)), equinox.nn.Linear(3, 2, key=key)],
]
TABLES = [
    lambda key: {"log_A": jnp.log(0.5 * jnp.ones((16, 32)))},
    lambda key: {"dct": jnp.cos(jnp.outer(jnp.arange(40.0) + 0.5, jnp.arange(40.0)))},
    lambda key: [{"gate": jnp.linspace(3, 6, 16)} for _ in range(3)],
    # of sub-pixel convolutions
    lambda key: {"kernel": jnp.repeat(jax.random.normal(key, (5, 9, 3)), 4, axis=0)},
]


@pytest.mark.parametrize(
    ("make", "declared"),
    [
        *((make, {}) for make in (*FLAX, *EQUINOX, *TABLES)),
        *((make, ready.READY["flax"]) for make in FLAX),
        *((make, ready.READY["equinox"]) for make in EQUINOX),
    ],
)
def test_statistical_defaults_of_frameworks_and_tables_are_no_findings(make, declared):
    found = audits.audit(make, declaration=declared, num_seeds=4)
    assert found.findings == (), found.verdict_lines()


def test_exact_a_listing_is_the_tree_of_modules():
    found = audits.audit(
        stack(width=8, depth=2),
        np.ones((2, 8), np.float32),
        blocks=["layers[0]", "layers[1]"],
        num_samples=100,
        kinds=("jvp",),
    )
    rows = found.listing().splitlines()
    mean = np.asarray(found.reports["jvp"].layers.mean.value)
    assert rows[1].split() == ["layers", "144"]
    assert rows[2].split() == ["0", "72", f"{mean[0]:.3f}"]
    assert rows[3].split() == ["bias", "8", "constant"]


def test_exact_stability_counts_only_where_it_is_required():
    zeros = nnx.initializers.variance_scaling(1e-6, "fan_in", "normal")
    found = audits.audit(
        stack(width=8, depth=2, init=zeros),
        np.ones((2, 8), np.float32),
        blocks=["layers[0]", "layers[1]"],
        num_samples=100,
        kinds=("jvp",),
    )
    assert not found.stable
    assert (found.exit_code(), found.exit_code(require_stable=True)) == (0, 1)
    # what was not followed is not known
    assert audits.audit(stack()).exit_code(require_stable=True) == 1


def test_exact_assertions_of_test_suites():
    testing.assert_initialised(stack(), "flax")
    with pytest.raises(AssertionError, match="FINDING"):
        testing.assert_initialised(stack(), {"*kernel": "normal:1"})
    x = np.ones((1, 64), np.float32)
    blocks = [f"layers[{i}]" for i in range(4)]
    found = testing.assert_stable(stack(), x, blocks=blocks, kinds=("jvp",))
    assert found.stable
    tiny = nnx.initializers.normal(1e-3)
    with pytest.raises(AssertionError, match="vanishing"):
        testing.assert_stable(stack(init=tiny), x, blocks=blocks, kinds=("jvp",))
    with pytest.raises(ValueError, match="inputs"):
        testing.assert_stable(stack(), None)


def test_exact_words_of_declarations():
    fans = declarations.Fans(200, 50)
    assert declarations.spoken("fan_out:2").std(fans) == 2 / 50**0.5
    assert np.isclose(declarations.spoken("uniform:3").std(None), 3**0.5)
    assert declarations.spoken("fan_average").std(fans) == 125**-0.5
    assert declarations.fans_of((8, 4, 3, 3)) == declarations.Fans(36, 72, 9)
    declared = declarations.checked({"a*": "normal:1", "*": "normal:2"})
    assert declarations.of_name(declared, "abc").scale == 1
    assert declarations.of_name(declared, "b").scale == 2


@pytest.mark.parametrize("kind", ["normal", "uniform", "truncated normal"])
def test_oracle_laws_of_declarations_are_standardised(kind):
    """Mean 0, variance 1 and the fourth moment, from the distribution function."""
    z = np.linspace(-9, 9, 200_001)
    density = np.gradient(declarations.cdf(kind, z), z)
    moments = [np.trapezoid(density * z**k, z) for k in (0, 1, 2, 4)]
    expected = [1, 0, 1, declarations.KURTOSIS[kind]]
    assert np.allclose(moments, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: audits.audit("model"), r"model = 'model'"),
        (lambda: audits.audit(stack(), num_seeds=1), r"num_seeds = 1"),
        (lambda: audits.audit(lambda key: 1 / 0), r"model\(key\): ZeroDivisionError"),
        (lambda: audits.audit(lambda key: None), r"no parameters"),
        (lambda: audits.audit(stack(), kinds=("grad",)), r"kinds\[0\] = 'grad'"),
        (lambda: audits.audit(stack(), declaration=3), r"declaration = 3"),
        (lambda: audits.audit(stack(), declaration={"*": 3}), r"declaration\['\*'\]"),
        (lambda: declarations.spoken("nrmal:1"), r"'nrmal:1'.*one of normal"),
        (lambda: declarations.spoken("normal"), r"'normal'.*with its number"),
        (lambda: declarations.spoken("normal:x"), r"'x' is no number"),
        (lambda: declarations.spoken("normal:0"), r"scale = 0"),
        (lambda: declarations.residual("normal", 3), r"base = 'normal'"),
        (
            lambda: testing.assert_initialised(stack(), {"*kernl": "normal:1"}),
            r"declaration = \['\*kernl'\].*layers.0.kernel",
        ),
        (lambda: ready.ready("keras"), r"declaration = 'keras'"),
        (
            lambda: audits.audit(stack(), np.ones((1, 64)), blocks=["layer[0]"]),
            r"layer\[0\]",
        ),
    ],
)
def test_exact_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
