"""Where the law allows it, a path costs a normal a layer and not n² of them, and no way
of sampling is slower than the loop one would write in NumPy or PyTorch.

Expected, on two CPU cores: transport makes at least 0.7 layer steps for each number
that jax.random.normal makes, and 4,000 paths for each of the NumPy loop at 100 × 100;
the dense path with Rademacher weights makes 8 weights for each normal one at 100 × 100
and 1000 × 20, and with normal weights 1.5 paths for each of batched PyTorch at 1000 ×
20 and no fewer elsewhere; a network followed in law (gram) 15 for each drawn whole at
64 × 20, 200 at 1000 × 20. Weights are those of the product, n² a layer, drawn or not.
Raw rates are of one call for 2²² numbers, and of calls for 2¹⁶ whose results stay in
cache and are only summed. Transport paths are reduced to their moments, or kept.

Training (ReLU networks, batches of 64, plain gradient descent, 20 steps, a History
recorded) makes 10, 6 and 3 steps for each of a PyTorch loop that records the loss and a
gradient norm, at 16 × 16, 32 × 32 and 64 × 64; "bare" records as little as that loop,
and the floor is the matrix products alone. log_norms adds less than a tenth to a step
at 64 × 32, with one seed.

Speeds are medians of repeated runs after warm-up, in which the ways take turns, and
have no verdict. Every run of the engine has four blocks or more for each device or
core, and as many for each, so that none stands idle. The machine is told in the record,
under the table and over the figure. Peak memory is that of the whole process. Exact
laws are timed from an ensemble never seen before to the Law, and for 4,096 values of
its cdf. PyTorch is timed where it is installed.

Answers are what somebody waits for: a question asked in a fresh process, 1,000 samples
but where it says, and once more with all made anew. The second time nothing compiles.

Found: transport makes two layer steps for each number that ``jax.random.normal`` makes,
and thousands of paths for each of the NumPy loop; networks followed in law are several
to several hundred times as fast as networks drawn whole. The numbers are on the page of
benchmarks.

Figure: paths per second of each way to sample, and steps of training per second, on
logarithmic scales.
Time: 6 minutes on two CPU cores; --quick 30 s.
Command: python -m experiments throughput
"""

import functools
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _answers, _check, _contenders, _figure, _machine
from lognorm_jax import ensembles, exact, increments, masks, quadrature, weights

# (width, depth); a quick run has small ones, as its speeds tell nothing
SHAPES, QUICK_SHAPES = ((100, 100), (1000, 20), (30, 1000)), ((32, 16),)
# only networks, drawn whole and followed in law
NETWORKS, QUICK_NETWORKS = ((64, 20),), ()
# seeds trained
TRAININGS, QUICK_TRAININGS = ((16, 16), (32, 32), (64, 64)), ((16, 4),)
# one seed trained, with and without log_norms
STEPPED, QUICK_STEPPED = ((64, 32),), ()
SECONDS, QUICK_SECONDS = 0.6, 0.05  # of one run
REPEATS, QUICK_REPEATS = 5, 2
RAW = 22, 16  # log2 of numbers a call
EXACT = {  # label: widths after the first, mask
    "100 × 100, bernoulli": ((100,) * 100, masks.bernoulli(0.5)),
    "width 10⁶, depth 100, bernoulli": ((10**6,) * 100, masks.bernoulli(0.5)),
    "width 100, depth 10⁶, bernoulli": ((100,) * 10**6, masks.bernoulli(0.5)),
    "100 × 100, leaky": ((100,) * 100, masks.leaky_relu(0.1)),
    "30 distinct widths, leaky": (tuple(range(40, 70)), masks.leaky_relu(0.1)),
    "3 × 3, dropout on leaky": ((3,) * 3, masks.dropout(0.5, masks.leaky_relu(0.1))),
}
QUESTIONS, QUICK_QUESTIONS = tuple(_answers.QUESTIONS), ("transport, 30 × 10",)
QUICK_EXACT = ("100 × 100, bernoulli", "3 × 3, dropout on leaky")


