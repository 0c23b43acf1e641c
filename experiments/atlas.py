"""Which β is mine? Over its initialisations an architecture varies as one number times
depth over width: n·Var ln ‖J u‖² a layer is 5 for a ReLU network, 3 for an orthogonal
one, and from below 0.1 to above 10 for others; only of some does it change with depth.

Expected, of 32 layers at width 128, within 5 standard errors: linear, leaky and ReLU
networks, orthogonal ReLUs, and maxout of 2, have their exact variance; others whose
units are alike (tanh, maxout of 3 and 4, graphs, convolutions by their channels) have
that of an expansion to first order in 1/n, within a relative 8/n; and residual networks
that of their limit law, within 8/n. Shown beside the expansion: GELU, which differs by
up to 30/n, and batch normalisation, whose tails make it noisy. Shown by themselves, for
want of a theory: attention, and cells of an LSTM. For all, n·Var at width 64 is that at
width 128, within 5 standard errors and a relative 8/64.

Found: the numbers of architectures with a theory are those of it. New is an expansion
to first order in 1/n that holds for any layer whose units are alike given the overlaps:
it gives ReLU 5, orthogonal ReLU 3, linear 2, maxout 1.58 and 1.24 without being told,
and tanh 2.7, GELU at criticality 5.3 growing to 15, graphs 5.03, batch normalisation
2.1. A pre-norm transformer varies less with each further block, GPT-2's scale hardly at
all.

Figure: n·Var of the log-norm a layer of nineteen architectures, and of six of them
against depth.
Time: 4 minutes on two CPU cores; --quick 20 s.
Command: python -m experiments atlas
"""

import jax
import numpy as np

from experiments import _architectures, _check, _figure, _units
from lognorm_jax import networks, paths

WIDTHS = 64, 128
DEPTH = 32
LAYERS = np.arange(1, DEPTH + 1)
WIDTH_FREE = 8  # relative, over the narrower width: by how much n·Var may differ
QUICK_CASES = "ReLU", "ReLU, orthogonal", "tanh, gain 1", "LSTM cells"
NUM_SAMPLES, QUICK_SAMPLES = 20_000, 10_000
FEWER_SAMPLES = 2_000  # of what has no theory to be held against
# those that are drawn against depth: a ReLU's is constant, the others' change
SHOWN = 1, 2, 4, 8, 16, 32  # depths
DRAWN = (
    "ReLU",
    "tanh, gain 1",
    "GELU, critical",
    "residual, vanilla",
    "convolution, 4 positions",
    "transformer, pre-norm",
)


def compute(job) -> dict:
    """Sample each architecture at both widths, and expand it in 1/n at the wider."""
    results = {}
    for name in job.count(tuple(_architectures.CASES), QUICK_CASES):
        case = _architectures.CASES[name]
        count = job.count(NUM_SAMPLES, QUICK_SAMPLES)
        if not case.known:
            count = FEWER_SAMPLES
        results[name] = {}
        for width in WIDTHS:
            network = case.network(width, DEPTH)
            x, u = np.asarray(jax.random.normal(job.key(name), (2, *network.shape)))
            path = paths.gram(network, x, None if case.along else u)
            trace = job.sample(f"{name}, {width}", path, count)
            total = np.cumsum(trace.increment, axis=1, dtype=np.float64)
            results[name][f"{width}"] = total.astype(np.float32)
        results[name]["theory"] = _theory(case, x, u)
    return results


