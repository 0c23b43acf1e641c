"""Layer by layer, the log-norm minus its drift is a martingale: its increments are uncorrelated,
its variance is its bracket, and its drift is −½ of its predictable variance.

Expected, for four laws of weights, two directions, and 64 × 64 matrices with ReLU masks: the
martingale has mean 0, to the error of the drift (500 n⁻³ in layer 1, 20 n⁻³ in each other), and
variance E⟨M⟩ (1 + 3.7/n + …), the second-order term being that of martingales.expansion, to
40 n⁻² of E⟨M⟩; the mean of log_norm is −½E⟨M⟩ (1 + 1.6/n + …), likewise; the
squared correlations of two layers average 1/N; E ln R₁ is the drift, to 500 n⁻³; and
Var R₁ = (2(3 + (μ4 − 3)κ) − 1)/n exactly, so that the fourth moment μ4 of the weights shows for a
coordinate vector (κ = 1) and hides for the flat one (κ = 1/n).

Time: 1 minute on two CPU cores; --quick 20 s. Command: python -m experiments martingale_paths
"""

import jax
import numpy as np

from experiments import _check, _figure
from lognorm_jax import ensembles, martingales, masks, paths, summaries, weights

LAWS = (weights.normal(), weights.rademacher(), weights.uniform(), weights.laplace())
WIDTH, DEPTH = 64, 32
DIRECTIONS = {"flat": np.full(WIDTH, WIDTH**-0.5), "coordinate": np.eye(WIDTH)[0]}
NUM_SAMPLES, QUICK_SAMPLES = 10_000, 2_000
PATHS_DRAWN = 300
MAX_LAG = 8


def ensemble(law: weights.Weights) -> ensembles.Ensemble:
    """Return the square ReLU products with weights of this law."""
    return ensembles.Ensemble((WIDTH,) * (DEPTH + 1), law, masks.relu())


def compute(*, key, quick, bar, sample, num_samples=None) -> dict[str, np.ndarray]:
    """Decompose sampled paths, and keep what the checks and the figure need."""
    num_samples = num_samples or (QUICK_SAMPLES if quick else NUM_SAMPLES)
    bar.reset(total=num_samples * len(LAWS) * len(DIRECTIONS))
    results = {}
    for i, law in enumerate(LAWS):
        for j, (name, direction) in enumerate(DIRECTIONS.items()):
            case = f"{law.name}, {name}"
            case_key = jax.random.fold_in(jax.random.fold_in(key, i), j)
            path = paths.dense(ensemble(law), direction)
            trace = sample(case, path, case_key, num_samples)
            parts = martingales.decompose(trace, ensemble(law))
            mean, variance = martingales.expansion(ensemble(law), trace.quartic)
            results |= {
                f"{case}/first ratio": np.exp(trace.increment[:, 0]),
                f"{case}/increment": np.array(estimates(trace.increment)[:2]),
                f"{case}/martingale": parts.martingale.astype(np.float32),
                f"{case}/bracket": parts.bracket.mean(0),
                f"{case}/drift": parts.drift.mean(0),
                f"{case}/second-order mean": np.cumsum(mean.mean(0)),
                f"{case}/second-order variance": np.cumsum(variance.mean(0)),
            }
    return results


def estimates(x: np.ndarray) -> list[np.ndarray]:
    """Return mean, its standard error, variance, its standard error over samples: x (N, layers)."""
    summary = summaries.summarise(summaries.moments(paths.Trace(x, None)))
    return [leaf[:-1] for leaf in summary[:4]]  # the last entry is of the sum over layers


def correlations(martingale: np.ndarray) -> np.ndarray:
    """Return the correlations between the increments of all layers, (depth, depth)."""
    increments = np.diff(martingale.astype(np.float64), axis=-1, prepend=0.0)
    return np.corrcoef(increments, rowvar=False)


def lagged(correlation: np.ndarray, lag: int, num_samples: int) -> tuple[float, float]:
    """Return the mean correlation of increments ``lag`` layers apart, with its standard error."""
    values = np.diagonal(correlation, lag)
    return values.mean(), 1 / np.sqrt(len(values) * num_samples)


def check(results) -> list[_check.Row]:
    """Hold mean, variance, drift, correlations and the first layer of every case against theory."""
    rows = []
    for law in LAWS:
        for name, direction in DIRECTIONS.items():
            case = f"{law.name}, {name}"
            parts = {k.split("/")[1]: v for k, v in results.items() if k.startswith(case)}
            martingale, bracket = parts["martingale"], parts["bracket"][-1]
            size, pairs = len(martingale), DEPTH * (DEPTH - 1) / 2
            mean, mean_error, variance, variance_error = (x[-1] for x in estimates(martingale))
            correlation = correlations(martingale)
            squares = np.triu(correlation**2, 1).sum() * size / pairs
            _, _, (first,), (first_error,) = estimates(parts["first ratio"][:, None])
            kappa = np.full(DEPTH, np.sum(direction**4))
            theory = ensembles.predictable_variance(ensemble(law), kappa)[0]
            third = WIDTH**-3.0
            log_norm = mean + parts["drift"].sum()
            ratios = (
                (
                    "Var M / E⟨M⟩",
                    variance,
                    variance_error,
                    parts["second-order variance"][-1],
                    bracket,
                ),
                (
                    "E ln‖Mu‖² / −½E⟨M⟩",
                    log_norm,
                    mean_error,
                    parts["second-order mean"][-1],
                    -bracket / 2,
                ),
            )
            rows.append(
                _check.agree(case, "E M", mean, mean_error, 0, (500 + 20 * (DEPTH - 1)) * third)
            )
            rows += [
                _check.agree(
                    case, label, x / unit, error / abs(unit), expected / unit, 40 / WIDTH**2
                )
                for label, x, error, expected, unit in ratios
            ]
            rows += [
                _check.agree(case, "N · mean corr²", squares, np.sqrt(2 / pairs), 1.0, 10 / size),
                _check.agree(case, "lag-1 corr", *lagged(correlation, 1, size), 0),
                _check.agree(
                    case, "E ln R₁", *parts["increment"][:, 0], parts["drift"][0], 500 * third
                ),
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
            axes["drift"].plot(layers[:6], np.diff(bracket, prepend=0)[:6], line, color=color)
            mean, mean_error = 2 * results[f"{case}/increment"][:, :6]
            places = layers[:6] + 0.08 * (2 * i + j - 3.5)
            axes["drift"].errorbar(places, -mean, 2 * mean_error, lw=1, **style)
            _, _, variance, error = estimates(martingale)
            some = slice(3 + 2 * i + j, None, 8)
            axes["variance"].errorbar(bracket[some], variance[some], 2 * error[some], **style)
            lags, correlation = np.arange(1, MAX_LAG + 1), correlations(martingale)
            values = np.array([lagged(correlation, lag, len(martingale)) for lag in lags])
            shift = 0.1 * (2 * i + j - 3.5)
            axes["orthogonality"].errorbar(
                lags + shift, values[:, 0], 2 * values[:, 1], lw=1, **style
            )
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
        ylabel="lines: Var(Rᵢ | past); points: −2 E ln Rᵢ",
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
