"""How much gradients vary over initialisations, to first order in 1/width, in networks
whose layers are of many units alike.

Given what reaches a layer, its units are independent and alike: functions h(z) of
normal vectors z with covariance C(G), where G holds the overlaps ⟨x_i, x_j⟩/n of all
rows that are followed, tangents among them. So the next overlaps, means of h(z) h(z)ᵀ
over n units, have expectation T(G) and covariance V(G)/n; and since z is normal, the
derivative of T is the regression of h hᵀ on z zᵀ. From layer to layer the covariance of
overlaps is Σ/n, with Σ ← T' Σ T'ᵀ + V. Orthogonal weights keep z zᵀ: then V is what the
regression leaves.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special
from scipy.stats import qmc

LOG_UNITS, SEEDS = 16, 8  # expectations are over 2^16 units, as many times
RANK = 1e-9  # variance of products, relative, below which rows are one


class Unit(NamedTuple):
    """What a unit of a layer does to the nodes it sees: inputs, tokens or positions."""

    # (pieces, nodes) -> (nodes,), what a unit makes of its products
    function: Callable
    gain: float = 1.0
    bias_scale: float = 0.0
    pieces: int = 1  # how many products it has for each node
    # (taps, nodes, nodes): mixes nodes, before a matrix of each tap's own
    mixing: np.ndarray = np.ones((1, 1, 1))
    orthogonal: bool = False


def spread(
    unit: Unit, x: np.ndarray, u: np.ndarray | None, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return n·Var ln ‖J(x) u‖² after each layer, (depth,), and its standard error.

    Args:
        unit: of all layers.
        x: (nodes, n_0).
        u: (nodes, n_0); None: for ‖x‖² itself.
        depth: how many layers.

    Raises:
        ValueError: for orthogonal weights of several pieces or taps, or with biases.

    Source: derived; tests/test_network_experiments.py holds it against exact laws.
    """
    single = unit.pieces == len(unit.mixing) == 1 and unit.bias_scale == 0
    if unit.orthogonal and not single:
        raise ValueError("orthogonal weights: of one piece and tap, without biases")
    rows = (x if u is None else np.concatenate([x, u])).astype(np.float64)
    overlaps = rows @ rows.T / rows.shape[1]
    found = [
        _followed(unit, overlaps, len(x), depth, np.random.default_rng(seed))
        for seed in range(SEEDS)
    ]
    return np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / SEEDS**0.5


def _followed(unit, G, nodes: int, depth: int, rng) -> np.ndarray:
    """Return n·Var after each layer, with expectations over random units."""
    size = len(G)
    onto, biases = _covariance(unit, size, nodes)
    upper, whole = _halves(size)
    # of symmetric matrices, their upper halves
    varies = np.zeros((len(upper),) * 2)
    followed = (np.diag(np.arange(size) >= size - nodes)).ravel()[upper]
    found = []
    for _ in range(depth):
        # random units: their products, and what they make of them
        C = (onto @ G.ravel()).reshape(size, size) + biases
        L, inverse = _root(C)
        uniform = qmc.Sobol(unit.pieces * size, rng=rng).random_base2(LOG_UNITS)
        white = special.ndtri(uniform).reshape(-1, unit.pieces, size)
        h = _outputs(unit.function, white @ L.T, nodes)

        # from overlaps to the covariance of white products, and on to overlaps
        new, slope, noise = _regressed(
            _squares(h, upper), _squares(white, upper), unit.orthogonal
        )
        derivative = slope @ (np.kron(inverse, inverse)[upper] @ onto @ whole)
        varies = derivative @ varies @ derivative.T + noise
        G = (whole @ new).reshape(size, size)
        found.append(followed @ varies @ followed / (followed @ new) ** 2)
    return np.array(found)


def _covariance(unit, size: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the map from overlaps to the covariance of products, and what biases
    add.
    """
    each = [np.kron(np.eye(size // len(one)), one) for one in unit.mixing]
    onto = unit.gain * sum(np.kron(one, one) for one in each)
    biases = np.zeros((size, size))
    biases[:nodes, :nodes] = unit.bias_scale**2
    return onto, biases


def _halves(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the upper half of a matrix, and the map from it to a
    symmetric one.
    """
    i, j = np.triu_indices(size)
    whole = np.zeros((size, size, len(i)))
    whole[i, j, np.arange(len(i))] = whole[j, i, np.arange(len(i))] = 1
    return i * size + j, whole.reshape(size**2, -1)


def _root(C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return L with C = L Lᵀ and its inverse, both 0 where rows have become one."""
    # rows may be of very different sizes
    scale = np.sqrt(np.diag(C))
    scale = np.where(scale > 0, scale, 1)
    values, vectors = np.linalg.eigh(C / np.outer(scale, scale))
    root = np.sqrt(np.where(values > RANK * values[-1], values, 0))
    inverse = np.divide(1, root, out=np.zeros_like(root), where=root > 0)
    return scale[:, None] * vectors * root, (vectors * inverse).T / scale


def _outputs(function, z: np.ndarray, nodes: int) -> np.ndarray:
    """Return what units make of products (units, pieces, rows), and their derivatives
    of tangents, (units, rows).
    """
    parts = [jnp.asarray(part) for part in np.split(z, z.shape[-1] // nodes, axis=-1)]
    apply = jax.vmap(function)
    if len(parts) == 1:
        return np.asarray(apply(*parts), np.float64)
    both = jax.jvp(apply, parts[:1], parts[1:])
    return np.concatenate(both, axis=-1).astype(np.float64)


def _squares(rows: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return the upper halves of products of all pairs of rows, (…, units)."""
    i, j = np.divmod(upper, rows.shape[-1])
    columns = np.moveaxis(rows, 0, -1).copy()
    pairs = columns[..., i, :]
    pairs *= columns[..., j, :]
    return pairs.reshape(-1, len(rows))


def _regressed(
    seen: np.ndarray, pairs: np.ndarray, orthogonal: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, slope and covariance: of what is seen, of its regression on pairs
    summed over pieces, and of what is left if weights are orthogonal.
    """
    mean = seen.mean(1)
    seen -= mean[:, None]
    pairs -= pairs.mean(1)[:, None]
    normal = pairs @ pairs.T
    slope = np.linalg.solve(normal, pairs @ seen.T)
    noise = seen @ seen.T
    if orthogonal:
        noise -= slope.T @ normal @ slope
    per_piece = slope.reshape(-1, len(mean), len(mean))
    return mean, per_piece.sum(0).T, noise / seen.shape[1]
