import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statistical
from hypothesis import given, settings
from hypothesis import strategies as st

from lognorm_jax import ensembles, masks, paths, weights

LAWS = [
    weights.normal(),
    weights.rademacher(),
    weights.uniform(),
    weights.laplace(),
    weights.sparse(Fraction(1, 2)),
]
MASKS = [masks.identity(), masks.relu(), masks.bernoulli(0.3), masks.leaky_relu(0.2)]
# every law, every mask, and the pair without any randomness left
PAIRS = [*zip(LAWS, [*MASKS[::-1], masks.relu()], strict=True)]
PAIRS += [(weights.rademacher(), masks.identity())]
N = 10
DIRECTIONS = {
    "flat": np.full(N, 1.0),
    "coordinate": np.eye(N)[3],
    "random": np.random.default_rng(4).normal(size=N),
}


@pytest.mark.parametrize(("law", "mask"), PAIRS, ids=lambda law: law.name)
def test_statistical_first_two_moments_of_the_ratio(law, mask, key):
    one_layer = ensembles.Ensemble((N, N), law, mask)

    def ratio(direction, key):
        return jnp.exp(paths.dense(one_layer, direction)(key).increment[0])

    over_keys = jax.vmap(ratio, in_axes=(None, 0))
    keys = jax.random.split(key, 40_000)
    R = jax.jit(jax.vmap(over_keys, in_axes=(0, None)))(
        jnp.stack([*DIRECTIONS.values()]), keys
    )
    R = np.asarray(R, dtype=np.float64).T
    quartic = [ensembles.unit_direction(one_layer, u) ** 4 for u in DIRECTIONS.values()]
    quartic = np.sum(quartic, axis=-1, keepdims=True)
    # |±1| = 1 for e_3
    exact_one = law is weights.rademacher() and mask is masks.identity()
    mean, error = statistical.mean_and_error(R)
    statistical.assert_near(mean, error + 1e-6 * exact_one, 1.0)
    variance, error = statistical.variance_and_error(R)
    expected = ensembles.predictable_variance(one_layer, quartic)[:, 0]
    statistical.assert_near(variance, error + 1e-9 * exact_one, expected)
    # a formula off by a factor, or by the sign of μ4 − 3, must be seen
    if not exact_one:
        with pytest.raises(AssertionError):
            statistical.assert_near(variance, error, 1.25 * expected)
    if law.kurtosis != 3:
        with pytest.raises(AssertionError):
            generic = ensembles.predictable_variance(one_layer, 0 * quartic)[:, 0]
            flipped = 2 * generic - expected
            statistical.assert_near(variance, error, flipped)


@pytest.mark.parametrize("law", LAWS[:4], ids=lambda law: law.name)
def test_statistical_third_cumulant_of_the_ratio(law):
    rng = np.random.default_rng(8)
    n, mask = 6, masks.bernoulli(0.5)
    draw = {
        "normal": lambda shape: rng.normal(size=shape),
        "rademacher": lambda shape: rng.integers(0, 2, shape) * 2.0 - 1,
        "uniform": lambda shape: rng.uniform(-math.sqrt(3), math.sqrt(3), shape),
        "laplace": lambda shape: rng.laplace(0, math.sqrt(0.5), shape),
    }[law.name]
    for u in (
        np.full(n, n**-0.5),
        np.eye(n)[0],
        np.array([1, 1, 0, 0, 0, 0]) / math.sqrt(2),
    ):
        used = u != 0
        y = draw((300_000, n, used.sum())) @ u[used]
        R = np.sum((rng.random(y.shape) < 0.5) * y**2, axis=1) / (0.5 * n)
        ensemble = ensembles.Ensemble((n, n), law, mask)
        expected = ensembles.ratio_third_cumulant(ensemble, np.array([np.sum(u**4)]))
        statistical.assert_near(*statistical.mean_and_error((R - 1) ** 3), expected[0])


