"""One step of training, and what is recorded before it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lognorm_jax import networks
from lognorm_jax.training import _measures

# (outputs, targets) -> an array whose mean is the loss
Loss = Callable[[jax.Array, jax.Array], jax.Array]


class History(NamedTuple):
    """What was so before each step.

    All but ``finite`` is +inf from where that is False.

    Attributes:
        loss: mean over the batch, (num_steps,).
        log_gradient: ln ‖∂loss/∂W_i‖² of each layer, of all its linear maps together,
            (num_steps, depth); −inf for none.
        increment: ln R_i of the Jacobian at the probe, (num_steps, depth); −inf from
            where it is dead, +inf from where its activations overflow.
        update_ratio: ‖ΔW_i‖/‖W_i‖ of the step that follows, likewise, (num_steps,
            depth).
        finite: whether loss, gradients and update were finite till here, (num_steps,),
            bool.
    """

    loss: jax.Array  # (num_steps,)
    log_gradient: jax.Array  # (num_steps, depth)
    increment: jax.Array  # (num_steps, depth)
    update_ratio: jax.Array  # (num_steps, depth)
    finite: jax.Array  # (num_steps,)

    @property
    def log_norm(self) -> jax.Array:
        """ln ‖J u‖²/‖u‖² at the probe before each step, (num_steps,)."""
        return self.increment.sum(-1)


class State(NamedTuple):
    """What one step hands to the next."""

    trained: list[Any]
    optimizer: Any  # its state
    finite: jax.Array  # (): whether all numbers were finite till here


class _LogSizes(NamedTuple):
    """ln ‖·‖² of what a step is made of: all (depth,)."""

    gradient: jax.Array
    update: jax.Array
    weight: jax.Array


def train_step(
    network: networks.Network,
    optimizer: optax.GradientTransformationExtraArgs,
    loss: Loss,
    fixed: list[Any],
    probe: jax.Array,
    tangent: jax.Array,
) -> Callable[[State, tuple[jax.Array, jax.Array]], tuple[State, History]]:
    """Return (state, batch) -> (state after one step, History before it)."""

    def objective(batch, trained):
        inputs, targets = batch
        apply = functools.partial(network.apply, networks.Params(trained, fixed))
        return jnp.mean(loss(jax.vmap(apply)(inputs), targets))

    def step(state, batch):
        trained = state.trained

        # the gradient, and where the optimizer goes
        value_fn = functools.partial(objective, batch)
        value, gradient = jax.value_and_grad(value_fn)(trained)
        updates, optimizer_state = optimizer.update(
            gradient,
            state.optimizer,
            trained,
            value=value,
            grad=gradient,
            value_fn=value_fn,
        )
        moved = optax.apply_updates(trained, updates)

        # what is recorded of the network before it moves
        params = networks.Params(trained, fixed)
        increment = _measures.increments(network, params, probe, tangent)
        log_norms = functools.partial(_measures.scaled_log_norms, network)
        log_sizes = _LogSizes(*map(log_norms, (gradient, updates, trained)))

        # it stays where it is from the first number on that is not finite
        finite = state.finite & _usable(value, log_sizes)
        finite &= _finite_biases(gradient) & _finite_biases(moved)
        history = _history(value, log_sizes, increment, finite)
        after = State(moved, optimizer_state, finite)
        before = state._replace(finite=finite)
        return jax.tree.map(
            functools.partial(jnp.where, finite), after, before
        ), history

    return step


def outputs(
    network: networks.Network, params: networks.Params, inputs: jax.Array
) -> jax.Array:
    """Return the outputs (m, …) of inputs (m, *shape)."""
    return jax.vmap(functools.partial(network.apply, params))(jnp.asarray(inputs))


def _usable(value: jax.Array, log_sizes: _LogSizes) -> jax.Array:
    """Return whether a step is finite, and so is the sum of a weight and its update."""
    most = 2 * jnp.log(jnp.finfo(value.dtype).max / 4)
    usable = jnp.isfinite(value) & jnp.all(log_sizes.gradient < jnp.inf)
    usable &= jnp.all(log_sizes.update < most)
    return usable & jnp.all(log_sizes.weight < most)


def _finite_biases(tree: list[Any]) -> jax.Array:
    """Return whether all is finite that is not a weight: norms tell of those."""
    finite = jnp.bool_(True)
    for path, leaf in jax.tree.leaves_with_path(tree):
        if path[-1].key != "weight":
            finite &= jnp.all(jnp.isfinite(leaf))
    return finite


def _history(
    value: jax.Array, log_sizes: _LogSizes, increment: jax.Array, finite: jax.Array
) -> History:
    """Return what is recorded: +inf where it is not finite."""

    def known(leaf):
        return jnp.where(finite, leaf, jnp.inf)

    return History(
        loss=known(value),
        log_gradient=known(log_sizes.gradient),
        increment=known(jnp.where(jnp.isnan(increment), jnp.inf, increment)),
        update_ratio=known(_ratio(log_sizes.update, log_sizes.weight)),
        finite=finite,
    )


def _ratio(log_update: jax.Array, log_size: jax.Array) -> jax.Array:
    """Return the ratio of two norms, 0 for no update, also of zeros."""
    still = jnp.isneginf(log_update)
    log_ratio = log_update - jnp.where(still, 0, log_size)
    return jnp.exp(jnp.where(still, -jnp.inf, log_ratio) / 2)
