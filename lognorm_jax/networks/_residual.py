"""Residual networks of normed blocks, with the law that theory predicts."""

import functools
from collections.abc import Callable

import jax

from lognorm_jax import activations, laws, weights
from lognorm_jax._tools import bound, checks
from lognorm_jax.networks import _layers, _network
from lognorm_jax.theory import residuals


def residual(
    width: int,
    depth: int,
    kind: str = "vanilla",
    *,
    skip_scale: float | jax.Array = 0.5**0.5,
    branch_scale: float | jax.Array = 0.5**0.5,
    activation: str | activations.Activation = "relu",
    bias_scale: float | jax.Array = 0.0,
    weight_law: weights.Weights | None = None,
    input_width: int | None = None,
) -> _network.Network:
    """Return a residual network of blocks z ↦ α z + λ·branch(z), on vectors (width,).

    ``skip_scale=(1 - 1 / depth)**0.5, branch_scale=depth**-0.5`` keep the log-variance
    small at any depth. The limit law is known for relu, leaky and shaped ReLUs; of the
    vanilla network for relu without biases.

    Args:
        width: n, an integer ≥ 1.
        depth: the number of blocks, an integer ≥ 1.
        kind: the branch, with W of variance gain/width: "vanilla", W φ(z) + b;
            "balanced", W φ(s ⊙ z) + b with fixed random signs s; "post", φ(W z + b);
            "mask model", D ⊙ (W z + b) with iid entries D of the activation's mask.
        skip_scale: α in [0, 1e6]; may be traced, as ``gain`` of ``mlp``.
        branch_scale: λ, likewise; α² + λ² ≠ 1 is allowed, with a warning.
        activation: an ``activations.Activation`` or its name.
        bias_scale: standard deviation ≥ 0 of the normal biases; may be traced.
        weight_law: default normal.
        input_width: n_0, for a linear layer n_0 → width of variance 1/width before the
            blocks; None for none.

    Returns:
        A network; trained parameters of one block are {"weight": (n, n), "bias":
        (n,)}; fixed are the signs s or the entries D.

    Raises:
        ValueError: for arguments outside of these, and for "mask model" with an
            activation without a mask.

    Source:
        Li, Nica & Roy (2021), as in theory section 6; held against simulation in
        tests/test_residuals.py.
    """
    width = checks.integer("width", width, 1)
    depth = checks.integer("depth", depth, 1)
    checks.one_of("kind", kind, residuals.KINDS)
    alpha, lam = residuals.scales(skip_scale, branch_scale)
    phi = activations.named(activation)
    biases = _layers.checked_biases(bias_scale)
    weight_law = _layers.checked_law(weight_law)

    # the blocks, all of one kind
    inside = functools.partial(_inside, width, weight_law, biases)
    kinds = (_block(kind, width, phi, alpha, lam, inside),) * depth

    # a linear layer before them
    first = width
    if input_width is not None:
        first = checks.integer("input_width", input_width, 1)
        kinds = (_entry(width, first, weight_law), *kinds)

    # what theory says
    plain = biases is None
    moments = functools.partial(
        residuals.law_moments,
        *(kind, width, depth, alpha, lam),
        entered=input_width is not None,
    )
    law = functools.partial(_law, moments, phi, weight_law)
    return _network.Network(
        name=f"{kind} residual network, {phi.name}",
        shape=(first,),
        kinds=kinds,
        homogeneous=plain and phi.homogeneous,
        law=law if _has_law(kind, phi, weight_law, plain) else None,
    )


def _entry(width: int, n_in: int, weight_law: weights.Weights) -> _layers.Layer:
    """Return a linear layer n_in → width with weights of variance 1/width."""
    return _layers.layer(_layers.Matrix((width, n_in), width**-0.5, weight_law))


def _block(
    kind: str,
    width: int,
    phi: activations.Activation,
    alpha: float | jax.Array,
    lam: float | jax.Array,
    inside: Callable,
) -> _layers.Layer:
    """Return the block z ↦ α z + λ·branch(z) of this kind."""
    return _layers.layer(_BLOCKS[kind](inside, width, phi, (alpha, lam)))


