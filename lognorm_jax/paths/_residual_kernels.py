"""The second moment of the tangent kernel of residual networks whose masks are
independent of what they meet.

A block is J = α I + λ D W or α I + λ W D, D iid entries of a mask. Of two vectors, P =
‖u‖²‖v‖², C = ⟨u, v⟩² and F = Σ u_a²v_a² go through it by a matrix, and what follows
needs no more. A gradient of norm² ‖δ‖² is Σ ⟨e_a, δ⟩² of unit vectors e_a that join at
its block: so E K² is a sum over where two gradients join, of x and x themselves first.

Source: derived in theory section 8; held against enumeration in tests/test_kernels.py.
"""

import math

import numpy as np


def second_moment(
    before: bool,
    width: int,
    depth: int,
    scales: tuple[float, float],
    mask_moments: tuple[float, float],
    kurtosis: float,
    quartic: float,
) -> float:
    """Return E K²/(E K)² of f = ⟨c, z^d⟩, c standard normal.

    Args:
        before: whether masks are on the side of the input: W D.
        width: n.
        depth: d.
        scales: α and λ, α² + λ² = 1.
        mask_moments: E D² and E D⁴.
        kurtosis: μ4 of the weights.
        quartic: κ(x).
    """
    n = width
    m2, _ = mask_moments
    block = _block(before, n, scales, mask_moments, kurtosis)
    one, both = _joins(before, n, scales, mask_moments)

    # states: of two gradients none, one of either, or both have joined
    step = np.block(
        [
            [block, np.zeros((3, 6))],
            [2 * one, block, np.zeros((3, 3))],
            [both, one, block],
        ]
    )
    start = np.concatenate([[1.0, 1.0, quartic], np.zeros(6)])
    with np.errstate(over="ignore", invalid="ignore"):
        P, C, _ = (np.linalg.matrix_power(step, depth) @ start)[6:]
    # E ⟨c, u⟩²⟨c, v⟩²; E K is d times what one matrix adds, m2 n in these units
    total = (P + 2 * C) / (depth * m2 * n) ** 2
    return float(total) if math.isfinite(total) else math.inf


def _block(
    before: bool,
    n: int,
    scales: tuple[float, float],
    mask_moments: tuple[float, float],
    kurtosis: float,
) -> np.ndarray:
    """Return what a block does to (P, C, F), in the mean."""
    alpha, lam = scales
    m2, m4 = mask_moments
    P, C, F = np.eye(3)
    if before:
        # of D u and D v
        P_kept, C_kept = (m2**2 * part + (m4 - m2**2) * F for part in (P, C))
        same = P_kept + 2 * C_kept + (kurtosis - 3) * m4 * F
    else:
        P_kept, C_kept = m2**2 * P, m2**2 * C
        same = m4 * (P + 2 * C + (kurtosis - 3) * F)
    # sums over pairs of coordinates of branches, of weights of variance 1/(m2 n)
    of_F = same / (n * m2**2)
    of_P = of_F + (n - 1) / n * P_kept / m2**2
    of_C = of_F + (n - 1) / n * C_kept / m2**2

    cross = (alpha * lam) ** 2
    return np.stack(
        [
            alpha**4 * P + cross * (2 * P + 4 * C / n) + lam**4 * of_P,
            alpha**4 * C + cross * (2 * (P + C) / n + 2 * C) + lam**4 * of_C,
            alpha**4 * F + cross * (2 * P + 4 * C) / n + lam**4 * of_F,
        ]
    )


def _joins(
    before: bool, n: int, scales: tuple[float, float], mask_moments: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (P, C, F) after a block where one gradient joins, or two.

    By a matrix of what was before; the first takes the place of one of the vectors, the
    other goes through the block.
    """
    alpha, lam = scales
    m2, m4 = mask_moments
    P, _, F = np.eye(3)
    branch = lam**2 / (n * m2)
    kept = m2**2 * P + (m4 - m2**2) * F
    pairs = n * m4 + n * (n - 1) * m2**2
    if before:
        # ‖D u‖² ‖J v‖², of all unit vectors
        grown = alpha**2 * m2 * P + branch * n * kept
        return np.stack([n * grown, grown, grown]), np.outer([n**2, n, n], kept)
    # ‖u‖² Σ D_a², of D_a e_a
    along = (alpha**2 * m2 + branch * n * m4) * P
    one = np.stack([(alpha**2 * n * m2 + branch * pairs) * P, along, along])
    return one, np.outer([pairs, n * m4, n * m4], P)
