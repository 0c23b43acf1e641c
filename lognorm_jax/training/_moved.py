"""Matrices in training that are never drawn.

Optimizers that act linearly, entry by entry, move a matrix by few outer products: at
step t it is W_t = c_0 W_0 + Σ_s c_s g_s, with the gradients g_s = Σ p vᵀ of the steps
before, and numbers c that the optimizer makes. All that a step needs of W_0 are its
products with the vectors of a batch, and those with the transpose; given what W_0 met
before, they have a known law (``_tools/undrawn``).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lognorm_jax import networks
from lognorm_jax._tools import norms, undrawn


class Moved(NamedTuple):
    """A matrix in training: W_0, and the gradients that it was moved along."""

    base: undrawn.Undrawn
    V: jax.Array  # (steps, k, n_in): g_s = Σ p vᵀ over k rows; zero from now on
    P: jax.Array  # (steps, k, n_out)
    # the largest entries of V and P of each step, (steps, 2); of gradients over these:
    # ⟨g_s, g_t⟩ (steps, steps), and ⟨W_0, g_t⟩ (steps,)
    sizes: jax.Array
    products: jax.Array
    along: jax.Array


def unmoved(one: networks.Map, rows: int, batch: int, num_steps: int) -> Moved:
    """Return a matrix that has not moved, with room for all that it will meet.

    Args:
        one: the linear map that it is of.
        rows: how many vectors it is given, of one input.
        batch: inputs of a step.
        num_steps: how many steps there will be.
    """
    n_out, n_in = one.shape
    k = rows * batch
    make = undrawn.orthogonal if one.weights.orthogonal else undrawn.normal
    # inputs, the probe and its tangent; and cotangents
    base = make(one.shape, one.std, (num_steps * (k + 2 * rows), num_steps * k))
    dtype = jnp.result_type(float)
    return Moved(
        base,
        jnp.zeros((num_steps, k, n_in), dtype),
        jnp.zeros((num_steps, k, n_out), dtype),
        jnp.zeros((num_steps, 2), dtype),
        jnp.zeros((num_steps, num_steps), dtype),
        jnp.zeros(num_steps, dtype),
    )


def product(
    moved: Moved, c: jax.Array, key: jax.Array, V: jax.Array
) -> tuple[Moved, jax.Array, jax.Array]:
    """Return the matrix after it met V (m, n_in), V W_tᵀ and V W_0ᵀ (m, n_out)."""
    base, image = undrawn.product(moved.base, key, V)
    steps, k, n_in = moved.V.shape
    weights = jnp.repeat(c[1:], k)
    along = _matmul(V, moved.V.reshape(steps * k, n_in).T) * weights[None, :]
    whole = c[0] * image + _matmul(along, moved.P.reshape(steps * k, -1))
    return moved._replace(base=base), whole, image


def turned(moved: Moved) -> Moved:
    """Return the transpose."""
    base = undrawn.transposed(moved.base)
    return moved._replace(base=base, V=moved.P, P=moved.V)


def with_gradient(
    moved: Moved, step: jax.Array, V: jax.Array, image: jax.Array, P: jax.Array
) -> Moved:
    """Return a matrix of which the gradient Σ p vᵀ of a step is known.

    Args:
        moved: the matrix.
        step: the number of the step.
        V: (k, n_in).
        image: (k, n_out), W_0 v.
        P: (k, n_out).
    """
    V_all = lax.dynamic_update_index_in_dim(moved.V, V, step, 0)
    P_all = lax.dynamic_update_index_in_dim(moved.P, P, step, 0)
    new = jnp.max(jnp.abs(V)), jnp.max(jnp.abs(P))
    sizes = lax.dynamic_update_index_in_dim(moved.sizes, jnp.stack(new), step, 0)

    # products of gradients over their sizes, which neither over- nor underflow
    steps, k, _ = V_all.shape
    inverse = jnp.where(sizes > 0, 1 / jnp.where(sizes > 0, sizes, 1), 0)
    rows = jnp.repeat(inverse, k, axis=0)
    v, p = lax.dynamic_index_in_dim(inverse, step, 0, keepdims=False)
    A = _matmul(V_all.reshape(steps * k, -1) * rows[:, :1], (v * V).T)
    B = _matmul(P_all.reshape(steps * k, -1) * rows[:, 1:], (p * P).T)
    each = jnp.sum((A * B).reshape(steps, k, k), axis=(1, 2))
    products = lax.dynamic_update_index_in_dim(moved.products, each, step, 0)
    products = lax.dynamic_update_index_in_dim(products, each, step, 1)
    inside = jnp.sum((v * image) * (p * P))
    along = lax.dynamic_update_index_in_dim(moved.along, inside, step, 0)
    return moved._replace(V=V_all, P=P_all, sizes=sizes, products=products, along=along)


def log_square(V: jax.Array, P: jax.Array) -> jax.Array:
    """Return ln‖Σ p vᵀ‖²: with V = L Q, Q orthonormal, it is that of Pᵀ L."""
    L = undrawn.triangle(V)
    return norms.normalise(_matmul(L.T, P))[0]


def log_square_of(moved: Moved, c: jax.Array, square: jax.Array) -> jax.Array:
    """Return ln‖c_0 W_0 + Σ c_s g_s‖², of the squared norm of W_0."""
    rest = c[1:] * moved.sizes[:, 0] * moved.sizes[:, 1]
    rest = jnp.where(c[1:] != 0, rest, 0)
    first = c[0] * jnp.sqrt(square)
    unit = square**-0.5

    # over the largest of them: squares of large numbers overflow
    largest = jnp.maximum(jnp.abs(first), jnp.max(jnp.abs(rest)))
    largest = jnp.where(largest > 0, largest, 1)
    first, rest = first / largest, rest / largest
    quadratic = jnp.vdot(rest, _matmul(moved.products, rest[:, None])[:, 0])
    cross = 2 * first * unit * jnp.vdot(rest, moved.along)
    total = first**2 + cross + quadratic
    positive = total > 0
    logs = jnp.log(jnp.where(positive, total, 1)) + 2 * jnp.log(largest)
    return jnp.where(positive, logs, -jnp.inf)


def square_of(base: undrawn.Undrawn, key: jax.Array) -> jax.Array:
    """Return ‖W_0‖², in law given what W_0 has met."""
    n_out, n_in = base.shape
    if isinstance(base, undrawn.Orthogonal):
        return jnp.asarray(base.scale**2 * min(n_out, n_in), base.right.dtype)
    # W Q, then what is left of Pᵀ W beside it, then what nothing has met; rows that are
    # zero are no directions, and their images say nothing
    right, left = (jnp.any(rows != 0, axis=1) for rows in (base.right, base.left))
    shown = jnp.sum(jnp.where(right[:, None], base.images, 0) ** 2)
    inside = _matmul(_matmul(base.pulled, base.right.T), base.right)
    shown = shown + jnp.sum(jnp.where(left[:, None], base.pulled - inside, 0) ** 2)
    free = (n_in - jnp.sum(right)) * (n_out - jnp.sum(left))
    free = free.astype(shown.dtype)
    chi = 2 * jax.random.gamma(key, jnp.maximum(free, 1) / 2, dtype=shown.dtype)
    return shown + base.std**2 * jnp.where(free > 0, chi, 0)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
