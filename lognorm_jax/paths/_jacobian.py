"""The path of a network's Jacobian, all of its weights drawn: forward-mode
differentiation.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import checks, norms, scans, tangents, traces


def jacobian(
    network: networks.Network, x: Any, tangent: Any, *, observe: Callable | None = None
) -> traces.Path:
    """Return the path of ‖J(x) tangent‖² through a fresh network a key, by forward-mode
    autodiff.

    Its increments are those of
    ``probes.jvp_increments(network.layers(network.init(key)), …)``, but a layer is
    drawn when it is reached, so memory does not grow with depth, and runs of equal
    layers are scanned.

    x, tangent: of the network's shape, finite, the tangent not zero; its length does
    not matter. observe: (x, tangent) -> pytree of arrays of one shape for all layers,
    called before each; then the path returns (Trace, observed, stacked over layers).
    The vectors are scaled to norm 1, the tangent always, x in homogeneous networks;
    where x overflows in others, increments are NaN from there on. Raises ``ValueError``
    for anything else.
    """
    checks.instance("network", network, networks.Network)
    x = checks.vector("x", x, network.shape, zero=True)
    tangent = norms.unit(checks.vector("tangent", tangent, network.shape))
    usable = observe is None or callable(observe)
    checks.require(
        usable, "observe", observe, "None, or a function (x, tangent) -> pytree"
    )

    def step_of(key, kind):
        def layer_step(carry, row):
            x, tangent = carry
            layer, _ = row
            apply = functools.partial(
                kind.apply, kind.init(jax.random.fold_in(key, layer))
            )
            seen = observe(x, tangent) if observe else None
            x, image, increment = tangents.jvp_step(apply, x, tangent)
            # or x itself would vanish or overflow in a deep network
            if network.homogeneous:
                _, x = norms.normalise(x)
            return (x, image), (traces.Trace(increment, norms.quartic(tangent)), seen)

        return layer_step

    def path(key):
        step = functools.partial(step_of, key)
        dtype = jnp.result_type(float)
        start, along = scans.unknown(
            (jnp.asarray(x, dtype), jnp.asarray(tangent, dtype))
        )
        if network.homogeneous:
            _, start = norms.normalise(start)
        carry = start, along
        rows = scans.numbered(np.zeros(len(network.kinds)))
        trace, seen = scans.scan_layers(network.kinds, step, carry, rows)[1]
        trace = trace._replace(increment=norms.lasting(trace.increment))
        return (trace, seen) if observe else trace

    return scans.compiled(path, network.footprint)
