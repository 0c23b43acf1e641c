"""What to change so that gradients of a network neither vanish nor explode: gains,
depths, widths and residual scales, each with the law that it comes from.

A network counts as stable here as for ``reports``: at most a share of its
initialisations change norms by more than a factor.
"""

import dataclasses
import functools
import html
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import scipy

from lognorm_jax import (
    activations,
    ensembles,
    laws,
    networks,
    paths,
    sampling,
    weights,
)
from lognorm_jax._tools import checks
from lognorm_jax.probing import reports
from lognorm_jax.theory import exact, residuals
from lognorm_jax.tool import _gaussian, _rows

# depth, law of weights -> the share of sampled networks that is unstable, or None
Confirm = Callable[[int, weights.Weights | None], reports.IntervalEstimate | None]
LARGEST = 10**5  # depths and widths beyond which nobody asks
DEEPEST = 1_000  # layers of defaults that are followed
SAMPLES = 1_000  # networks that are sampled where there is no law
_WORK = 5 * 10**8  # coordinates that these meet at most


class Gains(NamedTuple):
    """Standard deviations of weights, times √fan-in, that keep norms."""

    activation: str
    forward: float  # of activations: 1/√(E φ²)
    backward: float  # of gradients and tangents: 1/√(E φ'²)
    # what e^{−E ln R/2} multiplies each by at the width, so that the typical norm is
    # kept and not only the mean square; 1 without a width
    forward_correction: float = 1.0
    backward_correction: float = 1.0


class Found(NamedTuple):
    """A depth or a width, and the law that it was found by."""

    value: int  # 0: none is stable; LARGEST: all are
    source: str
    interval: tuple[int, int] | None = None  # 95%, where networks were sampled


def gains(activation: str | activations.Activation, width: int | None = None) -> Gains:
    """Return the gains of an activation, forward and backward.

    Weights of standard deviation gain/√fan-in keep the mean square of activations that
    are standard normal, or of tangents and gradients. The two agree for ReLU-like
    activations only: for others no gain keeps both.

    Args:
        activation: an ``activations.Activation`` or its name.
        width: n ≥ 1, for the corrections of finite width: exact for ReLU-like ones, and
            of first order in 1/n for others.

    Raises:
        ValueError: for anything else, and for activations with E φ² or E φ'² of 0 or
            not finite.

    Source: quadrature; corrections derived, see tests/test_advice.py.

    >>> [round(gain, 4) for gain in gains("tanh")[1:3]]
    [1.5925, 1.4674]
    >>> round(gains("relu", 100).backward_correction, 4)
    1.0128
    """
    phi = activations.named(activation)
    found = _gaussian.moments(phi)
    usable = all(math.isfinite(value) and value > 0 for value in found)
    allowed = "one whose E φ² and E φ'² of a standard normal number are finite and > 0"
    checks.require(usable, "activation", phi.name, allowed)
    forward, backward = found.square**-0.5, found.slope_square**-0.5
    if width is None:
        return Gains(phi.name, forward, backward)

    n = checks.integer("width", width, 1)
    if phi.mask is not None:
        mean = exact.increment_cumulants(n, phi.mask, 1)[0]
        correction = math.exp(-mean / 2)
        return Gains(phi.name, forward, backward, correction, correction)
    # E ln R is −Var R/2 to first order
    along = (found.fourth / found.square**2 - 1) / n
    across = (3 * found.slope_fourth / found.slope_square**2 - 1) / n
    corrections = math.exp(along / 4), math.exp(across / 4)
    return Gains(phi.name, forward, backward, *corrections)


