"""Laws of residual ReLU networks at initialisation: z ↦ α z + λ·branch(z), width n,
depth d.

In units where α² + λ² = 1 the log of ‖z^d‖²/‖z^0‖² is nearly normal, with a variance
that is a sum over layers as for plain networks, and, where nothing makes the layers'
ReLUs independent of one another, a sum over pairs of layers. α is ``skip_scale``, λ is
``branch_scale``.

Source: Li, Nica & Roy, "The future is log-Gaussian" (2021), and derived in
theory section 6; held against simulation in tests/test_residuals.py.
"""

import math
import warnings
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from scipy import special

from lognorm_jax._tools import arccosine, checks, norms
from lognorm_jax.theory import _vanilla

__all__ = [
    "KINDS",
    "active_share",
    "input_growth",
    "law_moments",
    "log_mean_growth",
    "log_moments",
    "post_growth",
    "predictable_variance",
    "product_correlation",
    "square_correlation",
]

SAMPLE = "Sample it: paths.gram or networks.jacobian_path, then laws.empirical."
Scalar = float | jax.Array  # that may be traced
KINDS = ("mask model", "balanced", "vanilla", "post")


def square_correlation(cosine: ArrayLike) -> np.ndarray:
    """Return S(ρ) = (2/π)[(1 + 2ρ²) asin ρ + 3ρ√(1 − ρ²)], odd, S(1) = 3.

    4 Cov(φ(a)², φ(b)²) for standard normals a, b of correlation ρ is S(ρ) + 2ρ², φ the
    ReLU.

    Args:
        cosine: ρ, numbers in [−1, 1], any shape.

    Returns:
        S, of the shape of ``cosine``, float64.

    Raises:
        ValueError: for other cosines.

    Source:
        Derived in theory section 6; held against quadrature in tests/test_residuals.py.
    """
    return np.asarray(arccosine.squares(_cosine(cosine)))[()]  # a number for a number


def product_correlation(cosine: ArrayLike) -> np.ndarray:
    """Return K(ρ) = (2/π)[asin ρ + ρ√(1 − ρ²)], odd, K(1) = 1: 4 Cov(φ(a)², φ'(b)).

    Args:
        cosine: ρ, numbers in [−1, 1], any shape.

    Returns:
        K, of the shape of ``cosine``, float64.

    Raises:
        ValueError: for other cosines.

    Source:
        Derived in theory section 6; held against quadrature in tests/test_residuals.py.
    """
    return np.asarray(arccosine.signs(_cosine(cosine)))[()]


def predictable_variance(
    width: int,
    skip_scale: float,
    branch_scale: float,
    *,
    mask_kurtosis: float = 2.0,
    kurtosis: float = 3.0,
    quartic: ArrayLike = 0.0,
) -> np.ndarray:
    """Return Var(R | x) of a layer of the mask model, R = ‖α x + λ D W x‖²/‖x‖².

    (1/n)[4α²λ² + λ⁴((m4/m2²)(3 + (μ4 − 3)κ(x)) − 1)], exact at every width, for α² + λ²
    = 1, where R is of mean 1 (else of R over its mean).

    Args:
        width: n, an integer ≥ 1.
        skip_scale: α in [0, 1e6].
        branch_scale: λ in [0, 1e6].
        mask_kurtosis: m4/m2² of D, in [1, 1e30]; default that of a ReLU.
        kurtosis: μ4 of the weights, in [1, 1e30].
        quartic: κ(x) in [0, 1], any shape; 0 gives the generic value.

    Returns:
        The variance, of the shape of ``quartic``, float64.

    Raises:
        ValueError: for numbers out of these ranges, scales that are traced, and α = λ =
            0.

    Source:
        Derived in theory section 6; held against simulation in tests/test_residuals.py.
    """
    alpha, lam = unit_scales(skip_scale, branch_scale)
    kappa = np.asarray(checks.vector("quartic", quartic, None, zero=True), np.float64)
    inside = bool(np.all((kappa >= 0) & (kappa <= 1 + 1e-5)))
    checks.require(inside, "quartic", quartic, "numbers in [0, 1]")
    fourth = 3 + (_kurtosis("kurtosis", kurtosis) - 3) * kappa
    branch = _kurtosis("mask_kurtosis", mask_kurtosis) * fourth - 1
    n = checks.integer("width", width, 1)
    return (4 * alpha**2 * lam**2 + lam**4 * branch) / n


