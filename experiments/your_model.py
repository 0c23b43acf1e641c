"""The probe on models as people write them: in Flax NNX, Equinox and Flax Linen, at
images of digits, without a change to the models.

Expected: a Flax NNX perceptron with He initialisation follows the exact law of its
widths, and is stable; with Flax's default (LeCun) each ReLU layer halves the square,
and it vanishes; an Equinox perceptron, whose weights are uniform of variance 1/(3n),
loses a factor 6 a layer, and follows the law of uniform weights; a Flax convolutional
network with He initialisation is equal in law to ``networks.conv`` of the same shape.
Means and variances within 5 standard errors, and what Flax's truncation of the normal
is worth; equal in law, up to a KS distance of 0.01 for the truncated ones.

Found: Flax's default loses half of the square in each ReLU layer and vanishes with
depth; Equinox's loses a factor 6; He initialisation is stable and follows the exact
law.

Figure: laws of log-norms of models in Flax and Equinox over their theory, and the mean
of each layer.
Time: 1 minute on two CPU cores; --quick 25 s.
Command: python -m experiments your_model
"""

import itertools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments import _check, _data, _figure
from lognorm_jax import (
    ensembles,
    exact,
    laws,
    masks,
    models,
    networks,
    paths,
    probes,
    summaries,
    weights,
)

WIDTHS = (64, *(48,) * 8)
CHANNELS, SIDE = (1, 12, 12, 12, 12), 8
IMAGES = 20
# Flax cuts its normal at two standard deviations: μ4 = 2.37, so that the variance of
# each layer after the first is 12(3 − μ4)/n² less than with normal weights (whose κ is
# 6/n)
TRUNCATION = 12 * (3 - 2.366) * 7 / 48**2
# that moves the KS distance by up to 0.006; Equinox's uniform weights are not truncated
KS = 0.01
NUM_SAMPLES, QUICK_SAMPLES = 20_000, 4_096
QUICK_MODELS = ("Flax NNX, He", "Equinox, default", "Flax Linen conv, He")


class FlaxPerceptron(nnx.Module):
    """A perceptron as one writes it in Flax NNX."""

    def __init__(self, rngs, kernel_init):
        self.layers = nnx.List(
            nnx.Linear(a, b, kernel_init=kernel_init, rngs=rngs)
            for a, b in itertools.pairwise(WIDTHS)
        )

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x


class EquinoxPerceptron(eqx.Module):
    """A perceptron as one writes it in Equinox."""

    layers: list

    def __init__(self, key):
        keys = jax.random.split(key, len(WIDTHS) - 1)
        self.layers = [
            eqx.nn.Linear(a, b, key=k)
            for (a, b), k in zip(itertools.pairwise(WIDTHS), keys, strict=True)
        ]

    def __call__(self, x):
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return x


class FlaxConvolutions(nn.Module):
    """Convolutions as one writes them in Flax Linen."""

    @nn.compact
    def __call__(self, x):
        for channels in CHANNELS[1:]:
            init = nn.initializers.he_normal()
            x = nn.relu(
                nn.Conv(channels, (3, 3), padding="CIRCULAR", kernel_init=init)(x)
            )
        return x


RELU_LAYERS = [(f"layers[{i}]", jax.nn.relu) for i in range(len(WIDTHS) - 1)]
CONV_LAYERS = [(f"Conv_{i}", nn.relu) for i in range(len(CHANNELS) - 1)]


def _flax(kernel_init):
    return lambda key: models.blocks(
        FlaxPerceptron(nnx.Rngs(key), kernel_init), RELU_LAYERS
    )


def _equinox(key):
    return models.blocks(EquinoxPerceptron(key), RELU_LAYERS)


def _convolutions(key):
    image = jnp.ones((1, SIDE, SIDE, 1))
    model = FlaxConvolutions()
    return models.blocks(model, CONV_LAYERS, model.init(key, image), example=image)


MODELS = {  # name: key -> layers, and the verdict to expect
    "Flax NNX, He": (_flax(jax.nn.initializers.he_normal()), "stable"),
    "Flax NNX, default": (_flax(jax.nn.initializers.lecun_normal()), "vanishing"),
    "Equinox, default": (_equinox, "vanishing"),
    "Flax Linen conv, He": (_convolutions, "stable"),
}


def images(name: str) -> np.ndarray:
    """Return digits in the shape that a model takes."""
    conv = "conv" in name  # whose law depends on the image
    pixels = np.stack([_data.digit(i) for i in range(1 if conv else IMAGES)]).astype(
        np.float32
    )
    return pixels.reshape(-1, 1, SIDE, SIDE, 1) if conv else pixels


def ensemble(name: str) -> ensembles.Ensemble:
    """Return the products of random matrices that a perceptron is equal to in law."""
    law = weights.uniform() if "Equinox" in name else weights.normal()
    return ensembles.Ensemble(WIDTHS, law, masks.relu(), "in")


def shift(name: str) -> float:
    """Return what the initialisation adds to log_norm, against variance 2/n."""
    factor = {"Flax NNX, default": 1 / 2, "Equinox, default": 1 / 6}.get(name, 1.0)
    return (len(WIDTHS) - 1) * np.log(factor)


