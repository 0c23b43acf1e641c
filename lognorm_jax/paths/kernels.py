"""Tangent kernels: how alike the gradients by two inputs are, without any weights."""

import functools
import math

import jax
import jax.numpy as jnp

from lognorm_jax import networks
from lognorm_jax._tools import checks, scans, traces
from lognorm_jax.paths import _backward, _conditioned


def path(
    network: networks.Network,
    inputs: jax.typing.ArrayLike,
    cotangent: jax.typing.ArrayLike | None = None,
    *,
    scaled: bool = True,
) -> traces.Path:
    """Return the path of the tangent kernel of a scalar function of a network.

    K_ij = Σ ⟨∂f(x_i)/∂θ, ∂f(x_j)/∂θ⟩ over all weights and, where they are not 0, biases
    θ, of f = ⟨cotangent, output⟩ (Jacot et al. 2018). At any width: no matrix is drawn,
    as in ``paths.gradients``.

    Args:
        network: any, with normal or orthogonal weights.
        inputs: (m, *network.shape), finite.
        cotangent: of the shape of an output, not zero; None where that is one number.
        scaled: of weights and biases divided by their standard deviations, which is
            the NTK parametrisation; False: of those that are applied.

    Returns:
        A path: key -> (m, m), symmetric and positive semidefinite to rounding; NaN
        where activations overflow.

    Raises:
        ValueError: for other networks, naming the layer, and for vectors of another
            shape.

    Source: derived, see tests/test_kernels.py.
    """
    _conditioned.require(network)
    checks.flag("scaled", scaled)
    X = checks.vector("inputs", inputs, None, zero=True)
    allowed = f"(m, {', '.join(map(str, network.shape))})"
    fits = X.shape[1:] == network.shape and len(X) > 0
    checks.require(fits, "inputs.shape", X.shape, allowed)
    X = _conditioned.inputs(network.shape, X)
    output = network.outputs(X.dtype)[-1].shape
    if cotangent is None:
        one = math.prod(output) == 1
        instead = "Give the cotangent of a function of it."
        allowed = "one whose output is one number"
        checks.require(one, "network", f"{network.name}, {output}", allowed, instead)
        cotangent = jnp.ones(output)
    along = checks.vector("cotangent", cotangent, output)
    return traces.Path(_kernel, (scaled,), (network.plain(), X, along))


def _kernel(
    scaled: bool,
    network: networks.Network,
    X: jax.Array,
    along: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Return the kernel of one network in law."""
    X = scans.unknown(jnp.asarray(X, jnp.result_type(float)))
    along = jnp.asarray(along, X.dtype)

    def total(outputs):
        return jnp.sum(outputs * jnp.broadcast_to(along, outputs.shape))

    measure = functools.partial(_products, scaled)
    kernels = _backward.in_law(measure, total, network, X, key).measured
    return jnp.sum(kernels, axis=0)


def _products(scaled: bool, one: networks.Map, part: _backward.Part) -> jax.Array:
    """Return the products of the gradients by each input, of one map, (m, m)."""
    P, log_square = _backward.on_one_scale(part)
    pulls = _pairs(P)
    of_weights = jnp.sum(_pairs(part.V) * pulls, axis=(1, 3))
    kernel = one.std**2 * of_weights if scaled else of_weights
    if one.bias_scale is not None:
        # the gradient of biases is the sum over rows
        of_biases = jnp.sum(pulls, axis=(1, 3))
        kernel = kernel + (one.bias_scale**2 if scaled else 1.0) * of_biases
    return jnp.exp(log_square) * kernel


def _pairs(rows: jax.Array) -> jax.Array:
    """Return the products of all rows (m, a, n) with one another: (m, a, m, a)."""
    return jnp.einsum("ian,jbn->iajb", rows, rows, precision="highest")
