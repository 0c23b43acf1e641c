"""At equal β the law of the weights is forgotten as width grows: its fourth moment shows only in
the first layer, for a coordinate direction, and in terms of second order in 1/n.

Expected, for five laws of weights, ReLU masks and β = 1/2: the KS distance to the exact law for
normal weights falls as 1/n, below 2/n at the largest width; the variance of log_norm exceeds that
law's by δ = Σ 2(μ4 − 3)E κ_i/n over the layers, κ_i being the quartic the layer meets (about
12(μ4 − 3)β/n), for n ≥ 20 to 20% of δ, 50β/n² and 5 standard errors (at n = 10, where Var ln R is
0.87 and not 5/n, the shift is of the sign of δ but larger); Var R_i is (5 + 2(μ4 − 3)E κ_i)/n
in every layer at n = 10, and (5 + 2(μ4 − 3))/n in the first one for a coordinate vector. Normal
weights are the control: no excess, and KS distance within the noise.

Time: 2 minutes on two CPU cores; --quick 40 s. Command: python -m experiments universality
"""

import jax
import numpy as np

from experiments import _check, _figure
from lognorm_jax import ensembles, exact, laws, masks, paths, sampling, summaries, weights

LAWS = (
    weights.normal(),
    weights.rademacher(),
    weights.uniform(),
    weights.student_t(9),
    weights.laplace(),
)
BETA = 0.5
SAMPLES = {10: 100_000, 20: 50_000, 40: 20_000, 80: 6_000}  # by width
QUICK_SAMPLES = {10: 8_192, 20: 4_096, 40: 2_048}
NARROW = min(SAMPLES)


def ensemble(law: weights.Weights, width: int) -> ensembles.Ensemble:
    """Return square ReLU products of β = 1/2."""
    return ensembles.Ensemble((width,) * (round(BETA * width) + 1), law, masks.relu())


def _summary(x: np.ndarray) -> summaries.Summary:
    """Return moments of samples (N, layers) of R_i, or of log_norm as one column."""
    return summaries.summarise(summaries.moments(paths.Trace(x, None)))


def compute(*, key, quick, bar, num_samples=None) -> dict[str, np.ndarray]:
    """Sample every law at every width, and the narrow one along a coordinate as well."""
    samples = num_samples or (QUICK_SAMPLES if quick else SAMPLES)
    bar.reset(total=len(LAWS) * (sum(samples.values()) + samples[NARROW]))
    results = {"widths": np.array(list(samples))}
    for i, law in enumerate(LAWS):
        for width, count in samples.items():
            bar.set_description(f"{law.name}, n = {width}")
            products = ensemble(law, width)
            case = jax.random.fold_in(jax.random.fold_in(key, i), width)
            trace = sampling.sample(paths.dense(products), case, count, progress=bar.update)
            name = f"{law.name}, {width}"
            results[f"{name}/log_norm"] = trace.log_norm
            alive = trace.quartic > 0
            results[f"{name}/quartic"] = np.sum(trace.quartic, axis=0) / np.sum(alive, axis=0)
            if width == NARROW:
                results[f"{law.name}/ratios"] = _ratios(trace)
        path = paths.dense(ensemble(law, NARROW), np.eye(NARROW)[0])
        case = jax.random.fold_in(key, 100 + i)
        trace = sampling.sample(path, case, samples[NARROW], progress=bar.update)
        results[f"{law.name}/coordinate"] = _ratios(trace)[:, :1]
    return results


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


def gap(log_norms: np.ndarray, law: laws.Law) -> tuple[float, float]:
    """Return the variance of the samples less that of a law, and its standard error."""
    summary = _summary(log_norms[:, None])
    return summary.variance[-1] - law.variance, summary.variance_error[-1]


def check(results) -> list[_check.Row]:
    """Hold variances, laws and single layers against theory."""
    rows, control = [], {}
    for law in LAWS:
        for width in results["widths"]:
            case = f"{law.name}, {width}"
            normal = exact.law(ensemble(LAWS[0], int(width)))
            log_norms, quartic = results[f"{case}/log_norm"], results[f"{case}/quartic"]
            delta = np.sum(excess(law, quartic)) / width
            slack = 0.2 * abs(delta) + 50 * BETA / width**2 * (law is not LAWS[0])
            difference = gap(log_norms, normal)
            label = f"Var − Var normal, n = {width}"
            if width == NARROW and law is not LAWS[0]:
                rows.append(_check.show(law.name, label, *difference))
            else:
                rows.append(_check.agree(law.name, label, *difference, delta, slack))
            control[law, width] = laws.compare(log_norms, normal)
        variance, error = results[f"{law.name}/ratios"]
        theory = (5 + excess(law, results[f"{law.name}, {NARROW}/quartic"])) / NARROW
        worst = np.argmax(np.abs(variance - theory) / error)
        rows.append(
            _check.agree(
                law.name, "Var Rᵢ, worst layer", variance[worst], error[worst], theory[worst]
            )
        )
        (variance,), (error,) = results[f"{law.name}/coordinate"]
        theory = (5 + excess(law, 1.0)) / NARROW
        rows.append(_check.agree(law.name, "Var R₁, coordinate", variance, error, theory))
        widest = results["widths"][-1]
        narrow, wide = control[law, NARROW], control[law, widest]
        if law is LAWS[0]:
            rows.append(_check.distance(law.name, "KS to normal, n = 10", narrow))
        else:
            rows.append(_check.show(law.name, "KS to normal, n = 10", narrow.distance))
        rows.append(_check.distance(law.name, f"KS to normal, n = {widest}", wide, 2 / widest))
    return rows


