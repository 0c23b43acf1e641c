"""Monotone maps that take a standard normal variable to a given law: Q = F⁻¹∘Φ,
tabulated.

For wide layers Q is nearly linear, and one polynomial does; for most others, one for
each quarter: no table look-up, which costs most next to the normal itself. Laws of
several bells get cubics.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.polynomial import chebyshev
from scipy import special

from lognorm_jax._tools import checks

REACH = 6.0  # maps are of [−6, 6]; P(|Z| > 6) = 2e-9
FEW = (1, 4)  # cells, with polynomials of one of these
_DEGREES = range(3, 16, 2)
_CELLS, _FINEST = 128, 1 << 17  # of cubics; and parts of one cell


class Smooth(Protocol):
    """What a law without an atom must have, as ``laws.Law``."""

    cdf: Callable
    quantile: Callable
    pdf: Callable


class Transport(NamedTuple):
    """Maps Q of [−6, 6], one a law: on ``cells`` equal cells, each in equal parts, a
    polynomial.

    A polynomial is in s ∈ [−1, 1] over its part, highest power first.
    """

    # (sum of parts, degree + 1): law after law, cell after cell
    coefficients: np.ndarray
    parts: np.ndarray  # (laws · cells,): how many parts a cell has, a power of 2
    cells: int  # of each law: 1, 4 or 128


def fit(laws: Sequence[Smooth], tolerance: float = 1e-6) -> Transport:
    """Return the map of each law F: |F(Q(z)) − Φ(z)| < tolerance/2, asserted on a fine
    grid.

    The other half is left to the rounding of float32. All laws get as many cells as the
    one that needs most, and cubics where polynomials will not do for it.

    tolerance: in [1e-9, 1]. Raises ``ValueError`` for others, for what is no law with a
    pdf, and for a law that cubics on 2¹⁷ parts of a cell do not follow so closely.
    """
    allowed = "a number in [1e-9, 1]"
    tolerance = float(checks.real("tolerance", tolerance, allowed))
    checks.require(1e-9 <= tolerance <= 1, "tolerance", tolerance, allowed)
    allowed = "a sequence of one or more laws, each with a cdf, a quantile and a pdf"
    listed = isinstance(laws, Sequence) and len(laws) > 0
    smooth = listed and all(
        callable(getattr(law, part, None))
        for law in laws
        for part in ("cdf", "quantile", "pdf")
    )
    checks.require(smooth, "laws", laws, allowed)
    for cells in FEW:
        rows = []
        for number, law in enumerate(laws):
            # else one law needs more cells, and so do all
            if len(rows) == cells * number:
                rows += _polynomials(law, tolerance / 2, cells)
        if len(rows) == cells * len(laws):
            size = max(map(len, rows))
            padded = [np.append(np.zeros(size - len(row)), row) for row in rows]
            return Transport(np.array(padded), np.ones(len(rows), np.int64), cells)
    tables, parts = zip(*(_cubics(law, tolerance) for law in laws), strict=True)
    return Transport(np.concatenate(tables), np.concatenate(parts), _CELLS)


def evaluator(
    maps: Transport, table: np.ndarray, dtype: Any
) -> Callable[[jax.Array], jax.Array]:
    """Return z (depth,) -> Q(z) in JAX, with entry i by the map of law ``table[i]``."""
    laws = len(maps.parts) // maps.cells
    table = table if table.any() else table[:1]
    columns = maps.coefficients.T.astype(dtype)
    parts, start = (
        maps.parts.astype(dtype),
        (np.cumsum(maps.parts) - maps.parts).astype(np.int32),
    )

    def evaluate(z):
        place = (jnp.clip(z * (1 / REACH), -1, 1) + 1) * (maps.cells / 2)
        cell = jnp.clip(jnp.floor(place), 0, maps.cells - 1)
        place = place - cell
        if maps.cells in FEW:
            # (…, depth, cells)
            chosen = columns.reshape(-1, laws, maps.cells)[:, table]
            rows = jnp.asarray(chosen[..., 0])
            for i in range(1, maps.cells):
                rows = jnp.where(cell >= i, chosen[..., i], rows)
        else:
            row = cell.astype(jnp.int32) + maps.cells * table
            # without barriers, each of the look-ups would compute the normals again
            place, row = lax.optimization_barrier((place, row))
            place, row = place * jnp.asarray(parts)[row], jnp.asarray(start)[row]
            part = jnp.floor(place)
            place, row = lax.optimization_barrier(
                (place - part, row + part.astype(jnp.int32))
            )
            rows = [jnp.asarray(column)[row] for column in columns]
        value, s = rows[0], 2 * place - 1
        for coefficient in rows[1:]:
            value = value * s + coefficient
        return value

    return evaluate


def _polynomials(law: Smooth, bound: float, cells: int) -> list[np.ndarray]:
    """Return the polynomial of each cell, highest power first; fewer where one will not
    do.
    """
    s, fine = np.cos(np.pi * (np.arange(400) + 0.5) / 400), np.linspace(-1, 1, 2001)
    half, found = REACH / cells, []
    peak = law.pdf(law.quantile(special.ndtr(np.linspace(-REACH, REACH, 401)))).max()
    for middle in np.arange(1 - cells, cells, 2) * half:
        value = law.quantile(special.ndtr(middle + half * s))
        # an error of Q matters as much as it moves F; in the tails a little
        weight = np.maximum(law.pdf(value), 1e-3 * peak)
        for degree in _DEGREES:
            row = chebyshev.cheb2poly(chebyshev.chebfit(s, value, degree, w=weight))[
                ::-1
            ]
            image = np.polyval(row, fine)
            error = np.abs(law.cdf(image) - special.ndtr(middle + half * fine)).max()
            if error < bound and np.all(np.diff(image) > 0):
                found.append(row)
                break
        else:
            return found
    return found


def _cubics(law: Smooth, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return cubics on 128 cells, (sum of parts, 4), and the parts of each, halved as
    needed.

    Hermite cubics, with slopes limited so that they are monotone (Fritsch & Carlson
    1980) where F is all but flat, between two bells.
    """
    edges, parts = np.linspace(-REACH, REACH, _CELLS + 1), np.ones(_CELLS, np.int64)
    while parts.max() <= _FINEST:
        inner = [
            np.linspace(a, b, k, endpoint=False)
            for a, b, k in zip(edges[:-1], edges[1:], parts, strict=True)
        ]
        z = np.append(np.concatenate(inner), REACH)
        value, h = law.quantile(special.ndtr(z)), np.diff(z) / 2
        rise = np.diff(value) / 2
        steepest = 3 * np.minimum(
            np.append(rise / h, np.inf), np.append(np.inf, rise / h)
        )
        with np.errstate(divide="ignore"):
            slope = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) / law.pdf(value)
        slope = np.clip(slope, 0, steepest)
        middle, turn = (value[:-1] + value[1:]) / 2, np.diff(slope) * h / 4
        skew = (slope[:-1] + slope[1:]) * h / 4 - rise / 2
        cubics = np.stack([skew, turn, rise - skew, middle - turn])
        s = np.linspace(-0.75, 0.75, 5)[:, None]
        exact = special.ndtr((z[:-1] + z[1:]) / 2 + s * h)
        error = np.abs(law.cdf(np.polyval(cubics[:, None], s)) - exact).max(0)
        worst = np.maximum.reduceat(error, np.append(0, np.cumsum(parts)[:-1]))
        if worst.max() < tolerance / 2:
            return cubics.T, parts
        parts[worst >= tolerance / 2] *= 2
    reached = f"above {2 * worst.max():.1g}, which is what a table of this law reaches"
    checks.require(False, "tolerance", tolerance, reached)
