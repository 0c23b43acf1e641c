"""The path of a network's weight gradients, in law, without its matrices."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import checks, norms, scans, traces, undrawn
from lognorm_jax.paths import _conditioned, _met

# a pattern of layers, and the numbers of its repetitions, (times, period)
_Stretch = tuple[tuple[networks.Layer, ...], jax.Array]
Cotangent = jax.typing.ArrayLike | Callable[[jax.Array], jax.Array]


def gradients(
    network: networks.Network,
    x: jax.typing.ArrayLike,
    cotangent: Cotangent,
    *,
    drawn: bool = False,
) -> traces.Path:
    """Return the path of ln‖∂L/∂W‖² of each matrix of weights, without the matrices.

    The network is the one that ``paths.gram`` follows at the same key. Given what a
    matrix met on the way forward, its transpose is met in law on the way back, so a
    layer costs a few numbers a unit, not one a weight, and memory is that of the inputs
    of all layers. Weights are those that are applied: not divided by a scale, as the
    tangent kernel has it.

    Args:
        network: any, with normal or orthogonal weights; drawn, with any.
        x: (*network.shape) or (m, *network.shape), finite.
        cotangent: ∂L/∂output, of the shape of an output, or with several x (m, …), not
            zero; or the loss L itself, a function of the output, or of the outputs
            (m, …), that ``jax.grad`` takes.
        drawn: draw all weights instead, and differentiate backwards: networks of
            ``network.init``, in memory as a whole.

    Returns:
        A path, whose samples on other numbers of devices are the same to rounding:
        key -> (matrices,), in the order of ``network.matrices``: −inf where a
        gradient is 0, NaN where activations or the loss overflow.

    Raises:
        ValueError: for other networks, naming the layer, and for vectors of another
            shape.

    Source: derived, see tests/test_gradients.py.
    """
    checks.flag("drawn", drawn)
    if not drawn:
        _conditioned.require(network)
    X = _conditioned.inputs(network.shape, x)
    some = bool(network.matrices)
    checks.require(some, "network", network.name, "one with matrices of weights")
    several = np.ndim(x) > len(network.shape)
    arrays = network.plain(), X
    if callable(cotangent):
        return traces.Path(_of_loss, (drawn, several, cotangent), arrays)
    output = network.outputs(X.dtype)[-1].shape
    wanted = (len(X), *output) if several else output
    D = checks.vector("cotangent", cotangent, wanted)
    D = D.reshape(len(X), *output)
    return traces.Path(_of_cotangent, (drawn,), (*arrays, D))


def _of_loss(
    drawn: bool,
    several: bool,
    loss: Callable,
    network: networks.Network,
    X: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Return the log of the squared norm of each gradient of a loss."""

    def of_outputs(outputs):
        return loss(outputs if several else outputs[0])

    return _log_squares(drawn, of_outputs, network, X, key)


