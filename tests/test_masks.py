from fractions import Fraction

from lognorm_jax import masks


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
