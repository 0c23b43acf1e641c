"""Layers with one random matrix: how to draw their parameters, and how to apply them.

A layer is x ↦ after(x, W before(x) + b). Said so, the same layer can be applied with
its matrix, or followed without it: for normal weights W before(x) is normal given
before(x).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lognorm_jax import masks, weights
from lognorm_jax._tools import checks
from lognorm_jax.networks import _params


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A kind of layer: how to draw its parameters, and how to apply it. Equal only to
    itself.
    """

    init: Callable[[jax.Array], _params.Params]  # key -> params
    # (params, x) -> x
    apply: Callable[[_params.Params, jax.Array], jax.Array]
    # what is inside, where that is one matrix of weights
    matrix: "Matrix | None" = None


@dataclasses.dataclass(frozen=True, eq=False)
class Matrix:
    """The inside of a layer x ↦ after(x, W before(x) + b), W of iid weights and b
    normal.
    """

    shape: tuple[int, int]  # of W: (n_out, n_in)
    std: Any  # standard deviation of a weight: a number, or a traced one
    weights: weights.Weights  # their law, standardised
    bias_scale: Any  # standard deviation of a bias: a number, or a traced one
    # (fixed, x) -> what W multiplies, (n_in,)
    before: Callable[[Any, jax.Array], jax.Array]
    # (fixed, x, W before + b) -> x
    after: Callable[[Any, jax.Array, jax.Array], jax.Array]
    # key -> what else is drawn: signs, dropout
    fixed: Callable[[jax.Array], Any] | None = None

    @property
    def has_biases(self) -> bool:
        """Whether biases may differ from 0."""
        return not unbiased(self.bias_scale)

    def keys(self, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the keys of the weights, the biases, and of what else is drawn."""
        return *jax.random.split(key), jax.random.fold_in(key, 2)

    def biases(self, key: jax.Array) -> jax.Array:
        """Return the biases, (n_out,), from their key."""
        dtype = jnp.result_type(float)
        return self.bias_scale * jax.random.normal(key, self.shape[:1], dtype)


def layer(matrix: Matrix) -> Layer:
    """Return the layer with this inside.

    Its parameters: trained {"weight": (n_out, n_in), "bias": (n_out,)}, and fixed what
    ``matrix.fixed`` draws.
    """

    def init(key):
        key_weight, key_bias, key_fixed = matrix.keys(key)
        W = matrix.weights.sample(key_weight, matrix.shape, jnp.result_type(float))
        trained = {"weight": matrix.std * W, "bias": matrix.biases(key_bias)}
        fixed = matrix.fixed(key_fixed) if matrix.fixed else None
        return _params.Params(trained, fixed)

    def apply(params, x):
        W, b = params.trained["weight"], params.trained["bias"]
        before = matrix.before(params.fixed, x)
        product = jnp.dot(W, before, precision="highest")
        return matrix.after(params.fixed, x, product + b)

    return Layer(init, apply, matrix)


def signs(width: int) -> Callable[[jax.Array], jax.Array]:
    """Return key -> (width,) random signs, ±1."""
    return lambda key: weights.rademacher().sample(
        key, (width,), jnp.result_type(float)
    )


def kept(keep_prob: float, width: int) -> Callable[[jax.Array], jax.Array]:
    """Return key -> (width,) entries 1 with probability keep_prob, else 0."""
    mask = masks.bernoulli(keep_prob)
    return lambda key: mask.sample(key, (width,), jnp.result_type(float))


def same(fixed: Any, x: jax.Array) -> jax.Array:
    """Return x: for a layer that applies its matrix to what reaches it."""
    del fixed
    return x


def bias_scale(value: Any) -> Any:
    """Return a standard deviation of biases, a number in [0, 1e30]; or one that is
    traced.
    """
    return checks.scale("bias_scale", value, 0, 1e30)


def unbiased(bias_scale: Any) -> bool:
    """Return whether there are no biases for certain."""
    return not checks.traced(bias_scale) and bias_scale == 0
