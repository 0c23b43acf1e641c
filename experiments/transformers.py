"""A transformer's log-norm varies as one number over its width: n·Var does not depend
on the width, and the architecture sets how it grows with depth.

Expected: followed without weights, tangents and gradients have the law of networks that
are drawn (width 12, KS distance 0). As the width grows, the mean of ln ‖J u‖² tends to
that of an exact recursion for wide layers with many heads, within 5 standard errors and
4/width; the published one, without the derivative of the attention's weights, is lower
by more than 0.2. Over initialisations n·Var, at widths 64 and 128 the same within 5
standard errors and a tenth, grows by 5 to 8 a block for post-norm, more slowly than
depth for pre-norm, and is below 0.5 at any depth with GPT-2's residual scale, and below
0.1 with DeepNorm.
Real shapes, up to 174 billion weights, are sampled as they are.

Found: at initialisation the variance of ln ‖J u‖² over seeds is one number of the
architecture over the width. n·Var is 207 after 32 blocks of post-norm and grows by 6.5
a block; pre-norm has 13, and grows more slowly than its depth; with GPT-2's residual
scale it is 0.35 at any depth, and with DeepNorm 0.016 and falling (widths 64 and 128
agree; weights of variance 1/n, 8 tokens). The mean tends to that of a recursion for
infinite width, which has to count the derivative of the attention's weights: without
it, it is too small.

Figure: mean of the log-norm against width, n·Var against depth, and seconds a sample of
real shapes, of transformers.
Time: 5 minutes on two CPU cores; --quick 1 minute.
Command: python -m experiments transformers
"""

import functools
import time

import jax
import numpy as np

from experiments import _check, _figure, _meanfield
from lognorm_jax import laws, networks, paths, sampling, summaries

# equality in law
SMALL = {"width": 12, "depth": 2, "heads": 3, "tokens": 4, "init": "lecun"}
SAME = {
    "pre-norm": {},
    "post-norm": {"norm": "post", "activation": "swiglu", "normalisation": "rms"},
    "no norm": {"norm": "none", "activation": "relu", "attention": "full"},
}
QUICK_SAME = ("pre-norm",)
SAME_SAMPLES, QUICK_SAME_SAMPLES = 20_000, 5_000

# towards infinite width, with as many heads as their width
TOKENS, OVERLAP, BLOCKS = 8, 0.2, 6
WIDE = {64: (4, 3_000), 256: (8, 1_000), 1024: (16, 400)}
QUICK_WIDE = {256: (8, 100)}

# over initialisations
FORMS = {
    "post-norm": {"norm": "post", "residual": "plain"},
    "pre-norm": {"residual": "plain"},
    "pre-norm, GPT-2's scale": {"residual": "gpt2"},
    "DeepNorm": {"norm": "post", "residual": "deepnorm"},
}
QUICK_FORMS = ("post-norm", "pre-norm, GPT-2's scale")
DEPTHS, QUICK_DEPTHS = (2, 8, 32), (8,)
WIDTHS = {64: 4, 128: 8}  # heads
SPREAD_SAMPLES, QUICK_SPREAD_SAMPLES = 1_500, 100
GRADIENT_DEPTH, QUICK_GRADIENT_DEPTH = 12, 4

# width, blocks, heads; and how many samples
SHAPES = {
    "GPT-2 small": (768, 12, 12, 64),
    "GPT-2 medium": (1024, 24, 16, 32),
    "GPT-2 XL": (1600, 48, 25, 16),
    "GPT-3": (12_288, 96, 96, 6),
}
QUICK_SHAPES = ("GPT-2 small",)


# blocks of few samples, for paths that take long
_few_at_once = functools.partial(sampling.sample, block_size=16)
_one_at_once = functools.partial(sampling.sample, block_size=1)


def compute(job) -> dict:
    """Sample networks with and without weights; wide ones; all forms; real shapes."""
    return {
        "same": _same(job),
        "wide": _wide(job),
        "spread": _spread(job),
        "gradients": _gradients(job),
        "shapes": _shapes(job),
    }


def _vectors(job, name: str, shape: tuple[int, ...], count: int = 2):
    return np.asarray(jax.random.normal(job.key(name), (count, *shape)))


