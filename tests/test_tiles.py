"""Products drawn tile by tile: one program for many shapes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax import (
    ensembles,
    exact,
    laws,
    masks,
    paths,
    sampling,
    summaries,
    weights,
)
from lognorm_jax.paths import _tiles

MIXED = ensembles.Ensemble(
    (30, 50, 20, 60, 3),
    weights.normal(),
    (masks.relu(), masks.leaky_relu(0.1), masks.dropout(0.7), masks.identity()),
)


def tiled(ensemble, *args, **options):
    return paths.dense(ensemble, *args, tiled=True, **options)


def whole(law, key, shape, dtype):
    """Return the matrix that tiles are those of."""
    rows, columns = _tiles.TILE
    size = [-(-n // edge) for n, edge in zip(shape, _tiles.TILE, strict=True)]
    W = np.zeros((size[0] * rows, size[1] * columns))
    for r in range(size[0]):
        for c in range(size[1]):
            key_tile = jax.random.fold_in(key, (r << 16) + c)
            tile = law.sample(key_tile, (rows * columns,), dtype).reshape(rows, columns)
            W[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns] = tile
    return W[: shape[0], : shape[1]]


@pytest.mark.parametrize("thinned", [True, False])
@pytest.mark.parametrize("law", [weights.normal(), weights.rademacher()])
def test_oracle_tiles_against_numpy(law, thinned, key, rounding):
    """With the path's own draws, whatever runs together with a sample."""
    ensemble = ensembles.Ensemble(MIXED.widths, law, MIXED.masks)
    dtype = jnp.result_type(float)
    keys = jax.random.split(key, 6)
    path = tiled(ensemble, thinned=thinned)
    found = jax.jit(jax.vmap(path))(keys)
    for one, increment, quartic in zip(keys, *found, strict=True):
        x = np.full(30, 30**-0.5)
        for layer, (n, mask) in enumerate(
            zip(ensemble.widths[1:], ensemble.masks, strict=True)
        ):
            key_weight, key_mask = (
                jax.random.fold_in(one, 2 * layer + i) for i in (0, 1)
            )
            assert np.isclose(quartic[layer], np.sum(x**4), rtol=rounding)
            D = np.float64(mask.sample(key_mask, (192,), dtype))[:n]
            if thinned and mask.support is not None and len(mask.support) == 1:
                D = np.sort(D)[::-1]  # those that survive come first
            y = D * (whole(law, key_weight, (n, len(x)), dtype) @ x)
            expected = math.log(y @ y / (n * float(mask.moment(1))))
            assert np.isclose(increment[layer], expected, rtol=rounding, atol=rounding)
            x = y / np.linalg.norm(y)


@pytest.mark.parametrize(
    ("law", "widths", "mask"),
    [
        (weights.normal(), (5, 1, 2, 3), masks.relu()),
        (weights.normal(), (40,) * 6, masks.dropout(0.5, masks.leaky_relu(0.3))),
        (weights.rademacher(), (7, 9, 5, 3), masks.relu()),
        (weights.laplace(), (60, 20), masks.bernoulli(0.3)),
    ],
)
def test_statistical_tiles_equal_whole_matrices_in_law(law, widths, mask, key):
    ensemble = ensembles.Ensemble(widths, law, mask)
    one, other = (
        sampling.sample(paths.dense(ensemble, tiled=choice), key, 20_000)
        for choice in (True, False)
    )
    comparison = laws.compare(one.log_norm, laws.empirical(other.log_norm))
    assert comparison.p_value > 1e-4 and comparison.verdict == "pass"
    if law.gaussian:
        assert laws.compare(one.log_norm, exact.law(ensemble)).p_value > 1e-4


