"""Layers of several matrices a unit: maxout, and gated linear units."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from lognorm_jax import activations, laws, weights
from lognorm_jax._tools import bound, checks, norms
from lognorm_jax.networks import _layers, _network


def maxout(
    widths: Sequence[int],
    pieces: int = 2,
    bias_scale: float | jax.Array = 0.0,
    *,
    gain: float | jax.Array = 1.0,
    weight_law: weights.Weights | None = None,
) -> _network.Network:
    """Return a maxout network x ↦ max_k (W_k x + b_k), the maximum unit by unit.

    Without biases the norm of the output itself, which is that of the Jacobian along
    its input, has a limit law: of normal weights R is a mean of n independent max_k
    z_k², so v = (E max⁴/(E max²)² − 1)β: 2β for two pieces, 1.5776β for three, 1.2393β
    for four. For two the law is exactly that of the deep linear network: max(a, b)² has
    that of one normal number squared. ``gain`` 1/E max², 1, 0.7839, 0.6446, …, keeps
    the mean of the square.

    Args:
        widths: (n_0, …, n_d), integers ≥ 1.
        pieces: K, an integer ≥ 1; 1 is a linear network.
        bias_scale: standard deviation ≥ 0 of the normal biases; may be traced.
        gain: a weight has variance gain/n_i, gain in [1e-30, 1e30]; may be traced.
        weight_law: default normal.

    Returns:
        A network; trained parameters of one layer are {"weights": {"weight": (K n_i,
        n_{i−1}), "bias": (K n_i,)}}. It has a law for normal weights without biases and
        a gain that is known.

    Raises:
        ValueError: for arguments outside of these.

    Source:
        Goodfellow et al. (2013); the law is derived in theory section 13, and held
        against simulation in tests/test_architectures.py.
    """
    pieces = checks.integer("pieces", pieces, 1)
    gain = activations.gain(gain)
    function = bound.Bound(_largest, (pieces,))
    network = _of_one_matrix(
        f"maxout of {pieces}", widths, pieces, function, gain, bias_scale, weight_law
    )
    (weight,) = network.kinds[0].maps
    known = weight.bias_scale is None and weight.weights.gaussian
    if not known or checks.traced(gain):
        return network
    sizes = _layers.checked_widths(widths)
    law = functools.partial(_maxout_law, sizes, pieces, float(gain))
    return dataclasses.replace(network, law=law)


def _maxout_law(
    sizes: tuple[int, ...], pieces: int, gain: float, x: Any, tangent: Any
) -> laws.Law:
    """Return the limit law along an input, of any direction for two pieces."""
    if tangent is not None and pieces > 2:
        given = x is not None
        along = given and abs(np.dot(norms.unit(x), norms.unit(tangent))) > 1 - 1e-6
        instead = "Sample other directions with paths.gram."
        checks.require(bool(along), "tangent", tangent, "x itself", instead)
    square, fourth = _largest_moments(pieces)
    variance = (fourth / square**2 - 1) * sum(1 / n for n in sizes[1:])
    depth = len(sizes) - 1
    return laws.normal(depth * math.log(gain * square) - variance / 2, variance)


@functools.cache
def _largest_moments(pieces: int) -> tuple[float, float]:
    """Return E max² and E max⁴ of so many standard normal numbers."""
    nodes, weights_of = np.polynomial.legendre.leggauss(300)
    z = 12 * nodes
    density = pieces * scipy.stats.norm.pdf(z) * scipy.stats.norm.cdf(z) ** (pieces - 1)
    square, fourth = (12 * float(weights_of @ (density * z**k)) for k in (2, 4))
    return square, fourth


def _largest(pieces, maps, x):
    z = maps["weights"](x)
    z = z.reshape(*z.shape[:-1], pieces, -1)
    # by its place: the derivative of a maximum asks which entries are equal to it, and
    # z + b computed again, fused in another way, may not be
    place = jnp.argmax(z, axis=-2)[..., None, :]
    numbers = jnp.arange(pieces).reshape(*[1] * (z.ndim - 2), pieces, 1)
    return jnp.sum(jnp.where(numbers == place, z, jnp.zeros_like(z)), axis=-2)


def gated(
    widths: Sequence[int],
    gate: str | activations.Activation | None = None,
    bias_scale: float | jax.Array = 0.0,
    *,
    gain: float | jax.Array = 4.0,
    weight_law: weights.Weights | None = None,
) -> _network.Network:
    """Return a network of gated linear units x ↦ (W x + b) ⊙ φ(V x + c).

    No limit law is known.

    Args:
        widths: (n_0, …, n_d), integers ≥ 1.
        gate: φ, an ``activations.Activation`` or its name; None for the sigmoid.
        bias_scale: standard deviation ≥ 0 of the normal biases; may be traced.
        gain: a weight has variance gain/n_i, gain in [1e-30, 1e30]; may be traced. At 4
            a small signal is neither lost nor blown up by the sigmoid, which is 1/2
            there.
        weight_law: default normal.

    Returns:
        A network, without a law; trained parameters of one layer are {"weights":
        {"weight": (2 n_i, n_{i−1}), "bias": (2 n_i,)}}, the rows of W before those
        of V.

    Raises:
        ValueError: for arguments outside of these.

    Source:
        Dauphin et al. (2017).
    """
    phi = _SIGMOID if gate is None else activations.named(gate)
    gain = activations.gain(gain)
    function = bound.Bound(_gated, (), (bound.bound(phi.apply),))
    return _of_one_matrix(
        f"{phi.name} gated", widths, 2, function, gain, bias_scale, weight_law
    )


def _gated(phi, maps, x):
    linear, gate = jnp.split(maps["weights"](x), 2, axis=-1)
    return linear * phi(gate)


def _sigmoid(z):
    return jax.nn.sigmoid(z)


_SIGMOID = activations.Activation("sigmoid", _sigmoid)


def _of_one_matrix(
    name: str,
    widths: Sequence[int],
    times: int,
    function: bound.Bound,
    gain: float | jax.Array,
    bias_scale: float | jax.Array,
    weight_law: weights.Weights | None,
) -> _network.Network:
    """Return a network of layers with one matrix of ``times`` as many rows as units."""
    sizes = _layers.checked_widths(widths)

    @functools.cache
    def kind(n_in, n_out):
        std = (gain / n_out) ** 0.5
        matrix = _layers.linear(n_in, times * n_out, std, bias_scale, weight_law)
        return _layers.layer(function, {"weights": matrix})

    kinds = tuple(itertools.starmap(kind, itertools.pairwise(sizes)))
    homogeneous = function.function is _largest and kinds[0].maps[0].bias_scale is None
    return _network.Network(name, sizes[:1], kinds, homogeneous)