def test_exact_limit_is_five_beta_for_relu():
    ensemble = ensembles.Ensemble((64, *(32, 128) * 8), weights.normal(), masks.relu())
    beta = 8 * (1 / 32 + 1 / 128)
    assert ensembles.beta(ensemble) == beta
    assert ensembles.log_variance(ensemble) == pytest.approx(5 * beta, rel=1e-14)
    law = ensembles.limit_law(ensemble)
    assert (law.mean, law.variance) == pytest.approx((-2.5 * beta, 5 * beta), rel=1e-14)


@given(
    widths=st.lists(st.integers(1, 300), min_size=2, max_size=20),
    keep_prob=st.fractions(Fraction(1, 20), 1),
    fan=st.sampled_from(["out", "in"]),
)
@settings(deadline=None, max_examples=50)
def test_exact_limit_law_of_bernoulli_masks(widths, keep_prob, fan):
    ensemble = ensembles.Ensemble(
        widths, weights.normal(), masks.bernoulli(keep_prob), fan
    )
    beta = sum(1 / n for n in widths[1:])
    v = (3 / float(keep_prob) - 1) * beta
    assert ensembles.beta(ensemble) == pytest.approx(beta)
    assert ensembles.log_variance(ensemble) == pytest.approx(v)
    shift = math.log(widths[-1] / widths[0]) if fan == "in" else 0
    assert ensembles.limit_law(ensemble).mean == pytest.approx(shift - v / 2, abs=1e-12)
    assert ensembles.fan_shift(ensemble).sum() == pytest.approx(shift, abs=1e-12)
    lost = [(1 - float(keep_prob)) ** n for n in widths[1:]]
    dead = 1 - math.prod(1 - x for x in lost)
    assert ensembles.dead_mass(ensemble) == pytest.approx(dead, rel=1e-9, abs=1e-15)


def test_exact_per_layer_masks():
    head = (masks.relu(), masks.relu(), masks.identity())
    ensemble = ensembles.Ensemble((8, 20, 20, 10), weights.normal(), head)
    # the linear head does not count
    assert ensembles.beta(ensemble) == pytest.approx(0.1)
    assert ensembles.log_variance(ensemble) == pytest.approx(5 * 0.1 + 2 / 10)
    assert ensembles.dead_mass(ensemble) == pytest.approx(2 * 0.5**20, rel=1e-5)
    p_one = ensembles.Ensemble((8, 20, 20), weights.normal(), masks.bernoulli(1))
    assert ensembles.beta(p_one) == pytest.approx(0.1)
    assert ensembles.log_variance(p_one) == pytest.approx(2 * 0.1)


def test_exact_fourth_moment_term():
    n = 25
    for law, direction, kappa in (
        (weights.rademacher(), np.eye(n)[0], 1.0),
        (weights.laplace(), None, 1 / n),
        (weights.uniform(), np.arange(n) < 5, 1 / 5),
    ):
        ensemble = ensembles.Ensemble((n, n, n), law, masks.relu())
        direction = None if direction is None else np.asarray(direction, float)
        extra = 2 * (float(law.kurtosis) - 3) * kappa / n
        assert ensembles.log_variance(ensemble, direction) == pytest.approx(
            10 / n + extra
        )


def test_exact_leaky_formula():
    a = 0.3
    ensemble = ensembles.Ensemble((9, 9), weights.normal(), masks.leaky_relu(a))
    assert ensembles.log_variance(ensemble) == pytest.approx(
        (6 * (1 + a**4) / (1 + a**2) ** 2 - 1) / 9
    )


def test_exact_dead_mass_of_narrow_products():
    for width, dead in ((2, 0.9437), (3, 0.7369)):
        ensemble = ensembles.Ensemble((width,) * 11, weights.normal(), masks.relu())
        assert ensembles.dead_mass(ensemble) == pytest.approx(dead, abs=5e-5)
    deep = ensembles.Ensemble((10,) * 101, weights.normal(), masks.relu())
    assert ensembles.dead_mass(deep) == pytest.approx(0.0931, abs=5e-5)
    rare = ensembles.Ensemble((4, 3, 3), weights.normal(), masks.bernoulli(1e-20))
    assert ensembles.dead_mass(rare) == pytest.approx(1, abs=1e-15)
    linear = ensembles.Ensemble((4, 3, 3), weights.normal(), masks.identity())
    assert str(ensembles.dead_mass(linear)) == "0.0"
    with pytest.raises(ValueError, match="without atoms"):
        ensembles.dead_mass(
            ensembles.Ensemble((2, 2), weights.rademacher(), masks.relu())
        )


