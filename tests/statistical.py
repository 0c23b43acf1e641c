"""Helpers of the statistical tests, which test_statistical.py shows to fail."""

import numpy as np

from lognorm_jax import summaries


def assert_near(estimate, error, truth, sigmas=5, *, allowance=0.0):
    """Fail unless |estimate − truth| < sigmas · standard error, everywhere.

    allowance: what theory allows a truth to first order to be off by.
    """
    estimate, error, truth = np.broadcast_arrays(estimate, error, truth)
    assert np.all(np.isfinite(estimate)) and np.all(np.isfinite(truth))
    worst = np.max((np.abs(estimate - truth) - allowance) / np.maximum(error, 1e-300))
    assert worst < sigmas, (
        f"{worst:.1f} standard errors: {estimate} ± {error}, not {truth}"
    )


def mean_and_error(x):
    """Return the mean over the first axis and its standard error."""
    return _of_all(x).mean


def variance_and_error(x):
    """Return the variance over the first axis and its standard error."""
    return _of_all(x).variance


def _of_all(x):
    """Return the summary of samples that are all finite."""
    assert np.all(np.isfinite(x))
    return summaries.estimate(x)
