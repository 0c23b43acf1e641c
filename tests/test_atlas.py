"""The atlas of architectures, and the expansions that it is held to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from test_network_experiments import fails, saved

from experiments import _architectures, _check, _job, _units, atlas
from lognorm_jax import convolutions, exact, networks

pytestmark = pytest.mark.float32

SIZE = 20_000


def test_exact_atlas(tmp_path):
    """Samples made to be as theory says pass; a number wrong by a fifth fails, and one
    that changes with the width.
    """
    rng = np.random.default_rng(0)
    layers = atlas.LAYERS
    results = {}

    def normal(n_variance, width):
        steps = rng.normal(size=(SIZE, len(layers))) * (n_variance / width) ** 0.5
        return np.cumsum(steps, axis=1)

    for number, (name, case) in enumerate(_architectures.CASES.items(), 1):
        for width in atlas.WIDTHS:
            results[f"{name}/{width}"] = normal(number, width)
        theory = np.stack([number * layers, 0 * layers]).astype(float)
        results[f"{name}/theory"] = theory if case.known else np.nan * theory
    results = _job.nested(results)
    rows = atlas.check(results)
    assert _check.overall(rows) == "pass"
    assert saved(atlas, results, tmp_path)
    wide = f"n = {max(atlas.WIDTHS)}"
    judged = {row.case for row in rows if row.quantity == wide and row.verdict}
    known = {name for name, case in _architectures.CASES.items() if case.known}
    # whose expansion is no better than a fifth
    assert known - judged == {"GELU, critical"}
    for name in judged:
        for factor in (0.8, 1.2):
            wrong = factor * results[name]["theory"]
            assert fails(atlas, results, **{f"{name}/theory": wrong}), name
    for name, samples in results.items():
        narrow = {f"{name}/64": 1.25**0.5 * samples["64"]}
        assert fails(atlas, results, **narrow), name


def test_exact_theory_of_the_atlas():
    """Of masks the exact law of all layers, and of orthogonal ReLUs what was simulated
    with biases (n = 8, d = 4); of one layer of a convolution its predictable variance.
    """
    cases, width = _architectures.CASES, 128
    x, u = np.random.default_rng(0).normal(size=(2, width))
    network = cases["ReLU"].network(width, 32)
    whole = width * exact.law(network.ensemble).variance
    assert np.isclose(atlas._theory(cases["ReLU"], x, u)[0, -1], whole, rtol=1e-6)
    assert abs(cases["ReLU, orthogonal"].exact(8, 4) - 3.853) < 1e-3
    residual = cases["residual, vanilla"]
    law = networks.limit_law(residual.network(width, 32), x)
    assert np.isclose(atlas._theory(residual, x, u)[0, -1], width * law.variance)
    assert np.isnan(atlas._theory(cases["LSTM cells"], x, u)).all()


UNITS = {  # n·Var a layer
    "linear": (_units.Unit(lambda z: z[0]), 2),
    "relu": (_units.Unit(lambda z: jax.nn.relu(z[0]), 2.0), 5),
    "orthogonal relu": (
        _units.Unit(lambda z: jax.nn.relu(z[0]), 2.0, orthogonal=True),
        3,
    ),
    "orthogonal linear": (_units.Unit(lambda z: z[0], orthogonal=True), 0),
    "maxout of 2": (_units.Unit(lambda z: jnp.max(z, axis=0), pieces=2), 2),
}


@pytest.mark.parametrize("name", UNITS)
def test_oracle_expansions_of_exact_laws(name, monkeypatch):
    monkeypatch.setattr(_units, "LOG_UNITS", 13)
    unit, expected = UNITS[name]
    x, u = np.random.default_rng(0).normal(size=(2, 1, 20))
    found, error = _units.spread(unit, x, u, 6)
    allowed = 5 * error + 1e-3
    assert np.all(np.abs(found - expected * np.arange(1, 7)) < allowed)
    assert np.all(allowed < 0.1 * (1 + expected * np.arange(1, 7)))


@pytest.mark.parametrize("pieces", [3, 4])
def test_oracle_expansions_of_maxout(pieces, monkeypatch):
    """Along the input, by quadrature of the moments of the largest of K normals."""
    monkeypatch.setattr(_units, "LOG_UNITS", 13)
    z = np.linspace(-12, 12, 200_001)
    density = pieces * stats.norm.pdf(z) * stats.norm.cdf(z) ** (pieces - 1)
    square, fourth = (integrate.trapezoid(density * z**k, z) for k in (2, 4))
    unit = _architectures.CASES[f"maxout of {pieces}"].unit
    assert abs(unit.gain - 1 / square) < 1e-4
    found, error = _units.spread(unit, np.ones((1, 5)), None, 4)
    expected = (fourth / square**2 - 1) * np.arange(1, 5)
    assert np.all(np.abs(found - expected) < 5 * error + 1e-3)


def test_oracle_the_expansion_of_a_convolution(monkeypatch):
    """Its first layer is exact at every width, and any direction."""
    monkeypatch.setattr(_units, "LOG_UNITS", 13)
    x, u = np.random.default_rng(0).normal(size=(2, 6, _architectures.NODES))
    unit = _architectures.CASES["convolution, 4 positions"].unit
    found, error = _units.spread(unit, x.T, u.T, 1)
    expected = convolutions.predictable_variance(
        jnp.asarray(x), (3,), 1, tangent=jnp.asarray(u)
    )
    assert abs(found[0] - expected) < 5 * error[0] + 1e-3
    assert error[0] < 0.02 * expected


@pytest.mark.parametrize("name", ["biased tanh", "batch norm", "gated graph"])
def test_oracle_expansions_by_a_plain_loop(name, monkeypatch):
    """Two layers, drawn in NumPy at a large width, with several nodes and pieces."""
    # those of batch normalisation have heavy tails
    monkeypatch.setattr(_units, "LOG_UNITS", 16 if name == "batch norm" else 13)
    nodes, n, count = 2, 200 if name == "batch norm" else 120, 4_000
    mix = np.array([[0.7, 0.5], [0.1, 0.9]])
    unit = {
        "biased tanh": _units.Unit(lambda z: jnp.tanh(z[0]), 1.5, 0.4),
        "batch norm": _architectures.CASES["batch norm, 8 inputs"].unit,
        "gated graph": _units.Unit(
            lambda z: z[0] * jax.nn.sigmoid(z[1]), 3.0, pieces=2, mixing=mix[None]
        ),
    }[name]
    nodes = 8 if name == "batch norm" else nodes
    rng = np.random.default_rng(1)
    x, u = rng.normal(size=(2, nodes, n))
    found, error = _units.spread(unit, x, u, 2)

    apply = jax.jit(lambda z, dz: jax.jvp(jax.vmap(unit.function, -1, -1), (z,), (dz,)))
    logs = np.empty((count, 2))
    for i in range(count):
        X, U = x, u
        for layer in range(2):
            W = rng.normal(size=(unit.pieces, n, n)) * (unit.gain / n) ** 0.5
            b = unit.bias_scale * rng.normal(size=(unit.pieces, 1, n))
            A = unit.mixing[0] if len(unit.mixing[0]) > 1 else np.eye(nodes)
            X, U = apply((A @ X) @ W + b, (A @ U) @ W)
            X, U = np.asarray(X, np.float64), np.asarray(U, np.float64)
            logs[i, layer] = np.log(np.sum(U**2))
    squares = n * (logs - logs.mean(0)) ** 2
    apart = np.abs(squares.mean(0) - found)
    noise = np.hypot(squares.std(0) / count**0.5, error)
    assert np.all(apart < 5 * noise + 8 / n * found)
    # a term wrong by a fifth would be seen
    assert np.all(7 * noise + 8 / n * found < 0.25 * found)
