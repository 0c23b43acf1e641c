"""Small data to train on: two Gaussian clouds, and batches of any data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax._tools import checks


def clouds(
    key: jax.Array, count: int, dimension: int, *, distance: float = 4.0
) -> tuple[jax.Array, jax.Array]:
    """Return points of two Gaussian clouds, and which each belongs to.

    (count, dimension) points, standard normal about centres that are ``distance`` apart
    in the direction (1, …, 1), and (count,) labels, 0 or 1 with equal probability. The
    best classifier is right with probability Φ(distance/2), 97.7% at the default.
    distance: in [0, 1e30].
    """
    checks.typed_key(key)
    count, dimension = (
        checks.integer("count", count, 1),
        checks.integer("dimension", dimension, 1),
    )
    allowed = "a number in [0, 1e30]"
    distance = float(checks.real("distance", distance, allowed))
    checks.require(0 <= distance <= 1e30, "distance", distance, allowed)
    key_label, key_point = jax.random.split(key)
    labels = jax.random.bernoulli(key_label, 0.5, (count,)).astype(jnp.int32)
    points = jax.random.normal(key_point, (count, dimension), jnp.result_type(float))
    side = (labels.astype(points.dtype) - 0.5) * distance / dimension**0.5
    return points + side[:, None], labels


def batches(
    key: jax.Array, inputs: Any, targets: Any, num_steps: int, batch_size: int
) -> tuple[Any, Any]:
    """Return batches for ``training``: (num_steps, batch_size, …) of the inputs and the
    targets.

    Epoch after epoch, each a fresh permutation of all examples; what is left of one at
    its end is not used. inputs, targets: (count, …), count ≥ batch_size ≥ 1. With
    batch_size = count every step has all examples: gradient descent.
    """
    checks.typed_key(key)
    num_steps = checks.integer("num_steps", num_steps, 1)
    batch_size, count = (
        checks.integer("batch_size", batch_size, 1),
        _count("inputs", inputs),
    )
    allowed = f"that of the inputs, {count}"
    own = _count("targets", targets)
    checks.require(own == count, "len(targets)", own, allowed)
    checks.require(
        batch_size <= count, "batch_size", batch_size, f"at most {count}, the examples"
    )
    per_epoch = count // batch_size
    epochs = -(-num_steps // per_epoch)
    orders = [
        np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), count))
        for epoch in range(epochs)
    ]
    whole = [
        order[: per_epoch * batch_size].reshape(per_epoch, batch_size)
        for order in orders
    ]
    rows = np.concatenate(whole)[:num_steps]
    return np.asarray(inputs)[rows], np.asarray(targets)[rows]


def _count(name: str, array: Any) -> int:
    """Return the number of rows, at least one."""
    try:
        shape = np.shape(array)
    except ValueError:
        checks.require(False, name, array, "an array: (count ≥ 1, …)")
    checks.require(
        len(shape) > 0 and shape[0] > 0, f"{name}.shape", shape, "(count ≥ 1, …)"
    )
    return shape[0]
