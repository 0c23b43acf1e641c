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

Found: what is left when the drift is taken off is a martingale whose variance is its
bracket. The fourth moment of the weights shows in the first layer, for a coordinate
vector, and is soon forgotten. Even the second-order terms, 6% of the variance and 3% of
the mean, are told to a few percent.

Figure: martingale paths in their fan, drift against predictable variance, variance over
bracket.
Time: 3 minutes on two CPU cores; --quick 15 s.
Command: python -m experiments martingale_paths
"""

import itertools

import numpy as np

from experiments import _check, _figure
from lognorm_jax import ensembles, exact, martingales, masks, paths, summaries, weights

LAWS = (weights.normal(), weights.rademacher(), weights.uniform(), weights.laplace())
WIDTH, DEPTH = 64, 32
DIRECTIONS = {"flat": np.full(WIDTH, WIDTH**-0.5), "coordinate": np.eye(WIDTH)[0]}
QUICK_CASES = ("rademacher, flat", "rademacher, coordinate", "laplace, coordinate")
NUM_SAMPLES, QUICK_SAMPLES = 80_000, 6_000
FIRST = 3  # paths of the first layer alone, for each of them
PATHS_DRAWN = 300


def ensemble(law: weights.Weights, depth: int = DEPTH) -> ensembles.Ensemble:
    """Return the square ReLU products with weights of this law."""
    return ensembles.Ensemble((WIDTH,) * (depth + 1), law, masks.relu())


def cases() -> dict[str, tuple[weights.Weights, np.ndarray]]:
    """Return law and direction of each case."""
    pairs = itertools.product(LAWS, DIRECTIONS.items())
    return {f"{law.name}, {name}": (law, u) for law, (name, u) in pairs}


def compute(job) -> dict:
    """Decompose sampled paths, and keep what the checks and the figure need."""
    num_samples = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    results = {}
    for case in job.count(cases(), QUICK_CASES):
        law, direction = cases()[case]
        trace = job.sample(case, paths.dense(ensemble(law), direction), num_samples)
        one = paths.dense(ensemble(law, depth=1), direction)
        first = job.sample(f"{case}, layer 1", one, FIRST * num_samples)

        parts = martingales.decompose(trace, ensemble(law))
        results[case] = {
            "first": first_layer(first),
            "increment": np.array(estimates(trace.increment)[:2]),
            "martingale": parts.martingale.astype(np.float32),
            "bracket": parts.bracket.mean(0),
            "drift": parts.drift.mean(0),
            "squares": squares(trace, parts),
            "second order": second_order(trace, parts),
            "theory": second_order_theory(law, trace, parts),
        }
    return results


def first_layer(trace) -> np.ndarray:  # (2, 2)
    """Return E ln R₁ and Var R₁, each with its standard error; E R₁ is exactly 1."""
    increment = trace.increment[:, 0].astype(np.float64)
    rest = np.expm1(increment)
    variance = summaries.estimate(rest).variance
    return np.array([_check.controlled(increment, rest), variance])


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
    for case, (law, direction) in cases().items():
        if case not in results:
            continue
        parts = results[case]
        kappa = np.array([np.sum(direction**4)])
        variance = ensembles.predictable_variance(ensemble(law, depth=1), kappa)[0]
        # what the drift of layer 1 leaves out: elsewhere, and for normal weights,
        # next to none
        third = 0.0 if law is weights.normal() else variance**3 / 2
        rows += _sum_rows(case, parts, third)
        rows += _orthogonality_rows(case, parts["martingale"])
        # the row of Var R₁ is about what μ4 adds for a coordinate vector; for normal
        # weights and for the flat vector, where it hides, about all of the variance
        shows = case.endswith("coordinate") and law is not weights.normal()
        rest = 5 / WIDTH if shows else 0.0
        rows += _first_rows(case, parts, variance, third, rest)
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


FAN = "laplace, coordinate"  # the case whose paths are drawn
PLACES = np.array([1, 2, 4, 8, 16, 32])  # layers whose variance is drawn


def draw(results):
    """Draw one case's paths in their fan, and drift and variance of all cases."""
    figure, axes = _figure.grid([["fan", "drift", "variance"]], (16, 5.5))
    _draw_fan(axes["fan"], results[FAN] if FAN in results else results[min(results)])
    for i, case in enumerate(results):
        law, direction = case.split(", ")
        filled = direction == "coordinate"
        color = _figure.PALETTE[[law.name for law in LAWS].index(law)]
        style = {"fmt": "s" if filled else "o", "ms": 5, "lw": 1, "color": color}
        style |= {"capsize": 2, "mfc": color if filled else "white", "label": case}
        shift = (i - (len(results) - 1) / 2) / len(results)
        _draw_drift(axes["drift"], results[case], shift, style)
        _draw_variance(axes["variance"], results[case], shift, style)
    _finish(axes)
    return figure


