import numpy as np
import pytest
import statistical

pytestmark = pytest.mark.float32


def test_exact_assert_near_passes_and_fails():
    statistical.assert_near(1.0, 0.1, 1.4)
    for estimate, truth in (
        (1.0, 1.6),
        (1.0, 0.4),
        (np.nan, 1.0),
        (1.0, np.nan),
        (1.0, -np.inf),
    ):
        with pytest.raises(AssertionError):
            statistical.assert_near(estimate, 0.1, truth)
    with pytest.raises(AssertionError):
        statistical.assert_near(np.array([1.0, 2.0]), 0.1, 1.0)
    statistical.assert_near(1.0, 0.1, 1.6, allowance=0.2)
    with pytest.raises(AssertionError):
        statistical.assert_near(1.0, 0.1, 1.8, allowance=0.2)


def test_statistical_errors_cover():
    x = np.random.default_rng(0).exponential(size=(2000, 500))
    for estimate, truth in (
        (statistical.mean_and_error, 1.0),
        (statistical.variance_and_error, 1.0),
    ):
        value, error = estimate(x)
        covered = np.mean(np.abs(value - truth) < 2 * error)
        assert 0.85 < covered < 0.99