def _peak(reset=False) -> float:
    """Return the peak of this process's memory in MB, NaN where that is not told; or
    reset it.
    """
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return np.nan
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(ways, seconds, repeats, done=lambda name: None) -> dict[str, np.ndarray]:
    """Return, for each way, the number of paths of a run, the first run's seconds, peak
    MB, and seconds of runs: (3 + repeats,).

    The first run compiles; then the count is raised until a run takes about
    ``seconds``. Then the ways take turns, so that ratios are of the same minutes.
    """
    counts, firsts, peaks, times = (
        {},
        {},
        dict.fromkeys(ways, 0.0),
        {name: [] for name in ways},
    )
    for name, (run, smallest) in ways.items():
        count = smallest
        firsts[name] = _contenders.timed(functools.partial(run, count))
        once = _contenders.timed(functools.partial(run, count))
        while once < seconds / 4 and count < 1 << 24:
            count *= 4
            once = _contenders.timed(functools.partial(run, count))
        counts[name] = max(
            smallest, round(count * min(seconds / once, 4) / smallest) * smallest
        )
        done(name)
    for _ in range(repeats):
        for name, (run, _) in ways.items():
            _peak(reset=True)
            times[name].append(_contenders.timed(functools.partial(run, counts[name])))
            peaks[name] = max(peaks[name], _peak())
    return {
        name: np.array([counts[name], firsts[name], peaks[name], *times[name]])
        for name in ways
    }


def raw_rates(key, repeats) -> np.ndarray:  # (2, 2): normal, bits; by RAW
    """Return 10⁶ numbers a second of jax.random.normal and bits, in large and in small
    calls.
    """
    rates = []
    for draw in (jax.random.normal, jax.random.bits):
        for power in RAW:
            calls = 1 << (RAW[0] - power)

            def step(total, i, draw=draw, power=power):
                return total + draw(jax.random.fold_in(key, i), (1 << power,)), None

            zero = jnp.zeros(
                1 << power, jnp.float32 if draw is jax.random.normal else jnp.uint32
            )
            run = jax.jit(
                lambda z, n=calls, f=step: jax.lax.scan(f, z, jnp.arange(n))[0]
            )
            _contenders.timed(lambda run=run, zero=zero: run(zero))
            times = [
                _contenders.timed(lambda run=run, zero=zero: run(zero))
                for _ in range(repeats)
            ]
            rates.append(2 ** RAW[0] / np.median(times) / 1e6)
    return np.array(rates).reshape(2, 2)


def exact_seconds(widths, mask, repeats) -> np.ndarray:  # (2, repeats)
    """Return the seconds that a law takes without any caches, and 4,096 values of its
    cdf.
    """
    products = ensembles.Ensemble((2, *widths), weights.normal(), mask)
    times = []
    for _ in range(repeats):
        increments.increment.cache_clear()
        quadrature.cumulants.cache_clear()
        exact._curves.cache_clear()
        started = time.perf_counter()
        law = exact.law(products)
        built = time.perf_counter()
        x = law.mean + np.sqrt(law.variance) * np.linspace(-6, 6, 4096)
        law.cdf(x)
        times.append((built - started, time.perf_counter() - built))
    return np.array(times).T


def compute(job) -> dict:
    """Measure each contender on each shape, the raw rates beside it, and exact laws."""
    key, repeats = job.key("all"), job.count(REPEATS, QUICK_REPEATS)
    seconds = job.count(SECONDS, QUICK_SECONDS)
    shapes = job.count(SHAPES, QUICK_SHAPES)
    ways = {shape: _contenders.products(*shape, key) for shape in shapes}
    for shape in job.count(NETWORKS, QUICK_NETWORKS):
        every = _contenders.products(*shape, key)
        ways[shape] = {
            name: every[name] for name in every if name.startswith("network")
        }
    raw = {_label(shape): raw_rates(key, repeats) for shape in ways}
    for shape in job.count(TRAININGS, QUICK_TRAININGS):
        ways[shape] = _contenders.trainings(*shape, key)
    for shape in job.count(STEPPED, QUICK_STEPPED):
        ways[shape] = _contenders.steps(*shape, key)

    speeds = {}
    for shape, contenders in ways.items():
        numbers = measure(contenders, seconds, repeats, job.tick)
        for name, times in numbers.items():
            speeds.setdefault(name, {})[_label(shape)] = times
    laws = {}
    for label in job.count(EXACT, QUICK_EXACT):
        laws[label] = exact_seconds(*EXACT[label], repeats)
        job.tick(f"exact law, {label}")
    answers = {}
    for label in job.count(QUESTIONS, QUICK_QUESTIONS):
        answers[label] = np.array(_answers.asked(label))
        job.tick(f"answer, {label}")
    return {"speeds": speeds, "raw": raw, "exact law": laws, "answers": answers}


