import dataclasses
import itertools
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import statistical

from lognorm_jax import ensembles, masks, moments, weights

pytestmark = pytest.mark.float32

REFERENCE = json.loads((Path(__file__).parent / "reference/moments.json").read_text())[
    "rows"
]
RELU, SIGN = masks.relu(), weights.rademacher()


@pytest.mark.parametrize(
    "row", REFERENCE, ids=lambda row: f"{row['weights']}, {row['k']}"
)
def test_oracle_reference_moments(row):
    law, parameter = getattr(weights, row["weights"])(), Fraction(row["parameter"])
    mask = masks.leaky_relu if row["mask"] == "leaky" else masks.bernoulli
    ensemble = ensembles.Ensemble(row["widths"], law, mask(parameter))
    moment = moments.norm_moment(ensemble, row["k"], row["direction"])
    assert isinstance(moment, Fraction) and moment == Fraction(row["value"])


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("fan", ["out", "in"])
def test_oracle_enumeration_of_every_sign_and_mask(k, fan):
    """All 2^(4+2+4+2) outcomes of two layers of width 2, in exact arithmetic."""
    u = (Fraction(3), Fraction(-1))
    ensemble = ensembles.Ensemble((2, 2, 2), SIGN, masks.bernoulli(Fraction(1, 2)), fan)
    total = Fraction(0)
    for bits in itertools.product((-1, 1), repeat=8):
        for keep in itertools.product((0, 1), repeat=4):
            x = u
            for layer in range(2):
                w = bits[4 * layer : 4 * layer + 4]
                d = keep[2 * layer : 2 * layer + 2]
                x = (
                    d[0] * (w[0] * x[0] + w[1] * x[1]),
                    d[1] * (w[2] * x[0] + w[3] * x[1]),
                )
            total += (x[0] ** 2 + x[1] ** 2) ** k  # variance of a weight 1/(½·2) = 1
    expected = total / 2**12 / (u[0] ** 2 + u[1] ** 2) ** k
    assert moments.norm_moment(ensemble, k, u) == expected


@pytest.mark.parametrize(
    "law", [weights.normal(), weights.laplace(), weights.uniform(), SIGN]
)
def test_exact_second_moment_has_a_recursion_of_its_own(law):
    """A = E‖x‖₂⁴, Q = E‖x‖₄⁴: two numbers a layer, for uneven widths, fans and mixed
    masks.
    """
    layers = (masks.leaky_relu(Fraction(1, 5)), RELU, masks.identity())
    widths = (3, 4, 2, 5)
    for fan in ("out", "in"):
        ensemble = ensembles.Ensemble(widths, law, layers, fan)
        A, Q = Fraction(1), Fraction(1 + 16 + 1, 36)  # direction (1, 2, −1)
        for i, mask in enumerate(layers):
            n, scale = widths[i + 1], mask.moment(1) * widths[i + (fan == "out")]
            fourth = n * mask.moment(2) / scale**2 * (3 * A + (law.kurtosis - 3) * Q)
            A, Q = fourth + n * (n - 1) * mask.moment(1) ** 2 / scale**2 * A, fourth
        assert moments.norm_moment(ensemble, 2, [1, 2, -1]) == A


def test_exact_normal_weights_are_a_product_over_layers():
    widths = (4, 7, 3, 9)
    for mask in (RELU, masks.identity(), masks.leaky_relu(Fraction(1, 10))):
        ensemble = ensembles.Ensemble(widths, weights.normal(), mask)
        expected = math.prod(1 + (3 * mask.kurtosis - 1) / n for n in widths[1:])
        for direction in (None, [1, 0, 0, 0]):
            assert moments.norm_moment(ensemble, 2, direction) == expected


@pytest.mark.parametrize(
    "law", [weights.normal(), weights.laplace(), weights.sparse(Fraction(1, 3))]
)
def test_exact_width_one_is_a_product_of_weights(law):
    ensemble = ensembles.Ensemble((1, 1, 1), law, masks.bernoulli(Fraction(1, 3)))
    for k in range(9):
        expected = (
            (law.moment(k) * Fraction(1, 3) / Fraction(1, 3) ** k) ** 2 if k else 1
        )
        assert moments.norm_moment(ensemble, k) == expected


def test_exact_limit_of_wide_layers():
    """E‖Mu‖^{2k} → exp(5·C(k,2)β): off by O(Σ n⁻²), with a constant that grows with
    k.
    """
    for k in range(1, 9):
        off = []
        for n in (10**4, 10**5):
            ensemble = ensembles.Ensemble((n,) * 11, weights.normal(), RELU)
            log_moment = math.log(moments.norm_moment(ensemble, k))
            off.append(log_moment / (10 / n) - 5 * math.comb(k, 2))
        assert off[0] == pytest.approx(10 * off[1], rel=0.01, abs=1e-9)
        assert off[1] == pytest.approx(0, abs=0.03)
        if k == 2:
            assert off[1] * 10**5 == pytest.approx(-25 / 2, rel=1e-3)  # ln(1 + 5/n)


def test_exact_floats_and_fractions():
    exact = ensembles.Ensemble((3, 4, 5), weights.uniform(), RELU)
    rounded = ensembles.Ensemble((3, 4, 5), weights.uniform(), masks.bernoulli(0.5))
    for k in (1, 4, 8):
        value = moments.norm_moment(exact, k, [1, Fraction(1, 2), 0])
        assert isinstance(value, Fraction)
        for direction in (
            [1, 0.5, 0],
            np.array([2.0, 1.0, 0.0]),
            np.array([1, 0.5, 0], np.float32),
        ):
            assert moments.norm_moment(exact, k, direction) == pytest.approx(
                float(value), rel=1e-13
            )
        assert moments.norm_moment(exact, k, np.array([2, 1, 0])) == value
        assert moments.norm_moment(rounded, k, [2, 1, 0]) == pytest.approx(
            float(value), rel=1e-13
        )
    deep = ensembles.Ensemble((3,) * 3000, weights.laplace(), masks.bernoulli(0.5))
    assert moments.norm_moment(deep, 2) == math.inf
    assert moments.norm_moment(deep, 1) == pytest.approx(1, rel=1e-9)


