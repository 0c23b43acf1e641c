"""What an activation does to gradients: a ReLU's log-variance is 5β; a ReLU shaped to the width, of
slopes 1 + c_±/√n, has that of a linear network, N(−T, 2T) at depth T·n; a smooth one can have less
than a ReLU or far more, for it depends on the size of its activations, and so on gain and biases.

Expected, at width 100: ReLU and shaped ReLU follow the exact law of their mask at every depth; the
exact law of the shaped one is within a KS distance of 2.5/n of N(−T, 2T), and four times nearer at
width 4n, where a ReLU is at N(−5T/2, 5T); the cosine of two inputs follows
dρ = [ν(ρ) − ρ(1 − ρ²)/2] dt + (1 − ρ²) dB, its mean to 2/n and its variance to 1/n. No law is known
for tanh and gelu: their numbers are shown without verdict. They are of the network followed in law,
which is held against the network drawn whole. GELU is shown at gain 2 without biases, where its
activations fade, and at the gain and bias for which they do not (Roberts, Yaida & Hanin, "The
principles of deep learning theory", 2022, section 5.3; checked by quadrature).

Time: 1 minute on two CPU cores; --quick 30 s. Command: python -m experiments activations
"""

import functools

import jax
import numpy as np

from experiments import _check, _figure
from lognorm_jax import activations, exact, laws, networks, paths

WIDTH, DEPTH = 100, 100
DEPTHS = (1, 5, 10, 20, 40, 60, 80, 100)
SLOPES = 1.0, -1.0  # c_+ and c_−; if they did not cancel, the limit would be √n slower
START = 0.3  # cosine of the two inputs
NUM_SAMPLES, QUICK_SAMPLES = 20_000, 3_000
WHOLE, QUICK_WHOLE = 8_000, 4_096  # networks drawn whole, of a tenth of the depth
CASES = {  # activation, bias_scale, gain
    "relu": (activations.relu(), 0.0, None),
    "shaped relu": (activations.shaped_relu(*SLOPES, WIDTH), 0.0, None),
    "tanh": (activations.tanh(), 0.0, None),
    "gelu": (activations.gelu(), 0.0, None),
    "gelu, critical": (activations.gelu(), 0.17292239**0.5, 1.98305826),
}
SHOWN = ("tanh", "gelu", "gelu, critical")


def network(name: str, depth: int, width: int = WIDTH) -> networks.Network:
    """Return the network of a case."""
    phi, bias_scale, gain = CASES[name]
    return networks.mlp((width,) * (depth + 1), phi, bias_scale, gain=gain)


@functools.cache
def law_of(name: str, depth: int) -> laws.Law:
    """Return the exact law of a case whose derivatives are those of a mask."""
    return exact.law(network(name, depth).ensemble)


@functools.cache
def wide_law(depth: int) -> laws.Law:
    """Return the exact law of a shaped ReLU network four times as wide and as deep."""
    phi = activations.shaped_relu(*SLOPES, 4 * WIDTH)
    return exact.law(networks.mlp((4 * WIDTH,) * (4 * depth + 1), phi).ensemble)


def _cosine(x, tangent):
    del tangent
    return x[0] @ x[1]


