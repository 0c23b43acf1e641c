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

from lognorm_jax import networks
from lognorm_jax._tools import checks, norms, random, scans
from lognorm_jax.training import _moved, _undrawn_layers
from lognorm_jax.training._steps import History, Loss

# beyond the numbers of steps: keys of what is asked after training, and of what nothing
# has met
_AFTER, _REST = 1 << 30, (1 << 30) + 1

# a pattern of layers, and the indices of its repetitions, for each of its places
_Stretch = tuple[tuple[networks.Layer, ...], list[np.ndarray]]


class State(NamedTuple):
    """What one step hands to the next."""

    # as trained parameters; of weights the numbers c, (layers, 1 + steps)
    trained: list[Any]
    # of each place of each stretch, stacked over repetitions
    moved: list[list[_moved.Moved]]
    optimizer: Any  # its state
    finite: jax.Array  # (): whether all numbers were finite till here


class _Seen(NamedTuple):
    """What is so before a step; of weights and their updates, the numbers c."""

    loss: jax.Array
    log_gradient: jax.Array  # (depth,)
    increment: jax.Array  # (depth,)
    weight: list[jax.Array]  # of each kind (layers, 1 + steps)
    update: list[jax.Array]
    finite: jax.Array


def require(network: networks.Network) -> None:
    """Require a network that can be trained without its matrices.

    Raises:
        ValueError: for others, naming the layer.
    """
    for number, kind in enumerate(network.kinds):
        where = f"{network.name}, layer {number}"
        instead = "Take drawn=True, which draws all weights."
        allowed = "a layer of one matrix, x ↦ after(x, W before(x) + b)"
        checks.require(kind.matrix is not None, "network", where, allowed, instead)
        (one,) = kind.maps
        known = one.weights.gaussian or one.weights.orthogonal
        allowed = "a layer whose weights are normal or orthogonal"
        checks.require(known, "network", where, allowed, instead)


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
    end, seen = jax.lax.scan(step, state, (numbers, *batches))
    outputs = functools.partial(_outputs, network, key, drawn.fixed, end)
    return outputs, _history(network, key, end, seen)


def _stretches(network: networks.Network) -> list[_Stretch]:
    """Return the consecutive stretches of a network."""
    found = []
    for start, period, times in scans.repetitions(network.kinds):
        places = [start + i + period * np.arange(times) for i in range(period)]
        found.append((network.kinds[start : start + period], places))
    return found


def _fresh(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    drawn: networks.Params,
    batch: int,
    num_steps: int,
) -> State:
    """Return the state before the first step."""
    trained = [
        {**kind, "weight": _first(len(kind["bias"]), 1 + num_steps)}
        for kind in drawn.trained
    ]
    outputs = network.outputs(jnp.result_type(float))
    shapes = [network.shape, *(output.shape for output in outputs[:-1])]
    moved = []
    for kinds, places in _stretches(network):
        row = []
        for kind, layers in zip(kinds, places, strict=True):
            rows = _undrawn_layers.rows_of(kind, shapes[layers[0]])
            one = _moved.unmoved(kind.maps[0], rows, batch, num_steps)
            row.append(jax.tree.map(functools.partial(_repeated, len(layers)), one))
        moved.append(row)
    start = optimizer.init(trained)
    return State(trained, scans.unknown(moved), start, jnp.bool_(True))


def _first(count: int, size: int) -> jax.Array:
    """Return (count, size) numbers c of matrices that have not moved."""
    ones = jnp.ones((count, 1), jnp.result_type(float))
    return jnp.pad(ones, ((0, 0), (0, size - 1)))


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
    stretches = _stretches(network)
    rows_of = network.rows(networks.Params(state.trained, fixed))

    # forward, with the probe beside the batch; and back
    entered = jnp.concatenate([inputs, probe[None]]), tangent
    through = stretches, key, step, rows_of
    (outputs, _), left = _forward(*through, entered, state.moved)
    value, D = jax.value_and_grad(lambda y: jnp.mean(loss(y, targets)))(outputs[:-1])
    moved, found = _backward(*through, D, left)

    # where the optimizer goes
    biases = _by_kind(network, _by_layer(stretches, found, "bias"))
    gradient = _gradient(state.trained, biases, step)
    updates, after = optimizer.update(
        gradient, state.optimizer, state.trained, value=value, grad=gradient
    )
    trained = optax.apply_updates(state.trained, updates)

    # it stays where it is from the first number on that is not finite
    log_gradient = jnp.stack(_by_layer(stretches, found, "log_gradient"))
    increment = norms.lasting(jnp.stack(_by_layer(stretches, left, "increment")))
    finite = state.finite & jnp.isfinite(value) & jnp.all(log_gradient < jnp.inf)
    finite &= _all_finite(trained)
    seen = _Seen(
        value,
        log_gradient,
        jnp.where(jnp.isnan(increment), jnp.inf, increment),
        [kind["weight"] for kind in state.trained],
        [kind["weight"] for kind in updates],
        finite,
    )
    reached = State(trained, moved, after, finite)
    before = state._replace(finite=finite)
    kept = jax.tree.map(functools.partial(jnp.where, finite), reached, before)
    return kept, seen


def _gradient(trained: list[Any], biases: list[jax.Array], step: jax.Array) -> Any:
    """Return the gradient of a step: of the numbers c, that of the step alone."""
    return [
        {"weight": jnp.zeros_like(kind["weight"]).at[:, 1 + step].set(1), "bias": bias}
        for kind, bias in zip(trained, biases, strict=True)
    ]