def _label(shape: tuple[int, int]) -> str:
    return "{} × {}".format(*shape)


def rates(results) -> dict[tuple[str, str], float]:
    """Return paths a second, the median of the warm runs, by contender and shape."""
    return {
        (name, shape): float(numbers[0] / np.median(numbers[3:]))
        for name, shapes in results["speeds"].items()
        for shape, numbers in shapes.items()
    }


def check(results) -> list[_check.Row]:
    """Show the rates; a speed has no verdict."""
    rows, speed = [], rates(results)
    for name, shape in speed:
        kind = _training_rows if _trains(name) else _path_rows
        rows += kind(name, shape, speed, results)
    for shape in (shape for name, shape in speed if name == "dense normal"):
        rows += _raw_rows(shape, speed, results)
    for label, seconds in results["exact law"].items():
        law, cdf = 1e3 * np.median(seconds, axis=1)
        rows.append(_check.show(f"exact law, {label}", "law, ms", law))
        rows.append(_check.show(f"exact law, {label}", "4,096 of its cdf, ms", cdf))
    for label, numbers in results["answers"].items():
        rows += _answer_rows(f"answer, {label}", numbers)
    return rows


def _answer_rows(case: str, numbers: Sequence[float]) -> list[_check.Row]:
    """Show how long somebody waits, and for how many programs; the same question again
    compiles none.
    """
    answer = _answers.Answer(*numbers)
    return [
        _check.show(case, "first, s", answer.first),
        _check.show(case, "programs", answer.first_programs),
        _check.show(case, "again, s", answer.again),
        _check.below(case, "programs again", answer.again_programs, 0),
    ]


def _trains(name: str) -> bool:
    return name.startswith(("training", "step"))


def _path_rows(name, shape, speed, results) -> list[_check.Row]:
    """Show how fast paths are sampled, against the raw rates and the other ways."""
    case, rate = f"{name}, {shape}", speed[name, shape]
    width, depth = map(int, shape.split(" × "))
    count, first, peak, *_ = results["speeds"][name][shape]
    normal, words = results["raw"][shape]
    # a sign is one bit of a word
    raw = words * 32 if "Rademacher" in name else normal
    unit = rate * depth * (1 if name.startswith("transport") else width**2) / 1e6

    shown = {
        "a run": count,
        "paths/s": rate,
        "10⁶ layers/s": rate * depth / 1e6,
        "10⁶ weights/s": rate * depth * width**2 / 1e6,
        "of raw, 2²²": unit / raw[0],
        "of raw, 2¹⁶": unit / raw[1],
    }
    if ("NumPy loop", shape) in speed:
        shown["× NumPy"] = rate / speed["NumPy loop", shape]
    if name == "network gram":
        shown["× network jvp"] = rate / speed["network jvp", shape]
    if ("PyTorch", shape) in speed:
        shown["× PyTorch"] = rate / speed["PyTorch", shape]
    if np.isfinite(peak):
        shown["peak MB"] = peak
    if name not in ("NumPy loop", "PyTorch"):
        shown["compile s"] = first
    return [_check.show(case, label, value) for label, value in shown.items()]


