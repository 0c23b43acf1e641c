"""Circular convolutional networks."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lognorm_jax import activations, weights
from lognorm_jax._tools import checks
from lognorm_jax.networks import _layers, _network, _params
from lognorm_jax.theory import convolutions


def conv(
    channels: Sequence[int],
    positions: Sequence[int],
    taps: Any = 3,
    activation: Any = "relu",
    bias_scale: Any = 0.0,
    *,
    weight_law: weights.Weights | None = None,
) -> _network.Network:
    """Return a convolutional network x ↦ φ(W * x + b) on images (channels, *positions),
    stride 1.

    channels: (c_0, …, c_L). positions: (s,) on a circle, or (height, width) on a torus.
    taps: how many along each axis, a number or one each, no more than there are
    positions. Weights have variance gain/(k c_i), k all taps together, so that a ReLU
    keeps the squared norm in mean.

    Trained parameters of one layer: {"weight": (c_i, c_{i−1}, k), "bias": (c_i,)}. No limit law
    is known; ``convolutions.predictable_variance`` gives that of a layer, given what
    reaches it.
    """
    channels, positions, each = convolutions.geometry(channels, positions, taps)
    phi, bias_scale = activations.named(activation), _layers.bias_scale(bias_scale)
    weight_law = weights.normal() if weight_law is None else weight_law
    checks.instance("weight_law", weight_law, weights.Weights)
    shapes, rest = (
        list(itertools.pairwise(channels)),
        (each, phi, bias_scale, weight_law),
    )
    made = {shape: _layer(*shape, *rest) for shape in dict.fromkeys(shapes)}
    kinds = tuple(made[shape] for shape in shapes)
    places = math.prod(positions)
    footprint = max(
        math.prod(each) * c_in * max(c_out, places) for c_in, c_out in shapes
    )
    homogeneous = _layers.unbiased(bias_scale) and phi.homogeneous
    name = f"{phi.name} conv, {' × '.join(map(str, each))} taps"
    return _network.Network(
        name, (channels[0], *positions), kinds, footprint, homogeneous
    )


def _layer(
    c_in: int,
    c_out: int,
    taps: tuple[int, ...],
    activation: activations.Activation,
    bias_scale: Any,
    weight_law: weights.Weights,
) -> _layers.Layer:
    """Return the layer x ↦ φ(W * x + b), x (c_in, *positions); parameters as
    ``networks.conv``.
    """
    count = math.prod(taps)
    std = (activation.gain / (count * c_out)) ** 0.5

    def init(key):
        dtype = jnp.result_type(float)
        key_weight, key_bias = jax.random.split(key)
        W = std * weight_law.sample(key_weight, (c_out, c_in * count), dtype)
        b = bias_scale * jax.random.normal(key_bias, (c_out,), dtype)
        trained = {"weight": W.reshape(c_out, c_in, count), "bias": b}
        return _params.Params(trained, None)

    def apply(params, x):
        W = params.trained["weight"].reshape(c_out, -1)
        z = (
            jnp.matmul(W, convolutions.patches(x, taps), precision="highest")
            + params.trained["bias"][:, None]
        )
        return activation.apply(z).reshape(c_out, *x.shape[1:])

    return _layers.Layer(init, apply)
