"""Networks with batch normalisation: a layer acts on a batch of inputs together."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lognorm_jax import activations, weights
from lognorm_jax._tools import bound, checks
from lognorm_jax.networks import _layers, _network


def batch_normalised(
    widths: Sequence[int],
    batch: int,
    activation: str | activations.Activation = "relu",
    *,
    epsilon: float = 1e-5,
    weight_law: weights.Weights | None = None,
) -> _network.Network:
    """Return a fully connected network with batch normalisation, X ↦ φ(N(X Wᵀ)).

    X (batch, n) is a batch of inputs; N takes from each unit its mean over the batch
    and divides by its standard deviation, as while training, with scale 1 and shift 0
    as at initialisation. Neither biases nor the variance of the weights matter, but for
    epsilon. Gradients explode: wide ReLU networks with large batches multiply their
    squared norm by π/(π − 1) ≈ 1.467 a layer (Yang et al. 2019). No limit law is known.

    Args:
        widths: (n_0, …, n_d), integers ≥ 1.
        batch: how many inputs, an integer ≥ 2.
        activation: an ``activations.Activation`` or its name.
        epsilon: in (0, 1], added to the variance of a unit, of weights of variance
            1/n_{i−1}.
        weight_law: default normal.

    Returns:
        A network on batches (batch, n_0), without a law; trained parameters of one
        layer are {"weights": {"weight": (n_i, n_{i−1}), "bias": (n_i,)}}, biases 0.

    Raises:
        ValueError: for arguments outside of these.

    Source:
        Yang et al., "A mean field theory of batch normalization" (2019).
    """
    sizes = _layers.checked_widths(widths)
    batch = checks.integer("batch", batch, 2)
    phi = activations.named(activation)
    epsilon = checks.number("epsilon", epsilon, "(0, 1]")
    function = bound.Bound(_normalised, (), (bound.bound(phi.apply), epsilon))

    @functools.cache
    def kind(n_in, n_out):
        matrix = _layers.linear(n_in, n_out, weight_law=weight_law)
        return _layers.layer(function, {"weights": matrix})

    return _network.Network(
        name=f"{phi.name} network, normalised over batches of {batch}",
        shape=(batch, sizes[0]),
        kinds=tuple(itertools.starmap(kind, itertools.pairwise(sizes))),
        homogeneous=False,
    )


def _normalised(phi, epsilon, maps, X):
    Z = maps["weights"](X)
    Z = Z - jnp.mean(Z, axis=0, keepdims=True)
    variance = jnp.mean(Z * Z, axis=0, keepdims=True)
    return phi(Z * jax.lax.rsqrt(variance + epsilon))