def log_moments(
    kind: str,
    width: int,
    depth: int,
    skip_scale: float | jax.Array,
    branch_scale: float | jax.Array,
    mask_kurtosis: float = 2.0,
) -> tuple[float, float]:
    """Return mean and variance of the limit law of ln(‖z^d‖²/‖z^0‖²), or a Jacobian's.

    Of "mask model" and "balanced": variance v = d(4α²λ² + λ⁴(3 m4/m2² − 1))/n, mean
    −v/2, for any direction of the Jacobian. Of "vanilla", the pre-activation z ↦ α z +
    λ W φ(z), for which the correlation α^k of layers k apart adds (2λ⁴/n) Σ (d − k)
    S(α^k) to the variance and (λ⁴/n) Σ (d − k) (K − S)(α^k) to the mean: of the
    activations, and of the Jacobian along them. All to first order in 1/n. For α² + λ²
    ≠ 1 the mean is shifted by d ln(α² + λ²).

    Args:
        kind: "mask model", "balanced" or "vanilla".
        width: n, an integer ≥ 1.
        depth: d, the number of blocks, an integer ≥ 1.
        skip_scale: α in [0, 1e6], not traced.
        branch_scale: λ in [0, 1e6], not traced.
        mask_kurtosis: m4/m2² of the masks, in [1, 1e30]; default that of a ReLU.

    Returns:
        Mean and variance of the log of the squared norm.

    Raises:
        ValueError: for another kind, and for numbers out of these ranges.

    Source:
        Li, Nica & Roy (2021), as in theory section 6; held against simulation in
        tests/test_residuals.py.
    """
    allowed = "'mask model', 'balanced' or 'vanilla', for which the law is known"
    checks.require(kind in KINDS[:3], "kind", kind, allowed)
    depth = checks.integer("depth", depth, 1)
    alpha, lam = unit_scales(skip_scale, branch_scale)
    layer = predictable_variance(width, alpha, lam, mask_kurtosis=mask_kurtosis)
    variance = depth * float(layer)
    mean = depth * math.log(skip_scale**2 + branch_scale**2) - variance / 2
    if kind == "vanilla":
        apart = np.arange(1, depth)
        cosine = alpha**apart
        square = (depth - apart) * square_correlation(cosine)
        product = (depth - apart) * product_correlation(cosine)
        variance += 2 * lam**4 / width * math.fsum(square)
        mean += lam**4 / width * math.fsum(product - square)
    return mean, variance


def input_growth(
    x: ArrayLike, depth: int, skip_scale: float, branch_scale: float
) -> float:
    """Return what an input adds to the mean of ln‖z^d‖² of the vanilla network.

    To leading order. ‖φ(x)‖² is not ‖x‖²/2, nor is it in the next layers, which still
    know x: a coordinate of z^l is α^l x_a plus a normal number of variance σ_l², so
    that Σ Eφ² over coordinates is known, and with it ‖z^{l+1}‖². It is 0 for an input
    that a linear layer made, on average.

    Args:
        x: (width,), with a positive coordinate; else the ReLUs stay off and the network
            is its skips.
        depth: d, the number of blocks, an integer ≥ 1.
        skip_scale: α in [0, 1e6], not traced.
        branch_scale: λ in [0, 1e6], not traced.

    Returns:
        What is added to the mean of the log of the squared norm.

    Raises:
        ValueError: for an input without a positive coordinate, and for numbers out of
            these ranges.

    Source:
        Derived in theory section 6; held against simulation in tests/test_residuals.py.
    """
    alpha, lam = unit_scales(skip_scale, branch_scale)
    x = np.asarray(x, np.float64)
    allowed = "an input with a positive coordinate; otherwise every ReLU is off"
    checks.require(bool(np.any(x > 0)), "x", x, allowed)
    known = _root_mean_square_one(x)
    spread = 0.0
    growth = 0.0
    # ‖z‖² is n: known² + spread are of mean 1
    for _ in range(checks.integer("depth", depth, 1)):
        sigma = max(math.sqrt(spread), 1e-12)
        on = special.ndtr(known / sigma)
        density = np.exp(-((known / sigma) ** 2) / 2) / math.sqrt(2 * math.pi)
        square = (known**2 + spread) * on + known * sigma * density
        new = 2 * lam**2 * float(np.mean(square))
        size = alpha**2 + new
        growth += math.log(size)
        known = alpha * known / math.sqrt(size)
        spread = (alpha**2 * spread + new) / size
    return growth


