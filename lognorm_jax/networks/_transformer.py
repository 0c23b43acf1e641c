"""Transformers: attention and fully connected branches around a residual stream."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lognorm_jax import activations, weights
from lognorm_jax._tools import bound, checks
from lognorm_jax.networks import _layers, _network

PLACES = ("pre", "post", "none")
NORMALISATIONS = ("layer", "rms")
ATTENTIONS = ("causal", "full")
INITS = ("he", "xavier", "lecun")
RESIDUALS = ("plain", "gpt2", "depth", "deepnorm")
SWIGLU = "swiglu"


class _Branch(NamedTuple):
    """How a branch joins the residual stream: x ↦ skip·x + scale·branch(x)."""

    place: str  # of the normalisation
    normalisation: str
    epsilon: float
    skip: float
    scale: float


def transformer(
    width: int,
    depth: int,
    heads: int,
    tokens: int,
    *,
    norm: str = "pre",
    normalisation: str = "layer",
    attention: str = "causal",
    activation: str | activations.Activation = "gelu",
    hidden: int | None = None,
    init: str | float = 0.02,
    residual: str = "gpt2",
    bias_scale: float | jax.Array = 0.0,
    epsilon: float = 1e-5,
    weight_law: weights.Weights | None = None,
) -> _network.Network:
    """Return a transformer on embedded tokens (tokens, width): 2·depth layers.

    Of each block the first layer is attention, the second is fully connected; each is a
    branch beside the residual stream x. Defaults are those of GPT-2, without dropout,
    embeddings and the last normalisation.

    No limit law is known. At infinite width the mean of the log-norm has a recursion
    (Cowsik et al. 2024); of the variance over initialisations nothing is published.

    Args:
        width: of a token, an integer ≥ 1.
        depth: the number of blocks, an integer ≥ 1.
        heads: how many, an integer ≥ 1, a divisor of the width.
        tokens: how many, an integer ≥ 1.
        norm: "pre", x + branch(norm(x)); "post", norm(x + branch(x)); or "none".
        normalisation: "layer", to mean 0 and variance 1; or "rms", to mean square 1.
        attention: "causal", each token to itself and those before; or "full". Both are
            softmax attention, of scores over √(width/heads).
        activation: an ``activations.Activation``, its name, or "swiglu": a product of
            two linear maps, one of them through z·sigmoid(z).
        hidden: units of the fully connected branch, default 4·width, and for swiglu
            (8/3)·width, rounded.
        init: the standard deviation of the weights, > 0; or "he", √(2/n_in), "xavier",
            √(2/(n_in + n_out)), or "lecun", √(1/n_in).
        residual: "plain"; "gpt2", weights that end a branch over √(2·depth); "depth",
            branches times 1/√(2·depth); or "deepnorm" (Wang et al. 2022), norm(α x +
            branch(x)), α = (2·depth)^¼, with weights of values and branches times
            (8·depth)^(−¼), for norm "post".
        bias_scale: standard deviation ≥ 0 of the normal biases; may be traced.
        epsilon: in [0, 1], added to the mean square that a normalisation divides by.
        weight_law: default normal.

    Returns:
        A network, without a law; trained parameters of its two kinds of layers are
        {name: {"weight", "bias"}} of the maps "qkv" and "out", and "up", "gate" for
        swiglu, and "down"; for deepnorm "qk" and "value" take the place of "qkv".
        Normalisations have no parameters, as at initialisation.

    Raises:
        ValueError: for arguments outside of these.

    Source:
        Vaswani et al. (2017); theory section 14.

    >>> gpt2_small = transformer(768, 12, heads=12, tokens=8)
    >>> gpt2_small.shape, len(gpt2_small.kinds)
    ((8, 768), 24)
    """
    width = checks.integer("width", width, 1)
    depth = checks.integer("depth", depth, 1)
    tokens = checks.integer("tokens", tokens, 1)
    heads = checks.integer("heads", heads, 1)
    divides = f"a divisor of the width, {width}"
    checks.require(width % heads == 0, "heads", heads, divides)
    branch = _branch(norm, normalisation, epsilon, residual, depth)
    causal = checks.one_of("attention", attention, ATTENTIONS) == "causal"
    gated = activation == SWIGLU
    phi = None if gated else activations.named(activation)
    if hidden is None:
        hidden = round(8 * width / 3) if gated else 4 * width
    hidden = checks.integer("hidden", hidden, 1)

    # those that end a branch are scaled
    value, end = _weight_scales(residual, depth)
    linear = functools.partial(
        _linear,
        init=init,
        law=_layers.checked_law(weight_law),
        bias_scale=_layers.checked_biases(bias_scale),
    )
    maps = _attention_maps(linear, width, value, end)
    attending = _layers.layer(bound.Bound(_attend, (branch, heads, causal)), maps)

    maps = _fed_maps(linear, (width, hidden), gated, value, end)
    function = None if phi is None else bound.bound(phi.apply)
    feeding = _layers.layer(bound.Bound(_feed, (branch,), (function,)), maps)

    placed = "" if norm == "none" else f"{norm}-norm "
    return _network.Network(
        name=f"{placed}transformer, {residual} residual",
        shape=(tokens, width),
        kinds=(attending, feeding) * depth,
        homogeneous=False,
    )


def _fed_maps(
    linear: Callable, sizes: tuple[int, int], gated: bool, value: float, end: float
) -> dict[str, _layers.Map]:
    """Return the linear maps of a fully connected branch of (width, hidden) units."""
    width, hidden = sizes
    up = linear(width, hidden, scale=value)
    maps = {"up": up, "gate": up} if gated else {"up": up}
    return {**maps, "down": linear(hidden, width, scale=end)}


def _attention_maps(
    linear: Callable, width: int, value: float, end: float
) -> dict[str, _layers.Map]:
    """Return the linear maps of attention: one of queries, keys and values, unless
    values have another scale.
    """
    if value == 1:
        maps = {"qkv": linear(width, 3 * width)}
    else:
        maps = {
            "qk": linear(width, 2 * width),
            "value": linear(width, width, scale=value),
        }
    return {**maps, "out": linear(width, width, scale=end)}


def _branch(
    norm: str, normalisation: str, epsilon: float, residual: str, depth: int
) -> _Branch:
    """Return how branches join the residual stream."""
    checks.one_of("norm", norm, PLACES)
    checks.one_of("normalisation", normalisation, NORMALISATIONS)
    epsilon = checks.number("epsilon", epsilon, "[0, 1]")
    checks.one_of("residual", residual, RESIDUALS)
    deep = residual == "deepnorm"
    instead = "DeepNorm normalises after each branch: take norm='post'."
    allowed = "'plain', 'gpt2' or 'depth' for this norm"
    checks.require(not deep or norm == "post", "residual", residual, allowed, instead)
    skip = (2 * depth) ** 0.25 if deep else 1.0
    scale = (2 * depth) ** -0.5 if residual == "depth" else 1.0
    return _Branch(norm, normalisation, epsilon, skip, scale)


def _weight_scales(residual: str, depth: int) -> tuple[float, float]:
    """Return by how much weights of values, and those that end a branch, are scaled."""
    if residual == "deepnorm":
        scale = (8 * depth) ** -0.25
        return scale, scale
    return 1.0, (2 * depth) ** -0.5 if residual == "gpt2" else 1.0


def _linear(
    n_in: int,
    n_out: int,
    *,
    init: str | float,
    law: weights.Weights,
    bias_scale: float | jax.Array | None,
    scale: float = 1.0,
) -> _layers.Map:
    """Return a linear map with an initialisation of its weights, scaled."""
    if isinstance(init, str):
        checks.one_of("init", init, INITS, "Or give a standard deviation.")
        variances = {"he": 2 / n_in, "xavier": 2 / (n_in + n_out), "lecun": 1 / n_in}
        std = math.sqrt(variances[init])
    else:
        std = checks.number("init", init, "(0, 1e30]")
    return _layers.Map((n_out, n_in), scale * std, law, bias_scale)


def _attend(
    branch: _Branch,
    heads: int,
    causal: bool,
    maps: _layers.Maps,
    x: jax.Array,
) -> jax.Array:
    """Return what an attention layer makes of tokens (tokens, width)."""
    tokens, width = x.shape
    before = _before(branch, x)
    if "qkv" in maps:
        query, key, value = jnp.split(maps["qkv"](before), 3, axis=1)
    else:
        query, key = jnp.split(maps["qk"](before), 2, axis=1)
        value = maps["value"](before)

    # (heads, tokens, width of a head)
    query, key, value = (
        rows.reshape(tokens, heads, -1).swapaxes(0, 1) for rows in (query, key, value)
    )
    scores = jnp.matmul(query, key.swapaxes(1, 2), precision="highest")
    scores = scores * (width // heads) ** -0.5
    if causal:
        seen = jnp.tri(tokens, dtype=bool)[None]
        scores = jnp.where(jnp.broadcast_to(seen, scores.shape), scores, -jnp.inf)
    mixed = jnp.matmul(_softmax(scores), value, precision="highest")
    return _after(branch, x, maps["out"](mixed.swapaxes(0, 1).reshape(tokens, width)))


@jax.custom_jvp
def _softmax(scores: jax.Array) -> jax.Array:
    """Return weights over the last axis.

    By inverses: rows that are divided may be rounded in another way in another program.
    """
    sizes = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    return sizes * jnp.reciprocal(jnp.sum(sizes, axis=-1, keepdims=True))


@_softmax.defjvp
def _softmax_jvp(primals, tangents):
    (scores,), (along,) = primals, tangents
    weights = _softmax(scores)
    mean = jnp.sum(weights * along, axis=-1, keepdims=True)
    return weights, weights * (along - mean)


def _feed(
    branch: _Branch,
    phi: Callable[[jax.Array], jax.Array] | None,
    maps: _layers.Maps,
    x: jax.Array,
) -> jax.Array:
    """Return what a fully connected layer makes of each token; no φ: gated."""
    before = _before(branch, x)
    z = maps["up"](before)
    y = jax.nn.silu(maps["gate"](before)) * z if phi is None else phi(z)
    return _after(branch, x, maps["down"](y))


def _before(branch: _Branch, x: jax.Array) -> jax.Array:
    """Return what a branch is given."""
    return _normalised(branch, x) if branch.place == "pre" else x


def _after(branch: _Branch, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the residual stream after a branch that gave y."""
    joined = branch.skip * x + branch.scale * y
    return _normalised(branch, joined) if branch.place == "post" else joined


def _normalised(branch: _Branch, x: jax.Array) -> jax.Array:
    """Return tokens normalised, each by itself."""
    if branch.normalisation == "layer":
        x = x - jnp.mean(x, axis=1, keepdims=True)
    square = jnp.mean(x * x, axis=1, keepdims=True)
    return x * jax.lax.rsqrt(square + branch.epsilon)
