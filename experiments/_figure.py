"""The look of all figures, and the only place that imports matplotlib."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

THEORY = "#1a1a1a"  # lines that theory draws
LIMIT = "0.55"  # of the limit law, where the exact one is drawn as well
MASK_MODEL = "#0072b2"
NETWORK = "#d55e00"
# Okabe & Ito
PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]

plt.rcParams.update(
    {
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 12,
        "figure.dpi": 110,
        "font.size": 11,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 1.5,
    }
)


def grid(layout, size: tuple[float, float]) -> tuple[Figure, dict]:
    """Return a figure of a size in inches and its axes by name, as in
    ``plt.subplot_mosaic``.
    """
    figure = plt.figure(figsize=size, layout="constrained")
    return figure, figure.subplot_mosaic(layout)


def shades(count: int) -> list:
    """Return colours for an ordered quantity, dark to light."""
    return list(plt.get_cmap("viridis")(np.linspace(0, 0.9, count)))


def entry(label: str, **style) -> Line2D:
    """Return a line that is only seen in a legend."""
    return Line2D([], [], label=label, **style)


def log_widths(axis, widths) -> None:
    """Put the widths on a logarithmic axis, as they are."""
    axis.set(xscale="log", xticks=widths, xticklabels=widths)
    axis.minorticks_off()


def save(figure: Figure, path: Path) -> None:
    """Write the figure and close it."""
    figure.savefig(path)
    plt.close(figure)
