"""The fingerprint tells computations of other numbers apart, and knows the same one."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax import (
    ensembles,
    fingerprints,
    masks,
    networks,
    paths,
    runs,
    sampling,
    weights,
)

KEY = jax.random.key(0)
X = np.arange(1, 5, dtype=np.float32)


def dense(law=weights.normal, mask=masks.relu, direction=None):
    return paths.dense(ensembles.Ensemble((4, 4, 4), law(), mask()), direction)


def jacobian(path=networks.jacobian_path, x=X, **options):
    return path(networks.mlp((4, 4, 4), **options), x, X)


def hidden(number):
    """Return a path whose constants lie in a branch, in a loop, in a jit: deep in its
    jaxpr.
    """
    table = jnp.asarray(X) * number
    inner = jax.jit(
        lambda x: jax.lax.cond(x[0] > 0, lambda y: y * table, lambda y: y, x)
    )

    def path(key):
        x = jax.random.normal(key, (4,), jnp.float32)
        return jax.lax.scan(lambda y, _: (inner(y), None), x, length=3)[0]

    return path


def ruled(slope):
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(lambda primals, tangents: (f(*primals), slope * tangents[0]))
    return lambda key: jax.jvp(f, (jax.random.normal(key),), (jnp.ones(()),))[1]


PATHS = {
    "dense": dense,
    "another law": lambda: dense(weights.laplace),
    "another mask": lambda: dense(mask=masks.identity),
    "a slope": lambda: dense(mask=lambda: masks.leaky_relu(0.1)),
    "another slope": lambda: dense(mask=lambda: masks.leaky_relu(0.2)),
    "a direction": lambda: dense(direction=X),
    "another direction": lambda: dense(direction=X[::-1]),
    "transport": lambda: paths.transport(
        ensembles.Ensemble((4, 4, 4), weights.normal(), masks.relu())
    ),
    "jacobian": jacobian,
    "a gain": lambda: jacobian(gain=1.5),
    "an activation": lambda: jacobian(activation="tanh"),
    "another input": lambda: jacobian(x=2 * X),
    "gram": lambda: jacobian(paths.gram),
    "wrapped": lambda: jax.jit(jacobian(activation="gelu")),
    "hidden": lambda: hidden(1),
    "hidden, others": lambda: hidden(2),
    "a rule": lambda: ruled(2.0),
    "another rule": lambda: ruled(3.0),
    "a key": lambda: lambda key: jax.random.normal(jax.random.clone(jax.random.key(7))),
    "another key": lambda: lambda key: jax.random.normal(jax.random.key(8)),
}


# one of each kind of content: made anew, they must have the same fingerprint
ANEW = ("dense", "a slope", "jacobian", "gram", "hidden", "a rule", "a key")


def fingerprint(name):
    return fingerprints.fingerprint(jax.jit(PATHS[name]()).trace(KEY).jaxpr)


def test_exact_other_computations_have_other_fingerprints():
    prints = {name: first_fingerprint(name) for name in PATHS}
    assert len({tuple(parts.values()) for parts in prints.values()}) == len(PATHS)
    for one, other in (
        ("a slope", "another slope"),
        ("a direction", "another direction"),
        ("hidden", "hidden, others"),
        ("a rule", "another rule"),
    ):
        difference = fingerprints.difference(prints[one], prints[other])
        assert difference == "another computation, of other constants"
    difference = fingerprints.difference(prints["dense"], prints["another law"])
    assert difference == "another computation, of other operations and constants"
    for name in ANEW:
        assert prints[name] == fingerprint(name)


first_fingerprint = functools.cache(fingerprint)

PROGRAM = """
import sys
import jax
jax.config.update("jax_enable_x64", sys.argv[1] == "True")
import test_fingerprints as tests
jax.eval_shape(tests.dense(), tests.KEY)  # so that ids and caches differ
print({name: tests.fingerprint(name) for name in reversed(tests.ANEW)})
"""


def test_invariance_across_processes():
    """With another hash seed, other addresses, and made in another order."""
    command = [sys.executable, "-c", PROGRAM, str(jax.config.jax_enable_x64)]
    places = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]
    env = {**os.environ, "PYTHONHASHSEED": "17", "PYTHONPATH": os.pathsep.join(places)}
    printed = subprocess.check_output(command, env=env, text=True)
    assert eval(printed) == {name: first_fingerprint(name) for name in ANEW}


def test_exact_a_run_of_another_path_is_refused(tmp_path):
    """Of equal shapes, with the same spec: else old numbers would be taken for its."""
    options = {"run": runs.open_run(tmp_path, {"path": "mine"}), "block_size": 8}
    expected = sampling.sample(dense(direction=X), KEY, 20, **options)
    for other in (
        dense(direction=X[::-1]),
        dense(weights.laplace),
        dense(mask=masks.identity),
    ):
        with pytest.raises(
            ValueError,
            match=r"sampling.json differs in path: another computation.*start afresh",
        ):
            sampling.sample(other, KEY, 20, **options)
    again = sampling.sample(dense(direction=X), KEY, 20, **options)
    assert np.array_equal(again.increment, expected.increment)


def test_exact_a_run_does_not_trace_its_path_again(tmp_path):
    traced = []

    def path():
        def normal(key):
            traced.append(1)
            return jax.random.normal(key, (2,))

        return normal

    sampling.sample(path(), KEY, 20, block_size=8)
    without = len(traced)
    sampling.sample(path(), KEY, 20, block_size=8, run=runs.open_run(tmp_path, {}))
    assert len(traced) == 2 * without
    traced.clear()
    sampling.sample(path(), KEY, 20, block_size=8, run=runs.open_run(tmp_path, {}))
    assert len(traced) == 1  # all is there: only to see that it is the same
