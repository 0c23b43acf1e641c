"""Layers with one random matrix: how to draw their parameters, and how to apply them.

A layer is x ↦ after(x, W before(x) + b). Said so, the same layer can be applied with
its matrix, or followed without it: for normal weights W before(x) is normal given
before(x).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lognorm_jax import masks, weights
from lognorm_jax._tools import bound, checks, draws, random
from lognorm_jax.networks import _params


def same(fixed: Any, x: jax.Array) -> jax.Array:
    """Return x: for a layer that applies its matrix to what reaches it."""
    del fixed
    return x


def image(fixed: Any, x: jax.Array, z: jax.Array) -> jax.Array:
    """Return z: for a layer that is its matrix and biases."""
    del fixed, x
    return z


def activated(
    phi: Callable[[jax.Array], jax.Array],
    dropout: jax.Array | None,
    x: jax.Array,
    z: jax.Array,
) -> jax.Array:
    """Return φ(z), under dropout."""
    del x
    y = phi(z)
    return y if dropout is None else dropout * y


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["std", "bias_scale", "before", "after", "fixed"],
    meta_fields=["shape", "weights"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Matrix:
    """The inside of a layer x ↦ after(x, W before(x) + b), W iid and b normal.

    A pytree of its numbers. Its functions are those of a module, or ``bound``, if
    layers made anew are to be one program.
    """

    shape: tuple[int, int]  # of W: (n_out, n_in)
    std: float | jax.Array  # standard deviation of a weight; may be traced
    weights: weights.Weights  # their law, standardised
    # standard deviation of a bias; may be traced; None for no biases
    bias_scale: float | jax.Array | None = None
    # (fixed, x) -> what W multiplies, (n_in,)
    before: Callable[[Any, jax.Array], jax.Array] = same
    # (fixed, x, W before + b) -> x
    after: Callable[[Any, jax.Array, jax.Array], jax.Array] = image
    # key -> what else is drawn: signs, dropout
    fixed: Callable[[jax.Array], Any] | None = None

    def __post_init__(self):
        for name in ("before", "after", "fixed"):
            object.__setattr__(self, name, bound.bound(getattr(self, name)))

    @property
    def by_entry(self) -> tuple[Callable, masks.Sampler | None] | None:
        """What follows the matrix of a layer x ↦ D ⊙ φ(W x + b): ``after``, which acts
        entry by entry, and the sampler of D if there is one. None for other layers.
        """
        before, after, fixed = map(bound.bound, (self.before, self.after, self.fixed))
        if before.function is not same or after.function not in (image, activated):
            return None
        if fixed is None:
            return after, None
        return (after, fixed.arrays[0]) if fixed.function is _entries else None

    def keys(self, key: jax.Array, layer: int | jax.Array) -> jax.Array:
        """Return the keys of the weights, the biases, and of what else is drawn."""
        return draws.keys(key, layer, 3)

    def biases(self, key: jax.Array) -> jax.Array:
        """Return the biases, (n_out,), from their key."""
        return biases(key, self.bias_scale, self.shape[0])

    def drawn_fixed(self, key: jax.Array) -> Any:
        """Return what is drawn besides weights and biases, or None."""
        return None if self.fixed is None else self.fixed(key)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["init", "apply", "matrix"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A kind of layer: how to draw and to apply it. Equal only to itself.

    A pytree of its numbers, as ``Matrix``.
    """

    # (key of the network, index of the layer) -> params
    init: Callable[[jax.Array, Any], _params.Params]
    # (params, x) -> x
    apply: Callable[[_params.Params, jax.Array], jax.Array]
    # what is inside, where that is one matrix of weights
    matrix: Matrix | None = None

    def __post_init__(self):
        for name in ("init", "apply"):
            object.__setattr__(self, name, bound.bound(getattr(self, name)))


def layer(matrix: Matrix) -> Layer:
    """Return the layer with this inside.

    Its parameters: trained {"weight": (n_out, n_in), "bias": (n_out,)}, and fixed what
    ``matrix.fixed`` draws, or None.
    """
    init = bound.Bound(_drawn, arrays=(matrix,))
    apply = bound.Bound(_applied, arrays=(matrix,))
    return Layer(init, apply, matrix)


def _drawn(matrix: Matrix, key: jax.Array, layer: int | jax.Array) -> _params.Params:
    key_weight, key_bias, key_fixed = matrix.keys(key, layer)
    W = matrix.weights.sample(key_weight, matrix.shape, jnp.result_type(float))
    trained = {"weight": matrix.std * W, "bias": matrix.biases(key_bias)}
    return _params.Params(trained, matrix.drawn_fixed(key_fixed))


def _applied(matrix: Matrix, params: _params.Params, x: jax.Array) -> jax.Array:
    W = params.trained["weight"]
    before = matrix.before(params.fixed, x)
    z = jnp.dot(W, before, precision="highest") + params.trained["bias"]
    return matrix.after(params.fixed, x, z)


def biases(key: jax.Array, scale: float | jax.Array | None, count: int) -> jax.Array:
    """Return normal biases of a standard deviation, (count,); zeros for None."""
    dtype = jnp.result_type(float)
    if scale is None:
        return jnp.zeros(count, dtype)
    return scale * random.normal(key, (count,), dtype)


def signs(width: int) -> bound.Bound:
    """Return key -> (width,) random signs, ±1."""
    return bound.Bound(_signs, (width,))


def _signs(width: int, key: jax.Array) -> jax.Array:
    return weights.rademacher().sample(key, (width,), jnp.result_type(float))


def entries(mask: masks.Mask, width: int) -> bound.Bound:
    """Return key -> (width,) iid entries of a mask."""
    return bound.Bound(_entries, (width,), (bound.bound(mask.sample),))


def _entries(width: int, sample: masks.Sampler, key: jax.Array) -> jax.Array:
    return sample(key, (width,), jnp.result_type(float))


def bias_scale(value: object) -> float | jax.Array | None:
    """Return a standard deviation in [0, 1e30], or a traced one; None for 0."""
    scale = checks.scale("bias_scale", value, 0, 1e30)
    return scale if checks.traced(scale) or scale != 0 else None


def weight_law(law: weights.Weights | None) -> weights.Weights:
    """Return the law of the weights, normal for None."""
    if law is None:
        return weights.normal()
    checks.instance("weight_law", law, weights.Weights)
    return law
