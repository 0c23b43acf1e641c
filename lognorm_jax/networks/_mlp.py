"""Real networks as lists of layer callables, made together with the law that theory
predicts.

For a ReLU network with independent symmetric weights and biases without atoms, and any
input x ≠ 0, the squared norm of J(x)u has exactly the law of the mask model with p =
1/2 (Hanin & Nica 2020): neither x nor the biases matter. Residual and convolutional
networks have other laws; the network and what is known of its law are made by one call.
"""

import dataclasses
import math
from typing import Any

from lognorm_jax import activations, ensembles, laws, masks, weights
from lognorm_jax._tools import checks
from lognorm_jax.networks import _layers, _network


def relu_mlp(
    widths: Any,
    bias_scale: Any = 0.0,
    fan: str = "out",
    head: str = "relu",
    *,
    weight_law: weights.Weights | None = None,
) -> _network.Network:
    """Return a fully connected ReLU network x ↦ relu(W x + b), layer after layer:
    ``mlp`` with it.

    widths: (n_0, …, n_d), integers ≥ 1. Weight variance 2/n_i (fan "out") or 2/n_{i−1}
    ("in"). head: "relu", or "linear" for a last layer without activation, of variance
    1/n.

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
) -> _network.Network:
    """Return a fully connected network x ↦ φ(W x + b), layer after layer.

    widths: (n_0, …, n_d), integers ≥ 1. activation: an ``activations.Activation`` or
    its name. bias_scale: standard deviation ≥ 0 of the normal biases. fan: a weight has
    variance gain/n_i ("out") or gain/n_{i−1} ("in"), with gain that of the activation
    unless given. weight_law: default normal; the law of the Jacobian is the ensemble's
    only for laws without atoms. head: "same", or "linear" for a last layer without
    activation and dropout, of variance 1/n. keep_prob: in (0, 1]: dropout at
    initialisation, one mask drawn with the parameters of each layer; the gain is
    divided by it. bias_scale and gain may be traced: a network made in the function
    that ``jax.grad`` or ``jax.vmap`` transforms has derivatives by them.

    Trained parameters of one layer: {"weight": (n_i, n_{i−1}), "bias": (n_i,)}; fixed is
    its dropout mask. ``ensemble`` is None for activations without a mask and where gain
    is another.
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
    bias_scale = _layers.bias_scale(bias_scale)
    heads = {False: (activation, gain, keep_prob), True: (activations.linear(), 1.0, 1)}
    if head == "linear":
        last = (*ensemble.masks[:-1], masks.identity())
        ensemble = dataclasses.replace(ensemble, masks=last)
    is_head = [False] * (ensemble.depth - 1) + [head == "linear"]
    shapes = list(zip(ensemble.widths[:-1], ensemble.widths[1:], is_head, strict=True))

    def kind(n_in, n_out, is_head):
        phi, variance, keep = heads[is_head]
        std = (variance / (n_out if fan == "out" else n_in)) ** 0.5
        drop = _layers.kept(keep, n_out) if keep < 1 else None

        def after(fixed, x, z):
            return phi.apply(z) if fixed is None else fixed * phi.apply(z)

        matrix = _layers.Matrix(
            (n_out, n_in), std, weight_law, bias_scale, _layers.same, after, drop
        )
        return _layers.layer(matrix)

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

    homogeneous = activation.homogeneous and _layers.unbiased(bias_scale)
    known = activation.mask is not None and weight_law.symmetric
    theory = (ensemble if own else None, law) if known else ()
    return _network.Network(
        name, ensemble.widths[:1], kinds, footprint, homogeneous, *theory
    )
