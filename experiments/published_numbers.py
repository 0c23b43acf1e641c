"""Numbers that others published are the numbers of this library, within what each of
them is worth.

Expected: sixty-four numbers from papers, slides and public code, each with its source
and with what it may be off by, and why: the rounding of its last digit, a sample's
error, or an order in 1/width that is left out (``experiments/_published.py``). Those of
the library agree with all but nine, of which the reason is told: three slips, four
approximations and two conventions. Ours are exact but for five, which are sampled. An
error of a fifth in any of ours makes its row fail.

Found: fifty-five numbers are those of the library. Of nine that are not, three are
slips: the slides of the talk print a drift of the wrong sign and leave out a root, and
public code has a decimal point of a critical bias (SWISH) one place off. exp(5β) for
the tangent kernel is 1.66 times too large at β = 0.49, and the theorem's rate of
convergence is a bound: the distance falls as n^(−1.01), not n^(−0.2).

Figure: distance of each published number from ours, in units of what it may be off by.
Time: 1 minute on two CPU cores; --quick 20 s.
Command: python -m experiments published_numbers
"""

import functools
import textwrap

import jax
import numpy as np

from experiments import _check, _figure, _published
from lognorm_jax import sampling

NUMBERS = _published.NUMBERS
AGREES, OFF = "(ours − published)/allowed", "off: ours/published"
SUBJECTS = (
    "law",
    "residual",
    "scales",
    "angles",
    "spectra",
    "kernels",
    "constants",
    "gains",
)
PANELS = {
    "laws, residual networks, scales": ("law", "residual", "scales"),
    "angles, spectra, kernels, constants": (
        "angles",
        "spectra",
        "kernels",
        "constants",
    ),
    "activations": ("gains",),
}


def compute(job) -> dict[str, np.ndarray]:
    """Compute each number, or sample it."""
    samples = {}
    for case, (path, full, quick, block_size) in _published.sampled().items():
        engine = functools.partial(sampling.sample, block_size=block_size)
        count = job.count(full, quick)
        samples[case] = job.sample(case, path, count, engine=engine)
    draw_weights = jax.nn.initializers.lecun_normal()
    drawn = draw_weights(job.key("lecun_normal"), _published.LECUN_SHAPE)
    samples["lecun_normal"] = np.asarray(drawn)

    ours = []
    for number in NUMBERS:
        found = number.ours(samples)
        ours.append(found if isinstance(found, tuple) else (found, 0.0))
        job.tick(number.name)
    return {"ours": np.array(ours, np.float64)}


def unit(number: _published.Number) -> float:
    """Return what a number is measured in: what it may be off by, or a twentieth of it
    where only sampling tells.
    """
    return number.allowance or abs(number.value) / 20


def check(results) -> list[_check.Row]:
    """Hold ours against theirs, in units of what theirs may be off by."""
    rows = []
    for number, (ours, error) in zip(NUMBERS, results["ours"], strict=True):
        told = f"{ours:.8g}, published {number.value:.8g}"
        case = f"{number.subject}: {number.name}: {told}"
        if number.off:
            label = f"{case}; {number.off}"
            rows.append(_check.show(label, OFF, ours / number.value))
            continue
        scale = unit(number)
        distance = (ours - number.value) / scale, error / scale
        allowed = number.allowance / scale
        rows.append(_check.agree(case, AGREES, *distance, 0.0, allowed))
    return rows


def draw(results):
    """Draw how far each number is off, by subject."""
    figure, axes = _figure.grid([[*PANELS]], (19, 14))
    color = dict(zip(SUBJECTS, _figure.shades(len(SUBJECTS)), strict=True))
    pairs = list(zip(NUMBERS, results["ours"], strict=True))
    for title, subjects in PANELS.items():
        shown = [pair for pair in pairs if pair[0].subject in subjects]
        axis = axes[title]
        for place, (number, found) in enumerate(shown):
            _draw_number(axis, place, number, found, color[number.subject])
        axis.axvspan(-1, 1, color="0.93", zorder=0)
        axis.axvline(0, color=_figure.THEORY, lw=0.8, zorder=1)
        axis.set(
            title=title,
            xlabel="ours − published,\nover what is allowed",
            xlim=(-1.6, 1.6),
            xticks=(-1, 0, 1),
            ylim=(len(shown) - 0.4, -0.6),
            yticks=np.arange(len(shown)),
        )
        axis.set_yticklabels([_label(number) for number, _ in shown], fontsize=11)
    return figure


def _draw_number(axis, place: int, number, found, color) -> None:
    """Draw one number: a point in units of its allowance, or that it is off."""
    ours, error = found
    if number.off:
        text = f"{ours:.3g}, not {number.value:.3g}:\n{number.off.split(':')[0]}"
        style = {"fontsize": 11, "color": _figure.NETWORK, "ha": "center"}
        box = {"facecolor": "0.93", "edgecolor": "none", "pad": 0}
        axis.text(0, place, text, va="center", bbox=box, **style)
        return
    scale = unit(number)
    distance, spread = (ours - number.value) / scale, 2 * error / scale
    style = {"fmt": "o", "ms": 7, "color": color, "capsize": 4}
    axis.errorbar(distance, place, xerr=spread or None, **style)


def _label(number: _published.Number) -> str:
    """Return name and source, as short as can be told apart."""
    source = number.source.split(";")[0]
    return f"{number.name}\n{textwrap.shorten(source, 40, placeholder=' …')}"
