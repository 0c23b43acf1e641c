"""Which networks are stable: searches for depths, widths and residual scales."""

import functools
import math
from collections.abc import Callable

import numpy as np
import scipy

from lognorm_jax import (
    activations,
    ensembles,
    laws,
    weights,
)
from lognorm_jax._tools import checks
from lognorm_jax.probing import reports
from lognorm_jax.theory import exact, residuals
from lognorm_jax.tool import _gains, _sampled

WIDE_ENOUGH = 16  # for what is of first order in 1/n
LARGEST = 10**5  # depths and widths beyond which nobody asks


def outside(law: laws.Law, factor: float = 10.0) -> float:
    """Return the probability that norms change by more than a factor, or die.

    That is P(|log_norm| > 2 ln factor), with −inf for what died.

    Args:
        law: of a log-norm.
        factor: > 1, of norms: not squared.

    Returns:
        The probability.

    Raises:
        ValueError: for what is no ``Law``, and another factor.

    >>> round(outside(laws.normal(0.0, 4.0)), 4)
    0.0213
    """
    checks.instance("law", law, laws.Law)
    limit = 2 * math.log(checks.number("factor", factor, "(1, inf)"))
    assert law.sf is not None
    return float(law.cdf(-limit) + law.sf(limit))


def law(
    width: int,
    depth: int,
    activation: str | activations.Activation = "relu",
    weight_law: weights.Weights | None = None,
) -> tuple[laws.Law, str]:
    """Return the law of a network of equal widths, and "exact law" or "limit law".

    Args:
        width: n ≥ 1.
        depth: d ≥ 1.
        activation: one with a mask: ReLU-like.
        weight_law: default normal.

    Returns:
        The law of ln(‖Ju‖²/‖u‖²), and the word for it.

    Raises:
        ValueError: for activations without a mask, of which no law is known, and
            arguments of another kind or range.

    Source:
        The exact law is that of theory section 4, the limit law that of
        theory section 1; see ``exact.law`` and ``ensembles.limit_law``.
    """
    phi = activations.named(activation)
    allowed = "one with a mask: ReLU-like, or linear"
    instead = "Sample networks of others: paths.gram."
    mask = phi.mask
    checks.require(mask is not None, "activation", phi.name, allowed, instead)
    assert mask is not None
    used = weights.normal() if weight_law is None else weight_law
    checks.instance("weight_law", used, weights.Weights)
    n, d = checks.integer("width", width, 1), checks.integer("depth", depth, 1)
    return _known_law(ensembles.Ensemble((n,) * (d + 1), used, mask))


def _known_law(ensemble: ensembles.Ensemble) -> tuple[laws.Law, str]:
    """Return the exact law where there is one, else the limit law."""
    try:
        return exact.law(ensemble), "exact law"
    except ValueError:
        return ensembles.limit_law(ensemble), "limit law"


def _trusted(
    width: int, phi: activations.Activation, weight_law: weights.Weights
) -> bool:
    """Return whether the law at a width is exact, or the limit law nearly so.

    It is off by a few 1/n, and knows of no death: so layers have to be wide, and rows
    of many weights.
    """
    assert phi.mask is not None
    ensemble = ensembles.Ensemble((width,) * 3, weight_law, phi.mask)
    if _known_law(ensemble)[1] == "exact law":
        return True
    return _wide(width, weight_law)


def _wide(width: int, weight_law: weights.Weights) -> bool:
    """Return whether a layer is wide, and its rows have many weights."""
    rows = weight_law.rows
    if weight_law.orthogonal:
        return width >= 64
    if rows is None:
        # of sparse weights the kurtosis is 3 over the share that is not 0
        kept = width * 3 / max(float(weight_law.kurtosis), 3.0)
    else:
        kept = rows.kept * (1 if rows.group is None else width / rows.group)
    return width >= 64 and kept >= 8


def depth(
    width: int,
    activation: str | activations.Activation = "relu",
    *,
    weight_law: weights.Weights | None = None,
    gain: float | None = None,
    factor: float = 10.0,
    share: float = reports.LIMIT,
) -> _sampled.Found:
    """Return the largest depth at which a network is stable, as its tangents are.

    Args:
        width: n ≥ 1, of all layers.
        activation: an ``activations.Activation`` or its name.
        weight_law: default normal; of activations without a mask normal or orthogonal.
        gain: √(variance of a weight × fan-in), for activations without a mask; default
            ``gains(activation).backward``.
        factor: > 1, by which norms may change: not squared.
        share: in (0, 1), of initialisations that may change by more.

    Returns:
        By the exact law where there is one; else the limit law, of widths of 64 and
        more and rows of 8 weights and more; and by 1,000 sampled networks, at inputs of
        standard normal coordinates, with an interval, of narrower ones and of
        activations without a mask.

    Raises:
        ValueError: for arguments of another kind or range, and a gain of an activation
            with a mask.

    Source:
        Searched by ``outside`` of the law, that of theory section 4 or of
        theory section 1; held against sampled networks in tests/test_advice.py.

    >>> depth(128)
    Found(value=81, source='exact law', interval=None)
    """
    n = checks.integer("width", width, 1)
    phi = activations.named(activation)
    factor, share = limits(factor, share)
    if phi.mask is None:
        used = weights.normal() if weight_law is None else weight_law
        if gain is None:
            gain = _gains.gains(phi).backward
        gain = checks.number("gain", gain, "(0, inf)")
        return _sampled.sampled_depth(n, phi, gain, used, factor, share)
    own = "None: ReLU-like activations have one gain that keeps norms"
    checks.require(gain is None, "gain", gain, own)

    used = weights.normal() if weight_law is None else weight_law
    checks.instance("weight_law", used, weights.Weights)
    if not _trusted(n, phi, used):
        return _sampled.sampled_depth(n, phi, None, used, factor, share)

    def stable(d: int) -> bool:
        return outside(law(n, d, phi, used)[0], factor) <= share

    value = _last(stable, _guess(factor, share) * n / _per_layer(phi, used))
    return _sampled.Found(value, law(n, max(value, 1), phi, used)[1])


