"""What theory, or a sample where there is none, says of a network by its shape."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lognorm_jax import activations, ensembles, laws, networks, sampling, weights
from lognorm_jax._tools import checks, tables
from lognorm_jax.sampling import summaries
from lognorm_jax.theory import exact
from lognorm_jax.tool import _rows, _sampled, spoken

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One law of the log-norm ln(‖Ju‖²/‖u‖²) of one network."""

    shape: str
    source: str  # "exact law", "limit law" or "4,000 samples"
    beta: float
    law: laws.Law = dataclasses.field(repr=False)
    # ln of the ratio of the sizes of output and input: 0 keeps coordinates
    growth: float
    factor: float
    mean_error: float | None = None  # standard errors, of samples
    variance_error: float | None = None

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Those of ``LEVELS``; −inf where the network is dead."""
        return tuple(float(self.law.quantile(level)) for level in LEVELS)

    @property
    def outside(self) -> float:
        """P(a coordinate's root mean square changes by more than the factor)."""
        limit = 2 * math.log(self.factor)
        assert self.law.sf is not None
        low, high = self.law.cdf(self.growth - limit), self.law.sf(self.growth + limit)
        return float(low + high)

    @property
    def outside_error(self) -> float | None:
        """Its standard error, of samples."""
        if self.law.samples is None:
            return None
        return math.sqrt(self.outside * (1 - self.outside) / len(self.law.samples))

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        quantiles = zip(LEVELS, self.quantiles, strict=True)
        return {
            "shape": self.shape,
            "source": self.source,
            "beta": self.beta,
            "mean": _finite(self.law.mean),
            "mean_error": _finite(self.mean_error),
            "variance": _finite(self.law.variance),
            "variance_error": _finite(self.variance_error),
            "sd": math.sqrt(self.law.variance),
            "quantiles": {str(level): _finite(value) for level, value in quantiles},
            "factor": self.factor,
            "outside": self.outside,
            "outside_error": self.outside_error,
            "dead": self.law.atom,
        }


def _finite(value: float | None) -> float | None:
    """Return a number, or None for what JSON cannot hold."""
    return float(value) if value is not None and math.isfinite(value) else None


def predictions(
    shape: str,
    *,
    activation: str | activations.Activation = "relu",
    weight_law: str | weights.Weights = "normal",
    head: str = "same",
    fan: str = "in",
    bias_scale: float = 0.0,
    gain: float | None = None,
    residual: str | None = None,
    branch_scale: float = 0.5**0.5,
    factor: float = 10.0,
    samples: int = 4_000,
    seed: int = 0,
) -> list[Prediction]:
    """Return the limit and the exact law of a network; samples where one is missing.

    Args:
        shape: widths, as "64-100x10"; residual networks need equal ones.
        activation: as ``spoken.activation``.
        weight_law: as ``spoken.weight_law``.
        head: "same", or "linear" for a last layer without activation.
        fan: the variance of a weight is gain/n_{i−1} ("in") or gain/n_i ("out").
        bias_scale: standard deviation ≥ 0 of biases.
        gain: √(variance of a weight × fan); default that of the activation.
        residual: a kind of ``networks.residual``; without head, fan and gain.
        branch_scale: λ in (0, 1], of blocks √(1 − λ²) z + λ·branch.
        factor: > 1, by which a coordinate may change.
        samples: ≥ 100.
        seed: of the samples.

    Raises:
        ValueError: for anything else.
    """
    widths = spoken.shape(shape)
    phi = activation
    if isinstance(phi, str):
        phi = spoken.activation(phi)
    used = weight_law
    if isinstance(used, str):
        used = spoken.weight_law(used)
    factor = checks.number("factor", factor, "(1, inf)")
    count = checks.integer("samples", samples, 100)
    checks.integer("seed", seed, 0)
    if residual is None:
        network, usual, shift = _plain(widths, phi, used, head, fan, bias_scale, gain)
    else:
        none = "None, of residual networks: their blocks have gains of their own"
        checks.require(gain is None, "gain", gain, none)
        checks.require(head == "same", "head", head, "'same', of residual networks")
        checks.require(fan == "in", "fan", fan, "'in', of residual networks")
        network = _residual(widths, phi, used, residual, branch_scale, bias_scale)
        usual, shift = network, 0.0

    growth = math.log(widths[-1] / widths[0])
    beta = math.fsum(1 / n for n in widths[1:])
    if usual.ensemble is not None:
        beta = ensembles.beta(usual.ensemble)
    told = functools.partial(Prediction, shape, beta=beta, growth=growth, factor=factor)

    # what theory has: the limit, and the exact law
    found = []
    limit = _or_none(networks.limit_law, network)
    if limit is not None:
        found.append(told("limit law", law=limit))
    if usual.ensemble is not None:
        law = _or_none(exact.law, usual.ensemble)
        if law is not None:
            return [*found, told("exact law", law=_shifted(law, shift))]
    # of vanilla residual networks the law is that along the input
    sampled = _sample(network, residual == "vanilla", count, seed)
    return [*found, told(f"{count:,} samples", **sampled)]


def _sample(
    network: networks.Network, along: bool, count: int, seed: int
) -> dict[str, Any]:
    """Return the law of samples, and the standard errors of its moments."""
    path = _sampled.path(network, along=along)
    trace = sampling.sample(path, jax.random.key(seed), count)
    log_norms = np.asarray(trace.increment, np.float64).sum(1)
    summary = summaries.estimate(log_norms)
    return {
        "law": laws.empirical(log_norms),
        "mean_error": float(summary.mean.error),
        "variance_error": float(summary.variance.error),
    }


def _or_none(make: Callable[[Any], laws.Law], source: Any) -> laws.Law | None:
    """Return a law, or None where theory has none."""
    try:
        return make(source)
    except ValueError:
        return None


def _plain(
    widths: Sequence[int],
    phi: activations.Activation,
    weight_law: weights.Weights,
    head: str,
    fan: str,
    bias_scale: float,
    gain: float | None,
) -> tuple[networks.Network, networks.Network, float]:
    """Return a network, that of the usual gain, and what the gain adds to log-norms."""
    make = functools.partial(
        networks.mlp, widths, phi, bias_scale, fan, head, weight_law=weight_law
    )
    usual = make()
    if gain is None:
        return usual, usual, 0.0
    variance = checks.number("gain", gain, "[1e-15, 1e15]") ** 2
    hidden = len(widths) - 1 - (head == "linear")
    shift = hidden * math.log(variance / float(phi.gain))
    return make(gain=variance), usual, shift


def _shifted(law: laws.Law, shift: float) -> laws.Law:
    """Return the law of what is larger by a factor, its log the shift."""
    if shift == 0:
        return law
    assert law.sf is not None
    sf = law.sf
    return laws.Law(
        name=law.name,
        cdf=lambda x: law.cdf(np.asarray(x) - shift),
        quantile=lambda q: law.quantile(q) + shift,
        mean=law.mean + shift,
        variance=law.variance,
        atom=law.atom,
        pdf=lambda x: law.pdf(np.asarray(x) - shift),
        sf=lambda x: sf(np.asarray(x) - shift),
    )


def _residual(
    widths: Sequence[int],
    phi: activations.Activation,
    weight_law: weights.Weights,
    kind: str,
    branch_scale: float,
    bias_scale: float,
) -> networks.Network:
    """Return a residual network of equal widths."""
    alike = len(set(widths)) == 1
    checks.require(alike, "shape", widths, "equal widths, for residual networks")
    lam = checks.number("branch_scale", branch_scale, "(0, 1]")
    return networks.residual(
        widths[0],
        len(widths) - 1,
        kind,
        skip_scale=(1 - lam**2) ** 0.5,
        branch_scale=lam,
        activation=phi,
        bias_scale=bias_scale,
        weight_law=weight_law,
    )


def table(found: Sequence[Prediction]) -> list[str]:
    """Return the lines of a table."""
    head = ["shape", "law", "β", "mean", "variance", "sd"]
    head += [f"{level:.0%}" for level in LEVELS]
    head += [f"P(>{found[0].factor:g}×)", "dead"]
    rows = [head]
    for one in found:
        cells = [one.shape, one.source, _rows.number(float(one.beta))]
        cells.append(_with_error(one.law.mean, one.mean_error))
        cells.append(_with_error(one.law.variance, one.variance_error))
        cells.append(f"{math.sqrt(one.law.variance):.4g}")
        cells += [f"{value:.3f}" for value in one.quantiles]
        cells.append(_with_error(one.outside, one.outside_error))
        cells.append(f"{one.law.atom:.3g}")
        rows.append(cells)
    return tables.columns(rows)


def _with_error(value: float, error: float | None) -> str:
    """Return a number, ± its standard error where it has one."""
    text = f"{value:.4g}"
    return text if error is None else f"{text} ± {error:.2g}"
