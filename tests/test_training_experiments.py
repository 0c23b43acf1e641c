"""The experiments on training: what shape explains, and that each check can fail."""

import itertools
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.isotonic import IsotonicRegression
from test_experiments import computed
from test_network_experiments import fails, saved

from experiments import (
    _check,
    _collapse,
    _contenders,
    _data,
    _explained,
    _job,
    step_zero_predicts,
    trainability,
    training_stability,
)
from lognorm_jax import exact

pytestmark = pytest.mark.float32


def test_exact_digits_are_divided_once_and_for_all():
    digits = _data.digits()
    assert digits.inputs.shape == (1437, 64) and digits.test_inputs.shape == (360, 64)
    np.testing.assert_allclose(digits.inputs.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.square(digits.inputs).mean(), 1, rtol=1e-5)
    every = np.concatenate([digits.inputs, digits.test_inputs]).astype(np.float64)
    found = load_digits()
    scale = np.sqrt(every.var(0).sum() / found.data.var(0).sum())
    # the images again, reordered
    whole = (every - every.mean(0)) / scale + found.data.mean(0)
    order = np.argmin(
        np.square(whole).sum(1)[:, None]
        - 2 * whole @ found.data.T
        + np.square(found.data).sum(1),
        axis=1,
    )
    np.testing.assert_array_equal(np.sort(order), np.arange(len(found.data)))
    labels = np.concatenate([digits.labels, digits.test_labels])
    np.testing.assert_array_equal(labels, found.target[order])
    assert order[:5].tolist() == np.random.default_rng(0).permutation(1797)[:5].tolist()


def test_oracle_explained_by_a_monotone_function():
    rng = np.random.default_rng(2)
    for _ in range(20):
        predictor, outcome = rng.integers(0, 6, 18), rng.normal(size=18)
        left = min(
            np.sum(
                (
                    outcome
                    - IsotonicRegression(increasing=up).fit_transform(
                        predictor, outcome
                    )
                )
                ** 2
            )
            for up in (True, False)
        )
        expected = 1 - left / np.sum((outcome - outcome.mean()) ** 2)
        np.testing.assert_allclose(
            _explained.monotone(predictor, outcome), expected, atol=1e-12
        )
    assert _explained.monotone([1, 2, 4], [5.0, 1.0, 0.0]) == 1
    assert _explained.monotone([1, 1, 1], [5.0, 1.0, 0.0]) == 0
    # whose mean is not 0.1, but near
    assert _explained.monotone([1, 2, 4], [0.1, 0.1, 0.1]) == 1


def test_oracle_weights_of_networks_are_as_that_many_of_them():
    rng = np.random.default_rng(5)
    for _ in range(20):
        predictor, outcome = rng.integers(0, 6, 12), rng.normal(size=12)
        weights = rng.integers(1, 5, 12)
        np.testing.assert_allclose(
            _explained.monotone(predictor, outcome, weights),
            _explained.monotone(predictor.repeat(weights), outcome.repeat(weights)),
            atol=1e-12,
        )
    # and in what chance explains, whatever their scale
    predictors, outcomes = np.array([predictor]), np.array([outcome])
    np.testing.assert_allclose(
        _explained.fractions(predictors, outcomes, 3.0 * weights),
        _explained.fractions(predictors, outcomes, weights),
    )


def test_statistical_draws_of_a_variance():
    """Of few normal samples the interval has the variance as often as it says."""
    rng = np.random.default_rng(6)
    inside = []
    for _ in range(2000):
        draws = _explained.log_variances(rng.normal(size=8), rng, 400)
        _, low, high = _explained.interval(draws)
        inside.append(low < 0 < high)
    assert len(draws) == 401
    assert abs(np.mean(inside) - 0.95) < 5 * np.std(inside) / 2000**0.5 + 0.01
    # of heavier tails, excess kurtosis 3, by more
    samples = rng.normal(size=20_000), rng.laplace(size=20_000)
    normal, heavy = (_explained.log_variances(x, rng, 4000)[1:].std() for x in samples)
    np.testing.assert_allclose(heavy / normal, (5 / 2) ** 0.5, rtol=0.1)


