"""Initialisation mistakes that were made in public code, each beside its corrected
form.

Each is rebuilt in a few lines of JAX from the thread that is cited; the sizes are ours.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen
from jax.nn import initializers

from lognorm_jax import declarations

Model = Callable[[jax.Array], Any]
CUT_OFF = declarations.CUT_OFF
# fans of what is drawn: 64 in, 96 out; of convolutions 16 in, 32 out, 3 × 3
IN, OUT = 64, 96
CONV = (32, 16, 3, 3)
CONV_OUT = 32 * 9
HE, LECUN = (2 / IN) ** 0.5, IN**-0.5
GLOROT = (2 / (IN + OUT)) ** 0.5
_BRACKETS = (2 / IN + OUT) ** 0.5


class Mistake(NamedTuple):
    """One mistake: what it was, where, and how both forms are made."""

    title: str
    source: str  # repository and thread
    wrong: Model
    right: Model
    declaration: Mapping[str, Any]
    words: str  # that the finding has to contain


def dense(*laws: Callable, shape: tuple[int, ...] = (OUT, IN)) -> Model:
    """Return key -> layers of weights (out, in, …), each drawn by law(key, shape)."""

    def model(key):
        keys = jax.random.split(key, len(laws))
        return [
            {"weight": law(one, shape)} for law, one in zip(laws, keys, strict=True)
        ]

    return model


def normal(std: float) -> Callable:
    """Return the normal law."""
    return lambda key, shape: std * jax.random.normal(key, shape)


def uniform(bound: float) -> Callable:
    """Return the uniform law on [−bound, bound]."""
    return lambda key, shape: jax.random.uniform(key, shape, float, -bound, bound)


def truncated(std: float) -> Callable:
    """Return a normal law of this sd, cut off at two of them."""
    return lambda key, shape: std * jax.random.truncated_normal(key, -2, 2, shape)


def constant(value: float) -> Callable:
    """Return one value for all entries."""
    return lambda key, shape: jnp.full(shape, value)


# a GPT-2-like stack: the last layers of residual branches have an sd of their own
BLOCKS = 12


def residual_stack(std: float) -> Model:
    """Return blocks with an inner matrix of sd 0.02, and c_proj of another."""

    def model(key):
        blocks = []
        for one in jax.random.split(key, BLOCKS):
            key_inner, key_last = jax.random.split(one)
            inner = {"weight": normal(0.02)(key_inner, (96, 32))}
            last = {"weight": normal(std)(key_last, (32, 96))}
            blocks.append({"c_fc": inner, "c_proj": last})
        return {"h": blocks}

    return model


def copied(law: Callable, copies: int) -> Model:
    """Return key -> layers that are copies of one that was drawn."""

    def model(key):
        layer = {"weight": law(key, (OUT, IN))}
        return [jax.tree.map(jnp.copy, layer) for _ in range(copies)]

    return model


def norm_and_matrix(scale: Callable, offset: Callable) -> Model:
    """Return a layer norm, and the matrix after it."""

    def model(key):
        keys = jax.random.split(key, 3)
        norm = {"weight": scale(keys[0], (64,)), "bias": offset(keys[1], (64,))}
        return {"norm": norm, "dense": {"weight": normal(0.02)(keys[2], (64, 64))}}

    return model


class KeyAsAttribute(linen.Module):
    """A module that draws its weights from a key that it was given when made."""

    key: jax.Array | None

    @linen.compact
    def __call__(self, x):
        draw = initializers.lecun_normal()
        if self.key is not None:
            draw = functools.partial(_of_key, draw, self.key)
        return x @ self.param("kernel", draw, (64, 48))


def _of_key(draw, key, _, shape):
    return draw(key, shape)


def linen_model(module: linen.Module) -> Model:
    """Return key -> variables of a module."""
    return lambda key: module.init(key, jnp.ones((1, 64)))


def experts(own_keys: bool) -> Model:
    """Return a batch of matrices, of one key or of a key for each."""

    def model(key):
        keys = jax.random.split(key, 4) if own_keys else jnp.stack([key] * 4)
        return {"kernel": jax.vmap(lambda one: normal(0.125)(one, (64, 32)))(keys)}

    return model


def one_seed(own_keys: bool) -> Model:
    """Return a stack of layers that are seeded alike, or each by its own key."""

    def model(key):
        keys = jax.random.split(key, 3) if own_keys else [key] * 3
        return [{"weight": normal(0.05)(one, (40, 40))} for one in keys]

    return model


MISTAKES = (
    Mistake(
        "residual projections are never scaled",
        "huggingface/transformers #47458",
        residual_stack(0.02),
        residual_stack(0.02 / math.sqrt(2 * BLOCKS)),
        {
            "*c_proj.weight": declarations.residual(declarations.normal(0.02), BLOCKS),
            "*": "normal:0.02",
        },
        "not scaled by 1/√(2L), L = 12",
    ),
    Mistake(
        "layer norms are drawn, not 1 and 0",
        "huggingface/transformers #143",
        norm_and_matrix(normal(0.02), normal(0.02)),
        norm_and_matrix(constant(1.0), constant(0.0)),
        {"norm.weight": "constant:1", "norm.bias": "constant:0", "*": "normal:0.02"},
        "declared constant 1",
    ),
    Mistake(
        "encoder layers are copies of one",
        "pytorch/pytorch #86274",
        copied(uniform(LECUN), 6),
        dense(*[uniform(LECUN)] * 6),
        {},
        "a copy of the layer",
    ),
    Mistake(
        "parameters are left as memory was",
        "openai/CLIP #15",
        dense(constant(0.0)),  # as fresh pages of memory are
        dense(normal(LECUN)),
        {"*": "fan_in:1"},
        "not initialised",
    ),
    Mistake(
        "one seed for all layers",
        "netket/netket #241",
        one_seed(own_keys=False),
        one_seed(own_keys=True),
        {},
        "one random key for both",
    ),
    Mistake(
        "the key is the module's, not that of init",
        "matthias-wright/flaxmodels #3",
        linen_model(KeyAsAttribute(jax.random.key(0))),
        linen_model(KeyAsAttribute(None)),
        {},
        "the same for all seeds",
    ),
    Mistake(
        "one key for all matrices of a batch",
        "google/flax #2665",
        experts(own_keys=False),
        experts(own_keys=True),
        {},
        "one random key for all",
    ),
    Mistake(
        "fans of a transposed convolution are swapped",
        "Lasagne/Lasagne #858",
        dense(normal((2 / CONV_OUT) ** 0.5), shape=CONV),
        dense(normal((2 / (16 * 9)) ** 0.5), shape=CONV),
        {"*": declarations.fan_in(2**0.5)},
        "that of fan-out, not fan-in",
    ),
    Mistake(
        "fan-out and ReLU's gain, declared fan-in and 1",
        "vballoli/nfnets-pytorch #30",
        dense(normal((2 / OUT) ** 0.5)),
        dense(normal(LECUN)),
        {"*": "fan_in:1"},
        "He's by fan-out",
    ),
    Mistake(
        "fan-out leaves out the kernel's size",
        "keras-team/keras #2252",
        dense(normal(32**-0.5), shape=CONV),
        dense(normal(CONV_OUT**-0.5), shape=CONV),
        {"*": "fan_out:1"},
        "fans leave out the kernel's size",
    ),
    Mistake(
        "a normal law is cut off and not rescaled",
        "keras-team/keras #8048",
        dense(truncated(LECUN)),
        dense(truncated(LECUN / CUT_OFF)),
        {"*": declarations.fan_in(1.0, "truncated normal")},
        "cut off at two sd, and not rescaled",
    ),
    Mistake(
        "an sd is taken for the bound of a uniform law",
        "keras-team/keras #372",
        dense(uniform(GLOROT)),
        dense(uniform(3**0.5 * GLOROT)),
        {"*": declarations.fan_average(1.0, "uniform")},
        "√3 too small",
    ),
    Mistake(
        "He's is LeCun's",
        "LBANN/lbann #316",
        dense(normal(LECUN)),
        dense(normal(HE)),
        {"*": declarations.fan_in(2**0.5)},
        "the gain of ReLU is missing",
    ),
    Mistake(
        "a uniform initialiser is not uniform",
        "LBANN/lbann #316",
        dense(normal(HE)),
        dense(uniform(3**0.5 * HE)),
        {"*": declarations.fan_in(2**0.5, "uniform")},
        "it is normal",
    ),
    Mistake(
        "the variance is taken for the sd",
        "mlpack/mlpack #3651",
        dense(normal(GLOROT**2)),
        dense(normal(GLOROT)),
        {"*": "fan_average:1"},
        "the variance was taken for the sd",
    ),
    Mistake(
        "brackets: √(2/fan-in + fan-out)",
        "mlverse/torch #555",
        dense(normal(_BRACKETS)),
        dense(normal(GLOROT)),
        {"*": "fan_average:1"},
        "× as large",
    ),
    Mistake(
        "normal numbers of mean 0 are all 1",
        "sugarme/gotch #48",
        dense(constant(1.0)),
        dense(normal(1.0)),
        {},
        "all entries are 1",
    ),
    Mistake(
        "an embedding of sd 0.6, not 0.02",
        "lmsdss/LayerNorm-Scaling #6",
        lambda key: {"embedding": normal(0.6)(key, (500, 64))},
        lambda key: {"embedding": normal(0.02)(key, (500, 64))},
        {"*": "normal:0.02"},
        "× as large",
    ),
    Mistake(
        "√(3/(in + out)), declared Glorot's",
        "tflearn/tflearn #870",
        dense(normal((3 / (IN + OUT)) ** 0.5)),
        dense(normal(GLOROT)),
        {"*": "fan_average:1"},
        "× as large",
    ),
)
