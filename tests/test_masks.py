from fractions import Fraction

import jax
import numpy as np
import pytest
import scipy.stats

from lognorm_jax import masks, weights

pytestmark = pytest.mark.float64


def test_exact_zero_one_masks():
    for mask, p in (
        (masks.relu(), Fraction(1, 2)),
        (masks.bernoulli(Fraction(2, 7)), Fraction(2, 7)),
    ):
        assert mask.keep_prob == p and mask.kurtosis == 1 / p
        assert all(mask.moment(k) == p for k in range(6))


def test_exact_leaky_relu():
    a = Fraction(1, 10)
    mask = masks.leaky_relu(a)
    assert mask.keep_prob == 1
    assert mask.moment(1) == (1 + a**2) / 2 and mask.moment(2) == (1 + a**4) / 2
    assert 3 * mask.kurtosis - 1 == 6 * (1 + a**4) / (1 + a**2) ** 2 - 1
    assert masks.leaky_relu(1).kurtosis == 1  # linear
    assert masks.leaky_relu(0).keep_prob == Fraction(1, 2)


def test_exact_dropout_multiplies():
    q = Fraction(3, 4)
    assert masks.dropout(q).kurtosis == masks.bernoulli(q / 2).kurtosis
    leaky = masks.leaky_relu(Fraction(1, 5))
    assert masks.dropout(q, leaky).kurtosis == leaky.kurtosis / q
    assert masks.dropout(q, masks.dropout(q)).keep_prob == q * q / 2


def test_exact_kind_of_number_is_kept():
    assert isinstance(masks.bernoulli(0.5).kurtosis, float)
    assert isinstance(masks.bernoulli(Fraction(1, 2)).kurtosis, Fraction)
    assert masks.bernoulli(0.5) != masks.bernoulli(Fraction(1, 2))


@pytest.mark.parametrize("prob", [1e-3, 1e-8])
def test_exact_small_probabilities_are_drawn_in_high_resolution(prob, key, monkeypatch):
    """As the statistical test of it is slow; of sparse weights as of masks."""
    modes = []

    def bernoulli(key, p, shape, *, mode="low"):
        assert p == prob
        modes.append(mode)
        return np.zeros(shape, bool)

    monkeypatch.setattr(jax.random, "bernoulli", bernoulli)
    masks.coin(key, prob, (2,))
    weights.sparse(prob).sample(key, (2,), np.float32)
    assert modes == ["high", "high"]


@pytest.mark.slow
def test_statistical_small_probabilities_are_not_grained(key):
    """One float32 uniform would draw 1e-8 eleven times too often."""
    prob, size, rounds = 1e-8, 1 << 22, 32
    keys = jax.random.split(key, rounds)
    hits = jax.jit(
        lambda keys: jax.lax.map(lambda k: masks.coin(k, prob, (size,)).sum(), keys)
    )
    assert (
        scipy.stats.binomtest(int(hits(keys).sum()), size * rounds, prob).pvalue > 1e-4
    )
    assert (
        scipy.stats.binomtest(int(hits(keys).sum()), size * rounds, 1.2e-7).pvalue
        < 1e-3
    )


def test_exact_a_support_must_have_the_moments():
    relu = masks.relu()
    for support in ((), ((1.0, 0.4),), ((2.0, 0.5),)):
        with pytest.raises(
            ValueError, match=r"moment\([01]\) of .*must be that of its support"
        ):
            masks.Mask("mine", relu.sample, relu.moment, support)
    assert masks.Mask("mine", relu.sample, relu.moment, ((1.0, 0.5),)).support == (
        (1.0, 0.5),
    )
    listed = masks.Mask("mine", relu.sample, relu.moment, [[1.0, 0.5]])
    assert listed.support == ((1.0, 0.5),) and hash(listed)


def test_exact_numpy_numbers_are_numbers():
    assert masks.leaky_relu(np.int64(3)) == masks.leaky_relu(3)
    assert masks.leaky_relu(3).moment(25) == Fraction(1 + 3**50, 2)
    assert masks.bernoulli(np.float64(0.5)) == masks.bernoulli(0.5)