def inputs() -> np.ndarray:  # (2, WIDTH)
    """Return two inputs of norm √n and cosine START."""
    x = np.zeros((2, WIDTH))
    x[:, : WIDTH // 2] = 2**0.5
    x[1, : WIDTH // 2] *= START
    x[1, WIDTH // 2 :] = (2 * (1 - START**2)) ** 0.5
    return x


def compute(*, key, quick, bar, sample, num_samples=None) -> dict[str, np.ndarray]:
    """Sample log-norms of Jacobians at several depths, and the cosine of two inputs."""
    num_samples = num_samples or (QUICK_SAMPLES if quick else NUM_SAMPLES)
    whole = QUICK_WHOLE if quick else WHOLE
    bar.reset(total=num_samples * (len(CASES) + 1) + 2 * whole * len(SHOWN))
    x, u = inputs()[0], np.asarray(jax.random.normal(jax.random.fold_in(key, 99), (WIDTH,)))
    results = {}
    for i, name in enumerate(CASES):
        path = paths.gram(network(name, DEPTH), x, u)
        trace = sample(name, path, jax.random.fold_in(key, i), num_samples)
        total = np.cumsum(trace.increment, axis=1, dtype=np.float64)
        results[f"{name}/log_norm"] = total[:, np.array(DEPTHS) - 1].astype(np.float32)
    path = paths.gram(network("shaped relu", DEPTH + 1), inputs(), observe=_cosine)
    _, cosine = sample("two inputs", path, jax.random.fold_in(key, 10), num_samples)
    results["cosine"] = cosine[:, np.array((0, *DEPTHS))]
    for i, name in enumerate(SHOWN):
        short = network(name, DEPTH // 10)
        both = {
            "in law": paths.gram(short, x, u),
            "whole": networks.jacobian_path(short, x, u),
        }
        for j, (label, path) in enumerate(both.items()):
            own = jax.random.fold_in(key, 20 + 2 * i + j)
            results[f"{name}/{label}"] = sample(f"{name}, {label}", path, own, whole).log_norm
    return results


@functools.cache
def diffusion(times, num_samples=100_000, step=1 / 500) -> np.ndarray:  # (times, num_samples)
    """Return ρ at a tuple of times, by Euler and Maruyama, from START."""
    rng, now, rho, found = np.random.default_rng(0), 0.0, np.full(num_samples, START), []
    for time in times:
        for _ in range(max(1, round((time - now) / step))):
            drift = np.asarray(activations.cosine_drift(rho, *SLOPES), np.float64)
            noise = rng.normal(size=num_samples) * step**0.5
            rho = np.clip(rho + drift * step + (1 - rho**2) * noise, -1, 1)
        found.append(rho.copy())
        now = time
    return np.array(found)


def check(results) -> list[_check.Row]:
    """Hold masks against exact laws, the shaped ReLU against its limits, gram against networks."""
    rows = []
    for name, (phi, *_) in CASES.items():
        for log_norm, depth in zip(results[f"{name}/log_norm"].T, DEPTHS, strict=True):
            case, T = f"{name}, d = {depth}", depth / WIDTH
            mean, mean_error, variance, variance_error = _check.moments(log_norm)
            if phi.mask is None:
                rows.append(_check.show(case, "mean", mean, mean_error))
                rows.append(_check.show(case, "variance", variance, variance_error))
                continue
            true = law_of(name, depth)
            rows += [
                _check.agree(case, "mean", mean, mean_error, true.mean),
                _check.agree(case, "variance", variance, variance_error, true.variance),
            ]
            if name == "shaped relu" and depth >= 20:
                limit, slack = laws.normal(-T, 2 * T), 2.5 / WIDTH
                rows.append(
                    _check.distance(
                        case, "KS to N(−T, 2T)", laws.compare(log_norm, limit, slack), slack
                    )
                )
                near, far = (laws.ks_distance(law, limit) for law in (wide_law(depth), true))
                rows.append(_check.below(case, "KS of exact law", far, slack))
                rows.append(_check.below(case, "that at 4n", near, 0.3 * far))
    times = tuple(depth / WIDTH for depth in DEPTHS)
    for depth, seen, expected in zip(
        DEPTHS, results["cosine"].T[1:], diffusion(times), strict=True
    ):
        case, ours, theirs = f"cosine, d = {depth}", _check.moments(seen), _check.moments(expected)
        errors = [np.hypot(ours[i], theirs[i]) for i in (1, 3)]
        rows.append(_check.agree(case, "mean", ours[0], errors[0], theirs[0], 2 / WIDTH))
        rows.append(_check.agree(case, "variance", ours[2], errors[1], theirs[2], 1 / WIDTH))
    for name in SHOWN:
        same = laws.compare(results[f"{name}/in law"], laws.empirical(results[f"{name}/whole"]))
        rows.append(_check.distance(f"{name}, d = {DEPTH // 10}", "KS to network", same))
    return rows


def draw(results):
    """Draw variance against depth, the law of the shaped ReLU, and the cosine of two inputs."""
    figure, axes = _figure.grid([["variance", "law", "cosine"]], (15, 5))
    depths = np.array(DEPTHS)
    for (name, (phi, *_)), color, marker in zip(
        CASES.items(), _figure.PALETTE, "os^Dv", strict=False
    ):
        seen = np.array([_check.moments(column) for column in results[f"{name}/log_norm"].T]).T
        axes["variance"].errorbar(
            depths, seen[2], 2 * seen[3], fmt=marker, ms=5, capsize=3, color=color, label=name
        )
        if phi.mask is None:
            axes["variance"].plot(depths, seen[2], ":", color=color, lw=1)
        else:
            line = [law_of(name, int(d)).variance for d in depths]
            axes["variance"].plot(depths, line, color=color, lw=1.2)
    axes["variance"].set(
        title="log-variance against depth (lines: exact)",
        yscale="log",
        xlabel=f"depth d (n = {WIDTH})",
        ylabel="Var ln ‖Ju‖² (± 2 s.e.)",
    )
    for name, color, scale in (
        ("shaped relu", _figure.PALETTE[1], 2),
        ("relu", _figure.PALETTE[0], 5),
    ):
        law = laws.normal(-scale / 2, scale)
        x = np.linspace(-10, 6, 400)
        axes["law"].hist(
            results[f"{name}/log_norm"][:, -1],
            60,
            range=(-10, 6),
            density=True,
            color=color,
            alpha=0.4,
            label=f"{name}, simulated",
        )
        text = "N(−T, 2T)" if scale == 2 else "N(−5T/2, 5T)"
        axes["law"].plot(x, law.pdf(x), color=color, label=text)
    axes["law"].set(title="d = n: T = 1", xlabel="ln ‖Ju‖²", ylabel="density")
    times = np.linspace(0.02, DEPTH / WIDTH, 50)
    rho = diffusion(tuple(times), 20_000)
    for q, alpha in ((0.05, 0.12), (0.25, 0.25)):
        low, high = np.quantile(rho, [q, 1 - q], axis=1)
        axes["cosine"].fill_between(
            times,
            low,
            high,
            color=_figure.THEORY,
            alpha=alpha,
            lw=0,
            label=f"diffusion, middle {1 - 2 * q:.0%}",
        )
    axes["cosine"].plot(times, np.median(rho, axis=1), color=_figure.THEORY, label="its median")
    seen = np.quantile(results["cosine"], [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    place = np.array((0, *DEPTHS)) / WIDTH
    for i, line in enumerate(seen):
        axes["cosine"].plot(
            place,
            line,
            "o",
            ms=4,
            color=_figure.PALETTE[1],
            label="network: 5, 25, 50, 75, 95%" if i == 0 else None,
        )
    axes["cosine"].set(
        title="cosine of two inputs, shaped ReLU",
        xlabel="T = d/n",
        ylabel="cosine",
        ylim=(-0.95, 1.02),
    )
    for axis in axes.values():
        axis.legend()
    return figure
