"""What an activation does to gradients: a ReLU's log-variance is 5β; a ReLU shaped to
the width, of slopes 1 + c_±/√n, has that of a linear network, N(−T, 2T) at depth T·n; a
smooth one can have less than a ReLU or far more, for it depends on the size of its
activations, and so on gain and biases.

Expected, at width 100: ReLU and shaped ReLU follow the exact law of their mask at every
depth; the exact law of the shaped one is within a KS distance of 2.5/n of N(−T, 2T),
and four times nearer at width 4n, where a ReLU is at N(−5T/2, 5T); the cosine of two
inputs follows dρ = [ν(ρ) − ρ(1 − ρ²)/2] dt + (1 − ρ²) dB: over all layers its steps
have that drift to a relative 5/n, and that variance to 3/n. Its mean and variance at
single depths are shown beside those of the diffusion; these, and the mean over a few
layers, would not show an error of a fifth (~).

No law is known for tanh and gelu: their numbers are shown without verdict. They are of
the network followed in law, which is held against the network drawn whole. GELU is
shown at gain 2 without biases, where its activations fade, and at the gain and bias for
which they do not (Roberts, Yaida & Hanin, "The principles of deep learning theory",
2022, section 5.3; checked by quadrature).

Found: a ReLU shaped to the width has the law of a linear network in the limit. tanh
varies half as much as a ReLU at 100 layers of width 100, 2.5 against 5; GELU, at its
critical gain and biases, 26, and at gain 2 without biases more still, for its
activations fade.

Figure: log-variance of activations against depth, law of a shaped ReLU, cosine of two
inputs.
Time: 1 minute on two CPU cores; --quick 20 s.
Command: python -m experiments activations
"""

import functools

import jax
import numpy as np

from experiments import _check, _figure
from lognorm_jax import activations, exact, laws, networks, paths, summaries

WIDTH, DEPTH = 100, 100
DEPTHS = (1, 5, 10, 20, 40, 60, 80, 100)
SLOPES = 1.0, -1.0  # c_+ and c_−; if they did not cancel, the limit would be √n slower
START = 0.3  # cosine of the two inputs
NUM_SAMPLES, QUICK_SAMPLES = 20_000, 3_000
PAIRS, QUICK_PAIRS = 40_000, 12_000  # of inputs
REMAINDER = {"drift": 5, "noise": 3}  # what the diffusion leaves out, relative, times n
WHOLE, QUICK_WHOLE = 8_000, 4_096  # networks drawn whole, of a tenth of the depth
CASES = {  # activation, bias_scale, gain
    "relu": (activations.relu(), 0.0, None),
    "shaped relu": (activations.shaped_relu(*SLOPES, WIDTH), 0.0, None),
    "tanh": (activations.tanh(), 0.0, None),
    "gelu": (activations.gelu(), 0.0, None),
    "gelu, critical": (activations.gelu(), 0.17292239**0.5, 1.98305826),
}
QUICK_CASES = ("relu", "shaped relu", "gelu, critical")
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


