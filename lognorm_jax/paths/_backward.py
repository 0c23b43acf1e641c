"""Networks followed in law forward and back again, without their matrices."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import checks, norms, scans, traces
from lognorm_jax.paths import _conditioned, _met

# a pattern of layers, and the numbers of its repetitions, (times, period)
_Stretch = tuple[tuple[networks.Layer, ...], jax.Array]


class Part(NamedTuple):
    """A gradient of weights, or a part of it: Σ p vᵀ over inputs and rows."""

    V: jax.Array  # (…, m, rows, n_in)
    P: jax.Array  # (…, m, rows, n_out)
    log_square: jax.Array  # (…, m), of the factor by which an input's are larger


def backward(
    network: networks.Network, x: jax.typing.ArrayLike, cotangent: jax.typing.ArrayLike
) -> traces.Path:
    """Return the path of what layers do to a cotangent, as backpropagation changes it,
    without their matrices.

    At one key the network is that of ``paths.gram`` without tangents.

    Args:
        network: any, with normal or orthogonal weights.
        x: of ``network.shape``, or several, (m, *network.shape), finite.
        cotangent: of the shape of an output, or with several x (m, …), not all zero;
            of one that is zero increments are −inf.

    Returns:
        A path: key -> ln R_i, (depth,), or with several x (m, depth), in the order of
        the layers, so that the sum is ln ‖J(x)ᵀ cotangent‖²/‖cotangent‖²; −inf from
        the layer that kills the cotangent back to the first; NaN where activations
        overflow.

    Raises:
        ValueError: for other networks, naming the layer, and for vectors of another
            shape or not finite.

    Source:
        Derived in theory section 11; held against drawn networks in
        tests/test_architectures.py.
    """
    _conditioned.require(network)
    X = _conditioned.inputs(network.shape, x)
    several = np.ndim(x) > len(network.shape)
    D, _ = cotangents(network, X, cotangent, several)
    # their lengths do not matter
    if not checks.traced(D):
        largest = np.abs(D).max(axis=tuple(range(1, D.ndim)), keepdims=True)
        D = D / np.where(largest > 0, largest, 1)
    return traces.Path(_back, (several,), (network.plain(), X, D))


def _back(
    several: bool, network: networks.Network, X: jax.Array, D: jax.Array, key: jax.Array
) -> jax.Array:
    """Return the increments of cotangents, (m, depth), or of the only one."""
    X = scans.unknown(jnp.asarray(X, jnp.result_type(float)))
    loss = functools.partial(along, jnp.asarray(D, X.dtype))
    increments = in_law(_nothing, loss, network, X, key).increments
    return increments.T if several else increments[:, 0]


def _nothing(one: networks.Map, part: Part) -> jax.Array:
    del one
    return jnp.zeros((), part.P.dtype)


def cotangents(
    network: networks.Network, X: Any, cotangent: jax.typing.ArrayLike, several: bool
) -> tuple[Any, Any]:
    """Return one cotangent for each input, (m, …), and the size they are over: that of
    the largest entry, so that they fit any type; 1 if they are traced.
    """
    output = network.outputs(X.dtype)[-1].shape
    wanted = (len(X), *output) if several else output
    D = checks.vector("cotangent", cotangent, wanted).reshape(len(X), *output)
    if checks.traced(D):
        return D, 1.0
    D = np.asarray(D, np.float64)
    size = float(np.abs(D).max())
    return D / size, size


def along(D: jax.Array, outputs: jax.Array) -> jax.Array:
    return jnp.vdot(D, outputs)


class Backward(NamedTuple):
    """What is found on the way back through a network."""

    measured: Any  # of the gradient of each matrix, stacked; None without matrices
    # what each layer did to the squared norm of each input's cotangent, (depth, m)
    increments: jax.Array


def in_law(
    measure: Callable[[networks.Map, Part], Any],
    loss: Callable,
    network: networks.Network,
    X: jax.Array,
    key: jax.Array,
) -> Backward:
    """Return what is measured of the gradient of each matrix, without the matrices.

    In the order of ``network.matrices``; NaN where activations or the loss overflow.

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
    steps: list[jax.Array] = []
    parts: list[tuple[str, Part]] = []
    for (kinds, numbers), entered in reversed([*zip(stretches, kept, strict=True)]):
        step = functools.partial(_backward, measure, key, kinds)
        rows, times = (numbers, *entered), len(numbers)
        carry, told = scans.repeated(step, carry, rows, times, reverse=True)
        measured, of_tied, changes = told
        steps.insert(0, _flat(changes))
        if measured is not None:
            found.insert(0, jax.tree.map(_flat, measured))
        parts += of_tied.items()

    maps = {one.tied: one for kind in network.kinds for one in kind.maps if one.tied}
    together = [measure(maps[name], _joined(parts, name)) for name in sorted(tied)]
    if together:
        found.append(_stacked(together))
    whole = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found or [None])
    told = Backward(whole, jnp.concatenate(steps))
    right = finite & ~jnp.any(jnp.isnan(carry[1]))
    return jax.tree.map(lambda leaf: jnp.where(right, leaf, jnp.nan), told)


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


def _backward(
    measure: Callable[[networks.Map, Part], Any],
    key: jax.Array,
    kinds: tuple[networks.Layer, ...],
    carry: tuple[jax.Array, jax.Array, _met.Tied],
    row: tuple[jax.Array, Any],
) -> tuple[Any, Any]:
    """Return cotangents before a pattern of layers; and what is measured of the
    gradients of its own matrices, parts of those of tied ones, numbered, and what each
    layer did to the norms of cotangents.
    """
    D, log_scale, tied = carry
    numbers, *entered = row
    measured: list[Any] = []
    of_tied: dict[str, Part] = {}
    changes: list[jax.Array] = []
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
        changes.insert(0, more)
    told = _stacked(measured) if measured else None
    return (D, log_scale, tied), (told, of_tied, jnp.stack(changes))


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


def _flat(leaf: jax.Array) -> jax.Array:
    """Return (times, matrices of the pattern, …) as (matrices, …)."""
    return leaf.reshape(-1, *leaf.shape[2:])


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
