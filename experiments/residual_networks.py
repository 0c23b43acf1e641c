"""Residual networks are log-normal too, with another β: with α = λ = 1/√2 their
log-variance grows like that of a plain network, faster still where ReLUs of different
layers see the same vector, and with λ² = 1/d it stays small at any depth.

Expected, at width 200, to first order in 1/n: variance d(4α²λ² + 5λ⁴)/n for independent
masks (balanced), and (2λ⁴/n) Σ (d − k) S(α^k) more for the vanilla network, which more
than doubles it; mean −½ and −½ plus (λ⁴/n) Σ (d − k)(K − S)(α^k); each within 5
standard errors and a relative 8/n. A linear layer first makes the input generic, and
adds 2/n. The vanilla network's E‖z‖² grows, and P(z > 0) falls below ½: hypoactivation.
KS distance of the balanced log-norm to its normal law at most 0.02.

Time: 1 minute on two CPU cores; --quick 20 s.
Command: python -m experiments residual_networks
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _check, _figure
from lognorm_jax import laws, networks, paths, residuals, summaries

WIDTH, DEPTH = 200, 100
DEPTHS = (1, 5, 10, 20, 40, 60, 80, 100)
# of networks with λ² = 1/d
SMALL_DEPTHS, QUICK_SMALL_DEPTHS = (5, 20, 50, 100), (20, 100)
HALF = 0.5**0.5
NUM_SAMPLES, QUICK_SAMPLES = 30_000, 4_000
SECOND_ORDER = 8 / WIDTH  # relative; about 5/n is seen


def _positive(x, tangent):
    del tangent
    return jnp.mean(x > 0)


def compute(job) -> dict:
    """Sample log-norms at several depths of each network; networks with λ² = 1/d one by
    one.
    """
    num_samples = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    x, u = np.asarray(jax.random.normal(job.key("input, tangent"), (2, WIDTH)))
    results = {"small": {}}
    for kind in ("balanced", "vanilla"):
        network = networks.residual(WIDTH, DEPTH, kind, input_width=WIDTH)
        tangent = u if kind == "balanced" else None
        path = paths.gram(network, x, tangent, observe=_positive)
        trace, positive = job.sample(kind, path, num_samples)
        total = np.cumsum(trace.increment, axis=1, dtype=np.float64)
        positive = positive[:, 1:]  # of what reaches each block
        late = positive[:, DEPTH // 2 :].mean(1)
        results[kind] = {
            "log_norm": total[:, np.array(DEPTHS)].astype(np.float32),
            "active": np.stack(summaries.estimate(positive).mean),
            "active late": np.array(summaries.estimate(late).mean),
        }
    for depth in job.count(SMALL_DEPTHS, QUICK_SMALL_DEPTHS):
        network = networks.residual(WIDTH, depth, **_small(depth), input_width=WIDTH)
        trace = job.sample(f"λ² = 1 over {depth}", paths.gram(network, x), num_samples)
        results["small"][f"{depth}"] = trace.log_norm
    return results


def _small(depth: int) -> dict[str, float]:
    return {"skip_scale": (1 - 1 / depth) ** 0.5, "branch_scale": depth**-0.5}


def _depths(results, kind: str) -> list[int]:
    """Return the depths at which a kind of network was sampled."""
    return [int(depth) for depth in results["small"]] if kind == "1/d" else [*DEPTHS]


def theory(kind: str, depth: int) -> tuple[float, float]:
    """Return mean and variance of the limit law at a depth."""
    scales = _small(depth) if kind == "1/d" else {}
    kind = "vanilla" if kind == "1/d" else kind
    law = networks.limit_law(
        networks.residual(WIDTH, depth, kind, **scales, input_width=WIDTH)
    )
    return law.mean, law.variance


def check(results) -> list[_check.Row]:
    """Hold mean and variance at each depth against their formulas; growth and activity
    too.
    """
    rows = []
    for kind in ("balanced", "vanilla", "1/d"):
        for j, depth in enumerate(_depths(results, kind)):
            case = f"{kind}, d = {depth}"
            if kind == "1/d":
                log_norm = results["small"][f"{depth}"]
            else:
                log_norm = results[kind]["log_norm"][:, j]
            mean, variance, _ = summaries.estimate(log_norm)
            expected, spread = theory(kind, depth)
            slack = SECOND_ORDER * spread
            rows += [
                _check.agree(case, "mean", *mean, expected, slack / 2),
                _check.agree(case, "variance", *variance, spread, slack),
            ]
            if kind == "vanilla":
                growth, error = summaries.estimate(np.exp(log_norm)).mean
                expected = residuals.log_mean_growth(WIDTH, depth, HALF, HALF)
                label, slack = "ln E‖z‖²/‖x‖²", 2 * SECOND_ORDER * expected
                rows.append(
                    _check.agree(
                        case, label, np.log(growth), error / growth, expected, slack
                    )
                )
            if kind == "balanced" and depth == DEPTH:
                law = laws.normal(*theory(kind, depth))
                rows.append(
                    _check.distance(
                        case,
                        "KS to the normal law",
                        laws.compare(log_norm, law, 0.02),
                        0.02,
                    )
                )
    expected = residuals.active_share(WIDTH, DEPTH, HALF, HALF)[
        DEPTH // 2 - 1 : -1
    ].mean()
    for kind, share in (("balanced", 0.5), ("vanilla", expected)):
        measured, error = results[kind]["active late"]
        slack = 2 * SECOND_ORDER * (0.5 - share)
        rows.append(
            _check.agree(
                f"{kind}, d > {DEPTH // 2}",
                "10³·(½ − P(z > 0))",
                *(500 - 1e3 * measured, 1e3 * error, 500 - 1e3 * share, 1e3 * slack),
            )
        )
    return rows


def draw(results):
    """Draw variance and mean against depth, and the share of active units."""
    figure, axes = _figure.grid([["variance", "mean", "active"]], (15, 5))
    styles = zip(("balanced", "vanilla", "1/d"), _figure.PALETTE, "osD", strict=False)
    names = {"balanced": "balanced", "vanilla": "vanilla", "1/d": "vanilla, λ² = 1/d"}
    for kind, color, marker in styles:
        depths = _depths(results, kind)
        columns = (
            [results["small"][f"{d}"] for d in depths]
            if kind == "1/d"
            else results[kind]["log_norm"].T
        )
        seen = summaries.estimate(np.stack(columns, axis=1))
        fine = np.arange(1, DEPTH + 1)
        lines = np.array([theory(kind, int(d)) for d in fine])
        for name, i in (("variance", 1), ("mean", 0)):
            axes[name].plot(fine, lines[:, i], color=color, lw=1.2)
            axes[name].errorbar(
                depths,
                getattr(seen, name).value,
                2 * getattr(seen, name).error,
                fmt=marker,
                color=color,
                ms=5,
                capsize=3,
                label=names[kind],
            )
    axes["variance"].plot(
        [0, DEPTH],
        [0, 5 * DEPTH / WIDTH],
        ":",
        color=_figure.THEORY,
        label="plain network, 5d/n",
    )
    axes["mean"].plot([0, DEPTH], [0, -2.5 * DEPTH / WIDTH], ":", color=_figure.THEORY)
    for kind, color in (
        ("balanced", _figure.PALETTE[0]),
        ("vanilla", _figure.PALETTE[1]),
    ):
        mean, error = results[kind]["active"]
        axes["active"].fill_between(
            np.arange(DEPTH),
            mean - 2 * error,
            mean + 2 * error,
            color=color,
            alpha=0.3,
            lw=0,
        )
        axes["active"].plot(np.arange(DEPTH), mean, color=color, lw=0.8, label=kind)
    curve = np.concatenate(
        [[0.5], residuals.active_share(WIDTH, DEPTH, HALF, HALF)[:-1]]
    )
    axes["active"].plot(
        curve, color=_figure.THEORY, lw=1, ls="--", label="theory, vanilla"
    )
    axes["variance"].set(
        title=f"α = λ = 1/√2 grows, λ² = 1/d does not (n = {WIDTH})",
        xlabel="number of blocks d",
        ylabel="variance of ln ‖z‖² (± 2 s.e.; lines: theory)",
    )
    axes["mean"].set(
        title="and so does the mean",
        xlabel="number of blocks d",
        ylabel="mean of ln ‖z‖²/‖x‖²",
    )
    axes["active"].set(
        title="hypoactivation: fewer units are on",
        xlabel="number of the block",
        ylabel="share of active units, P(z > 0) (band: ± 2 s.e.)",
    )
    axes["variance"].legend()
    axes["active"].legend()
    return figure
