"""The engine reads off a path what a sample needs, however the path is wrapped."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lognorm_jax import (
    ensembles,
    losses,
    masks,
    networks,
    paths,
    programs,
    training,
    weights,
)
from lognorm_jax.sampling import _footprints

KEY = jax.random.key(0, impl="threefry2x32")
X = np.ones(60)
ENSEMBLE = ensembles.Ensemble((60,) * 5, weights.normal(), masks.relu())
NETWORK = networks.relu_mlp((60,) * 5)


def floats(path):
    return _footprints.floats(jax.jit(path).trace(KEY).jaxpr)


def test_exact_what_paths_keep_alive():
    plain = floats(paths.dense(ENSEMBLE, thinned=False, tiled=False))
    assert 60 * 60 <= plain <= 1.1 * 60 * 60
    assert 60 * 60 <= floats(paths.jacobian(NETWORK, X, X)) <= 1.1 * 60 * 60
    # survivors only: the whole matrix, behind a condition, is hardly ever drawn
    assert floats(paths.dense(ENSEMBLE, tiled=False)) < 0.9 * plain
    # a tile, and not the matrix
    assert floats(paths.dense(ENSEMBLE, tiled=True)) < 0.2 * plain
    for light in (paths.transport(ENSEMBLE), paths.gram(NETWORK, X, X)):
        assert floats(light) < 1000


def test_exact_training_carries_weights_and_moments():
    network = networks.mlp((60,) * 3, head="linear")
    batches = np.ones((2, 1, 60)), np.ones((2, 1, 60))
    sgd, adam = (
        floats(
            training.path(
                training.trainer(network, optimizer(0.1), losses.squared_error, 2),
                batches,
            )
        )
        for optimizer in (optax.sgd, optax.adam)
    )
    weights_of_all = 2 * 60 * 60
    assert 2 * weights_of_all < sgd < 4 * weights_of_all
    assert 4 * weights_of_all <= adam - sgd <= 1.1 * 4 * weights_of_all


def test_invariance_wrapped_paths_need_the_same():
    path = paths.dense(ENSEMBLE)
    for wrapped in (lambda key: path(key), jax.jit(path), lambda key: (path(key), 1.0)):
        assert floats(wrapped) == floats(path)
    several = jax.vmap(lambda scale: path(KEY).increment * scale)
    assert floats(lambda key: several(jnp.ones(7))) < 2 * floats(path)
    assert floats(lambda key: jax.vmap(path)(jax.random.split(key, 7))) == 7 * floats(
        path
    )


def test_exact_batches_divide_the_block_and_fit_the_cache(monkeypatch):
    monkeypatch.setattr(programs, "LIVE_FLOATS", {"cpu": 1000})

    def path(key):
        return jax.random.normal(key, (100,)).sum()

    jaxpr = jax.jit(path).trace(KEY).jaxpr
    for block_size, batch in ((256, 8), (30, 10), (7, 7), (11, 1)):
        assert programs.batch_size(jaxpr, block_size, "cpu") == batch
    assert programs.batch_size(jaxpr, 256, "gpu") == 256
