import json
import math
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statistical

from lognorm_jax import ensembles, exact, laws, masks, paths, sampling, scans, weights
from lognorm_jax._tools import draws
from lognorm_jax.paths import _dense

UNEVEN = ensembles.Ensemble(
    (7, 5, 9, 5, 9, 5, 5),
    weights.laplace(),
    (*(masks.relu(),) * 5, masks.dropout(0.9, masks.leaky_relu(0.2))),
)


def numpy_product(ensemble, direction, key):
    """Return (increment, quartic) of the product with the path's own draws, in float64
    NumPy.
    """
    x, increment, quartic = np.asarray(direction, dtype=np.float64), [], []
    x = x / np.linalg.norm(x)
    for layer, mask in enumerate(ensemble.masks):
        n_in, n_out = ensemble.widths[layer : layer + 2]
        key_weight, key_mask, _ = draws.keys(key, layer, 3)
        W = np.float64(
            ensemble.weights.sample(key_weight, (n_out, n_in), jnp.result_type(float))
        )
        D = np.float64(mask.sample(key_mask, (n_out,), jnp.result_type(float)))
        variance = 1 / (
            float(mask.moment(1)) * (n_out if ensemble.fan == "out" else n_in)
        )
        quartic.append(np.sum(x**4) / np.sum(x**2) ** 2)
        y = D * (math.sqrt(variance) * W @ x)
        increment.append(math.log(np.sum(y**2) / np.sum(x**2)))
        x = y
    return np.array(increment), np.array(quartic)


@pytest.mark.parametrize("fan", ["out", "in"])
def test_oracle_dense_against_numpy(fan, key, rounding):
    ensemble = ensembles.Ensemble(UNEVEN.widths, UNEVEN.weights, UNEVEN.masks, fan)
    direction = np.arange(1.0, 8.0)
    path = jax.jit(paths.dense(ensemble, direction, tiled=False))
    compared = 0
    for i in range(8):
        one = jax.random.fold_in(key, i)
        trace = path(one)
        if np.all(np.isfinite(trace.increment)):
            increment, quartic = numpy_product(ensemble, direction, one)
            assert np.allclose(trace.increment, increment, rtol=rounding, atol=rounding)
            assert np.allclose(trace.quartic, quartic, rtol=rounding, atol=0)
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize(
    ("law", "room"),
    [
        (weights.rademacher(), None),
        pytest.param(weights.normal(), 16, marks=pytest.mark.slow),
    ],
)
def test_statistical_thinned_against_plain(law, room, key, monkeypatch):
    """Only the surviving rows and columns are drawn; in small tiles most layers
    overflow.
    """
    if room:
        monkeypatch.setattr(_dense, "_room", lambda width, mask: min(width, room))
    widths = (30, 40, 48, 36, 3)
    ensemble = ensembles.Ensemble(
        widths,
        law,
        (masks.relu(), masks.bernoulli(0.3), masks.dropout(0.5), masks.relu()),
    )
    thinned, plain = (
        sampling.sample(
            paths.dense(ensemble, thinned=thinned, tiled=False), key, 20_000
        )
        for thinned in (True, False)
    )
    assert not np.array_equal(thinned.increment, plain.increment)
    comparison = laws.compare(thinned.log_norm, laws.empirical(plain.log_norm))
    assert comparison.p_value > 1e-4 and comparison.verdict == "pass"
    for a, b in zip(thinned, plain, strict=True):
        alive = np.isfinite(thinned.log_norm), np.isfinite(plain.log_norm)
        (mean, error), (other, other_error) = (
            statistical.mean_and_error(leaf[kept])
            for leaf, kept in zip((a, b), alive, strict=True)
        )
        statistical.assert_near(mean, np.hypot(error, other_error) + 1e-9, other)


def test_oracle_thinned_against_numpy(key, rounding, monkeypatch):
    """With the path's own draws, also where a sample, or only its neighbour,
    overflows.
    """
    monkeypatch.setattr(_dense, "_room", lambda width, mask: 24)
    ensemble = ensembles.Ensemble((20, 40, 40), weights.normal(), masks.relu())
    keys, rows = jax.random.split(key, 64), 24
    found = jax.jit(jax.vmap(paths.dense(ensemble, tiled=False)))(keys).increment
    whole = 0
    for one, increment in zip(keys, found, strict=True):
        x, alive, columns, expected = np.full(20, 20**-0.5), 20, 20, []
        for layer in range(2):
            key_weight, key_mask, key_whole = draws.keys(one, layer, 3)
            count = int(np.sum(masks.relu().sample(key_mask, (40,), jnp.float32)))
            if count > rows or alive > columns:
                key_weight, whole = key_whole, whole + 1
                shape = (40, len(x))
            else:
                shape = (rows, columns)
            W = np.float64(
                weights.normal().sample(key_weight, shape, jnp.result_type(float))
            )
            y = (W @ x[: shape[1]])[:count]
            expected.append(math.log(y @ y / 20))
            x = np.append(y / np.linalg.norm(y), np.zeros(40 - count))
            alive, columns = count, rows
        assert np.allclose(increment, expected, rtol=rounding, atol=rounding)
    assert 4 < whole < 64


