"""An ensemble of random matrix products: its shape, its laws, and what theory predicts
from them.

Layer i maps x ↦ D W x with W an n_i × n_{i−1} matrix of iid weights and D a diagonal
mask of iid entries. In units where the squared norm is preserved in mean, the log of
the squared norm of the product applied to a unit vector u is nearly N(−v/2, v), and v
is a sum over layers of 1/n_i.

Source: Hanin & Nica, "Products of many large random matrices and gradients in deep
neural networks", Comm. Math. Phys. 376 (2020).
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lognorm_jax import laws, masks, weights
from lognorm_jax._tools import checks, norms


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Products of ``depth`` random matrices.

    Parameters ---------- widths
        (n_0, …, n_d), integers ≥ 1, at least two; they may be uneven.
    weights
        The law of one standardised weight.
    masks
        One Mask for all layers, or a sequence of d masks, one a layer.
    fan
        The variance of a weight: "out", 1/(E D² n_i), so that E‖x_i‖² = ‖x_{i−1}‖²; or
        "in", 1/(E D² n_{i−1}), the He convention, which only adds ln(n_i/n_{i−1}) to
        each increment.

    Raises ``ValueError`` for anything else. Hashable: it may be a static argument of
    jit.

    >>> Ensemble((64, 32, 32), weights.normal(), masks.relu()).depth
    2
    """

    widths: tuple[int, ...]
    weights: weights.Weights
    masks: tuple[masks.Mask, ...]
    fan: str = "out"

    def __post_init__(self):
        allowed = "a sequence of at least two integers ≥ 1"
        listed = isinstance(self.widths, Sequence) and not isinstance(self.widths, str)
        listed = listed or (
            isinstance(self.widths, np.ndarray) and self.widths.ndim == 1
        )
        checks.require(listed and len(self.widths) >= 2, "widths", self.widths, allowed)
        widths = tuple(
            checks.integer(f"widths[{i}]", n, 1) for i, n in enumerate(self.widths)
        )
        checks.instance("weights", self.weights, weights.Weights)
        depth = len(widths) - 1
        per_layer = (
            (self.masks,) * depth if isinstance(self.masks, masks.Mask) else self.masks
        )
        allowed = f"one Mask, or a sequence of {depth} masks, one a layer"
        checks.require(isinstance(per_layer, Sequence), "masks", per_layer, allowed)
        checks.require(
            len(per_layer) == depth, "len(masks)", len(per_layer), f"{depth}: {allowed}"
        )
        for i, mask in enumerate(per_layer):
            checks.instance(f"masks[{i}]", mask, masks.Mask)
        known = isinstance(self.fan, str) and self.fan in ("out", "in")
        checks.require(known, "fan", self.fan, "'out' or 'in'")
        object.__setattr__(self, "widths", widths)
        object.__setattr__(self, "masks", tuple(per_layer))

    @property
    def depth(self) -> int:
        """d, the number of matrices."""
        return len(self.widths) - 1


def _per_layer(ensemble: Ensemble, value) -> np.ndarray:  # (depth,)
    """Return ``value(mask)`` for the mask of each layer, computed once a distinct
    layer.
    """
    layers, places = layer_index(ensemble)
    return np.array([float(value(mask)) for _, mask in layers])[places]


def layer_index(ensemble: Ensemble) -> tuple[list[tuple[int, masks.Mask]], np.ndarray]:
    """Return the distinct (output width, mask), and which of them each layer is,
    (depth,).
    """
    checks.instance("ensemble", ensemble, Ensemble)
    # quicker than hashes of 10⁶ masks
    distinct = {id(mask): mask for mask in ensemble.masks}
    seen = {}
    pairs = zip(ensemble.widths[1:], map(id, ensemble.masks), strict=True)
    places = np.array([seen.setdefault(pair, len(seen)) for pair in pairs], np.int32)
    layers = {}
    merged = [layers.setdefault((n, distinct[name]), len(layers)) for n, name in seen]
    return list(layers), np.array(merged, np.int32)[places]


def layer_counts(ensemble: Ensemble) -> dict[tuple[int, masks.Mask], int]:
    """Return how often each (output width, mask) appears."""
    layers, places = layer_index(ensemble)
    return dict(zip(layers, np.bincount(places).tolist(), strict=True))


def describe(ensemble: Ensemble) -> dict[str, Any]:
    """Return what the ensemble is, for ``json`` and ``runs.open_run``: names, in runs
    of equals.

    >>> describe(Ensemble((4, 8, 8), weights.normal(), masks.relu()))["widths"]
    [[4, 1], [8, 2]]
    """
    checks.instance("ensemble", ensemble, Ensemble)
    named = {"widths": ensemble.widths, "masks": [mask.name for mask in ensemble.masks]}
    runs = {
        k: [[x, len(list(g))] for x, g in itertools.groupby(v)]
        for k, v in named.items()
    }
    return runs | {"weights": ensemble.weights.name, "fan": ensemble.fan}


