"""Where the law allows it, a path costs a normal a layer and not n² of them, and no way of sampling
is slower than the loop one would write in NumPy or PyTorch.

Expected, on two CPU cores: transport makes at least 0.7 layer steps for each number that
jax.random.normal makes, and 4,000 paths for each of the NumPy loop at 100 × 100; the dense path
with Rademacher weights makes 8 weights for each normal one at 100 × 100 and 1000 × 20, and with
normal weights 1.5 paths for each of batched PyTorch at 1000 × 20 and no fewer elsewhere; a network
followed in law (gram) 15 for each drawn whole at 64 × 20, 200 at 1000 × 20. Weights
are those of the product, n² a layer, drawn or not. Raw rates are of one call for 2²² numbers, and
of calls for 2¹⁶ whose results stay in cache and are only summed. Transport paths are reduced to
their moments, or kept. Speeds are medians of repeated runs after warm-up, and have no verdict. Peak
memory is that of the whole process. Exact laws are timed from an ensemble never seen before to the
Law, and for 4,096 values of its cdf. PyTorch is timed where it is installed.

Time: 2 minutes on two CPU cores; --quick 1 minute. Command: python -m experiments throughput
"""

import functools
import importlib.util
import time
from pathlib import Path

import jax
import jax.numpy as jnp
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

SHAPES = ((100, 100), (1000, 20), (30, 1000))  # (width, depth)
NETWORKS = ((64, 20),)  # only networks, drawn whole and followed in law
SECONDS, QUICK_SECONDS = 0.6, 0.1  # of one run
REPEATS, QUICK_REPEATS = 5, 3
RAW = 22, 16  # log2 of numbers a call
LIVE = 1 << 16  # increments in a block of transport paths, roughly
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


def torch_batches(width, depth, num_samples, batch):
    """Return the same log_norms by batches of products in PyTorch, in float32."""
    import torch

    log_norms = torch.zeros(num_samples)
    for start in range(0, num_samples, batch):
        size = min(batch, num_samples - start)
        x = torch.full((size, width, 1), width**-0.5)
        for _ in range(depth):
            W = torch.randn(size, width, width)
            x = (torch.rand(size, width, 1) < 0.5) * torch.bmm(W, x)
            square = (x * x).sum((1, 2))
            log_norms[start : start + size] += torch.log(square * (2 / width))
            x = x / torch.where(square > 0, square, 1).sqrt()[:, None, None]
    return log_norms.numpy()


