"""The experiments on training at scale: the largest rate, the collapse, the crossover;
and that each check can fail.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_network_experiments import changed, fails, saved

from experiments import (
    _check,
    _edge,
    _first_step,
    collapse_at_scale,
    crossover,
    largest_rate,
)
from lognorm_jax import kernels, losses, training
from lognorm_jax.training import _crossover

pytestmark = pytest.mark.float32


def test_oracle_the_largest_rate_is_where_training_ends_to_work(key):
    """Trained again just below and just above it, by a loop of its own."""
    depth, width = 3, 8
    network, unit = _edge.network_of(depth, width), _edge.size(depth, width)
    log_rate = jax.jit(_edge.path_of(depth, width))
    low, high = np.log(_edge.RANGE)
    step = (high - low) / 2**_edge.HALVINGS
    (image,), (target,) = _edge.images(1)

    @jax.jit
    def loss_of(params):
        outputs = network.apply(params, jnp.asarray(image[0]))
        return jnp.sum((outputs - target[0]) ** 2) / 2

    def works(params, rate):
        first = loss_of(params)
        for _ in range(_edge.STEPS):
            last, gradient = jax.value_and_grad(loss_of)(params)
            sizes = [float(jnp.sum(g["weight"] ** 2)) for g in gradient.trained]
            trained = jax.tree.map(
                lambda w, g: w - rate * g, params.trained, gradient.trained
            )
            params = params._replace(trained=trained)
        return np.isfinite(last) and last <= first and min(sizes) > 0

    for seed in range(3):
        own = jax.random.fold_in(key, seed)
        found = float(log_rate(own))
        params = network.init(own)
        assert works(params, np.exp(found - step) / unit)
        assert not works(params, np.exp(found + step) / unit)


def test_statistical_the_first_step_without_matrices(key):
    """The kernel, its second moment, and its change, against exact formulas."""
    width, depth, count = 8, 3, 40_000
    x = np.random.default_rng(0).normal(size=width).astype(np.float32)
    path = _first_step.path_of(width, depth, x)
    change, K = jax.jit(jax.vmap(path))(jax.random.split(key, count))
    change, K = (np.asarray(part, np.float64) for part in (change, K))
    widths, square = (width,) * depth + (1,), float(x @ x)
    ratio = K / (kernels.mean(widths) * square)
    for values, expected in (
        (ratio, 1.0),
        (ratio**2, kernels.second_moment(widths)),
        (change / (kernels.mean(widths) * square**2), kernels.first_step(widths)),
    ):
        error = values.std() / count**0.5
        assert abs(values.mean() - expected) < 5 * error
        assert 5 * error < 0.2 * expected  # an error of a fifth would be seen


def collapse_results(of_width=lambda width: 1.0):
    """Results in which variances go with β, times a function of the width."""
    rng = np.random.default_rng(0)
    results = {"shape": [], "networks": {}}
    for width, beta in [(n, b) for n in (32, 128, 512) for b in (0.25, 0.5, 1, 2)]:
        depth = round(beta * width)
        mean, variance, *_ = collapse_at_scale.cumulants_of(depth, width)
        shape = 400, len(collapse_at_scale.RATES), _edge.STEPS
        own = rng.normal(size=(shape[0], 1, 1))
        norm = np.broadcast_to(mean + variance**0.5 * own, shape)
        falls = np.linspace(1, 0.5 * of_width(width) ** 0.5, shape[2])
        gradient = 1.5 * norm * falls
        results["shape"].append((beta, depth, width))
        results["networks"][f"β = {beta:g}, n = {width}"] = {
            "log_norm": norm.copy(),
            "log_gradient": gradient,
        }
    results["shape"] = np.array(results["shape"])
    return explained(results)


def explained(results):
    results["explained"] = {
        scaling: {
            outcome: collapse_at_scale.explained(results, scaling, outcome)
            for outcome in collapse_at_scale.OUTCOMES
        }
        for scaling in collapse_at_scale.SCALINGS
    }
    return results


def test_exact_collapse_at_scale(monkeypatch, tmp_path):
    """Variances that go with β pass; another law, and variances that go on changing
    with width, fail.
    """
    monkeypatch.setattr(collapse_at_scale, "REPEATS", 40)
    results = collapse_results()
    assert _check.overall(collapse_at_scale.check(results)) == "pass"
    assert saved(collapse_at_scale, results, tmp_path)
    own = "networks/β = 1, n = 128/log_norm"
    norm = results["networks"]["β = 1, n = 128"]["log_norm"]
    assert fails(collapse_at_scale, results, **{own: norm * 1.5})
    # a law that is wrong by a fifth of its variance, which no network would show alone
    every = {
        f"networks/{case}/log_norm": found["log_norm"] * 1.2**0.5
        for case, found in results["networks"].items()
    }
    rows = collapse_at_scale.check(changed(results, every))
    failing = {row.case for row in rows if row.verdict == "fail"}
    assert failing == {"all networks"}
    wide = collapse_results(lambda width: (32 / width) ** 1.5)
    assert _check.overall(collapse_at_scale.check(wide)) == "fail"


def test_exact_rates_of_a_scaling():
    """The largest is the one of those that fall with depth which loses few seeds."""
    names = list(collapse_at_scale.RATES)
    results = collapse_results()
    (case, *_) = collapse_at_scale.labels(results)
    rate_of = collapse_at_scale.rate_of
    assert names[rate_of(results, case, "fixed")] == "fixed"
    assert names[rate_of(results, case, "per depth")] == "2 per depth"
    assert names[rate_of(results, case, "largest")] == "32 per depth"
    norm = results["networks"][case]["log_norm"]
    norm[:41, names.index("32 per depth"), 30:] = np.inf
    assert names[rate_of(results, case, "largest")] == "8 per depth"
    np.testing.assert_allclose(collapse_at_scale.lost(results, case)[-1], 41 / 400)
    norm[:, 1:, -1] = np.inf
    assert rate_of(results, case, "largest") is None
    assert not collapse_at_scale.trains(results, case, "per depth")
    assert collapse_at_scale.trains(results, case, "fixed")


def largest_results(power=1.0, spread_of=lambda beta, width: (1 + 4 * beta) ** 0.5):
    """Results in which rates fall as a power of the width, and vary with β."""
    rng, results = np.random.default_rng(0), {"shape": [], "log_rate": {}}
    for width, beta in [(n, b) for n in (16, 48, 128) for b in (0.25, 0.5, 1, 2)]:
        depth = round(beta * width)
        own = 0.3 * spread_of(beta, width) * rng.normal(size=200)
        results["shape"].append((beta, depth, width))
        results["log_rate"][f"β = {beta:g}, n = {width}"] = own - power * np.log(width)
    results["shape"] = np.array(results["shape"])
    results["explained"] = {
        name: largest_rate.explained(results, name) for name in largest_rate.OUTCOMES
    }
    return results


def test_exact_largest_rate(monkeypatch, tmp_path):
    """Rates that fall with depth × width pass; that rise, or are not found, fail."""
    monkeypatch.setattr(largest_rate, "REPEATS", 40)
    results = largest_results()
    assert _check.overall(largest_rate.check(results)) == "pass"
    assert saved(largest_rate, results, tmp_path)
    assert _check.overall(largest_rate.check(largest_results(-0.5))) == "fail"
    other = largest_results(spread_of=lambda beta, width: (width / 16) ** 0.5)
    assert _check.overall(largest_rate.check(other)) == "fail"
    turned = results["explained"]["mean"][[3, 1, 2, 0]]  # depth × width in its place
    assert fails(largest_rate, results, **{"explained/mean": turned})
    case = "log_rate/β = 1, n = 48"
    rates = results["log_rate"]["β = 1, n = 48"]
    assert fails(largest_rate, results, **{case: rates + 20})


def test_exact_crossover(tmp_path):
    """Counts are those of the library; ratios on the wrong side fail."""
    for width, depth, batch, steps in [(8, 3, 2, 5), (64, 2, 1, 3)]:
        counted = _crossover.numbers(_edge.network_of(depth, width), batch, steps)
        assert crossover.kept(width, depth, batch, steps) == counted
    shapes = np.array([(2048, 16, 4, 20), (512, 16, 4, 20), (128, 16, 16, 20)])
    seconds = np.array([[[9.0] * 3, [1.0] * 3], [[2.0] * 3, [1.0] * 3]])
    slow = np.array([[[1.0] * 3, [9.0] * 3]])
    results = {"shape": shapes, "seconds": np.concatenate([seconds, slow])}
    assert _check.overall(crossover.check(results)) == "pass"
    assert saved(crossover, results, tmp_path)
    turned = results["seconds"][:, ::-1]
    assert fails(crossover, results, seconds=turned)


def test_exact_images_are_one_a_step():
    inputs, targets = _edge.images(5)
    assert inputs.shape == (5, 1, 64) and targets.shape == (5, 1, 10)
    np.testing.assert_array_equal(targets.sum(-1), 1)
    fit = training.trainer(
        _edge.network_of(2, 8), optax.sgd(0.1), losses.squared_error, 5, drawn=None
    )
    assert len(fit.checked((inputs, targets))) == 2