def compute(job) -> dict:
    """Sample log-norms of Jacobians at several depths, and the cosine of two inputs."""
    num_samples = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    whole = job.count(WHOLE, QUICK_WHOLE)
    pairs = job.count(PAIRS, QUICK_PAIRS)
    x = inputs()[0]
    u = np.asarray(jax.random.normal(job.key("tangent"), (WIDTH,)))

    results = {}
    for name in job.count(CASES, QUICK_CASES):
        path = paths.gram(network(name, DEPTH), x, u)
        trace = job.sample(name, path, num_samples)
        total = np.cumsum(trace.increment, axis=1, dtype=np.float64)
        shown = total[:, np.array(DEPTHS) - 1].astype(np.float32)
        results[name] = {"log_norm": shown}
    # at the input, and after each layer but the last
    path = paths.gram(network("shaped relu", DEPTH + 1), inputs(), observe=_cosine)
    _, results["cosine"] = job.sample("two inputs", path, pairs)

    # the same network, followed in law and drawn whole
    for name in (name for name in SHOWN if name in results):
        short = network(name, DEPTH // 10)
        both = {
            "in law": paths.gram(short, x, u),
            "whole": paths.jacobian(short, x, u),
        }
        for label, path in both.items():
            trace = job.sample(f"{name}, {label}", path, whole)
            results[name][label] = trace.log_norm
    return results


def step_ratios(cosine: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return drift and noise of the steps over those of the diffusion, with standard
    errors.

    cosine: (count, layers). The drift is weighted by the drift itself over the variance
    of a step, to which 0.01 is added where that vanishes, at ±1; the noise is what
    steps differ by from the drift, squared.
    """
    now, steps = (
        cosine[:, :-1].astype(np.float64),
        np.diff(cosine.astype(np.float64), axis=1),
    )
    drift = np.asarray(activations.cosine_drift(now, *SLOPES), np.float64) / WIDTH
    weight = drift / (1 - now**2 + 0.01) ** 2
    pairs = {
        "drift": (weight * steps, weight * drift),
        "noise": ((steps - drift) ** 2, (1 - now**2) ** 2 / WIDTH),
    }
    found = {}
    for name, (seen, expected) in pairs.items():
        seen, expected = seen.sum(1), expected.sum(1)  # over the layers of a path
        ratio = seen.mean() / expected.mean()
        rest = seen - ratio * expected
        found[name] = ratio, rest.std() / expected.mean() / np.sqrt(len(rest))
    return found


@functools.cache
# (times, num_samples)
def diffusion(times, num_samples, step=1 / 500) -> np.ndarray:
    """Return ρ at a tuple of times, by Euler and Maruyama, from START."""
    rng, now, rho, found = (
        np.random.default_rng(0),
        0.0,
        np.full(num_samples, START),
        [],
    )
    for time in times:
        for _ in range(max(1, round((time - now) / step))):
            drift = np.asarray(activations.cosine_drift(rho, *SLOPES), np.float64)
            noise = rng.normal(size=num_samples) * step**0.5
            rho = np.clip(rho + drift * step + (1 - rho**2) * noise, -1, 1)
        found.append(rho.copy())
        now = time
    return np.array(found)


def check(results) -> list[_check.Row]:
    """Hold masks against exact laws, the shaped ReLU against its limits, gram against
    networks.
    """
    rows = []
    for name in (name for name in CASES if name in results):
        for log_norm, depth in zip(results[name]["log_norm"].T, DEPTHS, strict=True):
            rows += _depth_rows(name, depth, log_norm)
    rows += _cosine_rows(results["cosine"])
    for name in (name for name in SHOWN if name in results):
        same = laws.compare(
            results[name]["in law"], laws.empirical(results[name]["whole"])
        )
        rows.append(
            _check.distance(f"{name}, d = {DEPTH // 10}", "KS to network", same)
        )
    return rows


def _depth_rows(name, depth, log_norm) -> list[_check.Row]:
    """Hold one case at one depth against the exact law of its mask, where it has
    one.
    """
    case, T = f"{name}, d = {depth}", depth / WIDTH
    mean, variance, _ = summaries.estimate(log_norm)
    if CASES[name][0].mask is None:
        return [
            _check.show(case, "mean", *mean),
            _check.show(case, "variance", *variance),
        ]
    true = law_of(name, depth)
    rows = [
        _check.resolve(case, "mean", *mean, true.mean),
        _check.resolve(case, "variance", *variance, true.variance),
        _check.distance(case, "KS to exact law", laws.compare(log_norm, true)),
    ]
    if name == "shaped relu" and depth >= 20:
        limit = laws.normal(-T, 2 * T)
        near, far = (laws.ks_distance(law, limit) for law in (wide_law(depth), true))
        rows.append(_check.below(case, "KS of N(−T, 2T) to exact", far, 2.5 / WIDTH))
        rows.append(_check.below(case, "that at 4n", near, 0.3 * far))
    return rows


def _cosine_rows(cosine) -> list[_check.Row]:
    """Hold the steps of the cosine of two inputs against a diffusion, and show where
    they lead.
    """
    rows = []
    for name, (ratio, error) in step_ratios(cosine[:, : DEPTH + 1]).items():
        slack = REMAINDER[name] / WIDTH
        rows.append(
            _check.resolve(
                "cosine, all layers", f"{name}/theory", ratio, error, 1, slack
            )
        )
    times = tuple(depth / WIDTH for depth in DEPTHS)
    for depth, expected in zip(DEPTHS, diffusion(times, len(cosine)), strict=True):
        ours = summaries.estimate(cosine[:, depth])
        theirs = summaries.estimate(expected)
        for name in ("mean", "variance"):
            measured, limit = getattr(ours, name), getattr(theirs, name)
            error = np.hypot(measured.error, limit.error)
            told = measured.value, error, limit.value
            row = _check.agree(f"cosine, d = {depth}", name, *told)
            rows.append(row._replace(verdict=""))
    return rows


def draw(results):
    """Draw variance against depth, the law of a shaped ReLU, the cosine of inputs."""
    figure, axes = _figure.grid([["variance", "law", "cosine"]], (15, 5))
    styles = zip(CASES, _figure.PALETTE, "os^Dv", strict=False)
    for name, color, marker in styles:
        if name in results:
            log_norm = results[name]["log_norm"]
            _draw_variance(axes["variance"], name, log_norm, color, marker)
    shaped, plain = (results[name]["log_norm"] for name in ("shaped relu", "relu"))
    _draw_law(axes["law"], "shaped relu", shaped, 2, "N(−T, 2T)", _figure.PALETTE[1])
    _draw_law(axes["law"], "relu", plain, 5, "N(−5T/2, 5T)", _figure.PALETTE[0])
    _draw_diffusion(axes["cosine"])
    _draw_cosine(axes["cosine"], results["cosine"])
    _finish(axes)
    return figure


def _draw_variance(axis, name, log_norm, color, marker):
    """Draw the variance of one case against depth, and its exact one if known."""
    variance, error = summaries.estimate(log_norm).variance
    style = {"fmt": marker, "ms": 5, "capsize": 3, "color": color, "label": name}
    axis.errorbar(DEPTHS, variance, 2 * error, **style)
    if CASES[name][0].mask is None:
        axis.plot(DEPTHS, variance, ":", color=color, lw=1)
    else:
        line = [law_of(name, depth).variance for depth in DEPTHS]
        axis.plot(DEPTHS, line, color=color, lw=1.2)


def _draw_law(axis, name, log_norm, scale, limit_name, color):
    """Draw the density at T = 1, and that of the limit law N(−scale/2, scale)."""
    limit = laws.normal(-scale / 2, scale)
    x = np.linspace(-10, 6, 400)
    style = {"range": (-10, 6), "density": True, "color": color, "alpha": 0.4}
    axis.hist(log_norm[:, -1], 60, label=f"{name}, simulated", **style)
    axis.plot(x, limit.pdf(x), color=color, label=limit_name)


def _draw_diffusion(axis):
    """Draw the middle of the diffusion of the cosine against time, T = d/n."""
    times = np.linspace(0.02, DEPTH / WIDTH, 50)
    rho = diffusion(tuple(times), 20_000)
    for q, alpha in ((0.05, 0.12), (0.25, 0.25)):
        low, high = np.quantile(rho, [q, 1 - q], axis=1)
        style = {"color": _figure.THEORY, "alpha": alpha, "lw": 0}
        label = f"diffusion, middle {1 - 2 * q:.0%}"
        axis.fill_between(times, low, high, label=label, **style)
    median = np.median(rho, axis=1)
    axis.plot(times, median, color=_figure.THEORY, label="its median")


def _draw_cosine(axis, cosine):
    """Draw quantiles of the cosine of two inputs at the layers of DEPTHS."""
    place = np.array((0, *DEPTHS))
    shares = [0.05, 0.25, 0.5, 0.75, 0.95]
    lines = np.quantile(cosine[:, place], shares, axis=0)
    style = {"ms": 4, "color": _figure.PALETTE[1]}
    axis.plot(
        place / WIDTH, lines[0], "o", label="network: 5, 25, 50, 75, 95%", **style
    )
    axis.plot(place / WIDTH, lines[1:].T, "o", **style)


def _finish(axes):
    axes["variance"].set(
        title="log-variance against depth (lines: exact)",
        yscale="log",
        xlabel=f"depth d (n = {WIDTH})",
        ylabel="Var ln ‖Ju‖² (± 2 s.e.)",
    )
    axes["law"].set(
        title="d = n: T = 1",
        xlabel="log-norm, ln ‖Ju‖²",
        ylabel="density",
        ylim=(0, 0.4),
    )
    axes["cosine"].set(
        title="cosine of two inputs, shaped ReLU",
        xlabel="depth over width, T = d/n",
        ylabel="cosine of the angle between two inputs",
        ylim=(-0.95, 1.02),
    )
    for axis in axes.values():
        axis.legend()
