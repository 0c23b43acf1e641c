"""Text in columns."""

from collections.abc import Sequence


def columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of cells, each column as wide as it needs to be.

    >>> columns([["a", "bcd", "e"], ["fg", "h", ""]])
    ['a   bcd  e', 'fg  h']
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]
