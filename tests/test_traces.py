"""A path is data and a program: equal programs are compiled once, and new numbers never
compile.
"""

import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lognorm_jax import (
    activations,
    ensembles,
    losses,
    masks,
    networks,
    paths,
    sampling,
    training,
    weights,
)

WIDTHS = (6, 5, 5, 5)
RNG = np.random.default_rng(0)
VECTORS = {number: RNG.normal(size=(2, 6)) for number in (0.2, 0.7)}
BATCHES = {number: RNG.normal(size=(2, 3, 4, 6)) for number in VECTORS}


def trained(number):
    """Return the path of a trainer made anew, with its optimizer."""
    network = networks.relu_mlp((6, 4, 6), number)
    fit = training.trainer(network, optax.adam(0.1), losses.squared_error, 3)
    return training.path(fit, tuple(BATCHES[number]))


def residual(kind, number):
    skip = (1 - number**2) ** 0.5
    return networks.residual(6, 3, kind, branch_scale=number, skip_scale=skip)


# what a path is made from anew, with other numbers
MADE = {
    "dense": lambda number: paths.dense(
        ensembles.Ensemble(WIDTHS, weights.rademacher(), masks.leaky_relu(0.1)),
        VECTORS[number][0],
    ),
    "in tiles": lambda number: paths.dense(
        ensembles.Ensemble(WIDTHS, weights.normal(), masks.relu()),
        VECTORS[number][0],
        tiled=True,
    ),
    "transport": lambda number: paths.transport(
        ensembles.Ensemble(WIDTHS, weights.normal(), masks.bernoulli(number))
    ),
    "jacobian, biases": lambda number: paths.jacobian(
        networks.relu_mlp(WIDTHS, number), *VECTORS[number]
    ),
    "jacobian, gain and dropout": lambda number: paths.jacobian(
        networks.mlp(WIDTHS, "tanh", keep_prob=0.5, gain=number), *VECTORS[number]
    ),
    "jacobian, residual": lambda number: paths.jacobian(
        residual("post", number), *VECTORS[number]
    ),
    "jacobian, convolutional": lambda number: paths.jacobian(
        networks.conv((2, 3, 3), (3,), 3, "gelu", number),
        *VECTORS[number].reshape(2, 2, 3),
    ),
    "gram": lambda number: paths.gram(
        networks.mlp(WIDTHS, activations.leaky_relu(0.2), number), *VECTORS[number]
    ),
    "gram, residual": lambda number: paths.gram(
        residual("balanced", number), VECTORS[number]
    ),
    "training": trained,
    "dense, slopes": lambda number: paths.dense(
        ensembles.Ensemble(WIDTHS, weights.laplace(), masks.leaky_relu(number))
    ),
    "dense, keep probabilities": lambda number: paths.dense(
        ensembles.Ensemble(WIDTHS, weights.normal(), masks.dropout(number)),
        tiled=True,
    ),
    "jacobian, slopes and keep probabilities": lambda number: paths.jacobian(
        networks.mlp(WIDTHS, activations.leaky_relu(-number), keep_prob=number),
        *VECTORS[0.2],
    ),
    "gram, masks": lambda number: paths.gram(
        networks.residual(
            9, 3, "mask model", activation=activations.leaky_relu(number)
        ),
        np.ones(9),
    ),
    "a function": lambda number: functools.partial(jax.random.normal, shape=(3,)),
}


@pytest.mark.parametrize("name", MADE)
def test_exact_made_anew_with_other_numbers_a_path_does_not_compile(
    name, key, programs
):
    first, second = VECTORS
    path = MADE[name](first)
    before = sampling.sample(path, key, 20, block_size=8)
    assert programs
    # a function without arrays is the same only as itself
    again = path if name == "a function" else MADE[name](second)
    del programs[:]
    after = sampling.sample(again, key, 20, block_size=8)
    assert not programs

    # the numbers are the new ones
    other = sampling.sample(MADE[name](second), key, 20, block_size=8)
    same = [
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(other), strict=True)
    ]
    assert all(same)
    if name != "a function":
        changed = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        assert not all(np.array_equal(a, b, equal_nan=True) for a, b in changed)