def _output_widths(ensemble: Ensemble) -> np.ndarray:  # (depth,)
    return np.array(ensemble.widths[1:], dtype=np.float64)


def fan_shift(ensemble: Ensemble) -> np.ndarray:
    """Return what the fan convention adds to each increment, (depth,): ln(n_i/n_{i−1})
    or 0.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    if ensemble.fan == "out":
        return np.zeros(ensemble.depth)
    return np.diff(np.log(np.array(ensemble.widths, dtype=np.float64)))


def total_fan_shift(ensemble: Ensemble) -> float:
    """Return what the fan convention adds to log_norm: ln(n_d/n_0) for fan "in", else
    0.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    first, last = ensemble.widths[0], ensemble.widths[-1]
    return math.log(last / first) if ensemble.fan == "in" else 0.0


def unit_direction(ensemble: Ensemble, direction: Any = None) -> Any:
    """Return ``direction`` (n_0,) divided by its norm; the flat direction if it is
    None.

    Raises ``ValueError`` for a wrong length, for zero, and for entries that are not
    finite.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    n = ensemble.widths[0]
    if direction is None:
        return np.full(n, n**-0.5)
    return norms.unit(checks.vector("direction", direction, (n,)))


def beta(ensemble: Ensemble) -> float:
    """Return the aspect ratio β = Σ 1/n_i over the masked layers, by their output
    width.

    Layers with ``masks.identity()``, such as a linear head, do not count; all other
    masks do. (A pure product of matrices that counts, p = 1 in the theorem, has
    ``masks.bernoulli(1)``: v = 2β.)

    >>> beta(Ensemble((784, 64, 32, 16), weights.normal(), masks.relu()))
    0.109375
    """
    counts = layer_counts(ensemble).items()
    return math.fsum(count / n for (n, mask), count in counts if mask.counts)


def log_variance(ensemble: Ensemble, direction: Any = None) -> float:
    """Return the variance of the limit law for the unit vector along ``direction``.

    v = Σ_i (3 m4/m2² − 1)/n_i + (μ4 − 3)(m4/m2²) κ(u)/n_1, which is (3/p − 1)β + … for
    {0, 1} masks: 5β for ReLU layers, plus 2/n for each linear one.

    direction: (n_0,), default the flat one, for which κ = 1/n_0. Source: Hanin & Nica
    (2020), theorem for arbitrary vectors; the mask factor derived, see tests.

    >>> log_variance(Ensemble((64,) * 65, weights.normal(), masks.relu()))
    5.0
    """
    checks.instance("ensemble", ensemble, Ensemble)
    checks.require_known("direction", direction)
    quartic = np.zeros(ensemble.depth)
    quartic[0] = 1 / ensemble.widths[0]
    if direction is not None:
        quartic[0] = np.sum(unit_direction(ensemble, direction) ** 4)
    return math.fsum(predictable_variance(ensemble, quartic))


def predictable_variance(ensemble: Ensemble, quartic: Any) -> np.ndarray:
    """Return Var(R_i | past) of each layer, (..., depth), for R_i of mean one.

    Var(R|x) = (1/n)[(m4/m2²)(3 + (μ4 − 3)κ(x)) − 1], with κ(x) = ‖x‖₄⁴/‖x‖₂⁴ of the
    vector the layer is applied to. Exact at every width. In the fan "in" convention it
    is that of R_i/E R_i.

    quartic: (..., depth), κ before each layer, as in ``Trace.quartic``; 0 gives the
    generic value. Source: derived, see tests/test_ensembles.py.
    """
    second = _standard_moments(ensemble, quartic)[0]
    return (second - 1) / _output_widths(ensemble)


def ratio_third_cumulant(ensemble: Ensemble, quartic: Any) -> np.ndarray:
    """Return the third central moment of R_i given the past, (..., depth), for R_i of
    mean one.

    E(R − 1)³ = (E Y³ − 3 E Y² + 2)/n² with Y = D²(w·x)²/m2 and E Y³ = (m6/m2³)(15 +
    15(μ4 − 3)κ + (μ6 − 15μ4 + 30)κ₆). κ₆ = Σ x_a⁶ is taken to be κ²: exact for normal
    weights, and where the non-zero coordinates of x are equal in size (flat,
    coordinate); else κ₆ > κ², and the result is too small by (m6/m2³)(μ6 − 15μ4 +
    30)(κ₆ − κ²)/n².

    Raises ``ValueError`` where the sixth moment of the weights is infinite.
    Source: derived, see tests/test_ensembles.py.
    """
    second, third = _standard_moments(ensemble, quartic, order=3)
    return (third - 3 * second + 2) / _output_widths(ensemble) ** 2


def _standard_moments(ensemble, quartic, order=2) -> list[np.ndarray]:
    """Return E Y² and, to order 3, E Y³, for one coordinate Y = D²(w·x)²/m2 of a
    layer's output.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    quartic = np.asarray(
        checks.vector("quartic", quartic, None, zero=True), dtype=np.float64
    )
    fits = quartic.ndim >= 1 and quartic.shape[-1] == ensemble.depth
    checks.require(fits, "quartic.shape", quartic.shape, f"(..., {ensemble.depth})")
    # up to rounding in any dtype
    inside = bool(np.all((quartic >= 0) & (quartic <= 1.01)))
    checks.require(inside, "quartic", quartic, "in [0, 1], as ‖x‖₄⁴/‖x‖₂⁴ is")
    mu4 = float(ensemble.weights.kurtosis)
    fourth = 3 + (mu4 - 3) * quartic  # E(w·x)⁴ for ‖x‖ = 1
    moments = [_per_layer(ensemble, lambda mask: mask.kurtosis) * fourth]
    if order == 3:
        mu6 = float(ensemble.weights.moment(3))
        sixth = 15 + 15 * (mu4 - 3) * quartic + (mu6 - 15 * mu4 + 30) * quartic**2
        ratio = _per_layer(ensemble, lambda mask: mask.moment(3) / mask.moment(1) ** 3)
        moments.append(ratio * sixth)
    return moments


