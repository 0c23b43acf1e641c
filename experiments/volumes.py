"""How a ReLU network changes areas and volumes has an exact law too, whatever its
biases: that of k vectors is no k times that of one.

Expected: of Jacobians of real networks with biases (width 24, 8 layers), ln of the
squared k-volume, k = 1 … 6, has the law of ``exact.volume_law``: KS distance 0, mean
and variance within 5 standard errors; the law of k + 1 vectors is off by a KS distance
of more than 0.3. At width 8 the rank that each depth leaves is at least k as often as
all layers keep k coordinates. The limit law, of variance k(2 + k/2)·2β, is at a
distance that falls as 1/n, with an exponent of −1 within 0.1, and grows with k.

Found: areas and volumes follow their exact law, and so does the rank that depth leaves.
The limit law of k vectors, of variance k(2 + k/2)·2β for ReLUs, is the further off the
larger k is.

Figure: laws of volumes of one to six vectors, the rank that depth leaves, and how far
the limit law is.
Time: 30 s on two CPU cores; --quick 15 s.
Command: python -m experiments volumes
"""

import functools

import jax
import numpy as np

from experiments import _check, _figure
from lognorm_jax import (
    ensembles,
    exact,
    laws,
    masks,
    networks,
    spectra,
    summaries,
    weights,
)

WIDTH, DEPTH = 24, 8
SIZES = (1, 2, 3, 4, 5, 6)  # k
RANKS = (1, 2, 4)
NARROW, LAYERS = 8, (1, 2, 4, 8, 16, 32)
NUM_SAMPLES, QUICK_SAMPLES = 100_000, 6_000
LIMIT_WIDTHS = (16, 32, 64, 128, 256, 512)
LIMIT_SIZES = (1, 2, 4)
RANGE = (-6, 2)  # of what is drawn


def ensemble(width: int, depth: int) -> ensembles.Ensemble:
    """Return products of ReLU layers of one width."""
    return ensembles.Ensemble((width,) * (depth + 1), weights.normal(), masks.relu())


@functools.cache
def law_of(k: int) -> laws.Law:
    """Return the exact law of the log of a squared k-volume."""
    return exact.volume_law(ensemble(WIDTH, DEPTH), k)


