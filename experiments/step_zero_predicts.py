"""Between shapes, networks whose Jacobians start with larger norms train better; among
networks of one shape, the norm that a seed starts with says little about how well that
very seed trains.

Expected, for ReLU networks of width 24 on digits, trained for 100 steps from many seeds
(gradient descent on squared error, SGD with momentum and Adam on cross-entropy): the
rank correlation of ln ‖J u‖² at step 0 with the loss that the same seed ends with,
turned so that + means that large norms train better, is within ±0.5 for each β, and
above 0.5 over all these β together, because both go with β. Seeds that diverge count as
the worst.

Found, against the slogan: where most networks still train (β ≤ 1) seeds with larger
norms do no better, and rather worse, the more so by the norm of the gradient; only for
β = 4, with momentum above all, do small norms hold a seed back. (Intervals: bootstrap
over seeds, 95%.)

Figure: rank correlation of the norms at step 0 with the outcome of the same seed, and
one training seed by seed.
Time: 5 minutes on two CPU cores; --quick 20 s.
Command: python -m experiments step_zero_predicts
"""

import functools

import jax
import numpy as np
import optax
from scipy import stats

from experiments import _check, _data, _figure
from lognorm_jax import datasets, losses, networks, sampling, training

WIDTH, QUICK_WIDTH = 24, 12
BETAS, QUICK_BETAS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0), (0.25, 2.0)
STEPS, BATCH = 100, 64
LAST = 5  # steps whose losses are averaged at the end
TRAININGS = {  # optimizer at rate / depth, loss
    "descent": (lambda rate: optax.sgd(0.1 * rate), losses.squared_error),
    "momentum": (
        lambda rate: optax.sgd(0.3 * rate, momentum=0.9),
        losses.cross_entropy,
    ),
    "Adam": (lambda rate: optax.adam(0.03 * rate), losses.cross_entropy),
}
QUICK_TRAININGS = ("momentum",)
NUM_SAMPLES, QUICK_SAMPLES = 512, 256  # seeds
BLOCK = 32  # seeds
REPEATS = 1000  # of the bootstrap
MOST = 0.5  # rank correlation, within one network; over all of them it is larger
PARTS = ("log_norm", "gradient", "loss", "accuracy")  # what is kept of each seed
PAIRS = {  # quantity: predictor, outcome
    "ln ‖J u‖², loss": ("log_norm", "loss"),
    "ln ‖J u‖², accuracy": ("log_norm", "accuracy"),
    "ln ‖∂L/∂W‖², loss": ("gradient", "loss"),
}


def path_of(depth, width, name, batches, digits, tangent):
    """Return key -> ln ‖J u‖² and ln of the squared gradient norm at step 0; loss,
    accuracy.
    """
    network = networks.relu_mlp((64, *(width,) * depth, 10), fan="in", head="linear")
    optimizer, loss = TRAININGS[name]
    optimizer, probe = optimizer(1 / (depth + 1)), digits.test_inputs[0]

    fit = training.trainer(
        network, optimizer, loss, STEPS, probe=probe, tangent=tangent
    )
    path = training.path(fit, batches, observe=_data.accuracy(network, digits))

    def outcome(key):
        history, seen = path(key)
        gradient = jax.nn.logsumexp(history.log_gradient[0])
        return history.log_norm[0], gradient, history.loss[-LAST:].mean(), seen

    return outcome


def compute(job) -> dict:
    """Train every network in every way from many seeds; keep step 0 and the end."""
    num_samples = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    betas, width = job.count((BETAS, WIDTH), (QUICK_BETAS, QUICK_WIDTH))
    chosen = job.count(tuple(TRAININGS), QUICK_TRAININGS)
    digits = _data.digits()
    whole = digits.inputs[:BATCH], np.eye(10, dtype=np.float32)[digits.labels[:BATCH]]
    descent = tuple(np.broadcast_to(a, (STEPS, *a.shape)) for a in whole)
    drawn = datasets.batches(
        job.key("batches"), digits.inputs, digits.labels, STEPS, BATCH
    )
    tangent = np.asarray(jax.random.normal(job.key("tangent"), (64,)))

    engine = functools.partial(sampling.sample, block_size=BLOCK)
    results = {"betas": np.array(betas)} | {name: {} for name in chosen}
    for beta in betas:
        key = job.key(f"β = {beta:g}")  # the same networks for each training
        for name in chosen:
            batches = descent if name == "descent" else drawn
            path = path_of(round(beta * width), width, name, batches, digits, tangent)
            case = f"{name}, β = {beta:g}"
            parts = job.sample(case, path, num_samples, engine=engine, key=key)
            parts = dict(zip(PARTS, parts, strict=True))
            results[name][f"{beta:g}"] = parts
    return correlated(results)


def names(results) -> list[str]:
    """Return the trainings of results."""
    return [name for name in TRAININGS if name in results]


