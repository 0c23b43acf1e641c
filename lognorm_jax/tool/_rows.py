"""Rows of a printed table: what, how much, and where the number comes from."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from lognorm_jax._tools import tables


class Row(NamedTuple):
    """One number and its source."""

    quantity: str
    value: Any
    source: str
    interval: tuple | None = None  # 95%
    simulated: Any = None  # the share of sampled networks that is unstable


def table(rows: Iterable[Row]) -> list[str]:
    """Return the lines of rows, in columns."""
    cells = [(row.quantity, _value(row), _source(row)) for row in rows]
    return tables.columns(cells)


def number(value: Any) -> str:
    """Return a number in a few digits; text as it is."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _value(row: Row) -> str:
    text = number(row.value)
    if row.interval is not None:
        low, high = map(number, row.interval)
        text += f" [{low}, {high}]"
    return text


def _source(row: Row) -> str:
    if row.simulated is None:
        return row.source
    return f"{row.source}; simulated {row.simulated:.1%} unstable"
