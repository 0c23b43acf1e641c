"""The experiments on volumes, spectra and tangent kernels: what follows theory passes,
and each claim that does not hold fails.
"""

import re

import numpy as np
import pytest
from scipy import special
from test_experiments import computed
from test_network_experiments import fails, saved

from experiments import _check, _job, museum, spectra, tangent_kernel, volumes
from lognorm_jax import exact, kernels
from lognorm_jax import spectra as theory

pytestmark = pytest.mark.float32

SIZE = 20_000


def test_exact_volumes(tmp_path):
    rng, results = np.random.default_rng(0), {}
    columns = [volumes.law_of(k).quantile(rng.random(SIZE)) for k in volumes.SIZES]
    results["volumes"] = np.stack(columns, axis=1)
    alive = [
        1 - exact.volume_law(volumes.ensemble(volumes.NARROW, 1), k).atom
        for k in volumes.SIZES
    ]
    ranks = [
        np.sum(rng.random((SIZE, 1)) < np.array(alive) ** depth, axis=1)
        for depth in volumes.LAYERS
    ]
    results["ranks"] = np.stack(ranks, axis=1)
    assert _check.overall(volumes.check(results)) == "pass"
    assert saved(volumes, results, tmp_path)
    wider = results["volumes"] * 1.15
    assert fails(volumes, results, volumes=wider)
    shifted = results["volumes"] + 0.3 * np.arange(len(volumes.SIZES))
    assert fails(volumes, results, volumes=shifted)
    assert fails(volumes, results, ranks=np.maximum(results["ranks"], 1))


def fan(count, center, spread, rng):
    """Return ln σ in order, at places with independent spreads."""
    return -np.sort(-(center + spread * rng.normal(size=(count, len(center)))))


def test_exact_spectra(tmp_path):
    rng, results = np.random.default_rng(0), {}
    for kind, k in spectra.DIRECTIONS.items():
        exponents = theory.lyapunov(spectra.ensemble(kind, spectra.WIDTH, 1), k)
        noise = 0.1 * rng.normal(size=(4_000, k))
        results[f"exponents/{kind}"] = exponents + noise
    widths = {"participation": (spectra.CHANNELS, spectra.DEPTHS)}
    widths["free"] = (spectra.FREE_WIDTH, spectra.FREE_DEPTHS)
    for name, (n, depths) in widths.items():
        for depth in depths:
            ratio = float(theory.participation(spectra.ensemble("ReLU", n, depth)))
            square = ratio / n * rng.gamma(100, 1 / 100, size=SIZE)
            results[f"{name}/{depth}"] = np.stack([np.ones(SIZE), square])
    # symmetric matrices, and a fence
    n = spectra.GAP_WIDTH
    for ratio in spectra.RATIOS:
        depth = round(ratio * n)
        if ratio <= 1:
            A = rng.normal(size=(1_000, n, n))
            values = np.linalg.eigvalsh(A + np.swapaxes(A, 1, 2))[:, ::-1]
        else:
            m = np.arange(n, 0, -1)
            center = depth / 2 * special.digamma(m / 2)
            spread = (depth * special.polygamma(1, m / 2)) ** 0.5 / 2
            values = fan(1_000, center, spread, rng)
        results[f"gaps/{depth}"] = values
    results = _job.nested(results)
    assert _check.overall(spectra.check(results)) == "pass"
    assert saved(spectra, results, tmp_path)

    def even(values):
        return 0 * values + np.arange(n, 0, -1) + 0.4 * rng.normal(size=values.shape)

    deep = str(round(max(spectra.RATIOS) * n))
    for place, wrong in {
        "exponents/linear": results["exponents"]["linear"] + 0.01,
        "exponents/ReLU": 1.2 * results["exponents"]["ReLU"],
        "participation/8": results["participation"]["8"] * [[1], [0.8]],
        "free/3": results["free"]["3"] * [[1], [1.2]],
        "gaps/1": even(results["gaps"]["1"]),
        f"gaps/{deep}": results["gaps"]["1"],
    }.items():
        assert fails(spectra, results, **{place: wrong}), place


