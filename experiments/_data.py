"""Real inputs: the handwritten-digit images bundled with scikit-learn."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from lognorm_jax import networks

NUM_TRAIN = 1437  # four fifths of the 1,797 images; the rest are for the test


class Digits(NamedTuple):
    """Images, (count, 64), of which the training ones have mean 0 and mean square 1,
    and labels.
    """

    inputs: np.ndarray
    labels: np.ndarray  # (count,) integers 0 to 9
    test_inputs: np.ndarray
    test_labels: np.ndarray


def digit(index: int) -> np.ndarray:
    """Return image ``index`` as 64 pixels in [0, 1]."""
    return load_digits().data[index] / 16.0


def digits() -> Digits:
    """Return the images in a fixed random order, divided into a training and a test
    set.

    The mean training image is subtracted, and all are divided by one number.
    """
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.data))
    images, labels = found.data[order], found.target[order]
    images = images - images[:NUM_TRAIN].mean(0)
    images = (images / np.sqrt(np.square(images[:NUM_TRAIN]).mean())).astype(np.float32)
    cut = np.s_[:NUM_TRAIN], np.s_[NUM_TRAIN:]
    return Digits(images[cut[0]], labels[cut[0]], images[cut[1]], labels[cut[1]])


def accuracy(network: networks.Network, digits: Digits) -> Callable[[Any], jax.Array]:
    """Return params -> the share of test images that a network of ten outputs
    classifies right.
    """

    def share(params):
        outputs = jax.vmap(functools.partial(network.apply, params))(digits.test_inputs)
        return jnp.mean(outputs.argmax(-1) == digits.test_labels)

    return share
