"""The log of the squared norm of a random product is nearly N(−v/2, v) with v = 5β, for
the mask model (matrices with random ReLU masks) and for the Jacobian of a real ReLU
network at a real input.

Expected, for widths n_1, …, n_d and Gaussian weights, of each model and without any
allowance: mean and variance, dead mass and law are those of exact.law, within 5
standard errors and the 99.99% interval of the KS distance (0.013 wide at 30,000 paths);
the two models are equal in law. Over all models mean/exact and variance/exact are 1 to
0.2%, so that a mean wrong by 5% or a variance wrong by 4% fails, in the quick form too
(7 standard errors or more).

How far the limit is from that law needs no paths. Exact mean/(−v/2) is 1 + (49/30) Σ
n_i⁻²/β and variance/v is 1 + (37/10) Σ n_i⁻²/β, each within twice the next term of the
series (9.6 and 34 times Σ n_i⁻³/β), so that 4.8β in place of 5β fails; the KS distance
of N(−v/2, v) to the exact law, 0.007 to 0.064 here, is at most 1.5 Σ n_i⁻²/β. The input
x is an image of a handwritten digit, and the direction u is x/‖x‖.

Found: at β from 0.1 to 2, uneven widths among them, the two models are equal in law,
and their mean, variance and law are those of ``exact.law``, to sampling error. The
limit law is off by a KS distance of 0.007 to 0.064 at these widths.

Figure: densities, quantiles and variance against β for eight architectures, over the
exact law.
Time: 3 minutes on two CPU cores; --quick 20 s.
Command: python -m experiments lognormal_law
"""

import numpy as np
import scipy

from experiments import _check, _data, _figure
from lognorm_jax import (
    ensembles,
    exact,
    laws,
    masks,
    networks,
    paths,
    summaries,
    weights,
)

ARCHITECTURES = {  # label: widths; 64 is the number of pixels
    "64→100×10": (64, *(100,) * 10),
    "64→(32→128)×8": (64, *(32, 128) * 8),
    "64→(96→24→64)×6": (64, *(96, 24, 64) * 6),
    "64→32×16": (64, *(32,) * 16),
    "64→48×24": (64, *(48,) * 24),
    "64→16×16": (64, *(16,) * 16),
    "64→24×36": (64, *(24,) * 36),
    "64→32×64": (64, *(32,) * 64),
}
MODELS = ("mask model", "network")
# narrow ones are cheap, and so many paths of two see what fewer of all would
QUICK_ARCHITECTURES = ("64→16×16", "64→24×36")
NUM_SAMPLES, QUICK_SAMPLES = 30_000, 18_432
BIAS_SCALE = 0.1
IMAGE = 0
KS_FACTOR = 1.5  # the exact KS distance is 0.7 to 1.4 times Σ n⁻²/β for β in 0.2 … 3
# next to 1, and allowed after it
SERIES = {"mean": (49 / 30, 9.6), "variance": (37 / 10, 34.0)}


def ensemble(label: str) -> ensembles.Ensemble:
    """Return the random products that an architecture is compared with."""
    return ensembles.Ensemble(ARCHITECTURES[label], weights.normal(), masks.relu())


def compute(job) -> dict:
    """Sample log_norm of every architecture as mask model and as network."""
    num_samples = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    image = _data.digit(IMAGE)
    results = {}
    for label in job.count(ARCHITECTURES, QUICK_ARCHITECTURES):
        network = networks.relu_mlp(ARCHITECTURES[label], bias_scale=BIAS_SCALE)
        both = {
            "mask model": paths.dense(ensemble(label), image),
            "network": paths.jacobian(network, image, image),
        }
        results[label] = {
            model: job.sample(f"{label}, {model}", path, num_samples).log_norm
            for model, path in both.items()
        }
    return results


def check(results) -> list[_check.Row]:
    """Hold every model against the exact law, and the exact law against its limit."""
    rows = []
    for label in ARCHITECTURES:
        law = exact.law(ensemble(label))
        if label in results:
            for model in MODELS:
                rows += _model_rows(f"{label}, {model}", results[label][model], law)
            pair = [results[label][model] for model in MODELS]
            same = laws.compare(pair[1], laws.empirical(pair[0]))
            rows.append(_check.distance(f"{label}, network", "KS to mask model", same))
        rows += _limit_rows(label, law)
    return [*rows, *_pooled(rows)]


