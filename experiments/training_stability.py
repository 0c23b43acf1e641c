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

Found, against the slogan: the gradient of one image collapses onto β as J does, that of
a batch less so, because the images become alike with depth and then average out less.
In the first two steps its variance rises in many networks, up to tenfold, before it
falls; and once trained for a few steps it goes with depth as much as with β, or more.
That of ln ‖J u‖², at an image and in a direction that were not trained on, hardly
changes. (Intervals: bootstrap over seeds.)

Time: 8 minutes on two CPU cores; --quick 1 minute.
Command: python -m experiments training_stability
"""

import functools

import jax
import numpy as np
import optax

from experiments import _check, _collapse, _data, _explained, _figure
from experiments._collapse import OUTCOMES, PREDICTORS, PROFILE, SHOWN
from lognorm_jax import exact, laws, losses, networks, sampling, summaries, training

BETAS, QUICK_BETAS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0), (0.25, 0.5, 1.0, 2.0)
WIDTHS, QUICK_WIDTHS = (20, 40, 80), (20, 40)
STEPS = 51  # what was so before steps 0 to 50
BATCH = 64  # images, the same in each step
RATE = 0.1  # learning rate × depth
NUM_SAMPLES = 256  # seeds, in quick runs too: intervals of what is explained are judged
BLOCK = 32  # seeds
REPEATS = 400  # of the bootstrap


def cases(quick: bool) -> dict[str, tuple[float, int, int]]:
    """Return β, number of hidden layers and width of each network."""
    betas, widths = (QUICK_BETAS, QUICK_WIDTHS) if quick else (BETAS, WIDTHS)
    return {f"β = {b:g}, n = {n}": (b, round(b * n), n) for b in betas for n in widths}


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
        kept = history.log_gradient[:, [step for step in PROFILE if step < STEPS]]
        results["networks"][case] = {
            "log_norm": history.log_norm,
            "log_gradient": history.log_gradient[:, :, depth // 2],
            "single": single[:, None],
            "layers": np.apply_along_axis(spread, 0, kept),
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
    """Draw the collapse at step 0, what training makes of it, and all layers of some
    networks.
    """
    layout = [["norm", "depth", "explained"], ["gradient", "steps", "layers"]]
    figure, axes = _figure.grid(layout, (15.5, 9))
    shapes = results["shape"]
    widths, betas = np.unique(shapes[:, 2]), np.unique(shapes[:, 0])
    markers, colors = dict(zip(widths, "osD", strict=False)), _figure.PALETTE
    styles = dict(zip(widths, (":", "--", "-"), strict=False))
    for case, (beta, depth, width) in zip(labels(results), shapes, strict=True):
        color = colors[list(widths).index(width)]
        shown = {"ms": 6, "capsize": 3, "fmt": markers[width], "color": color}
        norm, gradient = (
            results["networks"][case][o] for o in ("log_norm", "log_gradient")
        )
        variance, error = spread(norm[:, 0])
        axes["norm"].errorbar(beta, variance, 2 * error, **shown)
        axes["depth"].errorbar(depth, variance, 2 * error, **shown)
        for samples, fill in ((gradient[:, 0], color), (gradient[:, -1], "white")):
            variance, error = spread(samples)
            axes["gradient"].errorbar(beta, variance, 2 * error, mfc=fill, **shown)
        series = np.array([spread(column)[0] for column in gradient.T])
        color = colors[list(betas).index(beta) % len(colors)]
        axes["steps"].plot(series, styles[width], color=color, lw=1.3)
        if beta == betas[len(betas) // 2]:
            for (profile, error), color in zip(
                results["networks"][case]["layers"].swapaxes(0, 1), colors, strict=False
            ):
                place = np.arange(1, len(profile) + 1) / len(profile)
                axes["layers"].plot(place, profile, styles[width], color=color, lw=1.3)
                if width == widths[-1]:
                    low, high = profile - 2 * error, profile + 2 * error
                    axes["layers"].fill_between(
                        place, low, high, color=color, alpha=0.2, lw=0
                    )
    fine = np.geomspace(betas[0], betas[-1])
    for name in ("norm", "gradient"):
        axes[name].plot(fine, 5 * fine, color=_figure.THEORY, lw=1.2)
    for width in widths:
        own = shapes[shapes[:, 2] == width]
        exact_laws = [law_of(int(d), int(width)).variance for _, d, _ in own]
        color = colors[list(widths).index(width)]
        for name, x in (("norm", own[:, 0]), ("depth", own[:, 1])):
            axes[name].plot(x, exact_laws, styles[width], color=color, lw=1.2)
    for (outcome, label), style in zip(
        list(OUTCOMES.items())[:2], ("-", "--"), strict=True
    ):
        for predictor, share, color in zip(
            PREDICTORS, results["explained"][outcome], colors, strict=False
        ):
            _, low, high = np.array([_explained.interval(draws) for draws in share]).T
            steps = SHOWN[: len(share)]
            legend = f"{predictor}, {label}"
            axes["explained"].plot(steps, share[:, 0], style, color=color, label=legend)
            axes["explained"].fill_between(
                steps, low, high, color=color, alpha=0.15, lw=0
            )
    _finish(axes, widths, betas, markers, styles)
    return figure


def _finish(axes, widths, betas, markers, styles) -> None:
    """Name the axes, and what colours, markers and lines mean."""
    colors, black, entry = _figure.PALETTE, _figure.THEORY, _figure.entry
    by_width = [
        entry(f"width {n:.0f}", marker=markers[n], ls=styles[n], color=c)
        for n, c in zip(widths, colors, strict=False)
    ]
    five = entry("5β", color=black)
    axes["norm"].legend(
        handles=[*by_width, five], title="lines: exact laws", title_fontsize=9
    )
    axes["norm"].set(title="before the first step: one curve in β …")
    axes["depth"].legend(handles=by_width)
    axes["depth"].set(title="… and not in depth", xlabel="hidden layers d")
    for name in ("norm", "depth"):
        axes[name].set(ylabel="Var ln ‖J u‖² (± 2 s.e.)")
    full = entry("before step 0", marker="o", ls="", color=black)
    empty = entry("after 50 steps", marker="o", ls="", color=black, mfc="white")
    axes["gradient"].legend(
        handles=[full, empty, five], title="colours: width", title_fontsize=9
    )
    axes["gradient"].set(title="training shrinks what gradients differ by")
    axes["gradient"].set(ylabel="Var ln ‖∂L/∂W‖², middle layer (± 2 s.e.)")
    for name in ("norm", "gradient", "depth"):
        axes[name].set(xscale="log", yscale="log")
    axes["depth"].set(xticks=(2, 5, 20, 80, 320), xticklabels=(2, 5, 20, 80, 320))
    for name in ("norm", "gradient"):
        axes[name].set(
            xlabel="β = d/n", xticks=betas, xticklabels=[f"{b:g}" for b in betas]
        )
        axes[name].minorticks_off()
    by_beta = [
        entry(f"β = {b:g}", color=c) for b, c in zip(betas, colors, strict=False)
    ]
    lines = [entry(f"width {n:.0f}", ls=styles[n], color=black) for n in widths]
    axes["steps"].legend(handles=[*by_beta, *lines], ncols=3, loc="upper right")
    axes["steps"].set(title="step by step", xlabel="step", yscale="log")
    axes["steps"].set(ylabel="Var ln ‖∂L/∂W‖², middle layer")
    axes["steps"].margins(y=0.25)
    steps = [entry(f"step {s}", color=c) for s, c in zip(PROFILE, colors, strict=False)]
    axes["layers"].legend(handles=[*steps, *lines], ncols=2)
    axes["layers"].set(
        title=f"layer by layer, β = {betas[len(betas) // 2]:g}",
        xlabel="place of the layer (1: the head)",
        ylabel=f"Var ln ‖∂L/∂Wᵢ‖² (band: ± 2 s.e., width {widths[-1]:.0f})",
    )
    axes["layers"].set_ylim(0)
    axes["explained"].legend(ncols=2, loc="center right")
    axes["explained"].set(
        title="what one number of the shape explains",
        xlabel="step",
        ylabel="share of variance explained,\nchance-corrected, 95% CI",
        ylim=(-0.15, 1.03),
    )
