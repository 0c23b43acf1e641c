"""The dense path, which draws every weight, is at least as fast as the plain NumPy loop over paths
and layers, on the same machine in the same process.

Expected: a ratio to NumPy of about 2 for wide layers, where both are bound by the generator of
normals, and more for narrow ones, where the loop is bound by its overhead. Also shown: the raw rate
of jax.random.normal for one large array, which the path beats because its draws stay in cache.
Speeds are medians of repeated runs after warm-up, and have no verdict. Exact laws are timed from an
ensemble never seen before to the Law, and for 4,096 values of its cdf.

Time: 1 minute on two CPU cores; --quick 30 s. Command: python -m experiments throughput
"""

import statistics
import time

import jax
import numpy as np

from experiments import _check, _figure
from lognorm_jax import (
    ensembles,
    exact,
    increments,
    masks,
    networks,
    paths,
    quadrature,
    sampling,
    weights,
)

SHAPES = ((16, 50), (100, 100), (1000, 20))  # (width, depth)
BUDGET, QUICK_BUDGET = 2e8, 4e7  # weights drawn by one JAX run
REPEATS, QUICK_REPEATS = 5, 3
RAW_NORMALS = 1 << 22
EXACT = {  # label: widths after the first, mask
    "100 × 100, bernoulli": ((100,) * 100, masks.bernoulli(0.5)),
    "width 10⁶, depth 100, bernoulli": ((10**6,) * 100, masks.bernoulli(0.5)),
    "width 100, depth 10⁶, bernoulli": ((100,) * 10**6, masks.bernoulli(0.5)),
    "100 × 100, leaky": ((100,) * 100, masks.leaky_relu(0.1)),
    "30 distinct widths, leaky": (tuple(range(40, 70)), masks.leaky_relu(0.1)),
    "3 × 3, dropout on leaky": ((3,) * 3, masks.dropout(0.5, masks.leaky_relu(0.1))),
}


def numpy_loop(rng, width, depth, num_samples):
    """Return log_norms of ReLU mask products by the loop one would write first, in float32."""
    log_norms = np.zeros(num_samples)
    for sample in range(num_samples):
        x = np.full(width, width**-0.5, np.float32)
        for _ in range(depth):
            W = rng.standard_normal((width, width), np.float32) * np.float32((2 / width) ** 0.5)
            x = (rng.random(width, np.float32) < 0.5) * (W @ x)
            square = x @ x
            if square == 0:
                log_norms[sample] = -np.inf
                break
            log_norms[sample] += np.log(square)
            x /= np.sqrt(square)
    return log_norms


def _seconds(function, repeats) -> np.ndarray:  # (repeats + 1,): the first includes compilation
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - started)
    return np.array(times)


def exact_seconds(widths, mask, repeats) -> np.ndarray:  # (2, repeats)
    """Return the seconds that a law takes without any caches, and 4,096 values of its cdf."""
    products = ensembles.Ensemble((2, *widths), weights.normal(), mask)
    times = []
    for _ in range(repeats):
        increments.increment.cache_clear()
        quadrature.cumulants.cache_clear()
        started = time.perf_counter()
        law = exact.law(products)
        built = time.perf_counter()
        x = law.mean + np.sqrt(law.variance) * np.linspace(-6, 6, 4096)
        law.cdf(x)
        times.append((built - started, time.perf_counter() - built))
    return np.array(times).T