def _model_rows(case, log_norms, law) -> list[_check.Row]:
    """Hold mean, variance, dead mass and law of sampled paths against a law."""
    alive = log_norms[np.isfinite(log_norms)]
    mean, variance, _ = summaries.estimate(alive)
    size, dead = len(log_norms), law.atom
    dead_error = np.sqrt(dead * (1 - dead) / size)
    dead_share = 1 - len(alive) / size  # in steps of 1/size
    return [
        _check.agree(case, "mean", *mean, law.mean),
        _check.agree(case, "variance", *variance, law.variance),
        _check.agree(case, "dead mass", dead_share, dead_error, dead, 1 / size),
        _check.distance(case, "KS to exact law", laws.compare(log_norms, law)),
    ]


def _limit_rows(label, law) -> list[_check.Row]:
    """Hold the exact law against N(−v/2, v); no row of these has a sampling error."""
    limit, beta = ensembles.limit_law(ensemble(label)), ensembles.beta(ensemble(label))
    n = np.array(ARCHITECTURES[label][1:], dtype=float)
    second, third = (np.sum(n**-k) / beta for k in (2, 3))
    case = f"{label}, limit law"
    rows = [_check.show(case, "β", beta), _check.show(case, "v", limit.variance)]
    for name, (factor, allowed) in SERIES.items():
        ratio = getattr(law, name) / getattr(limit, name)
        expected = 1 + factor * second
        rows.append(
            _check.agree(
                case, f"exact {name}/limit", ratio, 0, expected, allowed * third
            )
        )
    distance = laws.ks_distance(law, limit)
    return [
        *rows,
        _check.below(case, "KS of limit to exact", distance, KS_FACTOR * second),
    ]


def _pooled(rows) -> list[_check.Row]:
    """Hold the ratio of measured to exact, over all models, against 1: it sees 4% in
    quick runs.
    """
    mean, variance = (
        [row for row in rows if row.quantity == q] for q in ("mean", "variance")
    )
    # the sum of means weighs them by 1/error², that of relative variances by about
    # equal errors
    measured, error, expected = np.array([row[2:5] for row in mean]).T
    scale = abs(expected.sum())
    found = [
        _check.agree(
            "all, over exact",
            "mean",
            -measured.sum() / scale,
            np.hypot.reduce(error) / scale,
            1,
        )
    ]
    measured, error, expected = np.array([row[2:5] for row in variance]).T
    error = np.hypot.reduce(error / expected) / len(error)
    return [
        *found,
        _check.agree(
            "all, over exact", "variance", np.mean(measured / expected), error, 1
        ),
    ]


def _draw_densities(axis, results):
    shown = ("64→100×10", "64→(32→128)×8", "64→16×16", "64→32×64")
    shown = [label for label in shown if label in results]
    for row, label in enumerate(reversed(shown)):
        limit, law = ensembles.limit_law(ensemble(label)), exact.law(ensemble(label))
        edges = limit.mean + np.sqrt(limit.variance) * np.linspace(-4, 4, 41)
        base, height = row, 0.75 / limit.pdf(limit.mean)
        for model, color in zip(
            MODELS, (_figure.MASK_MODEL, _figure.NETWORK), strict=True
        ):
            counts, _ = np.histogram(results[label][model], edges)
            size = len(results[label][model])
            density = counts / size / np.diff(edges)
            axis.stairs(
                base + height * density,
                edges,
                baseline=base,
                color=color,
                label=model,
                lw=1.2,
            )
        x = np.linspace(edges[0], edges[-1], 301)
        axis.plot(
            x, base + height * law.pdf(x), color=_figure.THEORY, lw=1, label="exact law"
        )
        style = {"color": _figure.LIMIT, "ls": "--", "label": "N(−5β/2, 5β)"}
        axis.plot(x, base + height * limit.pdf(x), **style)
        text = f"{label}\nβ = {ensembles.beta(ensemble(label)):.3g}"
        axis.text(-20.5, base + 0.4, text)
    axis.set(
        xlabel="log of the squared norm, ln‖Ju‖²",
        ylabel="density, scaled",
        ylim=(0, len(shown) + 0.55),
        xlim=(-21, 9),
        yticks=[],
        title="The log-norm is nearly normal",
    )
    handles, names = axis.get_legend_handles_labels()
    axis.legend(handles[:4], names[:4], loc="upper center", ncols=2)