def _root_mean_square_one(x: np.ndarray) -> np.ndarray:
    """Return x over its root mean square, of entries of any size."""
    x = x / np.abs(x).max()
    return x / np.sqrt(np.mean(x**2))


def law_moments(
    kind: str,
    width: int,
    depth: int,
    skip_scale: float | jax.Array,
    branch_scale: float | jax.Array,
    x: ArrayLike | None = None,
    tangent: ArrayLike | None = None,
    mask_kurtosis: float = 2.0,
    kurtosis: float = 3.0,
    *,
    entered: bool = False,
) -> tuple[float, float]:
    """Return ``log_moments`` for one input x and one tangent, where they matter.

    Vanilla: a tangent must be along x, and x given with it: along any other the cosine
    of the two diffuses, and no law is known. For a given x mean and variance are those
    of ``_vanilla.log_moments``; refused where ‖φ(z)‖²/‖z‖² fluctuates so much, its log
    by a variance over 0.12 and 6/n, that first order says little of it. Else the
    direction's κ − 3/n adds λ⁴ α^{4l} (m4/m2² − 1)(κ − 3/n) to the variance of layer l
    in balanced networks, whose masks come before the weights: refused where that is
    over 0.05 in all, for then the law is not nearly normal. Weights of other kurtosis
    add their term of ``predictable_variance``, in each layer.

    First order in 1/n: of the vanilla network the variance is low by a relative 3/n to
    8/n, and off by up to 12% more where few coordinates of x are positive
    (tests/test_vanilla.py bounds it).

    Args:
        kind: "mask model", "balanced" or "vanilla".
        width: n, an integer ≥ 1.
        depth: d, the number of blocks, an integer ≥ 1.
        skip_scale: α in [0, 1e6], not traced.
        branch_scale: λ in [0, 1e6], at least 1e-30 of skip_scale, not traced.
        x: (width,), or None for a generic input.
        tangent: (width,), or None for a generic one.
        mask_kurtosis: m4/m2² of the masks, in [1, 1e30].
        kurtosis: μ4 of the weights.
        entered: whether a linear layer of variance 1/width comes first; x and tangent
            are before it.

    Returns:
        Mean and variance of the log of the squared norm.

    Raises:
        ValueError: for another kind, numbers out of these ranges, vectors of another
            shape, and where no law is known, or first order says too little, as above.

    Source:
        Derived in theory section 6; held against simulation in tests/test_residuals.py
        and tests/test_vanilla.py.
    """
    alpha, lam = unit_scales(skip_scale, branch_scale)
    allowed = "at least 1e-30 of skip_scale: without a branch norms are fixed"
    checks.require(lam >= 1e-30, "branch_scale", branch_scale, allowed)
    if not entered:
        _check_shapes(width, x=x, tangent=tangent)
    if kind == "vanilla":
        _require_along(x, tangent)
    generic = log_moments(kind, width, depth, skip_scale, branch_scale, mask_kurtosis)

    # one input of a vanilla network: from its own coordinates
    if kind == "vanilla" and x is not None and not entered:
        shift = depth * math.log(skip_scale**2 + branch_scale**2)
        mean, variance = _vanilla_moments(x, depth, alpha, lam, kurtosis)
        return mean + shift, variance

    direction = x if tangent is None else tangent
    quartic = 3 / width
    if direction is not None:
        quartic = float(np.sum(norms.unit(direction) ** 4))
    # what a layer knows of the direction's κ
    known = 0.0 if entered else quartic - 3 / width
    excess = alpha ** (4 * np.arange(depth)) * known
    added = 0.0
    if kind == "balanced":
        added = _direction_variance(lam, mask_kurtosis, excess, direction)

    # weights that are not normal
    total = math.fsum(3 / width + excess)
    added += lam**4 * mask_kurtosis * (kurtosis - 3) / width * total
    if entered:
        fourth = 0.0 if direction is None else (kurtosis - 3) * quartic
        added += (2 + fourth) / width
    return generic[0] - added / 2, generic[1] + added


