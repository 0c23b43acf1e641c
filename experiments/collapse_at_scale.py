"""As networks grow at fixed β, training itself becomes a function of β, if the learning
rate falls as 1/(width × depth).

Expected, for ReLU networks on digits (squared error, gradient descent on one new image
a step), β = depth/width of 1/4 to 2, widths 32, 128, 512 and, where there is a GPU,
2,048: before the first step the variance over seeds of ln ‖J u‖² is that of the exact
law within 5 standard errors, in each network and in all together. Of what ln Var
ln ‖J u‖² and ln Var ln ‖∂L/∂W‖² (W the middle layer) differ by between networks, β
alone explains more than 0.4, with all of its interval, and more than depth, before the
first step and after 50. So it is at three scalings of the rate: fixed (c/width),
1/depth (c/(width × depth)), and the largest of 1, 4 and 16 times the latter with which
no more than a tenth of the seeds are lost (diverge, or die); networks of which most are
lost are left out.

Found: after 50 steps β explains 0.7 to 0.9 of the variances and depth nothing; that
depth says as much (``training_stability``) is so of widths below 100, not of deep
networks. With rates that fall as 1/(width × depth) the curve of each step settles at
fixed β: from width 32 to 128 the variances fall by a sixth to a third, and from there
to 2,048 by no more than the seeds can tell. A fixed rate loses up to a quarter of the
seeds as networks grow, while the largest stable one, times width × depth, grows with
the width. (Without width 32 β explains as much, but at a fixed rate of ‖J u‖² not
surely more than depth does; widths 512 and 2,048 alone are too few networks to tell.
In the first steps a few seeds' gradients grow by orders of magnitude, and β explains
less. Networks weigh by their seeds, whose noise lowers what is explained; intervals are
of what variances may be in truth, of nearly normal samples, and too narrow of 8 to 48
seeds with heavier tails. The stored record joins two runs: on CPUs, and on an H200 all
of width 2,048 with 8 to 12 seeds, width 512 at β = 2, and 32 of its 48 seeds at β ≤
1/2. At width 2,048, where no weights are drawn, rounding alone, as between a CPU and a
GPU, makes another path of a seed after three steps, of the same law.)

Figure: variance of gradients over width at fixed β, before the first step and after 50;
what explains it.
Time: 50 minutes on two CPU cores, to width 512; 20 minutes on an H200, with width
2,048; --quick 40 s.
Command: python -m experiments collapse_at_scale
"""

import functools
import itertools

import jax
import numpy as np
import optax

from experiments import _check, _data, _edge, _explained, _figure
from lognorm_jax import exact, losses, sampling, training

BETAS, QUICK_BETAS = (0.25, 0.5, 1.0, 2.0), (0.25, 1.0)
# seeds of each width: on CPUs in an hour; where there is a GPU
NUM_SAMPLES = {32: 256, 128: 64, 512: 16}
NUM_ON_GPU = {32: 256, 128: 256, 512: 32, 2048: 10}
QUICK_SAMPLES = {16: 64, 48: 64}
LARGEST = {"cpu": 512 * 512, "gpu": 2048 * 4096}  # units of a network; more take hours
DRAWN = 512  # width up to which a GPU draws the weights
# bytes a rate: of weights and what training makes of them; of what matrices met, 408
# vectors a layer of 50 steps
BYTES = {True: 3.3 * 4, False: 1.7 * 4 * 408}
BLOCK = 8  # seeds
# learning rate × width × number of matrices, of so many matrices
RATES = {
    "fixed": lambda matrices: 2 * matrices / 9,
    "2 per depth": lambda matrices: 2.0,
    "8 per depth": lambda matrices: 8.0,
    "32 per depth": lambda matrices: 32.0,
}
# what falls as 1/(width × depth), from small to large
STABLE = ("2 per depth", "8 per depth", "32 per depth")
LOST = 0.1  # of the seeds may diverge, or die, at the largest stable rate
SCALINGS = ("fixed", "per depth", "largest")
OUTCOMES = {"log_norm": "Var ln ‖J u‖²", "log_gradient": "Var ln ‖∂L/∂W‖²"}
PREDICTORS = ("β", "depth", "width")
SHOWN = (0, 1, 2, 5, 10, 20, 35, 50)  # steps at which the collapse is measured
REPEATS = 400  # draws of what variances may be in truth
# what β must explain in every scaling, with all of its interval, before the first step
# and after the last, and that it is more than depth explains; of three widths
LEAST = 0.4
JUDGED = (0, 50)