def test_exact_overflow_is_decided_for_the_whole_batch():
    """Under vmap, however nested, the flag is one for all samples, so a cond on it is a
    branch.
    """
    flags = jnp.array([[False, False], [False, True]])
    one = jax.vmap(_dense._any_of_batch)(flags[0])
    assert not np.any(one)
    assert np.all(jax.vmap(_dense._any_of_batch)(flags[1]))
    assert np.all(jax.jit(jax.vmap(jax.vmap(_dense._any_of_batch)))(flags))
    branch = jax.make_jaxpr(
        jax.vmap(
            lambda flag: jax.lax.cond(
                _dense._any_of_batch(flag), lambda: 1.0, lambda: 0.0
            )
        )
    )(flags[0])
    assert "cond" in str(branch) and "select" not in str(branch)


def test_exact_tiles_leave_room_for_the_survivors():
    for width in (30, 64, 100, 1000, 10**6):
        for p in (0.01, 0.3, 0.5, 0.8):
            room = _dense._room(width, masks.bernoulli(p))
            assert room == width or room > width * p + 3 * (width * p * (1 - p)) ** 0.5
    assert [_dense._room(n, masks.relu()) for n in (1, 9, 16, 30, 100)] == [
        1,
        9,
        16,
        24,
        72,
    ]
    assert 550 < _dense._room(1000, masks.relu()) < 600
    for mask in (masks.identity(), masks.leaky_relu(0.1), masks.bernoulli(1)):
        assert _dense._room(1000, mask) == 1000
    assert _dense._room(100, masks.dropout(0.5)) < 60


def test_exact_repetitions_cover_every_layer_once():
    rng = np.random.default_rng(0)
    for _ in range(200):
        kinds = list(rng.integers(0, 3, size=rng.integers(1, 30)))
        rebuilt = []
        for start, period, times in scans.repetitions(kinds):
            assert start == len(rebuilt)
            rebuilt += list(kinds[start : start + period]) * times
        assert rebuilt == kinds
    assert list(scans.repetitions("A" * 100_000)) == [(0, 1, 100_000)]
    assert list(scans.repetitions("AB" * 50 + "A")) == [(0, 2, 50), (100, 1, 1)]


def test_exact_compile_size_does_not_grow_with_depth(key):
    def lines(depth):
        ensemble = ensembles.Ensemble(
            (8,) * (depth + 1), weights.normal(), masks.leaky_relu(0.1)
        )
        return len(jax.jit(paths.dense(ensemble)).lower(key).as_text().splitlines())

    assert lines(100_000) == lines(100)


@pytest.mark.slow
def test_statistical_deep_leaky_product(key):
    """Depth 100,000 in default precision: no overflow, no underflow, no NaN, the right
    drift.
    """
    depth, width = 100_000, 8
    ensemble = ensembles.Ensemble(
        (width,) * (depth + 1), weights.normal(), masks.leaky_relu(Fraction(1, 10))
    )
    trace = sampling.sample(paths.dense(ensemble), key, 8, block_size=8)
    assert trace.increment.shape == (8, depth) and np.all(np.isfinite(trace.increment))
    assert np.all((trace.quartic >= 1 / width - 1e-6) & (trace.quartic <= 1 + 1e-6))
    mean, variance = exact.increment_cumulants(
        width, masks.leaky_relu(Fraction(1, 10)), 2
    )
    error = math.sqrt(variance / trace.increment.size)
    statistical.assert_near(trace.log_norm.mean() / depth, error, mean)


@pytest.mark.parametrize(("width", "dead"), [(2, 0.9437), (3, 0.7369)])
def test_statistical_dead_mass(width, dead, key):
    ensemble = ensembles.Ensemble((width,) * 11, weights.normal(), masks.relu())
    num_samples = 20_000
    trace = sampling.sample(paths.dense(ensemble), key, num_samples)
    assert not np.any(np.isnan(trace.increment)) and not np.any(
        np.isnan(trace.log_norm)
    )
    share = np.mean(np.isneginf(trace.log_norm))
    statistical.assert_near(share, math.sqrt(dead * (1 - dead) / num_samples), dead)


def test_exact_gradient_through_a_dead_path(key):
    ensemble = ensembles.Ensemble((3, 2, 2, 2, 2), weights.normal(), masks.relu())

    def log_norm(direction, key):
        return paths.dense(ensemble, direction)(key).log_norm

    keys = jax.random.split(key, 200)
    both = jax.jit(jax.vmap(jax.value_and_grad(log_norm), (None, 0)))
    value, gradient = both(jnp.ones(3), keys)
    dead = np.isneginf(value)
    assert 20 < dead.sum() < 180
    assert np.all(np.isfinite(gradient))
    assert np.all(np.any(gradient[~dead] != 0, axis=-1))
    along = gradient @ jnp.ones(3)  # the norm of the direction does not matter
    assert np.all(np.abs(along) < 1e-3 * (1 + np.abs(gradient).max(-1)))