def limit_law(ensemble: Ensemble, direction: Any = None) -> laws.Law:
    """Return the limit law of log_norm: N(−v/2, v), shifted by ln(n_d/n_0) for fan
    "in".

    Source: Hanin & Nica (2020). It is a limit: at width n its variance is low by a
    relative 3.7/n (ReLU), and its KS distance to the truth is about 1/n; it has no atom
    at −inf.
    """
    v = log_variance(ensemble, direction)
    return laws.normal(total_fan_shift(ensemble) - v / 2, v)


def log_alive(ensemble: Ensemble) -> float:
    """Return ln P(log_norm > −inf) = Σ ln(1 − P(D = 0)^{n_i}), exact for weights
    without atoms.

    Raises ``ValueError`` for weights with atoms: there x can also vanish by
    cancellation.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    checks.require(
        not ensemble.weights.atoms,
        "ensemble.weights",
        ensemble.weights.name,
        "a law without atoms",
        "Estimate it with sampling.stream(paths.dense(ensemble), ...).dead.",
    )
    counts = layer_counts(ensemble).items()
    return math.fsum(count * masks.log_alive(mask, n) for (n, mask), count in counts)


def dead_mass(ensemble: Ensemble) -> float:
    """Return P(log_norm = −inf) = 1 − Π(1 − P(D = 0)^{n_i}), exact for weights without
    atoms.

    Raises ``ValueError`` for weights with atoms: there x can also vanish by
    cancellation.

    >>> round(dead_mass(Ensemble((2,) * 11, weights.normal(), masks.relu())), 4)
    0.9437
    """
    return max(0.0, -math.expm1(log_alive(ensemble)))


def equal_beta(
    beta: float,
    widths: Sequence[int],
    *,
    weight_law: weights.Weights | None = None,
    mask: masks.Mask | None = None,
    fan: str = "out",
    input_width: int | None = None,
) -> list[Ensemble]:
    """Return ensembles of other shape and equal β: width n, depth β·n, for each n in
    ``widths``.

    beta: > 0. Raises ``ValueError`` where β·n is not an integer ≥ 1: then no depth
    gives that β. weight_law, mask: default normal weights and ReLU masks; input_width:
    n_0, default n.

    >>> [e.depth for e in equal_beta(0.25, [16, 32, 64])]
    [4, 8, 16]
    """
    allowed = "a finite number > 0"
    beta = float(checks.real("beta", beta, allowed))
    checks.require(beta > 0, "beta", beta, allowed)
    weight_law = weights.normal() if weight_law is None else weight_law
    mask = masks.relu() if mask is None else mask
    instead = "A linear layer does not count in β; masks.bernoulli(1) is a linear layer that does."
    checks.instance("mask", mask, masks.Mask)
    checks.require(mask.counts, "mask", mask.name, "a mask that counts", instead)
    listed = isinstance(widths, Sequence) and len(widths) > 0
    checks.require(listed, "widths", widths, "a sequence of one or more integers ≥ 1")
    family = []
    for width in widths:
        n = checks.integer("width", width, 1)
        depth = round(beta * n)
        whole = 1 <= depth <= 10**8 and abs(depth - beta * n) < 1e-9 * depth
        checks.require(
            whole, "width", n, f"such that {beta}·width is an integer in 1…10⁸, a depth"
        )
        first = n if input_width is None else input_width
        family.append(Ensemble((first, *(n,) * depth), weight_law, mask, fan))
    return family
