"""Figures of laws and reports, for a paper or a notebook; with matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.probing.reports import Report
from lognorm_jax.tool import _predictions

__all__ = ["laws", "reports", "save"]

# Okabe & Ito
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MISSING = 'Figures need matplotlib: pip install "lognorm_jax[cli]"'


def _figure(columns: int, height: float) -> tuple[Any, Any]:
    """Return a figure of panels side by side, and their axes."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(_MISSING) from error
    figure = Figure(figsize=(5.2 * columns, height), dpi=130, layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def laws(found: Sequence[_predictions.Prediction]) -> Any:
    """Return a figure of densities and of quantiles, a colour for each shape.

    Args:
        found: of one shape or several, at least one, as the command ``law`` makes them.

    Returns:
        A figure of matplotlib.

    Raises:
        ValueError: for no prediction, and without matplotlib.
    """
    checks.require(len(found) > 0, "found", found, "at least one prediction")
    shapes = list(dict.fromkeys(one.shape for one in found))
    height = 3.4 + 0.22 * len(shapes)
    figure, (left, right) = _figure(2, height)
    for one in found:
        colour = _COLOURS[shapes.index(one.shape) % len(_COLOURS)]
        _density(left, one, colour)
    places = range(len(found))
    for place, one in zip(places, found, strict=True):
        colour = _COLOURS[shapes.index(one.shape) % len(_COLOURS)]
        _quantiles(right, place, one, colour)

    left.set(xlabel="log-norm, ln(‖Ju‖²/‖u‖²)", ylabel="density", ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    right.set(
        xlabel="log-norm: 5%, 25%, 50%, 75%, 95%",
        yticks=list(places),
        yticklabels=[f"{one.shape}\n{one.source}" for one in found],
        ylim=(len(found) - 0.5, -0.5),
    )
    right.tick_params(axis="y", labelsize=8)
    return figure


def _density(axis: Any, one: _predictions.Prediction, colour: str) -> None:
    """Draw the density of a law, or a histogram of samples."""
    label = f"{one.shape}, {one.source}"
    if one.law.samples is not None:
        alive = one.law.samples[np.isfinite(one.law.samples)]
        if len(alive) > 1:
            bins = np.histogram_bin_edges(alive, "fd")
            weights = np.full(
                len(alive), 1 / len(one.law.samples) / (bins[1] - bins[0])
            )
            style = {"color": colour, "alpha": 0.35, "label": label}
            axis.hist(alive, bins, weights=weights, **style)
        return
    spread = 4.5 * one.law.variance**0.5
    x = np.linspace(one.law.mean - spread, one.law.mean + 0.8 * spread, 400)
    line = "--" if one.source == "limit law" else "-"
    axis.plot(x, one.law.pdf(x), line, color=colour, label=label)


def _quantiles(
    axis: Any, place: int, one: _predictions.Prediction, colour: str
) -> None:
    """Draw the quantiles of a law as a line, a bar and a point."""
    low, lower, middle, upper, high = one.quantiles
    line = "--" if one.source == "limit law" else "-"
    axis.plot([low, high], [place, place], line, color=colour, lw=1.2)
    axis.plot([lower, upper], [place, place], color=colour, lw=5, alpha=0.5)
    axis.plot([middle], [place], "o", color=colour, ms=5)


# what reports are called, and their colour
_KINDS = {
    "activations": ("forward, activations", _COLOURS[2]),
    "jvp": ("forward, tangents", _COLOURS[0]),
    "vjp": ("backward, gradients from the output", _COLOURS[1]),
}


def reports(found: Mapping[str, Report]) -> Any:
    """Return a figure of what blocks do to norms: signal propagation.

    ln R of each block; the log-norm up to each block, in the direction that it runs;
    and the log-norms of all initialisations against the normal law of their mean and
    variance. Lines are means over initialisations, bands ± their standard deviation.

    Args:
        found: reports by kind, "activations", "jvp" or "vjp", of the same blocks, at
            least one; such as ``audits.Audit.reports``.

    Returns:
        A figure of matplotlib.

    Raises:
        ValueError: for no report, and without matplotlib.
    """
    checks.require(len(found) > 0, "found", found, "at least one report")
    for kind in found:
        checks.one_of("kind of a report", kind, tuple(_KINDS))
    names = next(iter(found.values())).names
    height = 4.0
    figure, (left, right, whole) = _figure(3, height)
    places = np.arange(len(names))
    for kind, report in found.items():
        label, colour = _KINDS[kind]
        mean = np.asarray(report.layers.mean.value)
        spread = np.sqrt(report.layers.variance.value)
        _band(left, places, mean, spread, colour, label)
        backwards = kind == "vjp"
        order = slice(None, None, -1) if backwards else slice(None)
        total = np.cumsum(mean[order])[order]
        # independent blocks: variances add
        wide = np.sqrt(np.cumsum(spread[order] ** 2))[order]
        _band(right, places, total, wide, colour, label)
        _against_normal(whole, report, colour)

    left.axhline(0, color="0.4", lw=0.8)
    right.axhline(0, color="0.4", lw=0.8)
    left.set(xlabel="block", ylabel="ln R, of squared norms")
    right.set(xlabel="block", ylabel="log-norm so far")
    whole.set(xlabel="log-norm (lines: normal laws)", ylabel="density", ylim=(0, None))
    few = places[:: max(1, len(places) // 12)]
    for axis in (left, right):
        axis.set_xticks(few, [names[place] for place in few], rotation=60, fontsize=7)
        axis.set_xticks(few)
    left.legend(frameon=False, fontsize=8)
    return figure


def _against_normal(axis: Any, report: Report, colour: str) -> None:
    """Draw log-norms, as a histogram or, where they are few, as marks; and a normal
    law.
    """
    alive = report.log_norms[np.isfinite(report.log_norms)]
    # of norms that are fixed there is nothing to see
    if len(alive) < 3 or np.std(alive) < 1e-3:
        return
    mean, sd = float(alive.mean()), float(alive.std(ddof=1))
    if len(alive) >= 100:
        axis.hist(alive, "fd", density=True, color=colour, alpha=0.3)
    else:
        axis.plot(alive, np.zeros(len(alive)), "|", color=colour, ms=14, clip_on=False)
    x = np.linspace(mean - 4 * sd, mean + 4 * sd, 200)
    density = np.exp(-(((x - mean) / sd) ** 2) / 2) / (sd * (2 * np.pi) ** 0.5)
    axis.plot(x, density, color=colour, lw=1.4)


def _band(axis: Any, x: Any, mean: Any, spread: Any, colour: str, label: str) -> None:
    """Draw a line of means in a band of ± one standard deviation."""
    axis.plot(x, mean, "o-", ms=3, lw=1.4, color=colour, label=label)
    axis.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, lw=0)


def require_file(name: str, path: str | Path) -> Path:
    """Require the name of a file, in a folder that is there.

    Raises:
        ValueError: for others.
    """
    place = Path(path)
    there = bool(place.name) and place.parent.is_dir() and not place.is_dir()
    checks.require(there, name, str(path), "a file in a folder that exists")
    return place


def require_writable(path: str | Path) -> None:
    """Require a file name in a folder that is there, of a format that is known.

    Raises:
        ValueError: for others, and without matplotlib.
    """
    figure, _ = _figure(1, 1.0)
    path = require_file("plot", path)
    known = figure.canvas.get_supported_filetypes()
    allowed = f"a name that ends in one of {', '.join(sorted(known))}"
    fits = path.suffix.removeprefix(".") in known
    checks.require(fits, "plot", str(path), allowed)


def save(figure: Any, path: str | Path) -> None:
    """Write a figure, in the format that its name ends in.

    Args:
        figure: of matplotlib, such as ``laws`` and ``reports`` return.
        path: a file, in a folder that is there.

    Raises:
        ValueError: for another folder or format, and without matplotlib.
        OSError: where it cannot be written.
    """
    require_writable(path)
    figure.savefig(path)
