"""Real networks as lists of layer callables, made together with the law that theory predicts.

For a ReLU network with independent symmetric weights and biases without atoms, and any input
x ≠ 0, the squared norm of J(x)u has exactly the law of the mask model with p = 1/2 (Hanin & Nica
2020): neither x nor the biases matter. Residual and convolutional networks have other laws; the
network and what is known of its law are made by one call.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from lognorm_jax import (
    activations,
    checks,
    convolutions,
    ensembles,
    jacobians,
    laws,
    layers,
    masks,
    residuals,
    weights,
)

Network = layers.Network
jacobian_path = jacobians.jacobian_path


def limit_law(network: Network, x: Any = None, tangent: Any = None) -> laws.Law:
    """Return the limit law of ln ‖J(x) tangent‖²/‖tangent‖², as far as theory has one.

    x, tangent: as for ``jacobian_path``; None: on average over inputs or directions.
    Multilayer perceptrons with a mask: ``ensembles.limit_law``, shifted by the log of the gain over
    its own. Residual networks: ``residuals.law_moments``; the vanilla one along x only, whose law
    depends on x, and whose variance is low by a relative 3/n to 8/n, and off by up to 12% more for
    an input with few positive coordinates. Raises ``ValueError`` for a network, an input or a
    direction without a law, saying how to sample it.
    """
    checks.instance("network", network, Network)
    given = (("x", x), ("tangent", tangent))
    for name, value in given:
        checks.require_known(name, value)
    x, tangent = (v if v is None else checks.vector(name, v, network.shape) for name, v in given)
    instead = "Sample it: paths.gram or networks.jacobian_path, then laws.empirical."
    known = network.law is not None
    checks.require(known, "network", network.name, "one whose limit law is known", instead)
    return network.law(x, tangent)


def relu_mlp(
    widths: Any,
    bias_scale: Any = 0.0,
    fan: str = "out",
    head: str = "relu",
    *,
    weight_law: weights.Weights | None = None,
) -> Network:
    """Return a fully connected ReLU network x ↦ relu(W x + b), layer after layer: ``mlp`` with it.

    widths: (n_0, …, n_d), integers ≥ 1. Weight variance 2/n_i (fan "out") or 2/n_{i−1} ("in").
    head: "relu", or "linear" for a last layer without activation, of variance 1/n.

    >>> import jax
    >>> network = relu_mlp((64, 32, 32, 10), bias_scale=0.1, head="linear")
    >>> layers = network.layers(network.init(jax.random.key(0)))
    >>> layers[0](jnp.ones(64)).shape, len(layers)
    ((32,), 3)
    """
    known = isinstance(head, str) and head in ("relu", "linear")
    checks.require(known, "head", head, "'relu' or 'linear'")
    return mlp(widths, "relu", bias_scale, fan, head, weight_law=weight_law)


def mlp(
    widths: Any,
    activation: Any = "relu",
    bias_scale: Any = 0.0,
    fan: str = "out",
    head: str = "same",
    *,
    weight_law: weights.Weights | None = None,
    keep_prob: float = 1,
    gain: Any = None,
) -> Network:
    """Return a fully connected network x ↦ φ(W x + b), layer after layer.

    widths: (n_0, …, n_d), integers ≥ 1. activation: an ``activations.Activation`` or its name.
    bias_scale: standard deviation ≥ 0 of the normal biases. fan: a weight has variance gain/n_i
    ("out") or gain/n_{i−1} ("in"), with gain that of the activation unless given. weight_law:
    default normal; the law of the Jacobian is the ensemble's only for laws without atoms.
    head: "same", or "linear" for a last layer without activation and dropout, of variance 1/n.
    keep_prob: in (0, 1]: dropout at initialisation, one mask drawn with the parameters of each
    layer; the gain is divided by it. bias_scale and gain may be traced: a network made in the
    function that ``jax.grad`` or ``jax.vmap`` transforms has derivatives by them.

    Parameters of one layer: {"weight": (n_i, n_{i−1}), "bias": (n_i,)}, with dropout "fixed" as
    well. ``ensemble`` is None for activations without a mask and where gain is another.
    """
    activation = activations.named(activation)
    known = isinstance(head, str) and head in ("same", activation.name, "linear")
    checks.require(known, "head", head, "'same' or 'linear'")
    keep_prob = checks.probability("keep_prob", keep_prob)
    base = masks.identity() if activation.mask is None else activation.mask
    mask = base if keep_prob == 1 else masks.dropout(keep_prob, base)
    weight_law = weights.normal() if weight_law is None else weight_law
    ensemble = ensembles.Ensemble(widths, weight_law, mask, fan)
    own_gain = activation.gain / float(keep_prob)
    gain = own_gain if gain is None else activations.gain(gain)
    bias_scale = layers.bias_scale(bias_scale)
    heads = {False: (activation, gain, keep_prob), True: (activations.linear(), 1.0, 1)}
    if head == "linear":
        last = (*ensemble.masks[:-1], masks.identity())
        ensemble = dataclasses.replace(ensemble, masks=last)
    is_head = [False] * (ensemble.depth - 1) + [head == "linear"]
    shapes = list(zip(ensemble.widths[:-1], ensemble.widths[1:], is_head, strict=True))

    def kind(n_in, n_out, is_head):
        phi, variance, keep = heads[is_head]
        std = (variance / (n_out if fan == "out" else n_in)) ** 0.5
        drop = layers.kept(keep, n_out) if keep < 1 else None

        def after(fixed, x, z):
            return phi.apply(z) if fixed is None else fixed * phi.apply(z)

        matrix = layers.Matrix((n_out, n_in), std, weight_law, bias_scale, layers.same, after, drop)
        return layers.layer(matrix)

    made = {shape: kind(*shape) for shape in dict.fromkeys(shapes)}
    kinds = tuple(made[shape] for shape in shapes)
    footprint = max(n_in * n_out for n_in, n_out, _ in shapes)
    name = f"{'relu_mlp' if activation.name == 'relu' else activation.name + ' mlp'}, {head} head"
    own = is_head.count(False) == 0 or (not checks.traced(gain) and gain == own_gain)

    def law(x, tangent):
        del x
        limit = ensembles.limit_law(ensemble, tangent)
        if own:
            return limit
        checks.require_known("gain", gain)
        shift = math.log(gain / own_gain) * is_head.count(False)
        return laws.normal(limit.mean + shift, limit.variance)

    homogeneous = activation.homogeneous and layers.unbiased(bias_scale)
    known = activation.mask is not None and weight_law.symmetric
    theory = (ensemble if own else None, law) if known else ()
    return Network(name, ensemble.widths[:1], kinds, footprint, homogeneous, *theory)


def residual(
    width: int,
    depth: int,
    kind: str = "vanilla",
    *,
    skip_scale: Any = 0.5**0.5,
    branch_scale: Any = 0.5**0.5,
    activation: Any = "relu",
    bias_scale: Any = 0.0,
    weight_law: weights.Weights | None = None,
    input_width: int | None = None,
) -> Network:
    """Return a residual network of ``depth`` blocks z ↦ α z + λ·branch(z), on vectors (width,).

    kind: the branch, with W of variance gain/width:
    "vanilla", W φ(z) + b; "balanced", W φ(s ⊙ z) + b with fixed random signs s; "post",
    φ(W z + b); "mask model", D ⊙ (W z + b) with iid entries D of the activation's mask.
    skip_scale, branch_scale: α, λ in [0, 1e6]; α² + λ² ≠ 1 is allowed, with a warning. They and
    bias_scale may be traced, as in ``mlp``.
    ``skip_scale=(1 - 1 / depth)**0.5, branch_scale=depth**-0.5`` keep the log-variance small at any
    depth.
    input_width: n_0, for a linear layer n_0 → width of variance 1/width before the blocks.

    The limit law is known for relu, leaky and shaped ReLUs; of the vanilla one for relu, no biases.
    """
    width, depth = checks.integer("width", width, 1), checks.integer("depth", depth, 1)
    known = isinstance(kind, str) and kind in residuals.KINDS
    checks.require(known, "kind", kind, f"one of {', '.join(map(repr, residuals.KINDS))}")
    alpha, lam = residuals.scales(skip_scale, branch_scale)
    phi, bias_scale = activations.named(activation), layers.bias_scale(bias_scale)
    weight_law = weights.normal() if weight_law is None else weight_law
    checks.instance("weight_law", weight_law, weights.Weights)
    masked = kind == "mask model"
    checks.require(not masked or phi.mask is not None, "activation", phi.name, "one with a mask")
    before = {"vanilla": lambda s, z: phi.apply(z), "balanced": lambda s, z: phi.apply(s * z)}
    after = {
        "post": lambda s, z, h: alpha * z + lam * phi.apply(h),
        "mask model": lambda D, z, h: alpha * z + lam * D * h,
    }
    fixed = {"balanced": layers.signs(width)}
    scale = phi.gain
    if masked:
        scale = 1 / float(phi.mask.moment(1))
        fixed[kind] = lambda key: phi.mask.sample(key, (width,), jnp.result_type(float))
    std = (scale / width) ** 0.5
    block = layers.Matrix(
        (width, width),
        std,
        weight_law,
        bias_scale,
        before.get(kind, layers.same),
        after.get(kind, lambda s, z, h: alpha * z + lam * h),
        fixed.get(kind),
    )
    kinds, first = (layers.layer(block),) * depth, width
    if input_width is not None:
        first = checks.integer("input_width", input_width, 1)
        rest = weight_law, 0.0, layers.same, lambda s, z, h: h
        kinds = (layers.layer(layers.Matrix((width, first), width**-0.5, *rest)), *kinds)

    def law(x, tangent):
        shape = kind, width, depth, alpha, lam
        kurtoses = float(phi.mask.kurtosis), float(weight_law.moment(2))
        entered = input_width is not None
        return laws.normal(*residuals.law_moments(*shape, x, tangent, *kurtoses, entered=entered))

    known = kind != "post" and phi.mask is not None and weight_law.symmetric
    known = known and (kind != "vanilla" or phi.name == "relu")
    name = f"{kind} residual network, {phi.name}"
    plain = layers.unbiased(bias_scale)
    law = law if known and (kind != "vanilla" or plain) else None
    footprint = width * max(width, first)
    return Network(name, (first,), kinds, footprint, plain and phi.homogeneous, None, law)


def conv(
    channels: Sequence[int],
    positions: Sequence[int],
    taps: Any = 3,
    activation: Any = "relu",
    bias_scale: Any = 0.0,
    *,
    weight_law: weights.Weights | None = None,
) -> Network:
    """Return a convolutional network x ↦ φ(W * x + b) on images (channels, *positions), stride 1.

    channels: (c_0, …, c_L). positions: (s,) on a circle, or (height, width) on a torus. taps: how
    many along each axis, a number or one each, no more than there are positions. Weights have
    variance gain/(k c_i), k all taps together, so that a ReLU keeps the squared norm in mean.

    Parameters of one layer: {"weight": (c_i, c_{i−1}, k), "bias": (c_i,)}. No limit law is known;
    ``convolutions.predictable_variance`` gives that of a layer, given what reaches it.
    """
    channels, positions, each = convolutions.geometry(channels, positions, taps)
    phi, bias_scale = activations.named(activation), layers.bias_scale(bias_scale)
    weight_law = weights.normal() if weight_law is None else weight_law
    checks.instance("weight_law", weight_law, weights.Weights)
    shapes, rest = list(itertools.pairwise(channels)), (each, phi, bias_scale, weight_law)
    made = {shape: convolutions.layer(*shape, *rest) for shape in dict.fromkeys(shapes)}
    kinds = tuple(made[shape] for shape in shapes)
    places = math.prod(positions)
    footprint = max(math.prod(each) * c_in * max(c_out, places) for c_in, c_out in shapes)
    homogeneous = layers.unbiased(bias_scale) and phi.homogeneous
    name = f"{phi.name} conv, {' × '.join(map(str, each))} taps"
    return Network(name, (channels[0], *positions), kinds, footprint, homogeneous)
