"""Advice against closed forms, sampled networks, and frameworks' own layers."""

import itertools
import math

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lognorm_jax import (
    activations,
    advice,
    ensembles,
    exact,
    laws,
    masks,
    networks,
    paths,
    sampling,
    spoken,
    weights,
)
from lognorm_jax.tool import _stable

pytestmark = pytest.mark.float32


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        ("relu", 2**0.5, 2**0.5),
        ("linear", 1.0, 1.0),
        ("leaky:0.1", (2 / 1.01) ** 0.5, (2 / 1.01) ** 0.5),
        ("tanh", 1.5925, 1.4674),
        ("gelu", 1.5335, 1.4811),
        # E sin² = (1 − e^{−2ω²})/2, E cos² = (1 + e^{−2ω²})/2
        ("sine:2", ((1 - math.exp(-8)) / 2) ** -0.5, (2 + 2 * math.exp(-8)) ** -0.5),
    ],
)
def test_oracle_gains(name, forward, backward):
    """Quadrature of another program, and closed forms."""
    found = advice.gains(spoken.activation(name))
    assert np.isclose(found.forward, forward, rtol=3e-5)
    assert np.isclose(found.backward, backward, rtol=3e-5)
    assert found.forward_correction == found.backward_correction == 1


def test_exact_corrections_keep_the_typical_norm():
    n = 40
    correction = advice.gains("relu", n).backward_correction
    relu_mean, _ = exact.increment_cumulants(n, masks.relu(), 2)
    assert np.isclose(2 * math.log(correction) + relu_mean, 0, atol=1e-12)
    wide = advice.gains("tanh", 10**9)
    assert np.isclose(wide.forward_correction, 1, atol=1e-8)


def test_statistical_corrections_of_smooth_activations():
    """Of one layer at a standard normal input: forward, and across it."""
    n, count = 50, 20_000
    rng = np.random.default_rng(0)
    z, g = rng.normal(size=(2, count, n))
    found = advice.gains("tanh", n)
    forward = np.log(np.mean((found.forward * np.tanh(z)) ** 2, axis=1))
    slopes = 1 - np.tanh(z) ** 2
    backward = np.log(np.mean((found.backward * slopes * g) ** 2, axis=1))
    for values, correction in (
        (forward, found.forward_correction),
        (backward, found.backward_correction),
    ):
        error = values.std() / count**0.5
        # terms of the order of 1/n² are left out
        assert abs(values.mean() + 2 * math.log(correction)) < 5 * error + 4 / n**2
        assert abs(values.mean()) > 5 * error


@pytest.mark.parametrize("law", [weights.normal(), weights.orthogonal()])
@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_exact_depth_is_the_last_that_is_stable(law, activation):
    found = advice.depth(24, activation, weight_law=law)
    if activation == "linear" and law.orthogonal:
        assert found.value == advice.LARGEST
        return
    mask = activations.named(activation).mask
    shares = []
    for depth in (found.value, found.value + 1):
        ensemble = ensembles.Ensemble((24,) * (depth + 1), law, mask)
        shares.append(advice.outside(exact.law(ensemble)))
    assert shares[0] <= 0.05 < shares[1]
    assert found.source == "exact law"


def test_exact_widths_depths_and_scales_agree():
    depth = advice.depth(64, factor=5.0, share=0.1).value
    assert advice.narrowest(depth, factor=5.0, share=0.1).value <= 64
    assert advice.narrowest(depth + 1, factor=5.0, share=0.1).value > 64
    lam = advice.branch_scale(64, 400)
    alpha = (1 - lam**2) ** 0.5
    # N(−v/2, v) of balanced blocks
    v = 400 * (4 * alpha**2 * lam**2 + 5 * lam**4) / 64
    assert np.isclose(advice.outside(laws.normal(-v / 2, v)), 0.05, rtol=1e-6)
    assert advice.branch_scale(64, 4) == 1.0
    assert advice.depth(1).value == 0
    assert advice.narrowest(10**5, share=1e-9).value == 0
    assert advice.depth(64, factor=1.0001).value == 0
    assert advice.depth(64, weight_law=weights.uniform()).source == "limit law"


@pytest.mark.parametrize(
    ("width", "law"),
    [
        (2, weights.orthogonal()),
        (8, weights.orthogonal()),
        (8, weights.fixed_fan_in(2)),
        (16, weights.fixed_fan_in(4)),
        (5, weights.rademacher()),
    ],
)
def test_statistical_narrow_networks_without_an_exact_law_are_sampled(width, law):
    """The limit law knows of no death: of other samples, too, few are unstable."""
    found = advice.depth(width, weight_law=law)
    assert "sampled" in found.source
    if found.value == 0:
        depth, stable = 1, False
    else:
        depth, stable = found.value, True
    again = advice.sampled(width, depth, weight_law=law, num_samples=4_000, seed=3)
    share = np.mean(np.abs(again.sum(1)) > 2 * math.log(10))
    assert (share < 0.075) == stable


