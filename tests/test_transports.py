import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy import special

from lognorm_jax import (
    bits,
    ensembles,
    exact,
    laws,
    masks,
    paths,
    sampling,
    transports,
    weights,
)

pytestmark = pytest.mark.float64

LAYERS = {  # (width, mask): cells
    (100, masks.relu()): 1,
    (10**6, masks.bernoulli(0.3)): 1,
    (5, masks.identity()): 1,
    (1, masks.identity()): 4,
    (20, masks.relu()): 4,
    (6, masks.bernoulli(0.3)): 4,
    (2, masks.bernoulli(1e-3)): 4,
    (20, masks.leaky_relu(0.2)): 4,
    (3, masks.leaky_relu(0.01)): 128,
    (2, masks.leaky_relu(1e-8)): 128,
    (3, masks.dropout(0.9, masks.leaky_relu(1e-3))): 128,
}


def product(*layers):
    widths, all_masks = zip(*layers, strict=True)
    return ensembles.Ensemble((3, *widths), weights.normal(), all_masks)


def drawn(ensemble, key, num_samples, **options):
    """Return the trace of some paths, and the normals that they draw."""
    keys = jax.random.split(key, num_samples)
    trace = jax.jit(jax.vmap(paths.transport(ensemble, **options)))(keys)
    own = jax.vmap(lambda key: jax.random.split(key)[0])(keys)
    dtype, shape = trace.increment.dtype, (ensemble.depth,)
    z = jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(own)
    return np.float64(trace.increment), np.float64(z)


@pytest.mark.parametrize(
    "layer", LAYERS, ids=lambda layer: f"{layer[0]}, {layer[1].name}"
)
def test_exact_map_is_within_its_tolerance(layer, key):
    """|F(Q(z)) − Φ(z)| < 1e-6 as it is computed, in the precision of the path."""
    law = exact.increment_law(*layer)
    found = transports.fit([law])
    assert found.cells == LAYERS[layer]
    if layer == (3, masks.leaky_relu(0.01)):  # cubics of fourth order need few parts
        assert len(found.coefficients) == found.parts.sum() < 220
    increment, z = drawn(product(layer), key, 20_000)
    alive = np.isfinite(increment)
    assert alive.sum() > 30
    assert np.all(np.abs(law.cdf(increment) - special.ndtr(z))[alive] < 1e-6)


def test_exact_maps_of_several_layers_and_fan_in(key):
    """Layers of other widths and masks each use their own map, whatever kind the others
    need.
    """
    for chosen in (list(LAYERS)[:2], list(LAYERS)[3:6], list(LAYERS)[::2]):
        layers = [*chosen, *chosen[::-1]]
        ensemble = product(*layers)
        increment, z = drawn(ensemble, key, 300)
        shifted, _ = drawn(dataclasses.replace(ensemble, fan="in"), key, 300)
        for i, (width, mask) in enumerate(layers):
            alive = np.isfinite(increment[:, i])
            cdf = exact.increment_law(width, mask).cdf(increment[alive, i])
            assert np.all(np.abs(cdf - special.ndtr(z[alive, i])) < 1e-6)
            before = 3 if i == 0 else layers[i - 1][0]
            expected = increment[alive, i] + np.log(width / before)
            assert np.allclose(shifted[alive, i], expected, rtol=1e-5, atol=1e-5)


def test_exact_tolerance_is_a_choice():
    law = exact.increment_law(20, masks.relu())
    sizes = [
        transports.fit([law], tolerance).coefficients.size for tolerance in (1e-3, 1e-9)
    ]
    assert sizes[0] < sizes[1]
    with pytest.raises(
        ValueError, match=r"tolerance = 1e-09: must be above .*e-0[678], which is"
    ):
        transports.fit([exact.increment_law(2, masks.leaky_relu(1e-8))], 1e-9)
    for bad in (0, 1e-10, 2, float("nan"), "small"):
        with pytest.raises(
            ValueError, match=r"tolerance = .*must be a number in \[1e-9, 1\]"
        ):
            transports.fit([law], bad)


