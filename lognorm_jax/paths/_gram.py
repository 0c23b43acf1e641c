"""The path of a network with normal weights, in law, without its matrices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import norms, scans, traces
from lognorm_jax.paths import _conditioned, _met, _padded


def gram(
    network: networks.Network,
    x: jax.typing.ArrayLike,
    tangent: jax.typing.ArrayLike | None = None,
    *,
    observe: traces.Observer | None = None,
) -> traces.Path:
    """Return the path of a network with normal weights, in law, without its matrices.

    Given the vectors that a matrix multiplies, rows of V (m, n), its products are
    independent normal vectors with the Gram matrix of V: so a layer costs m numbers a
    unit, not one a weight. Any network of linear maps and functions between them; one
    input or several, of the same network. Orthogonal weights take rows of V to a
    uniform frame. At one key and x, with and without tangents, the network is the same
    (in law only, where a matrix is used more than once). Where activations overflow,
    increments are NaN from there on.

    Args:
        network: any, with normal or orthogonal weights.
        x: of ``network.shape``, or several, (m, *network.shape), finite.
        tangent: None, for the increments of ‖x_i‖² itself (−inf from where it is 0 on);
            or of the shape of an input, for those of ‖J(x) tangent‖², as
            ``paths.jacobian``; with several x one tangent each, (m, …), and with one x
            any number, (t, …).
        observe: (x, tangent) -> pytree, as in ``networks.jacobian_path``; with several,
            both stacked.

    Returns:
        A path: key -> Trace, with leaves (depth,), or with several vectors (vectors,
        depth); with observe (Trace, observed, stacked over layers).

    Raises:
        ValueError: for other networks, naming the layer, and for vectors of another
            shape, not finite, or a tangent that is zero.

    Source:
        Derived in theory section 11; held against drawn networks in tests/test_gram.py
        and tests/test_architectures.py.
    """
    _conditioned.require(network)
    start, along, owner = _conditioned.vectors(network.shape, x, tangent)
    alone = len(network.shape)
    several = np.ndim(x) > alone or (tangent is not None and np.ndim(tangent) > alone)
    traces.require_observer(observe)
    owners = tuple(owner.tolist())
    padded = None if observe is not None else _padded.program(network)
    if padded is not None:
        vectors = _padded.padded((start, along), padded.room)
        return traces.Path(
            _followed_padded,
            (several, owners, padded.homogeneous),
            (*vectors, padded.layers),
            np.int32(padded.depth),
        )
    arrays = network.plain(), start, along
    return traces.Path(_followed, (observe, several, owners), arrays)


def _followed_padded(
    several: bool,
    owner: tuple[int, ...],
    homogeneous: bool,
    inputs: jax.Array,
    along: jax.Array | None,
    layers: _padded.Layers,
    key: jax.Array,
) -> traces.Trace:
    """Return the trace of one network in law, by the program for many widths."""
    trace = _padded.gram(homogeneous, owner, inputs, along, layers, key)
    return traces.finished(_shown(trace, several), None, None)


def _shown(trace: Any, several: bool) -> Any:
    """Return a trace (depth, vectors) with the layers last."""
    return traces.Trace(*(leaf.T if several else leaf[:, 0] for leaf in trace))


def _followed(
    observe: traces.Observer | None,
    several: bool,
    owner: tuple[int, ...],
    network: networks.Network,
    inputs: jax.Array,
    along: jax.Array | None,
    key: jax.Array,
) -> Any:
    """Return the trace of one network in law, and what was observed if anything."""
    step_of = functools.partial(
        _gram_step,
        network.homogeneous,
        np.array(owner, int),
        _observer(observe, several),
        key,
    )
    first, tangents = scans.unknown((inputs, along))
    log_size, unit = norms.normalise_rows(first)
    ahead = len(first) + (0 if tangents is None else len(tangents))
    vectors = unit if network.homogeneous else first, log_size, tangents
    carry = vectors, _met.unmet_tied(network, ahead)
    trace, seen = scans.scan_layers(network.kinds, step_of, carry, scans.numbers)[1]
    return traces.finished(_shown(trace, several), observe, seen)


def _observer(observe: traces.Observer | None, several: bool) -> Callable:
    """Return (inputs, tangents) -> what is observed of them, or of the only ones."""
    if observe is None or several:
        return traces.observer(observe)
    return lambda X, T: observe(X[0], None if T is None else T[0])


def _gram_step(
    homogeneous: bool,
    owner: np.ndarray,
    observed: Callable,
    key: jax.Array,
    kind: networks.Layer,
) -> Callable:
    """Return the step through a layer: (carry, row) -> (carry, (trace, observed))."""

    def layer_step(carry, layer):
        # (m, …), (m,), (t, …) or None, and what tied matrices met
        (X, log_size, T), tied = carry
        seen = observed(X, T)
        quartic = _conditioned.quartics(X, T)

        # all vectors through the layer, in law
        X, T, finite, tied = _met.followed(kind, key, layer, X, T, owner, tied)

        # what it did to the norms of the inputs, or of the tangents
        vectors, increment = _conditioned.measured(
            X, log_size, T, finite, owner, homogeneous
        )
        return (vectors, tied), (traces.Trace(increment, quartic), seen)

    return layer_step
