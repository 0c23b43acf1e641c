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

    @property
    def cdf(self) -> Callable: ...
    @property
    def quantile(self) -> Callable: ...
    @property
    def pdf(self) -> Any: ...  # None for a law without one


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
    """Return the map of each law F: |F(Q(z)) − Φ(z)| < tolerance/2 on a fine grid.

    The other half is left to the rounding of float32. All laws get as many cells as the
    one that needs most, and cubics where polynomials will not do for it.

    Args:
        laws: one or more, each with a cdf, a quantile and a pdf.
        tolerance: in [1e-9, 1].

    Raises:
        ValueError: for others, for what is no law with a pdf, and for a law that cubics
            on 2¹⁷ parts of a cell do not follow so closely.
    """
    tolerance = checks.number("tolerance", tolerance, "[1e-9, 1]")
    parts = "cdf", "quantile", "pdf"
    smooth = (isinstance(laws, Sequence) and len(laws) > 0) and all(
        callable(getattr(law, part, None)) for law in laws for part in parts
    )
    allowed = "a sequence of one or more laws, each with a cdf, a quantile and a pdf"
    checks.require(smooth, "laws", laws, allowed)
    for cells in FEW:
        rows = _all_polynomials(laws, tolerance / 2, cells)
        if rows is not None:
            return Transport(rows, np.ones(len(rows), np.int64), cells)
    tables, counts = zip(*(_cubics(law, tolerance) for law in laws), strict=True)
    return Transport(np.concatenate(tables), np.concatenate(counts), _CELLS)


def tables(
    maps: Transport, table: np.ndarray, dtype: jax.typing.DTypeLike
) -> tuple[jax.typing.ArrayLike, ...]:
    """Return the arrays by which ``evaluate`` takes entry i by the map of law
    ``table[i]``.
    """
    table = table if table.any() else table[:1]
    columns = maps.coefficients.T.astype(dtype)
    if maps.cells in FEW:
        # (coefficients, depth, cells) -> (cells, coefficients, depth)
        chosen = columns.reshape(len(columns), -1, maps.cells)[:, table]
        return (np.moveaxis(chosen, -1, 0),)
    start = (np.cumsum(maps.parts) - maps.parts).astype(np.int32)
    return columns, maps.parts.astype(dtype), start, table


def evaluate(
    cells: int, arrays: tuple[jax.typing.ArrayLike, ...], z: jax.Array
) -> jax.Array:  # (depth,)
    """Return Q(z) of a normal variable for each layer, (depth,).

    Args:
        cells: of the maps.
        arrays: what ``tables`` returns of them.
        z: (depth,).
    """
    choose: Callable = _by_selection if cells in FEW else _by_look_up
    place = (jnp.clip(z * (1 / REACH), -1, 1) + 1) * (cells / 2)
    cell = jnp.clip(jnp.floor(place), 0, cells - 1)
    place, rows = choose(cells, *arrays, place - cell, cell)
    s = 2 * place - 1
    value = rows[0]
    for coefficient in rows[1:]:
        value = value * s + coefficient
    return value


def _by_selection(
    cells: int, chosen: jax.Array, place: jax.Array, cell: jax.Array
) -> tuple[jax.Array, Any]:
    """Return the place, and the coefficients of each layer, for few cells."""
    rows = chosen[0]
    for i in range(1, cells):
        rows = jnp.where(cell >= i, chosen[i], rows)
    return place, rows


def _by_look_up(
    cells: int,
    columns: jax.Array,
    parts: jax.Array,
    start: jax.Array,
    table: jax.Array,
    place: jax.Array,
    cell: jax.Array,
) -> tuple[jax.Array, Any]:
    """Return the place in its part of a cell, and the coefficients of each layer."""
    # without barriers, each of the look-ups would compute the normals again
    row = cell.astype(jnp.int32) + cells * table
    place, row = lax.optimization_barrier((place, row))
    place = place * parts[row]
    part = jnp.floor(place)
    row = start[row] + part.astype(jnp.int32)
    place, row = lax.optimization_barrier((place - part, row))
    return place, [column[row] for column in columns]


