"""Layer by layer, the log-norm minus its drift is a martingale: its increments are
uncorrelated, its variance is its bracket, and its drift is −½ of its predictable
variance.

Expected, for four laws of weights, two directions, and 64 × 64 matrices with ReLU
masks, each within 5 standard errors: the martingale has mean 0; Σ(Rᵢ − 1)² has the mean
of the bracket, E⟨M⟩; Var M is E⟨M⟩ (1 + 3.7/n + …) and E ln‖Mu‖² is −½E⟨M⟩ (1 + 1.6/n +
…), for normal weights exactly, for others with the difference that
martingales.expansion makes; the squared correlations of two layers average 1/N; E ln R₁
is the drift; and Var R₁ = (2(3 + (μ4 − 3)κ) − 1)/n exactly, so that the fourth moment
μ4 of the weights shows for a coordinate vector (κ = 1) and hides for the flat one (κ =
1/n). The drift of layer 1 is allowed ½(Var R₁)³, the third order, where it is not
exact.

The second-order terms are told as n times what the ratio to E⟨M⟩ or −½E⟨M⟩ is more than
1. Their first order is taken off path by path, with Σ(Rᵢ − 1)² in place of E⟨M⟩ and the
help of Σ(Rᵢ − 1), whose mean is exactly 0, so that an error of a fifth of them is seen.
Those of the mean are shown without a verdict (~) for Laplace weights and a coordinate,
where Var R₁ = 0.17 is too large for a second order, and in the quick form, which has
too few paths.

Time: 2 minutes on two CPU cores; --quick 40 s. Command: python -m experiments
martingale_paths
"""

import jax
import numpy as np

from experiments import _check, _figure
from lognorm_jax import ensembles, exact, martingales, masks, paths, summaries, weights

LAWS = (weights.normal(), weights.rademacher(), weights.uniform(), weights.laplace())
WIDTH, DEPTH = 64, 32
DIRECTIONS = {"flat": np.full(WIDTH, WIDTH**-0.5), "coordinate": np.eye(WIDTH)[0]}
NUM_SAMPLES, QUICK_SAMPLES = 80_000, 6_000
FIRST = 3  # paths of the first layer alone, for each of them
PATHS_DRAWN = 300
MAX_LAG = 8


def ensemble(law: weights.Weights, depth: int = DEPTH) -> ensembles.Ensemble:
    """Return the square ReLU products with weights of this law."""
    return ensembles.Ensemble((WIDTH,) * (depth + 1), law, masks.relu())


def compute(*, key, quick, bar, sample, num_samples=None) -> dict[str, np.ndarray]:
    """Decompose sampled paths, and keep what the checks and the figure need."""
    num_samples = num_samples or (QUICK_SAMPLES if quick else NUM_SAMPLES)
    bar.reset(total=(1 + FIRST) * num_samples * len(LAWS) * len(DIRECTIONS))
    results = {}
    for i, law in enumerate(LAWS):
        for j, (name, direction) in enumerate(DIRECTIONS.items()):
            case = f"{law.name}, {name}"
            case_key = jax.random.fold_in(jax.random.fold_in(key, i), j)
            path = paths.dense(ensemble(law), direction)
            trace = sample(case, path, case_key, num_samples)
            one = paths.dense(ensemble(law, depth=1), direction)
            first_key = jax.random.fold_in(case_key, 1 << 20)
            first = sample(f"{case}, layer 1", one, first_key, FIRST * num_samples)
            parts = martingales.decompose(trace, ensemble(law))
            results |= {
                f"{case}/first": first_layer(first),
                f"{case}/increment": np.array(estimates(trace.increment)[:2]),
                f"{case}/martingale": parts.martingale.astype(np.float32),
                f"{case}/bracket": parts.bracket.mean(0),
                f"{case}/drift": parts.drift.mean(0),
                f"{case}/squares": squares(trace, parts),
                f"{case}/second order": second_order(trace, parts),
                f"{case}/theory": second_order_theory(law, trace, parts),
            }
    return results


def first_layer(trace) -> np.ndarray:  # (2, 2)
    """Return E ln R₁ and Var R₁, each with its standard error; E R₁ is exactly 1."""
    increment = trace.increment[:, 0].astype(np.float64)
    rest = np.expm1(increment)
    _, _, variance, error = _check.moments(rest)
    return np.array([_check.controlled(increment, rest), (variance, error)])


