"""At equal β the law of the weights is forgotten as width grows: its fourth moment
shows only in the first layer, for a coordinate direction, and in terms of second order
in 1/n.

Expected, for five laws of weights, ReLU masks and β = 1/2, with δ = Σ 2(μ4 − 3)E κ_i/n
over the layers, κ_i being the quartic the layer meets (δ is about 12(μ4 − 3)β/n): the
variances of the increments add up to δ (1 + O(1/n)) more, and the mean of log_norm is
δ/2 (1 + O(1/n)) less, than for normal weights, whose law is exact. Both are held
against martingales.expansion at these quartics, which has the O(1/n), to a relative
80/n². That is 5% at n = 40, where an error of a fifth of either is seen, for every law;
at other widths, where the expansion or the count is too small for that, numbers are
shown without a verdict (~). Σ Var R_i is Σ (5 + 2(μ4 − 3)E κ_i)/n at n = 10, and Var R₁
is (5 + 2(μ4 − 3))/n for a coordinate vector, exactly. Normal weights are the control:
no excess, and KS distance to their exact law within the noise. The distances of the
others are shown.

The quick form has verdicts at n = 40 for the laws whose δ is large enough for its
count. The mean is told with the help of Σ(R_i − 1), whose mean is exactly 0.

Time: 4 minutes on two CPU cores, half of it for Student's t; --quick 40 s.
Command: python -m experiments universality
"""

import functools

import jax
import numpy as np

from experiments import _check, _figure
from lognorm_jax import ensembles, exact, laws, martingales, masks, paths, weights

LAWS = (
    weights.normal(),
    weights.rademacher(),
    weights.uniform(),
    weights.student_t(9),
    weights.laplace(),
)
BETA = 0.5
SAMPLES = {10: 150_000, 20: 30_000, 40: 150_000, 80: 4_000}  # by width
QUICK_SAMPLES = {10: 16_384, 20: 4_096, 40: 16_384}
# single layers, for a coordinate vector
COORDINATE, QUICK_COORDINATE = 1_000_000, 200_000
NARROW = min(SAMPLES)
REMAINDER = 80  # what the expansion leaves out, relative, times n²


def ensemble(
    law: weights.Weights, width: int, depth: int | None = None
) -> ensembles.Ensemble:
    """Return square ReLU products of β = 1/2, or of another depth."""
    depth = round(BETA * width) if depth is None else depth
    return ensembles.Ensemble((width,) * (depth + 1), law, masks.relu())


@functools.cache
def normal_law(width: int) -> laws.Law:
    """Return the exact law for normal weights, the yardstick of the others."""
    return exact.law(ensemble(weights.normal(), width))


def compute(*, key, quick, bar, sample, num_samples=None) -> dict[str, np.ndarray]:
    """Sample every law at every width, and narrow single layers along a coordinate."""
    samples = num_samples or (QUICK_SAMPLES if quick else SAMPLES)
    single = QUICK_COORDINATE if quick else COORDINATE
    bar.reset(total=len(LAWS) * (sum(samples.values()) + single))
    results = {"widths": np.array(list(samples))}
    for i, law in enumerate(LAWS):
        for width, count in samples.items():
            case = jax.random.fold_in(jax.random.fold_in(key, i), width)
            path = paths.dense(ensemble(law, width))
            trace = sample(f"{law.name}, n = {width}", path, case, count)
            name = f"{law.name}, {width}"
            alive = trace.quartic > 0
            results |= {
                f"{name}/log_norm": trace.log_norm,
                f"{name}/quartic": np.sum(trace.quartic, axis=0)
                / np.sum(alive, axis=0),
                f"{name}/gaps": gaps(trace, normal_law(width)),
            }
            if width == NARROW:
                results[f"{law.name}/ratios"] = _ratios(trace)
        path = paths.dense(ensemble(law, NARROW, depth=1), np.eye(NARROW)[0])
        case = jax.random.fold_in(key, 100 + i)
        trace = sample(f"{law.name}, coordinate", path, case, single)
        results[f"{law.name}/coordinate"] = _ratios(trace)
    return results


def gaps(trace, normal: laws.Law) -> np.ndarray:  # (2, 2)
    """Return E log_norm and Σ Var ln R_i less those of the exact normal law, with
    standard errors.

    Of paths that survive. Σ(R_i − 1) takes most of the noise off the mean; its own mean
    is 0, but for the dead, which matter at n = 10 only. For normal weights the layers
    are independent, so that the variances of the increments add up to that of log_norm.
    """
    increment = trace.increment[np.isfinite(trace.log_norm)].astype(np.float64)
    control = np.expm1(increment).sum(1)
    mean, mean_error = _check.controlled(increment.sum(1), control)
    squares = np.sum((increment - increment.mean(0)) ** 2, axis=1)
    variance, variance_error = _check.controlled(squares, control)
    found = [
        (mean - normal.mean, mean_error),
        (variance - normal.variance, variance_error),
    ]
    return np.array(found)


