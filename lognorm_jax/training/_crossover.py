"""When training without matrices is less work than with them."""

import math

import jax
import jax.numpy as jnp

from lognorm_jax import networks
from lognorm_jax.training import _undrawn_layers

# what training of drawn weights keeps of them at once: weights, gradients, updates
_COPIES = 4


def pays(network: networks.Network, batch: int, num_steps: int) -> bool:
    """Return whether training without matrices is less work.

    Either way a step reads all that is kept a number of times, and little else: the
    weights, or what the matrices met. On CPUs both take the same time where these are
    about as many numbers, as measured (experiments.crossover). GPUs read weights so
    much faster than they start the small products of the other way that there it pays
    only where weights do not fit.

    Args:
        network: one that can be trained without its matrices.
        batch: how many inputs a step has.
        num_steps: how many steps there are.
    """
    weights, met = numbers(network, batch, num_steps)
    if jax.default_backend() == "gpu":
        known = jax.local_devices()[0].memory_stats() or {}
        bytes_a_number = jnp.dtype(jnp.result_type(float)).itemsize
        limit = known.get("bytes_limit", math.inf)
        return _COPIES * weights * bytes_a_number > limit
    return met < weights


def numbers(network: networks.Network, batch: int, num_steps: int) -> tuple[int, int]:
    """Return how many weights there are, and how many numbers are kept without them.

    Args:
        network: any.
        batch: how many inputs a step has.
        num_steps: how many steps there are.
    """
    weights, met = 0, 0
    counts = _undrawn_layers.counts(network)
    for kind, each in zip(network.kinds, counts, strict=True):
        for one, count in zip(kind.maps, each, strict=True):
            weights += math.prod(one.shape)
            # ahead with probe and tangent, and back: directions, and their images
            both = 2 * max(one.shape) if one.weights.orthogonal else sum(one.shape)
            met += count * num_steps * (2 * batch + 2) * both
    return weights, met
