"""At fixed β the exact law approaches N(−v/2, v) as 1/n, not as the n^(−1/5) of the
theorem's bound; the Edgeworth law, with two more exact cumulants, is nearer by orders
of magnitude.

Expected, for Gaussian weights, equal widths n = 8 … 2048 and depth d = 0.2n (rounded),
n, 3n, with ReLU masks and without: the KS distance of the exact law to the limit law
has exponent −1 in n (within 0.02, over n ≥ 128), and n·KS tends to sup φ(z)|aβ/√v +
bβz/2v + cβ(z² − 1)/6v^(3/2)|, where a, b, c are n² times the second-order terms of
mean, variance and third cumulant of one increment (within 1% at n = 2048): 0.68, 0.91,
1.37 (ReLU) and 0.20, 0.18, 0.22 (linear). The normal law with the exact mean and
variance is of the same order, better by 1.6 to 13, but for shallow linear nets 5%
worse. The Edgeworth law is at most half as far as either, where its series is valid,
with exponent −3. A simulation sees the gap where it exceeds 5 of its standard errors.

Found: the distance falls as 1/n, with the constant that theory gives, to 0.1%; the
theorem's bound, n^(−1/5), says much less. Two more cumulants, the Edgeworth law, gain
orders of magnitude. 40,000 paths are enough to see the difference at small widths only.

Figure: KS distance to the exact law against width: limit law, matched normal, Edgeworth
law, and simulations.
Time: 1 minute on two CPU cores; --quick 15 s.
Command: python -m experiments exact_vs_limit
"""

import itertools

import numpy as np

from experiments import _check, _figure
from lognorm_jax import ensembles, exact, laws, masks, paths, weights

WIDTHS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
RATIOS, QUICK_RATIOS = (0.2, 1.0, 3.0), (1.0, 3.0)  # depth / width
MASKS = {"ReLU": masks.relu(), "linear": masks.bernoulli(1)}
SAMPLED = (8, 16, 32)  # widths small enough to simulate every weight
NUM_SAMPLES, QUICK_SAMPLES = 40_000, 2_048
FITTED = 128  # smallest width of the fit of the exponent


def ensemble(mask: str, ratio: float, width: int) -> ensembles.Ensemble:
    """Return square products of depth ratio · width."""
    depth = max(1, round(ratio * width))
    return ensembles.Ensemble((width,) * (depth + 1), weights.normal(), MASKS[mask])


def constant(mask: str, ratio: float) -> float:
    """Return the limit of n·KS: the first correction to N(−v/2, v), in mean, variance
    and skewness.

    ln R has mean −V/2 + (C/3 − 3V²/4), variance V + (5V²/2 − C) and third cumulant C −
    3V², with V and C the second and third central moments of R.
    """
    products, quartic = ensembles.Ensemble((1, 1), weights.normal(), MASKS[mask]), [0.0]
    V = ensembles.predictable_variance(products, quartic)[0]
    C = ensembles.ratio_third_cumulant(products, quartic)[0]
    v, z = ratio * V, np.linspace(-5, 5, 100_001)
    shift = (C / 3 - 0.75 * V**2) / np.sqrt(v) + (2.5 * V**2 - C) / (2 * v) * z
    shift += (C - 3 * V**2) / (6 * v**1.5) * (z**2 - 1)
    return float(
        ratio * np.max(np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * np.abs(shift))
    )


def point_of_largest_gap(law: laws.Law, other: laws.Law) -> float:
    """Return the point where two cdfs differ most, to one in 20,000 of the law."""
    x = law.quantile(law.atom + (1 - law.atom) * (np.arange(20_000) + 0.5) / 20_000)
    return float(x[np.argmax(np.abs(law.cdf(x) - other.cdf(x)))])


def cases(ratios=RATIOS) -> dict[str, tuple[str, float]]:
    """Return mask and depth / width of each case."""
    pairs = itertools.product(MASKS, ratios)
    return {f"{mask}, depth {ratio:g} · n": (mask, ratio) for mask, ratio in pairs}


def compute(job) -> dict:
    """Compute all distances, and simulate the gap at the point where it is largest."""
    results = {}
    for case, (mask, ratio) in cases(job.count(RATIOS, QUICK_RATIOS)).items():
        distances = [_distances(ensemble(mask, ratio, width)) for width in WIDTHS]
        gaps = [_gap(job, case, ensemble(mask, ratio, n), n) for n in SAMPLED]
        seen = [gap for gap in gaps if gap is not None]
        results[case] = {
            "distances": np.array(distances),
            "sampled": np.array(seen).reshape(-1, 4),
        }
    return results


def _distances(products) -> list[float]:
    """Return the KS distance of the exact law to the limit, matched and Edgeworth
    laws.
    """
    law, limit = exact.law(products), ensembles.limit_law(products)
    cumulants = exact.cumulants(products)
    matched = laws.normal(*cumulants[:2])
    try:
        edgeworth = laws.edgeworth(cumulants, law.atom)
        corrected = laws.ks_distance(law, edgeworth)
    except ValueError:  # too far from normal for the series to be valid
        corrected = np.nan
    return [laws.ks_distance(law, limit), laws.ks_distance(law, matched), corrected]


