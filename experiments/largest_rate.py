"""How large the learning rate of a seed may be goes with the width of the network more
than with depth × width, and how much that differs between seeds goes with β.

Expected, for ReLU networks of widths 16, 48 and 128 and depths of β times these, one
digit and gradient descent of 50 steps: at every β the mean over seeds of the log of the
largest rate that works falls with depth × width. Of what that mean differs by between
networks, the best monotone function of the width alone explains more, beyond chance,
than that of depth × width; and of ln Var over seeds β alone explains more than 0.4. A
rate works if numbers stay finite, the loss does not rise and no layer is turned off for
good; it is found by halving, to 7%.

Found, against what is said of the largest rate (that it falls as 1/(depth × width)): in
narrow networks it falls more slowly, as the power 0.5 to 0.7 of that, and the power
nears 1 as widths grow. Of networks of equal width the deeper ones bear the larger
rates, since most of them have small gradients. Its law over seeds is roughly
log-normal, with a log-variance of 0.5 at β = 1/4 and 1.3 at β = 1, whatever the width.
(Intervals: bootstrap over seeds.)

Figure: the largest rate over depth × width, its spread over β, and what explains both.
Time: 35 minutes on two CPU cores; --quick 40 s.
Command: python -m experiments largest_rate
"""

import functools
import itertools

import numpy as np
from scipy import stats

from experiments import _check, _edge, _explained, _figure
from lognorm_jax import sampling, summaries

BETAS, QUICK_BETAS = (0.25, 0.5, 1.0, 2.0), (0.25, 1.0)
NUM_SAMPLES = {16: 512, 48: 256, 128: 32}  # seeds of each width
QUICK_SAMPLES = {16: 128, 48: 48}
BLOCK = 16  # seeds
PREDICTORS = ("depth × width", "β", "depth", "width")
OUTCOMES = {"mean": "E ln rate", "log_variance": "ln Var ln rate"}
REPEATS = 400  # of the bootstrap
LEAST = 0.4  # of the spread, what β explains of three widths


def compute(job) -> dict:
    """Find the largest rate of every network from many seeds; resample the seeds."""
    results: dict = {"shape": [], "log_rate": {}}
    counts = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    for width, beta in itertools.product(counts, job.count(BETAS, QUICK_BETAS)):
        depth = round(beta * width)
        engine = functools.partial(
            sampling.sample, block_size=min(BLOCK, counts[width])
        )
        case = f"β = {beta:g}, n = {width}"
        found = job.sample(
            case, _edge.path_of(depth, width), counts[width], engine=engine
        )
        results["shape"].append((beta, depth, width))
        results["log_rate"][case] = found - np.log(_edge.size(depth, width))
    results["shape"] = np.array(results["shape"])
    results["explained"] = {name: explained(results, name) for name in OUTCOMES}
    return results


def predictors(results) -> np.ndarray:  # (PREDICTORS, networks)
    """Return the numbers of each shape that may explain its rates."""
    beta, depth, width = results["shape"].T
    return np.stack([width * (depth + 1), beta, depth, width])


def resampled(results, name, seed: int = 0) -> np.ndarray:  # (networks, 1 + REPEATS)
    """Return an outcome of each network, and of seeds drawn from its own again."""
    statistic = {
        "mean": np.mean,
        "log_variance": lambda x: np.log(np.var(x, ddof=1)),
    }[name]
    rng = np.random.default_rng(seed)
    rates = results["log_rate"].values()
    return np.array([_explained.resampled(x, statistic, rng, REPEATS) for x in rates])


def explained(results, name) -> np.ndarray:  # (PREDICTORS, 1 + REPEATS)
    """Return what each number of the shape explains of an outcome."""
    return _explained.fractions(predictors(results), resampled(results, name).T)


def slopes(results) -> dict[str, np.ndarray]:
    """Return d E ln rate/d ln(depth × width) at each β, resampled, (1 + REPEATS,)."""
    means = resampled(results, "mean", seed=1)
    sizes, betas = np.log(predictors(results)[0]), results["shape"][:, 0]
    found = {}
    for beta in np.unique(betas):
        x, y = sizes[betas == beta], means[betas == beta]
        x = x - x.mean()
        found[f"β = {beta:g}"] = x @ y / (x @ x)
    return found


def outside(results, case: str) -> float:
    """Return the share of seeds whose rate is at an end of where it was looked for."""
    shape = results["shape"][list(results["log_rate"]).index(case)]
    scaled = results["log_rate"][case] + np.log(_edge.size(*shape[1:]))
    low, high = np.log(_edge.RANGE)
    step = (high - low) / 2**_edge.HALVINGS
    return float(np.mean((scaled < low + step) | (scaled > high - step)))


