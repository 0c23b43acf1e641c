"""Networks of activations without a law, sampled in law."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import scipy

from lognorm_jax import activations, networks, paths, sampling, weights
from lognorm_jax._tools import traces

SAMPLES = 1_000  # networks that are sampled
_WORK = 5 * 10**8  # coordinates, or weights, that these meet at most


class Found(NamedTuple):
    """A depth or a width, and the law that it was found by.

    Attributes:
        value: 0: none is stable; of depths ``LARGEST``: all are.
        source: "exact law", "limit law", or how many networks were sampled.
        interval: (low, high), 95%, where networks were sampled; else None.
    """

    value: int
    source: str
    interval: tuple[int, int] | None = None


def deepest(width: int, weight_law: weights.Weights | None = None) -> int:
    """Return the largest depth that is sampled at a width."""
    undrawn = weight_law is None or weight_law.gaussian or weight_law.orthogonal
    each = width * SAMPLES * (1 if undrawn else width / 4)
    return max(16, min(1_024, int(_WORK // each)))


def path(network: networks.Network, *, along: bool = False) -> traces.Path:
    """Return the path of a network at a fresh input and along a fresh tangent.

    Of standard normal coordinates; in law, where matrices need not be drawn.

    Args:
        network: on vectors.
        along: whether the tangent is the input.
    """
    return traces.Path(_fresh, (along,), (network.plain(),))


def _fresh(along: bool, network: networks.Network, key: jax.Array) -> traces.Trace:
    """Return the increments of one network at an input of its own."""
    key_input, key_tangent, key_network = jax.random.split(key, 3)
    x = jax.random.normal(key_input, network.shape)
    tangent = x if along else jax.random.normal(key_tangent, network.shape)
    make = paths.gram if network.undrawn else paths.jacobian
    return make(network, x, tangent)(key_network)


def sampled_depth(
    width: int,
    phi: activations.Activation,
    gain: float | None,
    weight_law: weights.Weights,
    factor: float,
    share: float,
    start: int = 128,
) -> Found:
    """Return the largest depth at which sampled networks are stable."""
    most = deepest(width, weight_law)
    deep = min(start, most)
    while True:
        met = log_norms(width, deep, phi, gain, weight_law)
        counts = np.sum(np.abs(met) > 2 * math.log(factor), axis=0)
        surely_unstable = [shares(count, SAMPLES)[0] > share for count in counts]
        if any(surely_unstable) or deep == most:
            break
        deep = min(4 * deep, most)
    surely_stable = [shares(count, SAMPLES)[2] <= share for count in counts]
    interval = _first(np.logical_not(surely_stable)), _first(surely_unstable)
    value = _first(counts > share * SAMPLES)
    return Found(value, f"{SAMPLES:,} sampled networks", interval)


@functools.lru_cache(maxsize=8)
def log_norms(
    width: int,
    depth: int,
    phi: activations.Activation,
    gain: float | None,
    weight_law: weights.Weights,
) -> np.ndarray:
    """Return the log-norms of sampled networks after each layer: (SAMPLES, depth)."""
    return np.cumsum(sampled(width, depth, phi, gain, weight_law), axis=1)


def _first(flags: Sequence[bool] | np.ndarray) -> int:
    """Return how many flags come before the first that is true."""
    return int(np.argmax([*flags, True]))


def shares(count: int, total: int) -> tuple[float, float, float]:
    """Return the lower end of the 95% interval of a share, it, and the upper end."""
    interval = scipy.stats.binomtest(int(count), total).proportion_ci(0.95, "exact")
    return float(interval.low), count / total, float(interval.high)


def sampled(
    width: int,
    depth: int,
    activation: str | activations.Activation = "relu",
    gain: float | None = None,
    weight_law: weights.Weights | None = None,
    *,
    num_samples: int = SAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Return ln R of a tangent, layer by layer, of networks in law.

    Each at an input and along a tangent of its own, of standard normal coordinates.

    Args:
        width: n ≥ 1.
        depth: d ≥ 1.
        activation: an ``activations.Activation`` or its name.
        gain: √(variance of a weight × fan-in), > 0; default that of ``networks.mlp``.
        weight_law: default normal.
        num_samples: how many networks, ≥ 1.
        seed: of the samples, an integer.

    Returns:
        The increments, (num_samples, depth), float64: −inf from where one is dead.

    Raises:
        ValueError: for what ``networks.mlp`` or ``sampling.sample`` refuse.
    """
    network = networks.mlp(
        (width,) * (depth + 1),
        activation,
        weight_law=weight_law,
        gain=None if gain is None else gain**2,
    )
    key = jax.random.key(seed)
    trace = sampling.sample(path(network), key, num_samples)
    return np.asarray(trace.increment, np.float64)
