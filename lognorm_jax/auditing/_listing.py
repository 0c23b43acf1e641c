"""The listing of a model: its modules as a tree, with numbers beside each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lognorm_jax._tools import tables
from lognorm_jax.auditing._parameters import Measured
from lognorm_jax.probing.reports import Report

Tree = dict[str, Any]  # name of a part -> its tree; "" -> the parameter that it is


def lines(parameters: Sequence[Measured], reports: Mapping[str, Report]) -> list[str]:
    """Return the modules of a model, indented, with sd and ln R beside them."""
    tree: Tree = {}
    for one in parameters:
        place = tree
        for step in one.name.split("."):
            place = place.setdefault(step, {})
        place[""] = one
    ratios = _ratios(reports)
    rows = list(_rows(tree, "", 0, ratios))
    head = ("module", "numbers", "sd", *(f"ln R, {kind}" for kind in reports))
    return tables.columns([head, *rows])


def _ratios(reports: Mapping[str, Report]) -> dict[str, tuple[str, ...]]:
    """Return the means of ln R of each block, by its path."""
    found: dict[str, list[str]] = {}
    for report in reports.values():
        for name, mean in zip(report.names, report.layers.mean.value, strict=True):
            # reports may number the layers, and name indices in brackets
            path = name.split(": ")[-1].split(", ")[0]
            path = path.replace("[", ".").replace("]", "")
            found.setdefault(path, []).append(f"{mean:.3f}")
    return {path: tuple(cells) for path, cells in found.items()}


def _rows(
    tree: Tree, path: str, depth: int, ratios: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a part, and of what is in it."""
    columns = max(map(len, ratios.values()), default=0)
    for name, inside in tree.items():
        if name == "":
            continue
        place = f"{path}.{name}" if path else name
        one = inside.get("")
        sd = ""
        if one is not None:
            sd = "constant" if one.constant else f"{one.pooled_std:.4g}"
        cells = ratios.get(place, ("",) * columns)
        yield f"{'  ' * depth}{name}", f"{_count(inside):,}", sd, *cells
        yield from _rows(inside, place, depth + 1, ratios)


def _count(tree: Tree) -> int:
    """Return how many numbers are in a part."""
    total = 0
    for name, inside in tree.items():
        if name == "":
            size = 1
            for side in inside.shape:
                size *= side
            total += size
        else:
            total += _count(inside)
    return total
