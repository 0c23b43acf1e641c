"""Optimizers of optax for networks, whose equal layers are stacked."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lognorm_jax import networks
from lognorm_jax._tools import checks
from lognorm_jax.training import _tried

__all__ = ["Apart", "by_layer"]

UPDATE = "optimizer's update"  # what errors call it


class Apart(NamedTuple):
    """A tree like the parameters of a network, with its layers apart.

    What an optimizer inside of ``by_layer`` is given.

    Attributes:
        kinds: for each kind of layer, a list of its layers.
    """

    kinds: list[list[Any]]


def check(optimizer: object) -> None:
    """Require an optimizer of optax.

    Raises:
        ValueError: for anything else.
    """
    parts = [getattr(optimizer, part, None) for part in ("init", "update")]
    allowed = "an optax.GradientTransformation"
    instead = "Such as optax.sgd(0.1)."
    usable = all(map(callable, parts))
    checks.require(usable, "optimizer", optimizer, allowed, instead)


def by_layer(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer that is given each layer of a network on its own.

    Parameters are stacked over the layers of a kind, (layers, …). Most optimizers do
    not notice, as they act entry by entry or by the norm of everything. Those that go
    by the norm, the shape or the rank of single arrays do: lamb, lars, muon, adafactor,
    adaptive_grad_clip, a mask by ndim. ``training`` refuses them without this. Compile
    time grows with depth.

    Args:
        optimizer: any of optax.

    Returns:
        An optimizer for the parameters of a network as they are.

    Raises:
        ValueError: for what is no optimizer of optax.
    """
    check(optimizer)
    inner = optax.with_extra_args_support(optimizer)

    def init(params):
        return inner.init(_apart(params))

    def update(updates, state, params=None, **extra):
        # one by_layer is enough
        if isinstance(updates, Apart):
            return inner.update(updates, state, params, **extra)

        # what has the layers of a network, apart
        if params is not None:
            params = _apart(params)
        if "grad" in extra:
            extra["grad"] = _apart(extra["grad"])
        if "value_fn" in extra:
            value_fn = extra["value_fn"]
            extra["value_fn"] = lambda tree: value_fn(stacked(tree))

        updates, state = inner.update(_apart(updates), state, params, **extra)
        return stacked(updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def promoting(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Return the optimizer with JAX's standard promotion of types.

    Those of optax count on it, whatever the caller has set.

    Raises:
        ValueError: for what is no optimizer of optax.
    """
    check(optimizer)
    inner = optax.with_extra_args_support(optimizer)

    def standard(function):
        def call(*args, **extra):
            with jax.numpy_dtype_promotion("standard"):
                return function(*args, **extra)

        return call

    return optax.GradientTransformationExtraArgs(
        standard(inner.init), standard(inner.update)
    )


def require(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    most: int | None = None,
) -> None:
    """Require an optimizer that a network can be trained with.

    Its first updates, for normal parameters and gradients, must be finite, and to
    rounding the same whether equal layers are stacked or apart. Under vmap over
    learning rates the former is not known, and the latter that of another rate.

    Args:
        network: the network.
        optimizer: any of optax.
        most: of how many entries along each axis of an array it is tried out, at most;
            None: all.

    Raises:
        ValueError: for others, with the way out.
    """
    checks.instance("network", network, networks.Network)
    check(optimizer)
    # trees are arguments, as operations on constants would be compiled one by one
    trees = _normal_trees(network, most)
    try:
        with jax.ensure_compile_time_eval():
            finite, same = map(bool, _finite_and_same(optimizer, *trees))
    except jax.errors.TracerBoolConversionError:
        trial = functools.partial(_finite_and_same, optimizer)
        (_, verdict), _ = _tried.out(trial, *trees)
        # whether it is finite at its own learning rate is not known
        finite, same = True, bool(verdict)

    require_finite(finite)
    given = "another where equal layers are stacked"
    allowed = "that of each layer on its own"
    instead = (
        "It depends on the norm, shape or rank of single arrays. "
        "Wrap it: optimizers.by_layer(optimizer)."
    )
    checks.require(same, UPDATE, given, allowed, instead)


def require_finite(finite: bool) -> None:
    """Require updates that are finite."""
    allowed = "finite for normal gradients"
    instead = "Is its learning rate finite?"
    checks.require(finite, UPDATE, "not finite", allowed, instead)


def _normal_trees(network: networks.Network, most: int | None) -> list[Any]:
    """Return parameters and two gradients, normal, with at most two layers a kind, and
    at most so many entries along an axis.
    """
    shapes = jax.eval_shape(network.init, jax.random.key(0)).trained
    rng = np.random.default_rng(0)

    def tree(last):
        def normal(leaf):
            shape = few(leaf.shape, most)
            drawn = rng.normal(size=shape).astype(leaf.dtype)
            # two layers of a kind are told apart if they differ in size
            drawn[-1] *= last
            return drawn

        return jax.tree.map(normal, shapes)

    return [tree(1), tree(16), tree(16)]


def few(shape: tuple[int, ...], most: int | None) -> tuple[int, ...]:
    """Return the shape (layers, …) of at most two layers, and of so many entries along
    an axis; None: all.
    """
    layers, *axes = shape
    return (min(layers, 2), *(min(axis, most or axis) for axis in axes))


@functools.partial(jax.jit, static_argnums=0)
def _finite_and_same(
    optimizer: optax.GradientTransformation, params: Any, *gradients: Any
) -> tuple[jax.Array, jax.Array]:
    """Return whether updates are finite, and whether they are those by layer."""
    updates = _last_update(optimizer, params, gradients)
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in updates]
    try:
        apart = promoting(by_layer(optimizer))
        updates_apart = _last_update(apart, params, gradients)
    except Exception:  # of any kind: it is made for the tree as it is
        return jnp.all(jnp.array(finite)), jnp.bool_(True)
    leaves = updates, updates_apart, jax.tree.leaves(params)
    same = list(map(_same, *leaves))
    return jnp.all(jnp.array(finite)), jnp.all(jnp.array(same))


def _last_update(
    optimizer: optax.GradientTransformation, params: Any, gradients: Sequence[Any]
) -> list[jax.Array]:
    """Return the leaves of the update after the last gradient."""
    inner = optax.with_extra_args_support(optimizer)
    state = inner.init(params)
    for gradient in gradients:
        updates, state = inner.update(
            gradient,
            state,
            params,
            value=jnp.ones(()),
            grad=gradient,
            value_fn=optax.tree.sum,
        )
    return jax.tree.leaves(updates)


def _same(a: jax.Array, b: jax.Array, params: jax.Array) -> jax.Array:
    """Return whether two updates of parameters agree to rounding."""
    rounding = 4 * jnp.finfo(params.dtype).eps * _largest(params)
    return _largest(a - b) <= 1e-5 * _largest(b) + rounding


def _largest(x: jax.Array) -> jax.Array:
    """Return the largest absolute value; 0 if there is none."""
    return jnp.max(jnp.abs(x), initial=0)


def _apart(tree: Any) -> Apart:
    """Return the layers of each kind, of what is stacked over them."""
    if isinstance(tree, Apart):
        return tree
    kinds = tree.by_kind() if isinstance(tree, networks.Params) else tree
    return Apart([_rows(kind) for kind in kinds])


def _rows(kind: Any) -> list[Any]:
    """Return the layers of one kind; one layer if it has no parameters."""
    leaves = jax.tree.leaves(kind)
    count = len(leaves[0]) if leaves else 1
    return [jax.tree.map(lambda leaf, row=row: leaf[row], kind) for row in range(count)]


def stacked(tree: Any) -> Any:
    """Return a tree as the parameters of a network are, its equal layers stacked."""
    if not isinstance(tree, Apart):
        return tree
    kinds = [
        jax.tree.map(lambda *rows: jnp.stack(rows), *layers) for layers in tree.kinds
    ]
    of_network = bool(kinds) and all(isinstance(x, networks.Params) for x in kinds)
    return networks.Params.of_kinds(kinds) if of_network else kinds