def _check_shapes(width: int, **vectors: ArrayLike | None) -> None:
    """Require vectors of this width where they are given."""
    for name, vector in vectors.items():
        if vector is not None:
            checks.vector(name, vector, (width,))


def _direction_variance(
    lam: float, mask_kurtosis: float, excess: np.ndarray, direction: object
) -> float:
    """Return what a direction adds to the variance of a balanced network, ≤ 0.05."""
    added = lam**4 * (mask_kurtosis - 1) * math.fsum(excess)
    allowed = (
        "a direction of many coordinates: for this one the law is not nearly normal"
    )
    checks.require(added <= 0.05, "tangent", direction, allowed, SAMPLE)
    return added


def _require_along(x: ArrayLike | None, tangent: ArrayLike | None) -> None:
    """Refuse a tangent of the vanilla network that is not along its input."""
    if tangent is None:
        return
    allowed = "along x, for which alone the law of a vanilla network is known"
    instead = f"Give x = tangent for the law along it. {SAMPLE}"
    checks.require(x is not None, "tangent", tangent, allowed, instead)
    along = abs(np.sum(norms.unit(x) * norms.unit(tangent))) > 1 - 1e-6
    checks.require(along, "tangent", tangent, allowed, SAMPLE)


def _vanilla_moments(
    x: ArrayLike, depth: int, alpha: float, lam: float, kurtosis: float
) -> tuple[float, float]:
    """Return ``_vanilla.log_moments`` at x, or refuse x where they say too little."""
    growth = input_growth(x, depth, alpha, lam)
    x = np.asarray(x, np.float64)
    allowed = "an input with more positive coordinates: "
    allowed += "first order in 1/n is not enough for this"
    checks.require(growth > -300, "x", x, allowed, SAMPLE)
    x = _root_mean_square_one(x)
    law = _vanilla.log_moments(x, depth, alpha, lam, kurtosis=kurtosis)
    most = max(0.12, 6 / len(x))
    allowed += f" (the variance of ln ‖φ(z)‖²/‖z‖² reaches {law.doubt:.3g}, "
    allowed += f"{most:.3g} is allowed)"
    checks.require(law.doubt <= most, "x", x, allowed, SAMPLE)
    return law.mean, law.variance


def log_mean_growth(
    width: int, depth: int, skip_scale: float, branch_scale: float
) -> float:
    """Return ln E‖z^d‖²/‖z^0‖² of the vanilla network, to first order in 1/n.

    (λ⁴/n) Σ (d − k) K(α^k): without interlayer correlations it would be 0. For α² + λ²
    = 1, else d ln(α² + λ²) more.

    Args:
        width: n, an integer ≥ 1.
        depth: d, the number of blocks, an integer ≥ 1.
        skip_scale: α in [0, 1e6], not traced.
        branch_scale: λ, likewise.

    Returns:
        The log of the mean of the squared norm, not the mean of its log.

    Raises:
        ValueError: for numbers out of these ranges.

    Source:
        Li, Nica & Roy (2021), as in theory section 6; held against simulation in
        tests/test_residuals.py.
    """
    mean, variance = log_moments("vanilla", width, depth, skip_scale, branch_scale)
    return mean + variance / 2