def compute(job) -> dict:
    """Probe each model over fresh initialisations; sample what two of them are equal to
    in law.
    """
    num_samples = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    u = np.asarray(jax.random.normal(job.key("tangent"), (WIDTHS[0],)))
    results = {}
    for name in job.count(MODELS, QUICK_MODELS):
        init, _ = MODELS[name]
        fixed = {"direction": u.reshape(1, SIDE, SIDE, 1)} if "conv" in name else {}

        def probe(init, key, num_samples, name=name, fixed=fixed, **options):
            return probes.probe(
                init, images(name), key, num_samples=num_samples, **fixed, **options
            )

        report = job.sample(name, init, num_samples, engine=probe)
        results[name] = {
            "log_norm": report.log_norms,
            "verdict": np.array(report.verdict),
            "layers": np.stack(report.layers.mean),
            "beta": np.array(report.beta.value),
        }

    uniform = paths.dense(ensemble("Equinox, default"), u)
    trace = job.sample("uniform weights", uniform, num_samples)
    results["uniform"] = {"log_norm": trace.log_norm}
    network = networks.conv(CHANNELS, (SIDE, SIDE), 3)
    x = _data.digit(0).reshape(network.shape)
    path = paths.jacobian(network, x, u.reshape(network.shape))
    trace = job.sample("networks.conv", path, num_samples)
    return results | {"conv": {"log_norm": trace.log_norm}}


def check(results) -> list[_check.Row]:
    """Hold each model against its law, and its verdict against that of theory."""
    rows = []
    for name, (_, verdict) in MODELS.items():
        if name in results:
            rows += _law_rows(name, results)
            beta, found = results[name]["beta"], results[name]["verdict"]
            rows.append(_check.show(name, "β of a ReLU net as unstable", beta))
            wrong = float(str(found) != verdict)
            rows.append(_check.below(name, "verdicts other than expected", wrong, 0))
    return rows


def _law_rows(name, results) -> list[_check.Row]:
    """Hold mean, variance and law of one model against what it is equal to in law."""
    log_norm = results[name]["log_norm"]
    slack = 0.0 if "Equinox" in name else KS
    mean, variance, _ = summaries.estimate(log_norm[np.isfinite(log_norm)])
    if name.startswith("Flax NNX"):
        law = exact.law(ensemble(name))
        expected = law.mean + shift(name)
        rows = [
            _check.agree(name, "mean", *mean, expected, TRUNCATION / 2),
            _check.agree(name, "variance", *variance, law.variance, TRUNCATION),
        ]
    else:
        law = laws.empirical(_matching(results, name))
        rows = [
            _check.show(name, "mean", *mean),
            _check.show(name, "variance", *variance),
        ]
    same = laws.compare(log_norm - shift(name), law, slack)
    return [*rows, _check.distance(name, "KS to its law", same, slack)]


def _matching(results, name: str) -> np.ndarray:
    """Return log_norms of what a model is equal to, in its own convention, fan in."""
    if "Equinox" in name:
        return results["uniform"]["log_norm"]
    return results["conv"]["log_norm"] + np.log(CHANNELS[-1] / CHANNELS[0])


def draw(results):
    """Draw the laws of the log-norms over their theory, and the mean of each layer."""
    figure, axes = _figure.grid([["law", "layers"]], (13, 5))
    for name, color in zip(MODELS, _figure.PALETTE, strict=False):
        if name in results:
            _draw_law(axes["law"], name, results, color)
            _draw_layers(axes["layers"], name, results[name]["layers"], color)
    axes["law"].set(
        title="probes (filled), exact laws (lines)",
        xlabel="log of the squared norm, ln ‖Ju‖²",
        ylabel="density",
    )
    axes["layers"].set(
        title="where it goes: means of ln R, summed",
        xlabel="number of the layer",
        ylabel="Σ E ln R up to the layer (± 2 s.e.)",
    )
    for axis in axes.values():
        axis.legend()
    return figure


def _draw_law(axis, name, results, color):
    """Draw the density of a model's log-norms, and that of what it is equal to."""
    log_norm = results[name]["log_norm"]
    alive = log_norm[np.isfinite(log_norm)]
    edges = np.linspace(*np.quantile(alive, [0.001, 0.999]), 50)
    style = {"density": True, "color": color, "alpha": 0.35}
    label = f"{name}: {results[name]['verdict']}"
    axis.hist(log_norm, edges, label=label, **style)

    if name.startswith("Flax NNX"):
        x = (edges[1:] + edges[:-1]) / 2
        axis.plot(x, exact.law(ensemble(name)).pdf(x - shift(name)), color=color)
    else:
        same = _matching(results, name) + shift(name)
        density, _ = np.histogram(same, edges, density=True)
        axis.stairs(density, edges, color=color)


def _draw_layers(axis, name, layers, color):
    """Draw the mean log-norm up to each layer."""
    mean, error = layers
    place = np.arange(1, len(mean) + 1)
    style = {"fmt": "o-", "ms": 4, "color": color, "capsize": 2, "label": name}
    axis.errorbar(place, np.cumsum(mean), 2 * error, **style)
