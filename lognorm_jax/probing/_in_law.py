"""Networks of ``networks``, probed in law: none of their weights are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lognorm_jax import networks, paths, sampling
from lognorm_jax._tools import checks, random, traces
from lognorm_jax.probing import _autodiff


def path(
    network: networks.Network,
    kind: str,
    inputs: jax.Array,
    direction: ArrayLike | None,
) -> traces.Path:
    """Return the path of ln R of each layer, (depth,), for one of the inputs at random.

    Args:
        network: that can be followed.
        kind: "jvp", "vjp" or "activations".
        inputs: (count, *network.shape).
        direction: of an input, or for vjp of an output; None: a fresh normal one for
            each sample.

    Raises:
        ValueError: for inputs or a direction of another shape.
    """
    shape = inputs.shape
    allowed = f"(count, {', '.join(map(str, network.shape))})"
    checks.require(shape[1:] == network.shape, "inputs.shape", shape, allowed)
    inputs = inputs.astype(jnp.result_type(float))
    vector = None
    if direction is not None and kind == "activations":
        checks.vector("direction", direction, None)
    elif direction is not None:
        like = _like(network, kind, inputs)
        vector = _autodiff.unit("direction", direction, like)
    return traces.Path(_increments, (kind,), (network.plain(), inputs, vector))


def _like(
    network: networks.Network, kind: str, inputs: jax.Array
) -> jax.ShapeDtypeStruct:
    """Return shape and type of a direction."""
    if kind == "vjp":
        return network.outputs(inputs.dtype)[-1]
    return jax.ShapeDtypeStruct(network.shape, inputs.dtype)


def _increments(
    kind: str,
    network: networks.Network,
    inputs: jax.Array,
    vector: jax.Array | None,
    key: jax.Array,
) -> jax.Array:
    """Return the increments of one network in law."""
    key_network, key_input, key_direction = random.split(key, 3)
    x = inputs[jax.random.randint(random.held(key_input), (), 0, len(inputs))]
    if kind == "activations":
        return paths.gram(network, x)(key_network).increment
    if vector is None:
        like = _like(network, kind, inputs)
        vector = random.normal(key_direction, like.shape, like.dtype)
    if kind == "vjp":
        return paths.backward(network, x, vector)(key_network)
    return paths.gram(network, x, vector)(key_network).increment


def first_not_finite(
    network: networks.Network, inputs: jax.Array, key: jax.Array, count: int, **options
) -> int | None:
    """Return the first layer whose output is not finite in any of the samples."""
    activations = path(network, "activations", inputs, None)
    increments = np.asarray(sampling.sample(activations, key, count, **options))
    bad = np.flatnonzero(np.isnan(increments).any(0))
    return int(bad[0]) if len(bad) else None
