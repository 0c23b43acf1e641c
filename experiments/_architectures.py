"""Architectures of equal widths, and what theory says of the variance of each."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from experiments import _units
from lognorm_jax import activations, exact, networks, weights

NODES, BATCH, TOKENS = 4, 8, 4
HEAD = 16  # width of a head of attention
LEAKY = activations.leaky_relu(0.2)
ORTHOGONAL = weights.orthogonal()
CRITICAL = {"gain": 1.98305826, "bias_scale": 0.17292239**0.5}  # of GELU
# with which activations of maxout keep their size: 1/E(max of K normals)²
LARGEST_GAIN = {2: 1.0, 3: 0.78391, 4: 0.64461}

# what each tap of a convolution on a ring sees; and their mean
STEPS = np.stack([np.roll(np.eye(NODES), step, axis=0) for step in (-1, 0, 1)])
RING = STEPS.mean(0)


class Case(NamedTuple):
    """An architecture, and what theory says of it."""

    network: Callable[[int, int], networks.Network]  # (width, depth) -> network
    # what a unit does, for theory to first order in 1/n
    unit: _units.Unit | None = None
    # (width, depth) -> the exact variance of ln ‖J u‖²
    exact: Callable[[int, int], float] | None = None
    limit: bool = False  # whether its limit law is known
    # relative, over the width: what theory to first order leaves out
    higher_orders: float = 8.0
    along: bool = False  # along its own input, u = x

    @property
    def known(self) -> bool:
        """Whether theory says anything of it."""
        return self.limit or any((self.unit, self.exact))


def _mlp(activation: str | activations.Activation, **options) -> Callable:
    return lambda n, d: networks.mlp((n,) * (d + 1), activation, **options)


def _masked(activation: str | activations.Activation) -> Case:
    """Return a network whose log-norm has an exact law, of equal layers."""
    network = _mlp(activation)
    law = functools.cache(lambda n: exact.law(network(n, 1).ensemble))
    return Case(network, exact=lambda n, d: d * law(n).variance)


def _pointwise(activation: str, orthogonal: bool = False, **options) -> Case:
    """Return a fully connected network without an exact law."""
    phi = activations.named(activation)
    law = {"weight_law": ORTHOGONAL} if orthogonal else {}
    scales = {"gain": phi.gain, **options}
    unit = _units.Unit(lambda z: phi.apply(z[0]), orthogonal=orthogonal, **scales)
    return Case(_mlp(activation, **scales, **law), unit)


def _orthogonal_relu(width: int, depth: int) -> float:
    """Return the exact variance of an orthogonal ReLU network.

    Of a uniform direction B ~ Bin(n, 1/2) coordinates are kept; what is left of its
    square is Beta(B/2, (n − B)/2). Without B = 0.
    """
    kept = np.arange(1, width + 1)
    share = stats.binom.pmf(kept, width, 0.5) / (1 - 0.5**width)
    mean = special.digamma(kept / 2)
    apart = share @ (mean - share @ mean) ** 2
    within = share @ special.polygamma(1, kept / 2) - special.polygamma(1, width / 2)
    return depth * float(apart + within)


def _maxout(pieces: int) -> Case:
    """Return a maxout network along its input; for two pieces that of a linear one."""
    gain = LARGEST_GAIN[pieces]
    unit = _units.Unit(lambda z: jnp.max(z, axis=0), gain, pieces=pieces)
    return Case(
        lambda n, d: networks.maxout((n,) * (d + 1), pieces, gain=gain),
        unit if pieces > 2 else None,
        _masked("linear").exact if pieces == 2 else None,
        along=True,
    )


def _residual(kind: str, along: bool = False) -> Case:
    """Return a residual network with α = λ = 1/√2."""
    return Case(
        lambda n, d: networks.residual(n, d, kind),
        limit=True,
        along=along,
    )


def _graph() -> Case:
    """Return a ReLU graph network on a ring."""
    relu = _units.Unit(lambda z: jax.nn.relu(z[0]), 2.0, mixing=RING[None])
    return Case(lambda n, d: networks.graph(RING, (n,) * (d + 1)), relu)


def _convolution() -> Case:
    """Return a ReLU convolution with three taps on a ring; n counts channels."""
    relu = _units.Unit(lambda z: jax.nn.relu(z[0]), 2.0, mixing=STEPS / 3**0.5)
    return Case(lambda n, d: networks.conv((n,) * (d + 1), (NODES,), 3), relu)


def _batch_norm() -> Case:
    """Return a ReLU network with batch normalisation."""

    def normalised(z):
        z = z[0] - jnp.mean(z[0])
        return jax.nn.relu(z * jax.lax.rsqrt(jnp.mean(z * z) + 1e-5))

    return Case(
        lambda n, d: networks.batch_normalised((n,) * (d + 1), BATCH),
        _units.Unit(normalised),
    )


def _transformer(**options) -> Case:
    """Return transformers of so many layers, two a block."""
    return Case(
        lambda n, d: networks.transformer(
            n, d // 2, n // HEAD, TOKENS, init="lecun", **options
        )
    )


def _lstm() -> Case:
    """Return LSTM cells one after another, each with weights of its own."""

    def cell(maps, state):  # (2, n): of the cell, and hidden
        kept, hidden = state
        i, f, o, g = jnp.split(maps["gates"](hidden), 4)
        kept = jax.nn.sigmoid(f + 1) * kept + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jnp.stack([kept, jax.nn.sigmoid(o) * jnp.tanh(kept)])

    def network(n, d):
        layer = networks.layer(cell, {"gates": networks.linear(n, 4 * n)})
        return networks.network((2, n), [layer] * d)

    return Case(network)


CASES = {
    "linear": _masked("linear"),
    "ReLU": _masked("relu"),
    "leaky ReLU, slope 0.2": _masked(LEAKY),
    "ReLU, orthogonal": Case(
        _mlp("relu", weight_law=ORTHOGONAL), exact=_orthogonal_relu
    ),
    "tanh, gain 1": _pointwise("tanh"),
    "tanh, orthogonal": _pointwise("tanh", orthogonal=True),
    # its activations drift from their fixed point, and fast
    "GELU, critical": _pointwise("gelu", **CRITICAL)._replace(higher_orders=30),
    "maxout of 2": _maxout(2),
    "maxout of 3": _maxout(3),
    "maxout of 4": _maxout(4),
    "residual, balanced": _residual("balanced"),
    "residual, vanilla": _residual("vanilla", along=True),
    "convolution, 4 positions": _convolution(),
    "graph, ring of 4 nodes": _graph(),
    "batch norm, 8 inputs": _batch_norm(),
    "LSTM cells": _lstm(),
    "transformer, post-norm": _transformer(norm="post", residual="plain"),
    "transformer, pre-norm": _transformer(residual="plain"),
    "transformer, GPT-2's scale": _transformer(),
}
