"""Steps of training without matrices, and what is recorded before each: in law as
``_steps``, which draws them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from lognorm_jax import networks
from lognorm_jax._tools import checks, norms, random, scans
from lognorm_jax.training import (
    _linear,
    _measures,
    _moved,
    _undrawn_layers,
    _undrawn_passes,
)
from lognorm_jax.training._steps import History, Loss

# beyond the numbers of steps: keys of what is asked after training, and of what nothing
# has met
_AFTER, _REST = 1 << 30, (1 << 30) + 1


class State(NamedTuple):
    """What one step hands to the next."""

    # as of drawn networks, but for weights: the numbers c, (layers, 1 + steps, 1, …),
    # of the rank of weights, by which optimizers may go
    trained: list[Any]
    moved: _undrawn_passes.Matrices
    optimizer: Any  # its state
    log_gradient: jax.Array  # (depth, steps): ln‖g_s‖², −inf from now on
    finite: jax.Array  # (): whether all numbers were finite till here


class _Seen(NamedTuple):
    """What is so before a step; of weights and their updates, the numbers c."""

    loss: jax.Array
    log_gradient: jax.Array  # (depth,)
    increment: jax.Array  # (depth,)
    weight: list[list[jax.Array]]  # of each kind and linear map, (layers, 1 + steps)
    update: list[list[jax.Array]]
    finite: jax.Array


def require(network: networks.Network) -> None:
    """Require a network that can be trained without its matrices.

    Raises:
        ValueError: for others, naming the layer.
    """
    instead = "Take drawn=True, which draws all weights."
    counts = _undrawn_layers.counts(network)
    for number, kind in enumerate(network.kinds):
        where = f"{network.name}, layer {number}"
        for one, count in zip(kind.maps, counts[number], strict=True):
            known = one.weights.gaussian or one.weights.orthogonal
            allowed = "a layer whose weights are normal or orthogonal"
            checks.require(known, "network", where, allowed, instead)
            allowed = "a layer that uses all of its linear maps"
            checks.require(count > 0, "network", where, allowed)


def train(
    network: networks.Network,
    optimizer: optax.GradientTransformationExtraArgs,
    loss: Loss,
    key: jax.Array,
    batches: tuple[jax.Array, jax.Array],
    probe: jax.Array,
    tangent: jax.Array,
) -> tuple[Callable[[jax.Array], jax.Array], History]:
    """Return a network after training, and what was so before each step.

    Args:
        network: one that ``require`` lets pass.
        optimizer: one that is linear.
        loss: (outputs, targets) -> an array whose mean is the loss.
        key: one typed key.
        batches: inputs (num_steps, batch, *shape), targets (num_steps, batch, …).
        probe: where the Jacobian is taken.
        tangent: the unit vector it is applied to.
    """
    num_steps, batch = batches[0].shape[:2]
    drawn = network.init(key)  # of which only biases, and what is fixed, are used
    state = _fresh(network, optimizer, drawn, batch, num_steps)
    step = functools.partial(
        _step, network, optimizer, loss, key, drawn.fixed, probe, tangent
    )
    numbers = jnp.arange(num_steps, dtype=jnp.uint32)
    end, seen = lax.scan(step, state, (numbers, *batches))
    outputs = functools.partial(_outputs, network, key, drawn.fixed, end)
    return outputs, _history(network, key, end, seen)


def _fresh(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    drawn: networks.Params,
    batch: int,
    num_steps: int,
) -> State:
    """Return the state before the first step."""
    kinds = dict.fromkeys(network.kinds)
    trained = []
    for kind, own in zip(kinds, drawn.trained, strict=True):
        parts = [
            {**part, "weight": _linear.first(part["weight"], 1 + num_steps)}
            for part in kind.parts(own)
        ]
        trained.append(kind.named(parts))

    counts = _undrawn_layers.counts(network)
    moved = []
    for pattern, places in _undrawn_passes.stretches(network):
        of_stretch = []
        for kind, layers in zip(pattern, places, strict=True):
            given = zip(kind.maps, counts[layers[0]], strict=True)
            # probe and tangent go ahead beside the batch
            each = [
                _moved.unmoved(one, batch * n, (batch + 2) * n, num_steps)
                for one, n in given
            ]
            repeated = functools.partial(_repeated, len(layers))
            of_stretch.append(jax.tree.map(repeated, each))
        moved.append(of_stretch)
    start = optimizer.init(trained)
    nothing = jnp.full(
        (len(network.kinds), num_steps), -jnp.inf, jnp.result_type(float)
    )
    return State(trained, scans.unknown(moved), start, nothing, jnp.bool_(True))


def _repeated(times: int, leaf: Any) -> jax.Array:
    return jnp.broadcast_to(leaf, (times, *jnp.shape(leaf)))


def _step(
    network: networks.Network,
    optimizer: optax.GradientTransformationExtraArgs,
    loss: Loss,
    key: jax.Array,
    fixed: list[Any],
    probe: jax.Array,
    tangent: jax.Array,
    state: State,
    given: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[State, _Seen]:
    """Return the state after a step, and what was so before it."""
    step, inputs, targets = given
    stretches = _undrawn_passes.stretches(network)
    rows_of = network.rows(networks.Params(state.trained, fixed))
    through = stretches, key, step, rows_of

    entered = jnp.concatenate([inputs, probe[None]]), tangent
    of_outputs = functools.partial(_mean_loss, loss, targets)
    value, moved, left, found = _passes(through, of_outputs, entered, state.moved)

    # where the optimizer goes
    biases = _undrawn_passes.by_kind(network, stretches, found, "bias")
    gradient = _gradient(network, state.trained, biases, step)
    updates, after = optimizer.update(
        gradient, state.optimizer, state.trained, value=value, grad=gradient
    )
    trained = optax.apply_updates(state.trained, updates)

    # it stays where it is from the first number on that is not finite; but what a
    # matrix has met, it has met
    log_gradient = _undrawn_passes.by_layer(stretches, found, "log_gradient")
    gradients = state.log_gradient.at[:, step].set(log_gradient)
    finite = state.finite & jnp.isfinite(value) & jnp.all(log_gradient < jnp.inf)
    finite &= _all_finite(trained)
    finite &= _usable(network, _numbers(network, trained), gradients)
    finite &= _usable(network, _numbers(network, updates), gradients)
    kept = jax.tree.map(
        functools.partial(jnp.where, finite),
        (trained, after),
        (state.trained, state.optimizer),
    )

    increment = _increments(_undrawn_passes.by_layer(stretches, left, "increment"))
    before, moves = (_numbers(network, tree) for tree in (state.trained, updates))
    seen = _Seen(value, log_gradient, increment, before, moves, finite)
    return State(kept[0], moved, kept[1], gradients, finite), seen


def _mean_loss(loss: Loss, targets: jax.Array, outputs: jax.Array) -> jax.Array:
    return jnp.mean(loss(outputs, targets))


def _passes(
    through: tuple[list[_undrawn_passes.Stretch], jax.Array, jax.Array, Callable],
    loss: Callable[[jax.Array], jax.Array],
    entered: tuple[jax.Array, jax.Array],
    moved: _undrawn_passes.Matrices,
) -> tuple[jax.Array, _undrawn_passes.Matrices, Any, Any]:
    """Return the loss, the matrices after a step, and what it found ahead and back.

    entered: the batch, with the probe as its last input, and the tangent.
    """
    (outputs, _), left = _undrawn_passes.forward(*through, entered, moved)
    step = through[2]
    moved = _undrawn_passes.met_ahead(moved, left, step)
    value, D = jax.value_and_grad(loss)(outputs[:-1])
    found = _undrawn_passes.backward(*through, D, moved, left)
    return value, _undrawn_passes.met_back(moved, found, step), left, found


def _increments(each: jax.Array) -> jax.Array:
    """Return ln R of each layer, (depth,): +inf from where activations overflow."""
    lasting = norms.lasting(each)
    return jnp.where(jnp.isnan(lasting), jnp.inf, lasting)


def _usable(
    network: networks.Network, numbers: list[list[jax.Array]], log_gradient: jax.Array
) -> jax.Array:
    """Return whether Σ c_s g_s of each layer is as small as it must be in training of
    drawn weights: by the norms of its terms.
    """
    # of each layer the largest of its matrices, (depth, 1 + steps)
    steps = log_gradient.shape[1]
    by_kind = [
        functools.reduce(jnp.maximum, map(jnp.abs, kind))
        if kind
        else jnp.zeros((len(places), 1 + steps), log_gradient.dtype)
        for kind, places in zip(numbers, network.places(), strict=True)
    ]
    c = network.in_order(by_kind)[:, 1:]
    # of a number that is 0, whatever its gradient
    terms = jnp.where(
        c > 0, jnp.log(jnp.where(c > 0, c, 1)) + log_gradient / 2, -jnp.inf
    )
    most = jnp.log(jnp.finfo(log_gradient.dtype).max / 4)
    return jnp.all(jax.nn.logsumexp(terms, axis=1) < most)


def _numbers(network: networks.Network, trained: list[Any]) -> list[list[jax.Array]]:
    """Return the numbers c of each kind and linear map."""
    return [
        [part["weight"] for part in _undrawn_layers.trained(kind, tree)]
        for kind, tree in zip(dict.fromkeys(network.kinds), trained, strict=True)
    ]


def _gradient(
    network: networks.Network,
    trained: list[Any],
    biases: list[list[jax.Array]],
    step: jax.Array,
) -> list[Any]:
    """Return the gradient of a step: of the numbers c, that of the step alone."""

    def one(part, bias):
        return {"weight": _linear.gradient(part["weight"], step), "bias": bias}

    kinds = dict.fromkeys(network.kinds)
    found = []
    for kind, tree, of_kind in zip(kinds, trained, biases, strict=True):
        pairs = zip(kind.parts(tree), of_kind, strict=True)
        found.append(kind.named([one(*pair) for pair in pairs]))
    return found


def _outputs(
    network: networks.Network,
    key: jax.Array,
    fixed: list[Any],
    end: State,
    inputs: jax.Array,
) -> jax.Array:
    """Return the outputs (m, …) of inputs (m, *shape) after training.

    All inputs are asked for at once: what they meet is not kept.
    """
    inputs = jnp.asarray(inputs, jnp.result_type(float))
    allowed = f"(number of inputs, {', '.join(map(str, network.shape))})"
    fits = inputs.shape[1:] == network.shape and len(inputs) > 0
    checks.require(fits, "inputs.shape", inputs.shape, allowed)
    params = networks.Params(end.trained, fixed)
    return _undrawn_passes.outputs(network, key, _AFTER, params, end.moved, inputs)


def _all_finite(tree: Any) -> jax.Array:
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, leaves)


def _history(
    network: networks.Network, key: jax.Array, end: State, seen: _Seen
) -> History:
    """Return what is recorded: +inf where it is not finite."""
    # of each kind and linear map (layers, steps, 1 + steps)
    numbers = [
        jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), pair)
        for pair in zip(seen.weight, seen.update, strict=True)
    ]
    rows_of = network.rows(networks.Params(numbers, [None] * len(numbers)))
    places: list[np.ndarray] = []
    ratios: list[jax.Array] = []
    stretches = _undrawn_passes.stretches(network)
    for (kinds, of_stretch), moved in zip(stretches, end.moved, strict=True):
        for kind, layers, own in zip(kinds, of_stretch, moved, strict=True):
            ratio = functools.partial(_update_ratio, kind, key, len(seen.loss))

            def of_layer(given, own=own, ratio=ratio):
                time, number, numbers = given
                return ratio(number, _moved.of_layer(own, time), *numbers)

            # one after another: of each there are products of all gradients
            times, numbers = jnp.arange(len(layers)), rows_of(layers).trained
            rows = times, scans.numbers(layers), numbers
            ratios.append(lax.map(of_layer, rows))
            places.append(layers)
    update_ratio = _undrawn_passes.in_order(places, ratios).T

    def known(leaf):
        finite = seen.finite.reshape(-1, *[1] * (leaf.ndim - 1))
        return jnp.where(finite, leaf, jnp.inf)

    return History(
        loss=known(seen.loss),
        log_gradient=known(seen.log_gradient),
        increment=known(seen.increment),
        update_ratio=known(update_ratio),
        finite=seen.finite,
    )


def _update_ratio(
    kind: networks.Layer,
    key: jax.Array,
    num_steps: int,
    number: jax.Array,
    moved: list[_moved.Moved],
    weight: list[jax.Array],
    update: list[jax.Array],
) -> jax.Array:
    """Return ‖ΔW‖/‖W‖ of a layer at each step, (steps,), of the numbers (steps, 1 +
    steps) of each of its matrices.

    The norm of W_0 is drawn at the end, given all that W_0 has met.
    """
    pairs, _ = kind.keys(key, number)
    log_update, log_size = [], []
    for own, (key_weight, _), W, dW in zip(moved, pairs, weight, update, strict=True):
        sizes = _moved.sizes(own, len(W), random.fold_in(key_weight, _REST))
        of_numbers = jax.vmap(functools.partial(_moved.log_square_of, sizes))
        log_update.append(of_numbers(dW))
        log_size.append(of_numbers(W))
    steps = (num_steps,)
    total, size = (_measures.together(each, steps) for each in (log_update, log_size))
    still = jnp.isneginf(total)
    size = jnp.where(still, 0, size)
    return jnp.where(still, 0, jnp.exp((total - size) / 2))
