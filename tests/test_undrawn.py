"""Matrices that are never drawn: consistent in themselves, and equal in law to drawn
ones.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from lognorm_jax._tools import undrawn

KINDS = {"normal": undrawn.normal, "orthogonal": undrawn.orthogonal}
SHAPES = [(1, 1), (5, 5), (7, 4), (3, 8), (1, 6), (6, 1), (20, 30)]


def rows(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def met(matrix, key, *products):
    """Return the images of vectors, each on the "right" or "left", and the matrix."""
    images = []
    for number, (V, side) in enumerate(products):
        key_product = jax.random.fold_in(key, number)
        turned = undrawn.transposed(matrix) if side == "left" else matrix
        turned, image = undrawn.product(turned, key_product, V)
        matrix = undrawn.transposed(turned) if side == "left" else turned
        images.append(image)
    return images, matrix


@pytest.mark.parametrize("room", [None, (40, 40)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_exact_one_matrix_is_behind_all_products(kind, shape, room, key):
    """However many vectors it meets, of whatever rank, on either side."""
    n_out, n_in = shape
    V, P = rows(0, 3, n_in), rows(1, 6, n_out)
    mixing = rows(2, 4, 3)
    more = jnp.concatenate([rows(3, 2, n_in), mixing[:1] @ V])

    @jax.jit
    def images(key):
        products = [(V, "right"), (P, "left"), (mixing @ V, "right"), (more, "right")]
        products += [(P[:2], "left")]
        # once it has met all there is to meet, it is known
        products += [(jnp.eye(n_in), "right"), (jnp.eye(n_out), "left")]
        return met(kind(shape, 0.7, room), key, *products)[0]

    z, u, z_mixed, z_more, u_again, W, transpose = images(key)
    close = functools.partial(
        np.testing.assert_allclose, rtol=0, atol=2000 * jnp.finfo(z.dtype).eps
    )
    close(z @ P.T, V @ u.T)  # ⟨W v, p⟩ = ⟨v, Wᵀ p⟩
    close(z_more @ P.T, more @ u.T)
    close(z_mixed, mixing @ z)
    close(z_more[-1], z_mixed[0])
    close(u_again, u[:2])
    close(W, transpose.T)
    close(V @ W, z)
    if kind is undrawn.orthogonal:
        gram = W @ W.T if n_in <= n_out else W.T @ W
        close(gram / (0.7**2 * max(shape)), np.eye(min(shape)))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("many", [2, 9])
def test_exact_dead_and_small_and_lost_vectors(kind, many, key):
    """Zero stays zero, sizes do not matter, NaN stays NaN."""
    V = rows(0, many, 8).at[0].set(0)
    (z,), _ = met(kind((6, 8), 1.0), key, (V, "right"))
    (small,), _ = met(kind((6, 8), 1.0), key, (1e-30 * V, "right"))
    assert np.abs(z[0]).max() < 1e-5 and np.isfinite(z).all()
    np.testing.assert_allclose(1e30 * small, z, rtol=0, atol=1e-4)
    for value in (jnp.nan, jnp.inf):
        (lost,), _ = met(kind((6, 8), 1.0), key, (V.at[-1, 2].set(value), "right"))
        assert not np.isfinite(lost[-1]).any()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("many", [3, 7])
def test_exact_derivatives_where_vectors_depend_on_one_another(kind, many, key):
    def size(scale):
        V = jnp.concatenate([rows(0, many - 1, 9), rows(0, 1, 9)])
        (z,), _ = met(kind((5, 9), scale), key, (scale * V, "right"))
        return jnp.sum(z**2)

    value, slope = jax.value_and_grad(size)(1.3)
    np.testing.assert_allclose(slope, 4 * value / 1.3, rtol=1e-3)


def drawn(kind, rng, shape):
    """Return a matrix of that law, drawn."""
    if kind == "normal":
        return rng.normal(size=shape)
    size = max(shape)
    U = scipy.stats.ortho_group.rvs(size, random_state=rng) if size > 1 else np.eye(1)
    return size**0.5 * U[: shape[0], : shape[1]]


SHAPE, COUNT = (4, 5), 4_000
X, Y = np.random.default_rng(7).normal(size=(2, 2, SHAPE[1]))


def statistics(right, left, of=np):
    """Return what depends on all that one matrix does: forward, back, and again.

    Twice as many vectors as are made orthogonal one by one come forward first.
    """
    z = right(of.concatenate([X, Y, X + Y, X - Y]))
    first = of.tanh(z[:2]) * z[2:4]
    u = left(first)
    again = right(u**2 / 5)
    back = left(of.concatenate([again, first[:1] + again[:1] ** 2]))
    return of.stack(
        [of.log(of.sum(part**2)) for part in (z[:1], first, u, again, back)]
        + [of.sum(u * Y), of.sum(again[0] * z[0])]
    )


def undrawn_statistics(kind, key, forgetful=False):
    """Return them without the matrix; forgetful: its transpose has met nothing."""
    fresh = KINDS[kind](SHAPE, 1.0)
    known = {"matrix": fresh, "calls": 0}

    def multiplied(V, left):
        known["calls"] += 1
        key_product = jax.random.fold_in(key, known["calls"])
        matrix = known["matrix"]
        if not left:
            known["matrix"], image = undrawn.product(matrix, key_product, V)
            return image
        turned = undrawn.transposed(fresh if forgetful else matrix)
        after, image = undrawn.product(turned, key_product, V)
        known["matrix"] = undrawn.transposed(after)
        return image

    right = functools.partial(multiplied, left=False)
    return statistics(right, functools.partial(multiplied, left=True), jnp)


def p_values(kind, key, forgetful=False):
    """Return the p-value of each statistic, drawn against never drawn."""
    rng = np.random.default_rng(3)
    oracle = []
    for _ in range(COUNT):
        W = drawn(kind, rng, SHAPE)
        oracle.append(statistics(lambda V, W=W: V @ W.T, lambda V, W=W: V @ W))
    sample = jax.jit(
        jax.vmap(functools.partial(undrawn_statistics, kind, forgetful=forgetful))
    )
    mine = np.asarray(sample(jax.random.split(key, COUNT)))
    pairs = zip(np.transpose(oracle), mine.T, strict=True)
    return [scipy.stats.ks_2samp(*pair).pvalue for pair in pairs]


@pytest.mark.parametrize("kind", KINDS)
def test_statistical_products_forward_and_back_have_the_law_of_drawn_ones(kind, key):
    assert min(p_values(kind, key)) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_statistical_a_transpose_that_forgets_is_found(kind, key):
    assert min(p_values(kind, key, forgetful=True)) < 1e-6


@pytest.mark.parametrize("few", [1, 4, 7])
def test_exact_what_is_all_rounding_is_no_direction(few):
    """Beside a basis of all there is, however many vectors come, and near ones."""
    n = 12
    basis = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0])
    basis = basis.astype(jnp.result_type(float))
    V = rows(1, few, n)
    # nearly in the span of eleven of them, and so near that rounding is most of it
    tiny = 3 * jnp.finfo(V.dtype).eps
    near = (V @ basis[:-1].T) @ basis[:-1] + tiny * basis[-1:]
    for given, known in ((V, basis), (near, basis), (near, basis[:-1])):
        C, L, Q = undrawn.split(given, known)
        close = functools.partial(
            np.testing.assert_allclose, rtol=0, atol=100 * jnp.finfo(V.dtype).eps
        )
        close(C @ known + L @ Q, given)
        close(Q @ known.T, np.zeros((few, len(known))))
        there = np.any(np.asarray(Q) != 0, axis=1)
        close((Q @ Q.T)[there][:, there], np.eye(there.sum()))
        if len(known) == n:
            assert not there.any()


def test_exact_rounding_of_a_basis_becomes_no_direction():
    """Of all there is, orthonormal but for rounding: nothing is left beside it, though
    a first pass leaves more than rounding of one number.
    """
    n, dtype = 12, jnp.result_type(float)
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    basis = jnp.asarray(basis + 40 * jnp.finfo(dtype).eps * rng.normal(size=(n, n)))
    basis, V = basis.astype(dtype), rows(1, 5, n).astype(dtype)
    left = V - (V @ basis.T) @ basis
    lengths = jnp.linalg.norm(left, axis=1) / jnp.linalg.norm(V, axis=1)
    assert np.all(lengths > 10 * jnp.finfo(dtype).eps)
    _, _, Q = undrawn.split(V, basis)
    assert not np.any(Q)


@pytest.mark.parametrize("apart", [1e-2, 1e-4])
def test_exact_near_vectors_have_directions_orthogonal_to_a_basis(apart):
    """Their difference is a direction, to rounding, and not to rounding over it."""
    n, dtype = 40, jnp.result_type(float)
    basis = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(n, 9)))[0].T)
    basis, x, more = basis.astype(dtype), rows(1, 1, n), rows(2, 5, n)
    V = jnp.concatenate([x, x + apart * more]).astype(dtype)
    _, L, Q = undrawn.split(V, basis)
    whole = jnp.concatenate([basis, Q])
    drift = np.abs(np.asarray(whole @ whole.T) - np.eye(len(whole))).max()
    assert drift < 50 * jnp.finfo(dtype).eps
    assert np.diagonal(L).min() > 0
