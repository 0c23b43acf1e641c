"""The vanilla residual network z ↦ α z + λ√(2/n) W φ(z) at one given input.

All to first order in 1/n.

Given z^l, the coordinates of √(2/n) W φ(z^l) are independent normals of one variance.
So

    z_a^{l+1} = α z_a^l + √q_l ξ_a,    q_l = (2λ²/n) Σ_a φ(z_a^l)²,

and coordinates meet in the numbers q_l alone. At given q they are independent normals
of means α^l x_a and of one variance s_l²; each q_l is its mean over them, F_l(q), plus
a fluctuation of order n^{−1/2}, which moves the later ones. To second order in these
fluctuations that gives the mean and the variance of ln ‖z^d‖². For a generic input both
are those of ``residuals.log_moments``; where few coordinates are positive, ‖φ(z)‖²
rests on a few numbers.

Source: derived here, as in theory section 6; held against that closed form and
simulation in tests/test_vanilla.py.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

GRID = 0.05  # inputs this near, in units of their root mean square, share one integral
REACH = 8.0  # standard deviations of a coordinate that integrals cover
# correlation of two layers below which they are taken to be independent
FORGOTTEN = 1e-5
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(24)


class LogMoments(NamedTuple):
    """Moments of ln(‖z^d‖²/n), and how far first order may be trusted."""

    mean: float
    variance: float
    # largest variance of ln(q_l n/‖z^l‖²): small, or the expansion says nothing
    doubt: float


class MeanField(NamedTuple):
    """What coordinates do at q_l = F_l(q), for an input of mean square 1 − (first
    spread)².
    """

    scale: np.ndarray  # (depth + 1,): α^l, by which the input is known
    spread: np.ndarray  # (depth + 1,): s_l, standard deviation of a coordinate
    square: np.ndarray  # (depth + 1,): E‖z^l‖²/n
    active: np.ndarray  # (depth,): share of positive coordinates
    bend: np.ndarray  # (depth,): second derivative of the mean of E φ² in s²
    quartic: np.ndarray  # (depth,): κ of φ(z^l), Σ E φ⁴/(Σ E φ²)²


class Covariances(NamedTuple):
    """Means over the coordinates of covariances at given q; φ² stands for φ(z)²."""

    squares: np.ndarray  # (depth, depth): Cov(φ²_l, φ²_m)
    signs: np.ndarray  # (depth, depth), m ≤ l: Cov(1(z_l > 0), φ²_m), else 0
    norm: np.ndarray  # (depth,): Cov(z_m², φ²_m)


def log_moments(
    x: np.ndarray,
    depth: int,
    alpha: float,
    lam: float,
    *,
    kurtosis: float = 3.0,
    spread: float = 0.0,
) -> LogMoments:
    """Return the moments of ln(‖z^d‖²/n) of the vanilla network, to first order in 1/n.

    The time goes as depth² where α^depth is not small: 0.2 s at depth 100, 20 s at
    1,000.

    Args:
        x: (n,) of mean square 1 − spread², some coordinate positive unless there is a
            spread.
        depth: number of blocks, ≥ 1.
        alpha: α of the skips; α² + λ² = 1.
        lam: λ of the branches, > 0.
        kurtosis: μ4 of the weights; its own term is that of the predictable variance,
            λ⁴(μ4 − 3)κ(φ(z^l))/n of a layer.
        spread: of normal numbers that are added to x first; x = 0 with spread 1 is the
            generic input.
    """
    n = len(x)
    field = mean_field(x, depth, alpha, lam, spread)
    covs = covariances(x, field, alpha)
    drive = field.spread[1:] ** 2 - (alpha * field.spread[:-1]) ** 2  # q_l

    # δq = response (ε + what is of second order), (I − ∂F/∂q)⁻¹ = response
    memory = _powers(alpha, depth, 1)  # ∂s_l²/∂q_j
    echo = 2 * lam**2 * field.active[:, None] * memory[:-1]
    response = np.linalg.inv(np.eye(depth) - echo)
    fluctuation = 4 * lam**4 / n * response @ covs.squares @ response.T  # Cov δq
    moved = np.einsum("lj,jk,lk->l", memory, fluctuation, memory)  # Var δs_l²

    # Var δ‖z^l‖²/n: of the coordinates themselves, and of what q has become
    square = field.spread**2
    variances = (2 * square**2 + 4 * (field.square - square) * square) / n
    mixed = _powers(alpha, depth, 0) * covs.norm
    mixed = 2 * lam**2 / n * mixed @ response.T  # with δq of no later layer
    variances += 2 * np.sum(memory * mixed, axis=1)
    variances += moved

    # Var ln(q_l n/‖z^l‖²)
    both = np.diagonal(mixed + memory @ fluctuation)  # with δq of the same layer
    doubt = np.diagonal(fluctuation) / drive**2
    doubt = doubt + variances[:-1] / field.square[:-1] ** 2
    doubt = doubt - 2 * both / (drive * field.square[:-1])

    # E δq: a coordinate's own part in q moves it, and F bends
    drift = 4 * lam**4 / n * np.sum(memory[:-1] @ response * covs.signs, axis=1)
    drift += lam**2 * field.bend * moved[:-1]
    shift = float(memory[-1] @ response @ drift) / field.square[-1]
    growth = math.log(field.square[-1]) + shift

    # weights of another kurtosis: √(2/n) W φ is not normal, to first order in its
    # squared norm only
    excess = np.sum((drive / field.square[1:]) ** 2 * field.quartic)
    variance = float(variances[-1] / field.square[-1] ** 2)
    variance += float((kurtosis - 3) / n * excess)
    return LogMoments(growth - variance / 2, variance, float(np.max(doubt)))


def _powers(alpha: float, depth: int, lag: int) -> np.ndarray:
    """Return α^{2(l − j − lag)} where l − j ≥ lag, else 0: (depth + 1, depth)."""
    apart = np.arange(depth + 1)[:, None] - np.arange(depth)[None] - lag
    return np.where(apart >= 0, alpha ** (2.0 * np.maximum(apart, 0)), 0)


def mean_field(
    x: np.ndarray, depth: int, alpha: float, lam: float, spread: float = 0.0
) -> MeanField:
    """Return the mean field of an input, of n → ∞ coordinates like its own."""
    scales = [1.0]
    spreads = [spread]
    squares = [np.mean(x**2) + spread**2]
    rows = []
    for _ in range(depth):
        mean = scales[-1] * x
        active, square = _positive(mean, spread)
        density = _density(mean, spread)
        fourth = (mean**4 + 6 * mean**2 * spread**2 + 3 * spread**4) * active
        fourth += (mean**3 + 5 * mean * spread**2) * spread**2 * density
        bend = -np.mean(mean * density) / (2 * spread**2) if spread > 0 else 0.0
        rows.append((np.mean(active), bend, np.sum(fourth) / np.sum(square) ** 2))

        spread = math.sqrt(alpha**2 * spread**2 + 2 * lam**2 * np.mean(square))
        scales.append(alpha * scales[-1])
        spreads.append(spread)
        squares.append(np.mean((scales[-1] * x) ** 2) + spread**2)
    active, bend, quartic = np.array(rows).T
    return MeanField(
        scale=np.array(scales),
        spread=np.array(spreads),
        square=np.array(squares),
        active=active,
        bend=bend,
        quartic=quartic,
    )


def covariances(x: np.ndarray, field: MeanField, alpha: float) -> Covariances:
    """Return covariances of all pairs of layers, by quadrature over the earlier one."""
    x, share = _grouped(x)
    depth = len(field.active)
    squares = np.zeros((depth, depth))
    signs = np.zeros((depth, depth))
    norm = np.zeros(depth)
    remembered = _remembered(depth, alpha)
    means = field.scale[:depth, None] * x
    for m in np.flatnonzero(field.spread[:depth] > 0).tolist():
        z, weight = _positive_part(means[m], field.spread[m], share)
        weight = weight * z**2  # of φ², for each coordinate
        total = weight.sum(1)
        norm[m] = np.sum(weight * z**2) - total @ (means[m] ** 2 + field.spread[m] ** 2)
        for later in range(m, min(m + remembered, depth)):
            known = alpha ** (later - m)
            rest = field.spread[later] ** 2 - (known * field.spread[m]) ** 2
            active, square = _positive(known * z, math.sqrt(max(rest, 0)))
            apart = _positive(means[later], field.spread[later])
            signs[later, m] = np.sum(weight * active) - total @ apart[0]
            squares[later, m] = np.sum(weight * square) - total @ apart[1]
            squares[m, later] = squares[later, m]
    return Covariances(squares, signs, norm)


def _remembered(depth: int, alpha: float) -> int:
    """Return from how many layers apart two are taken to be independent."""
    if alpha <= FORGOTTEN:
        return 1
    if alpha == 1:  # to rounding
        return depth
    return min(depth, math.ceil(math.log(FORGOTTEN) / math.log(alpha)))


def _positive(mean: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Return P(z > 0) and E φ(z)² of normal numbers z."""
    active = special.ndtr(mean / max(spread, 1e-150))
    square = (mean**2 + spread**2) * active + mean * spread**2 * _density(mean, spread)
    return active, square


def _density(mean: np.ndarray, spread: float) -> np.ndarray:
    """Return the density at 0 of normal numbers; 0 where there is no spread."""
    if spread == 0:
        return np.zeros_like(mean)
    return np.exp(-np.square(mean / spread) / 2) / (spread * math.sqrt(2 * math.pi))


def _positive_part(
    mean: np.ndarray, spread: float, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes z > 0 and weights, (values, nodes), for means of normal numbers."""
    high = np.maximum(mean + REACH * spread, 0)
    low = np.clip(mean - REACH * spread, 0, high)
    half = (high - low)[:, None] / 2
    z = low[:, None] + half * (1 + NODES)
    weight = share[:, None] * half * NODE_WEIGHTS * _density(z - mean[:, None], spread)
    return z, weight


def _grouped(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of groups of near coordinates, and the share of each group."""
    _, group, counts = np.unique(
        np.round(x / GRID), return_inverse=True, return_counts=True
    )
    return np.bincount(group, x) / counts, counts / len(x)