def active_share(
    width: int, depth: int, skip_scale: float, branch_scale: float
) -> np.ndarray:
    """Return P(z_a > 0) after each block of the vanilla network.

    Its hypoactivation: 1/2 − (λ²/(πn)) Σ_{k ≤ l} α^k √(1 − α^{2k}), to first order in
    1/n.

    Args:
        width: n, an integer ≥ 1.
        depth: d, the number of blocks, an integer ≥ 1.
        skip_scale: α in [0, 1e6], not traced.
        branch_scale: λ, likewise.

    Returns:
        (depth,), float64, descending from 1/2.

    Raises:
        ValueError: for numbers out of these ranges.

    Source:
        Li, Nica & Roy (2021), as in theory section 6; held against simulation in
        tests/test_residuals.py.
    """
    alpha, lam = unit_scales(skip_scale, branch_scale)
    cosine = alpha ** np.arange(1, checks.integer("depth", depth, 1) + 1)
    lost = np.cumsum(cosine * np.sqrt(1 - cosine**2))
    return 0.5 - lam**2 / (np.pi * checks.integer("width", width, 1)) * lost


def post_growth(
    width: int, skip_scale: float, branch_scale: float, mean_cosine: ArrayLike
) -> np.ndarray:
    """Return E(R | x) of a post-activation block x ↦ α x + λ φ(W x): it is not 1.

    α² + λ² + 2αλ Σ x_a/(‖x‖√(πn)) for weights of variance 2/n: exact, for normal
    weights.

    Args:
        width: n, an integer ≥ 1.
        skip_scale: α in [0, 1e6].
        branch_scale: λ, likewise.
        mean_cosine: Σ x_a/(‖x‖√n) in [−1, 1], the cosine of x with the flat direction,
            any shape.

    Returns:
        The mean of R, of the shape of ``mean_cosine``.

    Raises:
        ValueError: for a width and scales out of these ranges.

    Source:
        Derived in theory section 6; held against simulation in tests/test_residuals.py.
    """
    alpha, lam = _scales(skip_scale, branch_scale)
    checks.integer("width", width, 1)
    cross = 2 * alpha * lam * np.asarray(mean_cosine) / math.sqrt(math.pi)
    return alpha**2 + lam**2 + cross


def scales(skip_scale: Scalar, branch_scale: Scalar) -> tuple[Scalar, Scalar]:
    """Return α and λ in [0, 1e6], not both 0; warn if α² + λ² ≠ 1.

    Traced ones are not checked.

    Raises:
        ValueError: for numbers out of this range.
    """
    alpha, lam = _scales(skip_scale, branch_scale)
    if checks.traced(alpha) or checks.traced(lam):
        return alpha, lam
    total = alpha**2 + lam**2
    if abs(total - 1) > 1e-6:
        warnings.warn(
            f"skip_scale² + branch_scale² = {total:.6g}: squared norms grow by it in "
            "each block. Laws are shifted by its log.",
            stacklevel=3,
        )
    return alpha, lam


def _scales(skip_scale: object, branch_scale: object) -> tuple[Any, Any]:
    """Return α and λ in [0, 1e6], not both 0."""
    alpha = checks.scale("skip_scale", skip_scale, 0, 1e6)
    lam = checks.scale("branch_scale", branch_scale, 0, 1e6)
    if not checks.traced(alpha) and not checks.traced(lam):
        total = math.hypot(alpha, lam)
        checks.require(total > 1e-6, "√(skip_scale² + branch_scale²)", total, "> 1e-6")
    return alpha, lam


def unit_scales(skip_scale: object, branch_scale: object) -> tuple[float, float]:
    """Return α and λ over √(α² + λ²), not traced.

    Raises:
        ValueError: for numbers out of [0, 1e6], both 0, or traced.
    """
    checks.require_known("skip_scale", skip_scale)
    checks.require_known("branch_scale", branch_scale)
    alpha, lam = _scales(skip_scale, branch_scale)
    norm = math.hypot(alpha, lam)
    return alpha / norm, lam / norm


def _kurtosis(name: str, value: object) -> float:
    """Return a standardised fourth moment, a number in [1, 1e30]."""
    return checks.number(name, value, "[1, 1e30]")


def _cosine(cosine: ArrayLike) -> np.ndarray:
    """Return correlations as float64, all in [−1, 1]."""
    rho = np.asarray(cosine, dtype=np.float64)
    inside = bool(np.all(np.abs(rho) <= 1))
    checks.require(inside, "cosine", cosine, "in [−1, 1]")
    return rho
