"""Singular values of products of matrices: their exponents are exact at any width;
their spread goes from that of wide layers to that of deep products; and so do their
gaps, from repelling one another towards a picket fence.

Expected, at width 64, over 5,000 layers: the means of ln R_jj of the QR recursion are
Newman's exponents for linear layers, and their generalisation for the first 16
directions of ReLU layers, each within 5 standard errors. n E tr G²/E(tr G)² is
``spectra.participation`` at width 16 and any depth, within 5 standard errors, and at
width 100 that of free probability, 1 + d/p, within 8%. The mean ratio of neighbouring
gaps of ln σ is that of symmetric random matrices, 0.5307, for one layer, within 0.01,
and above 0.7 for 32 layers a unit of width. There the spread of the m-th ln σ from the
bottom over its gap is that of its exponent, about √(2m/d), within 5 standard errors and
2%.

Found: the Lyapunov exponents of masked products are exact at any width (Newman's,
without masks), and so is the participation ratio, from that of free probability where
layers are wide to that of one direction where they are many. Neighbouring singular
values repel one another as in a symmetric random matrix, up to a depth of about the
width, and then begin to stand like a picket fence.

Figure: Lyapunov exponents, participation ratio against depth, ratio of gaps of singular
values.
Time: 3 minutes on two CPU cores; --quick 20 s.
Command: python -m experiments spectra
"""

import functools

import numpy as np
from scipy import special

from experiments import _check, _figure
from lognorm_jax import ensembles, masks, sampling, spectra, summaries, weights

WIDTH, DIRECTIONS = 64, {"linear": 64, "ReLU": 16}
LAYERS, QUICK_LAYERS = 5_000, 1_000
MASKS = {"linear": masks.identity(), "ReLU": masks.relu()}
# participation
CHANNELS, DEPTHS, QUICK_DEPTHS = 16, (1, 2, 4, 8, 16), (1, 8)
NUM_SAMPLES, QUICK_SAMPLES = 20_000, 3_000
FREE_WIDTH, FREE_DEPTHS, FREE_SAMPLES = 100, (1, 3), 64
# gaps of ln σ, by layers over width
GAP_WIDTH, RATIOS, QUICK_RATIOS = 32, (1 / 32, 1 / 4, 1, 4, 32), (1 / 32, 32)
GAP_SAMPLES, QUICK_GAP_SAMPLES = 1_024, 128
SYMMETRIC = 0.5307  # the mean ratio of gaps of Gaussian symmetric matrices
PICKET = 0.7


_few_at_once = functools.partial(sampling.sample, block_size=64)


def ensemble(kind: str, width: int, depth: int) -> ensembles.Ensemble:
    """Return products of layers of one width."""
    return ensembles.Ensemble((width,) * (depth + 1), weights.normal(), MASKS[kind])


def compute(job) -> dict:
    """Sample exponents along one product, participation, and gaps of spectra."""
    results = {"exponents": {}, "participation": {}, "free": {}, "gaps": {}}
    layers = job.count(LAYERS, QUICK_LAYERS)
    for kind, k in DIRECTIONS.items():
        path = spectra.path(ensemble(kind, WIDTH, layers), k)
        results["exponents"][kind] = np.asarray(path(job.key(kind)), np.float32) / 2
        job.tick(f"exponents, {kind}")
    count = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    for depth in job.count(DEPTHS, QUICK_DEPTHS):
        path = spectra.singular_path(ensemble("ReLU", CHANNELS, depth), CHANNELS)
        log_values = job.sample(f"participation, {depth}", path, count)
        results["participation"][f"{depth}"] = _traces(log_values)
    for depth in FREE_DEPTHS:
        path = spectra.singular_path(ensemble("ReLU", FREE_WIDTH, depth), FREE_WIDTH)
        case = f"wide, {depth}"
        log_values = job.sample(case, path, FREE_SAMPLES, engine=_few_at_once)
        results["free"][f"{depth}"] = _traces(log_values)
    count = job.count(GAP_SAMPLES, QUICK_GAP_SAMPLES)
    for ratio in job.count(RATIOS, QUICK_RATIOS):
        depth = round(ratio * GAP_WIDTH)
        path = spectra.singular_path(ensemble("linear", GAP_WIDTH, depth), GAP_WIDTH)
        case = f"gaps, {depth}"
        log_values = job.sample(case, path, count, engine=_few_at_once)
        results["gaps"][f"{depth}"] = log_values
    return results