def _same(job) -> dict:
    """Sample small networks with weights and without."""
    count = job.count(SAME_SAMPLES, QUICK_SAME_SAMPLES)
    results = {}
    for name in job.count(tuple(SAME), QUICK_SAME):
        network = networks.transformer(**{**SMALL, **SAME[name]})
        x, u = _vectors(job, "small", network.shape)
        along = {
            "in law": paths.gram(network, x, u),
            "drawn": paths.jacobian(network, x, u),
        }
        results[name] = {}
        for kind, path in along.items():
            log_norm = job.sample(f"{name}, {kind}", path, count).log_norm
            back = paths.gradients(network, x, u, drawn=kind == "drawn")
            logs = job.sample(f"gradients, {name}, {kind}", back, count)
            results[name][kind] = np.column_stack([log_norm, logs[:, 0], logs[:, -1]])
    return results


def _wide(job) -> dict:
    """Sample ever wider networks, and their recursion at infinite width."""
    overlaps = OVERLAP + (1 - OVERLAP) * np.eye(TOKENS)
    seed = int(jax.random.bits(job.key("recursion")))
    recursion = _meanfield.recursion(overlaps, BLOCKS, seed)
    published = _meanfield.published(TOKENS, OVERLAP, BLOCKS)
    results = {"recursion": recursion, "published": published}
    for width, (heads, count) in job.count(WIDE, QUICK_WIDE).items():
        network = networks.transformer(
            width,
            BLOCKS,
            heads,
            TOKENS,
            attention="full",
            activation="relu",
            init="lecun",
            residual="plain",
        )
        # of exactly these overlaps, and a tangent apart from them
        normal = _vectors(job, f"wide {width}", (TOKENS, width)).reshape(-1, width)
        basis = width**0.5 * np.linalg.qr(normal.T.astype(np.float64))[0].T
        x = np.linalg.cholesky(overlaps) @ basis[:TOKENS]
        path = paths.gram(network, x, basis[TOKENS:])
        trace = job.sample(f"width {width}", path, count, engine=_few_at_once)
        results[f"{width}"] = trace.log_norm
    return results


def _spread(job) -> dict:
    """Sample all forms at all depths and widths: log-norms by width and depth."""
    count = job.count(SPREAD_SAMPLES, QUICK_SPREAD_SAMPLES)
    depths = job.count(DEPTHS, QUICK_DEPTHS)
    results = {}
    for name in job.count(tuple(FORMS), QUICK_FORMS):
        # where no weight depends on the depth, the deepest network has all others in it
        nested = FORMS[name]["residual"] == "plain"
        results[name] = {}
        for width in WIDTHS:
            for depth in depths[-1:] if nested else depths:
                network = _network(name, width, depth)
                x, u = _vectors(job, "spread", network.shape)
                case = f"{name}, {width} × {depth}"
                path = paths.gram(network, x, u)
                trace = job.sample(case, path, count, engine=_few_at_once)
                total = np.cumsum(trace.increment, axis=1, dtype=np.float64)
                for inner in depths if nested else (depth,):
                    results[name][f"{width} {inner}"] = total[:, 2 * inner - 1]
    return results


def _network(name: str, width: int, depth: int) -> networks.Network:
    """Return a network of one form, with weights of variance 1/n_in."""
    return networks.transformer(
        width, depth, WIDTHS[width], TOKENS, init="lecun", **FORMS[name]
    )


def _gradients(job) -> dict:
    """Sample the gradient of each matrix, of all forms at one depth."""
    count = job.count(SPREAD_SAMPLES, QUICK_SPREAD_SAMPLES) // 3
    depth = job.count(GRADIENT_DEPTH, QUICK_GRADIENT_DEPTH)
    results = {}
    for name in job.count(tuple(FORMS), QUICK_FORMS):
        network = _network(name, min(WIDTHS), depth)
        x, u = _vectors(job, "gradients", network.shape)
        path = paths.gradients(network, x, u)
        logs = job.sample(f"gradients, {name}", path, count, engine=_few_at_once)
        # of the last matrix of each layer
        last = [i for i, one in enumerate(network.matrices) if _ends(one)]
        results[name] = np.asarray(logs)[:, last]
    return results


def _ends(matrix: str) -> bool:
    return matrix.split(".")[1] in ("out", "down")