def test_exact_the_limit_law_is_not_asked_of_narrow_layers():
    assert advice.narrowest(3, weight_law=weights.sparse(0.1)).value >= 64
    assert advice.narrowest(10, weight_law=weights.fixed_fan_in(16)).value >= 64
    assert advice.narrowest(3, weight_law=weights.orthogonal()).source == "exact law"
    with pytest.raises(ValueError, match="width = 4"):
        advice.branch_scale(4, 3)


def test_exact_few_laws_are_asked_for(monkeypatch):
    """The search begins where the limit law says: a table in a second."""
    asked = []
    law = advice.law
    monkeypatch.setattr(_stable, "law", lambda *args: asked.append(args) or law(*args))
    advice.depth(1_000)
    advice.narrowest(3_000)
    assert len(asked) < 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "activation", "law"),
    [
        (16, "relu", weights.normal()),
        (64, "relu", weights.normal()),
        (32, "relu", weights.orthogonal()),
        (48, "leaky:0.2", weights.normal()),
        (64, "relu", weights.uniform()),
    ],
)
def test_statistical_advised_depth_and_half_as_deep_again(width, activation, law, key):
    """Real networks on either side of 5%."""
    phi = spoken.activation(activation)
    depth = advice.depth(width, phi, weight_law=law).value
    shares = []
    for deep in (depth, math.ceil(1.5 * depth)):
        network = networks.mlp((width,) * (deep + 1), phi, weight_law=law)
        x, u = np.random.default_rng(0).normal(size=(2, width))
        make = paths.gram if network.undrawn else paths.jacobian
        trace = sampling.sample(make(network, x, u), key, 20_000)
        log_norms = np.asarray(trace.increment).sum(1)
        shares.append(np.mean(np.abs(log_norms) > 2 * math.log(10)))
    error = (0.05 * 0.95 / 20_000) ** 0.5
    # the limit law of other weights is off by a few percent of the share
    allowed = 5 * error + (0 if law.gaussian or law.orthogonal else 0.01)
    assert 0.03 < shares[0] <= 0.05 + allowed
    assert shares[1] > 0.05 + 20 * error


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_statistical_sampled_depths(activation):
    """Other networks than those that were asked, on either side of 5%."""
    found = advice.depth(64, activation)
    low, high = found.interval
    assert low <= found.value <= high
    gain = advice.gains(activation).backward
    for deep, stable in ((low - 1, True), (math.ceil(1.5 * high), False)):
        log_norms = advice.sampled(
            64, deep, activation, gain, num_samples=10_000, seed=1
        ).sum(1)
        share = np.mean(np.abs(log_norms) > 2 * math.log(10))
        assert (share < 0.07) == stable


def test_statistical_defaults_are_those_of_frameworks():
    """Their own layers, drawn: variance times fan-in."""
    n = 256
    flax_weights = nnx.Linear(n, n, rngs=nnx.Rngs(0)).kernel[...]
    equinox_weights = equinox.nn.Linear(n, n, key=jax.random.key(0)).weight
    rows = {row.framework: row for row in advice.defaults("relu")}
    for framework, W in (("Flax", flax_weights), ("Equinox", equinox_weights)):
        assert np.isclose(n * np.var(W), rows[framework].variance, rtol=0.03)
    assert np.isclose(rows["Flax"].log_ratio, -math.log(2))
    assert rows["PyTorch"].depth == int(2 * math.log(10) / math.log(6))


def test_oracle_defaults_follow_what_layers_make_of_their_input():
    """tanh with Flax's weights: by a network of 3,000 units."""
    (row, *_) = advice.defaults("tanh")
    network = networks.mlp((1_500,) * 11, "tanh", gain=1.0)
    x, u = np.random.default_rng(0).normal(size=(2, 1_500))
    trace = paths.gram(network, x, u)(jax.random.key(0))
    increments = np.asarray(trace.increment)
    assert np.isclose(increments[0], row.log_ratio, atol=0.15)
    assert row.depth > 3 * 2 * math.log(10) / abs(row.log_ratio)


def test_exact_advice_reads_as_a_table_and_as_json():
    found = advice.advise(32, 10)
    assert "narrowest stable at depth 10" in str(found)
    assert found.as_dict()["rows"][0]["quantity"] == "gain that keeps activations"
    assert all(len(line) < 130 for line in str(found).splitlines())


