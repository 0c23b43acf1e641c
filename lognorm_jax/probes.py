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

from lognorm_jax import checks, initialisations, norms, reports, sampling, shapes

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
    layers, x, _ = _started(layers, x)
    return _jvp(layers, shapes.labels(layers), x, _unit("tangent", tangent, x))


def vjp_increments(
    layers: Sequence[Callable[[jax.Array], jax.Array]], x: Any, cotangent: Any
) -> jax.Array:  # (depth,)
    """Return ln(‖J_iᵀ … J_dᵀ c‖²/‖J_{i+1}ᵀ … J_dᵀ c‖²) for each layer i: what backpropagation does.

    layers, x: as for ``jvp_increments``. cotangent: of the shape of the output, finite, not zero.

    In the order of the layers, so that their sum is ln ‖Jᵀc‖²/‖c‖²; −inf from the layer that kills
    the cotangent back to the first; NaN where the output is not finite. Costs one vjp of the
    network. Raises as ``jvp_increments``.
    """
    layers, x, reached = _started(layers, x)
    return _vjp(layers, shapes.labels(layers), x, _unit("cotangent", cotangent, reached))


def activation_increments(
    layers: Sequence[Callable[[jax.Array], jax.Array]], x: Any
) -> jax.Array:  # (depth,)
    """Return ln(‖x_i‖²/‖x_{i−1}‖²) for each layer, of the activations themselves; x_0 = x.

    layers, x: as for ``jvp_increments``, and x not zero. −inf from the layer whose output is zero
    on. Raises as ``jvp_increments``.
    """
    layers, x, _ = _started(layers, x)
    return _activations(layers, shapes.labels(layers), checks.vector("x", x, None))


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

    The verdict leaves out fixed changes of shape, such as pooling, which average a random direction
    away whatever the weights (``shapes.is_fixed``). For that they have to be layers of their own,
    or parts of a tuple in ``blocks.blocks``: inside a layer with weights they count as part of it.

    Raises ``ValueError``, naming the layer, where one cannot take what reaches it, or gives numbers
    that are not finite; and for a function of the key that does not depend on it.
    """
    checks.require(isinstance(kind, str) and kind in KINDS, "kind", kind, f"one of {KINDS}")
    num_samples = checks.integer("num_samples", num_samples, 100)
    factor = reports.above_one(factor)
    inputs = initialisations.inputs_of(inputs)
    first, reached = initialisations.first(layers, checks.typed_key(key), inputs[0])
    if direction is not None:
        shape = {"jvp": inputs.shape[1:], "vjp": reached.shape, "activations": None}[kind]
        direction = checks.vector("direction", direction, shape)
    draw = initialisations.drawing(layers if callable(layers) else first, inputs)
    pieces = shapes.plan(first, inputs[0])
    path = _path(draw, kind, direction, reached, shapes.labels(first), pieces)

    measured = np.asarray(sampling.sample(path, key, num_samples, **options), np.float64)
    increments, names = shapes.whole(measured, pieces), shapes.names(first, pieces)
    bad = np.isnan(increments) | (increments == np.inf)
    if bad.any():
        drawn_alike = {k: v for k, v in options.items() if k not in ("progress", "run")}
        outputs = ~sampling.sample(initialisations.finite(draw), key, num_samples, **drawn_alike)
        _refuse(bad, outputs, names, backwards=kind == "vjp")

    weighted = [not piece.fixed for piece in pieces]
    growth = sum(piece.growth for piece in pieces if not piece.fixed)
    judged = measured[:, weighted].sum(1)
    return reports.report(increments, names, -growth if kind == "vjp" else growth, factor, judged)


def _jvp(
    layers: Sequence[Callable], labels: Sequence[str], x: jax.Array, tangent: jax.Array
) -> jax.Array:
    """Return the increments of a unit tangent, naming the layer that has no derivative."""
    increments = []
    for layer, label in zip(layers, labels, strict=True):
        with shapes.naming(label):
            x, tangent, increment = jvp_step(layer, x, tangent)
        increments.append(increment)
    return norms.lasting(jnp.stack(increments))


def _vjp(
    layers: Sequence[Callable], labels: Sequence[str], x: jax.Array, cotangent: jax.Array
) -> jax.Array:
    """Return the increments of a unit cotangent, naming the layer that has no derivative."""
    pulls = []
    for layer, label in zip(layers, labels, strict=True):
        with shapes.naming(label):
            x, pull = jax.vjp(layer, x)
        pulls.append((pull, x, label))
    increments = []
    for pull, output, label in reversed(pulls):
        with shapes.naming(label):
            increment, unit = norms.normalise(pull(cotangent)[0])
        increments.append(_told(increment, cotangent, output))
        cotangent = unit
    return jnp.stack(increments[::-1])


def _activations(
    layers: Sequence[Callable], labels: Sequence[str], x: jax.Array, direction: None = None
) -> jax.Array:
    """Return the increments of the activations; they have no direction."""
    sizes = [norms.normalise(x)[0]]
    for layer, label in zip(layers, labels, strict=True):
        with shapes.naming(label):
            x = layer(x)
        sizes.append(jnp.where(jnp.isneginf(sizes[-1]), -jnp.inf, norms.normalise(x)[0]))
    before, after = jnp.stack(sizes[:-1]), jnp.stack(sizes[1:])
    dead = jnp.isneginf(after)
    return jnp.where(dead, -jnp.inf, after - jnp.where(dead, 0, before))


def _told(increment: jax.Array, unit: jax.Array, output: jax.Array) -> jax.Array:
    """Return an increment for the unit vector as it was pushed, NaN for an output not finite."""
    if jnp.finfo(unit.dtype).bits < 32:  # it was rounded: its norm is not 1
        size, _ = norms.normalise(unit)
        increment -= jnp.where(jnp.isneginf(size), 0, size)
    return jnp.where(jnp.all(jnp.isfinite(output)), increment, jnp.nan)


def _unit(name: str, value: Any, like: Any) -> jax.Array:
    """Return a vector of the shape and type of another, checked and divided by its norm."""
    return jnp.asarray(norms.unit(checks.vector(name, value, like.shape))).astype(like.dtype)


def _started(layers: Any, x: Any) -> tuple[list[Callable], jax.Array, jax.ShapeDtypeStruct]:
    """Return the layers as a list, x as an array, and the shape that it reaches."""
    checks.require(isinstance(layers, Iterable), "layers", layers, "a sequence of callables x -> x")
    x = checks.vector("x", x, None, zero=True)
    x = checks.vector("x", jnp.asarray(x, checks.float_dtype(x)), None, zero=True)
    layers, reached = initialisations.followed(layers, x)
    return layers, x, reached


def _path(
    draw: Callable,
    kind: str,
    direction: Any,
    reached: jax.ShapeDtypeStruct,
    labels: Sequence[str],
    pieces: Sequence[shapes.Piece],
) -> Callable[[jax.Array], jax.Array]:
    """Return key -> the increments of the pieces, in one drawn direction."""
    follow = {"jvp": _jvp, "vjp": _vjp, "activations": _activations}[kind]
    of_pieces = [labels[piece.place] for piece in pieces]

    def path(key):
        layers, x, key_direction = draw(key)
        along = None
        if kind != "activations":
            like = x if kind == "jvp" else reached
            along = direction
            if along is None:
                along = jax.random.normal(key_direction, like.shape, x.dtype)
            along = _unit("direction", along, like)
        return follow(shapes.cut(layers, pieces), of_pieces, x, along)

    return path


def _refuse(bad: np.ndarray, outputs: np.ndarray, names: Sequence[str], backwards: bool) -> None:
    """Raise ``ValueError`` for increments that are not finite, naming the layer they come from."""
    places = np.flatnonzero((outputs if outputs.any() else bad).any(0))
    place = places[-1 if backwards and not outputs.any() else 0]
    raise ValueError(
        f"layers[{place}] ({names[place]}): its output, or its derivative, is not finite, for "
        f"{bad.any(1).mean():.1%} of the samples."
    )
