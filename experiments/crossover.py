"""Training without matrices is faster than training drawn ones where its vectors are
fewer numbers than the weights; and it is the faster the wider networks are.

Expected, on two CPU cores, of ReLU networks with 8 hidden layers, plain gradient
descent, one seed: the ratio of seconds is about in proportion to the ratio of numbers
that are kept, weights over vectors, of all widths, batches and steps alike, and 1 where
these are about as many. Speeds have no verdict but at ends, where the ratio of numbers
is above 2 or below 1/8.

Found: at width 2,048 and 64 layers (batch 4, 20 steps) it is 14 times as fast, at width
512 three times, at width 128 four times slower. The ratio of speeds is 1 where there
are 0.8 weights for each number kept. It rises in proportion from there, as either way
is bound by how fast memory is read.

Figure: how many times as fast as with drawn weights, over weights per number kept.
Time: 13 minutes on two CPU cores; --quick 40 s.
Command: python -m experiments crossover
"""

import functools
import itertools

import jax
import numpy as np
import optax

from experiments import _check, _contenders, _edge, _figure
from lognorm_jax import losses, training

DEPTH, QUICK_DEPTH = 8, 2
WIDTHS, QUICK_WIDTHS = (128, 512, 2048), (64,)
SETTINGS, QUICK_SETTINGS = (
    ((1, 20), (4, 20), (16, 20), (4, 50)),
    ((1, 4),),
)  # batch, steps
DEEP = {(512, 64): (4, 20), (2048, 64): (4, 20)}  # width, depth: batch, steps
REPEATS, QUICK_REPEATS = 2, 1
SURE = 2.0, 0.125  # weights per number kept, above and below which it is known


def cases(job) -> list[tuple[int, int, int, int]]:
    """Return width, depth, batch and steps of each network."""
    widths, settings = (
        job.count(WIDTHS, QUICK_WIDTHS),
        job.count(SETTINGS, QUICK_SETTINGS),
    )
    depth = job.count(DEPTH, QUICK_DEPTH)
    found = [(n, depth, *both) for n, both in itertools.product(widths, settings)]
    deep = [(*shape, *both) for shape, both in DEEP.items()]
    return found + job.count(deep, [])


def kept(width: int, depth: int, batch: int, steps: int) -> tuple[int, int]:
    """Return how many weights there are, and numbers of the vectors met without them.

    Of each step and layer the inputs, the probe and its tangent go ahead, and the
    inputs' cotangents back; of each a direction is kept, and its image.
    """
    widths = (64, *(width,) * depth, _edge.OUTPUTS)
    pairs = list(itertools.pairwise(widths))
    weights = sum(a * b for a, b in pairs)
    vectors = steps * (2 * batch + 2)
    return weights, vectors * sum(a + b for a, b in pairs)


def runs_of(width: int, depth: int, batch: int, steps: int) -> dict[bool, object]:
    """Return, drawn or not, what trains a network once."""
    network = _edge.network_of(depth, width)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(steps, batch, 64)).astype(np.float32)
    targets = rng.normal(size=(steps, batch, _edge.OUTPUTS)).astype(np.float32)
    found = {}
    for drawn in (True, False):
        fit = training.trainer(
            network,
            optax.sgd(0.1 / _edge.size(depth, width)),
            losses.squared_error,
            steps,
            drawn=drawn,
        )
        run = jax.jit(training.path(fit, (inputs, targets)))
        found[drawn] = functools.partial(run, jax.random.key(0))
    return found


def compute(job) -> dict:
    """Time both ways of every network in turn."""
    results: dict = {"shape": np.array(cases(job)), "seconds": []}
    repeats = job.count(REPEATS, QUICK_REPEATS)
    for width, depth, batch, steps in cases(job):
        runs = runs_of(width, depth, batch, steps)
        for run in runs.values():
            _contenders.timed(run)
        times = [
            [_contenders.timed(run) for run in runs.values()] for _ in range(repeats)
        ]
        results["seconds"].append(np.array(times).T)
        job.tick(f"n = {width}, d = {depth}, batch {batch}, {steps} steps")
    results["seconds"] = np.array(results["seconds"])  # cases, (drawn, not), repeats
    return results


def faster(results) -> tuple[np.ndarray, np.ndarray]:
    """Return weights per number kept, and how many times as fast it is, by case."""
    weights, met = np.array([kept(*map(int, shape)) for shape in results["shape"]]).T
    drawn, undrawn = np.median(results["seconds"], axis=2).T
    return weights / met, drawn / undrawn


def check(results) -> list[_check.Row]:
    """Show seconds of both; where numbers differ most, the ratio must be on their
    side.
    """
    rows = []
    seconds = np.median(results["seconds"], axis=2)
    for shape, times, ratio, speed in zip(
        results["shape"], seconds, *faster(results), strict=True
    ):
        width, depth, batch, steps = shape
        case = f"n = {width}, d = {depth}, batch {batch}, {steps} steps"
        rows += [
            _check.show(case, "weights per number kept", ratio),
            _check.show(case, "seconds, drawn", times[0]),
            _check.show(case, "seconds, not drawn", times[1]),
            _check.show(case, "times as fast", speed),
        ]
        if ratio > SURE[0]:
            rows.append(_check.below(case, "drawn is slower", 1 / speed, 1))
        if ratio < SURE[1]:
            rows.append(_check.below(case, "drawn is faster", speed, 1))
    return rows


def draw(results):
    """Draw how many times as fast it is, over weights per number kept."""
    figure, axes = _figure.grid([["faster"]], (8, 5.5))
    axis = axes["faster"]
    ratio, speed = faster(results)
    settings = [f"batch {b}, {s} steps" for b, s in results["shape"][:, 2:]]
    for setting, color, marker in zip(
        dict.fromkeys(settings), _figure.PALETTE, "osD^", strict=False
    ):
        chosen = np.array([other == setting for other in settings])
        style = {"color": color, "marker": marker, "ls": "", "ms": 8}
        axis.plot(ratio[chosen], speed[chosen], label=setting, **style)
    ends = np.array([ratio.min(), ratio.max()])
    style = {"color": _figure.THEORY, "ls": "--", "lw": 1.2}
    axis.plot(ends, 2 * ends, label="2 × weights per number", **style)
    axis.axhline(1, color=_figure.LIMIT, lw=1)
    axis.set(xscale="log", yscale="log", title="training without matrices")
    axis.set(xlabel="weights per number kept without them")
    axis.set(ylabel="times as fast as with drawn weights")
    axis.legend()
    return figure