def test_statistical_what_is_explained_is_0_by_chance_and_1_in_truth():
    """Whatever number of values a predictor has."""
    rng = np.random.default_rng(4)
    predictors = np.array([np.arange(15) // size for size in (1, 3, 5)])
    seen = [
        _explained.fractions(predictors, rng.normal(size=(1, 15)))[:, 0]
        for _ in range(100)
    ]
    mean, error = np.mean(seen, 0), np.std(seen, 0) / 10
    # chance is known to 400 permutations
    assert np.all(np.abs(mean) < 5 * error + 0.01)
    raw = np.mean(
        [
            [_explained.monotone(p, rng.normal(size=15)) for p in predictors]
            for _ in "a" * 50
        ],
        0,
    )
    assert raw[0] > raw[2] + 0.1
    np.testing.assert_allclose(
        _explained.fractions(predictors[[0, 2]], predictors[2:3] ** 2.0)[:, 0], 1
    )


def test_exact_draws_of_shares():
    draws = _explained.shares(np.zeros((20, 2), bool), np.random.default_rng(0), 4000)
    assert draws.shape == (4001, 2) and np.all(draws[0] == 0)
    expected = stats.beta(0.5, 20.5).ppf(0.975)
    np.testing.assert_allclose(_explained.interval(draws[:, 0])[2], expected, rtol=0.1)


def test_statistical_bootstrap():
    rng = np.random.default_rng(3)
    samples = rng.normal(size=400)
    draws = _explained.resampled(samples, np.mean, rng, 4000)
    value, low, high = _explained.interval(draws)
    assert value == samples.mean()
    half = 1.96 * samples.std() / 20
    np.testing.assert_allclose(
        [low, high], [value - half, value + half], atol=0.1 * half
    )


def stability_results():
    """Results as the law has them: gradients whose log-variance is that of J, then at
    most half of it, and less in narrow networks, so that it goes with depth as well.
    """
    rng = np.random.default_rng(0)
    chosen = training_stability.cases(quick=False)
    results = {"shape": np.array(list(chosen.values())), "networks": {}}
    steps = training_stability.STEPS
    for case, (_, depth, width) in chosen.items():
        law = exact.law(training_stability.network_of(depth, width).ensemble)
        sizes = np.linspace(1, 0.5, steps)[None] ** 0.5
        norm = law.mean + law.variance**0.5 * rng.normal(size=(256, 1)) * sizes
        narrow = np.linspace(1, (width / 80) ** 0.25, steps)
        gradient = law.mean + narrow * (norm - law.mean)
        results["networks"][case] = {
            "log_norm": norm,
            "log_gradient": gradient + 0.1 * rng.normal(size=norm.shape),
            "single": norm[:, :1] + 0.1 * rng.normal(size=(256, 1)),
        }
    results["explained"] = {
        outcome: training_stability.explained(results, outcome)
        for outcome in training_stability.OUTCOMES
    }
    return results


@pytest.mark.slow
def test_exact_training_stability(monkeypatch, tmp_path):
    """Samples that follow the law pass; other laws, growing gradients and no collapse
    fail.
    """
    monkeypatch.setattr(training_stability, "REPEATS", 40)
    results = stability_results()
    assert _check.overall(training_stability.check(results)) == "pass"
    assert saved(training_stability, results, tmp_path)
    case = training_stability.labels(results)[0]
    own = f"networks/{case}"
    norm = results["networks"][case]["log_norm"]
    assert fails(training_stability, results, **{f"{own}/log_norm": norm + 0.5})
    assert fails(training_stability, results, **{f"{own}/log_norm": norm * 1.5})
    backward = results["networks"][case]["log_gradient"][:, ::-1]
    assert fails(training_stability, results, **{f"{own}/log_gradient": backward})
    wrong = results["explained"]["log_norm"][[1, 0, 2]]  # depth in place of β
    assert fails(training_stability, results, **{"explained/log_norm": wrong})
    same = results["explained"]["log_norm"][[0, 0, 2]]  # depth as good as β
    assert fails(training_stability, results, **{"explained/log_norm": same})
    wrong = 0.9 * results["explained"]["log_gradient"]
    assert fails(training_stability, results, **{"explained/log_gradient": wrong})


@pytest.mark.parametrize("claim", [*_collapse.LEAST, *_collapse.BEYOND])
def test_exact_each_claim_about_the_collapse_can_fail(claim, monkeypatch):
    """With all else as claimed, a share just below its bound is red, and no other row
    is.
    """
    results, rng = {"explained": {}}, np.random.default_rng(0)
    for outcome in _collapse.OUTCOMES:
        shares = np.full((3, len(_collapse.SHOWN), 101), 0.95)
        shares[0, 0] = 0.96  # β, before the first step
        results["explained"][outcome] = shares + 1e-4 * rng.normal(size=shares.shape)
    assert _check.overall(_collapse.rows(results)) == "pass"
    predictor, *other, outcome, step = claim
    bounds = _collapse.BEYOND if other else _collapse.LEAST
    shares = results["explained"][outcome]
    place = _collapse.SHOWN.index(step)
    for name in _collapse.PREDICTORS if other else ():
        shares[_collapse.PREDICTORS.index(name), place] = (
            0.99 if name in other else 0.93
        )
    if not other:
        shares[_collapse.PREDICTORS.index(predictor), place] = bounds[claim] - 0.01
    found = {
        (row.case, row.quantity)
        for row in _collapse.rows(results)
        if row.verdict == "fail"
    }
    case = f"{predictor} beyond {other[0]}" if other else f"explained by {predictor}"
    assert (f"{case}, step {step}", _collapse.OUTCOMES[outcome]) in found


def test_exact_claim_tells_what_the_stored_run_found():
    """The docstring's shares are those of the full run whose record lies beside the
    figure.
    """
    root = Path(training_stability.__file__).parent.parent
    record = json.loads(
        (root / "experiments/figures/training_stability.json").read_text()
    )
    rows = {(row["case"], row["quantity"]): row for row in record["checks"]}
    assert not record["quick"] and {row["verdict"] for row in rows.values()} == {
        "pass",
        "",
    }
    for predictor, outcome, step in _collapse.LEAST:
        row = rows[
            f"explained by {predictor}, step {step}", _collapse.OUTCOMES[outcome]
        ]
        assert row["verdict"] == "pass"

    def share(predictor, outcome, step):
        label = _collapse.OUTCOMES[outcome]
        return (
            f"{rows[f'explained by {predictor}, step {step}', label]['measured']:.2f}"
        )

    told = " ".join(training_stability.__doc__.split())
    after = re.search(r"after 50 steps depth explains ([\d.]+\d), β ([\d.]+\d)", told)
    at = ("log_gradient", 50)
    assert after.groups() == (share("depth", *at), share("β", *at))
    before = re.search(r"β alone explains ([\d.]+\d) .*?depth alone ([\d.]+\d)", told)
    assert before.groups() == (share("β", "log_norm", 0), share("depth", "log_norm", 0))


@pytest.mark.slow
def test_statistical_training_stability(monkeypatch):
    """The real training, of a few seeds: step 0 has its law, and nothing is NaN."""
    shapes = tuple(itertools.product((0.5, 2.0), (10, 20)))
    monkeypatch.setattr(training_stability, "QUICK_SHAPES", shapes)
    monkeypatch.setattr(training_stability, "NUM_SAMPLES", 64)
    monkeypatch.setattr(training_stability, "STEPS", 12)
    results = computed(training_stability)
    rows = training_stability.check(results)
    judged = [row for row in rows if row.quantity in ("E ln ‖J u‖²", "Var ln ‖J u‖²")]
    assert (
        _check.overall([row for row in judged if row.case.startswith("β =")]) == "pass"
    )
    assert not any(np.isnan(value).any() for value in _job.flat(results).values())
    assert results["explained"]["log_gradient"].shape == (
        3,
        5,
        1 + training_stability.REPEATS,
    )


def trainability_results(predictor):
    rng, chosen = np.random.default_rng(0), trainability.cases(quick=False)
    results = {"shape": np.array(list(chosen.values()))}
    middle = np.exp(np.log(results["shape"][:, predictor]).mean())
    results |= {name: {} for name in ("explained", *trainability.OPTIMIZERS)}
    for name in trainability.OPTIMIZERS:
        for case, shape in chosen.items():
            share = 1 / (
                1 + (shape[predictor] / middle) ** 2 / np.array([0.1, 0.5, 1.0, 0.3])
            )
            results[name][case] = {
                "trained": rng.random((128, 4)) < share,
                "finite": rng.random((128, 4)) < 0.9,
            }
        results["explained"][name] = trainability.explained(results, name)
    return results


def test_exact_trainability(monkeypatch, tmp_path):
    """Shares that depend on β pass; on depth, or on width, they fail."""
    monkeypatch.setattr(trainability, "REPEATS", 40)
    results = trainability_results(0)
    assert trainability.labels(results) == list(trainability.cases(quick=False))
    assert _check.overall(trainability.check(results)) == "pass"
    assert saved(trainability, results, tmp_path)
    for other in (1, 2):
        assert _check.overall(trainability.check(trainability_results(other))) == "fail"


def test_exact_wilson_interval():
    share, low, high = trainability.wilson(np.arange(20) < 3)
    # (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    z, n = stats.norm.ppf(0.975), 20
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    expected = (share + z**2 / (2 * n) + np.array([-half, half])) / (1 + z**2 / n)
    np.testing.assert_allclose([low, high], expected)
    assert share == 0.15


@pytest.mark.slow
def test_statistical_trainability(monkeypatch):
    """The real training: a wide shallow network learns, a narrow deep one does not."""
    monkeypatch.setattr(
        trainability, "cases", lambda quick: {"a": (3 / 48, 3, 48), "b": (4, 32, 8)}
    )
    monkeypatch.setattr(
        trainability, "OPTIMIZERS", {"Adam": trainability.OPTIMIZERS["Adam"]}
    )
    monkeypatch.setattr(trainability, "QUICK_OPTIMIZERS", ("Adam",))
    monkeypatch.setattr(trainability, "QUICK_SAMPLES", 16)
    results = computed(trainability)
    assert (
        results["Adam"]["a"]["trained"].mean() > 0.9
        and results["Adam"]["b"]["trained"].mean() < 0.1
    )
    assert results["Adam"]["a"]["finite"].shape == (16, len(trainability.RATES["Adam"]))


def zero_results(within):
    rng, betas = np.random.default_rng(0), step_zero_predicts.BETAS
    results = {"betas": np.array(betas)}
    for name in step_zero_predicts.TRAININGS:
        for beta in betas:
            norm = -2.5 * beta + np.sqrt(5 * beta) * rng.normal(size=512)
            noise = 0.5 * rng.normal(size=512) + beta
            loss = np.exp(-within * norm / np.sqrt(5 * beta) + noise)
            parts = {
                "log_norm": norm,
                "gradient": norm,
                "loss": loss,
                "accuracy": 1 / (1 + loss),
            }
            results |= {
                f"{name}/{beta:g}/{part}": value for part, value in parts.items()
            }
    return step_zero_predicts.correlated(_job.nested(results))


def test_exact_step_zero_predicts(monkeypatch, tmp_path):
    """Outcomes that hang on β pass; on the seed's own norm as well, they fail."""
    monkeypatch.setattr(step_zero_predicts, "REPEATS", 60)
    results = zero_results(0.05)
    assert _check.overall(step_zero_predicts.check(results)) == "pass"
    assert saved(step_zero_predicts, results, tmp_path)
    assert _check.overall(step_zero_predicts.check(zero_results(1.0))) == "fail"
    turned = {"Adam/log_norm, loss": -results["Adam"]["log_norm, loss"][:, [0, 2, 1]]}
    assert fails(step_zero_predicts, results, **turned)


def test_oracle_rank_correlation():
    rng = np.random.default_rng(5)
    x = rng.normal(size=300).round(1)
    y = np.where(rng.random(300) < 0.1, -np.inf, x + 2 * rng.normal(size=300))
    value, low, high = step_zero_predicts.rank_correlation(x, y)
    np.testing.assert_allclose(value, stats.spearmanr(x, y).statistic)
    # Bonett & Wright 2000, of its Fisher transform
    half = 1.96 * np.sqrt((1 + value**2 / 2) / 297)
    expected = np.tanh(np.arctanh(value) + np.array([-half, half]))
    np.testing.assert_allclose([low, high], expected, atol=0.03)


@pytest.mark.slow
def test_oracle_contenders_train_the_same_network(key):
    """Training with a History and without are the same; the loop in PyTorch is of the
    same kind.
    """
    ways = _contenders.trainings(8, 4, key)
    history, (loss, norm) = (
        ways[name][0](8) for name in ("training", "training, bare")
    )
    np.testing.assert_allclose(history.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(
        history.log_gradient[:, :, 0], 2 * np.log(norm), rtol=1e-4, atol=1e-4
    )
    assert np.isfinite(ways["training, products"][0](8)).all()
    if "training, PyTorch" in ways:
        found = ways["training, PyTorch"][0](2)
        assert (
            found.shape == (2 * _contenders.STEPS, 2)
            and found[-1, 0] < 1.5 * history.loss.mean()
        )


def test_exact_operations_of_a_step():
    sizes = (_contenders.INPUTS, 8, 8, 8, _contenders.CLASSES)
    count = 0
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        products = 3 if i else 2  # outputs, gradient by the weights, and by the inputs
        count += products * 2 * _contenders.BATCH * a * b
    assert _contenders.operations(8, 3) == count


def test_oracle_steps_with_log_norms_are_the_same(key):
    plain, recorded = (way(3) for way, _ in _contenders.steps(8, 4, key).values())
    for a, b in zip(
        jax.tree.leaves(plain[0]), jax.tree.leaves(recorded[0]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert recorded[1][0].count.tolist() == [3] * 5
