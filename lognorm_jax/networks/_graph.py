"""Graph networks: nodes are mixed by a fixed matrix, then features by a random one."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import activations, weights
from lognorm_jax._tools import bound, checks
from lognorm_jax.networks import _layers, _network


def graph(
    aggregation: jax.typing.ArrayLike,
    widths: Sequence[int],
    activation: str | activations.Activation = "relu",
    bias_scale: float | jax.Array = 0.0,
    *,
    weight_law: weights.Weights | None = None,
) -> _network.Network:
    """Return a graph convolutional network X ↦ φ(A X Wᵀ + b), X (nodes, n).

    Nodes share the weights, as positions of a convolution do, so what a layer does to
    the norm depends on how alike the nodes are, and the more layers the more alike they
    become. No limit law is known. Weights have variance gain/n_i, so that a ReLU keeps
    the squared norm of A X in mean.

    Args:
        aggregation: A (nodes, nodes), finite, such as the adjacency of the graph with
            loops, normalised.
        widths: (n_0, …, n_d) features of a node, integers ≥ 1.
        activation: an ``activations.Activation`` or its name.
        bias_scale: standard deviation ≥ 0 of the normal biases; may be traced.
        weight_law: default normal.

    Returns:
        A network on (nodes, n_0), without a law; trained parameters of one layer are
        {"weights": {"weight": (n_i, n_{i−1}), "bias": (n_i,)}}.

    Raises:
        ValueError: for arguments outside of these.

    Source:
        layers of Kipf & Welling (2017).
    """
    A = checks.vector("aggregation", aggregation, None, zero=True)
    square = np.ndim(A) == 2 and A.shape[0] == A.shape[1] > 0
    checks.require(square, "aggregation.shape", np.shape(A), "(nodes, nodes)")
    sizes = _layers.checked_widths(widths)
    phi = activations.named(activation)
    function = bound.Bound(_mixed, (), (bound.bound(phi.apply), A))

    @functools.cache
    def kind(n_in, n_out):
        std = (phi.gain / n_out) ** 0.5
        matrix = _layers.linear(n_in, n_out, std, bias_scale, weight_law)
        return _layers.layer(function, {"weights": matrix})

    kinds = tuple(itertools.starmap(kind, itertools.pairwise(sizes)))
    plain = kinds[0].maps[0].bias_scale is None
    return _network.Network(
        name=f"{phi.name} graph network, {len(A)} nodes",
        shape=(len(A), sizes[0]),
        kinds=kinds,
        homogeneous=plain and phi.homogeneous,
    )


def _mixed(phi, A, maps, X):
    mixed = jnp.matmul(jnp.asarray(A, X.dtype), X, precision="highest")
    return phi(maps["weights"](mixed))