def _inside(
    width: int,
    weight_law: weights.Weights,
    bias_scale: float | jax.Array | None,
    gain: float | jax.Array,
    **rest: Callable,
) -> _layers.Matrix:
    """Return the inside of a block with weights of variance gain/width."""
    shape = width, width
    std = (gain / width) ** 0.5
    return _layers.Matrix(shape, std, weight_law, bias_scale, **rest)


def _has_law(
    kind: str, phi: activations.Activation, weight_law: weights.Weights, plain: bool
) -> bool:
    """Return whether theory has a limit law; of the vanilla network for plain ReLUs."""
    if kind == "post" or phi.mask is None or not weight_law.symmetric:
        return False
    return kind != "vanilla" or (plain and phi.rectifier)


def _law(
    moments: Callable[..., tuple[float, float]],
    phi: activations.Activation,
    weight_law: weights.Weights,
    x: jax.typing.ArrayLike | None,
    tangent: jax.typing.ArrayLike | None,
) -> laws.Law:
    """Return the normal law with these moments at x along a tangent."""
    assert phi.mask is not None
    mask_kurtosis = float(phi.mask.kurtosis)
    kurtosis = float(weight_law.moment(2))
    return laws.normal(*moments(x, tangent, mask_kurtosis, kurtosis))


# Each kind of block: (block, width, phi, scales) -> what is inside, with block(gain,
# before, after, fixed), and after as α z + λ·branch for scales (α, λ).


def _vanilla(
    block: Callable, width: int, phi: activations.Activation, scales: tuple
) -> _layers.Matrix:
    """Return the inside of z ↦ α z + λ (W φ(z) + b)."""
    del width
    before = bound.Bound(_of_state, (), (bound.bound(phi.apply),))
    return block(phi.gain, before=before, after=_summing(scales))


def _balanced(
    block: Callable, width: int, phi: activations.Activation, scales: tuple
) -> _layers.Matrix:
    """Return the inside of z ↦ α z + λ (W φ(s ⊙ z) + b), s fixed signs."""
    before = bound.Bound(_of_signed_state, (), (bound.bound(phi.apply),))
    signs = _layers.signs(width)
    return block(phi.gain, before=before, after=_summing(scales), fixed=signs)


def _post(
    block: Callable, width: int, phi: activations.Activation, scales: tuple
) -> _layers.Matrix:
    """Return the inside of z ↦ α z + λ φ(W z + b)."""
    del width
    arrays = bound.bound(phi.apply), *scales
    return block(phi.gain, after=bound.Bound(_with_activated, (), arrays))


def _mask_model(
    block: Callable, width: int, phi: activations.Activation, scales: tuple
) -> _layers.Matrix:
    """Return the inside of z ↦ α z + λ D ⊙ (W z + b), D entries of the mask."""
    mask = phi.mask
    checks.require(mask is not None, "activation", phi.name, "one with a mask")
    assert mask is not None
    return block(
        1 / float(mask.moment(1)),
        after=bound.Bound(_with_masked, (), scales),
        fixed=_layers.entries(mask, width),
    )


def _of_state(phi, fixed, z):
    del fixed
    return phi(z)


def _of_signed_state(phi, signs, z):
    return phi(signs * z)


def _summing(scales: tuple) -> bound.Bound:
    """Return (fixed, z, branch) -> α z + λ·branch."""
    return bound.Bound(_sum, (), scales)


def _sum(alpha, lam, fixed, z, branch):
    del fixed
    return alpha * z + lam * branch


def _with_activated(phi, alpha, lam, fixed, z, h):
    return _sum(alpha, lam, fixed, z, phi(h))


def _with_masked(alpha, lam, D, z, h):
    return _sum(alpha, lam, None, z, D * h)


_BLOCKS = {
    "mask model": _mask_model,
    "balanced": _balanced,
    "vanilla": _vanilla,
    "post": _post,
}