def _of_cotangent(
    drawn: bool,
    network: networks.Network,
    X: jax.Array,
    D: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Return the log of the squared norm of each gradient along cotangents."""
    D = jnp.asarray(D, jnp.result_type(float))
    return _log_squares(drawn, lambda outputs: jnp.vdot(D, outputs), network, X, key)


def _log_squares(
    drawn: bool,
    loss: Callable,
    network: networks.Network,
    X: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Return ln‖∂L/∂W‖² of each matrix, of a loss of outputs (m, …)."""
    X = scans.unknown(jnp.asarray(X, jnp.result_type(float)))
    if drawn:
        return _of_drawn(loss, network, X, key)
    return in_law(_log_square, loss, network, X, key)


def _of_drawn(
    loss: Callable, network: networks.Network, X: jax.Array, key: jax.Array
) -> jax.Array:
    """Return ln‖∂L/∂W‖² of each matrix, of a network that is drawn."""
    params = network.init(key)

    def of_trained(trained):
        own = params._replace(trained=trained)
        return loss(jax.vmap(functools.partial(network.apply, own))(X))

    found: dict[str, jax.Array] = {}
    slopes = jax.grad(of_trained)(params.trained)
    for places, of_kind in zip(network.places(), slopes, strict=True):
        for row, layer in enumerate(places):
            kind = network.kinds[layer]
            for name, one in zip(kind.names, kind.maps, strict=True):
                W = (of_kind[name] if name else of_kind)["weight"][row]
                matrix = one.tied or (f"{layer}.{name}" if name else str(layer))
                found[matrix] = found[matrix] + W if matrix in found else W
    logs = [norms.normalise(found[matrix])[0] for matrix in network.matrices]
    return jnp.stack(logs)


def in_law(
    measure: Callable[[networks.Map, "Part"], Any],
    loss: Callable,
    network: networks.Network,
    X: jax.Array,
    key: jax.Array,
) -> Any:
    """Return what is measured of the gradient of each matrix, without the matrices.

    Stacked in the order of ``network.matrices``; NaN where activations or the loss
    overflow.

    Args:
        measure: (linear map, all of its gradient) -> a pytree of floats.
        loss: of outputs (m, …), a number.
        network: of normal or orthogonal weights.
        X: inputs, (m, …).
        key: of the network.
    """
    stretches = _stretches(network)
    state, kept = _ahead(network, stretches, X, key)
    (X, log_size), finite, tied = state

    # back, with cotangents of norm 1 for each input, and the logs of what they lack
    sizes = jnp.exp(log_size / 2).reshape(-1, *[1] * (X.ndim - 1))
    log_scale, D = norms.normalise_rows(jax.grad(loss)(X * sizes))
    carry = D, log_scale, tied
    found: list[Any] = []
    parts: list[tuple[str, Part]] = []
    for (kinds, numbers), entered in reversed([*zip(stretches, kept, strict=True)]):
        step = functools.partial(_backward, measure, key, kinds)
        rows, times = (numbers, *entered), len(numbers)
        carry, told = scans.repeated(step, carry, rows, times, reverse=True)
        measured, of_tied = told
        if measured is not None:
            found.insert(0, jax.tree.map(_flat, measured))
        parts += of_tied.items()

    maps = {one.tied: one for kind in network.kinds for one in kind.maps if one.tied}
    together = [measure(maps[name], _joined(parts, name)) for name in sorted(tied)]
    if together:
        found.append(_stacked(together))
    whole = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found)
    right = finite & ~jnp.any(jnp.isnan(carry[1]))
    return jax.tree.map(lambda leaf: jnp.where(right, leaf, jnp.nan), whole)


def _ahead(
    network: networks.Network, stretches: list[_Stretch], X: jax.Array, key: jax.Array
) -> tuple[Any, list[Any]]:
    """Return what comes out, and what enters each layer, with its size where that is
    free.
    """
    sized = _resized(network.homogeneous, X, jnp.zeros(len(X), X.dtype))
    tied = _met.unmet_tied(network, len(X), len(X))
    state: Any = sized, jnp.ones((), bool), tied
    kept = []
    for kinds, numbers in stretches:
        step = functools.partial(_forward, network.homogeneous, key, kinds)
        state, entered = scans.repeated(step, state, numbers, len(numbers))
        kept.append(entered)
    return state, kept


def _flat(leaf: jax.Array) -> jax.Array:
    """Return (times, matrices of the pattern, …) as (matrices, …)."""
    return leaf.reshape(-1, *leaf.shape[2:])


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _stretches(network: networks.Network) -> list[_Stretch]:
    """Return the consecutive stretches of a network."""
    stretches = []
    for start, period, times in scans.repetitions(network.kinds):
        numbers = np.arange(start, start + period * times).reshape(times, period)
        pattern = network.kinds[start : start + period]
        stretches.append((pattern, scans.numbers(numbers)))
    return stretches


