"""The widths of a ReLU network say how much the log-norm of its Jacobian varies.

Expected: mean and variance of ln ‖Ju‖², over initialisations, are those of the exact
law of the widths, within 5 standard errors.

Time: 10 s on two CPU cores; --quick 5 s.
Command: python -m experiments NAME
"""

import numpy as np

from experiments import _check, _figure
from lognorm_jax import ensembles, exact, masks, paths, summaries, weights

WIDTHS = (64, *(32,) * 8)
NUM_SAMPLES, QUICK_SAMPLES = 20_000, 2_000


def law():
    """Return what theory says."""
    return exact.law(ensembles.Ensemble(WIDTHS, weights.normal(), masks.relu()))


def compute(job) -> dict:
    """Sample log-norms."""
    ensemble = ensembles.Ensemble(WIDTHS, weights.normal(), masks.relu())
    num_samples = job.count(NUM_SAMPLES, QUICK_SAMPLES)
    trace = job.sample("mask model", paths.dense(ensemble), num_samples)
    return {"mask model": {"log_norm": trace.log_norm}}


def check(results) -> list[_check.Row]:
    """Hold mean and variance against the exact law."""
    mean, variance, _ = summaries.estimate(results["mask model"]["log_norm"])
    return [
        _check.agree("mask model", "mean", *mean, law().mean),
        _check.agree("mask model", "variance", *variance, law().variance),
    ]


def draw(results):
    """Draw the density of the samples and that of the law."""
    figure, axes = _figure.grid([["law"]], (7, 5))
    log_norm = results["mask model"]["log_norm"]
    edges = np.linspace(*np.quantile(log_norm, [0.001, 0.999]), 50)
    axes["law"].hist(log_norm, edges, density=True, alpha=0.4, label="simulated")
    axes["law"].plot(edges, law().pdf(edges), color=_figure.THEORY, label="exact law")
    axes["law"].set(xlabel="log of the squared norm, ln ‖Ju‖²", ylabel="density")
    axes["law"].legend()
    return figure