def test_exact_many_shapes_are_few_programs(key, programs):
    """Twelve ensembles compile one program; a funnel of thirty widths, the same."""
    depths = {128: 5, 100: 9, 96: 13, 64: 30, 60: 40, 56: 64}
    for width, depth in depths.items():
        for first in (width, width // 2):
            ensemble = ensembles.Ensemble(
                (first, *(width,) * depth), weights.normal(), masks.relu()
            )
            sampling.sample(tiled(ensemble), key, 8, block_size=8)
    funnel = ensembles.Ensemble(range(101, 70, -1), weights.normal(), masks.relu())
    trace = sampling.sample(paths.dense(funnel), key, 8, block_size=8)
    assert trace.increment.shape == (8, 30)
    # that of the keys of blocks, and that of the only room needed
    assert 1 <= len(programs) <= 2


def test_exact_the_default_is_tiles_where_they_cost_little():
    def function(widths, law, mask):
        return paths.dense(ensembles.Ensemble(widths, law, mask)).function

    normal, signs, relu = weights.normal(), weights.rademacher(), masks.relu()

    in_tiles, by_shape = _tiles._product, paths._dense._product
    assert function((100,) * 11, normal, relu) is in_tiles
    # 32 × 48 for 30 × 30
    assert function((30,) * 11, normal, masks.leaky_relu(0.1)) is by_shape
    assert function((100,) * 11, signs, relu) is by_shape
    # but many shapes take long to compile
    assert function(range(40, 30, -1), signs, relu) is in_tiles


def test_oracle_prefix_of_deeper_and_wider_products(key, rounding):
    """The first layers are the same draws, whatever room the others need."""
    short = ensembles.Ensemble((20, 30, 10), weights.normal(), masks.relu())
    long = ensembles.Ensemble(
        (20, 30, 10, *(300,) * 70), weights.normal(), masks.relu()
    )
    few, many = (
        sampling.sample(tiled(e), key, 16, block_size=16).increment
        for e in (short, long)
    )
    assert few.shape == (16, 2) and many.shape == (16, 72)
    assert np.allclose(few, many[:, :2], rtol=rounding, atol=rounding)


def test_oracle_derivatives_by_the_direction(key, rounding):
    """Forwards, backwards and by differences, without a matrix."""
    path_of = jax.jit(lambda direction: tiled(MIXED, direction)(key).log_norm)
    direction = np.random.default_rng(0).normal(size=30)
    backwards = jax.grad(path_of)(direction)
    forwards = jax.jacfwd(path_of)(direction)
    assert np.allclose(backwards, forwards, rtol=10 * rounding, atol=10 * rounding)
    step = 1e-4 if jax.config.jax_enable_x64 else 1e-2
    along = np.random.default_rng(1).normal(size=30)
    difference = path_of(direction + step * along) - path_of(direction - step * along)
    assert np.isclose(backwards @ along, difference / (2 * step), rtol=1e-2, atol=1e-3)


def test_exact_stream_and_sample_without_room(key):
    """What is only room is in no result."""
    moments = sampling.stream(tiled(MIXED), key, 100, block_size=8)
    trace = sampling.sample(tiled(MIXED), key, 100, block_size=8)
    assert trace.increment.shape == trace.quartic.shape == (100, 4)
    assert moments.mean.shape == (5,)
    again = summaries.moments(trace)
    assert np.allclose(moments.mean, again.mean, rtol=1e-5, atol=1e-6)
    assert np.array_equal(moments.dead, again.dead)
    assert tiled(MIXED)(key).increment.shape == (4,)


def test_exact_mapped_over_widths_and_depth(key, rounding):
    """Stacked paths of one program: beyond the depth of each there is 0."""
    ensemble = ensembles.Ensemble((20, 30, 10), weights.normal(), masks.relu())
    deeper = ensembles.Ensemble((20, 10, 40, 5), weights.normal(), masks.relu())
    stacked = jax.tree.map(lambda *a: np.stack(a), tiled(ensemble), tiled(deeper))
    mapped = jax.jit(jax.vmap(lambda path: path(key).increment))(stacked)
    for row, e in zip(mapped, (ensemble, deeper), strict=True):
        alone = tiled(e)(key).increment
        assert np.allclose(row[: e.depth], alone, rtol=rounding, atol=rounding)
        assert np.all(row[e.depth :] == 0)


@pytest.mark.parametrize("value", [1, "yes", np.ones(2)])
def test_exact_bad_choice_is_refused(value):
    with pytest.raises(ValueError, match=r"^tiled = "):
        paths.dense(MIXED, tiled=value)


def test_exact_too_wide_for_tiles_is_refused_or_drawn_whole():
    """Each tile has a number of its own, so there are only so many."""
    widths = (1 << 18) + 1, 1
    ensemble = ensembles.Ensemble(widths, weights.normal(), masks.identity())
    with pytest.raises(ValueError, match=r"^max\(widths\) = 262145: .*262144 in tiles"):
        tiled(ensemble)
    assert paths.dense(ensemble).function is paths._dense._product