@pytest.mark.parametrize("width", [2, 6, 20])
def test_statistical_transport_follows_the_exact_law(width, key):
    """Dead mass included: 94%, 15% and 9.5e-6."""
    ensemble = ensembles.Ensemble((width,) * 11, weights.normal(), masks.relu())
    trace = sampling.sample(paths.transport(ensemble), key, 40_000)
    assert trace.quartic is None and not np.any(np.isnan(trace.increment))
    dead = np.isneginf(trace.increment)
    assert np.all(dead[:, 1:] >= dead[:, :-1])  # dead for good
    comparison = laws.compare(trace.log_norm, exact.law(ensemble))
    assert comparison.p_value > 1e-4 and comparison.verdict == "pass"
    dead = int(dead[:, -1].sum())
    assert (
        scipy.stats.binomtest(dead, 40_000, ensembles.dead_mass(ensemble)).pvalue > 1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", ["transport", "dense", "plain"])
@pytest.mark.parametrize(
    ("widths", "mask"),
    [
        ((50,) * 11, masks.relu()),
        ((50,) * 11, masks.bernoulli(0.3)),
        ((50,) * 11, masks.identity()),
        ((50,) * 11, masks.leaky_relu(0.2)),
        ((60, 30, 80, 20, 100, 40, 64, 35), masks.relu()),
    ],
)
def test_statistical_paths_follow_the_exact_law(path, widths, mask, key):
    if path == "plain" and mask.keep_prob == 1:
        pytest.skip("where nothing is lost, dense is plain")
    ensemble = ensembles.Ensemble(widths, weights.normal(), mask)
    made = {
        "transport": lambda: paths.transport(ensemble),
        "dense": lambda: paths.dense(ensemble),
        "plain": lambda: paths.dense(ensemble, thinned=False),
    }[path]()
    num_samples = 1_000_000 if path == "transport" else 100_000
    log_norms = sampling.sample(made, key, num_samples, block_size=1000).log_norm
    comparison = laws.compare(log_norms, exact.law(ensemble))
    assert comparison.verdict == "pass" and comparison.p_value > 1e-3, comparison


def test_statistical_lifetimes(key):
    """Exponential, and as fine as the smallest hazard needs."""
    keys = jax.random.split(key, 1 << 18)
    lifetime = np.float64(
        jax.jit(jax.vmap(lambda key: bits.exponential(key, jnp.float32)))(keys)
    )
    assert scipy.stats.kstest(lifetime, scipy.stats.expon.cdf).pvalue > 1e-4
    small = np.sort(lifetime)[:100]
    # float32 uniforms have steps of 1e-7
    assert len(np.unique(small)) == 100 and small[0] > 0
    assert scipy.stats.kstest(lifetime[lifetime < 1e-3] / 1e-3, "uniform").pvalue > 1e-4


def test_invariance_prefix_of_transport_layers(key):
    deep, shallow = (
        sampling.sample(paths.transport(product(*layers)), key, 300)
        for layers in (
            [(5, masks.relu()), (8, masks.relu())] * 6,
            [(5, masks.relu()), (8, masks.relu())],
        )
    )
    assert np.array_equal(deep.increment[:, :2], shallow.increment)


@pytest.mark.slow
def test_statistical_a_million_layers(key):
    ensemble = ensembles.Ensemble((100,) * (10**6 + 1), weights.normal(), masks.relu())
    path = paths.transport(ensemble)
    log_norms = sampling.sample(path, key, 16, block_size=8).log_norm
    mean, variance = exact.cumulants(ensemble, 2)
    assert np.all(np.abs(log_norms - mean) < 5 * np.sqrt(variance))
    assert 0.5 < np.std(log_norms) / np.sqrt(variance) < 2


def test_exact_compile_size_of_transport_does_not_grow_with_depth(key):
    def lines(depth):
        shallow = ensembles.Ensemble(
            (100,) * (depth + 1), weights.normal(), masks.relu()
        )
        return len(jax.jit(paths.transport(shallow)).lower(key).as_text().splitlines())

    assert lines(10**6) == lines(1000)


def test_exact_transport_refuses_what_has_no_law(key):
    with pytest.raises(
        ValueError, match=r"ensemble.weights = 'laplace': must be weights.normal"
    ):
        paths.transport(ensembles.Ensemble((3, 3), weights.laplace(), masks.relu()))
    with pytest.raises(ValueError, match=r"dtype = .*must be float32 or float64"):
        paths.transport(product((3, masks.relu())), dtype=jnp.bfloat16)
    with pytest.raises(ValueError, match=r"key\.shape = \(2,\)"):
        paths.transport(product((3, masks.relu())))(jax.random.split(key))