def test_statistical_advice_is_confirmed_on_request():
    found = advice.advise(16, 10, simulate=2_000)
    row = next(row for row in found.rows if row.quantity.startswith("P(unstable)"))
    low, high = row.simulated.interval
    assert low - 0.01 < row.value < high + 0.01


def test_statistical_advice_on_smooth_activations():
    rows = {row.quantity: row for row in advice.advise(32, 8, "tanh").rows}
    low, high = rows["P(unstable) at depth 8"].interval
    assert 0 <= low <= rows["P(unstable) at depth 8"].value <= high <= 1
    assert rows["deepest, gain that keeps gradients"].value > 8
    growth = rows["ln R of gradients, a layer"].value
    assert np.isclose(growth, 2 * math.log(1.5925 / 1.4674), atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: advice.gains("relo"), r"activation = 'relo'"),
        (lambda: advice.gains("relu", 0), r"width = 0"),
        (
            lambda: advice.gains(activations.Activation("none", jnp.zeros_like)),
            r"activation = 'none'.*> 0",
        ),
        (lambda: advice.outside("law"), r"law = 'law'"),
        (lambda: advice.outside(laws.normal(0, 1), 1.0), r"factor = 1.0"),
        (lambda: advice.law(3, 3, "tanh"), r"activation = 'tanh'.*mask"),
        (lambda: advice.depth(0), r"width = 0"),
        (lambda: advice.depth(3, gain=1.4), r"gain = 1.4"),
        (lambda: advice.depth(3, share=1.0), r"share = 1.0"),
        (lambda: advice.narrowest(3, "gelu"), r"activation = 'gelu'"),
        (lambda: advice.narrowest(10**6), r"depth = 1000000"),
        (lambda: advice.branch_scale(16, 0), r"depth = 0"),
        (lambda: advice.branch_scale(16, 2, "tanh"), r"activation = 'tanh'"),
        (lambda: advice.defaults("relu", factor=0.5), r"factor = 0.5"),
        (lambda: advice.advise(3, 3, simulate=-1), r"simulate = -1"),
    ],
)
def test_exact_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        *("64-100x10", "16x17", "8-30-5-60x4", "10x4", "100x21-1", "3-3", "200x3"),
        *("32x33", "50-20x6", "5-80x8-10", "24x25", "128-64-32-16"),
    ],
)
def test_statistical_quantiles_of_twelve_shapes(shape, key):
    """The predicted 5% quantile, within 5 standard errors of 10⁵ real networks."""
    widths = spoken.shape(shape)
    network = networks.relu_mlp(widths, 0.1, "in")
    law = exact.law(network.ensemble)
    x, u = np.random.default_rng(0).normal(size=(2, widths[0]))
    trace = sampling.sample(paths.gram(network, x, u), key, 10**5)
    log_norms = np.asarray(trace.increment).sum(1)
    for level in (0.05, 0.5, 0.95):
        quantile = float(law.quantile(level))
        if np.isneginf(quantile):
            assert np.mean(np.isneginf(log_norms)) > level
            continue
        share = np.mean(log_norms <= quantile)
        error = (level * (1 - level) / 10**5) ** 0.5
        assert abs(share - level) < 5 * error


def test_exact_shapes_are_what_they_say():
    assert spoken.shape("64-100x3-1") == (64, 100, 100, 100, 1)
    assert spoken.shape("5x4") == (5, 5, 5, 5)
    for text, place in (
        ("64-1o0x10", 4),
        ("64", 2),
        ("64--10", 3),
        ("64-10x", 6),
        ("64-10x3x4", 7),
        ("x3-4", 0),
        ("64-0", 3),
        ("", 0),
        ("64-٣", 3),
        ("9" * 9 + "-3", 0),
        ("3x9999999", 2),
    ):
        with pytest.raises(ValueError, match="shape = ") as caught:
            spoken.shape(text)
        *_, shown, pointer = str(caught.value).split("\n")
        assert shown == f"  {text}" and pointer.index("^") == place + 2


def test_exact_words_of_the_command_line():
    assert spoken.activation("leaky:0.1") is activations.leaky_relu(0.1)
    assert spoken.activation("Swish").name == "silu"
    assert spoken.weight_law("n_of_m:2:4") is weights.n_of_m(2, 4)
    for word, message in itertools.chain(
        [("relo", "Did you mean 'relu'"), ("leaky", "leaky:NUMBER")],
        [("leaky:a", "'a' is a number"), ("relu:3", "must be relu")],
    ):
        with pytest.raises(ValueError, match=message):
            spoken.activation(word)
    with pytest.raises(ValueError, match="Did you mean 'orthogonal'"):
        spoken.weight_law("ortogonal")
    with pytest.raises(ValueError, match="a whole number"):
        spoken.weight_law("fixed_fan_in:1.5")