def _guess(factor: float, share: float) -> float:
    """Return a variance at which N(−v/2, v) is about as often outside."""

    def excess(v: float) -> float:
        return outside(laws.normal(-v / 2, v), factor) - share

    low, high = 1e-6, 1e6
    if excess(low) >= 0:
        return low
    if excess(high) <= 0:
        return high
    return float(scipy.optimize.brentq(excess, low, high, rtol=1e-3))


def _per_layer(
    phi: activations.Activation, weight_law: weights.Weights | None
) -> float:
    """Return about n times the variance of a layer."""
    assert phi.mask is not None
    orthogonal = weight_law is not None and weight_law.orthogonal
    return max(3 * float(phi.mask.kurtosis) - 1 - 2 * orthogonal, 0.1)


def narrowest(
    depth: int,
    activation: str | activations.Activation = "relu",
    *,
    weight_law: weights.Weights | None = None,
    factor: float = 10.0,
    share: float = reports.LIMIT,
) -> _sampled.Found:
    """Return the smallest width at which a network of this depth is stable.

    By the exact law where there is one, else the limit law; of its widths the smallest
    is 64, and rows of 8 weights and more.

    Args:
        depth: d in 1…LARGEST.
        activation: one with a mask: ReLU-like.
        weight_law: default normal.
        factor: as for ``depth``.
        share: likewise.

    Returns:
        The width, or 0 if none is stable up to ``LARGEST``, with its source.

    Raises:
        ValueError: for arguments of another kind or range, and activations without a
            mask.

    Source:
        As of ``depth``.

    >>> narrowest(81).value
    128
    """
    d = checks.integer("depth", depth, 1)
    checks.require(d <= LARGEST, "depth", d, f"an integer in 1…{LARGEST}")
    factor, share = limits(factor, share)
    phi = activations.named(activation)
    allowed = "one with a mask: ReLU-like, or linear"
    checks.require(phi.mask is not None, "activation", phi.name, allowed)
    used = weights.normal() if weight_law is None else weight_law
    checks.instance("weight_law", used, weights.Weights)

    # of weights without an exact law, widths at which the limit law says enough
    least = 1
    if not (used.gaussian or used.orthogonal):
        least = _last(lambda n: not _wide(n, used), 64) + 1

    def unstable(n: int) -> bool:
        if n < least or not (least > 1 or _trusted(n, phi, used)):
            return True
        return outside(law(n, d, phi, used)[0], factor) > share

    guess = _per_layer(phi, used) * d / _guess(factor, share)
    value = _last(unstable, max(guess, least)) + 1
    if value > LARGEST:
        return _sampled.Found(0, "no width up to the largest")
    source = law(value, d, phi, used)[1]
    if source == "limit law":
        source = f"limit law, of widths from {max(least, 64)}"
    return _sampled.Found(value, source)


def branch_scale(
    width: int,
    depth: int,
    activation: str | activations.Activation = "relu",
    *,
    factor: float = 10.0,
    share: float = reports.LIMIT,
) -> float:
    """Return the largest λ at which residual blocks √(1 − λ²) z + λ·branch are stable.

    By the limit law of ``residuals`` ("balanced" blocks), which is of first order in
    1/n. 1 where even a network without skips is.

    Args:
        width: n ≥ 16.
        depth: d ≥ 1, number of blocks.
        activation: one with a mask: ReLU-like.
        factor: as for ``depth``.
        share: likewise.

    Returns:
        The scale λ, in (0, 1].

    Raises:
        ValueError: for arguments of another kind or range, and activations without a
            mask.

    Source:
        Derived in theory section 6, of balanced blocks; held against ``outside`` of
        their law in tests/test_advice.py.

    >>> round(branch_scale(128, 1000), 3)
    0.319
    """
    n, d = (
        checks.integer("width", width, WIDE_ENOUGH),
        checks.integer("depth", depth, 1),
    )
    phi = activations.named(activation)
    mask = phi.mask
    allowed = "one with a mask: ReLU-like, or linear"
    checks.require(mask is not None, "activation", phi.name, allowed)
    assert mask is not None
    kurtosis = float(mask.kurtosis)
    factor, share = limits(factor, share)

    def excess(lam: float) -> float:
        alpha = (1 - lam**2) ** 0.5
        moments = residuals.log_moments("balanced", n, d, alpha, lam, kurtosis)
        return outside(laws.normal(*moments), factor) - share

    smallest = 1e-9
    if excess(1.0) <= 0:
        return 1.0
    return float(scipy.optimize.brentq(excess, smallest, 1.0, xtol=1e-12))


def limits(factor: float, share: float) -> tuple[float, float]:
    """Return a factor > 1 and a share in (0, 1)."""
    factor = checks.number("factor", factor, "(1, inf)")
    return factor, checks.number("share", share, "(0, 1)")


def _last(holds: Callable[[int], bool], guess: float) -> int:
    """Return the last integer in 1…LARGEST for which what holds at first does; or 0.

    Few calls, where the guess is near.
    """
    holds = functools.cache(holds)
    low = high = int(np.clip(guess, 1, LARGEST))
    step = 1 + low // 10
    while low >= 1 and not holds(low):
        low, high, step = low - step, low, 2 * step
    while high <= LARGEST and holds(high):
        low, high, step = high, high + step, 2 * step
    if high > LARGEST and holds(LARGEST):
        return LARGEST
    low, high = max(low, 0), min(high, LARGEST)
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
