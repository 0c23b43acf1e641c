"""Recurrent networks: one matrix, used at every step."""

import jax

from lognorm_jax import activations, weights
from lognorm_jax._tools import bound, checks
from lognorm_jax.networks import _layers, _network

NAME = "recurrent"


def recurrent(
    width: int,
    steps: int,
    activation: str | activations.Activation = "tanh",
    bias_scale: float | jax.Array = 0.0,
    *,
    weight_law: weights.Weights | None = None,
    gain: float | jax.Array | None = None,
) -> _network.Network:
    """Return a recurrent network h ↦ φ(W h + b) with the same W and b at every step.

    Each step is a layer, so increments are those of back-propagation through time. No
    limit law is known: with one matrix the increments of different steps depend on one
    another, and their variances do not add up as for independent matrices.

    Args:
        width: n, an integer ≥ 1.
        steps: how often, an integer ≥ 1.
        activation: an ``activations.Activation`` or its name.
        bias_scale: standard deviation ≥ 0 of the normal biases; may be traced.
        weight_law: default normal.
        gain: a weight has variance gain/width, gain in [1e-30, 1e30]; that of the
            activation unless given; may be traced.

    Returns:
        A network, without a law; each layer's trained parameters hold a copy of the
        same {"recurrent": {"weight": (n, n), "bias": (n,)}}.

    Raises:
        ValueError: for arguments outside of these.
    """
    width = checks.integer("width", width, 1)
    steps = checks.integer("steps", steps, 1)
    phi = activations.named(activation)
    gain = phi.gain if gain is None else activations.gain(gain)
    std = (gain / width) ** 0.5
    matrix = _layers.linear(width, width, std, bias_scale, weight_law, tied=NAME)
    function = bound.Bound(_step, (), (bound.bound(phi.apply),))
    return _network.Network(
        name=f"{phi.name} recurrent",
        shape=(width,),
        kinds=(_layers.layer(function, {NAME: matrix}),) * steps,
        homogeneous=matrix.bias_scale is None and phi.homogeneous,
    )


def _step(phi, maps, h):
    return phi(maps[NAME](h))
