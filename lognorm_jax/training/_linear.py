"""Optimizers that can do without matrices: they move W_0 to c_0 W_0 + Σ c_s g_s, with
the gradients g_s of the steps, and numbers c that they make of numbers.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from lognorm_jax import networks
from lognorm_jax._tools import checks
from lognorm_jax.training import _tried, optimizers

_mapped = jax.tree_util.tree_map_with_path

# sizes of parameters and gradients: what clips does so at some of them
SIZES = (2.0**-40, 1.0, 2.0**40)
STEPS = 256  # that are looked at, at most
ENTRIES = 3  # of each axis of a matrix, at most
CLOSE = 1e-3  # of an entry's largest update: so far two updates may be apart


class Verdict(NamedTuple):
    """What is found of an optimizer."""

    finite: bool  # whether its first updates are
    linear: bool
    error: str = ""  # what it raised, if it did


def require(
    network: networks.Network, optimizer: optax.GradientTransformation, num_steps: int
) -> None:
    """Require an optimizer that moves matrices by the gradients of the steps so far
    times numbers: such as gradient descent with any schedule, momentum, Nesterov's too,
    and decayed weights.

    It is tried out, with normal parameters and gradients of three sizes, on parameters
    as the network's but of few entries, and on numbers in place of weights. A learning
    rate that is not known, as under vmap, is taken for one that is.

    Args:
        network: what it trains.
        optimizer: any of optax.
        num_steps: how many steps.

    Raises:
        ValueError: for others, with the way out.
    """
    checks.instance("network", network, networks.Network)
    optimizers.check(optimizer)
    finite, linear, error = _verdict(network, optimizer, num_steps)
    optimizers.require_finite(finite)
    given = f"not linear ({error})" if error else "not linear"
    allowed = "linear in the gradients, entry by entry, such as optax.sgd"
    instead = (
        "Adaptive rates, clipping and noise move a matrix by more than a few outer "
        "products. Take drawn=True, which draws all weights."
    )
    checks.require(linear, optimizers.UPDATE, given, allowed, instead)
    optimizers.require(network, optimizer, ENTRIES)


def first(weight: jax.Array, size: int) -> jax.Array:
    """Return so many numbers c of weights that have not moved, (layers, size, 1, …).

    They have the rank of the weights, by which optimizers may go.
    """
    c = jnp.zeros((len(weight), size), jnp.result_type(float)).at[:, 0].set(1)
    return jnp.expand_dims(c, range(2, weight.ndim))


def gradient(c: jax.Array, step: jax.Array) -> jax.Array:
    """Return the gradient of a step in place of that of weights, like the numbers c."""
    return jnp.zeros_like(c).at[:, 1 + step].set(1)


def _verdict(
    network: networks.Network, optimizer: optax.GradientTransformation, num_steps: int
) -> Verdict:
    """Return what is found of an optimizer, tried out once for each kind of tree."""
    whole = jax.eval_shape(network.init, jax.random.key(0)).trained
    leaves, structure = jax.tree.flatten(whole)
    shapes = tuple(optimizers.few(leaf.shape, ENTRIES) for leaf in leaves)
    steps = min(num_steps, STEPS)
    dtype = np.dtype(jnp.result_type(float))
    try:
        return _of_known(optimizer, structure, shapes, steps, dtype)
    except _Unknown as unknown:
        return unknown.verdict


class _Raised(Exception):
    """An optimizer that may need what there is not, such as the loss as a function."""


class _Unknown(Exception):
    """A verdict on an optimizer of which something is not known while JAX traces."""

    def __init__(self, verdict: Verdict):
        self.verdict = verdict


@functools.lru_cache(maxsize=256)
def _of_known(optimizer, structure, shapes, steps, dtype) -> Verdict:
    """Return the verdict on an optimizer of which all is known.

    Raises:
        _Unknown: for others, so that nothing of them is kept.
    """
    rng = np.random.default_rng(0)

    def tree(*axes):
        drawn = [rng.normal(size=(*axes, *shape)).astype(dtype) for shape in shapes]
        return jax.tree.unflatten(structure, drawn)

    if not shapes:
        return Verdict(True, True)
    trial = functools.partial(_trial, optimizer)
    try:
        verdicts, known = _tried.out(trial, tree(), tree(steps))
    except _Raised as error:
        return Verdict(True, False, str(error))
    finite, linear = map(bool, verdicts)
    if known:
        return Verdict(finite, linear)
    raise _Unknown(Verdict(True, linear))


def _trial(
    optimizer: optax.GradientTransformation, params: Any, gradients: Any
) -> tuple[jax.Array, jax.Array]:
    """Return whether the first updates are finite, and whether updates of matrices are
    those of numbers.

    Args:
        optimizer: any of optax.
        params: as those of a network.
        gradients: likewise, of steps, with an axis of steps first.
    """
    sizes = jnp.asarray(SIZES, jax.tree.leaves(params)[0].dtype)
    found = jax.vmap(functools.partial(_compared, optimizer, params, gradients))(sizes)
    finite, linear = found
    return finite[SIZES.index(1.0)], jnp.all(linear)


def _compared(
    optimizer: optax.GradientTransformation,
    params: Any,
    gradients: Any,
    size: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return ``_trial`` for parameters and gradients of a size."""
    params, gradients = jax.tree.map(lambda leaf: size * leaf, (params, gradients))
    steps = len(jax.tree.leaves(gradients)[0])

    def numbers(path, leaf):
        return first(leaf, 1 + steps) if _is_weight(path) else leaf

    def in_place(number, path, leaf, c):
        return gradient(c, number) if _is_weight(path) else leaf

    def step(states, given):
        number, moving = given
        one, other = states
        of_step = functools.partial(in_place, number)
        other, of_numbers = _moved(optimizer, other, _mapped(of_step, moving, other[0]))
        one, moves = _moved(optimizer, one, moving)
        return (one, other), (moves, of_numbers)

    both = params, _mapped(numbers, params)
    start = tuple((tree, optimizer.init(tree)) for tree in both)
    given = jnp.arange(steps), gradients
    _, (moves, of_numbers) = lax.scan(step, start, given)

    # what numbers say of matrices
    basis = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), params, gradients)
    said = _mapped(_said, of_numbers, basis)
    early = [jnp.isfinite(leaf[:4]).all() for leaf in jax.tree.leaves(moves)]
    alike = jax.tree.leaves(jax.tree.map(_alike, moves, said))
    return jnp.all(jnp.array(early)), jnp.all(jnp.array(alike))


def _is_weight(path: tuple[Any, ...]) -> bool:
    return path[-1].key == "weight"


def _moved(optimizer, state, gradient):
    """Return parameters and optimizer after a step, and the update."""
    params, inner = state
    extra = {"value": jnp.ones(()), "grad": gradient}
    try:
        updates, inner = optimizer.update(gradient, inner, params, **extra)
    except Exception as error:  # of any kind
        raise _Raised(f"it raised {type(error).__name__}: {error}") from error
    return (optax.apply_updates(params, updates), inner), updates


def _said(path: tuple[Any, ...], moves: jax.Array, basis: jax.Array) -> jax.Array:
    """Return the updates (steps, layers, …) that those of numbers say."""
    if not _is_weight(path):
        return moves
    c = moves.reshape(moves.shape[:3])  # (steps, layers, 1 + steps)
    return jnp.einsum("tlj,jl...->tl...", c, basis, precision="highest")


def _alike(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return whether updates (steps, …) agree, where they are finite."""
    finite = jnp.isfinite(a) & jnp.isfinite(b)
    most = jnp.max(jnp.where(finite, jnp.abs(a), 0), axis=0, keepdims=True)
    return jnp.all(~finite | (jnp.abs(a - b) <= CLOSE * most))