def _draw_fan(axis, parts):
    """Draw some paths of a martingale, and two standard deviations by its bracket."""
    layers = np.arange(DEPTH + 1)
    martingale = np.pad(parts["martingale"], ((0, 0), (1, 0)))
    fan = 2 * np.sqrt(np.concatenate([[0], parts["bracket"]]))
    style = {"color": _figure.MASK_MODEL, "lw": 0.5, "alpha": 0.25}
    axis.plot(layers, martingale[:PATHS_DRAWN].T, **style)
    axis.plot(layers, np.array([-fan, fan]).T, color=_figure.THEORY, lw=2)
    inside = np.mean(np.abs(martingale[:, -1]) < fan[-1])
    axis.text(1, -5.5, f"{inside:.1%} end inside ±2√E⟨M⟩ (normal: 95.4%)", fontsize=12)


def _draw_drift(axis, parts, shift, style):
    """Draw −2 E ln Rᵢ, and the predictable variance it should be."""
    layers = np.arange(1, 6)
    mean, error = 2 * parts["increment"][:, :5]
    axis.errorbar(layers + 0.7 * shift, -mean, 2 * error, **style)
    predicted = np.diff(parts["bracket"], prepend=0)[:5]
    axis.plot(layers + 0.7 * shift, predicted, "_", ms=12, color=_figure.THEORY)


def _draw_variance(axis, parts, shift, style):
    """Draw the variance of the martingale over its bracket."""
    martingale = parts["martingale"][:, PLACES - 1]
    variance, error = summaries.estimate(martingale).variance
    bracket = parts["bracket"][PLACES - 1]
    place = PLACES * 2 ** (0.7 * shift)
    axis.errorbar(place, variance / bracket, 2 * error / bracket, **style)


def _finish(axes):
    axes["fan"].set(
        title=f"paths of the martingale, {FAN}",
        xlabel="number of the layer, i",
        ylabel="log-norm less its drift, Mᵢ",
        ylim=(-6, 6),
        xlim=(0, DEPTH),
    )
    axes["drift"].set(
        title="the drift is −½ Var(Rᵢ | past)",
        xlabel="number of the layer, i",
        ylabel="−2 × mean of ln Rᵢ (± 2 s.e.)",
        ylim=(0, 0.33),
    )
    bars = _figure.entry("Var(Rᵢ | past)", color=_figure.THEORY, marker="_", ls="")
    handles = axes["drift"].get_legend_handles_labels()[0]
    style = {"fontsize": 11, "columnspacing": 0.8, "handletextpad": 0.2}
    axes["drift"].legend(handles=[bars, *handles], ncols=2, loc="upper right", **style)
    axes["variance"].axhline(1, color=_figure.THEORY, label="1: the bracket")
    second = {
        "color": _figure.THEORY,
        "ls": ":",
        "label": "1 + 3.7/n: second order, normal",
    }
    axes["variance"].axhline(1 + 3.7 / WIDTH, **second)
    axes["variance"].set(
        title="the variance is the bracket to order 1/n",
        xlabel="number of layers, i",
        ylabel="Var Mᵢ / E⟨M⟩ᵢ (± 2 s.e.)",
        xscale="log",
        xticks=PLACES,
        xticklabels=PLACES,
    )
    axes["variance"].minorticks_off()
    handles, labels = axes["variance"].get_legend_handles_labels()
    lines = [i for i, label in enumerate(labels) if label.startswith("1")]
    axes["variance"].legend(handles=[handles[i] for i in lines], loc="lower right")
