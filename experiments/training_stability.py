"""Before the first step the Jacobian is as unstable as β = Σ 1/width says, whatever
depth and width are, and gradients nearly so; training shrinks their log-variance, and
then depth matters too.

Expected, for ReLU networks on digits (squared error, gradient descent on 64 images,
learning rate 0.1/depth), three widths for each β: before the first step the variance of
ln ‖J u‖² is that of the exact law within 5 standard errors, which is 5β and what the
linear head and finite width add. The best monotone function of β alone explains, beyond
chance, more than 0.9 of what the log of that variance differs by between these
networks, and more than depth or width alone does; and so it is for ln ‖∂L/∂W‖², W the
middle layer, of the batch and of one image. After 50 steps the variance of ln ‖∂L/∂W‖²
is smaller than at first in every network, for the seeds that did not diverge; depth
then explains more than 0.9 of it, β more than 0.8, and depth as much as β or more (to
0.05); of ln ‖J u‖² β still explains more than 0.8.

Found, against the slogan: before the first step β alone explains 0.99 of the variance
of ln ‖J u‖², depth alone 0.77, width alone nothing; of ln ‖∂L/∂W‖² after 50 steps depth
explains 0.97, β 0.88. The gradient of one image collapses onto β as J does, that of
a batch less so, because the images become alike with depth and then average out less.
In the first two steps its variance rises in many networks, up to tenfold, before it
falls; and once trained for a few steps it goes with depth as much as with β, or more.
That of ln ‖J u‖², at an image and in a direction that were not trained on, hardly
changes. (Intervals: bootstrap over seeds.)

Figure: the collapse of the log-variance onto β before the first step, what training
makes of it, and what shape explains.
Time: 8 minutes on two CPU cores; --quick 40 s.
Command: python -m experiments training_stability
"""

import functools
import itertools

import jax
import numpy as np
import optax

from experiments import _check, _collapse, _data, _explained, _figure
from experiments._collapse import OUTCOMES, PREDICTORS, SHOWN
from lognorm_jax import exact, laws, losses, networks, sampling, summaries, training

BETAS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
WIDTHS = (20, 40, 80)
# β, width: each is a compilation, and so few must tell β from depth and width
QUICK_SHAPES = (0.25, 20), (0.25, 40), (1.0, 40), (2.0, 10)
STEPS = 51  # what was so before steps 0 to 50
BATCH = 64  # images, the same in each step
RATE = 0.1  # learning rate × depth
NUM_SAMPLES = 256  # seeds, in quick runs too: intervals of what is explained are judged
BLOCK = 32  # seeds
REPEATS = 400  # of the bootstrap


def cases(quick: bool) -> dict[str, tuple[float, int, int]]:
    """Return β, number of hidden layers and width of each network."""
    shapes = QUICK_SHAPES if quick else itertools.product(BETAS, WIDTHS)
    return {f"β = {b:g}, n = {n}": (b, round(b * n), n) for b, n in shapes}


def network_of(depth: int, width: int):
    """Return the network with so many hidden layers."""
    return networks.relu_mlp((64, *(width,) * depth, 10), fan="in", head="linear")


@functools.cache
def law_of(depth: int, width: int) -> laws.Law:
    """Return the exact law of ln ‖J u‖² before the first step."""
    return exact.law(network_of(depth, width).ensemble)


