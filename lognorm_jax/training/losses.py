"""Losses of examples: what ``training`` takes the mean of, besides those of optax."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lognorm_jax._tools import checks


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return ½‖output − target‖² of each example: (batch,).

    outputs, targets: real arrays (batch, …) of one shape. Raises ``ValueError`` for
    anything else.
    """
    outputs = checks.array("outputs", outputs)
    targets = checks.array("targets", targets)
    shape = np.shape(outputs)
    checks.require(len(shape) >= 1, "outputs.shape", shape, "(batch, …)")
    allowed = f"that of the outputs, {shape}"
    checks.require(
        np.shape(targets) == shape, "targets.shape", np.shape(targets), allowed
    )
    return jnp.sum(jnp.square(outputs - targets), axis=tuple(range(1, len(shape)))) / 2


def cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the softmax cross-entropy of each example, in nats: (batch,).

    outputs: (batch, classes), floating. targets: (batch,) integers in [0, classes), or
    (batch, classes) probabilities. Raises ``ValueError`` for anything else; under a
    transformation, such as jit, that looks at shapes and types only, and costs nothing.
    """
    outputs = checks.array("outputs", outputs)
    targets = checks.array("targets", targets)
    shape = np.shape(outputs)
    checks.require(
        len(shape) == 2 and shape[1] >= 1,
        "outputs.shape",
        shape,
        "(batch, classes ≥ 1)",
    )
    floating = jnp.issubdtype(outputs.dtype, jnp.floating)
    checks.require(floating, "outputs.dtype", outputs.dtype, "a floating type")
    allowed = f"integer labels of {shape[0]} examples, or probabilities {shape}"
    given = targets.dtype, np.shape(targets)
    if jnp.issubdtype(targets.dtype, jnp.integer):
        checks.require(np.shape(targets) == shape[:1], "targets", given, allowed)
        _check_labels(targets, shape[1])
        return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets)
    probable = (
        jnp.issubdtype(targets.dtype, jnp.floating) and np.shape(targets) == shape
    )
    checks.require(probable, "targets", given, allowed)
    _check_probabilities(targets)
    return optax.losses.softmax_cross_entropy(outputs, targets)


def _check_labels(targets: jax.Array, classes: int) -> None:
    """Require labels in [0, classes), where they are known."""
    values = checks.known(targets)
    fits = values is None or bool(np.all((values >= 0) & (values < classes)))
    instead = "−1, or a number that is too large, is another class, or gives NaN."
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
    """Raise ``ValueError`` if a loss does not take the outputs of a network and its
    targets.

    outputs: (batch, …). targets: (num_steps, batch, …). Labels are looked at for losses
    of this module and optax's own; under a transformation, or in another function, −1
    is the last class.
    """
    try:
        value = jax.eval_shape(loss, outputs, targets[0])
    except Exception as error:  # of any kind: it is the loss that raised it
        shapes = f"outputs {outputs.shape} and targets {targets.shape[1:]}"
        raise ValueError(f"loss: does not take {shapes}: {error}") from error
    floating = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)
    checks.require(
        floating, "loss(outputs, targets)", value, "an array of floating point"
    )
    fits = value.size and value.shape == outputs.shape[: value.ndim]
    allowed = f"one number, one an example, or one an output, of {outputs.shape}"
    instead = f"Have the targets, {targets.shape[1:]}, been broadcast?"
    checks.require(fits, "loss(outputs, targets).shape", value.shape, allowed, instead)
    labelled = (cross_entropy, optax.losses.softmax_cross_entropy_with_integer_labels)
    if loss in labelled and jnp.issubdtype(targets.dtype, jnp.integer):
        _check_labels(targets, outputs.shape[-1])
    elif loss is cross_entropy:
        _check_probabilities(targets)
