"""Functions made anew by the same code of the same values are taken for one."""

import functools

import jax
import numpy as np
import optax
import pytest

from lognorm_jax._tools import closures

pytestmark = pytest.mark.float32


def scaled(rate, name="x", *, power=1):
    def apply(x, factor=power):
        return rate * x**factor, name

    apply.__module__ = "optax.made"  # else it would be one of the user's own
    return apply


def own(rate):
    return lambda x: GAIN * rate * x


GAIN = 2.0
SAME = {
    "closure": lambda: scaled(0.1),
    "defaults": lambda: scaled(0.1, power=3),
    "partial": lambda: functools.partial(scaled(0.1), factor=2),
    "optimizer": lambda: optax.sgd(0.1),
    "chain": lambda: optax.chain(optax.clip(1.0), optax.adamw(1e-3)),
    "inside": lambda: scaled(scaled(0.1)),
}


@pytest.mark.parametrize("name", SAME)
def test_exact_made_anew_they_are_the_first(name):
    first = closures.first_equal(SAME[name]())
    assert closures.first_equal(SAME[name]()) is first


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (scaled(0.1), scaled(0.2)),
        (scaled(1), scaled(1.0)),
        (scaled(1), scaled(True)),
        (scaled(0.0), scaled(-0.0)),
        (scaled(1, power=1), scaled(1, power=2)),
        (scaled(1, "x"), scaled(1, "y")),
        (scaled([1]), scaled([1])),  # lists may change
        (scaled(np.ones(2)), scaled(np.ones(2))),
        (optax.sgd(0.1), optax.sgd(0.2)),
        (optax.sgd(0.1), optax.sgd(0.1, momentum=0.9)),
        (own(0.1), own(0.1)),  # which may depend on what changes
        (scaled(own(0.1)), scaled(own(0.1))),
    ],
)
def test_exact_others_are_not(one, other):
    assert closures.first_equal(one) is not closures.first_equal(other)


def test_exact_functions_that_call_themselves_end():
    def made():
        def power(x, n):
            return 1 if n == 0 else x * power(x, n - 1)

        power.__module__ = "optax.made"
        return power

    assert closures.first_equal(made()) is closures.first_equal(made())


def test_exact_what_is_traced_is_left_alone():
    def outer(rate):
        one, other = scaled(rate), scaled(rate)
        assert closures.first_equal(one) is one
        assert closures.first_equal(other) is other
        return rate

    jax.jit(outer)(1.0)
