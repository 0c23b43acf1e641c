"""The moments E‖Mu‖^{2k} grow as exp(5·C(k,2)β) only for wide layers; exact transfer
matrices give them at any width, for any weights, where simulation soon sees nothing of
them.

Expected, for four laws of weights and ReLU masks: simulated means at β = 0.05 within 5
exact standard errors of the exact moments for k = 1 … 5; ln E‖Mu‖^{2k} − 5·C(k,2)β, at
β = 1/4, of exponent −1 in the width (within 0.05, for k = 2 and 3, n ≥ 256), so that it
is the limit; and the exact relative standard error of a simulated mean is at most its
leading order, exp(5k²β/2)/√N, and soon hopeless all the same.

Found: the limit is approached as 1/n, from below or from above by the law of the
weights; simulated means agree with the exact moments for all four laws. Sampling cannot
estimate high moments: the paths that are needed grow as exp(5k²β).

Figure: moments of four weight laws against k, their approach to the limit with width,
and paths needed to see them.
Time: 20 s on two CPU cores; --quick 15 s.
Command: python -m experiments moment_growth
"""

import math

import numpy as np

from experiments import _check, _figure
from lognorm_jax import ensembles, masks, moments, paths, weights

LAWS = (weights.normal(), weights.rademacher(), weights.uniform(), weights.laplace())
POWERS = (1, 2, 3, 4, 5)
SHOWN = (2, 3)  # powers in the approach to the limit
SIMULATED = (60, 3)  # width and depth, β = 0.05
# of the approach to the limit
WIDTHS, BETA = (8, 16, 32, 64, 128, 256, 512, 1024, 2048), 0.25
FITTED = 256  # smallest width of the fit of the exponent
BETAS = (0.05, 0.25, 1.0)  # of the standard errors, at width 60
NUM_SAMPLES, QUICK_SAMPLES = 100_000, 4_096


def ensemble(law: weights.Weights, width: int, depth: int) -> ensembles.Ensemble:
    """Return square ReLU products with weights of this law."""
    return ensembles.Ensemble((width,) * (depth + 1), law, masks.relu())


def log_moment(law: weights.Weights, width: int, depth: int, k: int) -> float:
    """Return ln E‖Mu‖^{2k} from the exact Fraction, which may be too large for a
    float.
    """
    moment = moments.norm_moment(ensemble(law, width, depth), k)
    return math.log(moment.numerator) - math.log(moment.denominator)


def relative_error(law: weights.Weights, width: int, depth: int, k: int) -> float:
    """Return the exact standard deviation of ‖Mu‖^{2k} over its mean."""
    log_ratio = log_moment(law, width, depth, 2 * k) - 2 * log_moment(
        law, width, depth, k
    )
    return math.sqrt(math.expm1(log_ratio))


def compute(job) -> dict:
    """Compute exact moments, and simulate those that simulation can see."""
    num_samples = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    results = {"num_samples": np.array(num_samples)}
    for law in LAWS:
        trace = job.sample(
            law.name, paths.dense(ensemble(law, *SIMULATED)), num_samples
        )
        powers = np.multiply.outer(POWERS, trace.log_norm.astype(np.float64))
        by_width = [
            [log_moment(law, n, round(BETA * n), k) for k in SHOWN] for n in WIDTHS
        ]
        results[law.name] = {
            "exact": np.array([log_moment(law, *SIMULATED, k) for k in POWERS]),
            "error": np.array([relative_error(law, *SIMULATED, k) for k in POWERS]),
            "simulated": np.exp(powers).mean(1),
            "by width": np.array(by_width),
        }
    width = SIMULATED[0]
    errors = [
        [relative_error(LAWS[0], width, round(beta * width), k) for k in POWERS]
        for beta in BETAS
    ]
    return results | {"errors": np.array(errors)}


def limit(k: int, beta: float) -> float:
    """Return the leading exponent 5·C(k,2)β of Hanin & Nica."""
    return 5 * math.comb(k, 2) * beta