@functools.cache
def gaps() -> dict[int, list[float]]:
    """Return how far the limit law is from the exact one, by k and width; β = 1/2."""
    found = {}
    for k in LIMIT_SIZES:
        shapes = [ensemble(width, width // 2) for width in LIMIT_WIDTHS]
        found[k] = [
            laws.ks_distance(exact.volume_limit_law(e, k), exact.volume_law(e, k))
            for e in shapes
        ]
    return found


def compute(job) -> dict:
    """Sample volumes of Jacobians of networks, and the ranks that depth leaves."""
    count = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    network = networks.relu_mlp((WIDTH,) * (DEPTH + 1), 0.3)
    x = np.asarray(jax.random.normal(job.key("input"), (WIDTH,)))
    path = spectra.path(network, max(SIZES), x, drawn=True)
    increments = job.sample("volumes", path, count)
    one_by_one = np.asarray(increments, np.float64).sum(1)

    narrow = networks.relu_mlp((NARROW,) * (max(LAYERS) + 1), 0.3)
    path = spectra.path(narrow, max(SIZES), x[:NARROW])
    alive = np.isfinite(job.sample("ranks", path, count))
    rank = np.cumprod(np.cumprod(alive, axis=1), axis=2).sum(2)
    return {
        "volumes": np.cumsum(one_by_one, axis=1),
        "ranks": rank[:, np.array(LAYERS) - 1].astype(np.int8),
    }


def check(results) -> list[_check.Row]:
    """Hold volumes to their exact laws, ranks to theirs, and limits to 1/n."""
    rows = []
    for k, log_volume in zip(SIZES, results["volumes"].T, strict=True):
        rows += _volume_rows(k, log_volume)
    for depth, rank in zip(LAYERS, results["ranks"].T, strict=True):
        rows += _rank_rows(depth, rank)
    for k, distance in gaps().items():
        slope = np.polyfit(np.log(LIMIT_WIDTHS[2:]), np.log(distance[2:]), 1)[0]
        case = f"k = {k}, n = {LIMIT_WIDTHS[-1]}"
        rows.append(_check.show(case, "KS, limit law", distance[-1]))
        rows.append(_check.agree(case, "exponent of n", slope, 0.0, -1, 0.1))
    return rows


def _volume_rows(k: int, log_volume) -> list[_check.Row]:
    """Hold the volumes of k vectors to their law, and off that of another k."""
    case, law = f"k = {k}", law_of(k)
    mean, variance, dead = summaries.estimate(log_volume)
    rows = [
        _check.resolve(case, "mean", *mean, law.mean),
        _check.resolve(case, "variance", *variance, law.variance),
        _check.distance(case, "KS", laws.compare(log_volume, law)),
    ]
    if k < max(SIZES):
        other = laws.compare(log_volume, law_of(k + 1))
        told = other.distance, *other.interval, 0.3
        rows.append(_check.above(case, "KS to k + 1", *told))
    del dead
    return rows


def _rank_rows(depth: int, rank) -> list[_check.Row]:
    """Hold how often the rank is at least k to how often all layers keep k."""
    rows = []
    for k in RANKS:
        expected = 1 - exact.volume_law(ensemble(NARROW, depth), k).atom
        share = float(np.mean(rank >= k))
        error = (expected * (1 - expected) / len(rank)) ** 0.5
        case = f"width {NARROW}, {depth} layers"
        told = share, max(error, 1 / len(rank)), expected
        rows.append(_check.agree(case, f"P(rank ≥ {k})", *told))
    return rows


def draw(results):
    """Draw laws of volumes, ranks against depth, and distances of the limit."""
    figure, axes = _figure.grid([["laws", "ranks", "limit"]], (16, 5))
    colors = _figure.shades(len(SIZES))
    for k, color in zip(SIZES, colors, strict=True):
        _draw_law(axes["laws"], k, results["volumes"][:, k - 1], color)
        _draw_ranks(axes["ranks"], k, results["ranks"], color)
    for (k, distance), marker in zip(gaps().items(), "os^", strict=True):
        color = colors[SIZES.index(k)]
        style = {"marker": marker, "color": color, "label": f"k = {k}"}
        axes["limit"].plot(LIMIT_WIDTHS, distance, **style)
    _figure.log_widths(axes["limit"], LIMIT_WIDTHS)
    axes["laws"].set(
        title=f"width {WIDTH}, {DEPTH} layers (lines: exact)",
        xlabel="ln of the squared k-volume, over k",
        ylabel="density",
        xlim=RANGE,
    )
    axes["ranks"].set(
        title=f"width {NARROW}: the rank that depth leaves (lines: exact)",
        xlabel="layers d",
        ylabel="P(rank of k vectors is k) (± 2 s.e.)",
        xscale="log",
        xticks=LAYERS,
        xticklabels=LAYERS,
        ylim=(-0.03, 1.35),
    )
    axes["ranks"].minorticks_off()
    axes["limit"].set(
        title="limit law against exact law, β = 1/2",
        xlabel="width n",
        ylabel="KS distance",
        yscale="log",
    )
    axes["laws"].legend(loc="upper left")
    axes["ranks"].legend(loc="upper left", ncols=3)
    axes["limit"].legend()
    return figure


def _draw_law(axis, k, log_volume, color):
    heights, edges = np.histogram(log_volume / k, 50, RANGE)
    density = heights / (len(log_volume) * (edges[1] - edges[0]))
    middle = (edges[1:] + edges[:-1]) / 2
    axis.plot(middle, density, "o", ms=3, color=color, label=f"k = {k}")
    x = np.linspace(*RANGE, 300)
    axis.plot(x, k * law_of(k).pdf(k * x), color=color, lw=1)


def _draw_ranks(axis, k, ranks, color):
    share = np.mean(ranks >= k, axis=0)
    error = np.sqrt(share * (1 - share) / len(ranks))
    style = {"fmt": "o", "ms": 4, "capsize": 3, "color": color, "label": f"k = {k}"}
    axis.errorbar(LAYERS, share, 2 * error, **style)
    depths = np.arange(1, max(LAYERS) + 1)
    one = 1 - exact.volume_law(ensemble(NARROW, 1), k).atom
    axis.plot(depths, one**depths, color=color, lw=1)
