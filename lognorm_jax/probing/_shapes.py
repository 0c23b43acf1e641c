"""What layers do to shapes, and which of them do nothing else than change the shape.

A mean over pixels shrinks a random direction, and a sum stretches it, by what they are
and whatever the weights: that says nothing of depth. So pooling, flattening, slicing
and padding, which hold no weights and act alike on values of any size, are told apart
as fixed changes of shape.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax._tools import callables, checks
from lognorm_jax.probing import _frameworks, _layers
from lognorm_jax.probing._layers import Layer


def follow(layers: Sequence[Layer], x: jax.Array) -> jax.ShapeDtypeStruct:
    """Return the shape of the output; refuse a layer that cannot take what reaches it.

    Args:
        layers: callables x -> x, applied in turn.
        x: an input of the first.

    Raises:
        ValueError: naming the first layer that fails, and what to do.
    """
    shape_after = shapes_after()
    reached = jax.ShapeDtypeStruct(x.shape, x.dtype)
    for place, layer in enumerate(layers):
        label = _layers.label(place, layer)
        before = f"{label} for an input of shape {reached.shape}"
        try:
            program, _ = callables.apart(layer)
            after = shape_after(layer, program, reached)
        except Exception as error:
            # of any kind: it is the layer that raised it
            text = str(error).rstrip(". \n")
            instead = _way_out(error, layer, reached)
            raise ValueError(f"{before}: {text}. {instead}") from error
        floating = hasattr(after, "dtype") and jnp.issubdtype(after.dtype, jnp.floating)
        allowed = "one array of floating point, not empty"
        usable = floating and after.size > 0
        checks.require(usable, f"output of {before}", after, allowed)
        reached = after
    return reached


def shapes_after() -> Callable[[Layer, callables.Program, jax.ShapeDtypeStruct], Any]:
    """Return (layer, what it does, shape before) -> shape after, traced once each."""
    known: dict[Any, Any] = {}

    def shape_after(layer, program, before):
        kind = program, before.shape, before.dtype
        if kind not in known:
            # lambda: JAX keeps a trace by its function, and the layer may change
            known[kind] = jax.eval_shape(lambda x: layer(x), before)
        return known[kind]

    return shape_after


def _way_out(error: Exception, layer: Layer, x: jax.ShapeDtypeStruct) -> str:
    """Return what to do about a layer that cannot take x."""
    if known := _frameworks.way_out(error):
        return known
    with contextlib.suppress(Exception):
        jax.eval_shape(layer, jax.ShapeDtypeStruct(x.shape, jnp.int32))
        return (
            "It takes integers, as an embedding does, which cannot be differentiated: "
            "start after it, and give the embedded inputs."
        )
    return (
        "Each layer must take the output of the one before, for one input, by itself: "
        "without a key, and without state that it changes."
    )


def is_fixed(layer: Layer, x: jax.Array | np.ndarray | jax.ShapeDtypeStruct) -> bool:
    """Return whether a layer is a fixed change of shape, such as pooling or flattening.

    It gives another shape, holds no arrays but indices, and does the same to values of
    any size and sign: with f the layer, f(x + 1) − f(x) is the same at x and −x, and
    f(8x) − f(0) is 8 (f(x) − f(0)). So do means, sums, maxima, slices and paddings, but
    not activations that change the shape, such as gated linear units: what these lose
    is lost layer by layer.

    Args:
        layer: a callable x -> x.
        x: an input of it, of floating point, or the ``jax.ShapeDtypeStruct`` of one.

    Returns:
        True for a fixed change of shape.

    Raises:
        ValueError: for a layer that is no callable, and an x without such a type.

    >>> x = jax.ShapeDtypeStruct((4, 6), jnp.float32)
    >>> [is_fixed(f, x) for f in (jnp.ravel, lambda x: x.max(0), jax.nn.glu, jnp.abs)]
    [True, True, False, False]
    """
    checks.function("layer", layer, "a callable x -> x")
    floating = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)
    checks.require(
        floating, "x", x, "an array of floating point, or its shape and type"
    )
    before = jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))
    return changes_only_shape(layer, before, jax.eval_shape(layer, before))


def changes_only_shape(
    layer: Layer, before: jax.ShapeDtypeStruct, after: jax.ShapeDtypeStruct
) -> bool:
    """Return ``is_fixed``, where the shape after the layer is known."""
    if after.shape == before.shape:
        return False
    return not holds_weights(layer, before) and _treats_all_alike(layer, before)


def holds_weights(layer: Layer, x: jax.ShapeDtypeStruct) -> bool:
    """Return whether arrays other than indices and masks go into what a layer does.

    Or such indices as are drawn with the model, which JAX traces.
    """
    # lambda: JAX keeps a trace by its function, and the layer may change
    jaxpr = jax.make_jaxpr(lambda x: layer(x))(x)
    for array in _arrays(jaxpr):
        index = jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool
        if not index or checks.traced_array(array):
            return True
    return False


def _arrays(jaxpr: Any) -> Iterator[Any]:
    """Yield the arrays, not the literal numbers, in a jaxpr and those inside it."""
    yield from getattr(jaxpr, "consts", ())
    for equation in jaxpr.eqns:
        for atom in equation.invars:
            value = getattr(atom, "val", 0)
            if isinstance(value, jax.Array) or np.ndim(value) > 0:
                yield value
        for param in equation.params.values():
            several = param if isinstance(param, tuple | list) else (param,)
            for inner in several:
                if hasattr(inner, "eqns"):
                    yield from _arrays(inner)


def _treats_all_alike(layer: Layer, before: jax.ShapeDtypeStruct) -> bool:
    """Return whether a layer does the same to values of any size and sign."""
    f = jax.jit(lambda x: layer(x))
    uniform = np.random.default_rng(0).uniform(0.5, 1.5, before.shape)
    x = uniform.astype(before.dtype)
    points = (0 * x, x, x + 1, 8 * x, -x, 1 - x)
    # also where the model is being traced
    with jax.ensure_compile_time_eval():
        values = [np.asarray(f(point)).astype(np.float64) for point in points]
    at_zero, at_x, above, at_8x, at_minus_x, above_minus_x = values

    # half of the digits, as sums over many coordinates lose some
    largest = max(np.abs(at_x).max(), np.abs(above).max())
    rounding = math.sqrt(jnp.finfo(before.dtype).eps) * largest
    # where it is not finite it does not
    with np.errstate(invalid="ignore"):
        shift = np.abs((above - at_x) - (above_minus_x - at_minus_x)).max()
        scale = np.abs((at_8x - at_zero) - 8 * (at_x - at_zero)).max()
    return bool(shift <= rounding and scale <= 8 * rounding)
