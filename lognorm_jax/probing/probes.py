"""Log-norm increments through any list of layer callables, by automatic
differentiation.

The Jacobian of a network is never formed: a tangent is pushed through one layer at a
time and renormalised after each, so that products of any depth neither overflow nor
vanish. ``probe`` says what they do over fresh initialisations of a model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lognorm_jax import sampling
from lognorm_jax._tools import checks
from lognorm_jax.probing import _autodiff, _initialisations, _shapes, reports
from lognorm_jax.probing._autodiff import (
    activation_increments,
    jvp_increments,
    vjp_increments,
)

__all__ = [
    "KINDS",
    "activation_increments",
    "jvp_increments",
    "probe",
    "vjp_increments",
]

KINDS = ("jvp", "vjp", "activations")


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
    ``lambda key: blocks.blocks(Model(nnx.Rngs(key)), [...])``; or one list, for a model
    as it is, say trained: then only inputs and directions vary. inputs: (count, *shape
    of an input), of which each sample takes one at random, without a batch dimension:
    for layers that need one give (count, 1, *shape), and jnp.ravel for
    ``x.reshape(len(x), -1)``. Layers that draw or keep statistics, such as dropout,
    must be set to evaluation. num_samples ≥ 100. kind: "jvp", the Jacobian applied to a
    direction; "vjp", its transpose applied to one; or "activations". direction: of the
    shape of an input (jvp) or output (vjp); default a fresh normal one a sample. factor
    > 1: by how much the root mean square of a coordinate may change; see
    ``reports.Report.verdict``. options: of ``sampling.sample``.

    The verdict leaves out fixed changes of shape, such as pooling, which average a
    random direction away whatever the weights (``shapes.is_fixed``). For that they have
    to be layers of their own, or parts of a tuple in ``blocks.blocks``: inside a layer
    with weights they count as part of it.

    Raises ``ValueError``, naming the layer, where one cannot take what reaches it, or
    gives numbers that are not finite; and for a function of the key that does not
    depend on it.
    """
    checks.require(
        isinstance(kind, str) and kind in KINDS, "kind", kind, f"one of {KINDS}"
    )
    num_samples = checks.integer("num_samples", num_samples, 100)
    factor = reports.above_one(factor)
    inputs = _initialisations.inputs_of(inputs)
    first, reached = _initialisations.first(layers, checks.typed_key(key), inputs[0])
    if direction is not None:
        shape = {"jvp": inputs.shape[1:], "vjp": reached.shape, "activations": None}[
            kind
        ]
        direction = checks.vector("direction", direction, shape)
    draw = _initialisations.drawing(layers if callable(layers) else first, inputs)
    pieces = _shapes.plan(first, inputs[0])
    path = _path(draw, kind, direction, reached, _shapes.labels(first), pieces)

    measured = np.asarray(
        sampling.sample(path, key, num_samples, **options), np.float64
    )
    increments, names = _shapes.whole(measured, pieces), _shapes.names(first, pieces)
    bad = np.isnan(increments) | (increments == np.inf)
    if bad.any():
        drawn_alike = {k: v for k, v in options.items() if k not in ("progress", "run")}
        outputs = ~sampling.sample(
            _initialisations.finite(draw), key, num_samples, **drawn_alike
        )
        _refuse(bad, outputs, names, backwards=kind == "vjp")

    weighted = [not piece.fixed for piece in pieces]
    growth = sum(piece.growth for piece in pieces if not piece.fixed)
    judged = measured[:, weighted].sum(1)
    return reports.report(
        increments, names, -growth if kind == "vjp" else growth, factor, judged
    )


def _path(
    draw: Callable,
    kind: str,
    direction: Any,
    reached: jax.ShapeDtypeStruct,
    labels: Sequence[str],
    pieces: Sequence[_shapes.Piece],
) -> Callable[[jax.Array], jax.Array]:
    """Return key -> the increments of the pieces, in one drawn direction."""
    follow = {
        "jvp": _autodiff.jvp,
        "vjp": _autodiff.vjp,
        "activations": _autodiff.activations,
    }[kind]
    of_pieces = [labels[piece.place] for piece in pieces]

    def path(key):
        layers, x, key_direction = draw(key)
        along = None
        if kind != "activations":
            like = x if kind == "jvp" else reached
            along = direction
            if along is None:
                along = jax.random.normal(key_direction, like.shape, x.dtype)
            along = _autodiff.unit("direction", along, like)
        return follow(_shapes.cut(layers, pieces), of_pieces, x, along)

    return path


def _refuse(
    bad: np.ndarray, outputs: np.ndarray, names: Sequence[str], backwards: bool
) -> None:
    """Raise ``ValueError`` for increments that are not finite, naming the layer they
    come from.
    """
    places = np.flatnonzero((outputs if outputs.any() else bad).any(0))
    place = places[-1 if backwards and not outputs.any() else 0]
    raise ValueError(
        f"layers[{place}] ({names[place]}): its output, or its derivative, is not finite, for "
        f"{bad.any(1).mean():.1%} of the samples."
    )
