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

Found: what is left of the fourth moment at width n is a term of order n⁻² in each
layer, so of order 1/n in all at fixed β, and, for a coordinate direction, one of order
1/n in the first layer.

Figure: densities for narrow widths, excess variance against width, first layer, for
five weight laws.
Time: 5 minutes on two CPU cores, half of it for Student's t; --quick 15 s.
Command: python -m experiments universality
"""

import functools

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
# heavy and light weights, at the widths that have a verdict
QUICK_LAWS = (weights.rademacher(), weights.laplace())
QUICK_SAMPLES = {10: 16_384, 40: 16_384}
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


def compute(job) -> dict:
    """Sample every law at every width, and narrow single layers along a coordinate."""
    samples = job.count(SAMPLES, QUICK_SAMPLES)
    single = job.count(COORDINATE, QUICK_COORDINATE)
    results = {"widths": np.array(list(samples))}
    for law in job.count(LAWS, QUICK_LAWS):
        by_width = {}
        for width, num_samples in samples.items():
            path = paths.dense(ensemble(law, width))
            trace = job.sample(f"{law.name}, n = {width}", path, num_samples)
            alive = np.sum(trace.quartic > 0, axis=0)
            by_width[f"{width}"] = {
                "log_norm": trace.log_norm,
                "quartic": np.sum(trace.quartic, axis=0) / alive,
                "gaps": gaps(trace, normal_law(width)),
            }
            if width == NARROW:
                ratios = _ratios(trace)
        path = paths.dense(ensemble(law, NARROW, depth=1), np.eye(NARROW)[0])
        trace = job.sample(f"{law.name}, coordinate", path, single)
        layers = {"ratios": ratios, "coordinate": _ratios(trace)}
        results[law.name] = layers | by_width
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
    for law in (law for law in LAWS if law.name in results):
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
    return results[law.name][f"{width}"]["log_norm"]


def _gap_rows(law, width, results) -> list[_check.Row]:
    """Hold mean and variances at one width against those of normal weights."""
    rows, own = [], results[law.name][f"{width}"]
    theory = predicted(law, width, own["quartic"])
    labels = f"mean gap, n = {width}", f"Σ Var ln Rᵢ gap, n = {width}"
    for label, (value, error), expected in zip(
        labels, own["gaps"], theory, strict=True
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
    variance, errors = results[law.name]["ratios"]
    generic = 5 * len(variance) / NARROW
    theory = (
        generic + excess(law, results[law.name][f"{NARROW}"]["quartic"]).sum() / NARROW
    )
    # R_i − 1 are martingale increments, their squares nearly so
    error = np.hypot.reduce(errors)
    told = variance.sum(), error, theory
    (first,), (first_error,) = results[law.name]["coordinate"]
    expected = (5 + excess(law, 1.0)) / NARROW
    one = first, first_error, expected
    rest = (0.0, 0.0) if control else (generic, 5 / NARROW)
    return [
        _check.resolve(law.name, f"Σ Var Rᵢ, n = {NARROW}", *told, without=rest[0]),
        _check.resolve(law.name, "Var R₁, coordinate", *one, without=rest[1]),
    ]


def draw(results):
    """Draw narrow laws, variances against the width, and the first layer."""
    figure, axes = _figure.grid([["law", "variance", "first"]], (16, 5.5))
    chosen = [law for law in LAWS if law.name in results]
    for i, (law, color) in enumerate(zip(chosen, _figure.PALETTE, strict=False)):
        _draw_law(axes["law"], law, log_norms(results, law, NARROW), color)
        _draw_variance(axes["variance"], law, results, 1.03 ** (i - 2), color)
        _draw_first(axes["first"], law, results[law.name], color)
    _finish(axes, results["widths"])
    return figure


def _draw_law(axis, law, log_norm, color):
    """Draw how far the cdf of narrow products is from the exact one for normal
    weights.
    """
    normal = normal_law(NARROW)
    share = np.linspace(5e-4, 1 - 5e-4, 400)
    x = normal.quantile(normal.atom + (1 - normal.atom) * share)
    z = (x - normal.mean) / np.sqrt(normal.variance)
    expected = normal.cdf(x)
    gap = laws.empirical(log_norm).cdf(x) - expected
    label = f"{law.name}, μ4 = {float(law.kurtosis):.2g}"
    axis.plot(z, gap, color=color, label=label)
    if not axis.collections:  # one band for all: their counts are the same
        noise = 2 * np.sqrt(expected * (1 - expected) / len(log_norm))
        style = {"color": "0.85", "zorder": 0, "label": "± 2 s.e."}
        axis.fill_between(z, -noise, noise, **style)


def _draw_variance(axis, law, results, shift, color):
    """Draw the excess variance at each width, and what theory says."""
    widths = results["widths"]
    own = [results[law.name][f"{width}"] for width in widths]
    value, error = np.array([part["gaps"][1] for part in own]).T
    theory = [
        predicted(law, int(width), part["quartic"])[1]
        for width, part in zip(widths, own, strict=True)
    ]
    style = {"fmt": "o", "ms": 5, "color": color, "capsize": 3}
    axis.errorbar(widths * shift, value, 2 * error, **style)
    axis.plot(widths * shift, theory, color=color, lw=1)


def _draw_first(axis, law, parts, color):
    """Draw the variance of the first layer, for a coordinate and for the flat
    vector.
    """
    for name, shape, fill in (("ratios", "s", "white"), ("coordinate", "o", color)):
        value, error = parts[name][:, 0]
        style = {"fmt": shape, "ms": 7, "mfc": fill, "color": color, "capsize": 3}
        axis.errorbar(float(law.kurtosis), value, 2 * error, **style)


def _finish(axes, widths):
    axes["law"].set(
        title=f"n = {NARROW}, depth {round(BETA * NARROW)}: the laws differ",
        xlabel="ln‖Mu‖², standardised",
        ylabel="cdf less that exact cdf",
        ylim=(-0.1, 0.2),
        xlim=(-4, 3),
    )
    axes["law"].legend()
    axes["variance"].axhline(0, color=_figure.THEORY, lw=1)
    axes["variance"].set(
        title="the difference falls as 1/n",
        xlabel="width n, at depth n/2",
        ylabel="variance less the normal one (± 2 s.e.)",
    )
    _figure.log_widths(axes["variance"], widths)
    axes["variance"].set_ylim(bottom=-1.75)
    line = _figure.entry("theory to second order", color=_figure.THEORY)
    point = _figure.entry("simulated", color=_figure.THEORY, marker="o", ls="")
    axes["variance"].legend(handles=[point, line], loc="lower right")

    mu4 = np.linspace(0.8, 6.2, 2)
    lines = {"coordinate vector": (1, "-"), "flat vector": (1 / NARROW, "--")}
    for label, (kappa, style) in lines.items():
        theory = (5 + 2 * (mu4 - 3) * kappa) / NARROW
        axes["first"].plot(mu4, theory, style, color=_figure.THEORY, label=label)
    axes["first"].set(
        title=f"a coordinate's first layer shows μ4 (n = {NARROW})",
        xlabel="fourth moment μ4 (normal: 3)",
        ylabel="Var R₁, the first layer (± 2 s.e.)",
    )
    axes["first"].legend(title="lines: theory", loc="upper left")