def test_exact_tangent_kernel(tmp_path):
    """Kernels of two values with the right moments; where few samples make up the
    second there is no verdict.
    """
    rng, results = np.random.default_rng(0), {}
    shapes = {f"{b}": tangent_kernel.widths_of(b) for b in tangent_kernel.BETAS}
    shapes |= tangent_kernel.UNEVEN
    for name, widths in shapes.items():
        mean, ratio = kernels.mean(widths), kernels.second_moment(widths)
        # log-normal, of variance ln(ratio)
        spread = np.log(ratio) ** 0.5
        logs = spread * rng.normal(size=SIZE) - spread**2 / 2
        results[f"kernels/{name}"] = mean * np.exp(logs)
    for name, widths in tangent_kernel.STEPS.items():
        change = kernels.first_step(widths)
        results[f"steps/{name}"] = change * (1 + 0.5 * rng.normal(size=SIZE))
    results = _job.nested(results)
    rows = tangent_kernel.check(results)
    assert _check.overall(rows) == "pass"
    assert saved(tangent_kernel, results, tmp_path)
    unseen = [row for row in rows if "β = 4" in row.case]
    assert len(unseen) > 1 and not any(row.verdict for row in unseen)
    flat = np.full(SIZE, 1.0) * (1 + 0.1 * rng.normal(size=SIZE))
    for place, wrong in {
        "kernels/0.25": 1.2 * results["kernels"]["0.25"],
        "kernels/0.5": flat * kernels.mean(tangent_kernel.widths_of(0.5)),
        "kernels/6-50-50-1": results["kernels"]["6-50-50-1"] ** 2,
        "steps/8-20-12-1": 1.2 * results["steps"]["8-20-12-1"],
    }.items():
        assert fails(tangent_kernel, results, **{place: wrong}), place
    # a kernel as variable as exp(5β) is not what is claimed
    odds = 1 / (0.95 * np.exp(2.5))
    wild = (rng.random(SIZE) < odds) / odds
    wild = wild * kernels.mean(tangent_kernel.widths_of(0.5))
    assert tangent_kernel.effective(wild) > tangent_kernel.ENOUGH
    assert fails(tangent_kernel, results, **{"kernels/0.5": wild})


@pytest.mark.slow
def test_statistical_tangent_kernels(monkeypatch, tmp_path):
    monkeypatch.setattr(tangent_kernel, "QUICK_BETAS", (0.125,))
    results = computed(tangent_kernel)
    assert _check.overall(tangent_kernel.check(results)) == "pass"
    assert saved(tangent_kernel, results, tmp_path)


def test_exact_museum(tmp_path):
    rng, count = np.random.default_rng(0), len(museum.MISTAKES)
    results = {
        "wrong": np.ones(count, bool),
        "right": np.zeros(count, int),
        "ratios": np.stack([np.full(count, 2.0), np.ones(count)], axis=1),
        "alarms": np.zeros(400, int),
        "scores": rng.normal(size=600),
    }
    assert _check.overall(museum.check(results)) == "pass"
    assert saved(museum, results, tmp_path)
    one = np.arange(count) == 3
    assert fails(museum, results, wrong=~one)
    assert fails(museum, results, right=one.astype(int))
    assert fails(museum, results, alarms=np.arange(400) == 7)
    assert fails(museum, results, scores=results["scores"] + 0.5)


def test_exact_museum_has_what_it_says():
    """Nineteen mistakes, each with its thread; forty architectures of other names."""
    assert len(museum.MISTAKES) == 19 and len(museum.HEALTHY) == 40
    assert len({healthy.name for healthy in museum.HEALTHY}) == 40
    for mistake in museum.MISTAKES:
        assert re.fullmatch(r"[\w-]+/[\w-]+ #\d+", mistake.source)
