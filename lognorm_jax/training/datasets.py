"""Small data to train on: two Gaussian clouds, and batches of any data."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lognorm_jax._tools import checks

__all__ = ["batches", "clouds"]


def clouds(
    key: jax.Array, count: int, dimension: int, *, distance: float = 4.0
) -> tuple[jax.Array, jax.Array]:
    """Return points of two Gaussian clouds, and which each belongs to.

    The clouds are standard normal about centres apart in the direction (1, …, 1). The
    best classifier is right with probability Φ(distance/2), 97.7% at the default.

    Args:
        key: one typed key.
        count: how many points, ≥ 1.
        dimension: of a point, ≥ 1.
        distance: between the centres, in [0, 1e30].

    Returns:
        The points, (count, dimension), of JAX's floating type, and their labels,
        (count,), int32: 0 or 1 with equal probability.

    Raises:
        ValueError: for arguments of another kind or range.

    Source:
        Fisher's linear discriminant; held against the share that it gets right in
        tests/test_datasets.py.
    """
    checks.typed_key(key)
    count = checks.integer("count", count, 1)
    dimension = checks.integer("dimension", dimension, 1)
    distance = checks.number("distance", distance, "[0, 1e30]")
    key_label, key_point = jax.random.split(key)
    labels = jax.random.bernoulli(key_label, 0.5, (count,)).astype(jnp.int32)
    points = jax.random.normal(key_point, (count, dimension), jnp.result_type(float))
    side = (labels.astype(points.dtype) - 0.5) * distance / dimension**0.5
    return points + side[:, None], labels


def batches(
    key: jax.Array,
    inputs: ArrayLike,
    targets: ArrayLike,
    num_steps: int,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return batches for ``training``, epoch after epoch.

    Each epoch is a fresh permutation of all examples; what is left of one at its end is
    not used. With batch_size = count every step has all examples: gradient descent.

    Args:
        key: one typed key.
        inputs: (count, …), one row for each example.
        targets: (count, …).
        num_steps: how many batches, ≥ 1.
        batch_size: how many examples in each, in [1, count].

    Returns:
        Inputs and targets, each (num_steps, batch_size, …), NumPy arrays of their own
        types.

    Raises:
        ValueError: for arguments of another kind, shape or range.
    """
    checks.typed_key(key)
    num_steps = checks.integer("num_steps", num_steps, 1)
    batch_size = checks.integer("batch_size", batch_size, 1)
    count = _count("inputs", inputs)
    num_targets = _count("targets", targets)
    alike = num_targets == count
    checks.require(alike, "len(targets)", num_targets, f"that of the inputs, {count}")
    allowed = f"at most {count}, the examples"
    checks.require(batch_size <= count, "batch_size", batch_size, allowed)

    per_epoch = count // batch_size
    epochs = []
    for epoch in range(-(-num_steps // per_epoch)):
        order = jax.random.permutation(jax.random.fold_in(key, epoch), count)
        used = np.asarray(order)[: per_epoch * batch_size]
        epochs.append(used.reshape(per_epoch, batch_size))
    rows = np.concatenate(epochs)[:num_steps]
    return np.asarray(inputs)[rows], np.asarray(targets)[rows]


def _count(name: str, array: ArrayLike) -> int:
    """Return the number of rows, at least one."""
    allowed = "(count ≥ 1, …)"
    try:
        shape = np.shape(array)
    except ValueError:
        checks.refuse(name, array, f"an array: {allowed}")
    rows = len(shape) > 0 and shape[0] > 0
    checks.require(rows, f"{name}.shape", shape, allowed)
    return shape[0]
