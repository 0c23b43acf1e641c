"""A museum of initialisation mistakes: an audit finds each, passes its corrected form,
and gives no false alarm on forty healthy architectures.

Expected: 19 mistakes that were made in public code (``_mistakes``, with their threads)
are found by 4 initialisations, each with the words of its likely cause, and none is
found in the corrected forms. Of 40 healthy architectures (``_healthy``) × 10 seeds none
has a finding: the level is 1e-6 an audit. The sd that parameters are measured to have
are off by their standard errors, of mean 0 and sd 1.

Found: all nineteen mistakes, with the words of their likely cause, and nothing in their
corrected forms nor in 400 audits of forty healthy architectures.

Figure: initialisation mistakes of public code, found by their standard deviation or
otherwise; errors of healthy ones.
Time: 40 s on two CPU cores; --quick 25 s.
Command: python -m experiments museum
"""

import math

import jax
import numpy as np

from experiments import _check, _figure
from experiments._healthy import HEALTHY
from experiments._mistakes import MISTAKES, Mistake
from lognorm_jax import audits, declarations, summaries

INITIALISATIONS = 4
SEEDS, QUICK_SEEDS = 10, 1
NAMED = ("measured over declared sd", "audits with a finding")


def compute(job) -> dict:
    """Audit mistakes, their corrected forms, and healthy architectures."""
    results: dict = {name: [] for name in ("wrong", "right", "ratios")}
    for mistake in MISTAKES:
        wrong = _audit(mistake.wrong, mistake.declaration, job.key("wrong"))
        right = _audit(mistake.right, mistake.declaration, job.key("right"))
        told = any(mistake.words in str(finding) for finding in wrong.findings)
        results["wrong"].append(told)
        results["right"].append(len(right.findings))
        results["ratios"].append([_ratio(wrong), _ratio(right)])

    seeds = job.count(SEEDS, QUICK_SEEDS)
    alarms, scores = [], []
    for healthy in HEALTHY:
        for seed in range(seeds):
            key = jax.random.fold_in(job.key(healthy.name), seed)
            found = _audit(healthy.model, healthy.declaration, key)
            alarms.append(len(found.findings))
            scores += _scores(found)
    results |= {"alarms": alarms, "scores": scores}
    return {name: np.array(values) for name, values in results.items()}


def _audit(model, declaration, key) -> audits.Audit:
    """Return the audit of parameters alone."""
    options = {"declaration": declaration, "num_seeds": INITIALISATIONS}
    return audits.audit(model, key=key, **options)


def _declared(audit: audits.Audit):
    """Yield parameters of a declared sd, and this sd."""
    for one in audit.parameters:
        law = declarations.of_name(audit.declaration, one.name)
        std = None if law is None else law.std(one.fans)
        if law is not None and law.kind != "constant" and std and one.used > 1:
            yield one, law, std


def _ratio(audit: audits.Audit) -> float:
    """Return the measured sd over the declared one, the farthest from 1; NaN of
    none.
    """
    ratios = [one.pooled_std / std for one, _, std in _declared(audit)]
    ratios = [ratio for ratio in ratios if ratio > 0]
    return max(ratios, key=lambda ratio: abs(math.log(ratio)), default=math.nan)


def _scores(audit: audits.Audit) -> list[float]:
    """Return how far measured variances are off, in standard errors."""
    scores = []
    for one, law, std in _declared(audit):
        kurtosis = declarations.KURTOSIS[law.kind]
        square = (one.pooled_std**2 + one.pooled_mean**2) / std**2
        if one.total >= 1_000:
            scores.append((square - 1) * math.sqrt(one.total / (kurtosis - 1)))
    return scores


def check(results) -> list[_check.Row]:
    """Ask for every mistake, no corrected form, and no false alarm."""
    rows = []
    for i, mistake in enumerate(MISTAKES):
        found = float(results["wrong"][i]), 0.0, 1.0
        rows.append(_check.agree(mistake.title, "found", *found))
        corrected = float(results["right"][i]), 0.0, 0.0
        rows.append(_check.agree(mistake.title, "corrected: findings", *corrected))
    count = len(results["alarms"])
    case = f"{len(HEALTHY)} architectures, {count} audits"
    alarms = float(np.sum(results["alarms"] > 0)), 0.0, 0.0
    rows.append(_check.agree(case, NAMED[1], *alarms))
    mean, variance, _ = summaries.estimate(results["scores"])
    rows.append(_check.agree(case, "mean of errors over s.e.", *mean, 0.0))
    rows.append(_check.resolve(case, "their variance", *variance, 1.0))
    return rows


def draw(results):
    """Draw how far sds are off, and the errors of healthy ones."""
    figure, axes = _figure.grid([["museum", "museum", "healthy"]], (15, 12))
    axis = axes["museum"]
    labels = [_label(mistake) for mistake in MISTAKES]
    places = np.arange(len(MISTAKES))
    for column, (color, marker, label) in enumerate(
        [(_figure.NETWORK, "X", "as it was"), (_figure.PALETTE[2], "o", "corrected")]
    ):
        ratios = results["ratios"][:, column]
        style = {"color": color, "label": label, "ms": 7, "ls": "none"}
        axis.plot(ratios, places, marker, **style)
    axis.axvline(1, color=_figure.THEORY, lw=0.8)
    # nor where the sd is right
    told = np.abs(np.log(results["ratios"][:, 0])) > 0.02
    for place in places[~told]:
        axis.text(1.06, place, "not by its sd", va="center", fontsize=11, color="0.4")
    axis.set(
        title="mistakes that were made in public code: all are found",
        xlabel=NAMED[0],
        xscale="log",
        yticks=places,
        ylim=(len(MISTAKES) - 0.5, -0.5),
    )
    axis.set_yticklabels(labels, fontsize=11)
    axis.legend(loc="upper right")

    axis = axes["healthy"]
    edges = np.linspace(-5, 5, 41)
    style = {"color": _figure.PALETTE[2], "alpha": 0.5, "density": True}
    axis.hist(results["scores"], edges, label="healthy architectures", **style)
    x = np.linspace(-5, 5, 200)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    axis.plot(x, density, color=_figure.THEORY, label="standard normal law")
    axis.set(
        title=f"{np.sum(results['alarms'] > 0)} alarms in {len(results['alarms'])}",
        xlabel="error of a variance, in standard errors",
        ylabel="density",
        ylim=(0, 0.62),
    )
    axis.legend(loc="upper left")
    return figure


def _label(mistake: Mistake) -> str:
    return f"{mistake.title}\n{mistake.source}"