def _resized(
    homogeneous: bool, X: jax.Array, log_size: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return inputs of norm 1, and the logs of their squared norms, where that is free.

    A layer of which f(c x) = c f(x) has gradients that grow with c as well.
    """
    if not homogeneous:
        return X, log_size
    more, X = norms.normalise_rows(X)
    return X, log_size + more


def _forward(
    homogeneous: bool,
    key: jax.Array,
    kinds: tuple[networks.Layer, ...],
    state: tuple,
    numbers: jax.Array,
) -> tuple[Any, Any]:
    """Return what a pattern of layers makes of inputs, and what entered each one."""
    (X, log_size), finite, tied = state
    entered = []
    for kind, number in zip(kinds, numbers, strict=True):
        run = _met.met(kind, key, number, X, tied)
        entered.append((X, log_size, _met.told(kind, run)))
        X, arrived = _met.arrived(run, X)
        finite &= jnp.all(arrived)
        tied = run.tied
        X, log_size = _resized(homogeneous, X, log_size)
    return ((X, log_size), finite, tied), entered


class Part(NamedTuple):
    """A gradient of weights, or a part of it: Σ p vᵀ over inputs and rows."""

    V: jax.Array  # (…, m, rows, n_in)
    P: jax.Array  # (…, m, rows, n_out)
    log_square: jax.Array  # (…, m), of the factor by which an input's are larger


def _backward(
    measure: Callable[[networks.Map, Part], Any],
    key: jax.Array,
    kinds: tuple[networks.Layer, ...],
    carry: tuple[jax.Array, jax.Array, _met.Tied],
    row: tuple[jax.Array, Any],
) -> tuple[Any, Any]:
    """Return cotangents before a pattern of layers, what is measured of the gradients
    of its own matrices, and parts of the gradients of tied ones, numbered.
    """
    D, log_scale, tied = carry
    numbers, *entered = row
    measured: list[Any] = []
    of_tied: dict[str, Part] = {}
    for i in reversed(range(len(kinds))):
        X, log_size, answers = entered[i]
        back = _met.pulled(kinds[i], key, numbers[i], X, D, tied, answers)
        of_layer = []
        own = zip(kinds[i].maps, back.given, back.pulls, strict=True)
        for place, (one, V, P) in enumerate(own):
            part = Part(V, P, log_scale + log_size)
            if one.tied:
                of_tied[f"{one.tied} {i} {place}"] = part
            else:
                of_layer.append(measure(one, part))
        measured = of_layer + measured
        more, D = norms.normalise_rows(back.D)
        log_scale, tied = log_scale + more, back.tied
    told = _stacked(measured) if measured else None
    return (D, log_scale, tied), (told, of_tied)


def _joined(parts: list[tuple[str, Part]], name: str) -> Part:
    """Return all parts of the gradient of one tied matrix, of any layers."""
    own = [part for numbered, part in parts if numbered.split(" ")[0] == name]
    most = functools.reduce(jnp.maximum, [jnp.max(part.log_square) for part in own])
    most = jnp.where(jnp.isneginf(most), 0, most)

    def rows(leaf):
        # (…, m, rows, n) -> (m, all rows, n)
        leaf = jnp.moveaxis(leaf, -3, 0)
        return leaf.reshape(len(leaf), -1, leaf.shape[-1])

    V, P = [], []
    for part in own:
        weight = jnp.exp((part.log_square - most) / 2)
        V.append(rows(part.V))
        P.append(rows(part.P * weight[..., None, None]))
    size = jnp.full(V[0].shape[:1], most)
    return Part(jnp.concatenate(V, 1), jnp.concatenate(P, 1), size)


def on_one_scale(part: Part) -> tuple[jax.Array, jax.Array]:
    """Return P with rows of all inputs on one scale, and the log of its square."""
    most = jnp.max(part.log_square)
    most = jnp.where(jnp.isneginf(most), 0, most)
    weight = jnp.exp((part.log_square - most) / 2)
    return part.P * weight[:, None, None], most


def _log_square(one: networks.Map, part: Part) -> jax.Array:
    """Return ln‖Σ p vᵀ‖²."""
    del one
    P, log_square = on_one_scale(part)
    L = undrawn.triangle(part.V.reshape(-1, part.V.shape[-1]))
    # with V = L Q, Q orthonormal, it is the norm of Pᵀ L: no squares that cancel
    product = jnp.matmul(L.T, P.reshape(-1, P.shape[-1]), precision="highest")
    return log_square + norms.normalise(product)[0]