def test_exact_floats_do_not_cancel():
    """Light tails, high moments: by cumulants, which alternate in sign, all digits
    would go.
    """
    for law in (SIGN, weights.uniform()):
        for widths in ((3, 3, 3), (2, 5, 4, 3, 6)):
            exact = ensembles.Ensemble(widths, law, masks.bernoulli(Fraction(3, 10)))
            rounded = ensembles.Ensemble(widths, law, masks.bernoulli(0.3))
            u = [1] * (widths[0] - 1) + [2]
            value = float(moments.norm_moment(exact, 12, u))
            assert moments.norm_moment(rounded, 12, u) == pytest.approx(
                value, rel=1e-12
            )


def test_exact_extreme_parameters_are_floats_or_infinite():
    normal = weights.normal()
    huge = ensembles.Ensemble((3, 4), normal, masks.leaky_relu(1e30))
    half = ensembles.Ensemble((3, 4), normal, RELU)
    assert moments.norm_moment(huge, 12) == pytest.approx(
        float(moments.norm_moment(half, 12))
    )
    for ensemble in (
        ensembles.Ensemble((3, 4), normal, masks.bernoulli(1e-30)),
        ensembles.Ensemble((3, 4), weights.sparse(1e-30), RELU),
        ensembles.Ensemble((3,) * 301, SIGN, masks.bernoulli(0.3)),
    ):
        assert moments.norm_moment(ensemble, 12) == math.inf


def test_statistical_true_relu_layers():
    """Real ReLU layers with Rademacher weights, not the mask model; k = 2 and 3."""
    rng, widths = np.random.default_rng(3), (5, 7, 6, 8)
    x = np.broadcast_to(np.array([9, 3, -2, 5, 1]) / math.sqrt(120), (200_000, 5))
    for n_in, n in itertools.pairwise(widths):
        W = rng.choice([-1.0, 1.0], size=(len(x), n, n_in)) * math.sqrt(2 / n)
        x = np.maximum(np.einsum("sij,sj->si", W, x), 0)
    square = np.sum(x**2, axis=-1)
    ensemble = ensembles.Ensemble(widths, SIGN, RELU)
    for k in (1, 2, 3):
        expected = float(moments.norm_moment(ensemble, k, [9, 3, -2, 5, 1]))
        statistical.assert_near(*statistical.mean_and_error(square**k), expected)


def test_exact_partitions_and_their_transfer():
    assert [len(moments.partitions(k)) for k in range(9)] == [
        1,
        1,
        2,
        3,
        5,
        7,
        11,
        15,
        22,
    ]
    assert moments.partitions(4)[0] == (4,) and moments.partitions(4)[-1] == (
        1,
        1,
        1,
        1,
    )
    shape = ensembles.Ensemble((6, 6), SIGN, masks.identity())
    for k in range(1, 6):  # one Rademacher row: E (w·x)^{2k} at x = e_1 is 1
        assert moments.norm_moment(shape, k, [1, 0, 0, 0, 0, 0]) == 1


def test_oracle_pre_activation_kurtosis():
    shape = ensembles.Ensemble((7,) * 10, SIGN, masks.leaky_relu(0))
    start = Fraction("3.3"), Fraction("0.1")
    assert float(moments.pre_activation_kurtosis(shape, *start)) == pytest.approx(
        88.978483435198, rel=1e-13
    )
    assert moments.pre_activation_kurtosis(shape, 3.3, 0.1) == pytest.approx(
        88.978483435198, rel=1e-13
    )
    wide = ensembles.Ensemble((10**6, 10**6), weights.laplace(), RELU)
    assert float(moments.pre_activation_kurtosis(wide)) == pytest.approx(
        3 + 33e-6, rel=1e-9
    )


def test_statistical_pre_activation_kurtosis(key):
    del key
    rng, n = np.random.default_rng(5), 5
    z = rng.normal(size=(200_000, n))
    shape = ensembles.Ensemble((n, n, n), weights.uniform(), RELU)
    for _ in range(2):
        W = rng.uniform(-1, 1, size=(len(z), n, n)) * math.sqrt(3 * 2 / n)
        z = np.einsum("sij,sj->si", W, np.maximum(z, 0))
    expected = float(moments.pre_activation_kurtosis(shape))
    statistical.assert_near(*statistical.mean_and_error(np.mean(z**2, axis=-1)), 1)
    statistical.assert_near(
        *statistical.mean_and_error(np.mean(z**4, axis=-1)), expected
    )


def test_exact_asymmetric_and_heavy_weights():
    skewed = dataclasses.replace(weights.laplace(), name="skewed", symmetric=False)
    ensemble = ensembles.Ensemble((3, 3), skewed, RELU)
    same = dataclasses.replace(ensemble, weights=weights.laplace())
    assert moments.norm_moment(ensemble, 2) == moments.norm_moment(same, 2)
    with pytest.raises(ValueError, match=r"skewed.*symmetric law.*k = 3.*paths.dense"):
        moments.norm_moment(ensemble, 3)
    heavy = ensembles.Ensemble((3, 3), weights.student_t(5), RELU)
    assert moments.norm_moment(heavy, 2) > 1
    with pytest.raises(ValueError, match=r"k = 3.*student_t\(5\).*infinite"):
        moments.norm_moment(heavy, 3)
