"""The look of all figures, and the only place that imports matplotlib."""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

THEORY = "#1a1a1a"  # lines that theory draws
LIMIT = "0.55"  # of the limit law, where the exact one is drawn as well
MASK_MODEL = "#0072b2"
NETWORK = "#d55e00"
PANELS = 3
COLORS = 128  # of a file: a third of the bytes
# Okabe & Ito
PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]

plt.rcParams.update(
    {
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 14,
        "figure.dpi": 110,
        # read at half size on a page
        "font.size": 14,
        "grid.alpha": 0.25,
        "legend.fontsize": 12,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
    }
)


def grid(layout, size: tuple[float, float]) -> tuple[Figure, dict]:
    """Return a figure of a size in inches and its axes by name, as in
    ``plt.subplot_mosaic``; at most three, to be read at half size.
    """
    panels = {name for row in layout for name in row}
    if len(panels) > PANELS:
        raise ValueError(f"layout has {len(panels)} panels: must be at most {PANELS}")
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
    """Write the figure, in as many colours as it needs and no more, and close it."""
    whole = io.BytesIO()
    figure.savefig(whole, format="png")
    plt.close(figure)
    with Image.open(whole) as image:
        image.convert("RGB").quantize(COLORS).save(path, format="png", optimize=True)
