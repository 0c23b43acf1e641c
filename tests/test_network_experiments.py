"""The experiments on residual and convolutional networks, activations and models of
others.
"""

import jax
import numpy as np
import pytest
from test_experiments import changed, computed

from experiments import __main__ as runner
from experiments import (
    _check,
    _figure,
    _job,
    _meanfield,
    activations,
    convolutional_networks,
    residual_networks,
    transformers,
    your_model,
)
from lognorm_jax import exact, laws, residuals
from lognorm_jax.activations import cosine_drift

pytestmark = pytest.mark.float32

SIZE = 20_000


def saved(experiment, results, folder):
    _figure.save(experiment.draw(results), folder / "figure.png")
    return (folder / "figure.png").stat().st_size > 10_000


def fails(experiment, results, **arrays):
    return _check.overall(experiment.check(changed(results, arrays))) == "fail"


def test_exact_residual_networks(monkeypatch, tmp_path):
    """Samples made to follow the laws; without the interlayer sum these fail."""
    rng, results = np.random.default_rng(0), {}
    steps = rng.normal(size=(SIZE, len(residual_networks.DEPTHS)))

    def draws(kind, depth, z):
        mean, variance = residual_networks.theory(kind, depth)
        return mean + variance**0.5 * z

    for kind in ("balanced", "vanilla"):
        columns = [
            draws(kind, d, z)
            for d, z in zip(residual_networks.DEPTHS, steps.T, strict=True)
        ]
        width, depth = residual_networks.WIDTH, residual_networks.DEPTH
        active = residuals.active_share(width, depth, *(0.5**0.5,) * 2)
        active = (
            np.concatenate([[0.5], active[:-1]])
            if kind == "vanilla"
            else 0 * active + 0.5
        )
        results |= {
            f"{kind}/log_norm": np.stack(columns, axis=1),
            f"{kind}/active": np.stack([active, 0 * active + 1e-4]),
            f"{kind}/active late": np.array([active[depth // 2 :].mean(), 3e-5]),
        }
    for depth in residual_networks.SMALL_DEPTHS:
        results[f"small/{depth}"] = draws("1/d", depth, rng.normal(size=SIZE))
    results = _job.nested(results)
    assert _check.overall(residual_networks.check(results)) == "pass"
    assert saved(residual_networks, results, tmp_path)
    half = np.array([0.5, 3e-5])
    assert fails(residual_networks, results, **{"vanilla/active late": half})
    monkeypatch.setattr(residuals, "square_correlation", lambda cosine: 0 * cosine)
    rows = residual_networks.check(results)
    assert {row.case.split(",")[0] for row in rows if row.verdict == "fail"} == {
        "vanilla",
        "1/d",
    }


@pytest.mark.slow
def test_statistical_convolutional_networks(monkeypatch, tmp_path):
    monkeypatch.setattr(convolutional_networks, "QUICK_DEPTH", 5)
    monkeypatch.setattr(convolutional_networks, "LAYERS", (1, 3, 5))
    monkeypatch.setattr(convolutional_networks, "CHANNELS", 8)
    monkeypatch.setattr(convolutional_networks, "QUICK_SAMPLES", 2_000)
    results = computed(convolutional_networks)
    assert _check.overall(convolutional_networks.check(results)) == "pass"
    assert saved(convolutional_networks, results, tmp_path)
    for name in convolutional_networks.DIRECTIONS:
        twice = {f"{name}/predicted": 2 * results[name]["predicted"]}
        assert fails(convolutional_networks, results, **twice)


def cosine_paths(size, drift=1.0, noise=1.0):
    """Paths with the drift and noise of the diffusion, or so many times those, in steps
    of 1/n.
    """
    rng, now = np.random.default_rng(1), np.full(size, activations.START)
    found = [now]
    for _ in range(activations.DEPTH):
        mean = drift * np.asarray(cosine_drift(now, *activations.SLOPES), np.float64)
        step = mean / activations.WIDTH
        spread = (noise / activations.WIDTH) ** 0.5 * (1 - now**2)
        now = np.clip(now + step + spread * rng.normal(size=size), -1, 1)
        found.append(now)
    return np.stack(found, axis=1).astype(np.float32)


def activation_results(pairs):
    """Samples that follow theory, where there is one."""
    rng, results = np.random.default_rng(0), {"cosine": cosine_paths(pairs)}
    for name, (phi, *_) in activations.CASES.items():
        columns = []
        for depth in activations.DEPTHS:
            network = activations.network(name, depth)
            uniform = rng.random(SIZE)
            law = (
                exact.law(network.ensemble) if phi.mask else laws.normal(-depth, depth)
            )
            columns.append(law.quantile(uniform))
        results[f"{name}/log_norm"] = np.stack(columns, axis=1)
    for name in activations.SHOWN:
        results |= {
            f"{name}/{label}": rng.normal(size=8_000) for label in ("in law", "whole")
        }
    return _job.nested(results)


@pytest.mark.slow
def test_exact_activations(tmp_path):
    results = activation_results(activations.QUICK_PAIRS)
    assert _check.overall(activations.check(results)) == "pass"
    assert saved(activations, results, tmp_path)
    still = np.full_like(results["cosine"], activations.START)
    assert fails(activations, results, cosine=still)
    for name in ("relu", "shaped relu"):
        wide = {f"{name}/log_norm": 1.1 * results[name]["log_norm"]}
        assert fails(activations, results, **wide)
    assert fails(activations, results, **{"tanh/whole": 0.2 + results["tanh"]["whole"]})


def test_statistical_a_cosine_drift_wrong_by_a_fifth_fails(monkeypatch):
    """Whether the paths have it or the theory, with the count of the quick form; so
    does a noise wrong by a fifth.
    """

    def failing(cosine):
        rows = activations._cosine_rows(cosine)
        return {row.quantity for row in rows if row.verdict == "fail"}

    cosine = cosine_paths(activations.QUICK_PAIRS)
    assert failing(cosine) == set()
    for factor in (0, 0.8, 1.2):
        assert "drift/theory" in failing(
            cosine_paths(activations.QUICK_PAIRS, drift=factor)
        )
    for factor in (0.8, 1.2):
        assert "noise/theory" in failing(
            cosine_paths(activations.QUICK_PAIRS, noise=factor)
        )
        with monkeypatch.context() as patch:
            wrong = lambda rho, *slopes, c=factor: c * cosine_drift(rho, *slopes)  # noqa: E731
            patch.setattr(activations.activations, "cosine_drift", wrong)
            assert "drift/theory" in failing(cosine)


def test_exact_your_model(tmp_path):
    rng, results = np.random.default_rng(0), {}
    for name, (_, verdict) in your_model.MODELS.items():
        law = laws.normal(1, 0.2)
        if "conv" not in name:
            normal = your_model.ensemble("Flax NNX, He")
            law = exact.law(normal)
        results |= {
            f"{name}/log_norm": law.quantile(rng.random(SIZE)) + your_model.shift(name),
            f"{name}/verdict": np.array(verdict),
            f"{name}/layers": np.ones((2, 8)),
            f"{name}/beta": np.array(0.2),
        }
    growth = np.log(your_model.CHANNELS[-1])
    perceptron = exact.law(your_model.ensemble("Flax NNX, He"))
    results["uniform/log_norm"] = perceptron.quantile(rng.random(SIZE))
    results["conv/log_norm"] = rng.normal(1, 0.2**0.5, SIZE) - growth
    results = _job.nested(results)
    assert _check.overall(your_model.check(results)) == "pass"
    assert saved(your_model, results, tmp_path)
    for name in your_model.MODELS:
        moved = {f"{name}/log_norm": 0.1 + results[name]["log_norm"]}
        assert fails(your_model, results, **moved)
        other = "stable" if str(results[name]["verdict"]) != "stable" else "erratic"
        assert fails(your_model, results, **{f"{name}/verdict": np.array(other)})


def test_exact_an_experiment_says_what_it_needs(monkeypatch, capsys):
    def missing(name):
        raise ModuleNotFoundError(name="equinox")

    monkeypatch.setattr(runner.importlib, "import_module", missing)
    assert runner.run("your_model") == 2
    assert "your_model needs equinox" in capsys.readouterr().err


@pytest.mark.parametrize("name", your_model.MODELS)
def test_oracle_the_named_blocks_are_the_model(name, key):
    """Applied in turn they give what the model gives."""
    init, _ = your_model.MODELS[name]
    x = your_model.images(name)[0]
    y = x
    for layer in init(key):
        y = layer(y)
    if "Flax NNX" in name:
        kernel_init = {"He": jax.nn.initializers.he_normal()}.get(
            name.split(", ")[1], jax.nn.initializers.lecun_normal()
        )
        whole = your_model.FlaxPerceptron(your_model.nnx.Rngs(key), kernel_init)(x)
    elif "Equinox" in name:
        whole = your_model.EquinoxPerceptron(key)(x)
    else:
        model = your_model.FlaxConvolutions()
        image = np.ones((1, your_model.SIDE, your_model.SIDE, 1), np.float32)
        whole = model.apply(model.init(key, image), x)
    assert np.allclose(y, whole, rtol=1e-5, atol=1e-6)


def test_exact_transformers(tmp_path):
    """Samples made to be as claimed pass; each claim that is not so fails."""
    rng = np.random.default_rng(0)
    limit = _meanfield.recursion(0.2 + 0.8 * np.eye(8), 6, 0)

    def normal(mean, variance, *shape):
        return mean + variance**0.5 * rng.normal(size=shape)

    results = {
        "wide/recursion": limit,
        "wide/published": _meanfield.published(8, 0.2, 6),
    }
    for name in transformers.SAME:
        for kind in ("in law", "drawn"):
            results[f"same/{name}/{kind}"] = normal(0, 1, SIZE, 3)
    for width in transformers.WIDE:
        results[f"wide/{width}"] = normal(limit[-1], 3.5 / width, SIZE)
    growth = {
        "post-norm": lambda depth: 6.5 * depth,
        "pre-norm": lambda depth: depth**0.8,
        "pre-norm, GPT-2's scale": lambda depth: 0.35,
        "DeepNorm": lambda depth: 0.1 / depth,
    }
    for name, n_variance in growth.items():
        for width in transformers.WIDTHS:
            for depth in transformers.DEPTHS:
                variance = n_variance(depth) / width
                place = f"spread/{name}/{width} {depth}"
                results[place] = normal(0, variance, SIZE)
        results[f"gradients/{name}"] = normal(0, 1 / 64, 500, 24)
    for name in transformers.SHAPES:
        of_shape = {"seconds along": 0.1, "seconds back": 0.2}
        of_shape |= {"along": normal(0, 1e-3, 20), "back": normal(0, 1e-3, 20, 8)}
        results |= {
            f"shapes/{name}/{kind}": np.array(v) for kind, v in of_shape.items()
        }

    results = _job.nested(results)
    assert _check.overall(transformers.check(results)) == "pass"
    assert saved(transformers, results, tmp_path)
    for place, wrong in {
        "same/pre-norm/drawn": normal(0.2, 1, SIZE, 3),
        "wide/1024": normal(limit[-1] - 0.05, 3.5 / 1024, SIZE),
        "wide/published": limit,
        "spread/post-norm/64 8": normal(0, 1.5 * 6.5 * 8 / 64, SIZE),
        "spread/post-norm/128 32": normal(0, 4 * 32 / 128, SIZE),
        "spread/pre-norm/128 32": normal(0, 32 / 128, SIZE),
        "spread/pre-norm, GPT-2's scale/128 32": normal(0, 0.6 / 128, SIZE),
        "spread/DeepNorm/128 32": normal(0, 0.2 / 128, SIZE),
        "shapes/GPT-3/back": np.full((20, 8), np.nan),
    }.items():
        assert fails(transformers, results, **{place: wrong}), place


def test_oracle_recursion_of_wide_transformers():
    """One layer by a plain loop over heads; the published one by its own numbers."""
    overlaps = 0.3 + 0.7 * np.eye(3)
    overlaps[0, 0] = 2.0
    rng = np.random.default_rng(1)
    size = np.sqrt(np.outer(np.diag(overlaps), np.diag(overlaps)))
    C, U = overlaps / size, np.eye(3) / size
    S = np.linalg.cholesky(C)
    attended, moved = np.zeros((2, 3, 3))
    count, step = 20_000, 1e-4
    for _ in range(count):
        # a head that is 50 wide, and a small move of the tokens
        X = S @ rng.normal(size=(3, 50))
        dX = step * np.sqrt(np.diag(np.diag(U))) @ rng.normal(size=(3, 50))
        Q, K = rng.normal(size=(2, 50, 50)) / 50**0.5
        weights = []
        for tokens in (X, X + dX):
            exponents = np.exp((tokens @ Q) @ (tokens @ K).T / 50**0.5)
            weights.append(exponents / exponents.sum(1, keepdims=True))
        A, dA = weights[0], (weights[1] - weights[0]) / step
        attended += A @ C @ A.T / count
        moved += (A @ U @ A.T + dA @ C @ dA.T) / count
    one = _meanfield._attended(C, U, overlaps, np.eye(3), np.random.default_rng(2))
    assert np.allclose(one[0] - overlaps, attended, atol=0.03)
    assert np.allclose(one[1] - np.eye(3), moved, atol=0.05)
    for layers, log in ((12, 1.0428), (48, 1.6011), (192, 2.1196)):
        found = _meanfield.published(64, 0.2, layers // 2)[-1]
        assert abs(found - log) < 1e-4
