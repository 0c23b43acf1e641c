"""Log-norm increments through any list of layer callables, by automatic differentiation.

The Jacobian of a network is never formed: a tangent is pushed through one layer at a time and
renormalised after each, so that products of any depth neither overflow nor vanish. ``probe`` says
what they do over fresh initialisations of a model.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import checks, norms, reports, sampling

KINDS = ("jvp", "vjp", "activations")


def jvp_step(layer: Callable, x: jax.Array, tangent: jax.Array) -> tuple[jax.Array, ...]:
    """Push x and a unit tangent through one layer: (layer(x), unit image of the tangent, ln R).

    ln R is NaN where layer(x) is not finite: a ReLU would take NaN for off, and the path for dead.
    """
    x, image = jax.jvp(layer, (x,), (tangent,))
    increment, unit = norms.normalise(image)
    return x, unit, _told(increment, tangent, x)


def jvp_increments(
    layers: Sequence[Callable[[jax.Array], jax.Array]], x: Any, tangent: Any
) -> jax.Array:  # (depth,)
    """Return ln R_i = ln(‖J_i … J_1 t‖²/‖J_{i−1} … J_1 t‖²) for each layer, at the input x.

    layers: callables x -> x from any framework, applied in turn, each pure and differentiable.
    x, tangent: arrays of one shape, finite, the tangent not zero; its length does not matter.

    −inf from the first layer that kills the tangent on; NaN from the first whose output is not
    finite. Costs one jvp of the network, in the floating type of x (increments at least float32).
    The activations are the network's own: where they underflow to 0, a ReLU is off and the path
    dead. Raises ``ValueError``, naming the layer, if a layer cannot take the
    output of the one before.

    >>> increments = jvp_increments([lambda x: 2 * x, jnp.sin], jnp.zeros(3), jnp.ones(3))
    >>> [round(float(value), 6) for value in increments]  # ln 4, ln 1
    [1.386294, 0.0]
    """
    layers, x = _started(layers, x)
    tangent = norms.unit(checks.vector("tangent", tangent, x.shape))
    tangent = jnp.asarray(tangent).astype(x.dtype)
    increments = []
    for i, layer in enumerate(layers):
        with _naming(i, layer):
            x, tangent, increment = jvp_step(layer, x, tangent)
        increments.append(increment)
    return norms.lasting(jnp.stack(increments))


def vjp_increments(
    layers: Sequence[Callable[[jax.Array], jax.Array]], x: Any, cotangent: Any
) -> jax.Array:  # (depth,)
    """Return ln(‖J_iᵀ … J_dᵀ c‖²/‖J_{i+1}ᵀ … J_dᵀ c‖²) for each layer i: what backpropagation does.

    layers, x: as for ``jvp_increments``. cotangent: of the shape of the output, finite, not zero.

    In the order of the layers, so that their sum is ln ‖Jᵀc‖²/‖c‖²; −inf from the layer that kills
    the cotangent back to the first; NaN where the output is not finite. Costs one vjp of the
    network. Raises as ``jvp_increments``.
    """
    layers, x = _started(layers, x)
    pulls = []
    for i, layer in enumerate(layers):
        with _naming(i, layer):
            x, pull = jax.vjp(layer, x)
        pulls.append((pull, x))
    cotangent = norms.unit(checks.vector("cotangent", cotangent, x.shape))
    cotangent = jnp.asarray(cotangent).astype(x.dtype)
    increments = []
    for i, (pull, output) in reversed(list(enumerate(pulls))):
        with _naming(i, layers[i]):
            increment, unit = norms.normalise(pull(cotangent)[0])
        increments.append(_told(increment, cotangent, output))
        cotangent = unit
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
    ``lambda key: blocks.blocks(Model(nnx.Rngs(key)), [...])``; or one list, for a model as it
    is, say trained: then only inputs and directions vary. inputs: (count, *shape of an input), of
    which each sample takes one at random, without a batch dimension: for layers that need one give
    (count, 1, *shape), and jnp.ravel for ``x.reshape(len(x), -1)``. Layers that draw or keep
    statistics, such as dropout, must be set to evaluation. num_samples ≥ 100.
    kind: "jvp", the Jacobian applied to a direction; "vjp", its transpose applied to one; or
    "activations". direction: of the shape of an input (jvp) or output (vjp); default a fresh
    normal one a sample. factor > 1: by how much the root mean square of a coordinate may change;
    see ``reports.Report.verdict``. options: of ``sampling.sample``.

    Raises ``ValueError``, naming the layer, where one cannot take what reaches it, or gives numbers
    that are not finite; and for a function of the key that does not depend on it.
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
    checks.vector("inputs", inputs, None, zero=True)
    first, reached = _drawn(layers, checks.typed_key(key), inputs[0])
    draw = layers if callable(layers) else lambda key: layers
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
    names = [f"{i}: {_name(layer)}" for i, layer in enumerate(first)]
    bad = np.isnan(increments) | (increments == np.inf)
    if bad.any():
        drawn_alike = {k: v for k, v in options.items() if k not in ("progress", "run")}
        outputs = ~sampling.sample(finite, key, num_samples, **drawn_alike)
        places = np.flatnonzero((outputs if outputs.any() else bad).any(0))
        place = places[-1 if kind == "vjp" and not outputs.any() else 0]
        raise ValueError(
            f"layers[{place}] ({names[place]}): its output, or its derivative, is not finite, for "
            f"{bad.any(1).mean():.1%} of the samples."
        )
    growth = np.log(reached.size / inputs[0].size) * (-1 if kind == "vjp" else 1)
    return reports.report(increments, names, growth, factor)


def _told(increment: jax.Array, unit: jax.Array, output: jax.Array) -> jax.Array:
    """Return an increment for the unit vector as it was pushed, NaN for an output not finite."""
    if jnp.finfo(unit.dtype).bits < 32:  # it was rounded: its norm is not 1
        size, _ = norms.normalise(unit)
        increment -= jnp.where(jnp.isneginf(size), 0, size)
    return jnp.where(jnp.all(jnp.isfinite(output)), increment, jnp.nan)


@contextlib.contextmanager
def _naming(place: int, layer: Callable):
    """Raise ``ValueError``, naming the layer, where it cannot be differentiated."""
    try:
        yield
    except Exception as error:  # of any kind: it is the layer that raised it
        raise ValueError(f"layers[{place}] ({_name(layer)}): {error}") from error


def _drawn(layers: Any, key: jax.Array, x: jax.Array) -> tuple[list[Callable], Any]:
    """Return a first list of layers, and the shape that they reach; refuse what gives no lists."""
    allowed = "a function key -> list of callables x -> x, or such a list"
    instead = "For a model that is called itself: lambda key: [Model(nnx.Rngs(key))]."
    iterable = isinstance(layers, Iterable)
    checks.require(callable(layers) or iterable, "layers", layers, allowed, instead)
    if not callable(layers):
        return list(layers), follow(list(layers), x)
    try:
        first, second = layers(key), layers(jax.random.fold_in(key, 1))
    except Exception as error:  # of any kind: it is the function that raised it
        raise ValueError(f"layers(key): {error}\nlayers must be {allowed}. {instead}") from error
    checks.require(isinstance(first, Iterable), "layers(key)", first, "a list", instead)
    first, second = list(first), list(second)
    reached = follow(first, x)
    one, other = x, x
    for a, b in zip(first, second, strict=True):
        one, other = a(one), b(other)
    fresh = not bool(jnp.all(one == other)) or not bool(jnp.any(one))
    allowed = "a fresh initialisation for each key"
    instead = "It gives the same for all. For a model as it is give the list itself."
    checks.require(fresh, "layers", layers, allowed, instead)
    return first, reached


def _name(layer: Callable) -> str:
    """Return the name of a function, or that of the class of an object."""
    return getattr(layer, "__name__", type(layer).__name__)


def _started(layers: Any, x: Any) -> tuple[list[Callable], jax.Array]:
    """Return the layers as a list and x as an array, each layer able to take what reaches it."""
    checks.require(isinstance(layers, Iterable), "layers", layers, "a sequence of callables x -> x")
    layers = list(layers)
    checks.require(len(layers) >= 1, "len(layers)", len(layers), "≥ 1")
    x = checks.vector("x", x, None, zero=True)
    x = checks.vector("x", jnp.asarray(x, checks.float_dtype(x)), None, zero=True)
    follow(layers, x)
    return layers, x


def follow(layers: Sequence[Callable], x: jax.Array) -> jax.ShapeDtypeStruct:
    """Return the shape of the output; raise ``ValueError``, naming the first layer that fails."""
    reached = jax.ShapeDtypeStruct(x.shape, x.dtype)
    for i, layer in enumerate(layers):
        checks.require(callable(layer), f"layers[{i}]", layer, "a callable x -> x")
        name = _name(layer)
        own = f" ({name})" if name != "<lambda>" else ""
        before = f"layers[{i}]{own} for an input of shape {reached.shape}"
        try:
            reached = jax.eval_shape(layer, reached)
        except Exception as error:  # of any kind: it is the layer that raised it
            text = str(error).rstrip(". \n")
            raise ValueError(
                f"{before}: {text}. Each layer must take the output of the one before, for one "
                "input, by itself: without a key, and without state that it changes."
            ) from error
        floating = hasattr(reached, "dtype") and jnp.issubdtype(reached.dtype, jnp.floating)
        allowed = "one array of floating point, not empty"
        checks.require(floating and reached.size > 0, f"output of {before}", reached, allowed)
    return reached
