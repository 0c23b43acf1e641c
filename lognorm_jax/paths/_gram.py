"""The path of a network with normal weights, in law, without its matrices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import checks, norms, scans, traces
from lognorm_jax.paths import _conditioned


def gram(
    network: networks.Network,
    x: Any,
    tangent: Any = None,
    *,
    observe: Callable | None = None,
) -> traces.Path:
    """Return the path of a network with normal weights, in law, without its matrices.

    Given what reaches a layer, the rows of W [x, u] are independent normal pairs with
    the Gram matrix of (x, u): so a layer costs a few numbers a unit, not one a weight.
    Any activation, biases, dropout and residual blocks; one vector or several, of the
    same network.

    network: from ``networks.mlp``, ``relu_mlp`` or ``residual``, with normal weights.
    x: (n_0,) or (m, n_0), finite. tangent: None, for the increments of ‖x_i‖² itself
    (−inf from where it is 0 on); or (n_0,), for those of ‖J(x) tangent‖², as
    ``networks.jacobian_path``; with several x one tangent each, (m, n_0), and with one
    x any number, (t, n_0). With several, leaves are (vectors, depth). At one key and x,
    with and without tangents, the network is the same. observe: (x, tangent) -> pytree,
    as in ``networks.jacobian_path``; with several, both stacked. Where activations
    overflow, increments are NaN from there on.

    Raises ``ValueError`` for other networks, naming the layer, and for vectors of
    another shape. Source: derived, see tests/test_gram.py.
    """
    _conditioned.require(network)
    start, along, owner = _conditioned.vectors(network.shape[0], x, tangent)
    several = np.ndim(x) == 2 or np.ndim(tangent) == 2
    usable = observe is None or callable(observe)
    checks.require(
        usable, "observe", observe, "None, or a function (x, tangent) -> pytree"
    )

    def step_of(key, kind):
        def layer_step(carry, row):
            X, log_size, T = carry  # (m, n), (m,), and (t, n) or None
            seen = None
            if observe:
                seen = (
                    observe(X, T)
                    if several
                    else observe(X[0], None if T is None else T[0])
                )
            pushed = norms.normalise_rows(X if T is None else T)[1]
            X, T, told = _conditioned.step(
                kind.matrix, jax.random.fold_in(key, row[0]), X, T, owner
            )
            log_next, unit = norms.normalise_rows(X)
            if network.homogeneous:
                X, increment = unit, log_next
            else:
                dead = jnp.isneginf(log_next) | jnp.isneginf(log_size)
                increment = jnp.where(
                    dead, -jnp.inf, log_next - jnp.where(dead, 0, log_size)
                )
                log_next = jnp.where(dead, -jnp.inf, log_next)
            if T is not None:
                increment, T = norms.normalise_rows(T)
                told = told[owner]
            increment = jnp.where(told, increment, jnp.nan)
            trace = traces.Trace(increment, jax.vmap(norms.quartic)(pushed))
            return (X, log_next, T), (trace, seen)

        return layer_step

    def path(key):
        step = functools.partial(step_of, key)
        first, tangents = scans.unknown((start, along))
        log_size, unit = norms.normalise_rows(first)
        carry = unit if network.homogeneous else first, log_size, tangents
        constants = np.zeros(len(network.kinds), np.float32)
        trace, seen = scans.scan_layers(
            network.kinds, step, carry, scans.numbered(constants)
        )[1]
        trace = traces.Trace(*(leaf.T if several else leaf[:, 0] for leaf in trace))
        trace = trace._replace(increment=norms.lasting(trace.increment))
        return (trace, seen) if observe else trace

    vectors = len(start) + len(owner)
    widest = max(max(kind.matrix.shape) for kind in network.kinds)
    return scans.compiled(path, 8 * vectors * widest)
