"""With small steps, β says more about which networks train than depth or width; with
the largest steps that still work, depth says as much.

Expected, for ReLU networks of widths 12 to 48 and 3 to 48 hidden layers on digits
(cross-entropy, batches of 64, SGD with momentum and Adam, four learning rates c/depth):
of what the share of seeds that train differs by between these networks, at either of
the two lower rates, the best monotone function of β alone explains more, beyond chance,
than that of depth or of width alone. A network has trained when it classifies half of
the test images right after 100 steps.

Found, against the slogan: at the best rate of each network β explains hardly more than
depth (0.06 with momentum, 0.01 with Adam), and at the highest rate less. Networks of
equal β do not train alike either: with momentum the deeper ones train more slowly,
though rate × depth is the same, and with Adam at its lowest rate the narrow ones do.
(Intervals, 95%: Wilson for shares; for what is explained, draws of the shares that the
seeds leave possible, the networks being these.)

Figure: which networks train, against β and against depth, and what explains it at each
learning rate.
Time: 6 minutes on two CPU cores; --quick 30 s.
Command: python -m experiments trainability
"""

import functools
import itertools

import jax
import numpy as np
import optax
from scipy import stats

from experiments import _check, _data, _explained, _figure
from lognorm_jax import datasets, losses, networks, sampling, training

WIDTHS = (12, 24, 48)
DEPTHS = (3, 6, 12, 24, 48)
# width, depth: each is a compilation, and so few must tell β from depth and width
QUICK_SHAPES = (16, 4), (10, 10), (16, 16), (40, 10)
STEPS, BATCH = 100, 64
THRESHOLD = 0.5  # of the test images
OPTIMIZERS = {
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "Adam": optax.adam,
}
QUICK_OPTIMIZERS = ("momentum",)
RATES = {"momentum": (0.03, 0.1, 0.3, 1.0), "Adam": (0.01, 0.03, 0.1, 0.3)}  # × depth
NUM_SAMPLES, QUICK_SAMPLES = 128, 32  # seeds
BLOCK = 16  # seeds
REPEATS = 400  # of the bootstrap
PREDICTORS = ("β", "depth", "width")
# line, and whether points are filled
STYLES = {"momentum": ("-", True), "Adam": ("--", False)}
# of four rates
CHOSEN = ("lowest rate", "low rate", "high rate", "highest rate", "best rate")


def cases(quick: bool) -> dict[str, tuple[float, int, int]]:
    """Return β, number of hidden layers and width of each network."""
    shapes = QUICK_SHAPES if quick else itertools.product(WIDTHS, DEPTHS)
    return {f"n = {n}, d = {d}": (d / n, d, n) for n, d in shapes}


def path_of(depth, width, name, batches, digits):
    """Return key -> (finite, test accuracy), (rates,) each: one network from one key,
    each rate.
    """
    network = networks.relu_mlp((64, *(width,) * depth, 10), fan="in", head="linear")
    rates = np.array(RATES[name], np.float32) / (depth + 1)

    def path_at(rate):
        fit = training.trainer(
            network, OPTIMIZERS[name](rate), losses.cross_entropy, STEPS
        )
        return training.path(fit, batches, observe=_data.accuracy(network, digits))

    def path(key):
        history, seen = jax.vmap(lambda rate: path_at(rate)(key))(rates)
        return history.finite[:, -1], seen

    return path


def compute(job) -> dict:
    """Train every network at every rate from many seeds; keep what diverged, and
    accuracy.
    """
    num_samples, chosen = job.count(NUM_SAMPLES, QUICK_SAMPLES), cases(job.quick)
    digits = _data.digits()
    batches = datasets.batches(
        job.key("batches"), digits.inputs, digits.labels, STEPS, BATCH
    )
    engine = functools.partial(sampling.sample, block_size=BLOCK)
    results = {"shape": np.array(list(chosen.values())), "explained": {}}
    results |= {name: {} for name in job.count(OPTIMIZERS, QUICK_OPTIMIZERS)}
    for case, (_, depth, width) in chosen.items():
        key = job.key(case)  # the same networks for each optimizer
        for name in names(results):
            path = path_of(depth, width, name, batches, digits)
            finite, seen = job.sample(
                f"{name}, {case}", path, num_samples, engine=engine, key=key
            )
            # (seeds, rates)
            results[name][case] = {"finite": finite, "trained": seen >= THRESHOLD}
    for name in names(results):
        results["explained"][name] = explained(results, name)
    return results


def names(results) -> list[str]:
    """Return the optimizers of results."""
    return [name for name in OPTIMIZERS if name in results]


def labels(results) -> list[str]:
    """Return the cases of results, one a network."""
    return list(results[names(results)[0]])


def explained(results, name) -> np.ndarray:  # (predictors, CHOSEN, 1 + REPEATS)
    """Return what each predictor explains of the share that trains, at rates, and its
    draws.
    """
    rng = np.random.default_rng(0)
    trained = (results[name][case]["trained"] for case in labels(results))
    draws = np.array([_explained.shares(each, rng, REPEATS) for each in trained])
    # networks, draws, CHOSEN
    draws = np.concatenate([draws, draws.max(2, keepdims=True)], 2)
    found = [
        _explained.fractions(results["shape"].T, draws[:, :, j].T)
        for j in range(len(CHOSEN))
    ]
    return np.stack(found, axis=1)


