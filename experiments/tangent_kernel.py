"""How much the tangent kernel of a ReLU network varies over its initialisations decides
whether it trains like its linearisation. The second moment is known exactly: of the
order of exp(5β), but between a third of it and all.

Expected, at width 24, β = d/n from 0.1 to 4 (the linear head counts in d), and at four
uneven shapes: E K and E K²/(E K)² within 5 standard errors of ``kernels.mean`` and
``second_moment``, wherever the effective number of samples, (Σ K²)²/Σ K⁴, is above 100;
else no verdict. exp(5β) is above what is sampled by more than a fifth from β = 1/2 on.
The mean change of K in the first step of gradient descent, at three shapes and, with
matrices that are not drawn, at widths of 100, 1,000 and 10,000 and depths of their
roots, within 5 standard errors of ``kernels.first_step``: the kernel falls.

Found: the exact second moment holds at all shapes. exp(5β), which is published as its
order of growth, is 1.45 times too large at β = 1/8 and 2.3 times at 1/2. Moments of the
kernel are soon out of reach of sampling: at β = 1, 60,000 samples are worth 2. The
first step of gradient descent lowers the kernel, by as much as theory says, up to
widths of 10⁴.

Figure: second moment of the tangent kernel against β, laws of the kernel, change in the
first step.
Time: 5 minutes on two CPU cores; --quick 40 s.
Command: python -m experiments tangent_kernel
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _check, _figure, _first_step
from lognorm_jax import kernels, networks

WIDTH = 24
BETAS, QUICK_BETAS = (0.125, 0.25, 0.5, 1, 2, 4), (0.125, 0.5, 2)
UNEVEN = {
    "10-30-20-60-1": (10, 30, 20, 60, 1),
    "50-12-40-15-1": (50, 12, 40, 15, 1),
    "6-50-50-1": (6, 50, 50, 1),
    "40-20-10-5-1": (40, 20, 10, 5, 1),
}
QUICK_UNEVEN = ("50-12-40-15-1",)
STEPS = {
    "8-20-12-1": (8, 20, 12, 1),
    "16-16-16-16-1": (16, 16, 16, 16, 1),
    "30-10-40-1": (30, 10, 40, 1),
}
QUICK_STEPS = ("8-20-12-1",)
# width: matrices, seeds; not drawn
WIDE = {100: (10, 20_000), 1_000: (32, 8_000), 10_000: (100, 4_000)}
QUICK_WIDE = {100: (10, 15_000)}
NUM_SAMPLES, QUICK_SAMPLES = 60_000, 10_000
STEP_SAMPLES, QUICK_STEP_SAMPLES = 60_000, 15_000
ENOUGH = 100  # effective samples, below which there is no verdict
CONTROL = 1.2  # by how much exp(5β) is too large, at least


def widths_of(beta: float) -> tuple[int, ...]:
    """Return equal widths of d = β n layers, and one output."""
    return (WIDTH,) * max(2, round(beta * WIDTH)) + (1,)


def compute(job) -> dict:
    """Sample kernels, and what the first step of networks that are drawn does."""
    count = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    shapes = {f"{beta}": widths_of(beta) for beta in job.count(BETAS, QUICK_BETAS)}
    uneven = job.count(tuple(UNEVEN), QUICK_UNEVEN)
    shapes |= {name: UNEVEN[name] for name in uneven}
    results = {"kernels": {}, "steps": {}}
    for name, widths in shapes.items():
        x = _input(job, widths)
        path = kernels.path(_network(widths), x[None])
        K = job.sample(f"kernels, {name}", path, count)[:, 0, 0]
        results["kernels"][name] = np.asarray(K, np.float64) / (x @ x)
    count = job.count(STEP_SAMPLES, QUICK_STEP_SAMPLES)
    for name in job.count(tuple(STEPS), QUICK_STEPS):
        x = _input(job, STEPS[name])
        changes = _changes(_network(STEPS[name]), jnp.asarray(x, jnp.float32))
        changes, K = job.sample(f"first step, {name}", changes, count)
        scale = (x @ x) * np.mean(K, dtype=np.float64)
        results["steps"][name] = np.asarray(changes, np.float64) / scale
    for width, (depth, count) in job.count(WIDE, QUICK_WIDE).items():
        name = f"{width} × {depth}"
        x = _input(job, (width,))
        path = _first_step.path_of(width, depth, x)
        changes, K = job.sample(f"first step, {name}", path, count)
        scale = (x @ x) * np.mean(K, dtype=np.float64)
        results["steps"][name] = np.asarray(changes, np.float64) / scale
    return results


def _expected(name: str) -> float:
    """Return what the first step of a shape does, exactly."""
    if name in STEPS:
        return kernels.first_step(STEPS[name])
    width, depth = map(int, name.split(" × "))
    return kernels.first_step((width,) * depth + (1,))


def _input(job, widths) -> np.ndarray:
    x = jax.random.normal(job.key("input"), (widths[0],))
    return np.asarray(x, np.float64)


def _network(widths) -> networks.Network:
    return networks.relu_mlp(widths, fan="in", head="linear")


def _changes(network: networks.Network, x):
    """Return key -> (−ΔK/η of a step along f ∇f, K), by second derivatives."""

    def of_key(key):
        params = network.init(key)
        std = [kind.maps[0].std for kind in network.kinds]
        layers = [
            params.trained[kind]["weight"][row] / std[layer]
            for kind, row, layer in _rows(network)
        ]

        def f(layers):
            y = x
            for i, W in enumerate(layers):
                z = std[i] * jnp.matmul(W, y, precision="highest")
                y = z if i == len(layers) - 1 else jax.nn.relu(z)
            return y[0]

        def kernel(layers):
            return sum(jnp.sum(slope**2) for slope in jax.grad(f)(layers))

        K, change = jax.jvp(kernel, (layers,), (jax.grad(f)(layers),))
        return f(layers) * change, K

    return of_key


def _rows(network: networks.Network) -> list[tuple[int, int, int]]:
    """Return the kind, the place among its kind, and the number of each layer."""
    rows = [
        (layer, kind, row)
        for kind, places in enumerate(network.places())
        for row, layer in enumerate(places)
    ]
    return [(kind, row, layer) for layer, kind, row in sorted(rows)]


def effective(K) -> float:
    """Return how many samples the mean of K² is of: (Σ K²)²/Σ K⁴."""
    return float(np.sum(K**2) ** 2 / np.sum(K**4))


def _moments(K) -> list[tuple[float, float]]:
    """Return E K and E K²/(E K)² with standard errors."""
    count, mean = len(K), K.mean()
    ratio = np.mean(K**2) / mean**2
    # of a ratio, by its linearisation
    influence = (K**2 / mean**2 - ratio) - 2 * ratio * (K / mean - 1)
    return [
        (float(mean), float(K.std() / count**0.5)),
        (float(ratio), float(influence.std() / count**0.5)),
    ]


def check(results) -> list[_check.Row]:
    """Hold moments of kernels to theory where samples see them, and first steps."""
    rows = []
    for name, K in results["kernels"].items():
        rows += _kernel_rows(name, np.asarray(K, np.float64))
    for name, change in results["steps"].items():
        value, error = np.mean(change), np.std(change) / len(change) ** 0.5
        told = value, error, _expected(name)
        rows.append(_check.resolve(f"n = {name}", "−ΔK/η‖x‖²E K", *told))
    return rows


def _kernel_rows(name: str, K) -> list[_check.Row]:
    """Hold the moments of one shape to theory."""
    equal = name not in UNEVEN
    widths = widths_of(float(name)) if equal else UNEVEN[name]
    case = f"n = {WIDTH}, β = {name}" if equal else f"n = {name}"
    (mean, error), (ratio, of_ratio) = _moments(K)
    rows = [
        _check.show(case, "effective samples", effective(K)),
        _check.agree(case, "E K/‖x‖²", mean, error, kernels.mean(widths)),
    ]
    expected = kernels.second_moment(widths)
    if effective(K) < ENOUGH:
        # without a verdict: what samples have not seen they do not know
        row = _check.agree(case, "E K²/(E K)²", ratio, of_ratio, expected)
        return [rows[0], *(row._replace(verdict="") for row in (rows[1], row))]
    told = ratio, of_ratio, expected
    rows.append(_check.agree(case, "E K²/(E K)²", *told))
    if equal:
        wrong = np.exp(5 * float(name))
        low, high = wrong / (ratio + 2 * of_ratio), wrong / (ratio - 2 * of_ratio)
        bound = CONTROL if float(name) >= 0.5 else None
        rows.append(
            _check.above(case, "exp(5β) over it", wrong / ratio, low, high, bound)
        )
    return rows


def draw(results):
    """Draw second moments against β, kernels' laws, and first steps."""
    figure, axes = _figure.grid([["moments", "laws", "steps"]], (16, 5))
    equal = {n: K for n, K in results["kernels"].items() if n not in UNEVEN}
    _draw_moments(axes["moments"], equal)
    _draw_laws(axes["laws"], equal)
    _draw_steps(axes["steps"], results["steps"])
    for axis in axes.values():
        axis.legend()
    return figure


