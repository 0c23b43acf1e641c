"""Callables taken apart: equal where they do the same, and made of other arrays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax._tools import callables
from lognorm_jax.probing import models

RNG = np.random.default_rng(0)
GAIN = 2.0


def matrix():
    return RNG.normal(size=(3, 3)).astype(np.float32)


def closed(W, gain=1.0):
    return lambda x: gain * (W @ x)


def default(W):
    return lambda x, W=W: W @ x


def keyword(W):
    def layer(x, *, W=W):
        return W @ x

    return layer


class Module:
    """What JAX does not know, with a method."""

    def __init__(self, W):
        self.W = W

    def __call__(self, x):
        return self.W @ x


@jax.tree_util.register_pytree_node_class
class Tree(Module):
    """What JAX knows."""

    def tree_flatten(self):
        return (self.W,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def linear(W, x):
    return GAIN * W @ x


JITTED = jax.jit(linear)
ALIKE = {
    "closure": closed,
    "default": default,
    "keyword": keyword,
    "partial": lambda W: functools.partial(linear, W),
    "pytree": Tree,
    "method": lambda W: Tree(W).__call__,
    "jitted": lambda W: functools.partial(JITTED, W),
    "chain": lambda W: models.chain([jnp.tanh, closed(W)]),
    "named": lambda W: models.named(closed(W), "first"),
    "in a dictionary": lambda W: functools.partial(
        lambda held, x: held["W"] @ x, {"W": W}
    ),
    "bound": lambda W: models.functions([linear], [W])[0],
}


@pytest.mark.parametrize("make", ALIKE.values(), ids=ALIKE)
def test_exact_the_same_of_other_arrays(make):
    layers = [make(matrix()), make(matrix())]
    (one, first), (other, second) = map(callables.apart, layers)
    assert one == other and hash(one) == hash(other)
    assert len(first) == len(second) == 1
    x = np.arange(3, dtype=np.float32)
    for program in (one, other):
        for layer, arrays in zip(layers, (first, second), strict=True):
            assert np.array_equal(program.rebuilt(iter(arrays))(x), layer(x))


W = matrix()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (closed(W), default(W)),
        (closed(W), closed(W, 2.0)),
        (closed(W, 0.0), closed(W, -0.0)),
        (closed(W, 1), closed(W, 1.0)),
        (closed(W), closed(W[:2])),
        (closed(W), closed(W.astype(np.float16))),
        (closed(np.arange(3)), closed(np.arange(3) + 1)),  # indices may be decided by
        (closed(W[:1, :1]), closed(W[:1, :1] + 1)),  # and so may single numbers
        (Module(W), Module(W)),  # not known to JAX
        (Tree(W), Module(W)),
        (jax.jit(closed(W)), jax.jit(closed(W))),
        (models.chain([abs, closed(W)]), models.chain([closed(W), abs])),
    ],
)
def test_exact_others_are_told_apart(one, other):
    assert callables.apart(one)[0] != callables.apart(other)[0]
    assert callables.apart(one)[0] == callables.apart(one)[0]


def test_exact_what_is_traced_is_an_array():
    """Also indices and single numbers, of which Python cannot decide."""
    seen = []

    def two(gain, places):
        layers = [closed(W[i] * jnp.ones(3), gain[i]) for i in range(2)]
        layers.append(lambda x: x[places])
        seen.extend(map(callables.apart, layers))
        return gain

    jax.eval_shape(two, jax.ShapeDtypeStruct((2,), "float32"), jnp.arange(2))
    (one, first), (other, _), (_, places) = seen
    assert one == other and len(first) == 2 and len(places) == 1


def test_exact_functions_that_call_themselves_stay_closed():
    def make(W):
        def power(x, k=2):
            return x if k == 0 else W @ power(x, k - 1)

        return power

    layers = [make(matrix()), make(matrix())]
    (one, arrays), (other, _) = map(callables.apart, layers)
    assert one != other
    x = np.ones(3, np.float32)
    assert np.array_equal(one.rebuilt(iter(arrays))(x), layers[0](x))


def test_exact_names_are_kept():
    program, arrays = callables.apart(models.named(closed(W), "first"))
    assert program.rebuilt(iter(arrays)).__name__ == "first"