def draw(results):
    """Draw distances and variances against the width, and the layers of the narrow products."""
    figure, axes = _figure.grid([["distance", "variance"], ["layers", "first"]], (13, 10))
    widths = results["widths"].astype(float)
    for i, (law, color) in enumerate(zip(LAWS, _figure.PALETTE, strict=False)):
        mu4 = float(law.kurtosis)
        label, place = f"{law.name}, μ4 = {mu4:.2g}", widths * 1.03 ** (i - 2)
        distance, error, variance, noise = [], [], [], []
        for width in widths:
            normal = exact.law(ensemble(LAWS[0], int(width)))
            log_norms = results[f"{law.name}, {width:.0f}/log_norm"]
            distance.append(laws.compare(log_norms, normal).distance)
            error.append(1 / np.sqrt(len(log_norms)))
            both = gap(log_norms, normal)
            variance.append(both[0])
            noise.append(2 * both[1])
        axes["distance"].errorbar(place, distance, error, fmt="o-", ms=4, color=color, label=label)
        axes["variance"].errorbar(place, variance, noise, fmt="o", ms=4, color=color, capsize=3)
        theory = [np.sum(excess(law, results[f"{law.name}, {n:.0f}/quartic"])) / n for n in widths]
        axes["variance"].plot(place, theory, color=color, lw=1)
        values, error = results[f"{law.name}/ratios"]
        layer = np.arange(1, len(values) + 1) + 0.08 * (i - 2)
        axes["layers"].errorbar(layer, values, 2 * error, fmt="o", ms=4, color=color, capsize=3)
        line = (5 + excess(law, results[f"{law.name}, {NARROW}/quartic"])) / NARROW
        axes["layers"].plot(layer, line, "_", ms=20, mew=2, color=color)
        leading = (5 + 12 * (mu4 - 3) / NARROW) / NARROW
        axes["layers"].plot(len(values) + 0.6, leading, "<", ms=7, color=color)
        axes["layers"].plot([], [], color=color, label=label)
        flat = results[f"{law.name}/ratios"][:, 0]
        for (value, spread), shape, fill in (
            (flat, "s", "white"),
            (results[f"{law.name}/coordinate"][:, 0], "o", color),
        ):
            axes["first"].errorbar(
                mu4, value, 2 * spread, fmt=shape, ms=6, mfc=fill, color=color, capsize=3
            )
    noise = [1.36 / np.sqrt(len(results[f"{LAWS[0].name}, {n:.0f}/log_norm"])) for n in widths]
    axes["distance"].plot(widths, noise, "--", color=_figure.THEORY, label="95% of pure noise")
    mu4 = np.linspace(0.8, 6.2, 2)
    axes["first"].plot(
        mu4, (5 + 2 * (mu4 - 3)) / NARROW, color=_figure.THEORY, label="coordinate, κ = 1"
    )
    flat = (5 + 2 * (mu4 - 3) / NARROW) / NARROW
    axes["first"].plot(mu4, flat, "--", color=_figure.THEORY, label="flat, κ = 1/n")
    _finish(axes, widths)
    return figure


def _finish(axes, widths):
    for name in ("distance", "variance"):
        axes[name].set(
            xscale="log", xlabel="width n, depth n/2", xticks=widths, xticklabels=widths.astype(int)
        )
        axes[name].minorticks_off()
    axes["distance"].set(
        title="the law of the weights is forgotten",
        yscale="log",
        ylabel="KS to the exact law, normal weights",
    )
    axes["distance"].legend(fontsize=8)
    axes["variance"].axhline(0, color=_figure.THEORY, lw=1)
    axes["variance"].set(
        title="excess variance falls as 1/n",
        ylabel="Var ln‖Mu‖² less that of normal weights,\n± 2 s.e.; lines: Σ 2(μ4 − 3)E κᵢ/n",
    )
    axes["layers"].axhline(5 / NARROW, color=_figure.THEORY, lw=1, label="5/n")
    axes["layers"].plot([], [], "<", color=_figure.THEORY, label="5/n + 12(μ4 − 3)/n²")
    axes["layers"].set(
        title=f"later layers, flat direction, n = {NARROW}",
        xlabel="layer i",
        ylabel="Var Rᵢ, ± 2 s.e.; bars: (5 + 2(μ4 − 3)E κᵢ)/n",
    )
    axes["layers"].legend(fontsize=8, ncols=2, loc="upper left")
    axes["first"].set(
        title=f"first layer, n = {NARROW}: the direction decides",
        xlabel="μ4, the kurtosis of the weights",
        ylabel="Var R₁, ± 2 s.e.",
    )
    axes["first"].legend(loc="upper left")
