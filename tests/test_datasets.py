"""Data to train on."""

import jax
import numpy as np
import pytest
from scipy import special
from statistical import assert_near, mean_and_error

from lognorm_jax import datasets


def test_statistical_clouds_have_their_best_classifier(key):
    for dimension, distance in ((1, 4.0), (9, 2.0), (5, 0.0)):
        points, labels = datasets.clouds(key, 20_000, dimension, distance=distance)
        assert points.shape == (20_000, dimension) and set(np.unique(labels)) == {0, 1}
        right = (np.asarray(points).sum(1) > 0) == np.asarray(labels)
        assert_near(*mean_and_error(right.astype(float)), special.ndtr(distance / 2))
        assert_near(*mean_and_error(np.asarray(labels, float)), 0.5)
        spread = np.asarray(points)[np.asarray(labels) == 1].std(0)
        assert np.allclose(spread, 1, atol=0.05)


def test_exact_batches_are_epochs(key):
    inputs, targets = np.arange(10)[:, None], np.arange(10)
    x, y = datasets.batches(key, inputs, targets, 7, 3)  # three batches an epoch
    assert x.shape == (7, 3, 1) and np.array_equal(x[..., 0], y)
    for epoch in (y[:3], y[3:6]):
        assert len(np.unique(epoch)) == 9
    assert not np.array_equal(y[:3], y[3:6])
    whole, _ = datasets.batches(key, inputs, targets, 2, 10)
    assert np.array_equal(np.sort(whole[1, :, 0]), np.arange(10))


@pytest.mark.parametrize(
    "message,call",
    [
        ("key = 0", lambda key: datasets.clouds(0, 3, 2)),
        ("count = 0", lambda key: datasets.clouds(key, 0, 2)),
        ("distance = -1", lambda key: datasets.clouds(key, 3, 2, distance=-1)),
        (
            "batch_size = 4",
            lambda key: datasets.batches(key, np.ones((3, 2)), np.ones(3), 2, 4),
        ),
        (
            "num_steps = 0",
            lambda key: datasets.batches(key, np.ones((3, 2)), np.ones(3), 0, 2),
        ),
        ("inputs.shape", lambda key: datasets.batches(key, 3.0, np.ones(3), 2, 2)),
        (
            "inputs.shape",
            lambda key: datasets.batches(key, np.ones((0, 2)), np.ones(0), 2, 1),
        ),
        (
            "targets.shape",
            lambda key: datasets.batches(key, np.ones((3, 2)), None, 2, 2),
        ),
        (
            r"len\(targets\) = 2",
            lambda key: datasets.batches(key, np.ones((3, 2)), [1, 2], 1, 2),
        ),
    ],
)
def test_exact_bad_input(message, call):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0))