def path_of(depth, width, images, targets, steps, probe, tangent):
    """Return key -> (History, ln ‖∂L/∂W‖² of the first image at step 0) of one
    network.
    """
    network, optimizer = network_of(depth, width), optax.sgd(RATE / (depth + 1))
    make = functools.partial(
        training.trainer,
        network,
        optimizer,
        losses.squared_error,
        probe=probe,
        tangent=tangent,
    )
    whole = (np.broadcast_to(a, (steps, *a.shape)) for a in (images, targets))
    path = training.path(make(steps), tuple(whole))
    single = training.path(make(1), (images[None, :1], targets[None, :1]))

    def both(key):
        return path(key), single(key).log_gradient[0, depth // 2]

    return both


def compute(job) -> dict:
    """Train every network from many seeds; resample the seeds."""
    chosen = cases(job.quick)
    digits = _data.digits()
    images = digits.inputs[:BATCH]
    targets = np.eye(10, dtype=np.float32)[digits.labels[:BATCH]]
    tangent = np.asarray(jax.random.normal(job.key("tangent"), (64,)))
    probe = digits.test_inputs[0]

    engine = functools.partial(sampling.sample, block_size=BLOCK)
    results = {"shape": np.array(list(chosen.values())), "networks": {}}
    for case, (_, depth, width) in chosen.items():
        path = path_of(depth, width, images, targets, STEPS, probe, tangent)
        history, single = job.sample(case, path, NUM_SAMPLES, engine=engine)
        results["networks"][case] = {
            "log_norm": history.log_norm,
            "log_gradient": history.log_gradient[:, :, depth // 2],
            "single": single[:, None],
        }
    every = {outcome: explained(results, outcome) for outcome in OUTCOMES}
    return results | {"explained": every}


def spread(samples) -> tuple[float, float]:
    """Return the variance of the finite samples and its standard error."""
    finite = np.asarray(samples)[np.isfinite(samples)]
    return summaries.estimate(finite).variance


def log_variance(samples) -> float:
    """Return the log of the variance of the finite samples."""
    return np.log(np.var(samples[np.isfinite(samples)], ddof=1, dtype=np.float64))


def labels(results) -> list[str]:
    """Return the cases of results, one a network."""
    return list(results["networks"])


# (predictors, steps of SHOWN, 1 + REPEATS)
def explained(results, outcome) -> np.ndarray:
    """Return what each predictor explains of the log of the variance, at steps,
    resampled.
    """
    rng, found = np.random.default_rng(0), []
    steps = results["networks"][labels(results)[0]][outcome].shape[1]
    for step in (step for step in SHOWN if step < steps):
        samples = (
            results["networks"][case][outcome][:, step] for case in labels(results)
        )
        draws = [_explained.resampled(x, log_variance, rng, REPEATS) for x in samples]
        found.append(_explained.fractions(results["shape"].T, np.array(draws).T))
    return np.stack(found, axis=1)


def check(results) -> list[_check.Row]:
    """Hold step 0 against the exact law, the collapse onto β, and that variances
    fall.
    """
    rows, rng = [], np.random.default_rng(1)
    for case, (beta, depth, width) in zip(
        labels(results), results["shape"], strict=True
    ):
        law = law_of(int(depth), int(width))
        log_norm, gradient = (
            results["networks"][case][o] for o in ("log_norm", "log_gradient")
        )
        start = log_norm[:, 0][np.isfinite(log_norm[:, 0])]
        mean, variance, _ = summaries.estimate(start)
        pairs = gradient[:, [0, -1]]
        shrinks = _explained.resampled(
            pairs[np.isfinite(pairs).all(1)],
            lambda x: log_variance(x[:, 0]) - log_variance(x[:, 1]),
            rng,
            REPEATS,
        )
        rows += [
            _check.agree(case, "E ln ‖J u‖²", *mean, law.mean),
            _check.agree(case, OUTCOMES["log_norm"], *variance, law.variance),
            _check.show(case, "/ 5β", *np.divide(variance, 5 * beta)),
            _check.show(case, "at the end", *spread(log_norm[:, -1])),
            _check.show(case, OUTCOMES["log_gradient"], *spread(gradient[:, 0])),
            _check.show(
                case, OUTCOMES["single"], *spread(results["networks"][case]["single"])
            ),
            _check.show(case, "of ∂L/∂W at the end", *spread(gradient[:, -1])),
            _check.above(case, "ln of their ratio", *_explained.interval(shrinks), 0.0),
            _check.show(case, "diverged", np.mean(log_norm[:, -1] == np.inf)),
            _check.show(case, "dead", np.mean(np.isneginf(log_norm[:, -1]))),
        ]
    rows += _collapse.rows(results)
    return sorted(rows, key=lambda row: "explained" in row.case or "beyond" in row.case)


def draw(results):
    """Draw the collapse onto β, what training makes of it, and what shape explains."""
    layout = [["norm", "gradient", "explained"]]
    figure, axes = _figure.grid(layout, (17, 5.5))
    _draw_norm(axes["norm"], results)
    _draw_gradient(axes["gradient"], results)
    _draw_explained(axes["explained"], results["explained"])
    return figure


def _by_width(results) -> list:
    """Return each width, its style, and the β, depths and names of its networks."""
    shapes = results["shape"]
    names = np.array(labels(results))
    widths = np.unique(shapes[:, 2])
    found = []
    for width, color, marker in zip(widths, _figure.PALETTE, "osD", strict=False):
        chosen = shapes[:, 2] == width
        style = {"color": color, "fmt": marker, "ms": 6, "capsize": 3}
        found.append((int(width), style, shapes[chosen, :2].T, names[chosen]))
    return found


def _draw_norm(axis, results):
    """Draw the variance of ln ‖J u‖² before the first step, over its exact laws."""
    for width, style, (betas, depths), names in _by_width(results):
        samples = [results["networks"][name]["log_norm"][:, 0] for name in names]
        variance, error = np.array([spread(column) for column in samples]).T
        axis.errorbar(betas, variance, 2 * error, label=f"width {width}", **style)
        line = [law_of(int(depth), width).variance for depth in depths]
        axis.plot(betas, line, color=style["color"], lw=1.2)

    _over_beta(axis, results["shape"][:, 0], (0.5, 1, 2, 5, 10, 20))
    axis.legend(title="lines: exact laws", title_fontsize=12)
    axis.set(
        title="before the first step: one curve in β",
        ylabel="Var ln ‖J u‖² over seeds (± 2 s.e.)",
    )


def _draw_gradient(axis, results):
    """Draw the variance of ln ‖∂L/∂W‖² before the first step and after the last."""
    for _, style, (betas, _), names in _by_width(results):
        samples = [results["networks"][name]["log_gradient"] for name in names]
        for step, fill in ((0, style["color"]), (-1, "white")):
            ends = [spread(column[:, step]) for column in samples]
            variance, error = np.array(ends).T
            axis.errorbar(betas, variance, 2 * error, mfc=fill, **style)

    _over_beta(axis, results["shape"][:, 0], (0.01, 0.1, 1, 10))
    shown = {"marker": "o", "ls": "", "color": _figure.THEORY}
    full = _figure.entry("before step 0", **shown)
    empty = _figure.entry(f"after {STEPS - 1} steps", mfc="white", **shown)
    handles = [full, empty, *axis.get_legend_handles_labels()[0]]
    axis.legend(handles=handles, title="colours: width", title_fontsize=12)
    axis.set(
        title="gradients: training shrinks it, not evenly",
        ylabel="Var ln ‖∂L/∂W‖² over seeds (± 2 s.e.)",
    )


def _over_beta(axis, betas, heights):
    """Draw 5β on logarithmic axes, with ticks at the given β and heights."""
    ticks = np.unique(betas)
    style = {"color": _figure.THEORY, "ls": "--", "lw": 1.2}
    axis.plot(ticks, 5 * ticks, label="5β", **style)
    axis.set(xscale="log", yscale="log", xlabel="β = hidden layers / width, d/n")
    axis.set(xticks=ticks, xticklabels=[f"{beta:g}" for beta in ticks])
    axis.set(yticks=heights, yticklabels=[f"{height:g}" for height in heights])
    axis.minorticks_off()


def _draw_explained(axis, explained):
    """Draw what each number of the shape explains of both variances, step by step."""
    lines = dict(zip(("log_norm", "log_gradient"), ("-", "--"), strict=True))
    for outcome, line in lines.items():
        shares = zip(PREDICTORS, explained[outcome], _figure.PALETTE, strict=False)
        for predictor, draws, color in shares:
            found = np.array([_explained.interval(step) for step in draws])
            value, low, high = found.T
            steps = SHOWN[: len(value)]
            label = predictor if line == "-" else None
            axis.plot(steps, value, line, color=color, label=label)
            axis.fill_between(steps, low, high, color=color, alpha=0.15, lw=0)

    black = {"color": _figure.THEORY}
    styles = [_figure.entry(OUTCOMES[key], ls=lines[key], **black) for key in lines]
    handles = [*axis.get_legend_handles_labels()[0], *styles]
    axis.legend(handles=handles, ncols=2, loc="center", bbox_to_anchor=(0.5, 0.38))
    # the first steps are where it changes
    axis.set_xscale("symlog", linthresh=2)
    ticks = [step for step in SHOWN if step != 35]  # whose number would touch 50
    axis.set(xticks=ticks, xticklabels=ticks)
    axis.minorticks_off()
    axis.set(
        title="what one number of the shape explains",
        xlabel="number of steps trained",
        ylabel="share of variance explained,\nchance-corrected, 95% CI",
        ylim=(-0.2, 1.04),
    )