def _traces(log_values) -> np.ndarray:
    """Return (tr G)² and tr G² of each sample, (2, count)."""
    squares = np.exp(2 * np.asarray(log_values, np.float64))
    return np.stack([squares.sum(1) ** 2, (squares**2).sum(1)])


def gap_ratios(log_values) -> np.ndarray:
    """Return the mean over neighbours of the smaller over the larger gap, by sample.

    log_values: (count, n), descending. Of the middle half of the spectrum.
    """
    n = np.shape(log_values)[1]
    middle = np.asarray(log_values, np.float64)[:, n // 4 : n - n // 4]
    gaps = -np.diff(middle, axis=1)
    pairs = np.stack([gaps[:, 1:], gaps[:, :-1]])
    return np.mean(pairs.min(0) / pairs.max(0), axis=1)


def _ratio(width: int, traces) -> tuple[float, float]:
    """Return n E tr G²/E(tr G)² and its standard error."""
    whole, squares = np.asarray(traces)
    ratio = width * squares.mean() / whole.mean()
    rest = (width * squares - ratio * whole) / whole.mean()
    return float(ratio), float(rest.std() / len(rest) ** 0.5)


def check(results) -> list[_check.Row]:
    """Hold exponents, participation and gaps to theory."""
    rows = []
    for kind, increments in results["exponents"].items():
        rows += _exponent_rows(kind, np.asarray(increments, np.float64))
    for depth, traces in results["participation"].items():
        told = spectra.participation(ensemble("ReLU", CHANNELS, int(depth)))
        case = f"n = {CHANNELS}, {depth} layers"
        measured = _ratio(CHANNELS, traces)
        rows.append(_check.resolve(case, "participation", *measured, float(told)))
    for depth, traces in results["free"].items():
        limit = spectra.participation_limit(ensemble("ReLU", FREE_WIDTH, int(depth)))
        case = f"n = {FREE_WIDTH}, {depth} layers"
        told = *_ratio(FREE_WIDTH, traces), limit, 0.08 * limit
        rows.append(_check.resolve(case, "participation", *told))
    for depth, log_values in results["gaps"].items():
        rows += _gap_rows(int(depth), log_values)
    return rows


def _exponent_rows(kind: str, increments) -> list[_check.Row]:
    """Hold the mean of each direction to its exponent: the furthest off, and three."""
    layers, k = increments.shape
    alive = np.isfinite(increments).all(1)
    mean, error = summaries.estimate(increments[alive]).mean
    expected = spectra.lyapunov(ensemble(kind, WIDTH, layers), k)
    case = f"{kind}, n = {WIDTH}"
    furthest = float(np.max(np.abs(mean - expected) / error))
    rows = [_check.below(case, "largest |z|", furthest, _check.SIGMAS)]
    for j in (0, k // 2, k - 1):
        told = mean[j], error[j], expected[j]
        rows.append(_check.agree(case, f"exponent {j + 1}", *told))
    return rows


def _gap_rows(depth: int, log_values) -> list[_check.Row]:
    """Hold gaps to those of symmetric matrices, or to a picket fence."""
    case = f"n = {GAP_WIDTH}, {depth} layers"
    ratios = gap_ratios(log_values)
    mean, error = ratios.mean(), ratios.std() / len(ratios) ** 0.5
    if depth == 1:
        told = mean, error, SYMMETRIC, 0.01
        return [_check.agree(case, "ratio of gaps", *told)]
    if depth < 32 * GAP_WIDTH:
        return [_check.show(case, "ratio of gaps", mean, error)]
    low, high = mean - 2 * error, mean + 2 * error
    rows = [_check.above(case, "ratio of gaps", mean, low, high, PICKET)]
    m = GAP_WIDTH // 2
    # of the m-th exponent from the bottom, about √(2m/d)
    spread = (depth * special.polygamma(1, m / 2)) ** 0.5
    gap = depth * (special.digamma((m + 1) / 2) - special.digamma(m / 2))
    told = *_spread_over_gap(log_values, m), spread / gap
    rows.append(_check.resolve(case, "spread over gap", *told, 0.02 * told[-1]))
    return rows


def _spread_over_gap(log_values, m: int) -> tuple[float, float]:
    """Return the spread of the m-th ln σ from the bottom over the gap above it."""
    ordered = np.sort(np.asarray(log_values, np.float64), axis=1)
    variance = summaries.estimate(ordered[:, m - 1]).variance
    gap = np.mean(ordered[:, m] - ordered[:, m - 1])
    spread = variance.value**0.5
    return spread / gap, variance.error / (2 * spread * gap)


def draw(results):
    """Draw exponents, participation against depth, and ratios of gaps."""
    layout = [["exponents", "participation", "gaps"]]
    figure, axes = _figure.grid(layout, (16, 5))
    _draw_exponents(axes["exponents"], results["exponents"])
    _draw_participation(axes["participation"], results["participation"])
    _draw_gaps(axes["gaps"], results["gaps"])
    for axis in axes.values():
        axis.legend()
    return figure


def _draw_exponents(axis, exponents):
    pairs = zip(exponents.items(), _figure.PALETTE, strict=False)
    for (kind, increments), color in pairs:
        increments = np.asarray(increments, np.float64)
        alive = np.isfinite(increments).all(1)
        mean, error = summaries.estimate(increments[alive]).mean
        places = np.arange(1, len(mean) + 1)
        style = {"fmt": "o", "ms": 3, "color": color, "label": f"{kind}, one product"}
        axis.errorbar(places, mean, 2 * error, **style)
        line = spectra.lyapunov(ensemble(kind, WIDTH, 1), len(mean))
        axis.plot(places, line, color=_figure.THEORY, lw=1)
    axis.plot([], [], color=_figure.THEORY, lw=1, label="exact")
    axis.set(
        title=f"Lyapunov exponents at width {WIDTH}",
        xlabel="direction j",
        ylabel="mean of ln R_jj a layer (± 2 s.e.)",
    )


def _draw_participation(axis, participation):
    depths = [int(depth) for depth in participation]
    seen = [_ratio(CHANNELS, traces) for traces in participation.values()]
    values, errors = np.transpose(seen)
    style = {"fmt": "o", "color": _figure.MASK_MODEL, "capsize": 3}
    axis.errorbar(depths, values, 2 * errors, label="sampled (± 2 s.e.)", **style)
    all_depths = np.arange(1, max(depths) + 1)
    shapes = [ensemble("ReLU", CHANNELS, depth) for depth in all_depths]
    told = [float(spectra.participation(shape)) for shape in shapes]
    axis.plot(all_depths, told, color=_figure.THEORY, label="exact")
    limit = [spectra.participation_limit(shape) for shape in shapes]
    axis.plot(all_depths, limit, "--", color=_figure.LIMIT, label="free: 1 + d/p")
    axis.axhline(CHANNELS, color=_figure.LIMIT, ls=":", label="one direction left")
    axis.set(
        title=f"how unevenly it stretches (ReLU, n = {CHANNELS})",
        xlabel="layers d",
        ylabel="n · E tr G² / E (tr G)²",
        ylim=(0, 1.4 * CHANNELS),
    )


def _draw_gaps(axis, gaps):
    depths = [int(depth) for depth in gaps]
    ratios = [gap_ratios(log_values) for log_values in gaps.values()]
    means = [each.mean() for each in ratios]
    errors = [2 * each.std() / len(each) ** 0.5 for each in ratios]
    style = {"fmt": "o-", "color": _figure.NETWORK, "capsize": 3, "lw": 1}
    x = np.array(depths) / GAP_WIDTH
    axis.errorbar(x, means, errors, label=f"n = {GAP_WIDTH} (± 2 s.e.)", **style)
    axis.axhline(SYMMETRIC, color=_figure.THEORY, ls="--", label="symmetric matrices")
    axis.axhline(1, color=_figure.LIMIT, ls=":", label="a picket fence")
    axis.set(
        title="from repulsion towards a picket fence",
        xlabel="layers over width, d/n",
        ylabel="mean ratio of gaps of ln σ",
        xscale="log",
        ylim=(0.45, 1.03),
    )