def _draw_moments(axis, equal):
    for seen, face in ((True, _figure.NETWORK), (False, "white")):
        shown = {
            float(name): _moments(K)[1]
            for name, K in equal.items()
            if (effective(K) >= ENOUGH) == seen
        }
        if not shown:
            continue
        label = "sampled (± 2 s.e.)" if seen else f"fewer than {ENOUGH} effective"
        values, errors = np.transpose(list(shown.values()))
        style = {"fmt": "o", "color": _figure.NETWORK, "mfc": face, "capsize": 3}
        axis.errorbar(list(shown), values, 2 * errors, label=label, **style)
    betas = np.arange(2, round(max(BETAS) * WIDTH) + 1) / WIDTH
    line = [kernels.second_moment(widths_of(beta)) for beta in betas]
    axis.plot(betas, line, color=_figure.THEORY, label="exact")
    axis.plot(betas, np.exp(5 * betas), "--", color=_figure.LIMIT, label="exp(5β)")
    axis.set(
        title=f"variability of the kernel (n = {WIDTH})",
        xlabel="β = depth over width",
        ylabel="E K² / (E K)²",
        xscale="log",
        yscale="log",
        xticks=BETAS,
        xticklabels=BETAS,
    )
    axis.minorticks_off()


def _draw_laws(axis, equal):
    colors = _figure.shades(len(equal))
    for (name, K), color in zip(equal.items(), colors, strict=True):
        logs = np.log(K[K > 0] / K.mean())
        style = {"histtype": "step", "density": True, "color": color}
        axis.hist(logs, 60, range=(-25, 5), label=f"β = {name}", **style)
    axis.axvline(0, color=_figure.THEORY, lw=1, label="the mean")
    axis.set(
        title="most kernels are far below the mean",
        xlabel="ln K / E K",
        ylabel="density",
    )