def _raw_rows(shape, speed, results) -> list[_check.Row]:
    """Show what signs gain over normal weights, and the raw rates beside both."""
    ratio = speed["dense Rademacher", shape] / speed["dense normal", shape]
    rows = [_check.show(f"dense, {shape}", "Rademacher/normal", ratio)]
    case = f"raw beside {shape}"
    for name, rate in zip(("normal", "bits"), results["raw"][shape], strict=True):
        large, small = rate
        rows.append(_check.show(case, f"10⁶ {name}, 2²²", large))
        rows.append(_check.show(case, f"10⁶ {name}, 2¹⁶", small))
    return rows


def _training_rows(name, shape, speed, results) -> list[_check.Row]:
    """Show how fast seeds are trained, and against what."""
    case, rate = f"{name}, {shape}", speed[name, shape]

    # time more than another way's, as a share of that: median over the turns
    def beyond(other):
        mine, its = (results["speeds"][way][shape] for way in (name, other))
        return np.median((mine[3:] / mine[0]) / (its[3:] / its[0])) - 1

    if name.startswith("step"):
        rows = [_check.show(case, "seed-steps/s", rate)]
        return (
            rows
            if name == "step"
            else [*rows, _check.show(case, "of a step", beyond("step"))]
        )
    unit = (
        rate
        * _contenders.STEPS
        * _contenders.operations(*map(int, shape.split(" × ")))
        / 1e9
    )
    rows = [
        _check.show(case, "a run", results["speeds"][name][shape][0]),
        _check.show(case, "seed-steps/s", rate * _contenders.STEPS),
        _check.show(case, "10⁹ operations/s", unit),
        _check.show(case, "of products", rate / speed["training, products", shape]),
    ]
    if name == "training":
        rows.append(_check.show(case, "History, of bare", beyond("training, bare")))
    if ("training, PyTorch", shape) in speed:
        rows.append(
            _check.show(case, "× PyTorch", rate / speed["training, PyTorch", shape])
        )
    if name != "training, PyTorch":
        rows.append(_check.show(case, "compile s", results["speeds"][name][shape][1]))
    return rows


def draw(results):
    """Draw paths per second and steps of training per second, on logarithmic scales."""
    figure, axes = _figure.grid([["paths", "training"]], (16, 5.5))
    _bars(axes["paths"], results, "transport")
    _bars(axes["training"], results, "training", _contenders.STEPS)
    figure.suptitle(_machine.sentence(), fontsize=13)
    axes["paths"].set(ylabel="paths per second", title="sampling, in one process")
    batch = f"ReLU networks, batches of {_contenders.BATCH}, plain gradient descent"
    axes["training"].set(ylabel="seeds × steps per second", title=batch)
    return figure


def _bars(axis, results, first, per_path=1) -> None:
    """Draw a bar for each contender of the shapes that the first one has."""
    speed = rates(results)
    labels = [shape for name, shape in speed if name == first]
    names = [
        name
        for name in dict.fromkeys(name for name, _ in speed)
        if (name, labels[0]) in speed
    ]
    colors = [*_figure.PALETTE, "0.45", "0.7"]
    for i, (name, color) in enumerate(zip(names, colors, strict=False)):
        height = [per_path * speed[name, label] for label in labels]
        place = np.arange(len(labels)) + (i - (len(names) - 1) / 2) * 0.84 / len(names)
        bars = axis.bar(place, height, 0.8 / len(names), color=color, label=name)
        axis.bar_label(bars, list(map(_short, height)), fontsize=9)
    axis.set(yscale="log", xticks=range(len(labels)))
    axis.set(
        xticklabels=[
            "width {}, depth {}".format(*label.split(" × ")) for label in labels
        ]
    )
    axis.set_ylim(None, 60 * axis.get_ylim()[1])
    axis.legend(ncols=3, loc="upper right")


def _short(speed: float) -> str:
    """Return a number to two digits, such as 1.4M."""
    for size, letter in ((1e6, "M"), (1e3, "k"), (1, "")):
        if speed >= size:
            return f"{float(f'{speed / size:.2g}'):g}{letter}"
    return f"{speed:.2g}"