def check(results) -> list[_check.Row]:
    """Hold that rates fall with depth × width, and were looked for where they are; show
    their law over seeds, and what explains it.
    """
    rows = []
    for case, rates in results["log_rate"].items():
        mean, variance, _ = summaries.estimate(rates)
        scaled = (rates - rates.mean()) / rates.std(ddof=1)
        rows += [
            _check.show(case, "E ln rate", *mean),
            _check.show(case, "Var ln rate", *variance),
            _check.show(case, "skewness", stats.skew(rates)),
            _check.show(case, "KS to normal", stats.kstest(scaled, "norm").statistic),
            _check.below(case, "at an end of the range", outside(results, case), 0.02),
        ]
    for case, draws in slopes(results).items():
        rows.append(
            _check.above(
                case,
                "−d E ln rate/d ln(depth × width)",
                *_explained.interval(-draws),
                0.0,
            )
        )
    return rows + _share_rows(results)


def _share_rows(results) -> list[_check.Row]:
    """Hold that β explains the spread, and width the mean more than depth × width."""
    rows = []
    several = len(np.unique(results["shape"][:, 2])) > 2
    for name, label in OUTCOMES.items():
        share = dict(zip(PREDICTORS, results["explained"][name], strict=True))
        for predictor, draws in share.items():
            judged = several and (predictor, name) == ("β", "log_variance")
            bound = LEAST if judged else None
            told = _explained.interval(draws)
            rows.append(_check.above(f"explained by {predictor}", label, *told, bound))
    share = dict(zip(PREDICTORS, results["explained"]["mean"], strict=True))
    told = _explained.interval(share["width"] - share["depth × width"])
    case = "width beyond depth × width"
    rows.append(_check.above(case, OUTCOMES["mean"], *told, 0.0 if several else None))
    return rows


def draw(results):
    """Draw the rates over depth × width, their variance over β, and what explains
    both.
    """
    figure, axes = _figure.grid([["rate", "variance", "explained"]], (17, 5.5))
    _draw_rates(axes["rate"], results)
    _draw_variance(axes["variance"], results)
    _draw_explained(axes["explained"], results["explained"])
    return figure


def _draw_rates(axis, results):
    """Draw the median rate of each network, and where eight tenths of its seeds are."""
    shape, sizes = results["shape"], predictors(results)[0]
    rates = np.array(
        [np.exp(np.quantile(x, (0.5, 0.1, 0.9))) for x in results["log_rate"].values()]
    )
    betas = np.unique(shape[:, 0])
    for beta, color in zip(betas, _figure.shades(len(betas)), strict=True):
        chosen = shape[:, 0] == beta
        middle, low, high = rates[chosen].T
        style = {"fmt": "o-", "capsize": 3, "color": color, "label": f"β = {beta:g}"}
        axis.errorbar(sizes[chosen], middle, [middle - low, high - middle], **style)
    ends = np.array([sizes.min(), sizes.max()])
    reference = rates[:, 0].max() * (ends / ends[0]) ** -1.0
    style = {"color": _figure.THEORY, "ls": ":", "label": "∝ 1/(depth × width)"}
    axis.plot(ends, reference, **style)
    axis.set(xscale="log", yscale="log", title="the largest rate of a seed")
    axis.set(xlabel="width × number of matrices")
    axis.set(ylabel="learning rate (median; bars: 10% to 90%)")
    axis.legend()


def _draw_variance(axis, results):
    """Draw the variance of the log of the rate over seeds, over β."""
    shape, cases = results["shape"], np.array(list(results["log_rate"]))
    widths = np.unique(shape[:, 2])
    for width, color, marker in zip(widths, _figure.PALETTE, "osD", strict=False):
        chosen = shape[:, 2] == width
        found = [
            summaries.estimate(results["log_rate"][case]).variance
            for case in cases[chosen]
        ]
        variance, error = np.array(found).T
        style = {"fmt": marker + "-", "capsize": 3, "color": color}
        label = f"width {width:.0f}"
        axis.errorbar(shape[chosen, 0], variance, 2 * error, label=label, **style)
    betas = np.unique(shape[:, 0])
    axis.set(xscale="log", xticks=betas, xticklabels=[f"{beta:g}" for beta in betas])
    axis.minorticks_off()
    axis.set(title="its spread over seeds", xlabel="β = hidden layers / width, d/n")
    axis.set(ylabel="Var ln rate over seeds (± 2 s.e.)", ylim=(0, None))
    axis.legend()


def _draw_explained(axis, told):
    """Draw what each number of the shape explains of the mean and of the spread."""
    places = np.arange(len(PREDICTORS))
    labels = {"mean": "mean of ln rate", "log_variance": "its spread (ln Var)"}
    for shift, (name, label), color in zip(
        (-0.2, 0.2), labels.items(), _figure.PALETTE, strict=False
    ):
        value, low, high = np.array([_explained.interval(x) for x in told[name]]).T
        ends = [np.maximum(value - low, 0), np.maximum(high - value, 0)]
        axis.bar(places + shift, value, 0.38, yerr=ends, label=label, color=color)
    axis.axhline(0, color=_figure.THEORY, lw=0.8)
    axis.set(xticks=places, xticklabels=PREDICTORS, title="what one number explains")
    axis.set(ylabel="share of variance explained,\nchance-corrected, 95% CI")
    axis.set(ylim=(-0.6, 1.3))
    axis.legend(ncols=2, loc="upper center")
