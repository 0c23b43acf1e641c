"""The log of the squared norm of a random product is nearly N(−v/2, v) with v = 5β, for the mask
model (matrices with random ReLU masks) and for the Jacobian of a real ReLU network at a real input.

Expected, for widths n_1, …, n_d and Gaussian weights: mean −5β/2 − (49/12) Σ n_i⁻², variance
5β + (37/2) Σ n_i⁻², each within twice the next term of the series (24 and 170 times Σ n_i⁻³) and 5
standard errors; KS distance to N(−v/2, v) at most 1.5 Σ n_i⁻²/Σ n_i⁻¹; the two models equal in law.
The input x is an image of a handwritten digit, and the direction u is x/‖x‖.

Time: 3 minutes on two CPU cores; --quick 1 minute. Command: python -m experiments lognormal_law
"""

import jax
import numpy as np

from experiments import _check, _data, _figure
from lognorm_jax import ensembles, laws, masks, networks, paths, summaries, weights

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
NUM_SAMPLES, QUICK_SAMPLES = 30_000, 4_096
BIAS_SCALE = 0.1
IMAGE = 0
KS_FACTOR = 1.5  # the exact KS distance is 0.7 to 1.4 times Σ n⁻²/Σ n⁻¹ for β in 0.2 … 3


def ensemble(label: str) -> ensembles.Ensemble:
    """Return the random products that an architecture is compared with."""
    return ensembles.Ensemble(ARCHITECTURES[label], weights.normal(), masks.relu())


def compute(*, key, quick, bar, sample, num_samples=None) -> dict[str, np.ndarray]:
    """Sample log_norm of every architecture as mask model and as network."""
    num_samples = num_samples or (QUICK_SAMPLES if quick else NUM_SAMPLES)
    image = _data.digit(IMAGE)
    bar.reset(total=num_samples * len(MODELS) * len(ARCHITECTURES))
    results = {}
    for i, (label, widths) in enumerate(ARCHITECTURES.items()):
        network = networks.relu_mlp(widths, bias_scale=BIAS_SCALE)
        both = paths.dense(ensemble(label), image), networks.jacobian_path(network, image, image)
        for j, (model, path) in enumerate(zip(MODELS, both, strict=True)):
            case = jax.random.fold_in(jax.random.fold_in(key, i), j)
            trace = sample(f"{label}, {model}", path, case, num_samples)
            results[f"{label}, {model}"] = trace.log_norm
    return results


def check(results) -> list[_check.Row]:
    """Hold mean, variance, dead mass and law of every case against theory."""
    rows = []
    for label, widths in ARCHITECTURES.items():
        theory = ensemble(label)
        law, dead = ensembles.limit_law(theory), ensembles.dead_mass(theory)
        n = np.array(widths[1:], dtype=float)
        power = {k: np.sum(n**-k) for k in (1, 2, 3)}
        for model in MODELS:
            case, log_norms = f"{label}, {model}", results[f"{label}, {model}"]
            size = len(log_norms)
            seen = summaries.summarise(summaries.moments(paths.Trace(log_norms[:, None], None)))
            mean, mean_error, variance, variance_error, dead_mass, _ = (x[-1] for x in seen)
            tolerance = KS_FACTOR * power[2] / power[1]
            rows += [
                _check.show(case, "β", ensembles.beta(theory)),
                _check.show(case, "v", law.variance),
                _check.agree(
                    case,
                    "mean",
                    mean,
                    mean_error,
                    law.mean - 49 / 12 * power[2],
                    24 * power[3],
                ),
                _check.agree(
                    case,
                    "variance",
                    variance,
                    variance_error,
                    law.variance + 37 / 2 * power[2],
                    170 * power[3],
                ),
                _check.agree(
                    case,
                    "dead mass",
                    dead_mass,
                    np.sqrt(dead * (1 - dead) / size),
                    dead,
                    1 / size,
                ),
                _check.distance(
                    case, "KS to N(−v/2, v)", laws.compare(log_norms, law, tolerance), tolerance
                ),
            ]
        pair = [results[f"{label}, {model}"] for model in MODELS]
        same = laws.compare(pair[1], laws.empirical(pair[0]))
        rows.append(_check.distance(f"{label}, network", "KS to mask model", same))
    return rows


