"""Callables taken apart: equal where they do the same, and made of other arrays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax._tools import callables
from lognorm_jax.probing import models

pytestmark = pytest.mark.float32

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


class Scaled(functools.partial):
    """What does more than it holds."""

    def __call__(self, *args):
        return 3 * super().__call__(*args)


@jax.tree_util.register_pytree_node_class
class Static:
    """What cannot be compared, in the structure of a tree."""

    def __init__(self, static):
        self.static = static

    def tree_flatten(self):
        return (), Told(self.static)

    @classmethod
    def tree_unflatten(cls, told, _):
        return cls(told.static)


class Told:
    def __init__(self, static):
        self.static = static

    def __hash__(self):
        return 0

    def __eq__(self, other):
        return bool(self.static == other.static)


def attributed(gain):
    def layer(x):
        return x

    layer.gain = gain
    return layer


def held(anything):
    return lambda x: x if anything else anything


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
    """Where the arrays are traced: Python cannot decide by them."""

    def outputs(V, W):
        layers = [make(V), make(W)]
        (one, first), (other, second) = map(callables.apart, layers)
        assert one == other and hash(one) == hash(other)
        assert len(first) == len(second) == 1
        x = jnp.arange(3.0)
        return [
            [layer(x), *(program.rebuilt(iter(arrays))(x) for program in (one, other))]
            for layer, arrays in zip(layers, (first, second), strict=True)
        ]

    for expected, *found in jax.jit(outputs)(matrix(), matrix()):
        for output in found:
            assert np.array_equal(output, expected)


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
        (closed(W), closed(W + 1)),  # Python may decide by what is known
        (closed(np.ones(2_000)), closed(np.ones(2_000))),  # or be asked in vain
        (attributed(1.0), attributed(2.0)),
        (Scaled(linear, W), functools.partial(linear, W)),
        (Scaled(linear, W), Scaled(linear, W)),
        (held({"a": 1, "b": 2}), held({"b": 2, "a": 1})),
        (held({np.sin: 1, "b": 2}), held({np.sin: 1, "b": 3})),
        (Static(np.ones(2)), Static(np.ones(2))),
        (Module(W), Module(W)),  # not known to JAX
        (Tree(W), Module(W)),
        (jax.jit(closed(W)), jax.jit(closed(W))),
        (models.chain([abs, closed(W)]), models.chain([closed(W), abs])),
    ],
)
def test_exact_others_are_told_apart(one, other):
    assert callables.apart(one)[0] != callables.apart(other)[0]
    if not isinstance(one, Static):
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

    def outputs(V, W):
        layers = [make(V), make(W)]
        (one, arrays), (other, _) = map(callables.apart, layers)
        assert one != other
        x = jnp.ones(3)
        return one.rebuilt(iter(arrays))(x), layers[0](x)

    assert np.array_equal(*jax.jit(outputs)(matrix(), matrix()))


def test_exact_order_names_and_attributes_are_kept():
    def layer(x, *, held=None, gain=2):
        """Say what it does."""
        return gain * held["z"] - held["a"] * x

    layer.__kwdefaults__["held"] = {"z": 1.0, "a": 3.0}
    layer.unit = "m"
    program, arrays = callables.apart(models.named(layer, "first"))
    again = program.rebuilt(iter(arrays))
    assert again.__name__ == "first" and again(1.0) == layer(1.0)
    program, arrays = callables.apart(layer)
    again = program.rebuilt(iter(arrays))
    assert again is not layer and again.unit == "m" and again.__doc__ == layer.__doc__
    assert list(again.__kwdefaults__["held"]) == ["z", "a"]


def test_exact_what_holds_too_much_stays_closed():
    """However its parts refer to one another."""
    chain = [abs, abs]
    for _ in range(30):
        chain.append((lambda a, b: lambda x: (a, b)[0](x))(*chain[-2:]))
    for value in (chain[-1], held(dict.fromkeys(range(20_000), 0))):
        program, arrays = callables.apart(value)
        assert program.rebuilt(iter(arrays)) is value and not arrays


def test_exact_what_refers_to_itself_ends():
    table = {}
    for i in range(20):
        table[i] = lambda x, i=i: x + i * len(table)
    program, arrays = callables.apart(table[3])
    assert program.rebuilt(iter(arrays))(1) == 61
