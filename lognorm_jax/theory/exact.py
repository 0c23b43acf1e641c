"""Exact finite-width laws for Gaussian weights: no simulation, any width, any depth,
any mask.

With Gaussian weights the ratios R_i are independent and free of the past, because W x
is normal with covariance ‖x‖²·I for every x. So log_norm is a sum of independent
increments, whatever the direction; ``increments`` has the density of one,
``quadrature`` its transform, ``inversion`` the law of the sum.
"""

import functools
import math

import numpy as np

from lognorm_jax import ensembles, laws, masks, weights
from lognorm_jax._tools import checks
from lognorm_jax.theory import _density, _inversion, _quadrature


def increment_cumulants(
    width: int, mask: masks.Mask, order: int = 4
) -> tuple[float, ...]:
    """Return the first ``order`` cumulants of ln R given survival: one layer, fan
    "out", Gaussian.

    width: n ≥ 1. mask: any with a support of values within a factor 1e8 of one another.
    order: an integer in 1…8. The k-th is exact to about 1e-13 of the standard deviation
    to the power k, and the mean to 1e-11 relative even at width 10⁶, where it is
    −2.5e-6. Raises ``ValueError`` for anything else. Source: derived;
    tests/test_exact.py holds it against the χ² mixture, polygamma functions and
    simulation.

    >>> [round(c, 6) for c in increment_cumulants(100, masks.relu(), 2)]
    [-0.025421, 0.05194]
    """
    order = checks.integer("order", order, 1)
    checks.require(order <= 8, "order", order, "an integer in 1…8")
    checks.instance("mask", mask, masks.Mask)
    width = checks.integer("width", width, 1)
    return _quadrature.cumulants(width, mask)[:order]


def require_normal(ensemble: ensembles.Ensemble) -> None:
    """Raise a ``ValueError`` unless the weights are normal, so that increments are
    independent.
    """
    checks.instance("ensemble", ensemble, ensembles.Ensemble)
    checks.require(
        ensemble.weights is weights.normal(),
        "ensemble.weights",
        ensemble.weights.name,
        "weights.normal(): with other weights the increments depend on one another",
        "Take moments.norm_moment for exact moments, or sample with paths.dense.",
    )


def _sum_cumulants(
    counts: dict[tuple[int, masks.Mask], int], order: int
) -> list[float]:
    each = [
        np.multiply(k, increment_cumulants(*layer, order))
        for layer, k in counts.items()
    ]
    return [math.fsum(column) for column in zip(*each, strict=True)]


def cumulants(ensemble: ensembles.Ensemble, order: int = 4) -> tuple[float, ...]:
    """Return the first ``order`` cumulants of log_norm given survival, for Gaussian
    weights.

    The sums of those of the layers. With ``ensembles.dead_mass`` for its atom,
    ``laws.edgeworth`` makes a law of them. order: 1…8. Raises ``ValueError`` for other
    orders and other weights.
    """
    require_normal(ensemble)
    mean, *higher = _sum_cumulants(ensembles.layer_counts(ensemble), order)
    return (mean + ensembles.total_fan_shift(ensemble), *higher)


def law(ensemble: ensembles.Ensemble) -> laws.Law:
    """Return the exact law of log_norm, for Gaussian weights.

    Widths, depth, fan and masks are free; a mask needs a support of values within a
    factor 1e8 of one another. Distinct layers are computed once, and neither width nor
    depth enters the cost: 20 to 40 ms for each of them, and up to 0.7 s for one or two
    layers of width below 100 with many values lost (10⁶ layers: 0.4 s to count them).

    Accuracy: cdf and atom to 1e-12, or in the lower tail beyond the point given below
    to 2e-9; mean and variance to 1e-10 (relative, where they are large). Far tails keep
    a relative accuracy of 1e-8: the upper one, by ``sf`` and the pdf, to 1e-300; the
    lower one to 1e-300 for linear and leaky layers of width ≥ 1000, and for other
    layers to where a single layer with few surviving coordinates, or none but small
    ones, makes up the tail: 1e-50 for 100 ReLU layers of width 1000, 1e-15 at width
    100, 1e-7 for one layer of width 50. Below that point ln P(X ≤ x) goes on as a
    straight line, which says little. Note that the cdf begins at the atom: next to it,
    smaller probabilities cannot be told in float64.

    Raises ``ValueError`` for other weights, whose increments depend on one another.
    Source: derived; for {0, 1} masks R_i is χ²_B/(p n_i), B binomial, as in Noci et al.
    (2021).

    >>> from lognorm_jax import weights
    >>> relu_net = ensembles.Ensemble((64, *(16,) * 16), weights.normal(), masks.relu())
    >>> exact_law = law(relu_net)
    >>> exact_law.name, round(exact_law.mean, 6), round(float(exact_law.cdf(-2.822)), 9)
    ('exact law, depth 16, β = 1', -2.822357, 0.483827623)
    """
    require_normal(ensemble)
    counts = ensembles.layer_counts(ensemble)
    mean, variance = _sum_cumulants(counts, 2)
    shift = ensembles.total_fan_shift(ensemble)
    lower, upper = (curve._replace(x=curve.x + shift) for curve in _curves(counts))
    name = f"exact law, depth {ensemble.depth}, β = {ensembles.beta(ensemble):.4g}"
    log_alive = ensembles.log_alive(ensemble)
    atom, alive = abs(math.expm1(log_alive)), math.exp(log_alive)
    return laws.tabulated(name, lower, upper, mean + shift, variance, atom, alive)


def increment_law(width: int, mask: masks.Mask) -> laws.Law:
    """Return the exact law of ln R given survival: one layer, fan "out", Gaussian
    weights.

    width, mask and accuracy as for ``law``; it has no atom, whatever the mask. Raises
    ``ValueError`` for anything else.

    >>> round(float(increment_law(2, masks.identity()).quantile(0.5)), 6)  # ln ln 2: R is Exp(1)
    -0.366513
    """
    checks.instance("mask", mask, masks.Mask)
    return _increment_law(checks.integer("width", width, 1), mask)


@functools.lru_cache(maxsize=256)
def _increment_law(width: int, mask: masks.Mask) -> laws.Law:
    mean, variance = increment_cumulants(width, mask, 2)
    curves = _curves({(width, mask): 1})
    return laws.tabulated(f"ln R, width {width}, {mask.name}", *curves, mean, variance)


def _curves(counts: dict[tuple[int, masks.Mask], int]) -> tuple[laws.Curve, laws.Curve]:
    """Return the tables of the law of the sum of these layers, given survival, fan
    "out".
    """
    layers = [(_density.increment(*layer), count) for layer, count in counts.items()]
    mean, variance = _sum_cumulants(counts, 2)
    return _inversion.curves(layers, mean, math.sqrt(variance))