def _ratios(trace) -> np.ndarray:  # (2, depth)
    """Return Var(R_i | alive before) and its standard error, for R_i of mean one."""
    columns = []
    for increment, quartic in zip(trace.increment.T, trace.quartic.T, strict=True):
        square = (np.exp(increment[quartic > 0].astype(np.float64)) - 1) ** 2
        columns.append([square.mean(), square.std() / np.sqrt(len(square))])
    return np.array(columns).T


def excess(law: weights.Weights, quartic: np.ndarray) -> np.ndarray:
    """Return n Var(R_i | past) − 5 for the mean quartic of each layer: 2(μ4 − 3)κ."""
    return 2 * (float(law.kurtosis) - 3) * quartic


# (2,)
def predicted(law: weights.Weights, width: int, quartic: np.ndarray) -> np.ndarray:
    """Return what ``gaps`` should be, for the mean quartic of each layer: to second
    order.
    """
    found = martingales.expansion(ensemble(law, width), quartic)
    known = martingales.expansion(ensemble(weights.normal(), width), quartic)
    return np.sum(np.array(found) - np.array(known), axis=1)


def check(results) -> list[_check.Row]:
    """Hold means, variances and single layers against theory."""
    rows = []
    for law in LAWS:
        for width in results["widths"]:
            rows += _gap_rows(law, int(width), results)
        control = law is weights.normal()
        compared = laws.compare(log_norms(results, law, width), normal_law(int(width)))
        row = _check.distance(law.name, f"KS to normal, n = {width}", compared)
        rows.append(row if control else row._replace(verdict=""))
        rows += _layer_rows(law, results)
    return rows


def log_norms(results, law, width) -> np.ndarray:
    """Return the log_norms of a law at a width."""
    return results[f"{law.name}, {width}/log_norm"]


def _gap_rows(law, width, results) -> list[_check.Row]:
    """Hold mean and variances at one width against those of normal weights."""
    rows, case = [], f"{law.name}, {width}"
    theory = predicted(law, width, results[f"{case}/quartic"])
    labels = f"mean gap, n = {width}", f"Σ Var ln Rᵢ gap, n = {width}"
    for label, (value, error), expected in zip(
        labels, results[f"{case}/gaps"], theory, strict=True
    ):
        slack = REMAINDER / width**2 * abs(expected)
        if law is not weights.normal():
            rows.append(_check.resolve(law.name, label, value, error, expected, slack))
        elif width != NARROW:  # where the dead shift the control
            rows.append(_check.agree(law.name, label, value, error, 0.0))
    return rows


def _layer_rows(law, results) -> list[_check.Row]:
    """Hold Var R_i of narrow layers against their fourth moment, which is exact."""
    control = law is weights.normal()
    variance, errors = results[f"{law.name}/ratios"]
    generic = 5 * len(variance) / NARROW
    theory = (
        generic + excess(law, results[f"{law.name}, {NARROW}/quartic"]).sum() / NARROW
    )
    # R_i − 1 are martingale increments, their squares nearly so
    error = np.hypot.reduce(errors)
    told = variance.sum(), error, theory
    (first,), (first_error,) = results[f"{law.name}/coordinate"]
    expected = (5 + excess(law, 1.0)) / NARROW
    one = first, first_error, expected
    rest = (0.0, 0.0) if control else (generic, 5 / NARROW)
    return [
        _check.resolve(law.name, f"Σ Var Rᵢ, n = {NARROW}", *told, without=rest[0]),
        _check.resolve(law.name, "Var R₁, coordinate", *one, without=rest[1]),
    ]


def _draw_law(axis, results, width):
    """Draw how far each cdf is from the exact one for normal weights."""
    normal = normal_law(width)
    x = normal.quantile(
        normal.atom + (1 - normal.atom) * np.linspace(5e-4, 1 - 5e-4, 400)
    )
    z = (x - normal.mean) / np.sqrt(normal.variance)
    for law, color in zip(LAWS, _figure.PALETTE, strict=False):
        seen = log_norms(results, law, width)
        difference = laws.empirical(seen).cdf(x) - normal.cdf(x)
        label = f"{law.name}, μ4 = {float(law.kurtosis):.2g}"
        axis.plot(z, difference, color=color, lw=1.2, label=label)
    noise = 2 * np.sqrt(normal.cdf(x) * (1 - normal.cdf(x)) / len(seen))
    axis.fill_between(z, -noise, noise, color="0.85", zorder=0, label="± 2 s.e.")
    axis.set(
        title=f"n = {width}, depth {round(BETA * width)}",
        xlabel="ln‖Mu‖², standardised by the exact normal law",
        ylim=(-0.1, 0.1),
        xlim=(-4, 3),
    )


