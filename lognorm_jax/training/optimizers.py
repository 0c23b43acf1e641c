"""Optimizers of optax for networks, whose equal layers are stacked."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lognorm_jax import networks
from lognorm_jax._tools import checks


class Apart(NamedTuple):
    """A tree like the parameters of a network, its layers apart: for each kind a list
    of them.
    """

    kinds: list[list[Any]]


def check(optimizer: Any) -> None:
    """Raise ``ValueError`` for what is no optimizer of optax."""
    usable = all(
        callable(getattr(optimizer, part, None)) for part in ("init", "update")
    )
    allowed = "an optax.GradientTransformation"
    checks.require(usable, "optimizer", optimizer, allowed, "Such as optax.sgd(0.1).")


def by_layer(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer that is given each layer of a network on its own.

    Parameters are stacked over the layers of a kind, (layers, …). Most optimizers do
    not notice, as they act entry by entry or by the norm of everything. Those that go
    by the norm, the shape or the rank of single arrays do: lamb, lars, muon, adafactor,
    adaptive_grad_clip, a mask by ndim. ``training`` refuses them without this. Compile
    time grows with depth. Raises ``ValueError`` for what is no optimizer of optax.
    """
    check(optimizer)
    inner = optax.with_extra_args_support(optimizer)

    def init(params):
        return inner.init(_apart(params))

    def update(updates, state, params=None, **extra):
        if isinstance(updates, Apart):  # one by_layer is enough
            return inner.update(updates, state, params, **extra)
        params = None if params is None else _apart(params)
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
    """Return the optimizer with the standard promotion of types, which those of optax
    count on.
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


def require(network: networks.Network, optimizer: optax.GradientTransformation) -> None:
    """Raise ``ValueError`` for an optimizer that a network cannot be trained with.

    Its first updates, for normal parameters and gradients, must be finite, and to
    rounding the same whether equal layers are stacked or apart. Under vmap over
    learning rates neither is known.
    """
    checks.instance("network", network, networks.Network)
    check(optimizer)
    drawn = jax.eval_shape(network.init, jax.random.key(0))
    shapes = drawn.trained
    rng = np.random.default_rng(0)

    # two layers of a kind are enough, if gradients differ in size
    def normal(leaf, size=1):
        drawn = rng.normal(size=(min(leaf.shape[0], 2), *leaf.shape[1:])).astype(
            leaf.dtype
        )
        drawn[-1] *= size
        return drawn

    def second(optimizer, params, gradients):
        state = optimizer.init(params)
        for gradient in gradients:
            extra = {
                "value": jnp.ones(()),
                "grad": gradient,
                "value_fn": optax.tree.sum,
            }
            updates, state = optimizer.update(gradient, state, params, **extra)
        return updates

    def largest(x):
        return jnp.max(jnp.abs(x), initial=0)

    def compared(params, *gradients):
        moves = [jax.tree.leaves(second(optimizer, params, gradients))]
        finite = [jnp.all(jnp.isfinite(move)) for move in moves[0]]
        try:
            apart = promoting(by_layer(optimizer))
            moves.append(jax.tree.leaves(second(apart, params, gradients)))
        except Exception:  # of any kind: it is made for the tree as it is
            return jnp.all(jnp.array(finite)), jnp.bool_(True)
        same = [
            largest(a - b)
            <= 1e-5 * largest(b) + 4 * jnp.finfo(p.dtype).eps * largest(p)
            for a, b, p in zip(*moves, jax.tree.leaves(params), strict=True)
        ]
        return jnp.all(jnp.array(finite)), jnp.all(jnp.array(same))

    trees = (
        jax.tree.map(functools.partial(normal, size=size), shapes)
        for size in (1, 16, 16)
    )
    try:
        with jax.ensure_compile_time_eval():
            finite, same = map(bool, jax.jit(compared)(*trees))
    except jax.errors.TracerBoolConversionError:
        return  # its learning rate is not known
    allowed, instead = "finite for normal gradients", "Is its learning rate finite?"
    checks.require(finite, "optimizer's update", "not finite", allowed, instead)
    found, allowed = (
        "another where equal layers are stacked",
        "that of each layer on its own",
    )
    instead = "Wrap it: optimizers.by_layer(optimizer)."
    checks.require(same, "optimizer's update", found, allowed, instead)


def _apart(tree: networks.Params | list[Any] | Apart) -> Apart:
    """Return the layers of each kind, of what is stacked over them."""
    if isinstance(tree, Apart):
        return tree
    if isinstance(tree, networks.Params):
        tree = tree.by_kind()
    counts = [
        len(leaves[0]) if (leaves := jax.tree.leaves(part)) else 1 for part in tree
    ]
    return Apart(
        [
            [
                jax.tree.map(lambda leaf, row=row: leaf[row], part)
                for row in range(count)
            ]
            for part, count in zip(tree, counts, strict=True)
        ]
    )


def stacked(tree: Any) -> Any:
    """Return a tree as the parameters of a network are, its equal layers stacked."""
    if not isinstance(tree, Apart):
        return tree
    kinds = [jax.tree.map(lambda *rows: jnp.stack(rows), *own) for own in tree.kinds]
    of_network = bool(kinds) and all(isinstance(x, networks.Params) for x in kinds)
    return networks.Params.of_kinds(kinds) if of_network else kinds