def _in_two_lines(name: str) -> str:
    """Return the name of a shape, to stand under an axis beside others."""
    if " × " in name:
        return name.replace(" ×", "\n×")
    one, other, *rest = name.split("-")
    return f"{one}–{other}–\n{'–'.join(rest)}"


def _draw_steps(axis, steps):
    names = list(steps)
    means = [np.mean(change) for change in steps.values()]
    errors = [2 * np.std(change) / len(change) ** 0.5 for change in steps.values()]
    places = np.arange(len(names))
    style = {"fmt": "o", "color": _figure.NETWORK, "capsize": 4}
    axis.errorbar(places, means, errors, label="networks (± 2 s.e.)", **style)
    exact = [_expected(name) for name in names]
    style = {"marker": "_", "s": 400, "color": _figure.THEORY, "label": "exact"}
    axis.scatter(places, exact, **style)
    axis.set(
        title="the first step lowers the kernel",
        xlabel="widths, or width × matrices",
        ylabel="−E ΔK / (η ‖x‖² E K)",
        xticks=places,
        xticklabels=list(map(_in_two_lines, names)),
        yscale="log",
        ylim=(min(exact) / 3, 3 * max(exact)),
    )
    axis.tick_params(axis="x", labelsize=10)
    axis.margins(x=0.15)