def _gap(job, case, products, width) -> list[float] | None:
    """Return the width, the gap that a simulation sees, its error, and the truth; None
    where it sees none.
    """
    num_samples = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    law, limit = exact.law(products), ensembles.limit_law(products)
    x = point_of_largest_gap(law, limit)
    truth = law.cdf(x)
    error = np.sqrt(truth * (1 - truth) / num_samples)
    gap = truth - limit.cdf(x)
    if abs(gap) <= _check.SIGMAS * error:
        return None
    trace = job.sample(f"{case}, n = {width}", paths.dense(products), num_samples)
    return [width, np.mean(trace.log_norm <= x) - limit.cdf(x), error, gap]


def exponent(distances: np.ndarray) -> float:
    """Return the slope of ln distance against ln width, by least squares over the
    larger widths.
    """
    width = np.array(WIDTHS)
    large = (width >= FITTED) & np.isfinite(distances)
    return float(np.polyfit(np.log(width[large]), np.log(distances[large]), 1)[0])


def check(results) -> list[_check.Row]:
    """Hold exponents, constants and simulated gaps against theory."""
    rows = []
    for case, (mask, ratio) in cases().items():
        if case in results:
            rows += _distance_rows(case, results[case]["distances"], mask, ratio)
            for width, gap, error, truth in results[case]["sampled"]:
                label = f"sampled gap, n = {width:.0f}"
                rows.append(_check.agree(case, label, gap, error, truth))
    return rows


def _distance_rows(case, distances, mask, ratio) -> list[_check.Row]:
    """Hold exponents and constants of the distances, which have no sampling error."""
    limit, matched, corrected = distances.T
    valid = np.isfinite(corrected)
    best = np.minimum(limit, matched)
    worst = np.max((corrected / best)[valid])
    last = limit[-1] * WIDTHS[-1]
    theory = constant(mask, ratio)
    return [
        _check.agree(case, "exponent", exponent(limit), 0, -1, 0.02),
        _check.agree(case, "n·KS, n = 2048", last, 0, theory, 0.01 * theory),
        _check.show(case, "of matched normal", matched[-1] * WIDTHS[-1]),
        _check.agree(case, "Edgeworth exponent", exponent(corrected), 0, -3, 0.1),
        _check.below(case, "Edgeworth / best normal", worst, 0.5),
    ]


LINES = {"the limit, N(−v/2, v)": "-", "N(exact mean, variance)": "--"}
LINES |= {"Edgeworth law": ":"}


def draw(results):
    """Draw the distances of the three laws against the width, and simulated ones."""
    figure, axes = _figure.grid([list(MASKS)], (15, 6.5))
    for mask, axis in axes.items():
        for ratio, color in zip(RATIOS, _figure.PALETTE, strict=False):
            case = f"{mask}, depth {ratio:g} · n"
            if case in results:
                label = f"depth = {ratio:g} · width"
                _draw_distances(axis, results[case], color, label)
        _draw_bound(axis)
        middle = results[f"{mask}, depth 1 · n"]["distances"].T
        _finish(axis, mask, [exponent(curve) for curve in middle])
    axes["ReLU"].legend(loc="lower left")
    return figure


def _draw_distances(axis, parts, color, label):
    """Draw the three distances of one case, and the simulated gaps."""
    for curve, line in zip(parts["distances"].T, LINES.values(), strict=True):
        axis.plot(WIDTHS, curve, line, color=color, marker=".", ms=4)
    width, gap, error, _ = parts["sampled"].T
    style = {"fmt": "o", "ms": 6, "mfc": "white", "color": color, "capsize": 3}
    axis.errorbar(width, np.abs(gap), 2 * error, **style)
    axis.plot([], [], color=color, label=label)


def _draw_bound(axis):
    """Draw the slope of the theorem's bound, which tells no height."""
    width = np.array([WIDTHS[0], WIDTHS[-1]], dtype=float)
    axis.plot(width, 0.4 * (width / 8) ** -0.2, color="0.6", lw=4, alpha=0.6)
    text = "slope −1/5 of the theorem, height arbitrary"
    axis.text(40, 0.36, text, color="0.4", fontsize=11)


def _finish(axis, mask, exponents):
    """Name the axes, and what the lines mean, with their exponents at depth n."""
    black = {"color": _figure.THEORY}
    for name, line in LINES.items():
        axis.plot([], [], line, label=f"to {name}", **black)
    style = {"fmt": "o", "mfc": "white", "label": "simulated, ± 2 s.e."}
    axis.errorbar([], [], [], **style, **black)
    solid, dashed, dotted = (f"{slope:.2f}".replace("-", "−") for slope in exponents)
    slopes = f"exponents at d = n: {solid}, {dashed} dashed, {dotted} dotted"
    axis.set(
        title=f"{mask} layers\n{slopes}",
        yscale="log",
        xlabel="width n of all layers",
        ylabel="KS distance from the exact law",
        ylim=(1e-9, 1),
    )
    _figure.log_widths(axis, WIDTHS[::2])