def check(results) -> list[_check.Row]:
    """Hold the simulated means against the exact moments, and those against the
    exponential.
    """
    rows, size = [], float(results["num_samples"])
    for law in LAWS:
        exact, error = (
            np.exp(results[law.name]["exact"]),
            results[law.name]["error"],
        )
        ratio = results[law.name]["simulated"] / exact
        for k, value, one in zip(POWERS, ratio, error, strict=True):
            label = f"simulated / exact, k = {k}"
            rows.append(
                _check.agree(law.name, label, value, one / math.sqrt(size), 1.0)
            )
        for k, logs in zip(SHOWN, results[law.name]["by width"].T, strict=True):
            gap = logs - limit(k, BETA)
            large = np.array(WIDTHS) >= FITTED
            slope = np.polyfit(
                np.log(np.array(WIDTHS)[large]), np.log(np.abs(gap[large])), 1
            )[0]
            rows.append(
                _check.agree(law.name, f"exponent of gap, k = {k}", slope, 0, -1, 0.05)
            )
    for beta, errors in zip(BETAS, results["errors"], strict=True):
        leading = np.exp(5 * np.array(POWERS) ** 2 * beta / 2)
        worst = np.max(errors / leading)
        rows.append(
            _check.below(f"β = {beta:g}", "largest s.e. / leading order", worst, 1.0)
        )
    return rows


def draw(results):
    """Draw moments over the exponential, its approach, what simulation sees of them."""
    figure, axes = _figure.grid([["moment", "approach", "error"]], (15, 5))
    for i, (law, color) in enumerate(zip(LAWS, _figure.PALETTE, strict=False)):
        size = float(results["num_samples"])
        place = np.array(POWERS) + 0.08 * (i - 1.5)
        _draw_moments(axes["moment"], law, results[law.name], size, place, color)
        _draw_approach(axes["approach"], law, results[law.name]["by width"].T, color)
    _finish_moments(axes["moment"])
    _finish_approach(axes["approach"])
    _draw_errors(axes["error"], results["errors"])
    return figure


def _draw_moments(axis, law, parts, size, place, color):
    """Draw exact and simulated moments of one law over those of the theorem."""
    width, depth = SIMULATED
    scale = np.exp([limit(k, depth / width) for k in POWERS])
    exact = np.exp(parts["exact"]) / scale
    error = 2 * parts["error"] * exact / math.sqrt(size)
    axis.plot(place, exact, "_", ms=16, mew=2, color=color)
    style = {"fmt": "o", "ms": 4, "color": color, "capsize": 2, "label": law.name}
    axis.errorbar(place, parts["simulated"] / scale, error, **style)


def _finish_moments(axis):
    width, depth = SIMULATED
    axis.axhline(1, color=_figure.THEORY, lw=1, ls=":")
    axis.plot([], [], "_", ms=16, mew=2, color=_figure.THEORY, label="exact")
    axis.set(
        title=f"moments, β = {depth / width:g} (n = {width})",
        xlabel="power k (points: simulated, ± 2 s.e.)",
        ylabel="E‖Mu‖²ᵏ over exp(5·C(k,2)β)",
        xticks=POWERS,
    )
    axis.legend()


def _draw_approach(axis, law, by_width, color):
    """Draw how far the log moments of one law are from the limit, against width."""
    for k, line, logs in zip(SHOWN, ("-", "--"), by_width, strict=True):
        gap = np.abs(logs - limit(k, BETA))
        axis.plot(WIDTHS, gap, line, marker=".", color=color)
    axis.plot([], [], color=color, label=law.name)


def _finish_approach(axis):
    for k, line in zip(SHOWN, ("-", "--"), strict=True):
        axis.plot([], [], line, color=_figure.THEORY, label=f"k = {k}")
    axis.set(
        title=f"the limit, as 1/n (β = {BETA:g})",
        yscale="log",
        xlabel="width n, depth n/4",
        ylabel="|ln E‖Mu‖²ᵏ − 5·C(k,2)β|",
    )
    _figure.log_widths(axis, WIDTHS[::2])
    axis.legend(ncols=2)


def _draw_errors(axis, errors):
    """Draw how many paths it takes to see a moment to 10%, and the leading order."""
    grays = ("#a6611a", "#525252", "#80307a")
    for beta, values, color in zip(BETAS, errors, grays, strict=True):
        style = {"ms": 4, "color": color, "label": f"β = {beta:g}"}
        axis.plot(POWERS, (10 * values) ** 2, "o-", **style)
        leading = np.exp(5 * np.array(POWERS) ** 2 * beta / 2)
        axis.plot(POWERS, (10 * leading) ** 2, ":", color=color)

    dotted = {"color": _figure.THEORY, "label": "leading order, 100·exp(5k²β)"}
    axis.plot([], [], ":", **dotted)
    axis.axhspan(1, 1e8, color="0.9", zorder=0)
    axis.text(2.4, 3, "within reach of a simulation", color="0.4", fontsize=11)
    axis.set(
        title="paths needed to see E‖Mu‖²ᵏ to 10%",
        xlabel="power k",
        ylabel="paths (normal weights, n = 60)",
        yscale="log",
        ylim=(1, 1e42),
        xticks=POWERS,
    )
    axis.legend(loc="upper left", framealpha=1, frameon=True, edgecolor="none")
