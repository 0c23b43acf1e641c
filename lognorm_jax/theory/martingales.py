"""The martingale inside a log-norm: what is left of each increment less its drift.

log_norm = Σ (ln R_i − E[ln R_i | past]) + Σ E[ln R_i | past] = martingale +
compensator. The martingale's increments have predictable variance about (3/p − 1)/n_i,
whence the normal limit.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from lognorm_jax import ensembles, weights
from lognorm_jax._tools import checks
from lognorm_jax.theory import _quadrature

__all__ = ["Decomposition", "decompose", "expansion"]


class Decomposition(NamedTuple):
    """The Doob decomposition of log_norm, layer by layer.

    Every leaf is float64, (..., depth). After a path has died its drift and predictable
    variance are 0 and its martingale is −inf.

    Attributes:
        drift: E[ln R_i | past]; its running sum is the compensator.
        martingale: running sum of ln R_i − drift.
        predictable_variance: Var(R_i | past).
        bracket: running sum of the predictable variance.
    """

    drift: np.ndarray
    martingale: np.ndarray
    predictable_variance: np.ndarray
    bracket: np.ndarray


def decompose(trace: object, ensemble: ensembles.Ensemble) -> Decomposition:
    """Split increments of a trace, or of a stack of them, into drift and martingale.

    The drift is exact for normal weights, given survival. For other weights it is the
    normal drift plus the difference, to second order in 1/n, that κ makes in E ln R =
    −V/2 + C/3 − 3V²/4, with V and C the second and third central moments of R given the
    past. Its error is O(n⁻³) a layer: at n = 16 and ReLU masks below 0.004 (rademacher,
    uniform) and 0.01 (laplace) for a spread vector, and up to 0.06 for laplace weights
    on a coordinate vector; at n = 64 below 0.003 in every case
    (tests/test_martingales.py). To it adds a third of the error of C from taking κ₆ to
    be κ² (see ``ensembles.ratio_third_cumulant``), O(n⁻²): it matters in the first
    layer only, for a direction with a few large coordinates of unequal size. All of it
    asks for V well below 1: for a law as heavy as sparse(0.05) on a coordinate vector
    at n = 16, V = 7, the expansion says nothing. Where the sixth moment of the weights
    is infinite the difference is −½ΔV, and the error O(n⁻²).

    Args:
        trace: a Trace of increments (..., depth), with their quartic unless the weights
            are normal.
        ensemble: that it is of.

    Returns:
        Drift, martingale, predictable variance and bracket, each (..., depth).

    Raises:
        ValueError: for a trace of another depth, or with NaN or +inf, for a missing
            quartic or one of another shape, and for masks without a support, or of
            values more than a factor 1e8 apart.

    Source:
        Hanin & Nica (2020), proof of the KS bound, as in theory section 3; the second
        order derived there, and held against simulation in tests/test_martingales.py.
    """
    checks.instance("ensemble", ensemble, ensembles.Ensemble)
    increment, quartic = _increments(trace, ensemble)
    variance = ensembles.predictable_variance(ensemble, quartic)
    drift = np.broadcast_to(_normal_drift(ensemble), increment.shape)
    if not ensemble.weights.gaussian:
        # what other weights change, to the order that their moments allow
        order = 2 if _has_moment(ensemble.weights, 3) else 1
        gaussian = dataclasses.replace(ensemble, weights=weights.normal())
        known, _ = expansion(gaussian, np.zeros(ensemble.depth), order)
        drift = drift + expansion(ensemble, quartic, order)[0] - known

    # nothing is to come once a path has died
    dead = np.isneginf(increment)
    before = np.concatenate([np.zeros_like(dead[..., :1]), dead[..., :-1]], axis=-1)
    drift = np.where(before, 0.0, drift)
    variance = np.where(before, 0.0, variance)
    return Decomposition(
        drift=drift,
        martingale=np.cumsum(increment - drift, axis=-1),
        predictable_variance=variance,
        bracket=np.cumsum(variance, axis=-1),
    )


def _increments(
    trace: Any, ensemble: ensembles.Ensemble
) -> tuple[np.ndarray, np.ndarray]:
    """Return increments and quartic of a trace of this ensemble, each (..., depth)."""
    checks.require(hasattr(trace, "increment"), "trace", trace, "a Trace")
    increment = checks.on_host("trace.increment", trace.increment)
    numbers = not np.any(np.isnan(increment) | (increment == np.inf))
    checks.require(numbers, "trace.increment", increment, "numbers in [−inf, inf)")
    checks.require(
        increment.ndim >= 1 and increment.shape[-1] == ensemble.depth,
        "trace.increment.shape",
        increment.shape,
        f"(..., {ensemble.depth}), the depth of the ensemble",
    )

    given = getattr(trace, "quartic", None)
    checks.require(
        given is not None or ensemble.weights.gaussian,
        "trace.quartic",
        given,
        f"an array of shape {increment.shape}: {ensemble.weights.name} weights need it",
        "Use a path that records it, such as paths.dense.",
    )
    quartic = np.zeros_like(increment) if given is None else np.asarray(given)
    same = quartic.shape == increment.shape
    checks.require(same, "trace.quartic.shape", quartic.shape, f"{increment.shape}")
    return increment, quartic


def _normal_drift(ensemble: ensembles.Ensemble) -> np.ndarray:  # (depth,)
    """Return E ln R_i given survival for normal weights, of width and mask alone."""
    layers = zip(ensemble.widths[1:], ensemble.masks, strict=True)
    means = [_quadrature.cumulants(width, mask)[0] for width, mask in layers]
    return np.array(means) + ensembles.fan_shift(ensemble)


def _has_moment(law: weights.Weights, k: int) -> bool:
    """Return whether E w^{2k} is finite."""
    try:
        law.moment(k)
    except ValueError:
        return False
    return True


def expansion(
    ensemble: ensembles.Ensemble, quartic: ArrayLike, order: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Return E ln R_i and Var ln R_i given the past, for E R_i = 1.

    Order 1 in 1/n: −V/2 and V. Order 2: E ln R = −V/2 + C/3 − 3V²/4 and Var ln R = V −
    C + 5V²/2, with V and C the second and third central moments of R; for ReLU masks
    and normal weights −5/(2n) − 49/(12n²) and 5/n + 37/(2n²).

    Args:
        ensemble: any; for order 2 of independent weights.
        quartic: (..., depth), κ before each layer, in [0, 1], as in ``Trace.quartic``.
        order: 1 or 2.

    Returns:
        Mean and variance, each (..., depth), float64.

    Raises:
        ValueError: for other orders; as ``ensembles.predictable_variance``; and for
            order 2 as ``ensembles.ratio_third_cumulant``.

    Source:
        Derived in theory section 3; held against exact cumulants in
        tests/test_martingales.py.
    """
    checks.require(checks.integer("order", order, 1) <= 2, "order", order, "1 or 2")
    V = ensembles.predictable_variance(ensemble, quartic)
    if order == 1:
        return -V / 2, V
    C = ensembles.ratio_third_cumulant(ensemble, quartic)
    return -V / 2 + C / 3 - 0.75 * V**2, V - C + 2.5 * V**2