def _draw_densities(axis, results):
    shown = ("64→100×10", "64→(32→128)×8", "64→16×16", "64→32×64")
    for row, label in enumerate(reversed(shown)):
        law = ensembles.limit_law(ensemble(label))
        edges = law.mean + np.sqrt(law.variance) * np.linspace(-4, 4, 61)
        base, height = row, 0.8 / law.pdf(law.mean)
        for model, color in zip(MODELS, (_figure.MASK_MODEL, _figure.NETWORK), strict=True):
            counts, _ = np.histogram(results[f"{label}, {model}"], edges)
            size = len(results[f"{label}, {model}"])
            density = counts / size / np.diff(edges)
            axis.stairs(
                base + height * density, edges, baseline=base, color=color, label=model, lw=1.2
            )
        x = np.linspace(edges[0], edges[-1], 301)
        axis.plot(x, base + height * law.pdf(x), color=_figure.THEORY, label="N(−5β/2, 5β)")
        text = f"{label}\nβ = {ensembles.beta(ensemble(label)):.3g}"
        axis.text(-20.5, base + 0.4, text)
    axis.set(
        xlabel="ln‖Ju‖²",
        ylabel="density (scaled, one row an architecture)",
        ylim=(0, len(shown) + 0.3),
        xlim=(-21, 9),
        yticks=[],
        title="The log-norm is nearly normal",
    )
    handles, names = axis.get_legend_handles_labels()
    axis.legend(handles[:3], names[:3], loc="upper center", ncols=3)


def _draw_quantiles(axis, results):
    q = np.concatenate([[0.001, 0.003], np.linspace(0.01, 0.99, 50), [0.997, 0.999]])
    shown = ("64→100×10", "64→48×24", "64→16×16", "64→32×64")
    for label, color in zip(shown, _figure.PALETTE, strict=False):
        law = ensembles.limit_law(ensemble(label))
        for model, style in zip(MODELS, ("-", "o"), strict=True):
            seen = laws.empirical(results[f"{label}, {model}"]).quantile(q)
            scaled = [(x - law.mean) / np.sqrt(law.variance) for x in (law.quantile(q), seen)]
            axis.plot(*scaled, style, color=color, ms=3, label=f"{label}, {model}")
    axis.axline((0, 0), slope=1, color=_figure.THEORY, lw=1, ls="--", label="limit law")
    axis.set(
        xlabel="quantile of N(−5β/2, 5β), standardised",
        ylabel="quantile of ln‖Ju‖², in the same units",
        title="Q–Q: narrow nets have a longer lower tail",
    )
    axis.legend(fontsize=8)


def _draw_variances(axis, rows):
    beta = np.array([row.measured for row in rows if row.quantity == "β"])
    variance = [row for row in rows if row.quantity == "variance"]
    measured, error, expected, allowance = np.array([row[2:6] for row in variance]).T
    axis.plot(
        limit := np.array([0.08, 2.5]), 5 * limit, color=_figure.THEORY, label="5β, the limit"
    )
    styles = zip(MODELS, (_figure.MASK_MODEL, _figure.NETWORK), "os", (0.97, 1.03), strict=True)
    for i, (model, color, marker, shift) in enumerate(styles):
        mine = slice(i, None, len(MODELS))
        style = {"fmt": marker, "color": color, "ms": 4, "capsize": 3}
        axis.errorbar(
            shift * beta[mine], measured[mine], 2 * error[mine], label=f"{model}, ± 2 s.e.", **style
        )
    axis.errorbar(
        beta,
        expected,
        allowance,
        fmt="_",
        color=_figure.THEORY,
        ms=18,
        lw=1,
        label="5β + 18.5 Σ 1/nᵢ² ± allowance",
    )
    for name, ticks in (("x", [0.1, 0.2, 0.5, 1, 2]), ("y", [0.5, 1, 2, 5, 10])):
        axis.set(**{f"{name}scale": "log", f"{name}ticks": ticks, f"{name}ticklabels": ticks})
    axis.minorticks_off()
    axis.set(xlabel="β = Σ 1/nᵢ", ylabel="Var ln‖Ju‖²", title="One number, β, sets the variance")
    axis.legend(loc="upper left")


def draw(results):
    """Draw densities with the limit law over them, quantiles, and variance against β."""
    figure, axes = _figure.grid([["density", "quantile", "variance"]], (15, 5))
    _draw_densities(axes["density"], results)
    _draw_quantiles(axes["quantile"], results)
    _draw_variances(axes["variance"], check(results))
    return figure