def outside(law: laws.Law, factor: float = 10.0) -> float:
    """Return the probability that norms change by more than a factor, or die.

    Args:
        law: of a log-norm.
        factor: > 1.

    Raises:
        ValueError: for anything else.

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

    Raises:
        ValueError: for activations without a mask, of which no law is known.
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


def depth(
    width: int,
    activation: str | activations.Activation = "relu",
    *,
    weight_law: weights.Weights | None = None,
    gain: float | None = None,
    factor: float = 10.0,
    share: float = reports.LIMIT,
) -> Found:
    """Return the largest depth at which a network is stable, as its tangents are.

    Args:
        width: n ≥ 1, of all layers.
        activation: an ``activations.Activation`` or its name.
        weight_law: default normal; of activations without a mask normal or orthogonal.
        gain: √(variance of a weight × fan-in), for activations without a mask; default
            ``gains(activation).backward``.
        factor: > 1, by which norms may change.
        share: in (0, 1), of initialisations that may change by more.

    Returns:
        By the exact law where there is one, else the limit law; for activations without
        a mask by 1,000 networks in law, at inputs of standard normal coordinates, with
        an interval.

    Raises:
        ValueError: for anything else.

    >>> depth(128)
    Found(value=69, source='exact law', interval=None)
    """
    n = checks.integer("width", width, 1)
    phi = activations.named(activation)
    factor, share = _limits(factor, share)
    if phi.mask is None:
        used = weights.normal() if weight_law is None else weight_law
        if gain is None:
            gain = gains(phi).backward
        gain = checks.number("gain", gain, "(0, inf)")
        return _sampled_depth(n, phi, gain, used, factor, share)
    own = "None: ReLU-like activations have one gain that keeps norms"
    checks.require(gain is None, "gain", gain, own)

    sources = set()

    def stable(d: int) -> bool:
        found, source = law(n, d, phi, weight_law)
        sources.add(source)
        return outside(found, factor) <= share

    value = _last(stable, _guess(factor, share) * n / _per_layer(phi, weight_law))
    return Found(value, sources.pop())


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
) -> Found:
    """Return the smallest width at which a network of this depth is stable; 0 if none
    is up to LARGEST.

    Args:
        depth: d in 1…LARGEST.
        activation: one with a mask: ReLU-like.
        weight_law: default normal.
        factor: as for ``depth``.
        share: likewise.

    Raises:
        ValueError: for anything else.

    >>> narrowest(69).value
    128
    """
    d = checks.integer("depth", depth, 1)
    checks.require(d <= LARGEST, "depth", d, f"an integer in 1…{LARGEST}")
    factor, share = _limits(factor, share)
    sources = set()

    def unstable(n: int) -> bool:
        found, source = law(n, d, activation, weight_law)
        sources.add(source)
        return outside(found, factor) > share

    phi = activations.named(activation)
    allowed = "one with a mask: ReLU-like, or linear"
    checks.require(phi.mask is not None, "activation", phi.name, allowed)
    guess = _per_layer(phi, weight_law) * d / _guess(factor, share)
    value = _last(unstable, guess) + 1
    return Found(0 if value > LARGEST else value, sources.pop())


def branch_scale(
    width: int,
    depth: int,
    activation: str | activations.Activation = "relu",
    *,
    factor: float = 10.0,
    share: float = reports.LIMIT,
) -> float:
    """Return the largest λ at which residual blocks √(1 − λ²) z + λ·branch are stable.

    By the limit law of ``residuals`` ("balanced" blocks). 1 where even a network
    without skips is.

    Args:
        width: n ≥ 1.
        depth: d ≥ 1, number of blocks.
        activation: one with a mask: ReLU-like.
        factor: as for ``depth``.
        share: likewise.

    Raises:
        ValueError: for anything else.

    >>> round(branch_scale(128, 1000), 3)
    0.276
    """
    n, d = checks.integer("width", width, 1), checks.integer("depth", depth, 1)
    phi = activations.named(activation)
    mask = phi.mask
    allowed = "one with a mask: ReLU-like, or linear"
    checks.require(mask is not None, "activation", phi.name, allowed)
    assert mask is not None
    kurtosis = float(mask.kurtosis)
    factor, share = _limits(factor, share)

    def excess(lam: float) -> float:
        alpha = (1 - lam**2) ** 0.5
        moments = residuals.log_moments("balanced", n, d, alpha, lam, kurtosis)
        return outside(laws.normal(*moments), factor) - share

    smallest = 1e-9
    if excess(1.0) <= 0:
        return 1.0
    return float(scipy.optimize.brentq(excess, smallest, 1.0, xtol=1e-12))


def _limits(factor: float, share: float) -> tuple[float, float]:
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


def _sampled_depth(
    width: int,
    phi: activations.Activation,
    gain: float,
    weight_law: weights.Weights,
    factor: float,
    share: float,
    start: int = 128,
) -> Found:
    """Return the largest depth at which sampled networks are stable."""
    most = max(16, min(4_096, _WORK // (width * SAMPLES)))
    deep = min(start, most)
    while True:
        log_norms = _log_norms(width, deep, phi, gain, weight_law)
        counts = np.sum(np.abs(log_norms) > 2 * math.log(factor), axis=0)
        surely_unstable = [_shares(count, SAMPLES)[0] > share for count in counts]
        if any(surely_unstable) or deep == most:
            break
        deep = min(4 * deep, most)
    surely_stable = [_shares(count, SAMPLES)[2] <= share for count in counts]
    interval = _first(np.logical_not(surely_stable)), _first(surely_unstable)
    value = _first(counts > share * SAMPLES)
    return Found(value, f"{SAMPLES:,} sampled networks", interval)


@functools.lru_cache(maxsize=8)
def _log_norms(
    width: int,
    depth: int,
    phi: activations.Activation,
    gain: float,
    weight_law: weights.Weights,
) -> np.ndarray:
    """Return the log-norms of sampled networks after each layer: (SAMPLES, depth)."""
    return np.cumsum(sampled(width, depth, phi, gain, weight_law), axis=1)


def _first(flags: Sequence[bool] | np.ndarray) -> int:
    """Return how many flags come before the first that is true."""
    return int(np.argmax([*flags, True]))


def _shares(count: int, total: int) -> tuple[float, float, float]:
    """Return the lower end of the 95% interval of a share, it, and the upper end."""
    interval = scipy.stats.binomtest(int(count), total).proportion_ci(0.95, "exact")
    return float(interval.low), count / total, float(interval.high)


def sampled(
    width: int,
    depth: int,
    activation: str | activations.Activation = "relu",
    gain: float | None = None,
    weight_law: weights.Weights | None = None,
    *,
    num_samples: int = SAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Return ln R of a tangent, layer by layer, of networks in law: (num_samples,
    depth).

    At an input and along a tangent of standard normal coordinates.

    Args:
        width: n ≥ 1.
        depth: d ≥ 1.
        activation: an ``activations.Activation`` or its name.
        gain: √(variance of a weight × fan-in); default that of ``networks.mlp``.
        weight_law: normal, which is the default, or orthogonal.
        num_samples: ≥ 1.
        seed: of the samples.
    """
    network = networks.mlp(
        (width,) * (depth + 1),
        activation,
        weight_law=weight_law,
        gain=None if gain is None else gain**2,
    )
    x, tangent = np.random.default_rng(seed).normal(size=(2, width))
    path = paths.gram(network, x, tangent)
    key = jax.random.key(seed)
    return np.asarray(sampling.sample(path, key, num_samples).increment, np.float64)