def _draw_quantiles(axis, results):
    q = np.concatenate([[0.001, 0.003], np.linspace(0.02, 0.98, 13), [0.997, 0.999]])
    place, along = scipy.special.ndtri(q), np.linspace(-3.2, 3.2, 129)
    fine = scipy.special.ndtr(along)
    shown = ("64→100×10", "64→48×24", "64→16×16", "64→32×64")
    for label, color in zip(shown, _figure.PALETTE, strict=False):
        if label not in results:
            continue
        limit, law = ensembles.limit_law(ensemble(label)), exact.law(ensemble(label))
        spread = np.sqrt(limit.variance)
        gap = (law.quantile(fine) - limit.quantile(fine)) / spread
        axis.plot(along, gap, color=color, label=label)
        size = len(results[label][MODELS[0]])
        error = np.sqrt(q * (1 - q) / size) / law.pdf(law.quantile(q)) / spread
        for model, marker, shift in zip(MODELS, "sD", (-0.02, 0.02), strict=True):
            seen = laws.empirical(results[label][model]).quantile(q)
            gap = (seen - limit.quantile(q)) / spread
            style = {"fmt": marker, "mfc": "none", "ms": 4, "capsize": 2, "lw": 1}
            axis.errorbar(place + shift, gap, 2 * error, color=color, **style)
    axis.axhline(0, color=_figure.LIMIT, ls="--")
    black = {"color": _figure.THEORY}
    handles = [
        *axis.get_legend_handles_labels()[0],
        _figure.entry("exact law", **black),
        _figure.entry("N(−5β/2, 5β)", color=_figure.LIMIT, ls="--"),
        *(
            _figure.entry(
                f"{model}, ± 2 s.e.", marker=marker, mfc="none", ls="", **black
            )
            for model, marker in zip(MODELS, "sD", strict=True)
        ),
    ]
    axis.legend(handles=handles, ncols=2, loc="lower right")
    axis.set(
        xlabel="quantile of N(−5β/2, 5β), standardised",
        ylabel="quantile of ln‖Ju‖² less that",
        title="narrow nets have a longer lower tail",
        ylim=(-2.6, None),
    )


def _draw_variances(axis, rows):
    cases = {row.case: row for row in rows if row.quantity == "variance"}
    labels = [a for a in ARCHITECTURES if f"{a}, {MODELS[0]}" in cases]
    beta = np.array([ensembles.beta(ensemble(label)) for label in labels])
    variance = [cases[f"{label}, {MODELS[0]}"].expected for label in labels]
    line = np.array([0.08, 2.5])
    axis.plot(line, 5 * line, color=_figure.LIMIT, ls="--", label="5β, the limit")
    axis.plot(beta, variance, "_", ms=18, color=_figure.THEORY, label="exact law")
    styles = zip(
        MODELS, (_figure.MASK_MODEL, _figure.NETWORK), "sD", (0.97, 1.03), strict=True
    )
    for model, color, marker, shift in styles:
        mine = [cases[f"{label}, {model}"] for label in labels]
        measured, error = np.array([row[2:4] for row in mine]).T
        style = {"fmt": marker, "mfc": "none", "color": color, "ms": 5, "capsize": 3}
        axis.errorbar(
            shift * beta, measured, 2 * error, label=f"{model}, ± 2 s.e.", **style
        )
    for name, ticks in (("x", [0.1, 0.2, 0.5, 1, 2]), ("y", [0.5, 1, 2, 5, 10])):
        axis.set(
            **{f"{name}scale": "log", f"{name}ticks": ticks, f"{name}ticklabels": ticks}
        )
    axis.minorticks_off()
    axis.set(
        xlabel="β = Σ 1/nᵢ",
        ylabel="Var ln‖Ju‖²",
        title="One number, β, sets the variance",
    )
    axis.legend(loc="upper left")


def draw(results):
    """Draw densities, quantiles, and variance against β, each with the exact law and
    its limit.
    """
    figure, axes = _figure.grid([["density", "quantile", "variance"]], (16, 5.5))
    _draw_densities(axes["density"], results)
    _draw_quantiles(axes["quantile"], results)
    _draw_variances(axes["variance"], check(results))
    return figure