def _all_polynomials(
    laws: Sequence[Smooth], bound: float, cells: int
) -> np.ndarray | None:
    """Return a row for each cell of each law, of one degree, if polynomials do."""
    rows: list[np.ndarray] = []
    for law in laws:
        of_law = _polynomials(law, bound, cells)
        if len(of_law) < cells:
            return None
        rows += of_law
    size = max(map(len, rows))
    return np.array([np.append(np.zeros(size - len(row)), row) for row in rows])


def _polynomials(law: Smooth, bound: float, cells: int) -> list[np.ndarray]:
    """Return the polynomial of each cell; fewer where one will not do."""
    half = REACH / cells
    peak = law.pdf(law.quantile(special.ndtr(np.linspace(-REACH, REACH, 401)))).max()
    rows: list[np.ndarray] = []
    for middle in np.arange(1 - cells, cells, 2) * half:
        row = _polynomial(law, bound, middle, half, peak)
        if row is None:
            break
        rows.append(row)
    return rows


def _polynomial(
    law: Smooth, bound: float, middle: float, half: float, peak: float
) -> np.ndarray | None:
    """Return the polynomial of one cell, highest power first, of least degree."""
    s = np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    value = law.quantile(special.ndtr(middle + half * s))
    # an error of Q matters as much as it moves F; in the tails a little
    weight = np.maximum(law.pdf(value), 1e-3 * peak)
    fine = np.linspace(-1, 1, 2001)
    wanted = special.ndtr(middle + half * fine)
    for degree in _DEGREES:
        series = chebyshev.chebfit(s, value, degree, w=weight)
        row = chebyshev.cheb2poly(series)[::-1]
        image = np.polyval(row, fine)
        error = np.abs(law.cdf(image) - wanted).max()
        if error < bound and np.all(np.diff(image) > 0):
            return row
    return None


def _cubics(law: Smooth, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return cubics on 128 cells, (sum of parts, 4), and the parts of each.

    Parts are halved where they do not follow the law.
    """
    edges = np.linspace(-REACH, REACH, _CELLS + 1)
    parts = np.ones(_CELLS, np.int64)
    s = np.linspace(-0.75, 0.75, 5)[:, None]
    while parts.max() <= _FINEST:
        inner = [
            np.linspace(low, high, count, endpoint=False)
            for low, high, count in zip(edges[:-1], edges[1:], parts, strict=True)
        ]
        z = np.append(np.concatenate(inner), REACH)
        cubics = _hermite(law, z)

        # where they are wrong
        middle = (z[:-1] + z[1:]) / 2
        exact = special.ndtr(middle + s * np.diff(z) / 2)
        error = np.abs(law.cdf(np.polyval(cubics[:, None], s)) - exact).max(0)
        worst = np.maximum.reduceat(error, np.append(0, np.cumsum(parts)[:-1]))
        if worst.max() < tolerance / 2:
            return cubics.T, parts
        parts[worst >= tolerance / 2] *= 2
    reached = f"above {2 * worst.max():.1g}, which is what a table of this law reaches"
    checks.require(False, "tolerance", tolerance, reached)
    raise AssertionError  # for the type checker


def _hermite(law: Smooth, z: np.ndarray) -> np.ndarray:  # (4, parts)
    """Return the cubic on each part between points z, highest power first.

    Hermite cubics, with slopes limited so that they are monotone (Fritsch & Carlson
    1980) where F is all but flat, between two bells.
    """
    value = law.quantile(special.ndtr(z))
    half = np.diff(z) / 2
    rise = np.diff(value) / 2
    left = np.append(rise / half, np.inf)
    right = np.append(np.inf, rise / half)
    with np.errstate(divide="ignore"):
        slope = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) / law.pdf(value)
    slope = np.clip(slope, 0, 3 * np.minimum(left, right))
    middle = (value[:-1] + value[1:]) / 2
    turn = np.diff(slope) * half / 4
    skew = (slope[:-1] + slope[1:]) * half / 4 - rise / 2
    return np.stack([skew, turn, rise - skew, middle - turn])