def _shapes(job) -> dict:
    """Sample real shapes, with GPT-2's weights, and how long a sample takes."""
    results = {}
    for name in job.count(tuple(SHAPES), QUICK_SHAPES):
        width, depth, heads, count = SHAPES[name]
        network = networks.transformer(width, depth, heads, TOKENS)
        x, u = _vectors(job, "shapes", network.shape)
        follow = {"along": paths.gram, "back": paths.gradients}
        of_shape = {}
        for kind, path_of in follow.items():
            path = path_of(network, x, u)
            _one_at_once(path, job.key("start"), 2)
            started = time.perf_counter()
            samples = job.sample(f"{name}, {kind}", path, count, engine=_one_at_once)
            of_shape[f"seconds {kind}"] = (time.perf_counter() - started) / count
            of_shape[kind] = samples.log_norm if kind == "along" else samples
        results[name] = of_shape
    return results


def check(results) -> list[_check.Row]:
    """Hold laws to those of drawn networks, means to the recursion, and spreads to
    one another.
    """
    rows = []
    for name, samples in results["same"].items():
        rows += _same_rows(name, samples)
    rows += _wide_rows(results["wide"])
    for name, samples in results["spread"].items():
        rows += _spread_rows(name, samples)
    for name, samples in results["shapes"].items():
        rows += _shape_rows(name, samples)
    return rows


def _same_rows(name, samples) -> list[_check.Row]:
    """Hold one network without weights to the one that is drawn."""
    quantities = "KS, ln ‖J u‖²", "KS, first gradient", "KS, last gradient"
    columns = zip(quantities, samples["in law"].T, samples["drawn"].T, strict=True)
    return [
        _check.distance(
            f"{name}, drawn or not", quantity, laws.compare(a, laws.empirical(b))
        )
        for quantity, a, b in columns
    ]


def _wide_rows(wide) -> list[_check.Row]:
    """Hold the mean at each width to the recursion."""
    limit = wide["recursion"][-1]
    rows = []
    for width in _widths(wide):
        mean, error = summaries.estimate(wide[f"{width}"]).mean
        case = f"{width} wide, {BLOCKS} blocks"
        told = mean, error, limit, 4 / width
        rows.append(_check.agree(case, "mean ln ‖J u‖²", *told))
        first = width * (mean - limit), width * error
        rows.append(_check.show(case, "n·(mean − limit)", *first))
        rows.append(_check.show(case, "n·Var", *_times(width, wide[f"{width}"])))
    case = "infinitely wide"
    gap = wide["published"][-1] - limit
    rows.append(_check.below(case, "published less derived", gap, -0.2))
    return rows


def _widths(wide) -> list[int]:
    return [int(width) for width in wide if width.isdigit()]


def _times(width: int, log_norm) -> tuple[float, float]:
    """Return n·Var of log-norms, and its standard error."""
    variance, error = summaries.estimate(log_norm).variance
    return width * variance, width * error


def _spreads(samples) -> dict[int, dict[int, tuple[float, float]]]:
    """Return n·Var with its standard error, by width and depth."""
    spreads: dict[int, dict[int, tuple[float, float]]] = {}
    for shape, log_norm in samples.items():
        width, depth = map(int, shape.split())
        spreads.setdefault(width, {})[depth] = _times(width, log_norm)
    return spreads


def _spread_rows(name, samples) -> list[_check.Row]:
    """Hold n·Var at two widths to one another, and its growth to what is claimed."""
    narrow, wide = _spreads(samples).values()
    rows = []
    for depth, (value, error) in narrow.items():
        other, other_error = wide[depth]
        both = float(np.hypot(error, other_error))
        case = f"{name}, {depth} blocks"
        # the next order, in 1/n
        told = value, both, other, 0.1 * other
        rows.append(_check.agree(case, "n·Var, n = 64 against 128", *told))
        told = other / depth, other_error / depth
        rows.append(_check.show(case, "n·Var a block", *told))
    deep, error = wide[max(wide)]
    case = f"{name}, {max(wide)} blocks"
    told = deep / max(wide), error / max(wide)
    if name == "post-norm" and max(wide) >= 16:
        rows.append(_check.agree(case, "n·Var a block, deep", *told, 6.5, 1.5))
    if name == "pre-norm" and len(wide) > 1:
        shallow, first = wide[min(wide)]
        ratio = (deep / shallow) / (max(wide) / min(wide))
        apart = 1 - 5 * ratio * np.hypot(error / deep, first / shallow)
        rows.append(_check.below(case, "growth over that of depth", ratio, apart))
    bounds = {"pre-norm, GPT-2's scale": 0.5, "DeepNorm": 0.1}
    if name in bounds:
        upper = deep + 5 * error
        rows.append(_check.below(case, "n·Var + 5 s.e.", upper, bounds[name]))
    return rows


