"""Circular convolutional networks."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax

from lognorm_jax import activations, weights
from lognorm_jax._tools import bound
from lognorm_jax.networks import _layers, _network
from lognorm_jax.theory import convolutions


def conv(
    channels: Sequence[int],
    positions: Sequence[int],
    taps: int | Sequence[int] = 3,
    activation: str | activations.Activation = "relu",
    bias_scale: float | jax.Array = 0.0,
    *,
    weight_law: weights.Weights | None = None,
) -> _network.Network:
    """Return a convolutional network x ↦ φ(W * x + b) with stride 1.

    Inputs are images (channels, *positions). No limit law is known;
    ``convolutions.predictable_variance`` gives the variance of a layer, given what
    reaches it. Weights have variance gain/(k c_i), k the number of all taps, so that a
    ReLU keeps the squared norm in mean.

    Args:
        channels: (c_0, …, c_L), integers ≥ 1.
        positions: (s,) on a circle, or (height, width) on a torus.
        taps: how many along each axis, one number or one per axis; no more than there
            are positions.
        activation: an ``activations.Activation`` or its name.
        bias_scale: standard deviation ≥ 0 of the normal biases; may be traced.
        weight_law: default normal.

    Returns:
        A network, without a law; trained parameters of one layer are {"weight": (c_i,
        c_{i−1}, k), "bias": (c_i,)}, and none are fixed.

    Raises:
        ValueError: for arguments outside of these.

    Source:
        The setting of theory section 7.
    """
    channels, positions, taps = convolutions.geometry(channels, positions, taps)
    phi = activations.named(activation)
    biases = _layers.checked_biases(bias_scale)
    weight_law = _layers.checked_law(weight_law)

    @functools.cache
    def kind(c_in, c_out):
        return _layer(c_in, c_out, taps, phi, biases, weight_law)

    return _network.Network(
        name=f"{phi.name} conv, {' × '.join(map(str, taps))} taps",
        shape=(channels[0], *positions),
        kinds=tuple(itertools.starmap(kind, itertools.pairwise(channels))),
        homogeneous=biases is None and phi.homogeneous,
    )


def _layer(
    c_in: int,
    c_out: int,
    taps: tuple[int, ...],
    activation: activations.Activation,
    bias_scale: float | jax.Array | None,
    weight_law: weights.Weights,
) -> _layers.Layer:
    """Return the layer x ↦ φ(W * x + b), x (c_in, *positions)."""
    count = math.prod(taps)
    std = (activation.gain / (count * c_out)) ** 0.5
    weight = _layers.Map(
        shape=(c_out, c_in * count),
        std=std,
        weights=weight_law,
        bias_scale=bias_scale,
        stored=(c_out, c_in, count),
    )
    function = bound.Bound(_convolved, (taps,), (bound.bound(activation.apply),))
    return _layers.Layer(function, (weight,))


def _convolved(
    taps: tuple[int, ...],
    phi: Callable[[jax.Array], jax.Array],
    maps: _layers.Maps,
    fixed: None,
    x: jax.Array,
) -> jax.Array:
    """Return φ(W * x + b), x (c_in, *positions)."""
    del fixed
    z = maps[""](convolutions.patches(x, taps).T).T
    return phi(z).reshape(len(z), *x.shape[1:])