def test_exact_fan_in_shifts_each_increment(key):
    out, into = (
        sampling.sample(
            paths.dense(
                ensembles.Ensemble((10, 20, 15), weights.normal(), masks.relu(), fan)
            ),
            key,
            256,
        )
        for fan in ("out", "in")
    )
    shift = np.log([2.0, 0.75])
    assert np.allclose(into.increment - out.increment, shift, rtol=0, atol=2e-6)
    total = into.log_norm - out.log_norm
    assert np.allclose(total, math.log(15 / 10), rtol=0, atol=2e-6)
    assert np.array_equal(out.quartic, into.quartic)


@pytest.mark.parametrize(
    ("widths", "direction", "dead"),
    [
        ((2, 1), (1, 1), 1 / 2),
        ((3, 1), (1, 2, 3), 1 / 4),
        ((4, 2), (1, 1, 1, 1), 9 / 64),
    ],
)
def test_statistical_cancelling_weights_die(widths, direction, dead, key):
    """±1 weights cancel exactly; in floating point that is 0 only up to rounding."""
    ensemble = ensembles.Ensemble(widths, weights.rademacher(), masks.identity())
    path = paths.dense(ensemble, np.array(direction, dtype=float))
    increment = sampling.sample(path, key, 20_000).increment[:, -1]
    share = np.mean(np.isneginf(increment))
    statistical.assert_near(share, math.sqrt(dead * (1 - dead) / 20_000), dead)
    assert increment[np.isfinite(increment)].min() > -6


@pytest.mark.parametrize("slope", [1e-12, 1e-30])
def test_exact_tiny_slopes_do_not_underflow(slope, key):
    ensemble = ensembles.Ensemble((2, 1), weights.normal(), masks.leaky_relu(slope))
    increment = sampling.sample(paths.dense(ensemble), key, 512).increment
    assert np.all(np.isfinite(increment))
    assert increment.min() < 2 * math.log(slope) + 5


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_exact_any_dtype(dtype, key):
    ensemble = ensembles.Ensemble((64,) * 200, weights.normal(), masks.relu())
    trace = sampling.sample(paths.dense(ensemble, dtype=dtype), key, 8, block_size=8)
    assert trace.increment.dtype == dtype
    increment = trace.increment.astype(np.float64)
    mean, variance = exact.increment_cumulants(64, masks.relu(), 2)
    error = math.sqrt(variance / increment.size)
    statistical.assert_near(
        increment.mean(), error + float(jnp.finfo(dtype).eps) / 5, mean
    )
    discrete = ensembles.Ensemble((64, 64), weights.rademacher(), masks.relu())
    if dtype != jnp.float32:
        with pytest.raises(ValueError, match=r"dtype = .*float32 or float64"):
            paths.dense(discrete, dtype=dtype)


@pytest.mark.parametrize("row", [3, 1])
def test_statistical_dense_against_exact_law(row, key):
    """Sampled log-norms have the exact mean, variance, atom and cdf of the
    reference.
    """
    row = json.loads((Path(__file__).parent / "reference/laws.json").read_text())[
        "rows"
    ][row]
    widths, num_samples = row["widths_out"], 20_000
    ensemble = ensembles.Ensemble(
        (widths[0], *widths), weights.normal(), masks.bernoulli(row["keep_prob"])
    )
    log_norms = sampling.sample(paths.dense(ensemble), key, num_samples).log_norm
    alive = log_norms[np.isfinite(log_norms)]
    statistical.assert_near(*statistical.mean_and_error(alive), row["mean"])
    statistical.assert_near(*statistical.variance_and_error(alive), row["variance"])
    cdf = np.array(row["cdf"])
    error = np.sqrt(cdf * (1 - cdf) / num_samples)
    statistical.assert_near(laws.empirical(log_norms).cdf(row["x"]), error, cdf)


@pytest.mark.parametrize("first", [0, 4, 8, 12])
def test_statistical_dense_against_exact_moments(first, key):
    """E‖Mu‖^{2k}, k = 1, 2, of the reference: path counting by independent programs."""
    reference = json.loads(
        (Path(__file__).parent / "reference/moments.json").read_text()
    )["rows"]
    row = reference[first]
    mask = {"bernoulli": masks.bernoulli, "leaky": masks.leaky_relu}[row["mask"]]
    law = getattr(weights, row["weights"])()
    ensemble = ensembles.Ensemble(row["widths"], law, mask(Fraction(row["parameter"])))
    path = paths.dense(ensemble, np.array(row["direction"], dtype=float))
    log_norms = sampling.sample(path, key, 100_000, block_size=1000).log_norm
    # higher ones have no error bar
    for k, row in enumerate(reference[first : first + 2], start=1):
        assert row["k"] == k
        statistical.assert_near(
            *statistical.mean_and_error(np.exp(k * log_norms)), row["float"]
        )


@pytest.mark.parametrize("dtype", ["", 0, [], False, np.ones(2)], ids=repr)
def test_exact_what_is_false_is_no_dtype(dtype):
    ensemble = ensembles.Ensemble((4, 3), weights.normal(), masks.relu())
    with pytest.raises(ValueError, match="dtype = "):
        paths.dense(ensemble, dtype=dtype)