def _forward(
    stretches: list[_Stretch],
    key: jax.Array,
    step: jax.Array,
    rows_of: Callable,
    carry: tuple[jax.Array, jax.Array],
    moved: list[list[_moved.Moved]],
) -> tuple[Any, list[list[_undrawn_layers.Ahead]]]:
    """Return inputs and tangent after all layers, and what each layer met."""
    left = []
    for (kinds, places), of_stretch in zip(stretches, moved, strict=True):

        def pattern(carry, rows, kinds=kinds):
            told = []
            for kind, (number, row) in zip(kinds, rows, strict=True):
                keys = _undrawn_layers.keys(kind, key, number, step)
                carry, met = _undrawn_layers.ahead(kind, keys[0], carry, row)
                told.append(met)
            return carry, told

        rows = [
            (scans.numbers(layers), (*_parts(rows_of(layers)), own))
            for layers, own in zip(places, of_stretch, strict=True)
        ]
        carry, met = scans.repeated(pattern, carry, rows, len(places[0]))
        left.append(met)
    return carry, left


def _backward(
    stretches: list[_Stretch],
    key: jax.Array,
    step: jax.Array,
    rows_of: Callable,
    D: jax.Array,
    left: list[list[_undrawn_layers.Ahead]],
) -> tuple[list[list[_moved.Moved]], list[list[_undrawn_layers.Back]]]:
    """Return the matrices after a step, and what is found of each layer's gradient."""
    found: list[Any] = []
    for (kinds, places), met in reversed([*zip(stretches, left, strict=True)]):

        def pattern(D, rows, kinds=kinds):
            told: list[Any] = []
            for kind, (number, row, own) in reversed([*zip(kinds, rows, strict=True)]):
                keys = _undrawn_layers.keys(kind, key, number, step)
                D, back = _undrawn_layers.back(kind, keys[1], step, D, row, own)
                told.insert(0, back)
            return D, told

        rows = [
            (scans.numbers(layers), _parts(rows_of(layers)), own)
            for layers, own in zip(places, met, strict=True)
        ]
        D, told = scans.repeated(pattern, D, rows, len(places[0]), reverse=True)
        found.insert(0, told)
    return [[back.moved for back in told] for told in found], found


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
    rows_of = network.rows(networks.Params(end.trained, fixed))
    X = inputs
    for (kinds, places), moved in zip(_stretches(network), end.moved, strict=True):

        def pattern(X, rows, kinds=kinds):
            for kind, (number, row) in zip(kinds, rows, strict=True):
                keys = _undrawn_layers.keys(kind, key, number, jnp.uint32(_AFTER))
                X = _undrawn_layers.outputs(kind, keys[0], X, row)
            return X, ()

        rows = [
            (scans.numbers(layers), (*_parts(rows_of(layers)), own))
            for layers, own in zip(places, moved, strict=True)
        ]
        X, _ = scans.repeated(pattern, X, rows, len(places[0]))
    return X


def _parts(params: networks.Params) -> tuple[Any, Any]:
    return params.trained, params.fixed


def _all_finite(tree: Any) -> jax.Array:
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, leaves)


def _by_layer(stretches: list[_Stretch], told: list[Any], name: str) -> list[jax.Array]:
    """Return a field of what is told of each layer, in the layers' order."""
    found: dict[int, jax.Array] = {}
    for (_, places), of_stretch in zip(stretches, told, strict=True):
        for layers, one in zip(places, of_stretch, strict=True):
            stacked = getattr(one, name)
            found |= {int(layer): stacked[i] for i, layer in enumerate(layers)}
    return [found[layer] for layer in range(len(found))]


def _by_kind(network: networks.Network, layers: list[jax.Array]) -> list[jax.Array]:
    """Return what there is of each layer, stacked over those of each kind."""
    return [jnp.stack([layers[i] for i in places]) for places in network.places()]


def _history(
    network: networks.Network, key: jax.Array, end: State, seen: _Seen
) -> History:
    """Return what is recorded: +inf where it is not finite."""
    # of each kind (layers, steps, 1 + steps)
    numbers = [
        tuple(jnp.moveaxis(part, 1, 0) for part in pair)
        for pair in zip(seen.weight, seen.update, strict=True)
    ]
    rows_of = network.rows(networks.Params(numbers, [None] * len(numbers)))
    ratios: dict[int, jax.Array] = {}
    for (kinds, places), moved in zip(_stretches(network), end.moved, strict=True):
        for kind, layers, own in zip(kinds, places, moved, strict=True):
            of_layer = jax.vmap(functools.partial(_update_ratio, kind, key))
            ratio = of_layer(scans.numbers(layers), own, *rows_of(layers).trained)
            ratios |= {int(layer): ratio[i] for i, layer in enumerate(layers)}
    update_ratio = jnp.stack([ratios[layer] for layer in range(len(ratios))], axis=-1)

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
    number: jax.Array,
    moved: _moved.Moved,
    weight: jax.Array,
    update: jax.Array,
) -> jax.Array:
    """Return ‖ΔW‖/‖W‖ of a layer at each step, (steps,), of numbers (steps, 1 + steps).

    The norm of W_0 is drawn at the end, given all that W_0 has met.
    """
    (pair,), _ = kind.keys(key, number)
    square = _moved.square_of(moved.base, random.fold_in(pair[0], _REST))
    log_squares = jax.vmap(_moved.log_square_of, (None, 0, None))
    log_update = log_squares(moved, update, square)
    still = jnp.isneginf(log_update)
    log_size = jnp.where(still, 0, log_squares(moved, weight, square))
    return jnp.where(still, 0, jnp.exp((log_update - log_size) / 2))
