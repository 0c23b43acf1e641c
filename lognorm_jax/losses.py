"""Losses of examples: what ``training`` takes the mean of, besides those of optax."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lognorm_jax import checks


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return ½‖output − target‖² of each example: (batch,). outputs, targets: of one shape."""
    same = jnp.shape(outputs) == jnp.shape(targets)
    allowed = f"that of the outputs, {jnp.shape(outputs)}"
    checks.require(same, "targets.shape", jnp.shape(targets), allowed)
    return jnp.sum(jnp.square(outputs - targets), axis=tuple(range(1, jnp.ndim(outputs)))) / 2


def cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the softmax cross-entropy of each example, in nats: (batch,).

    outputs: (batch, classes). targets: (batch,) integers in [0, classes), or (batch, classes)
    probabilities.
    """
    checks.require(outputs.ndim == 2, "outputs.shape", outputs.shape, "(batch, classes)")
    allowed = f"integer labels of {outputs.shape[0]} examples, or probabilities {outputs.shape}"
    if jnp.issubdtype(targets.dtype, jnp.integer) and targets.ndim == 1:
        checks.require(targets.shape == outputs.shape[:1], "targets.shape", targets.shape, allowed)
        return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets)
    probable = jnp.issubdtype(targets.dtype, jnp.floating) and targets.shape == outputs.shape
    checks.require(probable, "targets", (targets.dtype, targets.shape), allowed)
    return optax.losses.softmax_cross_entropy(outputs, targets)


def require(loss: Callable, outputs: jax.ShapeDtypeStruct, targets: jax.Array) -> None:
    """Raise ``ValueError`` if a loss does not take the outputs of a network and its targets.

    outputs: (batch, …). targets: (num_steps, batch, …). Labels are looked at for losses of this
    module and optax's own; under a transformation, or in another function, −1 is the last class.
    """
    try:
        value = jax.eval_shape(loss, outputs, targets[0])
    except Exception as error:  # of any kind: it is the loss that raised it
        raise ValueError(
            f"loss: does not take outputs {outputs.shape} and targets {targets.shape[1:]}: {error}"
        ) from error
    floating = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)
    checks.require(floating, "loss(outputs, targets)", value, "an array of floating point")
    fits = value.size and value.shape == outputs.shape[: value.ndim]
    allowed = f"one number, one an example, or one an output, of {outputs.shape}"
    instead = f"Have the targets, {targets.shape[1:]}, been broadcast?"
    checks.require(fits, "loss(outputs, targets).shape", value.shape, allowed, instead)
    labelled = (cross_entropy, optax.losses.softmax_cross_entropy_with_integer_labels)
    try:
        known = np.asarray(targets)
    except jax.errors.TracerArrayConversionError:
        return  # under a transformation the values are not known
    if loss in labelled and jnp.issubdtype(known.dtype, jnp.integer):
        fits = np.all((known >= 0) & (known < outputs.shape[-1]))
        checks.require(bool(fits), "targets", targets, f"labels in [0, {outputs.shape[-1]})")
    elif loss is cross_entropy:
        fits = np.all(known >= 0) and np.all(np.abs(known.sum(-1) - 1) <= 1e-3)
        checks.require(bool(fits), "targets", targets, "probabilities that sum to 1")
