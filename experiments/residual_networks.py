"""Residual networks are log-normal too, with another β: with α = λ = 1/√2 their
log-variance grows like that of a plain network, faster still where ReLUs of different
layers see the same vector, and with λ² = 1/d it stays small at any depth.

Expected, at width 200, to first order in 1/n: variance d(4α²λ² + 5λ⁴)/n for independent
masks (balanced), and (2λ⁴/n) Σ (d − k) S(α^k) more for the vanilla network, which more
than doubles it; mean −½ and −½ plus (λ⁴/n) Σ (d − k)(K − S)(α^k); each within 5
standard errors and a relative 8/n. A linear layer first makes the input generic, and
adds 2/n. The vanilla network's E‖z‖² grows, and P(z > 0) falls below ½: hypoactivation.
KS distance of the balanced log-norm to its normal law at most 0.02.

Found: with α = λ = 1/√2 the log-variance of the vanilla network is more than twice that
of one whose ReLUs are independent, as theory says: 2.8 and 1.1 after 100 layers of
width 200. With λ² = 1/d it is 0.04 at any depth.

Figure: log-variance, mean and activity of residual networks against depth.
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
KINDS = {"balanced": "balanced", "vanilla": "vanilla", "1/d": "vanilla, λ² = 1/d"}
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
    """Hold mean and variance at each depth to their formulas; growth, activity too."""
    rows = []
    for kind in KINDS:
        log_norms = _log_norms(results, kind)
        for depth, log_norm in zip(_depths(results, kind), log_norms, strict=True):
            case = f"{kind}, d = {depth}"
            rows += _law_rows(case, kind, depth, log_norm)
            if kind == "vanilla":
                rows.append(_growth_row(case, depth, log_norm))
    return rows + _active_rows(results)


def _log_norms(results, kind: str) -> list[np.ndarray]:
    """Return the log-norms of a kind of network at each of its depths."""
    if kind == "1/d":
        return list(results["small"].values())
    return list(results[kind]["log_norm"].T)


def _law_rows(case, kind, depth, log_norm) -> list[_check.Row]:
    """Hold mean and variance at one depth, and at the last the law, to the limit."""
    mean, variance, _ = summaries.estimate(log_norm)
    expected, spread = theory(kind, depth)
    slack = SECOND_ORDER * spread
    rows = [
        _check.agree(case, "mean", *mean, expected, slack / 2),
        _check.agree(case, "variance", *variance, spread, slack),
    ]
    if kind == "balanced" and depth == DEPTH:
        same = laws.compare(log_norm, laws.normal(expected, spread), 0.02)
        rows.append(_check.distance(case, "KS to the normal law", same, 0.02))
    return rows


def _growth_row(case, depth, log_norm) -> _check.Row:
    """Hold the growth of the mean square of a vanilla network to its formula."""
    growth, error = summaries.estimate(np.exp(log_norm)).mean
    expected = residuals.log_mean_growth(WIDTH, depth, HALF, HALF)
    slack = 2 * SECOND_ORDER * expected
    told = np.log(growth), error / growth, expected, slack
    return _check.agree(case, "ln E‖z‖²/‖x‖²", *told)


def _active_rows(results) -> list[_check.Row]:
    """Hold the share of active units in late blocks against ½, and against theory."""
    shares = residuals.active_share(WIDTH, DEPTH, HALF, HALF)
    late = shares[DEPTH // 2 - 1 : -1].mean()
    rows = []
    for kind, share in (("balanced", 0.5), ("vanilla", late)):
        measured, error = results[kind]["active late"]
        slack = 2 * SECOND_ORDER * (0.5 - share)
        told = 500 - 1e3 * measured, 1e3 * error, 500 - 1e3 * share, 1e3 * slack
        case = f"{kind}, d > {DEPTH // 2}"
        rows.append(_check.agree(case, "10³·(½ − P(z > 0))", *told))
    return rows


def draw(results):
    """Draw variance and mean against depth, and the share of active units."""
    figure, axes = _figure.grid([["variance", "mean", "active"]], (15, 5))
    styles = zip(KINDS.items(), _figure.PALETTE, "osD", strict=False)
    for (kind, name), color, marker in styles:
        style = {"fmt": marker, "color": color, "ms": 5, "capsize": 3, "label": name}
        _draw_moments(axes, results, kind, style)
    _draw_active(axes["active"], results)
    _finish(axes)
    return figure


def _draw_moments(axes, results, kind, style):
    """Draw variance and mean of one kind of network against depth, over theory."""
    seen = summaries.estimate(np.stack(_log_norms(results, kind), axis=1))
    depths = _depths(results, kind)
    fine = np.arange(1, DEPTH + 1)
    lines = np.array([theory(kind, int(depth)) for depth in fine])
    for name, line in zip(("mean", "variance"), lines.T, strict=True):
        value, error = getattr(seen, name)
        axes[name].plot(fine, line, color=style["color"], lw=1.2)
        axes[name].errorbar(depths, value, 2 * error, **style)


def _draw_active(axis, results):
    """Draw the share of active units that reaches each block."""
    blocks = np.arange(DEPTH)
    for kind, color in zip(("balanced", "vanilla"), _figure.PALETTE, strict=False):
        mean, error = results[kind]["active"]
        band = mean - 2 * error, mean + 2 * error
        axis.fill_between(blocks, *band, color=color, alpha=0.3, lw=0)
        axis.plot(blocks, mean, color=color, lw=0.8, label=kind)

    shares = residuals.active_share(WIDTH, DEPTH, HALF, HALF)
    curve = np.concatenate([[0.5], shares[:-1]])
    style = {"color": _figure.THEORY, "lw": 1, "ls": "--", "label": "theory, vanilla"}
    axis.plot(curve, **style)


def _finish(axes):
    dotted = {"color": _figure.THEORY, "ls": ":"}
    plain = 5 * DEPTH / WIDTH
    axes["variance"].plot([0, DEPTH], [0, plain], label="plain network, 5d/n", **dotted)
    axes["mean"].plot([0, DEPTH], [0, -plain / 2], **dotted)
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
        ylabel="P(z > 0) (band: ± 2 s.e.)",
    )
    axes["variance"].legend()
    axes["active"].legend()
