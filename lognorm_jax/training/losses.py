"""Losses of examples: what ``training`` takes the mean of, besides those of optax."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from lognorm_jax._tools import checks

__all__ = ["cross_entropy", "squared_error"]


def squared_error(outputs: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Return ½‖output − target‖² of each example.

    Args:
        outputs: real, (batch, …).
        targets: real, of that shape.

    Returns:
        The losses, (batch,), of the common type.

    Raises:
        ValueError: for what is not real, or of another shape.
    """
    values = checks.array("outputs", outputs)
    wanted = checks.array("targets", targets)
    shape = np.shape(values)
    given = np.shape(wanted)
    checks.require(len(shape) >= 1, "outputs.shape", shape, "(batch, …)")
    allowed = f"that of the outputs, {shape}"
    checks.require(given == shape, "targets.shape", given, allowed)
    return jnp.sum(jnp.square(values - wanted), axis=tuple(range(1, len(shape)))) / 2


def cross_entropy(outputs: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Return the softmax cross-entropy of each example, in nats.

    Under a transformation, such as jit, only shapes and types are checked, which costs
    nothing.

    Args:
        outputs: floating, (batch, classes).
        targets: (batch,) integers in [0, classes), or (batch, classes) probabilities
            that sum to 1.

    Returns:
        The losses, (batch,), floating.

    Raises:
        ValueError: for arrays of another type or shape, labels outside of [0, classes),
            and probabilities that are negative or do not sum to 1.
    """
    logits = checks.array("outputs", outputs)
    labels = checks.array("targets", targets)
    shape = np.shape(logits)
    fits = len(shape) == 2 and shape[1] >= 1
    checks.require(fits, "outputs.shape", shape, "(batch, classes ≥ 1)")
    floating = jnp.issubdtype(logits.dtype, jnp.floating)
    checks.require(floating, "outputs.dtype", logits.dtype, "a floating type")

    given = labels.dtype, np.shape(labels)
    allowed = f"integer labels of {shape[0]} examples, or probabilities {shape}"
    if jnp.issubdtype(labels.dtype, jnp.integer):
        checks.require(np.shape(labels) == shape[:1], "targets", given, allowed)
        _check_labels(labels, shape[1])
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    floating = jnp.issubdtype(labels.dtype, jnp.floating)
    fits = floating and np.shape(labels) == shape
    checks.require(fits, "targets", given, allowed)
    _check_probabilities(labels)
    return optax.losses.softmax_cross_entropy(logits, labels)


def _check_labels(targets: jax.Array, classes: int) -> None:
    """Require labels in [0, classes), where they are known."""
    values = checks.known(targets)
    fits = values is None or bool(np.all((values >= 0) & (values < classes)))
    instead = (
        "−1, or a number that is too large, would be taken for another class, or give "
        "NaN."
    )
    checks.require(fits, "targets", targets, f"labels in [0, {classes})", instead)


def _check_probabilities(targets: jax.Array) -> None:
    """Require probabilities that sum to 1, up to rounding, where they are known."""
    values = checks.known(targets)
    if values is not None:
        wide = values.astype(np.float64)
        rounding = max(1e-3, float(jnp.finfo(targets.dtype).eps))
        fits = np.all(wide >= 0) and np.all(np.abs(wide.sum(-1) - 1) <= rounding)
        checks.require(bool(fits), "targets", targets, "probabilities that sum to 1")


def require(loss: Callable, outputs: jax.ShapeDtypeStruct, targets: jax.Array) -> None:
    """Require a loss that takes the outputs of a network and its targets.

    Labels are looked at for losses of this module and optax's own; under a
    transformation, or in another function, −1 is the last class.

    Args:
        loss: (outputs, targets) -> values.
        outputs: shape and type, (batch, …).
        targets: (num_steps, batch, …).

    Raises:
        ValueError: for another loss, or targets that it does not take.
    """
    value = _value_shape(loss, outputs, targets)
    name = "loss(outputs, targets)"
    floating = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)
    checks.require(floating, name, value, "an array of floating point")
    # each number is of one example, and what is averaged is not empty
    fits = value.size > 0 and value.shape == outputs.shape[: value.ndim]
    allowed = f"one number, one an example, or one an output, of {outputs.shape}"
    instead = f"Have the targets, {targets.shape[1:]}, been broadcast?"
    checks.require(fits, f"{name}.shape", value.shape, allowed, instead)

    labelled = (cross_entropy, optax.losses.softmax_cross_entropy_with_integer_labels)
    if loss in labelled and jnp.issubdtype(targets.dtype, jnp.integer):
        _check_labels(targets, outputs.shape[-1])
    elif loss is cross_entropy:
        _check_probabilities(targets)


def _value_shape(
    loss: Callable, outputs: jax.ShapeDtypeStruct, targets: jax.Array
) -> jax.ShapeDtypeStruct:
    """Return shape and type of the loss of one batch."""
    try:
        return jax.eval_shape(loss, outputs, targets[0])
    except Exception as error:  # of any kind: it is the loss that raised it
        raise ValueError(
            f"loss: does not take outputs {outputs.shape} and targets "
            f"{targets.shape[1:]}: {error}"
        ) from error