def shapes(job) -> list[tuple[float, int, int, int]]:
    """Return β, number of hidden layers, width and seeds of each network."""
    counts = job.count(NUM_ON_GPU if _on_gpu() else NUM_SAMPLES, QUICK_SAMPLES)
    largest = LARGEST["gpu" if _on_gpu() else "cpu"]
    found = []
    for width, beta in itertools.product(counts, job.count(BETAS, QUICK_BETAS)):
        depth = round(beta * width)
        if depth * width <= largest:
            found.append((beta, depth, width, counts[width]))
    return found


@functools.cache
def cumulants_of(depth: int, width: int) -> tuple[float, ...]:
    """Return the exact cumulants of ln ‖J u‖² before the first step."""
    return exact.cumulants(_edge.network_of(depth, width).ensemble)


def path_of(depth: int, width: int, seeds: int = 1):
    """Return key -> (ln ‖J u‖², ln ‖∂L/∂W‖² of the middle layer), (seeds, rates, steps)
    each: networks from one key, each at each rate.
    """
    network, batches = _edge.network_of(depth, width), _edge.images(_edge.STEPS)
    probe = _data.digits().test_inputs[0]
    tangent = np.random.default_rng(0).normal(size=64)
    rates = np.array([rate(depth + 1) for rate in RATES.values()], np.float32)
    rates = rates / _edge.size(depth, width)

    def one(key, rate):
        fit = training.trainer(
            network,
            optax.sgd(rate),
            losses.squared_error,
            _edge.STEPS,
            probe=probe,
            tangent=tangent,
            drawn=width <= DRAWN if _on_gpu() else None,
        )
        history = training.path(fit, batches)(key)
        return history.log_norm, history.log_gradient[..., depth // 2]

    def path(key):
        keys = jax.random.split(key, seeds)
        return jax.vmap(lambda key: jax.vmap(lambda rate: one(key, rate))(rates))(keys)

    return path


def _on_gpu() -> bool:
    return jax.default_backend() == "gpu"


def group_of(depth: int, width: int, count: int) -> int:
    """Return how many seeds are trained at once: on a GPU as many as fit, which take
    the time of one.
    """
    if not _on_gpu():
        return 1
    drawn = width <= DRAWN
    each = depth * width * len(RATES) * BYTES[drawn] * (width if drawn else 1)
    memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 2**34)
    groups = -(-count // max(1, int(0.9 * memory / each)))
    return -(-count // groups)


def compute(job) -> dict:
    """Train every network from many seeds; resample the seeds."""
    chosen = shapes(job)
    results = {"shape": np.array([shape[:3] for shape in chosen]), "networks": {}}
    for beta, depth, width, count in chosen:
        case = f"β = {beta:g}, n = {width}"
        group = group_of(depth, width, count)
        block = 1 if group > 1 else min(BLOCK, count)
        found = job.sample(
            case,
            path_of(depth, width, group),
            -(-count // group),
            engine=functools.partial(sampling.sample, block_size=block),
        )
        results["networks"][case] = dict(
            zip(OUTCOMES, (x.reshape(-1, *x.shape[2:]) for x in found), strict=True)
        )
    results["explained"] = {
        scaling: {outcome: explained(results, scaling, outcome) for outcome in OUTCOMES}
        for scaling in SCALINGS
    }
    return results


def labels(results) -> list[str]:
    """Return the cases of results, one a network."""
    return list(results["networks"])


def lost(results, case: str) -> np.ndarray:  # (rates,)
    """Return the share of seeds that diverged, or died, at each rate."""
    ends = [outcome[:, :, -1] for outcome in results["networks"][case].values()]
    return np.mean(~np.all(np.isfinite(ends), axis=0), axis=0)


def rate_of(results, case: str, scaling: str) -> int | None:
    """Return which rate a network has in a scaling; None: there is none."""
    names = list(RATES)
    if scaling == "fixed":
        return names.index(scaling)
    stable = [names.index(name) for name in STABLE]
    if scaling == "per depth":
        return stable[0]
    shares = lost(results, case)
    works = [i for i in stable if shares[i] <= LOST]
    return works[-1] if works else None


def samples(results, case: str, scaling: str, outcome: str) -> np.ndarray:
    """Return what came of each seed before each step, (seeds, steps): NaN without a
    rate.
    """
    place = rate_of(results, case, scaling)
    every = results["networks"][case][outcome]
    return every[:, 0] * np.nan if place is None else every[:, place]


# (predictors, steps of SHOWN, 1 + REPEATS)
def explained(results, scaling, outcome, steps=SHOWN, least=0) -> np.ndarray:
    """Return what each predictor explains of the log of the variance, at steps, and
    draws of it; of networks of a least width that mostly train, by weights.
    """
    rng, found = np.random.default_rng(0), []
    cases = np.array(labels(results))
    kept = np.array([trains(results, case, scaling) for case in cases])
    kept &= results["shape"][:, 2] >= least
    if kept.sum() < 2:
        return np.full((len(PREDICTORS), len(steps), 1 + REPEATS), np.nan)
    shape = results["shape"][kept].T
    for step in steps:
        values = [
            finite(samples(results, case, scaling, outcome)[:, step])
            for case in cases[kept]
        ]
        draws = [_explained.log_variances(x, rng, REPEATS) for x in values]
        weights = np.array([weight(x) for x in values])
        found.append(_explained.fractions(shape, np.array(draws).T, weights))
    return np.stack(found, axis=1)


def finite(values) -> np.ndarray:
    """Return the finite values, in float64."""
    values = np.asarray(values, np.float64)
    return values[np.isfinite(values)]


def weight(values) -> int:
    """Return the weight of the logarithm of the variance of so many seeds: what it is
    wrong by has, for nearly normal values, a variance of 2 over this.
    """
    return len(values) - 1


def trains(results, case: str, scaling: str) -> bool:
    """Return whether half of the seeds of a network or more are not lost."""
    place = rate_of(results, case, scaling)
    return place is not None and bool(lost(results, case)[place] <= 0.5)


def settled(results, scaling, outcome, step) -> dict[str, np.ndarray]:
    """Return, of two widths that follow one another, the mean over β of ln of the ratio
    of their variances, by weights, and draws of it, (1 + REPEATS,).
    """
    rng, found = np.random.default_rng(2), {}
    widths = np.unique(results["shape"][:, 2])
    by_shape = {
        (beta, width): case
        for case, (beta, _, width) in zip(
            labels(results), results["shape"], strict=True
        )
    }
    for one, other in itertools.pairwise(widths):
        ratios, weights = [], []
        for beta in np.unique(results["shape"][:, 0]):
            pair = [by_shape.get((beta, width)) for width in (one, other)]
            if None in pair or not all(trains(results, c, scaling) for c in pair):
                continue
            values = [
                finite(samples(results, c, scaling, outcome)[:, step]) for c in pair
            ]
            small, large = (_explained.log_variances(x, rng, REPEATS) for x in values)
            ratios.append(large - small)
            weights.append(1 / sum(1 / weight(x) for x in values))
        if ratios:
            name = f"{one:.0f} → {other:.0f}"
            found[name] = np.average(ratios, axis=0, weights=weights)
    return found


def check(results) -> list[_check.Row]:
    """Hold step 0 against the exact law; show what differs with width at fixed β, and
    what explains the variances.
    """
    rows = _start_rows(results)
    for case, (_, depth, _) in zip(labels(results), results["shape"], strict=True):
        shares = dict(zip(RATES, lost(results, case), strict=True))
        for name, share in shares.items():
            rows.append(_check.show(case, f"lost, {name}", share))
        place = rate_of(results, case, "largest")
        if place is not None:
            largest = list(RATES.values())[place](int(depth) + 1)
            rows.append(_check.show(case, "largest stable", largest))
    for scaling, (outcome, label) in itertools.product(SCALINGS, OUTCOMES.items()):
        rows += _share_rows(results, scaling, outcome, label)
        rows += _wide_rows(results, scaling, outcome, label)
        for step in (0, 10, 50):
            ratios = settled(results, scaling, outcome, step)
            for widths, draws in ratios.items():
                case = f"ln ratio, n = {widths}, {scaling}, step {step}"
                rows.append(_check.above(case, label, *_explained.interval(draws)))
    return rows


def _start_rows(results) -> list[_check.Row]:
    """Hold the variances before the first step against the exact law, one by one and
    all together, with the standard errors that they have under that law.
    """
    rows, ratios, variances = [], [], []
    for case, (_, depth, width) in zip(labels(results), results["shape"], strict=True):
        start = finite(results["networks"][case]["log_norm"][:, 0, 0])
        _, expected, _, fourth = cumulants_of(int(depth), int(width))
        relative = 2 / weight(start) + fourth / expected**2 / len(start)
        found = np.var(start, ddof=1)
        told = found, expected * relative**0.5, expected
        rows.append(_check.agree(case, OUTCOMES["log_norm"], *told))
        ratios.append(found / expected)
        variances.append(relative)
    mean = np.average(ratios, weights=1 / np.array(variances))
    error = np.sum(1 / np.array(variances)) ** -0.5
    quantity = f"{OUTCOMES['log_norm']}, in units of the law's"
    return [*rows, _check.agree("all networks", quantity, mean, error, 1.0)]


def _share_rows(results, scaling, outcome, label) -> list[_check.Row]:
    """Hold what β explains against what depth and width do."""
    rows = []
    several = len(np.unique(results["shape"][:, 2])) > 2
    told = results["explained"][scaling][outcome]
    for step in (0, 10, 50):
        share = dict(zip(PREDICTORS, told[:, SHOWN.index(step)], strict=True))
        judged = several and step in JUDGED
        for predictor, draws in share.items():
            case = f"explained by {predictor}, {scaling}, step {step}"
            bound = LEAST if judged and predictor == "β" else None
            told_of = _explained.interval(draws)
            rows.append(_check.above(case, label, *told_of, bound))
        for other in ("depth", "width"):
            case = f"β beyond {other}, {scaling}, step {step}"
            told_of = _explained.interval(share["β"] - share[other])
            bound = 0.0 if judged and other == "depth" else None
            rows.append(_check.above(case, label, *told_of, bound))
    return rows


def _wide_rows(results, scaling, outcome, label) -> list[_check.Row]:
    """Show what β and depth explain after training as narrow networks are left out."""
    rows, last = [], SHOWN[-1]
    for least in np.unique(results["shape"][:, 2])[1:-1]:
        told = explained(results, scaling, outcome, (last,), least)
        share = dict(zip(PREDICTORS, told[:, 0], strict=True))
        share["β beyond depth"] = share["β"] - share["depth"]
        for name in ("β", "depth", "β beyond depth"):
            case = f"explained by {name}, n ≥ {least:.0f}, {scaling}, step {last}"
            rows.append(_check.above(case, label, *_explained.interval(share[name])))
    return rows


def draw(results):
    """Draw the variance of gradients over width at fixed β, and what explains it."""
    layout = [["start", "end", "explained"]]
    figure, axes = _figure.grid(layout, (17, 5.5))
    _draw_variance(axes["start"], results, 0)
    _draw_variance(axes["end"], results, 50)
    _draw_explained(axes["explained"], results)
    return figure


def _draw_variance(axis, results, step):
    """Draw the variance of the gradient over seeds at a step, over width."""
    shape = results["shape"]
    betas = np.unique(shape[:, 0])
    lines = {"per depth": ("-", "o"), "largest": ("--", "s")}
    for i, color in enumerate(_figure.shades(len(betas))):
        cases = np.array(labels(results))[shape[:, 0] == betas[i]]
        widths = shape[shape[:, 0] == betas[i], 2]
        for j, (scaling, (line, marker)) in enumerate(lines.items()):
            if step == 0 and scaling != "per depth":
                continue
            value, low, high = _variances(results, cases, scaling, step)
            label = f"β = {betas[i]:g}" if scaling == "per depth" else None
            # beside one another, that intervals do not hide each other
            places = widths * 1.09 ** (i + 0.5 * j - len(betas) / 2)
            style = {"fmt": marker + line, "ms": 6, "capsize": 3, "color": color}
            errors = value - low, high - value
            axis.errorbar(places, value, errors, label=label, **style)
    _figure.log_widths(axis, np.unique(shape[:, 2]).astype(int))
    heights = (0.3, 1, 3, 10, 30)
    axis.set(yscale="log", xlabel="width n (depth β n)", yticks=heights)
    axis.set(yticklabels=[f"{height:g}" for height in heights], ylim=(0.2, 70))
    axis.minorticks_off()
    axis.set(ylabel="Var ln ‖∂L/∂W‖² over seeds (95% CI)")
    handles = axis.get_legend_handles_labels()[0]
    if step:
        shown = {"color": _figure.THEORY}
        handles = [
            _figure.entry(f"rate: {scaling}", ls=line, marker=marker, **shown)
            for scaling, (line, marker) in lines.items()
        ]
    axis.legend(handles=handles)
    axis.set(title=f"after {step} steps" if step else "before the first step")


def _variances(results, cases, scaling, step) -> np.ndarray:  # (3, networks)
    """Return the variance of the gradient of each network, and its interval."""
    rng, found = np.random.default_rng(3), []
    for case in cases:
        values = finite(samples(results, case, scaling, "log_gradient")[:, step])
        if len(values) > 3:
            draws = _explained.log_variances(values, rng, REPEATS)
            found.append(np.exp(_explained.interval(draws)))
        else:
            found.append(np.full(3, np.nan))
    return np.array(found).T


def _draw_explained(axis, results):
    """Draw what each number of the shape explains, step by step."""
    lines = dict(zip(SCALINGS, (":", "-", "--"), strict=True))
    for scaling, line in lines.items():
        told = results["explained"][scaling]["log_gradient"]
        for predictor, draws, color in zip(
            PREDICTORS, told, _figure.PALETTE, strict=False
        ):
            found = np.array([_explained.interval(step) for step in draws])
            value, low, high = found.T
            label = predictor if scaling == "per depth" else None
            axis.plot(SHOWN, value, line, color=color, label=label)
            if scaling == "per depth":
                axis.fill_between(SHOWN, low, high, color=color, alpha=0.15, lw=0)
    black = {"color": _figure.THEORY}
    styles = [
        _figure.entry(f"rate: {s}", ls=line, **black) for s, line in lines.items()
    ]
    handles = [*axis.get_legend_handles_labels()[0], *styles]
    axis.legend(handles=handles, ncols=2, loc="upper center")
    axis.set_xscale("symlog", linthresh=2)
    ticks = [step for step in SHOWN if step != 35]  # whose number would touch 50
    axis.set(xticks=ticks, xticklabels=ticks)
    axis.minorticks_off()
    axis.set(
        title="what one number of the shape explains\nof Var ln ‖∂L/∂W‖²",
        xlabel="number of steps trained",
        ylabel="share of variance explained,\nchance-corrected, 95% CI",
        ylim=(-0.4, 1.6),
        yticks=np.arange(-0.4, 1.1, 0.2),
    )
