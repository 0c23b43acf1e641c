"""Log-norm increments through any list of layer callables, by automatic differentiation.

The Jacobian of a network is never formed: a tangent is pushed through one layer at a time and
renormalised after each, so that products of any depth neither overflow nor vanish. ``probe`` says
what they do over fresh initialisations of a model.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import checks, norms, reports, sampling

KINDS = ("jvp", "vjp", "activations")


def jvp_step(layer: Callable, x: jax.Array, tangent: jax.Array) -> tuple[jax.Array, ...]:
    """Push x and a unit tangent through one layer: (layer(x), unit image of the tangent, ln R)."""
    x, image = jax.jvp(layer, (x,), (tangent,))
    increment, tangent = norms.normalise(image)
    return x, tangent, increment


def jvp_increments(
    layers: Sequence[Callable[[jax.Array], jax.Array]], x: Any, tangent: Any
) -> jax.Array:  # (depth,)
    """Return ln R_i = ln(‖J_i … J_1 t‖²/‖J_{i−1} … J_1 t‖²) for each layer, at the input x.

    layers: callables x -> x from any framework, applied in turn, each pure and differentiable.
    x, tangent: arrays of one shape, finite, the tangent not zero; its length does not matter.

    −inf from the first layer that kills the tangent on. Costs one jvp of the network, in the
    floating type of x. The activations are the network's own: where they underflow to 0, a ReLU is
    off and the path dead. Raises ``ValueError``, naming the layer, if a layer cannot take the
    output of the one before.

    >>> increments = jvp_increments([lambda x: 2 * x, jnp.sin], jnp.zeros(3), jnp.ones(3))
    >>> [round(float(value), 6) for value in increments]  # ln 4, ln 1
    [1.386294, 0.0]
    """
    layers, x = _started(layers, x)
    tangent = checks.vector("tangent", tangent, x.shape)
    _, tangent = norms.normalise(jnp.asarray(tangent, x.dtype))
    increments = []
    for layer in layers:
        x, tangent, increment = jvp_step(layer, x, tangent)
        increments.append(increment)
    return jnp.stack(increments)


def vjp_increments(
    layers: Sequence[Callable[[jax.Array], jax.Array]], x: Any, cotangent: Any
) -> jax.Array:  # (depth,)
    """Return ln(‖J_iᵀ … J_dᵀ c‖²/‖J_{i+1}ᵀ … J_dᵀ c‖²) for each layer i: what backpropagation does.

    layers, x: as for ``jvp_increments``. cotangent: of the shape of the output, finite, not zero.

    In the order of the layers, so that their sum is ln ‖Jᵀc‖²/‖c‖²; −inf from the layer that kills
    the cotangent back to the first. Costs one vjp of the network. Raises as ``jvp_increments``.
    """
    layers, x = _started(layers, x)
    pulls = []
    for layer in layers:
        x, pull = jax.vjp(layer, x)
        pulls.append(pull)
    cotangent = checks.vector("cotangent", cotangent, x.shape)
    _, cotangent = norms.normalise(jnp.asarray(cotangent, x.dtype))
    increments = []
    for pull in reversed(pulls):
        increment, cotangent = norms.normalise(pull(cotangent)[0])
        increments.append(increment)
    return jnp.stack(increments[::-1])


def activation_increments(
    layers: Sequence[Callable[[jax.Array], jax.Array]], x: Any
) -> jax.Array:  # (depth,)
    """Return ln(‖x_i‖²/‖x_{i−1}‖²) for each layer, of the activations themselves; x_0 = x.

    layers, x: as for ``jvp_increments``, and x not zero. −inf from the layer whose output is zero
    on. Raises as ``jvp_increments``.
    """
    layers, x = _started(layers, x)
    x = checks.vector("x", x, None)
    sizes = [norms.normalise(x)[0]]
    for layer in layers:
        x = layer(x)
        sizes.append(jnp.where(jnp.isneginf(sizes[-1]), -jnp.inf, norms.normalise(x)[0]))
    before, after = jnp.stack(sizes[:-1]), jnp.stack(sizes[1:])
    dead = jnp.isneginf(after)
    return jnp.where(dead, -jnp.inf, after - jnp.where(dead, 0, before))


def probe(
    layers: Any,
    inputs: Any,
    key: jax.Array,
    *,
    num_samples: int = 1024,
    kind: str = "jvp",
    direction: Any = None,
    factor: float = 10.0,
    **options: Any,
) -> reports.Report:
    """Return what a model does to log-norms, over fresh initialisations.

    layers: key -> list of callables x -> x, a fresh initialisation a key, such as
    ``lambda key: blocks.blocks(Model(rngs=nnx.Rngs(key)), [...])``; or one list, for a model as it
    is, say trained: then only inputs and directions vary. inputs: (count, *shape of an input), of
    which each sample takes one at random. num_samples ≥ 100.
    kind: "jvp", the Jacobian applied to a direction; "vjp", its transpose applied to one; or
    "activations". direction: of the shape of an input (jvp) or output (vjp); default a fresh
    normal one a sample. factor > 1: by how much the root mean square of a coordinate may change;
    see ``reports.Report.verdict``. options: of ``sampling.sample``.

    Raises ``ValueError``, naming the layer, where one cannot take what reaches it, or gives numbers
    that are not finite.
    """
    checks.require(isinstance(kind, str) and kind in KINDS, "kind", kind, f"one of {KINDS}")
    num_samples = checks.integer("num_samples", num_samples, 100)
    allowed = "a number > 1"
    factor = float(checks.real("factor", factor, allowed))
    checks.require(factor > 1, "factor", factor, allowed)
    inputs = checks.vector("inputs", inputs, None, zero=True)
    batch = np.ndim(inputs) >= 2 and len(inputs) >= 1
    checks.require(batch, "inputs.shape", np.shape(inputs), "(count, *shape of an input)")
    inputs = jnp.asarray(inputs, checks.float_dtype(inputs))
    draw = layers if callable(layers) else lambda key: layers
    first = list(draw(checks.typed_key(key)))
    reached = follow(first, inputs[0])
    shape = {"jvp": inputs.shape[1:], "vjp": reached.shape, "activations": None}[kind]
    if direction is not None:
        direction = checks.vector("direction", direction, shape)

    def drawn(key):
        key_layers, key_input, key_direction = jax.random.split(key, 3)
        x = inputs[jax.random.randint(key_input, (), 0, len(inputs))]
        return list(draw(key_layers)), x, key_direction

    def path(key):
        fresh, x, key_direction = drawn(key)
        if kind == "activations":
            return activation_increments(fresh, x)
        along = direction
        if along is None:
            along = jax.random.normal(key_direction, shape, x.dtype)
        return (jvp_increments if kind == "jvp" else vjp_increments)(fresh, x, along)

    def finite(key):
        fresh, x, _ = drawn(key)
        outputs = [x := layer(x) for layer in fresh]
        return jnp.stack([jnp.all(jnp.isfinite(output)) for output in outputs])

    increments = np.asarray(sampling.sample(path, key, num_samples, **options), np.float64)
    names = [f"{i}: {getattr(layer, '__name__', 'layer')}" for i, layer in enumerate(first)]
    bad = np.isnan(increments) | (increments == np.inf)
    if bad.any():
        outputs = ~sampling.sample(finite, key, num_samples)
        places = np.flatnonzero((outputs if outputs.any() else bad).any(0))
        place = places[-1 if kind == "vjp" and not outputs.any() else 0]
        raise ValueError(
            f"layers[{place}] ({names[place]}): its output, or its derivative, is not finite, for "
            f"{bad.any(1).mean():.1%} of the samples."
        )
    growth = np.log(reached.size / inputs[0].size) * (-1 if kind == "vjp" else 1)
    return reports.report(increments, names, growth, factor)


def _started(layers: Any, x: Any) -> tuple[list[Callable], jax.Array]:
    """Return the layers as a list and x as an array, each layer able to take what reaches it."""
    checks.require(isinstance(layers, Iterable), "layers", layers, "a sequence of callables x -> x")
    layers = list(layers)
    checks.require(len(layers) >= 1, "len(layers)", len(layers), "≥ 1")
    x = checks.vector("x", x, None, zero=True)
    x = jnp.asarray(x, checks.float_dtype(x))
    follow(layers, x)
    return layers, x


def follow(layers: Sequence[Callable], x: jax.Array) -> jax.ShapeDtypeStruct:
    """Return the shape of the output; raise ``ValueError``, naming the first layer that fails."""
    reached = jax.ShapeDtypeStruct(x.shape, x.dtype)
    for i, layer in enumerate(layers):
        checks.require(callable(layer), f"layers[{i}]", layer, "a callable x -> x")
        name = getattr(layer, "__name__", "<lambda>")
        own = f" ({name})" if name != "<lambda>" else ""
        before = f"layers[{i}]{own} for an input of shape {reached.shape}"
        try:
            reached = jax.eval_shape(layer, reached)
        except Exception as error:  # of any kind: it is the layer that raised it
            raise ValueError(
                f"{before}: {error} Each layer must take the output of the one before."
            ) from error
        floating = hasattr(reached, "dtype") and jnp.issubdtype(reached.dtype, jnp.floating)
        allowed = "one array of floating point, not empty"
        checks.require(floating and reached.size > 0, f"output of {before}", reached, allowed)
    return reached