def squares(trace, parts) -> np.ndarray:  # (2,)
    """Return the mean of Σ(R_i − 1)² less the bracket, which is exactly 0, and its
    error.
    """
    ratio = np.expm1(trace.increment.astype(np.float64))
    gap = np.sum(ratio**2, axis=1) - parts.bracket[:, -1]
    return np.array(_check.controlled(gap, ratio.sum(1)))


def second_order(trace, parts) -> np.ndarray:  # (2, 2)
    """Return what E log_norm is above −½E⟨M⟩, and Var M above E⟨M⟩, with standard
    errors.

    (R_i − 1)² has the mean of the bracket, and Var M is the sum over the layers, M
    being a martingale: so these are means of Σ[ln R_i + ½(R_i − 1)²] and Σ[(ΔM_i)² −
    (R_i − 1)²].
    """
    increment = trace.increment.astype(np.float64)
    ratio = np.expm1(increment)
    steps = increment - parts.drift
    first, square = ratio.sum(1), np.sum(ratio**2, axis=1)
    mean = _check.controlled(increment.sum(1) + square / 2, first)
    return np.array([mean, _check.controlled(np.sum(steps**2, axis=1) - square, first)])


def second_order_theory(law, trace, parts) -> np.ndarray:  # (2,)
    """Return what theory says of ``second_order``: exact for normal weights, else to
    O(n⁻³).
    """
    bracket = parts.bracket[:, -1].mean()
    _, variance = martingales.expansion(ensemble(law), trace.quartic)
    _, known = martingales.expansion(ensemble(weights.normal()), np.zeros(DEPTH))
    normal = exact.increment_cumulants(WIDTH, masks.relu(), 2)[1]
    mean = parts.drift.sum(1).mean() + bracket / 2
    return np.array([mean, np.sum(variance - known + normal, axis=1).mean() - bracket])


def estimates(x: np.ndarray) -> list[np.ndarray]:
    """Return mean, its standard error, variance, its standard error over samples: x (N,
    layers).
    """
    summary = summaries.estimate(x)
    return [*summary.mean, *summary.variance]


def correlations(martingale: np.ndarray) -> np.ndarray:
    """Return the correlations between the increments of all layers, (depth, depth)."""
    increments = np.diff(martingale.astype(np.float64), axis=-1, prepend=0.0)
    return np.corrcoef(increments, rowvar=False)


def lagged(correlation: np.ndarray, lag: int, num_samples: int) -> tuple[float, float]:
    """Return the mean correlation of increments ``lag`` layers apart, with its standard
    error.
    """
    values = np.diagonal(correlation, lag)
    return values.mean(), 1 / np.sqrt(len(values) * num_samples)


def check(results) -> list[_check.Row]:
    """Hold every case against theory."""
    rows = []
    for law in LAWS:
        for name, direction in DIRECTIONS.items():
            case = f"{law.name}, {name}"
            parts = {
                k.split("/")[1]: v
                for k, v in results.items()
                if k.startswith(f"{case}/")
            }
            kappa = np.array([np.sum(direction**4)])
            variance = ensembles.predictable_variance(ensemble(law, depth=1), kappa)[0]
            # what the drift of layer 1 leaves out: elsewhere, and for normal weights,
            # next to none
            third = 0.0 if law is weights.normal() else variance**3 / 2
            rows += _sum_rows(case, parts, third)
            rows += _orthogonality_rows(case, parts["martingale"])
            # the row of Var R₁ is about what μ4 adds for a coordinate vector; for
            # normal weights and for the flat vector, where it hides, about all of the
            # variance
            shows = name == "coordinate" and law is not weights.normal()
            rows += _first_rows(
                case, parts, variance, third, 5 / WIDTH if shows else 0.0
            )
    return rows


def _sum_rows(case, parts, third) -> list[_check.Row]:
    """Hold the martingale's mean, and mean and variance of the sum to second order."""
    mean, error, *_ = (x[-1] for x in estimates(parts["martingale"]))
    bracket = parts["bracket"][-1]
    gap, gap_error = parts["squares"]
    rows = [
        _check.agree(case, "E M", mean, error, 0),
        _check.agree(
            case, "Σ(Rᵢ − 1)²/E⟨M⟩", 1 + gap / bracket, gap_error / bracket, 1
        ),
    ]
    labels = ("n · (E ln‖Mu‖²/−½E⟨M⟩ − 1)", "n · (Var M/E⟨M⟩ − 1)")
    units = (-bracket / 2 / WIDTH, bracket / WIDTH)
    pairs = zip(parts["second order"], parts["theory"], strict=True)
    for label, unit, slack, ((value, error), theory) in zip(
        labels, units, (third, 0.0), pairs, strict=True
    ):
        told = value / unit, error / abs(unit), theory / unit, slack / abs(unit)
        rows.append(_check.resolve(case, label, *told))
    return rows


