"""What models do to log-norms, layer by layer, over fresh initialisations of them.

``jvp_increments``, ``vjp_increments`` and ``activation_increments`` follow one
initialisation; ``probe`` samples many, and says whether gradients vanish or explode.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from lognorm_jax import networks, sampling
from lognorm_jax._tools import checks, random, traces
from lognorm_jax.probing import (
    _autodiff,
    _in_law,
    _initialisations,
    _pieces,
    _runs,
    reports,
)
from lognorm_jax.probing._autodiff import (
    activation_increments,
    jvp_increments,
    vjp_increments,
)
from lognorm_jax.probing._shapes import is_fixed

__all__ = [
    "KINDS",
    "activation_increments",
    "is_fixed",
    "jvp_increments",
    "probe",
    "vjp_increments",
]

KINDS = ("jvp", "vjp", "activations")
audit: Callable[..., Any]  # that of ``audits``, which the package puts here


def probe(
    layers: _initialisations.Layers | networks.Network,
    inputs: ArrayLike,
    key: jax.Array,
    *,
    num_samples: int = 1024,
    kind: str = "jvp",
    direction: ArrayLike | None = None,
    factor: float = 10.0,
    **options: Any,
) -> reports.Report:
    """Return what a model does to log-norms, over fresh initialisations.

    The verdict leaves out fixed changes of shape, such as pooling, which average a
    random direction away whatever the weights; ``probes.is_fixed`` tells which layers
    these are. For that they have to be layers of their own, or parts of a tuple in
    ``models.blocks``: inside a layer with weights they count as part of it.

    Args:
        layers: key -> list of callables x -> x, a fresh initialisation for each key,
            such as ``lambda key: models.blocks(Model(nnx.Rngs(key)), [...])``; or one
            list, for a model as it is, say trained: then only inputs and directions
            vary. Layers that draw or keep statistics, such as dropout, must be set to
            evaluation. The same function is compiled once, as all that JAX compiles: if
            a global variable that it depends on has changed, define it anew. The keys
            that it is given draw JAX's numbers, but may be of a quicker kind. Or a
            network of ``networks``: with normal or orthogonal weights it is followed in
            law, at any width, and no weights are drawn.
        inputs: (count, *shape of an input), of which each sample takes one at random,
            without a batch dimension: for layers that need one give (count, 1, *shape),
            and jnp.ravel for ``x.reshape(len(x), -1)``.
        key: one typed key.
        num_samples: how many initialisations, ≥ 100.
        kind: "jvp", the Jacobian applied to a direction; "vjp", its transpose applied
            to one; or "activations".
        direction: of the shape of an input (jvp) or output (vjp), finite, not zero;
            default a fresh normal one for each sample.
        factor: > 1, by how much the root mean square of a coordinate may change; see
            ``reports.Report.verdict``.
        **options: of ``sampling.sample``.

    Returns:
        A ``reports.Report``, of ln R of each layer; printed, it is a table.

    Raises:
        ValueError: naming the layer, where one cannot take what reaches it, or gives
            numbers that are not finite; for a function of the key that does not depend
            on it; and for arguments of another kind or range.

    Source:
        ln R as for ``jvp_increments``, ``vjp_increments`` and
        ``activation_increments``; held against the exact law of ReLU networks in
        tests/test_probes.py. The verdict is that of ``reports.report``.
    """
    kind = checks.one_of("kind", kind, KINDS)
    num_samples = checks.integer("num_samples", num_samples, 100)
    factor = checks.number("factor", factor, "(1, inf)")
    inputs = _initialisations.inputs_of(inputs)
    key = checks.typed_key(key)
    if isinstance(layers, networks.Network):
        if layers.undrawn:
            own = inputs, key, num_samples, kind, direction, factor
            return _in_law_report(layers, *own, **options)
        layers = functools.partial(_drawn, layers)

    # the layers, and which parts of them are measured as one
    x = inputs[0]
    plan = _initialisations.planned(layers, key, x)
    pieces = plan.pieces
    like = plan.output if kind == "vjp" else jax.ShapeDtypeStruct(x.shape, x.dtype)
    vector = _vector(kind, direction, like)
    choices = plan.source, kind, like, tuple(pieces), tuple(plan.labels)
    path = traces.Path(_increments, choices, (inputs, vector))

    samples = sampling.sample(path, key, num_samples, **options)
    measured = np.asarray(samples, np.float64)
    increments = _pieces.whole(measured, pieces)
    bad = np.isnan(increments) | (increments == np.inf)
    if bad.any():
        # the same samples, which a run does not keep
        again = {k: v for k, v in options.items() if k not in ("progress", "run")}
        finite = _initialisations.finite(plan.source, inputs)
        outputs = np.asarray(sampling.sample(finite, key, num_samples, **again))
        _refuse(bad, ~outputs, plan.names, kind == "vjp")

    # what is judged: all but fixed changes of shape
    return _judged(increments, measured, plan, kind, factor)


def _drawn(network: networks.Network, key: jax.Array) -> list[_initialisations.Layer]:
    """Return the layers of a network, with weights."""
    return network.layers(network.init(key))


def _in_law_report(
    network: networks.Network,
    inputs: jax.Array,
    key: jax.Array,
    num_samples: int,
    kind: str,
    direction: ArrayLike | None,
    factor: float,
    **options: Any,
) -> reports.Report:
    """Return the report of a network, without its weights."""
    path = _in_law.path(network, kind, inputs, direction)
    # names, and which layers only change shapes
    drawn: Any = functools.partial(_drawn, network)
    if not network.matrices:
        drawn = drawn(key)
    plan = _initialisations.planned(drawn, key, inputs[0])
    samples = sampling.sample(path, key, num_samples, **options)
    increments = np.asarray(samples, np.float64)
    bad = np.isnan(increments) | (increments == np.inf)
    if bad.any():
        again = {k: v for k, v in options.items() if k not in ("progress", "run")}
        first = _in_law.first_not_finite(network, inputs, key, num_samples, **again)
        outputs = np.zeros(bad.shape, bool)
        if first is not None:
            outputs[:, first] = True
        _refuse(bad, outputs, plan.names, kind == "vjp")
    return _judged(increments, increments, plan, kind, factor)


def _judged(
    increments: np.ndarray,
    measured: np.ndarray,
    plan: _initialisations.Plan,
    kind: str,
    factor: float,
) -> reports.Report:
    """Return the report of layers, judged by the pieces that are not fixed."""
    judged = measured[:, [not piece.fixed for piece in plan.pieces]].sum(1)
    growth = sum(piece.growth for piece in plan.pieces if not piece.fixed)
    if kind == "vjp":
        growth = -growth
    return reports.report(increments, plan.names, growth, factor, judged)


def _vector(kind: str, direction: Any, like: jax.ShapeDtypeStruct) -> jax.Array | None:
    """Return the unit vector that is pushed, or None: a fresh one for each sample."""
    if direction is None:
        return None
    if kind == "activations":
        checks.vector("direction", direction, None)
        return None
    return _autodiff.unit("direction", direction, like)


def _increments(
    source: _initialisations.Source,
    kind: str,
    like: jax.ShapeDtypeStruct,
    pieces: Sequence[_pieces.Piece],
    labels: Sequence[str],
    inputs: jax.Array,
    vector: jax.Array | None,
    key: jax.Array,
) -> jax.Array:
    """Return the increments of the pieces of one initialisation."""
    fresh, x, key_direction = _initialisations.drawn(source, inputs, key)
    cut = list(zip(labels, _pieces.cut(fresh, pieces), strict=True))
    runs = _runs.repeated(cut, x)
    if kind == "activations":
        return _autodiff.activations(runs, x)
    if vector is None:
        normal = random.normal(key_direction, like.shape, x.dtype)
        vector = _autodiff.unit("direction", normal, like)
    push = _autodiff.jvp if kind == "jvp" else _autodiff.vjp
    return push(runs, x, vector)


def _refuse(
    bad: np.ndarray, outputs: np.ndarray, names: Sequence[str], backwards: bool
) -> None:
    """Raise ``ValueError`` for increments that are not finite, naming their layer."""
    # the first output that is not finite; or the first derivative, from where it starts
    if outputs.any():
        place = np.flatnonzero(outputs.any(0))[0]
    else:
        place = np.flatnonzero(bad.any(0))[-1 if backwards else 0]
    share = bad.any(1).mean()
    raise ValueError(
        f"layers[{place}] ({names[place]}): its output, or its derivative, is not "
        f"finite, for {share:.1%} of the samples."
    )