def test_exact_other_choices_are_other_programs(key, programs):
    """Another law of weights, mask or depth is compiled, not taken for the same."""
    ensemble = ensembles.Ensemble(WIDTHS, weights.normal(), masks.relu())
    sampling.sample(paths.dense(ensemble), key, 20, block_size=8)
    for changed in (
        ensembles.Ensemble(WIDTHS, weights.uniform(), masks.relu()),
        ensembles.Ensemble(WIDTHS, weights.normal(), masks.bernoulli(0.3)),
        ensembles.Ensemble((*WIDTHS, 5), weights.normal(), masks.relu()),
    ):
        del programs[:]
        sampling.sample(paths.dense(changed), key, 20, block_size=8)
        assert programs


def test_oracle_maps_and_derivatives_over_the_arrays_of_a_path(key, rounding):
    """A path is a pytree: mapped over its arrays it is the paths one by one."""
    many = [paths.gram(networks.relu_mlp(WIDTHS, b), *VECTORS[0.2]) for b in (0.1, 0.9)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    mapped = jax.vmap(lambda path: path(key).log_norm)(stacked)
    assert np.allclose(mapped, [path(key).log_norm for path in many], rtol=rounding)

    def log_norm(bias_scale):
        path = paths.gram(networks.relu_mlp(WIDTHS, bias_scale), *VECTORS[0.2])
        return path(key).log_norm

    # by the arrays, and by what they were made from
    by_arrays = jax.grad(lambda path: path(key).log_norm)(many[0])
    slopes = [leaf for leaf in jax.tree.leaves(by_arrays) if jnp.shape(leaf) == ()]
    assert any(np.abs(slope) > 1e-3 for slope in slopes)
    assert np.abs(jax.grad(log_norm)(0.1)) > 1e-3


STORED = ["dense", "transport", "jacobian, biases", "gram", "gram, residual"]


@pytest.mark.parametrize("name", [*STORED, "jacobian, gain and dropout"])
def test_exact_a_path_can_be_stored(name, key):
    path = MADE[name](0.2)
    again = pickle.loads(pickle.dumps(path))
    same = jax.tree.map(np.array_equal, path(key), again(key))
    assert all(jax.tree.leaves(same))


def test_exact_arrays_that_are_traced_are_refused_by_the_engine(key):
    many = [MADE["dense"](number) for number in VECTORS]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    with pytest.raises(ValueError, match=r"^path = .*of its key alone, of known"):
        jax.vmap(lambda path: sampling.sample(path, key, 4).increment)(stacked)


def test_exact_arrays_with_nan_are_refused_before_anything_compiles(key, programs):
    path = MADE["dense"](0.2)
    lost = jax.tree.map(lambda leaf: leaf * jnp.nan, path)
    del programs[:]
    with pytest.raises(ValueError, match=r"^path\.arrays\[0\] = .*without NaN"):
        sampling.sample(lost, key, 4)
    assert not programs


@pytest.mark.parametrize(
    "name", ["dense", "in tiles", "transport", "jacobian, biases", "gram"]
)
def test_exact_arrays_that_do_not_fit_are_refused_before_anything_compiles(
    name, key, programs
):
    path = MADE[name](0.2)
    mapped = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), path)
    short = jax.tree.map(
        lambda leaf: np.asarray(leaf)[..., :-1] if np.ndim(leaf) else leaf, path.arrays
    )
    fewer = dataclasses.replace(path, arrays=path.arrays[:-1])
    cut = dataclasses.replace(path, arrays=short)
    del programs[:]
    for lost in (mapped, fewer, cut):
        with pytest.raises(ValueError, match=r"^path\.arrays = .*program takes"):
            sampling.sample(lost, key, 4)
    assert not programs
