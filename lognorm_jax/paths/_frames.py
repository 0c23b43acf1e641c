"""Frames of k vectors followed layer by layer: QR of what each layer makes of them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import networks, weights
from lognorm_jax._tools import bound, draws, graded, norms, random, scans, undrawn
from lognorm_jax.paths import _conditioned, _met

# a layer's L, lower triangular, of (what it makes of the frame) = L · (the next frame)
Triangles = Callable[[jax.Array], jax.Array]


class Kind(NamedTuple):
    """What layers of an ensemble have in common."""

    n_in: int
    n_out: int
    form: int  # of its mask
    by_counts: bool  # whether only the number of coordinates that are kept matters


def of_ensemble(
    weight_law: weights.Weights,
    k: int,
    distinct: tuple[Kind, ...],
    order: bytes,
    reduce: Callable,
    start: Any,
    scales: jax.Array,
    samplers: tuple[bound.Bound, ...],
    key: jax.Array,
) -> Any:
    """Fold the triangles of all layers of one product: what is left, and what is told.

    Args:
        weight_law: of the matrices.
        k: how many vectors.
        distinct: kinds of layers.
        order: which kind each layer is.
        reduce: (state, L) -> (state, told).
        start: the first state.
        scales: (depth,), the standard deviation of a weight.
        samplers: of masks, for each form.
        key: of the product.
    """
    kinds = scans.in_order(distinct, order)
    first = uniform(random.fold_in(key, _FRAME), k, kinds[0].n_in)

    def step_of(kind):
        def step(carry, row):
            frame, state = carry
            layer, scale, sample = row
            L, frame = _ensemble_layer(
                weight_law, kind, key, layer, scale, sample, frame
            )
            state, told = reduce(state, L)
            return (frame, state), told

        return step

    def rows_of(layers):
        sampler = samplers[kinds[layers[0]].form]
        own = jax.tree.map(lambda leaf: scans.taken(leaf, layers), sampler)
        return scans.numbers(layers), scans.taken(scales, layers), own

    carry = scans.unknown(first), start
    (_, state), told = scans.scan_layers(kinds, step_of, carry, rows_of)
    return state, told


# beyond the numbers of layers: the key of the first frame
_FRAME = np.uint32(1 << 31)


def uniform(key: jax.Array, k: int, n: int) -> jax.Array:
    """Return a uniform frame of k vectors, (k, n)."""
    rows = random.normal(key, (k, n), jnp.result_type(float))
    return undrawn.split(rows, rows[:0])[2]


def _triangle(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return L of images (k, …), lower triangular, and their frame, of their shape."""
    rows = images.reshape(len(images), -1)
    _, L, frame = undrawn.split(rows, rows[:0])
    return L, frame.reshape(images.shape)


def _ensemble_layer(
    weight_law: weights.Weights,
    kind: Kind,
    key: jax.Array,
    layer: jax.Array,
    scale: jax.Array,
    sample: bound.Bound,
    frame: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return L of a layer, and the next frame, (k, n_out)."""
    key_weight, key_mask = draws.keys(key, layer, 2)
    D = sample(key_mask, (1, kind.n_out), frame.dtype)
    if kind.by_counts:
        L = _bartlett(key_weight, len(frame), jnp.sum(D != 0))
        size = jnp.max(jnp.abs(D))
        # no frame is asked for again
        return scale * size * L, jnp.zeros((len(frame), kind.n_out), frame.dtype)
    images = _images(weight_law, key_weight, frame, kind)
    L, after = _triangle(D * images)
    return scale * L, after


def _images(
    weight_law: weights.Weights, key: jax.Array, frame: jax.Array, kind: Kind
) -> jax.Array:
    """Return what a matrix of standardised weights makes of a frame, (k, n_out)."""
    k, n_in = frame.shape
    if weight_law.gaussian:
        return random.normal(key, (k, kind.n_out), frame.dtype)
    if weight_law.orthogonal:
        n = max(kind.n_out, n_in)
        return n**0.5 * uniform(key, k, n)[:, : kind.n_out]
    W = weight_law.sample(key, (kind.n_out, n_in), frame.dtype)
    return jnp.matmul(frame, W.T, precision="highest")


def _bartlett(key: jax.Array, k: int, kept: jax.Array) -> jax.Array:
    """Return L of k normal vectors of so many coordinates, without the vectors."""
    key_square, key_below = random.split(key)
    dtype = jnp.result_type(float)
    freedom = (kept - jnp.arange(k)).astype(dtype)
    there = freedom > 0
    half = jnp.where(there, freedom, 1) / 2
    log_gamma = jax.random.loggamma(key_square, half, dtype=dtype)
    roots = jnp.where(there, jnp.exp((log_gamma + math.log(2)) / 2), 0)
    below = jnp.tril(random.normal(key_below, (k, k), dtype), -1)
    # beyond the coordinates that are kept there are no directions
    below = jnp.where(there[None], below, 0)
    return below + jnp.diag(roots)


def of_network(
    k: int,
    reduce: Callable,
    start: Any,
    network: networks.Network,
    x: jax.Array,
    key: jax.Array,
) -> Any:
    """Fold the triangles of all layers of one network in law, as ``of_ensemble``."""
    x = scans.unknown(jnp.asarray(x, jnp.result_type(float)))
    shape = network.shape
    frame = uniform(random.fold_in(key, _FRAME), k, math.prod(shape))
    owner = np.zeros(k, int)

    def step_of(kind):
        def step(carry, layer):
            vectors, frame, state, tied = carry
            X, log_size, _ = vectors
            X, T, finite, tied = _met.followed(kind, key, layer, X, frame, owner, tied)
            assert T is not None  # the frame
            L, after = _triangle(T)
            L = jnp.where(finite[0], L, jnp.nan)
            state, told = reduce(state, L)
            vectors, _ = _conditioned.measured(
                X, log_size, None, finite, owner[:0], network.homogeneous
            )
            return (vectors, after, state, tied), told

        return step

    log_size, unit = norms.normalise_rows(x[None])
    vectors = unit if network.homogeneous else x[None], log_size, None
    tied = _met.unmet_tied(network, 1 + k)
    carry = vectors, frame.reshape(k, *shape), start, tied
    carry, told = scans.scan_layers(network.kinds, step_of, carry, scans.numbers)
    return carry[2], told


def of_drawn(
    k: int,
    reduce: Callable,
    start: Any,
    network: networks.Network,
    x: jax.Array,
    key: jax.Array,
) -> Any:
    """Fold the triangles of all layers of one network that is drawn."""
    frame = uniform(random.fold_in(key, _FRAME), k, math.prod(network.shape))
    x = scans.unknown(jnp.asarray(x, frame.dtype))
    T, state, told = frame.reshape(k, *network.shape), start, []
    for layer in network.layers(network.init(key)):
        x, push = jax.linearize(layer, x)
        L, T = _triangle(jax.vmap(push)(T))
        state, more = reduce(state, L)
        told.append(more)
    return state, jnp.stack(told)


def log_diagonal(state: None, L: jax.Array) -> tuple[None, jax.Array]:
    """Tell ln L_jj² of each layer."""
    del state
    return None, norms.log_squares(jnp.diagonal(L)[:, None])


def multiplied(state: graded.Graded, L: jax.Array) -> tuple[graded.Graded, jax.Array]:
    """Take L into the product; tell whether it is finite."""
    return graded.times_triangle(state, L), jnp.all(jnp.isfinite(L))