def draw(results):
    """Draw laws at three widths, variances against the width, and the layers of narrow
    products.
    """
    widths = results["widths"]
    shown = {"narrow": widths[0], "middle": widths[1], "wide": widths[-1]}
    figure, axes = _figure.grid(
        [list(shown), ["variance", "layers", "first"]], (16, 10)
    )
    for name, width in shown.items():
        _draw_law(axes[name], results, int(width))
    axes["narrow"].set_ylabel("cdf less the exact cdf of normal weights")
    axes["narrow"].legend(fontsize=8)
    for i, (law, color) in enumerate(zip(LAWS, _figure.PALETTE, strict=False)):
        mu4, place = float(law.kurtosis), widths * 1.03 ** (i - 2)
        names = [f"{law.name}, {width}" for width in widths]
        value, error = np.array([results[f"{name}/gaps"][1] for name in names]).T
        quartics = [results[f"{name}/quartic"] for name in names]
        theory = [
            predicted(law, int(n), q)[1] for n, q in zip(widths, quartics, strict=True)
        ]
        axes["variance"].errorbar(
            place, value, 2 * error, fmt="o", ms=4, color=color, capsize=3
        )
        axes["variance"].plot(place, theory, color=color, lw=1)
        values, error = results[f"{law.name}/ratios"]
        layer = np.arange(1, len(values) + 1) + 0.08 * (i - 2)
        axes["layers"].errorbar(
            layer, values, 2 * error, fmt="o", ms=4, color=color, capsize=3
        )
        line = (5 + excess(law, results[f"{law.name}, {NARROW}/quartic"])) / NARROW
        axes["layers"].plot(layer, line, "_", ms=20, mew=2, color=color)
        leading = (5 + 12 * (mu4 - 3) / NARROW) / NARROW
        axes["layers"].plot(len(values) + 0.6, leading, "<", ms=7, color=color)
        kinds = ("ratios", "s", "white"), ("coordinate", "o", color)
        for kind, shape, fill in kinds:
            value, error = results[f"{law.name}/{kind}"][:, 0]
            axes["first"].errorbar(
                mu4, value, 2 * error, fmt=shape, ms=6, mfc=fill, color=color, capsize=3
            )
    _finish(axes, widths)
    return figure


def _finish(axes, widths):
    axes["variance"].axhline(0, color=_figure.THEORY, lw=1)
    axes["variance"].set(
        title="excess variance: n⁻² a layer, 1/n at fixed β",
        xlabel="width n, depth n/2",
        ylabel="Σ Var ln Rᵢ less that of normal weights,\n± 2 s.e.; lines: second order",
    )
    _figure.log_widths(axes["variance"], widths)
    axes["variance"].set_ylim(bottom=-1.75)
    axes["variance"].text(
        widths[0], -1.65, "n = 10 is beyond second order", fontsize=9, color="0.4"
    )
    axes["layers"].axhline(5 / NARROW, color=_figure.THEORY, lw=1, label="5/n")
    style = {"marker": "_", "ms": 20, "mew": 2, "ls": "", "color": _figure.THEORY}
    axes["layers"].plot([], [], label="(5 + 2(μ4 − 3)E κᵢ)/n", **style)
    axes["layers"].plot(
        [], [], "<", color=_figure.THEORY, label="leading order, 5/n + 12(μ4 − 3)/n²"
    )
    axes["layers"].set(
        title=f"layer by layer, flat direction, n = {NARROW}",
        xlabel="layer i",
        ylabel="Var Rᵢ, ± 2 s.e.",
        ylim=(0.22, 1.02),
    )
    axes["layers"].legend(loc="upper left")
    mu4 = np.linspace(0.8, 6.2, 2)
    lines = {"coordinate, κ = 1": (1, "-"), "flat, κ = 1/n": (1 / NARROW, "--")}
    for label, (kappa, style) in lines.items():
        theory = (5 + 2 * (mu4 - 3) * kappa) / NARROW
        axes["first"].plot(mu4, theory, style, color=_figure.THEORY, label=label)
    axes["first"].set(
        title=f"first layer, n = {NARROW}: the direction decides",
        xlabel="μ4, the kurtosis of the weights",
        ylabel="Var R₁, ± 2 s.e.",
    )
    axes["first"].legend(loc="upper left")