def test_exact_equal_beta_families():
    for beta, widths in ((0.25, [16, 32, 64]), (4, [8]), (0.1, [10, 20, 30, 70])):
        family = ensembles.equal_beta(beta, widths, input_width=64)
        assert [e.widths[1] for e in family] == widths
        assert all(ensembles.beta(e) == pytest.approx(beta) for e in family)
    with pytest.raises(ValueError, match=r"width = 15.*integer"):
        ensembles.equal_beta(0.5, [16, 15])
    with pytest.raises(ValueError, match="mask"):
        ensembles.equal_beta(0.5, [16], mask=masks.identity())


def test_exact_ensembles_are_static():
    one, other = (
        ensembles.Ensemble([4, 4], weights.normal(), masks.relu()) for _ in range(2)
    )
    assert one == other and hash(one) == hash(other)
    assert one == ensembles.Ensemble(np.array([4, 4]), weights.normal(), [masks.relu()])
    count = jax.jit(lambda ensemble, x: x * ensemble.depth, static_argnums=0)
    assert count(one, 2.0) == 2.0


def test_exact_directions():
    ensemble = ensembles.Ensemble((3, 3), weights.normal(), masks.relu())
    for scale in (1.0, 1e-300, 1e300):
        unit = ensembles.unit_direction(ensemble, scale * np.array([3.0, 0.0, -4.0]))
        assert unit == pytest.approx([0.6, 0, -0.8], rel=1e-15)
    assert ensembles.unit_direction(ensemble) == pytest.approx(np.full(3, 3**-0.5))
    traced = jax.jit(lambda u: ensembles.unit_direction(ensemble, u))(
        jnp.array([3.0, 0.0, -4.0])
    )
    assert np.allclose(traced, [0.6, 0, -0.8])


@pytest.mark.parametrize("direction", [[3e25, 1, 0], [1e-30, 1e-30, 0], [3, 4, 0]])
def test_exact_traced_directions_are_scaled_like_concrete_ones(direction):
    ensemble = ensembles.Ensemble((3, 3), weights.normal(), masks.relu())
    traced = jax.jit(lambda u: ensembles.unit_direction(ensemble, u))(
        jnp.array(direction)
    )
    assert np.allclose(
        traced, ensembles.unit_direction(ensemble, direction), rtol=1e-6, atol=0
    )
    zero = jax.jit(lambda u: ensembles.unit_direction(ensemble, u))(jnp.zeros(3))
    assert np.all(zero == 0)


def test_exact_laws_stay_equal_after_many_others():
    first = masks.bernoulli(0.123), weights.sparse(0.123)
    for i in range(1, 300):
        masks.bernoulli(i / 300), weights.sparse(i / 300)
    assert first == (masks.bernoulli(0.123), weights.sparse(0.123))


def test_statistical_third_cumulant_of_unequal_coordinates():
    """Where κ₆ is not κ², the third cumulant is off by what the docstring says."""
    rng, n = np.random.default_rng(5), 6
    u = np.array([4.0, 2, 2, 1, 0, 0])
    u /= np.linalg.norm(u)
    used = u != 0
    y = rng.laplace(0, math.sqrt(0.5), size=(1_000_000, n, used.sum())) @ u[used]
    R = np.mean(y**2, axis=1)
    ensemble = ensembles.Ensemble((n, n), weights.laplace(), masks.identity())
    kappa, kappa6 = np.sum(u**4), np.sum(u**6)
    stated = (90 - 15 * 6 + 30) * (kappa6 - kappa**2) / n**2
    third = ensembles.ratio_third_cumulant(ensemble, np.array([kappa]))[0]
    statistical.assert_near(*statistical.mean_and_error((R - 1) ** 3), third + stated)
