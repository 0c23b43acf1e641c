"""What the theory is about, measured of a network: norms layer by layer, increments."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lognorm_jax import networks
from lognorm_jax._tools import checks, norms, scans, tangents
from lognorm_jax.training import optimizers


def layer_log_norms(network: networks.Network, tree: Any) -> jax.Array:
    """Return ln‖·‖² of the weights of each layer, of all its linear maps together.

    Args:
        network: the network whose layers they are.
        tree: like the parameters of the network, or like those that are trained, such
            as gradients or updates.

    Returns:
        Log squared norms, (depth,), at least float32: −inf for zeros.

    Raises:
        ValueError: for what is no ``Network``, and a tree of another structure.
    """
    checks.instance("network", network, networks.Network)
    kinds = optimizers.stacked(tree)
    if isinstance(kinds, networks.Params):
        kinds = kinds.trained
    _check_kinds("tree", kinds, len(network.places()))
    return _in_order(network, norms.log_squares, kinds)


def scaled_log_norms(network: networks.Network, tree: list[Any]) -> jax.Array:
    """Return ``layer_log_norms``, faster under vmap; not finite if an entry is not."""

    def log_squares(weight):
        return norms.normalise_rows(weight)[0]

    return _in_order(network, log_squares, tree)


def _in_order(
    network: networks.Network, log_squares: Callable, tree: list[Any]
) -> jax.Array:
    """Return the log squared norms, (depth,), of all linear maps of each layer."""
    found = []
    kinds = dict.fromkeys(network.kinds)
    for kind, own, places in zip(kinds, tree, network.places(), strict=True):
        each = [log_squares(part["weight"]) for part in kind.parts(own)]
        found.append(together(each, (len(places),)))
    return network.in_order(found)


def together(log_squares: list[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """Return the log squared norm of several parts: −inf, of a shape, if there are
    none.
    """
    if not log_squares:
        return jnp.full(shape, -jnp.inf, jnp.result_type(float))
    return functools.reduce(jnp.logaddexp, log_squares)


def jacobian_increments(
    network: networks.Network,
    params: networks.Params,
    x: ArrayLike,
    tangent: ArrayLike,
) -> jax.Array:
    """Return ``probes.jvp_increments`` of a network, its equal layers scanned.

    Args:
        network: the network.
        params: its parameters, as ``network.init`` draws them.
        x: where the Jacobian is taken, of the network's shape, finite.
        tangent: what it is applied to, of that shape, finite, not all zero.

    Returns:
        ln R_i of each layer, (depth,), at least float32: −inf once dead, NaN once the
        output of a layer is not finite.

    Raises:
        ValueError: for what is no ``Network``, parameters of another one, and vectors
            that are not finite or of another shape.

    Source:
        As of ``probes.jvp_increments``.
    """
    checks.instance("network", network, networks.Network)
    network.require_own(params)
    x = checks.vector("x", x, network.shape, zero=True)
    x = jnp.asarray(x, checks.float_dtype(x))
    tangent = jnp.asarray(checks.vector("tangent", tangent, network.shape), x.dtype)
    return increments(network, params, x, tangent)


def increments(
    network: networks.Network, params: networks.Params, x: jax.Array, tangent: jax.Array
) -> jax.Array:
    """Return ``jacobian_increments`` of what is checked already."""

    def step_of(kind):
        def layer_step(carry, params):
            x, tangent = carry
            layer = functools.partial(kind.apply, params)
            x, tangent, increment = tangents.jvp_step(layer, x, tangent)
            return (x, tangent), increment

        return layer_step

    rows = network.rows(params)
    _, each = scans.scan_layers(network.kinds, step_of, (x, tangent), rows)
    return norms.lasting(each)


def split(params: networks.Params) -> tuple[list[Any], list[Any]]:
    """Return what of the parameters of a network is trained, and what is fixed.

    Args:
        params: as ``network.init`` draws them.

    Returns:
        Two lists, of one tree for each kind of layer: what is trained, as dictionaries
        of arrays, and what is fixed.

    Raises:
        ValueError: for what ``network.init`` does not return.
    """
    checks.instance("params", params, networks.Params)
    return params.trained, params.fixed


def join(trained: list[Any], fixed: list[Any]) -> networks.Params:
    """Return the parameters of a network from what ``split`` makes of them.

    Args:
        trained: a dictionary of arrays for each kind of layer.
        fixed: a list as long.

    Returns:
        The ``Params``, as ``network.init`` returns them.

    Raises:
        ValueError: for parts that do not belong to one network.
    """
    _check_kinds("trained", trained)
    fits = isinstance(fixed, list | tuple) and len(fixed) == len(trained)
    allowed = f"a list of {len(trained)}, one for each kind of layer"
    checks.require(fits, "fixed", fixed, allowed)
    return networks.Params(trained, fixed)


def _check_kinds(name: str, tree: object, count: int | None = None) -> None:
    """Require a dictionary for each kind of layer, of ``count`` kinds if given."""
    kinds = tree if isinstance(tree, list | tuple) else [None]
    usable = count in (None, len(kinds)) and all(isinstance(k, dict) for k in kinds)
    number = "" if count is None else f" {count}"
    allowed = f"as network.init(key).trained is: a list of{number} dictionaries"
    checks.require(usable, name, tree, allowed)