def _theory(case, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return n·Var after each layer and its standard error, (2, depth), at the wider
    width; NaN where there is no theory.
    """
    width = max(WIDTHS)
    if case.unit is not None:
        # (nodes, features); convolutions have channels first
        x, u = (np.atleast_2d(v.T if len(v) == width else v) for v in (x, u))
        along = None if case.along else u
        return np.stack(_units.spread(case.unit, x, along, DEPTH))
    variances = np.full(DEPTH, np.nan)
    if case.exact:
        variances = np.array([case.exact(width, depth) for depth in LAYERS])
    if case.limit:
        of_depth = [case.network(width, depth) for depth in LAYERS]
        laws = [networks.limit_law(network, x) for network in of_depth]
        variances = np.array([law.variance for law in laws])
    return np.stack([width * variances, 0 * variances])


def check(results) -> list[_check.Row]:
    """Hold each architecture to its theory, and its two widths to one another."""
    rows = []
    for name, samples in results.items():
        rows += _rows(name, samples)
    return rows


def _rows(name: str, samples) -> list[_check.Row]:
    """Return what is said of one architecture: all numbers are n·Var a layer."""
    narrow, wide = ((n, _number(n, samples[f"{n}"])) for n in WIDTHS)
    rows = [_check.show(name, f"n = {n}", *number) for n, number in (narrow, wide)]

    # theory
    case, (value, error) = _architectures.CASES[name], wide[1]
    expected, of_theory = samples["theory"][:, -1] / DEPTH
    if case.known:
        left_out = 0 if case.exact else case.higher_orders / wide[0] * expected
        told = value, np.hypot(error, of_theory), expected, left_out
        rows[1] = _check.resolve(name, f"n = {wide[0]}", *told)

    # one number for all widths
    both = float(np.hypot(error, narrow[1][1]))
    allowance = WIDTH_FREE / narrow[0] * value
    told = narrow[1][0] - value, both, 0, allowance
    rows.append(_check.agree(name, "their difference", *told))

    # and for all depths
    late, error = _number(wide[0], samples[f"{wide[0]}"], DEPTH // 2)
    rows.append(_check.show(name, f"layers {DEPTH // 2 + 1}–{DEPTH}", late, error))
    return rows


def _number(width: int, total: np.ndarray, first: int = 0) -> tuple[float, float]:
    """Return the growth of n·Var a layer, from some layer on, and its standard error.

    total: ln ‖J u‖² after each layer, (samples, depth).
    """
    total = np.asarray(total, np.float64)
    squares = (total - total.mean(0)) ** 2
    grown = squares[:, -1] - (squares[:, first - 1] if first else 0)
    scale = width / (total.shape[1] - first)
    return scale * grown.mean(), scale * grown.std() / len(grown) ** 0.5


def draw(results):
    """Draw each architecture's number, and how some change with depth."""
    figure, axes = _figure.grid([["numbers", "depth"]], (14, 7.5))
    _draw_numbers(axes["numbers"], results)
    _draw_depth(axes["depth"], results)
    return figure


def _draw_numbers(axis, results):
    """Draw n·Var a layer of all architectures at both widths, the largest on top."""
    numbers = {
        width: {name: _number(width, of[f"{width}"]) for name, of in results.items()}
        for width in WIDTHS
    }
    names = sorted(results, key=lambda name: numbers[max(WIDTHS)][name])
    places = np.arange(len(names))
    theory = [results[name]["theory"][0, -1] / DEPTH for name in names]
    style = {"marker": "|", "color": _figure.THEORY, "s": 300, "zorder": 3}
    axis.scatter(theory, places, label=f"theory, n = {max(WIDTHS)}", **style)
    sides = zip(
        WIDTHS, (0.17, -0.17), (_figure.MASK_MODEL, _figure.NETWORK), strict=True
    )
    for width, side, color in sides:
        values, errors = np.transpose([numbers[width][name] for name in names])
        style = {"fmt": "o", "ms": 5, "capsize": 3, "color": color}
        label = f"measured, n = {width} (± 2 s.e.)"
        axis.errorbar(values, places + side, xerr=2 * errors, label=label, **style)
    axis.set(
        title=f"which β is mine? ({DEPTH} layers)",
        xlabel="n · Var ln ‖J u‖² a layer",
        xscale="log",
        yticks=places,
        yticklabels=names,
    )
    _numbered(axis.xaxis)
    axis.legend(loc="lower right")


def _draw_depth(axis, results):
    """Draw n·Var a layer against depth, and theory."""
    width = max(WIDTHS)
    drawn = [name for name in DRAWN if name in results]
    for name, color in zip(drawn, _figure.PALETTE, strict=False):
        total = results[name][f"{width}"]
        seen = [_number(width, total[:, :depth]) for depth in SHOWN]
        values, errors = np.transpose(seen)
        style = {"fmt": "o", "ms": 5, "capsize": 3, "color": color, "label": name}
        axis.errorbar(SHOWN, values, 2 * errors, **style)
        axis.plot(LAYERS, results[name]["theory"][0] / LAYERS, color=color)
    axis.set(
        title=f"where it changes with depth (n = {width}; lines: theory)",
        xlabel="layers d",
        ylabel="n · Var ln ‖J u‖² / d (± 2 s.e.)",
        xscale="log",
        yscale="log",
        xticks=SHOWN,
        xticklabels=SHOWN,
    )
    axis.minorticks_off()
    _numbered(axis.yaxis)
    axis.legend()


def _numbered(axis):
    """Put numbers on a logarithmic axis, as they are."""
    numbers = 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20
    low, high = axis.get_view_interval()
    ticks = [number for number in numbers if low <= number <= high]
    axis.set_ticks(ticks, [f"{number:g}" for number in ticks])
    axis.set_ticks([], minor=True)
