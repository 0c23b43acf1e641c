"""Fully connected networks, with the law that theory predicts.

For a ReLU network with independent symmetric weights and biases without atoms, and any
input x ≠ 0, the squared norm of J(x)u has exactly the law of the mask model with p =
1/2 (Hanin & Nica 2020): neither x nor the biases matter.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from lognorm_jax import activations, ensembles, laws, masks, weights
from lognorm_jax._tools import bound, checks
from lognorm_jax.networks import _layers, _network


def relu_mlp(
    widths: Sequence[int],
    bias_scale: float | jax.Array = 0.0,
    fan: str = "out",
    head: str = "relu",
    *,
    weight_law: weights.Weights | None = None,
) -> _network.Network:
    """Return a fully connected ReLU network x ↦ relu(W x + b), layer after layer.

    Args:
        widths: (n_0, …, n_d), integers ≥ 1.
        bias_scale: as of ``mlp``.
        fan: a weight has variance 2/n_i ("out") or 2/n_{i−1} ("in").
        head: "relu", or "linear" for a last layer without activation, of variance 1/n.
        weight_law: as of ``mlp``.

    Returns:
        A network, as that of ``mlp``.

    Raises:
        ValueError: for arguments outside of these.

    Source:
        Hanin & Nica (2020), as in theory section 1.

    >>> import jax
    >>> network = relu_mlp((64, 32, 32, 10), bias_scale=0.1, head="linear")
    >>> layers = network.layers(network.init(jax.random.key(0)))
    >>> layers[0](jax.numpy.ones(64)).shape, len(layers)
    ((32,), 3)
    """
    checks.one_of("head", head, ("relu", "linear"))
    return mlp(widths, "relu", bias_scale, fan, head, weight_law=weight_law)


def mlp(
    widths: Sequence[int],
    activation: str | activations.Activation = "relu",
    bias_scale: float | jax.Array = 0.0,
    fan: str = "out",
    head: str = "same",
    *,
    weight_law: weights.Weights | None = None,
    keep_prob: float = 1,
    gain: float | jax.Array | None = None,
) -> _network.Network:
    """Return a fully connected network x ↦ φ(W x + b), layer after layer.

    ``bias_scale`` and ``gain`` may be traced: a network made in the function that
    ``jax.grad`` or ``jax.vmap`` transforms has derivatives by them.

    Args:
        widths: (n_0, …, n_d), integers ≥ 1.
        activation: an ``activations.Activation`` or its name.
        bias_scale: standard deviation ≥ 0 of the normal biases.
        fan: a weight has variance gain/n_i ("out") or gain/n_{i−1} ("in").
        head: "same", or "linear" for a last layer without activation and dropout, of
            variance 1/n.
        weight_law: default normal; the law of the Jacobian is the ensemble's only for
            laws without atoms.
        keep_prob: in (0, 1]: dropout at initialisation, one mask drawn with the
            parameters of each layer; the gain is divided by it.
        gain: in [1e-30, 1e30]; that of the activation over keep_prob unless given.

    Returns:
        A network; trained parameters of one layer are {"weight": (n_i, n_{i−1}),
        "bias": (n_i,)}, fixed is its dropout mask. ``ensemble`` is None for activations
        without a mask and where the gain is another.

    Raises:
        ValueError: for arguments outside of these.

    Source:
        Hanin & Nica (2020), as in theory section 1; gains in theory section 15.
    """
    phi = activations.named(activation)
    checks.one_of("head", head, dict.fromkeys(("same", phi.name, "linear")))
    # a fraction if given as one
    kept: Any = checks.probability("keep_prob", keep_prob, "For no dropout take 1.")
    weight_law = _layers.checked_law(weight_law)
    usual_gain = phi.gain / float(kept)
    gain = usual_gain if gain is None else activations.gain(gain)
    biases = _layers.checked_biases(bias_scale)

    # the product of random matrices, which checks widths and fan
    ensemble = _ensemble(widths, weight_law, phi, kept, fan)
    hidden = ensemble.depth
    if head == "linear":
        hidden -= 1
        ensemble = _with_linear_head(ensemble)

    # the layers, those alike being one object
    layer_of = functools.partial(_layer, fan, weight_law, biases)
    usual_kind = functools.cache(functools.partial(layer_of, phi, gain, kept))
    head_kind = functools.partial(layer_of, activations.linear(), 1.0, 1)
    shapes = list(itertools.pairwise(ensemble.widths))
    kinds = [usual_kind(*shape) for shape in shapes[:hidden]]
    kinds += [head_kind(*shape) for shape in shapes[hidden:]]

    # what theory says
    usual = not hidden or (not checks.traced(gain) and gain == usual_gain)
    predicted = phi.mask is not None and weight_law.symmetric
    shift = None if usual else functools.partial(_shift, gain, usual_gain, hidden)
    return _network.Network(
        name=_name(phi, head),
        shape=ensemble.widths[:1],
        kinds=tuple(kinds),
        homogeneous=phi.homogeneous and biases is None,
        ensemble=ensemble if usual and predicted else None,
        law=functools.partial(_law, ensemble, shift) if predicted else None,
    )


def _name(phi: activations.Activation, head: str) -> str:
    """Return the name that tables and legends show."""
    named = "relu_mlp" if phi.rectifier else f"{phi.name} mlp"
    return f"{named}, {head} head"


def _ensemble(
    widths: Sequence[int],
    weight_law: weights.Weights,
    phi: activations.Activation,
    keep_prob: float,
    fan: str,
) -> ensembles.Ensemble:
    """Return the product of matrices with the mask of an activation under dropout."""
    mask = masks.identity() if phi.mask is None else phi.mask
    if keep_prob != 1:
        mask = masks.dropout(keep_prob, mask)
    return ensembles.Ensemble(widths, weight_law, mask, fan)


def _with_linear_head(ensemble: ensembles.Ensemble) -> ensembles.Ensemble:
    """Return the product whose last matrix has no mask."""
    linear = (*ensemble.masks[:-1], masks.identity())
    return dataclasses.replace(ensemble, masks=linear)


def _layer(
    fan: str,
    weight_law: weights.Weights,
    bias_scale: float | jax.Array | None,
    phi: activations.Activation,
    gain: float | jax.Array,
    keep_prob: float,
    n_in: int,
    n_out: int,
) -> _layers.Layer:
    """Return the layer x ↦ φ(W x + b), under dropout."""
    dropout = None
    if keep_prob < 1:
        dropout = _layers.entries(masks.bernoulli(keep_prob), n_out)
    fan_size = n_out if fan == "out" else n_in
    matrix = _layers.Matrix(
        shape=(n_out, n_in),
        std=(gain / fan_size) ** 0.5,
        weights=weight_law,
        bias_scale=bias_scale,
        after=bound.Bound(_layers.activated, (), (bound.bound(phi.apply),)),
        fixed=dropout,
    )
    return _layers.layer(matrix)


def _shift(
    gain: float | jax.Array, usual_gain: float | jax.Array, hidden: int
) -> float:
    """Return what another gain adds to ln ‖J u‖²."""
    checks.require_known("gain", gain)
    return math.log(float(gain / usual_gain)) * hidden


def _law(
    ensemble: ensembles.Ensemble,
    shift: Callable[[], float] | None,
    x: jax.typing.ArrayLike | None,
    tangent: jax.typing.ArrayLike | None,
) -> laws.Law:
    """Return the limit law of the ensemble, shifted; neither depends on x."""
    del x
    limit = ensembles.limit_law(ensemble, tangent)
    if shift is None:
        return limit
    return laws.normal(limit.mean + shift(), limit.variance)