def compute(*, key, quick, bar, sample, budget=None) -> dict[str, np.ndarray]:
    """Time each contender on each shape; results are seconds a run, and weights drawn a run."""
    budget = budget or (QUICK_BUDGET if quick else BUDGET)
    repeats = QUICK_REPEATS if quick else REPEATS
    raw = jax.jit(lambda key: jax.random.normal(key, (RAW_NORMALS,)))
    results = {
        "raw normals/seconds": _seconds(lambda: raw(key), repeats),
        "raw normals/weights": np.array(RAW_NORMALS),
    }
    bar.reset(total=3 * len(SHAPES) + len(EXACT))
    bar.unit = " runs"
    rng = np.random.default_rng(0)
    for width, depth in SHAPES:
        ensemble = ensembles.Ensemble((width,) * (depth + 1), weights.normal(), masks.relu())
        network = networks.relu_mlp(ensemble.widths, bias_scale=0.1)
        x = np.ones(width)
        each = width * width * depth
        for name, path in (
            ("dense path", paths.dense(ensemble)),
            ("network jvp", networks.jacobian_path(network, x, x)),
        ):
            count = max(16, int(budget / each))
            block = min(256, count)
            results[f"{name}, {width} × {depth}/seconds"] = _seconds(
                lambda path=path, count=count, block=block: sampling.sample(
                    path, key, count, block_size=block
                ),
                repeats,
            )
            results[f"{name}, {width} × {depth}/weights"] = np.array(each * count)
            bar.update()
        count = max(1, int(budget / each / 20))
        results[f"NumPy loop, {width} × {depth}/seconds"] = _seconds(
            lambda w=width, d=depth, c=count: numpy_loop(rng, w, d, c), repeats
        )
        results[f"NumPy loop, {width} × {depth}/weights"] = np.array(each * count)
        bar.update()
    for label, layers in EXACT.items():
        results[f"exact law, {label}/law and cdf"] = exact_seconds(*layers, repeats)
        bar.update()
    return results


def rates(results) -> dict[str, float]:
    """Return weights drawn a second, the median over the warm runs, by contender and shape."""
    cases = [name.removesuffix("/weights") for name in results if name.endswith("/weights")]
    return {
        case: float(results[f"{case}/weights"])
        / statistics.median(map(float, results[f"{case}/seconds"][1:]))
        for case in cases
    }


def check(results) -> list[_check.Row]:
    """Show the rates; a speed has no verdict."""
    speed = rates(results)
    rows = []
    for case, rate in speed.items():
        seconds = results[f"{case}/seconds"]
        rows.append(_check.show(case, "10⁶ weights/s", rate / 1e6))
        rows.append(_check.show(case, "of raw normals", rate / speed["raw normals"]))
        if "," in case:
            shape = case.split(", ")[1]
            width, depth = map(int, shape.split(" × "))
            rows.append(_check.show(case, "paths/s", rate / (width * width * depth)))
            rows.append(_check.show(case, "× NumPy", rate / speed[f"NumPy loop, {shape}"]))
        if "NumPy" not in case:
            rows.append(_check.show(case, "compile s", seconds[0] - np.median(seconds[1:])))
    for label in EXACT:
        law, cdf = 1e3 * np.median(results[f"exact law, {label}/law and cdf"], axis=1)
        rows.append(_check.show(f"exact law, {label}", "law, ms", law))
        rows.append(_check.show(f"exact law, {label}", "4,096 of its cdf, ms", cdf))
    return rows


def draw(results):
    """Draw the rates as bars, with the raw rate of jax.random.normal as a line."""
    figure, axes = _figure.grid([["rate"]], (9, 5))
    axis, speed = axes["rate"], rates(results)
    names = ("dense path", "network jvp", "NumPy loop")
    for i, (name, color) in enumerate(zip(names, _figure.PALETTE, strict=False)):
        for j, (width, depth) in enumerate(SHAPES):
            rate = speed[f"{name}, {width} × {depth}"] / 1e6
            bar = axis.bar(
                j + 0.27 * (i - 1), rate, 0.25, color=color, label=name if j == 0 else None
            )
            axis.bar_label(bar, fmt="%.0f")
    raw = speed["raw normals"] / 1e6
    axis.axhline(raw, color=_figure.THEORY, ls="--", label="jax.random.normal, 2²² at once")
    axis.set(
        ylabel="10⁶ weights drawn per second",
        xticks=range(len(SHAPES)),
        xticklabels=[f"width {width}, depth {depth}" for width, depth in SHAPES],
        title=f"Sampling every weight ({jax.devices()[0].device_kind}, {jax.default_backend()})",
    )
    axis.legend()
    return figure
