"""Exact finite-width laws for Gaussian weights: any width, depth and mask.

With Gaussian weights the ratios R_i are independent and free of the past, because W x
is normal with covariance ‖x‖²·I for every x. So log_norm is a sum of independent
increments, whatever the direction; ``_density`` has the density of one,
``_quadrature`` its transform, ``_inversion`` the law of the sum.
"""

import functools
import math

import numpy as np

from lognorm_jax import ensembles, laws, masks
from lognorm_jax._tools import checks
from lognorm_jax.theory import _density, _inversion, _quadrature

# how often each (output width, mask) appears
Layer = tuple[int, masks.Mask]
Counts = dict[Layer, int]


def increment_cumulants(
    width: int, mask: masks.Mask, order: int = 4
) -> tuple[float, ...]:
    """Return the first cumulants of ln R given survival: one Gaussian layer, fan "out".

    The k-th is exact to about 1e-13 of the standard deviation to the power k, and the
    mean to 1e-11 relative even at width 10⁶, where it is −2.5e-6.

    Args:
        width: n ≥ 1.
        mask: any with a support of values within a factor 1e8 of one another.
        order: how many, an integer in 1…8.

    Raises:
        ValueError: for anything else.

    Source:
        Derived; tests/test_exact.py holds it against the χ² mixture, polygamma
        functions and simulation.

    >>> [round(c, 6) for c in increment_cumulants(100, masks.relu(), 2)]
    [-0.025421, 0.05194]
    """
    order = _order(order)
    checks.instance("mask", mask, masks.Mask)
    width = checks.integer("width", width, 1)
    return _quadrature.cumulants(width, mask)[:order]


def require_normal(ensemble: ensembles.Ensemble) -> None:
    """Raise ``ValueError`` unless weights are normal, and so increments independent."""
    checks.instance("ensemble", ensemble, ensembles.Ensemble)
    checks.require(
        ensemble.weights.gaussian,
        "ensemble.weights",
        ensemble.weights.name,
        "weights.normal(): with other weights the increments depend on one another",
        "Take moments.norm_moment for exact moments, or sample with paths.dense.",
    )


def _order(order: object) -> int:
    """Return how many cumulants are wanted, in 1…8."""
    count = checks.integer("order", order, 1)
    checks.require(count <= 8, "order", order, "an integer in 1…8")
    return count


def _sum_cumulants(counts: Counts, order: int) -> list[float]:
    """Return the first cumulants of the sum of these layers, fan "out"."""
    terms = [
        np.multiply(count, _quadrature.cumulants(*layer)[:order])
        for layer, count in counts.items()
    ]
    return [math.fsum(column) for column in zip(*terms, strict=True)]


def cumulants(ensemble: ensembles.Ensemble, order: int = 4) -> tuple[float, ...]:
    """Return the first cumulants of log_norm given survival, for Gaussian weights.

    The sums of those of the layers. With ``ensembles.dead_mass`` for its atom,
    ``laws.edgeworth`` makes a law of them.

    Args:
        ensemble: of Gaussian weights; masks as for ``law``.
        order: how many, an integer in 1…8.

    Raises:
        ValueError: for other orders and other weights.
    """
    require_normal(ensemble)
    order = _order(order)
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

    Raises:
        ValueError: for other weights, whose increments depend on one another.

    Source:
        Derived; for {0, 1} masks R_i is χ²_B/(p n_i), B binomial, as in Noci et al.
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
    lower, upper = _curves(tuple(counts.items()), mean, variance)
    shift = ensembles.total_fan_shift(ensemble)
    log_alive = ensembles.log_alive(ensemble)
    return laws.tabulated(
        f"exact law, depth {ensemble.depth}, β = {ensembles.beta(ensemble):.4g}",
        lower._replace(x=lower.x + shift),
        upper._replace(x=upper.x + shift),
        mean=mean + shift,
        variance=variance,
        atom=abs(math.expm1(log_alive)),
        alive=math.exp(log_alive),
    )


def increment_law(width: int, mask: masks.Mask) -> laws.Law:
    """Return the exact law of ln R given survival: one Gaussian layer, fan "out".

    Masks and accuracy as for ``law``; it has no atom, whatever the mask.

    Args:
        width: n ≥ 1.
        mask: any with a support of values within a factor 1e8 of one another.

    Raises:
        ValueError: for anything else.

    >>> law = increment_law(2, masks.identity())  # R is Exp(1), of median ln 2
    >>> round(float(law.quantile(0.5)), 6)
    -0.366513
    """
    checks.instance("mask", mask, masks.Mask)
    return _increment_law(checks.integer("width", width, 1), mask)


@functools.lru_cache(maxsize=256)
def _increment_law(width: int, mask: masks.Mask) -> laws.Law:
    counts = {(width, mask): 1}
    mean, variance = _sum_cumulants(counts, 2)
    curves = _curves(tuple(counts.items()), mean, variance)
    return laws.tabulated(f"ln R, width {width}, {mask.name}", *curves, mean, variance)


@functools.lru_cache(maxsize=256)
def _curves(
    counts: tuple[tuple[Layer, int], ...], mean: float, variance: float
) -> tuple[laws.Curve, laws.Curve]:
    """Return the tables of the sum of these layers, given survival, fan "out"."""
    layers = [(_density.increment(*layer), count) for layer, count in counts]
    return _inversion.curves(layers, mean, math.sqrt(variance))
