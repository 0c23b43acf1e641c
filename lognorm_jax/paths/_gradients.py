"""The path of a network's weight gradients, in law, without its matrices."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks
from lognorm_jax._tools import checks, norms, scans, traces, undrawn
from lognorm_jax.paths import _backward, _conditioned

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
        x: of ``network.shape``, or several, (m, *network.shape), finite.
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
            shape or not finite.

    Source:
        Derived in theory section 11; held against drawn networks in
        tests/test_architectures.py.
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
    D, size = _backward.cotangents(network, X, cotangent, several)
    log_square = 2 * np.log(np.float64(size))
    return traces.Path(_of_cotangent, (drawn,), (*arrays, D, log_square))


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
    log_square: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Return the log of the squared norm of each gradient along cotangents, which are
    so much larger.
    """
    loss = functools.partial(_backward.along, jnp.asarray(D, jnp.result_type(float)))
    found = _log_squares(drawn, loss, network, X, key)
    return found + log_square.astype(found.dtype)


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
    return _backward.in_law(_log_square, loss, network, X, key).measured


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


def _log_square(one: networks.Map, part: _backward.Part) -> jax.Array:
    """Return ln‖Σ p vᵀ‖²."""
    del one
    P, log_square = _backward.on_one_scale(part)
    L = undrawn.triangle(part.V.reshape(-1, part.V.shape[-1]))
    # with V = L Q, Q orthonormal, it is the norm of Pᵀ L: no squares that cancel
    product = jnp.matmul(L.T, P.reshape(-1, P.shape[-1]), precision="highest")
    return log_square + norms.normalise(product)[0]
