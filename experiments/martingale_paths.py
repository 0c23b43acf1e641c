"""Layer by layer, the log-norm minus its drift is a martingale: its increments are uncorrelated,
its variance is its bracket, and its drift is −½ of its predictable variance.

Expected, for four laws of weights, two directions, and 64 × 64 matrices with ReLU masks: the
martingale has mean 0 and variance E⟨M⟩ (1 + 3.7/n + …), the second-order term being that of
martingales.expansion, to 40 n⁻²; the drift is −½ (1 + 1.6/n + …) of the predictable variance, to
40 n⁻²; the squared correlations of two layers average 1/N; Var R₁ = (2(3 + (μ4 − 3)κ) − 1)/n
exactly, so that the fourth moment μ4 of the weights shows for a coordinate vector (κ = 1) and hides
for the flat one (κ = 1/n).

Time: 1 minute on two CPU cores; --quick 20 s. Command: python -m experiments martingale_paths
"""

import jax
import numpy as np

from experiments import _check, _figure
from lognorm_jax import ensembles, martingales, masks, paths, sampling, weights

LAWS = (weights.normal(), weights.rademacher(), weights.uniform(), weights.laplace())
WIDTH, DEPTH = 64, 32
DIRECTIONS = {"flat": np.full(WIDTH, WIDTH**-0.5), "coordinate": np.eye(WIDTH)[0]}
NUM_SAMPLES, QUICK_SAMPLES = 10_000, 2_000
PATHS_DRAWN = 300
MAX_LAG = 8


def ensemble(law: weights.Weights) -> ensembles.Ensemble:
    """Return the square ReLU products with weights of this law."""
    return ensembles.Ensemble((WIDTH,) * (DEPTH + 1), law, masks.relu())


def compute(*, key, quick, bar, num_samples=None) -> dict[str, np.ndarray]:
    """Decompose sampled paths, and keep what the checks and the figure need."""
    num_samples = num_samples or (QUICK_SAMPLES if quick else NUM_SAMPLES)
    bar.reset(total=num_samples * len(LAWS) * len(DIRECTIONS))
    results = {}
    for i, law in enumerate(LAWS):
        for j, (name, direction) in enumerate(DIRECTIONS.items()):
            case = f"{law.name}, {name}"
            bar.set_description(case)
            case_key = jax.random.fold_in(jax.random.fold_in(key, i), j)
            path = paths.dense(ensemble(law), direction)
            trace = sampling.sample(path, case_key, num_samples, progress=bar.update)
            parts = martingales.decompose(trace, ensemble(law))
            mean, variance = martingales.expansion(ensemble(law), trace.quartic)
            results |= {
                f"{case}/first ratio": np.exp(trace.increment[:, 0]),
                f"{case}/martingale": parts.martingale.astype(np.float32),
                f"{case}/bracket": parts.bracket.mean(0),
                f"{case}/compensator": np.cumsum(parts.drift, axis=-1).mean(0),
                f"{case}/second-order mean": np.cumsum(mean.mean(0)),
                f"{case}/second-order variance": np.cumsum(variance.mean(0)),
            }
    return results


def correlations(martingale: np.ndarray) -> np.ndarray:
    """Return the correlations between the increments of all layers, (depth, depth)."""
    increments = np.diff(martingale.astype(np.float64), axis=-1, prepend=0.0)
    return np.corrcoef(increments, rowvar=False)


def lagged(martingale: np.ndarray, lag: int) -> tuple[float, float]:
    """Return the mean correlation of increments ``lag`` layers apart, with its standard error."""
    values = np.diagonal(correlations(martingale), lag)
    return values.mean(), 1 / np.sqrt(len(values) * len(martingale))


