"""Laws of residual ReLU networks at initialisation: z ↦ α z + λ·branch(z), width n, depth d.

In units where α² + λ² = 1 the log of ‖z^d‖²/‖z^0‖² is nearly normal, with a variance that is a sum
over layers as for plain networks, and, where nothing makes the layers' ReLUs independent of one
another, a sum over pairs of layers. α is ``skip_scale``, λ is ``branch_scale``.

Source: Li, Nica & Roy, "The future is log-Gaussian" (2021), and derived; see tests/test_residuals.
"""

import math
import warnings
from typing import Any

import numpy as np

from lognorm_jax import checks

KINDS = ("mask model", "balanced", "vanilla", "post")


def square_correlation(cosine: Any) -> np.ndarray:
    """Return S(ρ) = (2/π)[(1 + 2ρ²) asin ρ + 3ρ√(1 − ρ²)], odd, S(1) = 3.

    4 Cov(φ(a)², φ(b)²) for standard normals a, b of correlation ρ is S(ρ) + 2ρ², φ the ReLU.
    """
    rho = _cosine(cosine)
    return 2 / np.pi * ((1 + 2 * rho**2) * np.arcsin(rho) + 3 * rho * np.sqrt(1 - rho**2))


def product_correlation(cosine: Any) -> np.ndarray:
    """Return K(ρ) = (2/π)[asin ρ + ρ√(1 − ρ²)], odd, K(1) = 1: 4 Cov(φ(a)², φ'(b))."""
    rho = _cosine(cosine)
    return 2 / np.pi * (np.arcsin(rho) + rho * np.sqrt(1 - rho**2))


def predictable_variance(
    width: int,
    skip_scale: float,
    branch_scale: float,
    *,
    mask_kurtosis: float = 2.0,
    kurtosis: float = 3.0,
    quartic: Any = 0.0,
) -> np.ndarray:
    """Return Var(R | x) of one layer of the mask model, R = ‖α x + λ D W x‖²/‖x‖² of mean 1.

    (1/n)[4α²λ² + λ⁴((m4/m2²)(3 + (μ4 − 3)κ(x)) − 1)], exact at every width, for α² + λ² = 1 (else
    of R over its mean). mask_kurtosis: m4/m2² of D, default a ReLU's. kurtosis: μ4 of the weights.
    quartic: κ(x), any shape.
    """
    alpha, lam = _unit(skip_scale, branch_scale)
    quartic = np.asarray(quartic, dtype=np.float64)
    branch = float(mask_kurtosis) * (3 + (float(kurtosis) - 3) * quartic) - 1
    return (4 * alpha**2 * lam**2 + lam**4 * branch) / checks.integer("width", width, 1)


def log_moments(
    kind: str,
    width: int,
    depth: int,
    skip_scale: float,
    branch_scale: float,
    mask_kurtosis: float = 2.0,
) -> tuple[float, float]:
    """Return the mean and the variance of the limit law of ln(‖z^d‖²/‖z^0‖²), or of a Jacobian's.

    kind: "mask model" or "balanced": variance v = d(4α²λ² + λ⁴(3 m4/m2² − 1))/n, mean −v/2, for any
    direction of the Jacobian. "vanilla", the pre-activation z ↦ α z + λ W φ(z), for which the
    correlation α^k of layers k apart adds (2λ⁴/n) Σ (d − k) S(α^k) to the variance and
    (λ⁴/n) Σ (d − k) (K − S)(α^k) to the mean: of the activations, and of the Jacobian along them.
    Both to first order in 1/n. For α² + λ² ≠ 1 the mean is shifted by d ln(α² + λ²).
    """
    allowed = "'mask model', 'balanced' or 'vanilla', for which the law is known"
    checks.require(kind in KINDS[:3], "kind", kind, allowed)
    depth = checks.integer("depth", depth, 1)
    alpha, lam = _unit(skip_scale, branch_scale)
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


def log_mean_growth(width: int, depth: int, skip_scale: float, branch_scale: float) -> float:
    """Return ln E‖z^d‖²/‖z^0‖² of the vanilla network: (λ⁴/n) Σ (d − k) K(α^k), first order in 1/n.

    Without interlayer correlations it would be 0. For α² + λ² = 1, else d ln(α² + λ²) more.
    """
    mean, variance = log_moments("vanilla", width, depth, skip_scale, branch_scale)
    return mean + variance / 2


def active_share(width: int, depth: int, skip_scale: float, branch_scale: float) -> np.ndarray:
    """Return P(z_a > 0) after each block of the vanilla network, (depth,): its hypoactivation.

    1/2 − (λ²/(πn)) Σ_{k ≤ l} α^k √(1 − α^{2k}), to first order in 1/n.
    """
    alpha, lam = _unit(skip_scale, branch_scale)
    cosine = alpha ** np.arange(1, checks.integer("depth", depth, 1) + 1)
    lost = np.cumsum(cosine * np.sqrt(1 - cosine**2))
    return 0.5 - lam**2 / (np.pi * checks.integer("width", width, 1)) * lost


def post_growth(width: int, skip_scale: float, branch_scale: float, mean_cosine: Any) -> Any:
    """Return E(R | x) of a post-activation block x ↦ α x + λ φ(W x): it is not 1.

    α² + λ² + 2αλ Σ x_a/(‖x‖√(πn)) for weights of variance 2/n: exact, for normal weights.
    mean_cosine: Σ x_a/(‖x‖√n), the cosine of x with the flat direction; any shape.
    """
    alpha, lam = skip_scale, branch_scale
    checks.integer("width", width, 1)
    return alpha**2 + lam**2 + 2 * alpha * lam * np.asarray(mean_cosine) / math.sqrt(math.pi)


def scales(skip_scale: Any, branch_scale: Any) -> tuple[float, float]:
    """Return α and λ as floats in [0, 1e6], not both 0; warn if α² + λ² ≠ 1."""
    allowed, found = "a number in [0, 1e6]", []
    for name, value in (("skip_scale", skip_scale), ("branch_scale", branch_scale)):
        value = float(checks.real(name, value, allowed))
        checks.require(0 <= value <= 1e6, name, value, allowed)
        found.append(value)
    total = found[0] ** 2 + found[1] ** 2
    checks.require(total > 1e-12, "skip_scale² + branch_scale²", total, "positive")
    if abs(total - 1) > 1e-6:
        text = f"skip_scale² + branch_scale² = {total:.6g}: squared norms grow by it in each block."
        warnings.warn(text + " Laws are shifted by its log.", stacklevel=3)
    return found[0], found[1]


def _unit(alpha: float, lam: float) -> tuple[float, float]:
    norm = math.hypot(alpha, lam)
    return alpha / norm, lam / norm


def _cosine(cosine: Any) -> np.ndarray:
    rho = np.asarray(cosine, dtype=np.float64)
    inside = bool(np.all(np.abs(rho) <= 1))
    checks.require(inside, "cosine", cosine, "in [−1, 1]")
    return rho
