"""Fully connected networks of many widths, followed by one program.

Widths and depth are data: vectors have room for wider layers, and are 0 there.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lognorm_jax import masks, networks, weights
from lognorm_jax._tools import (
    checks,
    draws,
    norms,
    random,
    scans,
    tangents,
    traces,
    undrawn,
)
from lognorm_jax.paths import _conditioned, _tiles

Tree = TypeVar("Tree")


class Layers(NamedTuple):
    """The layers x ↦ D ⊙ φ(W x + b) of a network, and of what there is room for: each
    (room,).
    """

    used: Any  # whether there is such a layer
    n_in: Any
    n_out: Any
    std: Any  # of a weight
    bias_scale: Any  # None for no biases
    # what follows the matrix, of each structure: after, and the sampler of D or None
    forms: tuple[tuple[Callable, masks.Sampler | None], ...]
    form: Any  # which of the structures a layer has


class Program(NamedTuple):
    """A network as choices and arrays of a path."""

    law: weights.Weights
    room: int
    homogeneous: bool
    layers: Layers
    depth: int


def program(network: networks.Network) -> Program | None:
    """Return a network of more than four different layers, if it is of this kind.

    That is layers x ↦ D ⊙ φ(W x + b), φ entry by entry and D drawn or not, all with
    biases or all without, and with numbers that are known.
    """
    distinct, order = scans.order_of(network.kinds)
    matrices = [kind.matrix for kind in distinct if _has_room(kind.matrix)]
    if not _tiles.MOST_KINDS < len(distinct) == len(matrices):
        return None
    first = matrices[0]
    alike = {(m.weights, m.bias_scale is None) for m in matrices}
    widest = max(max(m.shape) for m in matrices)
    if len(alike) > 1 or widest > _tiles.WIDEST:
        return None

    places = np.frombuffer(order, np.int32)
    after: list[Any] = [m.by_entry for m in matrices]
    forms, form = scans.by_form(after, places)
    std, bias_scale = (
        np.array([getattr(m, name) for m in matrices], np.float64)[places]
        for name in ("std", "bias_scale")
    )
    shapes = np.array([m.shape for m in matrices], np.int32)
    layers = Layers(
        used=np.ones(len(places), bool),
        n_in=shapes[places, 1],
        n_out=shapes[places, 0],
        std=std,
        bias_scale=None if first.bias_scale is None else bias_scale,
        forms=forms,
        form=form,
    )
    depth = len(places)
    spare = _tiles.room_of(depth, _tiles.DEPTH) - depth
    return Program(
        law=first.weights,
        room=_tiles.room_of(widest, _tiles.ROOM),
        homogeneous=network.homogeneous,
        layers=jax.tree.map(lambda leaf: np.pad(leaf, (0, spare)), layers),
        depth=depth,
    )


def _has_room(matrix: networks.Matrix | None) -> TypeGuard[networks.Matrix]:
    """Return whether a layer is x ↦ D ⊙ φ(W x + b), drawn of known numbers."""
    if matrix is None or matrix.by_entry is None or matrix.weights.whole:
        return False
    numbers = jax.tree.leaves((matrix.std, matrix.bias_scale, matrix.by_entry))
    return all(isinstance(number, float) for number in numbers)


def padded(vectors: Tree, room: int) -> Tree:
    """Return vectors (…, n), in any tree, as (…, room)."""

    def pad(rows):
        spare = [(0, 0)] * (rows.ndim - 1) + [(0, room - rows.shape[-1])]
        pad_known = jnp.pad if checks.traced(rows) else np.pad
        # of one type only now: JAX compiles the conversion of each shape
        return jnp.asarray(pad_known(rows, spare), jnp.result_type(float))

    return jax.tree.map(pad, vectors)


def jacobian(
    law: weights.Weights,
    homogeneous: bool,
    x: jax.Array,
    tangent: jax.Array,
    layers: Layers,
    key: jax.Array,
) -> traces.Trace:
    """Return the trace of one fresh network, its weights drawn tile by tile."""
    x, tangent = scans.unknown((x, tangent))
    if homogeneous:
        _, x = norms.normalise(x)

    def step(carry, row):
        layer, number = row
        x, tangent = carry
        key_weight, key_bias, key_fixed = draws.keys(key, number, 3)
        V = jnp.stack([x, tangent], axis=1)
        z, image = (
            layer.std * _tiles.product(law, key_weight, V, layer.n_out, layer.n_in).T
        )
        if layer.bias_scale is not None:
            normal = random.normal(key_bias, z.shape, z.dtype)
            z = z + layer.bias_scale * normal

        # what the layer makes of it
        after = functools.partial(_after, layer, key_fixed)
        x_next, image = jax.jvp(after, (x, z), (tangent, image))
        increment, unit = norms.normalise(image)
        increment = tangents.told(increment, tangent, x_next)
        if homogeneous:
            _, x_next = norms.normalise(x_next)
        trace = traces.Trace(increment, norms.quartic(tangent))
        return (x_next, unit), trace

    return _followed(layers, step, (x, tangent), ())


def gram(
    homogeneous: bool,
    owner: tuple[int, ...],
    X: jax.Array,
    T: jax.Array | None,
    layers: Layers,
    key: jax.Array,
) -> traces.Trace:
    """Return the trace of one network in law, leaves (depth, vectors)."""
    X, T = scans.unknown((X, T))
    log_size, unit = norms.normalise_rows(X)
    place = np.array(owner, int)

    def step(carry, row):
        layer, number = row
        X, log_size, T = carry
        quartic = _conditioned.quartics(X, T)

        # W V in law; a bias is the weight of one more coordinate
        V = X if T is None else jnp.concatenate([X, T])
        if layer.bias_scale is not None:
            size = (
                jnp.zeros((len(V), 1), V.dtype)
                .at[: len(X)]
                .set(layer.bias_scale / layer.std)
            )
            V = jnp.concatenate([V, size], axis=1)
        key_weight, _, key_fixed = draws.keys(key, number, 3)
        xi = layer.std * _normals(key_weight, len(V), X)
        rows = jnp.matmul(undrawn.triangle(V), xi, precision="highest")
        Z, images = rows[: len(X)], rows[len(X) :]

        # what the layer makes of it, and what that did to norms
        after = jax.vmap(functools.partial(_after, layer, key_fixed))
        if T is not None:
            _, T = jax.jvp(after, (X[place], Z[place]), (T, images))
        X = after(X, Z)
        finite = jnp.all(jnp.isfinite(Z) & jnp.isfinite(X), axis=1)
        carry, increment = _conditioned.measured(
            X, log_size, T, finite, place, homogeneous
        )
        return carry, traces.Trace(increment, quartic)

    carry = unit if homogeneous else X, log_size, T
    return _followed(layers, step, carry, (len(X if T is None else T),))


def _normals(key: jax.Array, count: int, like: jax.Array) -> jax.Array:
    """Return (count, room) normals, the first of each the same in any room."""
    keys = jax.vmap(random.fold_in, (None, 0))(key, jnp.arange(count))
    draw = functools.partial(random.normal, shape=like.shape[1:], dtype=like.dtype)
    return jax.vmap(draw)(keys)


def _after(
    layer: Layers, key_fixed: jax.Array, x: jax.Array, z: jax.Array
) -> jax.Array:
    """Return what a layer makes of W x + b, and 0 where it has no coordinates."""

    def branch(form):
        after, sample = form

        def applied(x, z):
            D = None if sample is None else sample(key_fixed, z.shape, z.dtype)
            return after(D, x, z)

        return applied

    branches = list(map(branch, layer.forms))
    if len(branches) == 1:
        y = branches[0](x, z)
    else:
        y = lax.switch(layer.form, branches, x, z)
    inside = jnp.arange(len(y), dtype=jnp.int32) < layer.n_out
    return jnp.where(inside, y, jnp.zeros_like(y))


def _followed(
    layers: Layers, step: Callable, carry: Any, shape: tuple[int, ...]
) -> traces.Trace:
    """Return the trace of all layers; zeros for those that are not there."""
    dtype = jnp.result_type(float)
    layers = layers._replace(
        std=jnp.asarray(layers.std, dtype),
        bias_scale=None
        if layers.bias_scale is None
        else jnp.asarray(layers.bias_scale, dtype),
    )
    nothing = traces.Trace(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
    numbers = scans.numbers(np.arange(len(layers.used)))
    rows = jax.tree.map(jnp.asarray, layers), numbers
    return scans.scan_room(step, carry, layers.used, rows, nothing)[1]
