"""Forty architectures that are initialised as they declare, of Flax, Equinox and
``jax.nn.initializers``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox
import jax
import jax.numpy as jnp
from flax import linen, nnx
from jax.nn import initializers

from lognorm_jax import declarations, ready

Model = Callable[[jax.Array], Any]
FLAX, EQUINOX = ready.ready("flax"), ready.ready("equinox")
SHAPES = {"small": (4, 3), "dense": (96, 64), "convolution": (3, 3, 16, 32)}


class Healthy(NamedTuple):
    """An architecture, and what is declared of it."""

    name: str
    model: Model
    declaration: Mapping[str, Any]


def _drawn(draw: Callable, shape: tuple[int, ...]) -> Model:
    """Return key -> three layers of kernels (…, in, out) that an initialiser draws."""

    def model(key):
        keys = jax.random.split(key, 3)
        return [{"kernel": draw(one, shape), "bias": jnp.zeros(3)} for one in keys]

    return model


def _by_initialiser() -> list[Healthy]:
    """Return layers of each initialiser and shape."""
    named = {
        "he normal": (initializers.he_normal(), "fan_in:1.414213562:truncated_normal"),
        "he uniform": (initializers.he_uniform(), "fan_in:1.414213562:uniform"),
        "lecun normal": (initializers.lecun_normal(), "fan_in:1:truncated_normal"),
        "lecun uniform": (initializers.lecun_uniform(), "fan_in:1:uniform"),
        "glorot normal": (
            initializers.glorot_normal(),
            "fan_average:1:truncated_normal",
        ),
        "glorot uniform": (initializers.glorot_uniform(), "fan_average:1:uniform"),
        "normal": (initializers.normal(0.02), "normal:0.02"),
        "by fan-out": (
            initializers.variance_scaling(2.0, "fan_out", "normal"),
            "fan_out:1.414213562",
        ),
    }
    return [
        Healthy(
            f"{name}, {shape}",
            _drawn(draw, SHAPES[shape]),
            {"*bias": "constant:0", "*kernel": law},
        )
        for name, (draw, law) in named.items()
        for shape in SHAPES
    ]


def _nnx(make: Callable[[nnx.Rngs], Any]) -> Model:
    """Return key -> a module of Flax NNX."""
    return lambda key: make(nnx.Rngs(key))


def _of_flax() -> list[Healthy]:
    """Return modules of Flax."""
    tokens = jnp.zeros((1, 5, 32))
    attention = linen.MultiHeadDotProductAttention(4)
    # kernels (in, heads, features of a head)
    heads = {
        "*out.kernel": declarations.truncated_normal(32**-0.5),
        "*kernel": declarations.truncated_normal(32**-0.5),
        "*bias": "constant:0",
    }
    return [
        Healthy("NNX dense", _nnx(lambda r: nnx.Linear(80, 50, rngs=r)), FLAX),
        Healthy("NNX narrow", _nnx(lambda r: nnx.Linear(3, 2, rngs=r)), FLAX),
        Healthy("NNX convolution", _nnx(lambda r: nnx.Conv(8, 9, (3,), rngs=r)), FLAX),
        Healthy(
            "NNX norms",
            _nnx(
                lambda r: nnx.List([nnx.LayerNorm(9, rngs=r), nnx.BatchNorm(9, rngs=r)])
            ),
            FLAX,
        ),
        Healthy("NNX gated recurrent", _nnx(lambda r: nnx.GRUCell(20, 30, rngs=r)), {}),
        Healthy(
            "NNX long short-term memory",
            _nnx(lambda r: nnx.OptimizedLSTMCell(20, 30, rngs=r)),
            {},
        ),
        Healthy(
            "Linen attention", lambda key: attention.init(key, tokens, tokens), heads
        ),
        Healthy(
            "Linen recurrent",
            lambda key: linen.GRUCell(24).init(
                key, jnp.zeros((1, 24)), jnp.zeros((1, 16))
            ),
            {},
        ),
    ]


def _of_equinox() -> list[Healthy]:
    """Return modules of Equinox."""
    nn = equinox.nn
    return [
        Healthy("Equinox MLP", lambda key: nn.MLP(30, 5, 40, 4, key=key), EQUINOX),
        Healthy("Equinox narrow", lambda key: nn.MLP(2, 1, 3, 6, key=key), EQUINOX),
        Healthy("Equinox 1-d", lambda key: nn.Conv1d(6, 7, 5, key=key), EQUINOX),
        Healthy("Equinox 2-d", lambda key: nn.Conv2d(6, 7, 3, key=key), EQUINOX),
        Healthy(
            "Equinox attention",
            lambda key: nn.MultiheadAttention(4, 32, key=key),
            EQUINOX,
        ),
        Healthy("Equinox recurrent", lambda key: nn.GRUCell(12, 20, key=key), {}),
        Healthy("Equinox memory", lambda key: nn.LSTMCell(12, 20, key=key), {}),
        Healthy(
            "Equinox embedding",
            lambda key: nn.Embedding(300, 16, key=key),
            {"*weight": "normal:1"},
        ),
    ]


HEALTHY = (*_by_initialiser(), *_of_flax(), *_of_equinox())