def _orthogonality_rows(case, martingale) -> list[_check.Row]:
    """Hold the correlations of the increments against 0, whose squares average 1/N by
    chance.
    """
    size, pairs = len(martingale), DEPTH * (DEPTH - 1) / 2
    correlation = correlations(martingale)
    square = np.triu(correlation**2, 1).sum() * size / pairs
    return [
        _check.agree(
            case, "N · mean corr²", square, np.sqrt(2 / pairs), 1.0, 10 / size
        ),
        _check.agree(case, "lag-1 corr", *lagged(correlation, 1, size), 0),
    ]


def _first_rows(case, parts, theory, third, rest) -> list[_check.Row]:
    """Hold the first layer against its drift and its exact variance, of which ``rest``
    is known.
    """
    drift, variance = parts["first"]
    return [
        _check.resolve(case, "E ln R₁", *drift, parts["drift"][0], third),
        _check.resolve(case, "Var R₁", *variance, theory, without=rest),
    ]


def _draw_fan(axis, results, case):
    layers = np.arange(DEPTH + 1)
    martingale = np.pad(results[f"{case}/martingale"], ((0, 0), (1, 0)))
    fan = 2 * np.sqrt(np.concatenate([[0], results[f"{case}/bracket"]]))
    axis.plot(
        layers, martingale[:PATHS_DRAWN].T, color=_figure.MASK_MODEL, lw=0.4, alpha=0.25
    )
    axis.plot(layers, np.array([-fan, fan]).T, color=_figure.THEORY)
    inside = np.mean(np.abs(martingale[:, -1]) < fan[-1])
    axis.set(title=case, ylim=(-6, 6), xlim=(0, DEPTH))
    axis.text(1, -5.5, f"{inside:.1%} inside at the end")


def draw(results):
    """Draw the fans of all cases, and below them drift, orthogonality, variance, first
    layer.
    """
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
        for j, (name, line, marker) in enumerate(
            zip(DIRECTIONS, ("-", "--"), "os", strict=True)
        ):
            case, color = f"{law.name}, {name}", _figure.PALETTE[i]
            style = {"fmt": marker, "ms": 5, "color": color}
            bracket, martingale = (
                results[f"{case}/bracket"],
                results[f"{case}/martingale"],
            )
            axes["drift"].plot(
                layers[:6], np.diff(bracket, prepend=0)[:6], line, color=color
            )
            mean, mean_error = 2 * results[f"{case}/increment"][:, :6]
            places = layers[:6] + 0.08 * (2 * i + j - 3.5)
            axes["drift"].errorbar(places, -mean, 2 * mean_error, lw=1, **style)
            _, _, variance, error = estimates(martingale)
            some = slice(3 + 2 * i + j, None, 8)
            axes["variance"].errorbar(
                bracket[some], variance[some], 2 * error[some], **style
            )
            lags, correlation = np.arange(1, MAX_LAG + 1), correlations(martingale)
            values = np.array(
                [lagged(correlation, lag, len(martingale)) for lag in lags]
            )
            shift = 0.1 * (2 * i + j - 3.5)
            axes["orthogonality"].errorbar(
                lags + shift, values[:, 0], 2 * values[:, 1], lw=1, **style
            )
            first, place = rows[case, "Var R₁"], i + 0.3 * (j - 0.5)
            axes["first layer"].errorbar(
                place, first.measured, 2 * first.error, capsize=5, label=case, **style
            )
            axes["first layer"].plot(
                place, first.expected, "_", ms=24, color=_figure.THEORY
            )
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
        title="orthogonality of the increments",
        xlabel="lag",
        ylabel="mean correlation, ± 2 s.e.",
    )
    top = axes["variance"].get_xlim()[1]
    axes["variance"].axline((0, 0), slope=1, color=_figure.THEORY, label="the bracket")
    second = 1 + 3.7 / WIDTH
    axes["variance"].axline(
        (0, 0),
        slope=second,
        color=_figure.THEORY,
        ls=":",
        label="bracket × (1 + 3.7/n)",
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