def contenders(width, depth, key) -> dict[str, tuple]:
    """Return each way to sample paths of one shape: a function of their number, and the least."""
    ensemble = ensembles.Ensemble((width,) * (depth + 1), weights.normal(), masks.relu())
    signs = ensembles.Ensemble(ensemble.widths, weights.rademacher(), masks.relu())
    x, rng = np.ones(width), np.random.default_rng(0)
    network = networks.relu_mlp(ensemble.widths, bias_scale=0.1)
    transport, block = paths.transport(ensemble), 1 << (LIVE // depth).bit_length()
    made = {
        "transport": (sampling.stream, transport, block),
        "transport, kept": (sampling.sample, transport, block),
    }
    block = 256 if width < 500 else 16
    made |= {
        "dense normal": (sampling.sample, paths.dense(ensemble), block),
        "dense Rademacher": (sampling.sample, paths.dense(signs), block),
        "network jvp": (sampling.sample, networks.jacobian_path(network, x, x), block),
        "network gram": (sampling.sample, paths.gram(network, x, np.arange(width)), 4 * block),
    }

    ways = {}
    for name, (engine, path, block) in made.items():
        ways[name] = functools.partial(engine, path, key, block_size=block), block
    ways["NumPy loop"] = functools.partial(numpy_loop, rng, width, depth), 1
    if importlib.util.find_spec("torch"):
        fitting = [b for b in (1, 16, 64, 256) if b * width**2 <= 1 << 20]
        trials = {b: _timed(lambda b=b: torch_batches(width, 2, b, b)) / b for b in 2 * fitting}
        best = min(trials, key=trials.get)
        ways["PyTorch"] = functools.partial(torch_batches, width, depth, batch=best), best
    return ways


def _timed(function) -> float:
    started = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - started


def _peak(reset=False) -> float:
    """Return the peak of this process's memory in MB, NaN where that is not told; or reset it."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return np.nan
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(run, smallest, seconds, repeats) -> np.ndarray:  # (3 + repeats,)
    """Return the number of paths of a run, the first run's seconds, peak MB, and seconds of runs.

    The first run compiles; then the count is raised until a run takes about ``seconds``.
    """
    count = smallest
    first = _timed(lambda: run(smallest))
    while (once := _timed(functools.partial(run, count))) < seconds / 4 and count < 1 << 24:
        count *= 4
    count = max(smallest, round(count * min(seconds / once, 4) / smallest) * smallest)
    _peak(reset=True)
    times = [_timed(lambda: run(count)) for _ in range(repeats)]
    return np.array([count, first, _peak(), *times])


def raw_rates(key, repeats) -> np.ndarray:  # (2, 2): normal, bits; by RAW
    """Return 10⁶ numbers a second of jax.random.normal and bits, in large and in small calls."""
    rates = []
    for draw in (jax.random.normal, jax.random.bits):
        for power in RAW:
            calls = 1 << (RAW[0] - power)

            def step(total, i, draw=draw, power=power):
                return total + draw(jax.random.fold_in(key, i), (1 << power,)), None

            zero = jnp.zeros(1 << power, jnp.float32 if draw is jax.random.normal else jnp.uint32)
            run = jax.jit(lambda z, n=calls, f=step: jax.lax.scan(f, z, jnp.arange(n))[0])
            _timed(lambda run=run, zero=zero: run(zero))
            times = [_timed(lambda run=run, zero=zero: run(zero)) for _ in range(repeats)]
            rates.append(2 ** RAW[0] / np.median(times) / 1e6)
    return np.array(rates).reshape(2, 2)


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


def compute(*, key, quick, bar, sample, seconds=None) -> dict[str, np.ndarray]:
    """Measure each contender on each shape, the raw rates beside it, and exact laws."""
    del sample  # speeds are measured anew each time
    seconds = seconds or (QUICK_SECONDS if quick else SECONDS)
    repeats = QUICK_REPEATS if quick else REPEATS
    bar.unit, results = " measurements", {}
    ways = [contenders(*shape, key) for shape in SHAPES]
    for shape in NETWORKS:
        every = contenders(*shape, key)
        ways.append({name: way for name, way in every.items() if name.startswith("network")})
    bar.reset(total=sum(map(len, ways)) + len(EXACT))
    for (width, depth), contender in zip((*SHAPES, *NETWORKS), ways, strict=True):
        shape = f"{width} × {depth}"
        results[f"raw/{shape}"] = raw_rates(key, repeats)
        for name, (run, smallest) in contender.items():
            bar.set_description(f"{shape}, {name}")
            results[f"{name}/{shape}"] = measure(run, smallest, seconds, repeats)
            bar.update()
    for label, layers in EXACT.items():
        bar.set_description(f"exact law, {label}")
        results[f"exact law/{label}"] = exact_seconds(*layers, repeats)
        bar.update()
    return results


def rates(results) -> dict[tuple[str, str], float]:
    """Return paths a second, the median of the warm runs, by contender and shape."""
    found = {}
    for case, numbers in results.items():
        name, shape = case.split("/")
        if name not in ("raw", "exact law"):
            found[name, shape] = float(numbers[0] / np.median(numbers[3:]))
    return found


def check(results) -> list[_check.Row]:
    """Show the rates; a speed has no verdict."""
    rows, speed = [], rates(results)
    for (name, shape), rate in speed.items():
        case = f"{name}, {shape}"
        width, depth = map(int, shape.split(" × "))
        _, first, peak, *_ = results[f"{name}/{shape}"]
        normal, words = results[f"raw/{shape}"]
        raw = words * 32 if "Rademacher" in name else normal  # a sign is one bit of a word
        unit = rate * depth * (1 if name.startswith("transport") else width**2) / 1e6
        rows += [
            _check.show(case, "paths/s", rate),
            _check.show(case, "10⁶ layers/s", rate * depth / 1e6),
            _check.show(case, "10⁶ weights/s", rate * depth * width**2 / 1e6),
            _check.show(case, "of raw, 2²²", unit / raw[0]),
            _check.show(case, "of raw, 2¹⁶", unit / raw[1]),
        ]
        if ("NumPy loop", shape) in speed:
            rows.append(_check.show(case, "× NumPy", rate / speed["NumPy loop", shape]))
        if name == "network gram":
            rows.append(_check.show(case, "× network jvp", rate / speed["network jvp", shape]))
        if ("PyTorch", shape) in speed:
            rows.append(_check.show(case, "× PyTorch", rate / speed["PyTorch", shape]))
        if np.isfinite(peak):
            rows.append(_check.show(case, "peak MB", peak))
        if name not in ("NumPy loop", "PyTorch"):
            rows.append(_check.show(case, "compile s", first))
    for shape in (f"{width} × {depth}" for width, depth in SHAPES):
        ratio = speed["dense Rademacher", shape] / speed["dense normal", shape]
        rows.append(_check.show(f"dense, {shape}", "Rademacher/normal", ratio))
        for name, (large, small) in zip(("normal", "bits"), results[f"raw/{shape}"], strict=True):
            rows.append(_check.show(f"raw beside {shape}", f"10⁶ {name}, 2²²", large))
            rows.append(_check.show(f"raw beside {shape}", f"10⁶ {name}, 2¹⁶", small))
    for label in EXACT:
        law, cdf = 1e3 * np.median(results[f"exact law/{label}"], axis=1)
        rows.append(_check.show(f"exact law, {label}", "law, ms", law))
        rows.append(_check.show(f"exact law, {label}", "4,096 of its cdf, ms", cdf))
    return rows


def draw(results):
    """Draw paths per second, each contender a colour, on a logarithmic scale."""
    figure, axes = _figure.grid([["rate"]], (10, 5))
    axis, speed = axes["rate"], rates(results)
    names = list(dict.fromkeys(name for name, _ in speed))
    for i, (name, color) in enumerate(zip(names, _figure.PALETTE, strict=False)):
        height = [speed[name, f"{width} × {depth}"] for width, depth in SHAPES]
        place = np.arange(len(SHAPES)) + (i - (len(names) - 1) / 2) * 0.84 / len(names)
        bars = axis.bar(place, height, 0.8 / len(names), color=color, label=name)
        axis.bar_label(bars, [f"{h:,.0f}" for h in height], fontsize=8)
    axis.set(
        yscale="log",
        ylabel="paths per second",
        xticks=range(len(SHAPES)),
        xticklabels=[f"width {width}, depth {depth}" for width, depth in SHAPES],
        title=f"One machine, one process ({jax.devices()[0].device_kind}, {jax.default_backend()})",
    )
    axis.margins(y=0.15)
    axis.legend(ncols=3, loc="upper right")
    return figure