def _shape_rows(name, samples) -> list[_check.Row]:
    """Show what a real shape does over initialisations, and hold that all is finite."""
    mean, variance, _ = summaries.estimate(samples["along"])
    lost = [np.mean(~np.isfinite(samples[kind])) for kind in ("along", "back")]
    spread = variance.value**0.5
    rows = [
        _check.show(name, "mean of ln ‖J u‖²", *mean),
        _check.show(name, "its spread", spread, variance.error / (2 * spread)),
        _check.show(name, "s a sample", float(samples["seconds along"])),
        _check.show(name, "s, gradients", float(samples["seconds back"])),
        _check.below(name, "share not finite", float(max(lost)), 0),
    ]
    return rows


def draw(results):
    """Draw means against width, n·Var against depth, and real shapes."""
    layout = [["wide", "spread", "shapes"]]
    figure, axes = _figure.grid(layout, (18, 6))
    _draw_wide(axes["wide"], results["wide"])
    _draw_spread(axes["spread"], results["spread"])
    _draw_shapes(axes["shapes"], results["shapes"])
    return figure


def _draw_wide(axis, wide):
    widths = _widths(wide)
    seen = [summaries.estimate(wide[f"{width}"]).mean for width in widths]
    means, errors = np.transpose(seen)
    style = {"fmt": "o", "color": _figure.NETWORK, "capsize": 3}
    axis.errorbar(widths, means, 2 * errors, label="transformers (± 2 s.e.)", **style)
    limits = (
        ("recursion", "infinite width, derived", "-"),
        ("published", "infinite width, published", "--"),
    )
    for name, label, dashes in limits:
        axis.axhline(wide[name][-1], color=_figure.THEORY, ls=dashes, label=label)
    _figure.log_widths(axis, widths)
    axis.set(
        title=f"the mean tends to a recursion ({BLOCKS} blocks)",
        xlabel="width n",
        ylabel="mean of ln ‖J u‖²/‖u‖²",
    )
    axis.legend(loc="center right")


def _draw_spread(axis, spread):
    for (name, samples), color in zip(spread.items(), _figure.PALETTE, strict=False):
        pairs = zip(_spreads(samples).items(), ("o-", "s:"), strict=True)
        for (width, by_depth), marker in pairs:
            values, errors = np.transpose(list(by_depth.values()))
            label = name if width == min(WIDTHS) else None
            style = {"fmt": marker, "color": color, "ms": 5, "capsize": 3, "lw": 1}
            axis.errorbar(list(by_depth), values, 2 * errors, label=label, **style)
    narrow, wide = WIDTHS
    axis.set(
        title=f"lines: n = {narrow}, dots: n = {wide}",
        xlabel="number of blocks d",
        ylabel="n · Var ln ‖J u‖² (± 2 s.e.)",
        xscale="log",
        yscale="log",
    )
    depths = sorted({int(shape.split()[1]) for shape in next(iter(spread.values()))})
    axis.set_xticks(depths, depths)
    axis.minorticks_off()
    _room_for_legend(axis, 30)


def _room_for_legend(axis, times: float, columns: int = 2):
    """Put a legend above all that is drawn, on a logarithmic axis."""
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * times)
    axis.legend(loc="upper left", ncols=columns)


def _draw_shapes(axis, shapes):
    names = []
    for name in shapes:
        width, depth, *_ = SHAPES[name]
        billions = 12 * depth * width**2 / 1e9
        short = name.replace(" ", "\n").replace("GPT-3", "GPT-3\n")
        names.append(f"{short}\n{billions:.{0 if billions > 9 else 2}f}·10⁹")
    for kind, color, label in (
        ("along", _figure.MASK_MODEL, "‖J u‖²"),
        ("back", _figure.NETWORK, "‖∂L/∂W‖² of all matrices"),
    ):
        seconds = [float(of_shape[f"seconds {kind}"]) for of_shape in shapes.values()]
        axis.plot(names, seconds, "o-", color=color, label=f"a sample of {label}")
    axis.set(
        title=f"real shapes, {TOKENS} tokens",
        xlabel="network, and how many weights it has",
        ylabel="seconds, on this machine",
        yscale="log",
    )
    axis.margins(x=0.15)
    _room_for_legend(axis, 3, columns=1)