def variance_and_error(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of samples (N, …) over the first axis, with its standard error."""
    deviation = x - x.mean(0, dtype=np.float64)
    variance = (deviation**2).sum(0) / (len(x) - 1)
    return variance, np.sqrt(np.maximum((deviation**4).mean(0) - variance**2, 0) / len(x))


def check(results) -> list[_check.Row]:
    """Hold mean, variance, drift, correlations and the first layer of every case against theory."""
    rows = []
    for law in LAWS:
        for name, direction in DIRECTIONS.items():
            case = f"{law.name}, {name}"
            parts = {k.split("/")[1]: v for k, v in results.items() if k.startswith(case)}
            martingale, bracket = parts["martingale"], parts["bracket"][-1]
            final = martingale[:, -1]
            size, pairs = len(final), DEPTH * (DEPTH - 1) / 2
            variance, variance_error = variance_and_error(final)
            squares = np.triu(correlations(martingale) ** 2, 1).sum() * size / pairs
            first, first_error = variance_and_error(parts["first ratio"])
            quartic = np.full(DEPTH, np.sum(direction**4))
            theory = ensembles.predictable_variance(ensemble(law), quartic)[0]
            drift_error = 500 * WIDTH**-3.0 + 20 * (DEPTH - 1) * WIDTH**-3.0
            rows += [
                _check.agree(case, "E M", final.mean(), np.sqrt(variance / size), 0, drift_error),
                _check.agree(
                    case,
                    "Var M / E⟨M⟩",
                    variance / bracket,
                    variance_error / bracket,
                    parts["second-order variance"][-1] / bracket,
                    40 / WIDTH**2,
                ),
                _check.agree(
                    case,
                    "drift / −½⟨M⟩",
                    parts["compensator"][-1] / (-bracket / 2),
                    0.0,
                    parts["second-order mean"][-1] / (-bracket / 2),
                    40 / WIDTH**2,
                ),
                _check.agree(case, "N · mean corr²", squares, np.sqrt(2 / pairs), 1.0, 10 / size),
                _check.agree(case, "lag-1 corr", *lagged(martingale, 1), 0),
                _check.agree(case, "Var R₁", first, first_error, theory),
            ]
    return rows


def _draw_fan(axis, results, case):
    layers = np.arange(DEPTH + 1)
    martingale = np.pad(results[f"{case}/martingale"], ((0, 0), (1, 0)))
    fan = 2 * np.sqrt(np.concatenate([[0], results[f"{case}/bracket"]]))
    axis.plot(layers, martingale[:PATHS_DRAWN].T, color=_figure.MASK_MODEL, lw=0.4, alpha=0.25)
    axis.plot(layers, np.array([-fan, fan]).T, color=_figure.THEORY)
    inside = np.mean(np.abs(martingale[:, -1]) < fan[-1])
    axis.set(title=case, ylim=(-6, 6), xlim=(0, DEPTH))
    axis.text(1, -5.5, f"{inside:.1%} inside at the end")


def draw(results):
    """Draw the fans of all cases, and below them drift, orthogonality, variance, first layer."""
    fans = [[f"{law.name}, {name}" for law in LAWS] for name in DIRECTIONS]
    below = ["drift", "orthogonality", "variance", "first layer"]
    figure, axes = _figure.grid([*fans, below], (16, 11))
    layers = np.arange(1, DEPTH + 1)
    for row in fans:
        for case in row:
            _draw_fan(axes[case], results, case)
        axes[row[0]].set_ylabel("martingale Mᵢ, with ±2√E⟨M⟩ᵢ")
    for case in fans[1]:
        axes[case].set_xlabel("layer i")

    rows = {row[:2]: row for row in check(results)}
    for i, law in enumerate(LAWS):
        for j, (name, line, marker) in enumerate(zip(DIRECTIONS, ("-", "--"), "os", strict=True)):
            case, color = f"{law.name}, {name}", _figure.PALETTE[i]
            style = {"fmt": marker, "ms": 5, "color": color}
            bracket, martingale = results[f"{case}/bracket"], results[f"{case}/martingale"]
            drift = -2 * np.diff(results[f"{case}/compensator"], prepend=0)
            axes["drift"].plot(layers[:6], drift[:6], line, color=color)
            predicted = np.diff(bracket, prepend=0)[:6]
            axes["drift"].plot(layers[:6], predicted, marker, color=color, ms=5)
            variance, error = variance_and_error(martingale)
            some = slice(3 + 2 * i + j, None, 8)
            axes["variance"].errorbar(bracket[some], variance[some], 2 * error[some], **style)
            lags = np.arange(1, MAX_LAG + 1)
            values, errors = np.array([lagged(martingale, lag) for lag in lags]).T
            shift = 0.1 * (2 * i + j - 3.5)
            axes["orthogonality"].errorbar(lags + shift, values, 2 * errors, lw=1, **style)
            first, place = rows[case, "Var R₁"], i + 0.3 * (j - 0.5)
            axes["first layer"].errorbar(
                place, first.measured, 2 * first.error, capsize=5, label=case, **style
            )
            axes["first layer"].plot(place, first.expected, "_", ms=24, color=_figure.THEORY)
    _finish(axes)
    return figure


def _finish(axes):
    axes["drift"].set(
        title="drift against predictable variance",
        xlabel="layer i",
        ylabel="lines: −2 × drift; points: Var(Rᵢ | past)",
        ylim=(0, 0.2),
    )
    axes["orthogonality"].axhline(0, color=_figure.THEORY, lw=1)
    axes["orthogonality"].set(
        title="orthogonality of the increments", xlabel="lag", ylabel="mean correlation, ± 2 s.e."
    )
    top = axes["variance"].get_xlim()[1]
    axes["variance"].axline((0, 0), slope=1, color=_figure.THEORY, label="the bracket")
    second = 1 + 3.7 / WIDTH
    axes["variance"].axline(
        (0, 0), slope=second, color=_figure.THEORY, ls=":", label="bracket × (1 + 3.7/n)"
    )
    axes["variance"].set(
        title="realised variance against bracket",
        xlabel="E⟨M⟩ᵢ",
        ylabel="Var Mᵢ, ± 2 s.e.",
        xlim=(0, top),
        ylim=(0, 1.1 * top),
    )
    axes["variance"].legend(loc="lower right")
    axes["first layer"].set(
        title="layer 1: μ4 shows for a coordinate",
        ylabel="Var R₁, ± 2 s.e.; bars: theory",
        ylim=(0, 0.2),
        xticks=range(len(LAWS)),
        xticklabels=[f"{law.name}\nμ4 = {float(law.kurtosis):.3g}" for law in LAWS],
    )
    axes["first layer"].legend(fontsize=8, loc="upper left")