class Default(NamedTuple):
    """What the default initialisation of a framework does to a layer."""

    framework: str
    layer: str
    law: str
    variance: float  # of a weight, times fan-in
    activation: str
    log_ratio: float  # ln E R of gradients, in the first layer
    depth: int  # after which gradients have changed by the factor; DEEPEST: later


# variance × fan-in, for layers of as many units as inputs
_DEFAULTS = (
    ("Flax", "Dense, nnx.Linear, Conv", "lecun_normal: truncated normal", 1.0),
    ("Equinox", "nn.Linear, Conv", "U(±1/√fan-in), biases too", 1 / 3),
    ("PyTorch", "nn.Linear, Conv2d", "U(±1/√fan-in), biases too", 1 / 3),
)


def defaults(
    activation: str | activations.Activation = "relu", *, factor: float = 10.0
) -> list[Default]:
    """Return what default initialisations do to gradients, a layer, and how deep that
    may go.

    In the mean of wide layers: ln(variance × fan-in × E φ'²), at an input of standard
    normal coordinates and at what layers make of it.

    Args:
        activation: an ``activations.Activation`` or its name.
        factor: > 1, by which norms may change.

    Raises:
        ValueError: for anything else.

    >>> [row.depth for row in defaults("relu")]
    [6, 2, 2]
    """
    limit = 2 * math.log(checks.number("factor", factor, "(1, inf)"))
    phi = activations.named(activation)
    gains(phi)
    rows = []
    for framework, layer, law_of, variance in _DEFAULTS:
        log_ratios = _log_ratios(phi, variance)
        first = next(log_ratios)
        total, deep = first, 0
        while abs(total) <= limit and deep < DEEPEST:
            total, deep = total + next(log_ratios), deep + 1
        row = Default(framework, layer, law_of, variance, phi.name, first, deep)
        rows.append(row)
    return rows