def wilson(trained) -> tuple[float, float, float]:
    """Return a share and its 95% interval (Wilson 1927)."""
    share = stats.binomtest(int(trained.sum()), len(trained)).proportion_ci(
        method="wilson"
    )
    return float(trained.mean()), share.low, share.high


def check(results) -> list[_check.Row]:
    """Show the shares; at the lower rates β must explain more of them than depth or
    width.
    """
    rows = []
    for name in names(results):
        for case, (beta, *_) in zip(labels(results), results["shape"], strict=True):
            label = f"{name}, {case}, β = {beta:g}"
            trained, finite = (
                results[name][case][part] for part in ("trained", "finite")
            )
            for rate, column in zip(CHOSEN[:-1], trained.T, strict=True):
                rows.append(_check.above(label, rate, *wilson(column)))
            rows.append(_check.show(label, "diverged", 1 - finite.mean()))
    for name in names(results):
        every = results["explained"][name]
        for i, predictor in enumerate(PREDICTORS):
            for j, rate in enumerate(CHOSEN):
                case = f"{name}, explained by {predictor}"
                rows.append(_check.above(case, rate, *_explained.interval(every[i, j])))
                if predictor != "β":
                    more = _explained.interval(every[0, j] - every[i, j])
                    bound = 0.0 if j < 2 else None
                    case = f"{name}, by β beyond {predictor}"
                    rows.append(_check.above(case, rate, *more, bound))
    return rows


def draw(results):
    """Draw the share that trains against β and against depth, and what explains it."""
    figure, axes = _figure.grid([["beta", "depth", "explained"]], (17, 5.5))
    _draw_shares(axes["beta"], results, 0)
    _draw_shares(axes["depth"], results, 1)
    _draw_explained(axes["explained"], results["explained"])

    axes["beta"].set(xlabel="β = hidden layers / width, d/n")
    axes["beta"].set(title="lowest rate: nearly one curve in β …")
    axes["depth"].set(xlabel="hidden layers d", title="… and not in depth")
    widths = np.unique(results["shape"][:, 2])
    named = [f"width {width:.0f}" for width in widths]
    axes["beta"].legend(
        handles=_entries(named, "osD", names(results)), loc="upper right"
    )
    return figure


def _entries(labels, markers, optimizers) -> list:
    """Return what a legend says of colours, then of the optimizers."""
    found = []
    for name, marker, color in zip(labels, markers, _figure.PALETTE, strict=False):
        found.append(_figure.entry(name, marker=marker, color=color))
    for name in optimizers:
        line, filled = STYLES[name]
        style = {"color": _figure.THEORY, "mfc": _figure.THEORY if filled else "white"}
        found.append(_figure.entry(name, marker="o", ls=line, **style))
    return found


def _draw_shares(axis, results, column):
    """Draw the shares at the lowest rate against one column of the shapes."""
    shapes = results["shape"]
    for name in names(results):
        line, filled = STYLES[name]
        trained = [results[name][case]["trained"][:, 0] for case in labels(results)]
        share, low, high = np.array([wilson(seeds) for seeds in trained]).T
        # a share of 0 or 1 may be beyond its interval by rounding
        bars = np.maximum([share - low, high - share], 0)
        for i, width in enumerate(np.unique(shapes[:, 2])):
            own = shapes[:, 2] == width
            color = _figure.PALETTE[i]
            style = {"fmt": "osD"[i] + line, "color": color, "capsize": 3}
            style["mfc"] = color if filled else "white"
            axis.errorbar(shapes[own, column], share[own], bars[:, own], **style)

    ticks = np.unique(shapes[:, column])
    axis.set(xscale="log", xticks=ticks, xticklabels=[f"{x:.3g}" for x in ticks])
    axis.tick_params(axis="x", labelsize=11)
    axis.minorticks_off()
    axis.set(ylim=(-0.04, 1.04), ylabel="share of seeds that train, 95% CI")


def _draw_explained(axis, explained):
    """Draw what each predictor explains of the shares, at each rate and at the best."""
    for name in explained:
        line, filled = STYLES[name]
        place = np.arange(len(CHOSEN)) + (-0.06 if filled else 0.06)
        for share, color in zip(explained[name], _figure.PALETTE, strict=False):
            found = np.array([_explained.interval(draws) for draws in share])
            value, low, high = found.T
            bars = np.maximum([value - low, high - value], 0)
            style = {"color": color, "capsize": 3, "fmt": "o"}
            style["mfc"] = color if filled else "white"
            axis.errorbar(place, value, bars, **style)
            # the best rate is another one for each network: no line leads there
            axis.plot(place[:-1], value[:-1], line, color=color, zorder=1)

    columns = zip(*(RATES[name] for name in explained), strict=True)
    rates = ["\n".join(f"{rate:g}" for rate in column) for column in columns]
    axis.set(xticks=range(len(CHOSEN)), xticklabels=[*rates, "best\nof each"])
    entries = _entries(PREDICTORS, "ooo", explained)
    axis.legend(handles=entries, ncols=2, loc="center", bbox_to_anchor=(0.4, 0.4))
    axis.set(
        title="what one number of the shape explains",
        xlabel=f"rate × depth, {' over '.join(explained)}",
        ylabel="share of variance explained,\nchance-corrected, 95% CI",
        ylim=(-0.25, 1.04),
    )
