"""What the parameters of a model are over fresh initialisations: their moments, and a
few of their entries.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.auditing import declarations

_MOST = 2_000_000  # entries of one parameter that moments are of, spread evenly
_FEW = 2_000  # that are kept
_FIRST = 64  # of the beginning that are kept
_ANGLES = 8  # rows and columns whose angles are looked at
SMALLEST = 8  # entries that are not equal by chance


class Parameter(NamedTuple):
    """One parameter of one initialisation."""

    name: str
    values: np.ndarray
    fans: declarations.Fans | None  # of its layer, where it has one
    # what two names of one parameter have in common: then they are tied
    identity: int
    trained: bool = True
    layer: str = ""  # the class of its layer, where it is known


class Measured(NamedTuple):
    """One parameter over all initialisations."""

    name: str
    shape: tuple[int, ...]
    fans: declarations.Fans | None
    trained: bool
    layer: str
    tied: tuple[str, ...]  # its other names
    used: int  # entries of an initialisation that the moments are of
    mean: np.ndarray  # (draws,), and so the others
    variance: np.ndarray  # of an entry, about the mean
    low: np.ndarray
    high: np.ndarray
    repeated: np.ndarray  # whether all slices are equal, and not constant
    angle: np.ndarray  # the largest cosine of a few rows, or columns, times √length
    entries: np.ndarray  # (draws, few), spread evenly
    first: np.ndarray  # (draws, first)

    @property
    def constant(self) -> bool:
        """Whether all entries of each initialisation are equal; of one, in all."""
        equal = bool(np.all(self.low == self.high))
        return equal and (self.used != 1 or bool(np.all(self.low == self.low[0])))

    @property
    def same(self) -> bool:
        """Whether all initialisations are equal."""
        return len(self.entries) > 1 and bool(np.all(self.entries == self.entries[0]))

    @property
    def finite(self) -> bool:
        """Whether all entries are finite numbers."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    @property
    def pooled_mean(self) -> float:
        """The mean of all entries."""
        return float(self.mean.mean())

    @property
    def pooled_std(self) -> float:
        """The root mean square of all entries about their mean."""
        between = np.mean((self.mean - self.mean.mean()) ** 2)
        return float(np.sqrt(self.variance.mean() + between))

    @property
    def total(self) -> int:
        """How many entries the moments are of."""
        return self.used * len(self.mean)


class _Drawn(NamedTuple):
    """Numbers of one parameter of one initialisation."""

    used: int
    mean: float
    variance: float
    low: float
    high: float
    repeated: bool
    angle: float
    entries: np.ndarray
    first: np.ndarray


def measured(draws: Iterable[Sequence[Parameter]]) -> list[Measured]:
    """Return what parameters are over initialisations, of which one is held at a time.

    Raises:
        ValueError: for initialisations with other parameters.
    """
    names: dict[str, Parameter] = {}
    ties: dict[str, list[str]] = {}
    numbers: dict[str, list[_Drawn]] = {}
    for i, parameters in enumerate(draws):
        by_identity: dict[int, str] = {}
        for one in parameters:
            first = by_identity.setdefault(one.identity, one.name)
            if first != one.name:
                ties.setdefault(first, []).append(one.name)
                continue
            numbers.setdefault(one.name, []).append(_numbers(one.values))
            # all that is kept of it, for the first
            shape = np.broadcast_to(np.float32(0), np.shape(one.values))
            names.setdefault(one.name, one._replace(values=shape))
        seen = set(by_identity.values())
        same = seen == set(names)
        allowed = f"those of the first: {', '.join(names)}"
        checks.require(same, f"parameters of initialisation {i}", sorted(seen), allowed)

    found = []
    for name, one in names.items():
        columns = [np.array(column) for column in zip(*numbers[name], strict=True)]
        used, *rest = columns
        tied = tuple(dict.fromkeys(ties.get(name, ())))
        found.append(
            Measured(
                name,
                one.values.shape,
                one.fans,
                one.trained,
                one.layer,
                tied,
                int(used[0]),
                *rest,
            )
        )
    return found


def _numbers(values: np.ndarray) -> _Drawn:
    """Return the numbers of one parameter; complex ones as pairs of real ones."""
    if np.iscomplexobj(values):
        values = np.stack([values.real, values.imag], axis=-1)
    flat = values.ravel()
    if flat.size == 0:
        nothing = np.zeros(0)
        return _Drawn(0, 0.0, 0.0, 0.0, 0.0, False, 0.0, nothing, nothing)
    low, high = float(flat.min()), float(flat.max())
    some = _spread(flat, _MOST, values.shape[-1] if values.ndim else 1)
    some = some.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        mean, variance = float(some.mean()), float(some.var())
    few = _spread(flat, _FEW, values.shape[-1] if values.ndim else 1)
    return _Drawn(
        some.size,
        mean,
        variance,
        low,
        high,
        _repeated(values),
        _angle(values),
        few.astype(np.float64),
        flat[:_FIRST].astype(np.float64),
    )


def _repeated(values: np.ndarray) -> bool:
    """Return whether all slices along the first axis are equal, and not constant."""
    if values.ndim < 2 or len(values) < 2 or values[0].size < SMALLEST:
        return False
    constant = values[0].min() == values[0].max()
    if constant or not np.array_equal(values[0], values[1]):
        return False
    return bool(np.all(values == values[:1]))


def _angle(values: np.ndarray) -> float:
    """Return the largest cosine of a few rows, or of columns, times √their length.

    Of the matrix (…, last), or (first, …), whichever is nearest to orthogonal; about 2
    for independent entries.
    """
    if values.ndim < 2 or min(values.shape) < 1:
        return 0.0
    angles = []
    for M in (
        values.reshape(-1, values.shape[-1]),
        values.reshape(values.shape[0], -1),
    ):
        for rows in (M[:_ANGLES], M[:, :_ANGLES].T):
            vectors = rows.astype(np.float64)
            norms = np.sqrt(np.sum(vectors**2, axis=1, keepdims=True))
            units = vectors / np.where(norms > 0, norms, 1)
            cosines = np.abs(units @ units.T - np.diag(np.sum(units**2, axis=1)))
            angles.append(float(np.max(cosines)) * rows.shape[1] ** 0.5)
    return min(angles)


def _spread(flat: np.ndarray, most: int, row: int) -> np.ndarray:
    """Return at most so many entries, spread over all rows and columns."""
    step = -(-flat.size // most)
    # a step that shares a factor with the length of a row sees the same columns
    while step > 1 and math.gcd(step, row) > 1:
        step += 1
    return flat[::step]