def _log_ratios(phi: activations.Activation, variance: float) -> Iterator[float]:
    """Yield ln E R of gradients, layer by layer, where layers are wide."""
    square = variance
    while True:
        found = _gaussian.moments(phi, square**0.5)
        yield math.log(variance * found.slope_square)
        square = variance * found.square


@dataclasses.dataclass(frozen=True)
class Advice:
    """Rows of advice; ``str`` of it is a table, ``as_dict`` goes into JSON."""

    width: int
    depth: int
    activation: str
    factor: float
    share: float
    rows: tuple[_rows.Row, ...]

    def __str__(self) -> str:
        """Return the table."""
        title = (
            f"{self.activation}, width {self.width}, depth {self.depth}. Stable: at "
            f"most {self.share:.0%} of initialisations\nchange norms by more than a "
            f"factor {self.factor:g}."
        )
        return "\n".join([title, "", *_rows.table(self.rows)])

    def _repr_html_(self) -> str:
        """Return it for a notebook."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def as_dict(self) -> dict:
        """Return what JSON can hold."""
        rows = [row._asdict() for row in self.rows]
        return {**dataclasses.asdict(self), "rows": rows}


def advise(
    width: int,
    depth: int,
    activation: str | activations.Activation = "relu",
    *,
    factor: float = 10.0,
    share: float = reports.LIMIT,
    fan_in: int = 16,
    simulate: int = 0,
) -> Advice:
    """Return what this network's gains, depth, width and skips should be.

    Args:
        width: n ≥ 1, of all layers.
        depth: d ≥ 1.
        activation: an ``activations.Activation`` or its name.
        factor: > 1, by which norms may change.
        share: in (0, 1), of initialisations that may change by more.
        fan_in: k in 1…n, weights per unit of the sparse network that is compared.
        simulate: how many networks confirm each depth; 0 for none.

    Raises:
        ValueError: for anything else.
    """
    phi = activations.named(activation)
    n = checks.integer("width", width, 1)
    d = checks.integer("depth", depth, 1)
    factor, share = _limits(factor, share)
    kept = min(checks.integer("fan_in", fan_in, 1), n)
    count = checks.integer("simulate", simulate, 0)
    of_gains = _gain_rows(phi, n)
    confirm = functools.partial(_confirmed, n, phi, factor, count)
    if phi.mask is None:
        rows = _sampled_rows(n, d, phi, factor, share)
    else:
        rows = _law_rows(n, d, phi, kept, factor, share, confirm)
    return Advice(n, d, phi.name, factor, share, (*of_gains, *rows))


def _gain_rows(phi: activations.Activation, n: int) -> list[_rows.Row]:
    """Return the rows of gains."""
    found = gains(phi, n)
    order = "exact law of a layer" if phi.mask is not None else "first order in 1/n"
    alike = math.isclose(found.forward, found.backward, rel_tol=1e-9)
    both = "" if alike else "; no gain keeps both"
    mean = f"mean square, input N(0, 1){both}"
    return [
        _rows.Row("gain that keeps activations", found.forward, mean),
        _rows.Row(
            f"  typical ones at width {n}",
            found.forward * found.forward_correction,
            f"e^(−E ln R/2), {order}",
        ),
        _rows.Row("gain that keeps gradients", found.backward, mean),
        _rows.Row(
            f"  typical ones at width {n}",
            found.backward * found.backward_correction,
            f"e^(−E ln R/2), {order}",
        ),
    ]


def _law_rows(
    n: int,
    d: int,
    phi: activations.Activation,
    kept: int,
    factor: float,
    share: float,
    confirm: Confirm,
) -> Iterable[_rows.Row]:
    """Yield the rows of activations with a mask."""
    here, source = law(n, d, phi)
    chance = outside(here, factor)
    yield _rows.Row(f"P(unstable) at depth {d}", chance, source, None, confirm(d, None))
    deep = depth(n, phi, factor=factor, share=share)
    yield _depth_row(f"deepest stable at width {n}", deep, confirm, None)
    wide = narrowest(d, phi, factor=factor, share=share)
    yield _rows.Row(f"narrowest stable at depth {d}", wide.value, wide.source)
    orthogonal = weights.orthogonal()
    found = depth(n, phi, weight_law=orthogonal, factor=factor, share=share)
    yield _depth_row("deepest, orthogonal weights", found, confirm, orthogonal)
    if kept < n:
        law_of_few = weights.fixed_fan_in(kept)
        found = depth(n, phi, weight_law=law_of_few, factor=factor, share=share)
        yield _rows.Row(f"deepest, {kept} weights per unit", found.value, found.source)
    lam = branch_scale(n, d, phi, factor=factor, share=share)
    yield _rows.Row(
        f"largest branch scale λ at depth {d}",
        lam,
        "limit law of √(1 − λ²) z + λ·branch; 1/√depth = " + f"{d**-0.5:.3g}",
    )


def _depth_row(
    quantity: str,
    found: Found,
    confirm: Confirm,
    weight_law: weights.Weights | None,
) -> _rows.Row:
    """Return the row of a depth, with the share of networks there that is unstable."""
    known = 0 < found.value < LARGEST
    seen = confirm(found.value, weight_law) if known else None
    value: int | str = found.value
    if found.value == LARGEST:
        value = "any"
    return _rows.Row(quantity, value, found.source, found.interval, seen)


def _sampled_rows(
    n: int, d: int, phi: activations.Activation, factor: float, share: float
) -> Iterable[_rows.Row]:
    """Yield the rows of activations of which no law is known."""
    found = gains(phi)
    growth = 2 * math.log(found.forward / found.backward)
    yield _rows.Row(
        "ln R of gradients, a layer",
        growth,
        "where the gain keeps activations; 0 is stable",
    )
    normal = weights.normal()
    deepest = functools.partial(
        _sampled_depth, n, phi, start=max(d, 128), factor=factor, share=share
    )
    for name, gain in (("activations", found.forward), ("gradients", found.backward)):
        deep = deepest(gain=gain, weight_law=normal)
        quantity = f"deepest, gain that keeps {name}"
        yield _rows.Row(quantity, deep.value, deep.source, deep.interval)
    deep = deepest(gain=found.backward, weight_law=weights.orthogonal())
    yield _rows.Row("  with orthogonal weights", deep.value, deep.source, deep.interval)
    log_norms = _log_norms(n, max(d, 128), phi, found.backward, normal)[:, d - 1]
    count = np.sum(np.abs(log_norms) > 2 * math.log(factor))
    low, chance, high = _shares(int(count), len(log_norms))
    source = f"gain that keeps gradients; {len(log_norms):,} sampled networks"
    yield _rows.Row(f"P(unstable) at depth {d}", chance, source, (low, high))


def _confirmed(
    n: int,
    phi: activations.Activation,
    factor: float,
    count: int,
    depth: int,
    weight_law: weights.Weights | None,
) -> reports.IntervalEstimate | None:
    """Return the share of so many networks that is unstable, or None."""
    if not count:
        return None
    increments = sampled(n, depth, phi, weight_law=weight_law, num_samples=count)
    bad = int(np.sum(np.abs(increments.sum(1)) > 2 * math.log(factor)))
    low, share, high = _shares(bad, count)
    return reports.IntervalEstimate(share, (low, high))
