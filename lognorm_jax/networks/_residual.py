"""Residual networks of normed blocks, with the law that theory predicts."""

from typing import Any

import jax.numpy as jnp

from lognorm_jax import activations, laws, weights
from lognorm_jax._tools import checks
from lognorm_jax.networks import _layers, _network
from lognorm_jax.theory import residuals


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
) -> _network.Network:
    """Return a residual network of ``depth`` blocks z ↦ α z + λ·branch(z), on vectors
    (width,).

    kind: the branch, with W of variance gain/width: "vanilla", W φ(z) + b; "balanced",
    W φ(s ⊙ z) + b with fixed random signs s; "post", φ(W z + b); "mask model", D ⊙ (W z
    + b) with iid entries D of the activation's mask. skip_scale, branch_scale: α, λ in
    [0, 1e6]; α² + λ² ≠ 1 is allowed, with a warning. They and bias_scale may be traced,
    as in ``mlp``. ``skip_scale=(1 - 1 / depth)**0.5, branch_scale=depth**-0.5`` keep
    the log-variance small at any depth. input_width: n_0, for a linear layer n_0 →
    width of variance 1/width before the blocks.

    The limit law is known for relu, leaky and shaped ReLUs; of the vanilla one for
    relu, no biases.
    """
    width, depth = checks.integer("width", width, 1), checks.integer("depth", depth, 1)
    known = isinstance(kind, str) and kind in residuals.KINDS
    checks.require(
        known, "kind", kind, f"one of {', '.join(map(repr, residuals.KINDS))}"
    )
    alpha, lam = residuals.scales(skip_scale, branch_scale)
    phi, bias_scale = activations.named(activation), _layers.bias_scale(bias_scale)
    weight_law = weights.normal() if weight_law is None else weight_law
    checks.instance("weight_law", weight_law, weights.Weights)
    masked = kind == "mask model"
    checks.require(
        not masked or phi.mask is not None, "activation", phi.name, "one with a mask"
    )
    before = {
        "vanilla": lambda s, z: phi.apply(z),
        "balanced": lambda s, z: phi.apply(s * z),
    }
    after = {
        "post": lambda s, z, h: alpha * z + lam * phi.apply(h),
        "mask model": lambda D, z, h: alpha * z + lam * D * h,
    }
    fixed = {"balanced": _layers.signs(width)}
    scale = phi.gain
    if masked:
        scale = 1 / float(phi.mask.moment(1))
        fixed[kind] = lambda key: phi.mask.sample(key, (width,), jnp.result_type(float))
    std = (scale / width) ** 0.5
    block = _layers.Matrix(
        (width, width),
        std,
        weight_law,
        bias_scale,
        before.get(kind, _layers.same),
        after.get(kind, lambda s, z, h: alpha * z + lam * h),
        fixed.get(kind),
    )
    kinds, first = (_layers.layer(block),) * depth, width
    if input_width is not None:
        first = checks.integer("input_width", input_width, 1)
        rest = weight_law, 0.0, _layers.same, lambda s, z, h: h
        kinds = (
            _layers.layer(_layers.Matrix((width, first), width**-0.5, *rest)),
            *kinds,
        )

    def law(x, tangent):
        shape = kind, width, depth, alpha, lam
        kurtoses = float(phi.mask.kurtosis), float(weight_law.moment(2))
        entered = input_width is not None
        return laws.normal(
            *residuals.law_moments(*shape, x, tangent, *kurtoses, entered=entered)
        )

    known = kind != "post" and phi.mask is not None and weight_law.symmetric
    known = known and (kind != "vanilla" or phi.name == "relu")
    name = f"{kind} residual network, {phi.name}"
    plain = _layers.unbiased(bias_scale)
    law = law if known and (kind != "vanilla" or plain) else None
    footprint = width * max(width, first)
    return _network.Network(
        name, (first,), kinds, footprint, plain and phi.homogeneous, None, law
    )