def correlated(results) -> dict:
    """Return results with the rank correlations of each training: (betas and all
    together, 3).
    """
    betas = results["betas"]
    found = {"betas": betas} | {name: dict(results[name]) for name in names(results)}
    for name in names(results):
        for pair in PAIRS.values():
            x, y = (
                [results[name][f"{beta:g}"][part] for beta in betas] for part in pair
            )
            sign = -1 if pair[1] == "loss" else 1
            x, y = ([*parts, np.concatenate(parts)] for parts in (x, y))
            seen = [rank_correlation(a, sign * b) for a, b in zip(x, y, strict=True)]
            found[name][", ".join(pair)] = np.array(seen)
    return found


def rank_correlation(x, y) -> tuple[float, float, float]:
    """Return Spearman's rank correlation and its 95% interval, by bootstrap of the
    pairs.
    """

    def statistic(x, y, axis=-1):
        x, y = (stats.rankdata(values, axis=axis) for values in (x, y))
        x, y = (values - values.mean(axis, keepdims=True) for values in (x, y))
        return np.sum(x * y, axis) / np.sqrt(np.sum(x**2, axis) * np.sum(y**2, axis))

    found = stats.bootstrap(
        (x, y),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=REPEATS,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(statistic(x, y)), float(found.low), float(found.high)


def check(results) -> list[_check.Row]:
    """Hold correlations to be weak within each network, and strong over all of them."""
    rows = []
    for name in names(results):
        for i, beta in enumerate([*results["betas"], None]):
            case = f"{name}, " + ("all β" if beta is None else f"β = {beta:g}")
            for quantity in PAIRS:
                seen = results[name][", ".join(PAIRS[quantity])][i]
                first = quantity == next(iter(PAIRS))
                if not first:
                    rows.append(_check.above(case, quantity, *seen))
                elif beta is None:
                    rows.append(_check.above(case, quantity, *seen, MOST))
                else:
                    rows.append(_check.between(case, quantity, *seen, MOST))
            if beta is not None:
                loss_now, accuracy = (
                    results[name][f"{beta:g}"][part] for part in ("loss", "accuracy")
                )
                rows += [
                    _check.show(case, "median loss", np.median(loss_now)),
                    _check.show(case, "median accuracy", np.median(accuracy)),
                    _check.show(case, "diverged", np.mean(np.isinf(loss_now))),
                ]
    return rows


def draw(results):
    """Draw rank correlations against β, and one training seed by seed."""
    figure, axes = _figure.grid([["norm", "gradient", "seeds"]], (15.5, 5))
    for axis, quantity in (
        ("norm", "ln ‖J u‖², loss"),
        ("gradient", "ln ‖∂L/∂W‖², loss"),
    ):
        _draw_correlations(axes[axis], results, quantity)
    axes["norm"].set(title="ln ‖J u‖² at step 0, and how well it trains")
    axes["gradient"].set(title="ln ‖∂L/∂W‖² at step 0, likewise")
    axes["norm"].legend(loc="lower left")
    _draw_seeds(axes["seeds"], results, names(results)[-1])
    return figure


def _draw_correlations(axis, results, quantity):
    """Draw the rank correlations of each training, at each β and over all."""
    betas = results["betas"]
    # all β together have a place of their own, beyond a dotted line
    places = np.append(betas, 2.5 * betas[-1])
    axis.axvline(1.6 * betas[-1], color=_figure.THEORY, lw=0.8, ls=":")
    axis.axhline(0, color=_figure.THEORY, lw=1)
    styles = zip(names(results), _figure.PALETTE, "osD", (-1, 0, 1), strict=False)
    for name, color, marker, shift in styles:
        value, low, high = results[name][", ".join(PAIRS[quantity])].T
        bars = [value - low, high - value]
        style = {"fmt": marker, "color": color, "capsize": 3, "label": name}
        axis.errorbar(places * 1.07**shift, value, bars, **style)

    ticks = [*(f"{beta:.3g}" for beta in betas), "all β"]
    axis.set(xscale="log", xticks=places, xticklabels=ticks, ylim=(-1, 1))
    axis.minorticks_off()
    axis.set(xlabel="β = Σ 1/width")
    axis.set(ylabel="rank correlation (± 95% CI)")


def _draw_seeds(axis, results, name):
    """Draw the norm that each seed of a training starts with, and its loss."""
    betas = results["betas"]
    for beta, color in zip(betas, _figure.shades(len(betas)), strict=True):
        parts = results[name][f"{beta:g}"]
        x, y = parts["log_norm"], parts["loss"]
        seen = np.isfinite(x) & np.isfinite(y)
        style = {"s": 5, "color": color, "alpha": 0.6, "label": f"β = {beta:g}"}
        axis.scatter(x[seen], y[seen], **style)
    axis.set(
        yscale="log",
        xlabel="ln ‖J u‖² of a seed at step 0",
        ylabel="its loss after 100 steps",
        title=f"{name}: β matters, a seed's own norm hardly",
    )
    axis.legend(markerscale=3)
