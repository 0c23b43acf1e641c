"""Transformers at infinite width, with infinitely many wide heads: recursions of the
overlaps of tokens, ⟨x_i, x_j⟩/width, and of tangents.

For pre-norm blocks of full attention and ReLUs with He's factor left out: all linear
maps have variance 1/n_in.
"""

import math

import numpy as np

HEADS = 20_000  # random ones, over which attention is averaged


def recursion(overlaps: np.ndarray, blocks: int, seed: int) -> np.ndarray:
    """Return ln E‖J u‖²/‖u‖² after each block, for a tangent apart from the tokens.

    Scores of one head are jointly normal, and so are their derivatives: with S and T
    the roots of the normalised overlaps C̃ of tokens and Ũ of tangents, g = S Z Sᵀ and
    dg = T Z' Sᵀ + S Z'' Tᵀ. Attention A = softmax(g) takes C to C + E A C̃ Aᵀ and U to
    U + E A Ũ Aᵀ + E dA C̃ dAᵀ, whose last term is that of the derivative of the weights;
    a ReLU layer adds its arc-cosine kernels. E is over ``HEADS`` heads.

    Args:
        overlaps: (tokens, tokens), of the input.
        blocks: how many.
        seed: of the heads.

    Source: derived; held against networks by this experiment.
    """
    rng = np.random.default_rng(seed)
    C, U = overlaps, np.eye(len(overlaps))
    logs = []
    for _ in range(blocks):
        C, U = _attended(*_normalised(C, U), C, U, rng)
        C, U = _activated(*_normalised(C, U), C, U)
        logs.append(math.log(np.trace(U) / len(U)))
    return np.array(logs)


def _normalised(C: np.ndarray, U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return overlaps of normalised tokens, and of what tangents become there."""
    size = np.sqrt(np.outer(np.diag(C), np.diag(C)))
    return C / size, U / size


def _attended(tokens, tangents, C, U, rng) -> tuple[np.ndarray, np.ndarray]:
    """Return overlaps after attention."""
    S, T = _root(tokens), _root(tangents)
    n = len(C)
    more_C, more_U = np.zeros((2, n, n))
    parts = 10
    for _ in range(parts):
        Z = rng.normal(size=(3, HEADS // parts, n, n))
        A = _softmax(S @ Z[0] @ S.T)
        dg = T @ Z[1] @ S.T + S @ Z[2] @ T.T
        dA = A * (dg - np.sum(A * dg, axis=-1, keepdims=True))
        more_C += _mixed(A, tokens) / parts
        more_U += (_mixed(A, tangents) + _mixed(dA, tokens)) / parts
    return C + more_C, U + more_U


def _activated(tokens, tangents, C, U) -> tuple[np.ndarray, np.ndarray]:
    """Return overlaps after a layer of ReLUs: E φ(a)φ(b) and E φ'(a)φ'(b)."""
    rho = np.clip(tokens, -1, 1)
    angle = np.pi - np.arccos(rho)
    values = (np.sqrt(1 - rho**2) + rho * angle) / (2 * np.pi)
    return C + values, U + angle / (2 * np.pi) * tangents


def _mixed(A: np.ndarray, overlaps: np.ndarray) -> np.ndarray:
    """Return the mean over heads of A overlaps Aᵀ."""
    return np.mean(A @ overlaps @ A.swapaxes(1, 2), axis=0)


def _root(M: np.ndarray) -> np.ndarray:
    """Return R with R Rᵀ = M, positive semidefinite."""
    values, vectors = np.linalg.eigh(M)
    return vectors * np.sqrt(np.clip(values, 0, None))


def _softmax(scores: np.ndarray) -> np.ndarray:
    """Return weights over the last axis."""
    sizes = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return sizes / sizes.sum(axis=-1, keepdims=True)


def published(tokens: int, overlap: float, blocks: int) -> np.ndarray:
    """Return ln of the mean squared Jacobian norm after each block, for many tokens.

    Without the derivative of the attention's weights, which are averaged over scores
    one by one.

    Source: Cowsik, Nebabu, Qi & Ganguli (2024), arXiv:2403.02579.
    """
    q, p, log = 1.0, overlap, 0.0
    logs = []
    for _ in range(blocks):
        # attention
        rho = p / q
        others, across = (
            (tokens - 1) * math.exp(size * (rho - 1)) for size in (1.0, rho)
        )
        log += math.log1p(1 / (q * (1 + others)))
        q += (1 + rho * others) / (1 + others)
        p += (1 + rho * across) / (1 + across)

        # ReLUs
        rho = p / q
        log += math.log1p(0.5 / q)
        p += (math.sqrt(1 - rho**2) + rho * (math.pi - math.acos(rho))) / (2 * math.pi)
        q += 0.5
        logs.append(log)
    return np.array(logs)
