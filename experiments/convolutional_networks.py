"""Convolutional networks are log-normal too, but their β counts channels, not units:
with depth the patches of an image align, and the variance of a layer climbs towards
5/c, far from 5/(c s).

Expected: given what reaches it, the variance of a layer's squared-norm ratio R is the
sum over pairs of positions of ``convolutions.predictable_variance``, exact at any width
and along any direction, however it overlaps the input, for normal weights without
biases: so Var R_l is its mean, within 5 standard errors, for the Jacobian along the
input and along another direction. The total log-variance is only guessed from these:
their sum, within 20%. Along another direction patches of the tangent stay apart, and
only the masks align: a layer varies by about 1/c. 5L/(c s), as if all units were apart,
is at most 0.03 and 0.12 of them. The input is a handwritten digit on an 8 × 8 torus.

Found: with depth all patches of an image align, so that the variance counts channels.
The variance of each layer's ratio, given what reaches it, is exact. The sum over layers
is only a guide to the log-variance, to 20%.

Figure: variance of each convolutional layer and of the whole against depth, over
formulas.
Time: 1 minute on two CPU cores; --quick 15 s.
Command: python -m experiments convolutional_networks
"""

import jax
import numpy as np

from experiments import _check, _data, _figure
from lognorm_jax import convolutions, networks, paths, summaries

CHANNELS, TAPS, SIDE = 24, (3, 3), 8
DEPTH, QUICK_DEPTH = 40, 24
LAYERS = (1, 2, 4, 8, 16, 24, 32, 40)
NUM_SAMPLES, QUICK_SAMPLES = 6_000, 500
# and what 5L/(c s) is at most of its variance
DIRECTIONS = {"along x": 0.03, "another u": 0.12}
TOTAL = 0.2  # how far the sum over layers may be from the total, relative


def compute(job) -> dict:
    """Sample increments, and the variance that theory predicts of each from what
    reaches it.
    """
    num_samples = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    depth = job.count(DEPTH, QUICK_DEPTH)
    network = networks.conv((1, *(CHANNELS,) * depth), (SIDE, SIDE), TAPS)
    x = _data.digit(0).reshape(network.shape)
    u = np.asarray(jax.random.normal(job.key("tangent"), network.shape))
    results = {}
    for name in DIRECTIONS:
        other = name != "along x"

        def observe(x, tangent, other=other):
            along = {"tangent": tangent} if other else {}
            return convolutions.predictable_variance(x, TAPS, CHANNELS, **along)

        path = paths.jacobian(network, x, u if other else x, observe=observe)
        trace, predicted = job.sample(name, path, num_samples)
        results[name] = {"increment": trace.increment, "predicted": predicted}
    return results


def check(results) -> list[_check.Row]:
    """Hold the variance of R layer by layer, and of log_norm in all, against the
    prediction.
    """
    rows = []
    for name, share in DIRECTIONS.items():
        increment = results[name]["increment"].astype(np.float64)
        predicted = results[name]["predicted"].astype(np.float64)
        depth = increment.shape[1]
        for layer in (layer for layer in LAYERS if layer <= depth):
            case = f"{name}, layer {layer}"
            square = (np.exp(increment[:, layer - 1]) - 1) ** 2  # E R = 1 exactly
            forecast = predicted[:, layer - 1]
            mean = summaries.estimate(square).mean
            expected = summaries.estimate(forecast).mean
            error = np.hypot(mean.error, expected.error)
            told = (CHANNELS * part for part in (mean.value, error, expected.value))
            rows.append(_check.agree(case, "c · Var R", *told))
        variance, error = summaries.estimate(increment.sum(1)).variance
        total = predicted.sum(1).mean()
        case = f"{name}, all {depth} layers"
        rows.append(
            _check.agree(case, "Var log_norm", variance, error, total, TOTAL * total)
        )
        rows.append(_check.show(case, "5L/c", 5 * depth / CHANNELS))
        rows.append(_check.show(case, "5L/(c s)", 5 * depth / CHANNELS / SIDE**2))
        wrong = 5 * depth / CHANNELS / SIDE**2 / variance
        rows.append(_check.below(case, "5L/(c s) over variance", wrong, share))
    return rows


def draw(results):
    """Draw the variance of each layer and of the whole against depth, over formulas."""
    figure, axes = _figure.grid([["layer", "total"]], (12, 5))
    for name, color in zip(DIRECTIONS, _figure.PALETTE, strict=False):
        increment = results[name]["increment"].astype(np.float64)
        predicted = results[name]["predicted"].astype(np.float64).mean(0)
        mean, error = summaries.estimate((np.exp(increment) - 1) ** 2).mean
        layer = CHANNELS * mean, CHANNELS * error, CHANNELS * predicted
        _draw_line(axes["layer"], *layer, color, name, "predicted")

        seen = summaries.estimate(np.cumsum(increment, axis=1)).variance
        total = *seen, np.cumsum(predicted)
        _draw_line(axes["total"], *total, color, name, "sum of predictions")

    layers = np.arange(1, len(predicted) + 1)
    _draw_naive(axes["layer"], layers, 5 + 0 * layers, "5 and 5/s")
    _draw_naive(axes["total"], layers, 5 * layers / CHANNELS, "5L/c and 5L/(c s)")
    _finish(axes)
    return figure


def _draw_line(axis, seen, error, theory, color, name, label):
    """Draw what was simulated of each layer, and the line that theory predicts."""
    layers = np.arange(1, len(seen) + 1)
    style = {"fmt": "o", "ms": 4, "color": color, "capsize": 2}
    axis.errorbar(layers, seen, 2 * error, label=f"{name}, simulated", **style)
    axis.plot(layers, theory, color=color, label=f"{name}, {label}")


def _draw_naive(axis, layers, upper, label):
    """Draw what it would be were all positions alike, and were all units apart."""
    style = {"color": _figure.THEORY, "ls": "--", "lw": 1}
    axis.plot(layers, upper, label=label, **style)
    axis.plot(layers, upper / SIDE**2, **style)


def _finish(axes):
    axes["layer"].set(
        title="patches align: a layer varies like one of c units",
        xlabel="layer",
        ylabel="c · Var R of a layer (± 2 s.e.)",
    )
    axes["total"].set(
        title=f"c = {CHANNELS} channels, {SIDE} × {SIDE} positions, 3 × 3 taps",
        xlabel="number of layers L",
        ylabel="Var ln ‖Ju‖² (± 2 s.e.)",
    )
    axes["layer"].legend(loc="center right", bbox_to_anchor=(1, 0.4))
    axes["total"].legend(loc="upper left")
