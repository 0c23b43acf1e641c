"""The path of a network's Jacobian, its weights drawn: forward-mode differentiation."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import checks, norms, scans, tangents, traces
from lognorm_jax.paths import _padded


def jacobian(
    network: networks.Network,
    x: jax.typing.ArrayLike,
    tangent: jax.typing.ArrayLike,
    *,
    observe: traces.Observer | None = None,
) -> traces.Path:
    """Return the path of ‖J(x) tangent‖² by forward-mode differentiation.

    Each key is a fresh network. Increments are those of
    ``probes.jvp_increments(network.layers(network.init(key)), …)``, but a layer is
    drawn when it is reached, so memory does not grow with depth, and runs of equal
    layers are scanned. Networks of more than four different layers, fully connected and
    not observed, draw their matrices tile by tile on CPUs, by one program for any
    widths: equal in law to those of ``network.init``, from other bits. The vectors are
    scaled to norm 1, the tangent always, x in
    homogeneous networks; where x overflows in others, increments are NaN from there on.

    Args:
        network: from ``networks``.
        x: of the network's shape, finite.
        tangent: of the network's shape, finite, not zero; its length does not matter.
        observe: (x, tangent) -> pytree of arrays of one shape for all layers, called
            before each.

    Returns:
        A path: key -> Trace, with increments and quartics (depth,); with observe
        (Trace, observed, stacked over layers).

    Raises:
        ValueError: for what is no Network, for vectors of another shape or not finite,
            and for a tangent that is zero.

    Source:
        Hanin & Nica (2020), as in theory section 1.
    """
    checks.instance("network", network, networks.Network)
    x = checks.vector("x", x, network.shape, zero=True)
    tangent = norms.unit(checks.vector("tangent", tangent, network.shape))
    traces.require_observer(observe)
    padded = None if observe is not None else _padded.program(network)
    if padded is not None and jax.default_backend() == "cpu":
        start, along = _padded.padded((x, tangent), padded.room)
        return traces.Path(
            _followed_padded,
            (padded.law, padded.homogeneous),
            (start, along, padded.layers),
            np.int32(padded.depth),
        )
    return traces.Path(_followed, (observe,), (network.plain(), x, tangent))


def _followed_padded(*program: Any) -> traces.Trace:
    """Return the trace of one fresh network, by the program for many widths."""
    return traces.finished(_padded.jacobian(*program), None, None)


def _followed(
    observe: traces.Observer | None,
    network: networks.Network,
    x: jax.Array,
    tangent: jax.Array,
    key: jax.Array,
) -> Any:
    """Return the trace of one fresh network, and what was observed if anything."""
    observed = traces.observer(observe)
    step_of = functools.partial(_jvp_step, network.homogeneous, observed, key)
    dtype = jnp.result_type(float)
    vectors = jnp.asarray(x, dtype), jnp.asarray(tangent, dtype)
    start, along = scans.unknown(vectors)
    if network.homogeneous:
        _, start = norms.normalise(start)
    carry = start, along
    trace, seen = scans.scan_layers(network.kinds, step_of, carry, scans.numbers)[1]
    return traces.finished(trace, observe, seen)


def _jvp_step(
    homogeneous: bool, observed: Callable, key: jax.Array, kind: networks.Layer
) -> Callable:
    """Return the step through a layer: (carry, row) -> (carry, (trace, observed))."""

    def layer_step(carry, layer):
        x, tangent = carry
        seen = observed(x, tangent)
        quartic = norms.quartic(tangent)

        apply = functools.partial(kind.apply, kind.init(key, layer))
        x, tangent, increment = tangents.jvp_step(apply, x, tangent)
        # or x itself would vanish or overflow in a deep network
        if homogeneous:
            _, x = norms.normalise(x)
        return (x, tangent), (traces.Trace(increment, quartic), seen)

    return layer_step
