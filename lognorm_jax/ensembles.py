"""An ensemble of random matrix products: its shape, its laws, and what they predict.

Layer i maps x ↦ D W x with W an n_i × n_{i−1} matrix of iid weights and D a diagonal
mask of iid entries. In units where the squared norm is preserved in mean, the log of
the squared norm of the product applied to a unit vector u is nearly N(−v/2, v), and v
is a sum over layers of 1/n_i.

Source: Hanin & Nica, "Products of many large random matrices and gradients in deep
neural networks", Comm. Math. Phys. 376 (2020).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from lognorm_jax import laws, masks, weights
from lognorm_jax._tools import checks, norms

__all__ = [
    "Ensemble",
    "beta",
    "dead_mass",
    "describe",
    "equal_beta",
    "fan_shift",
    "limit_law",
    "log_alive",
    "log_variance",
    "predictable_variance",
    "ratio_third_cumulant",
    "total_fan_shift",
]

Mask = masks.Mask
Weights = weights.Weights
# (output width, mask): what theory needs of a layer
Kind = tuple[int, Mask]


class Layers(NamedTuple):
    """The distinct layers of an ensemble, by output width and mask.

    Attributes:
        distinct: (output width, mask) of each.
        places: which of them each layer is, (depth,) integers.
        counts: how often each appears.
    """

    distinct: tuple[Kind, ...]
    places: np.ndarray  # (depth,)
    counts: dict[Kind, int]


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Products of ``depth`` random matrices.

    Hashable: it may be a static argument of jit.

    Attributes:
        widths: (n_0, …, n_d), integers ≥ 1, at least two; they may be uneven.
        weights: the law of one standardised weight.
        masks: d masks, one per layer; given as such, or as one Mask for all layers.
        fan: the variance of a weight: "out", 1/(E D² n_i), so that E‖x_i‖² =
            ‖x_{i−1}‖²; or "in", 1/(E D² n_{i−1}), the He convention, which only adds
            ln(n_i/n_{i−1}) to each increment.

    Raises:
        ValueError: for fields that are not of their kind, another number of masks than
            of layers, and widths that weights of structured rows do not fit.

    >>> Ensemble((64, 32, 32), weights.normal(), masks.relu()).depth
    2
    """

    widths: tuple[int, ...]
    weights: Weights
    masks: tuple[Mask, ...]
    fan: str = "out"

    if TYPE_CHECKING:
        # what the fields are made of
        def __init__(
            self,
            widths: Sequence[int] | np.ndarray,
            weights: Weights,
            masks: Mask | Sequence[Mask],
            fan: str = "out",
        ) -> None: ...

    def __post_init__(self):
        widths = _widths(self.widths)
        checks.instance("weights", self.weights, Weights)
        per_layer = _masks(self.masks, len(widths) - 1)
        checks.one_of("fan", self.fan, ("out", "in"))
        _require_rows(self.weights, widths)
        object.__setattr__(self, "widths", widths)
        object.__setattr__(self, "masks", per_layer)

    def __getstate__(self):
        # without what is cached
        return {x.name: getattr(self, x.name) for x in dataclasses.fields(self)}

    @property
    def depth(self) -> int:
        """d, the number of matrices."""
        return len(self.widths) - 1

    @functools.cached_property
    def layers(self) -> Layers:
        """The distinct layers, and which of them each layer is; counted once."""
        # by the identity of masks first: that is quicker than hashes of 10⁶ masks
        by_id = {id(mask): mask for mask in self.masks}
        pairs = list(zip(self.widths[1:], map(id, self.masks), strict=True))
        kinds = {pair: (pair[0], by_id[pair[1]]) for pair in dict.fromkeys(pairs)}

        # then merge masks that are equal
        distinct = tuple(dict.fromkeys(kinds.values()))
        number = {kind: i for i, kind in enumerate(distinct)}
        place = {pair: number[kind] for pair, kind in kinds.items()}
        places = np.array([place[pair] for pair in pairs], np.int32)
        places.flags.writeable = False
        counts = np.bincount(places).tolist()
        return Layers(distinct, places, dict(zip(distinct, counts, strict=True)))


def _require_rows(weight_law: Weights, widths: tuple[int, ...]) -> None:
    """Require input widths that have rows of so many weights."""
    rows = weight_law.rows
    if rows is None:
        return
    least = f"at least {rows.kept}"
    multiple = f"a multiple of {rows.group}"
    allowed = f"{least if rows.group is None else multiple}, for {weight_law.name}"
    for i, n in enumerate(widths[:-1]):
        fits = n >= rows.kept if rows.group is None else n % rows.group == 0
        checks.require(fits, f"widths[{i}]", n, allowed)


def require_independent(ensemble: Ensemble) -> None:
    """Require weights of which the zeros of a row do not depend on one another.

    Raises:
        ValueError: for others, and for what is no Ensemble.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    law = ensemble.weights
    allowed = "a law of independent entries"
    instead = "Sample it with paths.dense, or spectra.path."
    checks.require(law.rows is None, "ensemble.weights", law.name, allowed, instead)


def _widths(widths: Any) -> tuple[int, ...]:
    allowed = "a sequence of at least two integers ≥ 1"
    checks.listed("widths", widths, allowed)
    checks.require(len(widths) >= 2, "widths", widths, allowed)
    return tuple(checks.integer(f"widths[{i}]", n, 1) for i, n in enumerate(widths))


def _masks(given: Any, depth: int) -> tuple[Mask, ...]:
    """Return one mask per layer."""
    if isinstance(given, Mask):
        return (given,) * depth
    allowed = f"one Mask, or a sequence of {depth} masks, one per layer"
    instead = "Make it with a call such as masks.relu()."
    checks.require(checks.is_sequence(given), "masks", given, allowed, instead)
    length = len(given)
    checks.require(length == depth, "len(masks)", length, f"{depth}: {allowed}")
    for i, mask in enumerate(given):
        checks.instance(f"masks[{i}]", mask, Mask)
    return tuple(given)


def layer_index(ensemble: Ensemble) -> tuple[tuple[Kind, ...], np.ndarray]:
    """Return the distinct (output width, mask), and which each layer is, (depth,)."""
    checks.instance("ensemble", ensemble, Ensemble)
    return ensemble.layers.distinct, ensemble.layers.places


def layer_counts(ensemble: Ensemble) -> dict[Kind, int]:
    """Return how often each (output width, mask) appears."""
    checks.instance("ensemble", ensemble, Ensemble)
    return ensemble.layers.counts


def _per_layer(ensemble: Ensemble, value: Callable[[Mask], Any]) -> np.ndarray:
    """Return ``value(mask)`` of each layer, (depth,), computed once a distinct one."""
    layers = ensemble.layers
    values = [float(value(mask)) for _, mask in layers.distinct]
    return np.array(values)[layers.places]


def _output_widths(ensemble: Ensemble) -> np.ndarray:  # (depth,)
    return np.array(ensemble.widths[1:], dtype=np.float64)


def _dimensions(ensemble: Ensemble) -> np.ndarray:
    """Return N = max(n_i, n_{i−1}), of which orthogonal matrices are cut, (depth,)."""
    widths = np.array(ensemble.widths, dtype=np.float64)
    return np.maximum(widths[1:], widths[:-1])


def describe(ensemble: Ensemble) -> dict[str, Any]:
    """Return what the ensemble is, for ``json`` and ``runs.open_run``.

    Args:
        ensemble: any.

    Returns:
        A dictionary of "widths" and "masks", each as [value, how often in a row] pairs,
        and the names of "weights" and "fan".

    Raises:
        ValueError: for what is no Ensemble.

    >>> describe(Ensemble((4, 8, 8), weights.normal(), masks.relu()))["widths"]
    [[4, 1], [8, 2]]
    """
    checks.instance("ensemble", ensemble, Ensemble)
    return {
        "widths": _runs(ensemble.widths),
        "masks": _runs(mask.name for mask in ensemble.masks),
        "weights": ensemble.weights.name,
        "fan": ensemble.fan,
    }


def _runs(values) -> list[list]:
    """Return values in runs of equals: [value, how often in a row]."""
    return [[value, len(list(run))] for value, run in itertools.groupby(values)]


def fan_shift(ensemble: Ensemble) -> np.ndarray:
    """Return what the fan convention adds to each increment.

    That is ln(n_i/n_{i−1}) for fan "in", else 0.

    Args:
        ensemble: any.

    Returns:
        (depth,), float64.

    Raises:
        ValueError: for what is no Ensemble.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    if ensemble.fan == "out":
        return np.zeros(ensemble.depth)
    return np.diff(np.log(np.array(ensemble.widths, dtype=np.float64)))


def total_fan_shift(ensemble: Ensemble) -> float:
    """Return what the fan convention adds to log_norm.

    That is ln(n_d/n_0) for fan "in", else 0.

    Args:
        ensemble: any.

    Returns:
        One number, the sum of ``fan_shift``.

    Raises:
        ValueError: for what is no Ensemble.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    if ensemble.fan == "out":
        return 0.0
    return math.log(ensemble.widths[-1] / ensemble.widths[0])


def unit_direction(ensemble: Ensemble, direction: ArrayLike | None = None) -> Any:
    """Return a direction divided by its norm.

    Args:
        ensemble: of input width n_0.
        direction: (n_0,), default the flat one; it may be traced.

    Returns:
        (n_0,), of norm 1.

    Raises:
        ValueError: for a wrong length, for zero, and for entries that are not finite.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    n = ensemble.widths[0]
    if direction is None:
        return np.full(n, n**-0.5)
    return norms.unit(checks.vector("direction", direction, (n,)))


def beta(ensemble: Ensemble) -> float:
    """Return the aspect ratio β = Σ 1/n_i over masked layers, by their output width.

    Layers with ``masks.identity()``, such as a linear head, do not count; all other
    masks do. (A pure product of matrices that counts, p = 1 in the theorem, has
    ``masks.bernoulli(1)``: v = 2β.)

    Args:
        ensemble: any.

    Returns:
        β ≥ 0.

    Raises:
        ValueError: for what is no Ensemble.

    Source:
        Hanin & Nica (2020), as in theory section 0.

    >>> beta(Ensemble((784, 64, 32, 16), weights.normal(), masks.relu()))
    0.109375
    """
    counts = layer_counts(ensemble).items()
    return math.fsum(count / n for (n, mask), count in counts if mask.counts)


def log_variance(ensemble: Ensemble, direction: ArrayLike | None = None) -> float:
    """Return the variance of the limit law for the unit vector along ``direction``.

    v = Σ_i (3 m4/m2² − 1)/n_i + (μ4 − 3)(m4/m2²) κ(u)/n_1, which is (3/p − 1)β + … for
    {0, 1} masks: 5β for ReLU layers, plus 2/n for each linear one. Orthogonal weights
    take off 2/max(n_i, n_{i−1}): 3β for ReLU layers of equal widths, 0 for linear ones.
    Where the zeros of a row depend on one another coordinates become more unequal from
    layer to layer, and that is followed: k weights a row make (c − 1)β of ReLU layers,
    c = 6(1 − 1/k)/(1 − 6/k), for wide layers and k well above 6. (For independent
    weights what is alike is left out, of order 1/n².)

    Args:
        ensemble: of the product.
        direction: (n_0,), default the flat one, for which κ(u) = 1/n_0.

    Returns:
        v ≥ 0, of the log of the squared norm.

    Raises:
        ValueError: for a direction of another shape, zero, not finite or traced, and
            for weights without a fourth moment.

    Source:
        Hanin & Nica (2020), theorem for arbitrary vectors; the mask factor derived in
        theory section 1, orthogonal and structured weights in theory section 13; held
        against exact laws and simulation in tests/test_ensembles.py,
        tests/test_volumes.py and tests/test_weights.py.

    >>> log_variance(Ensemble((64,) * 65, weights.normal(), masks.relu()))
    5.0
    """
    checks.instance("ensemble", ensemble, Ensemble)
    checks.require_known("direction", direction)
    if ensemble.weights.orthogonal:
        kurtosis = _per_layer(ensemble, lambda mask: mask.kurtosis)
        of_masks = (3 * kurtosis - 1) / _output_widths(ensemble)
        return math.fsum(of_masks - 2 / _dimensions(ensemble))
    if ensemble.weights.rows is not None:
        return _log_variance_of_rows(ensemble, unit_direction(ensemble, direction))
    quartic = np.zeros(ensemble.depth)
    quartic[0] = 1 / ensemble.widths[0]
    if direction is not None:
        quartic[0] = np.sum(unit_direction(ensemble, direction) ** 4)
    return math.fsum(predictable_variance(ensemble, quartic))


def _log_variance_of_rows(ensemble: Ensemble, unit: np.ndarray) -> float:
    """Return the variance of the limit law where zeros of a row depend on one another.

    How unequal coordinates are matters at each layer: κ, and of groups Σ (Σ x_j²)², go
    from layer to layer as ratios of means.
    """
    rows = ensemble.weights.rows
    assert rows is not None
    squares = np.asarray(unit, np.float64) ** 2
    kappa = float(np.sum(squares**2))
    group = rows.group or len(squares)
    among = float(np.sum(squares.reshape(-1, group).sum(1) ** 2))
    total = 0.0
    pairs = zip(ensemble.widths[:-1], ensemble.widths[1:], ensemble.masks, strict=True)
    for n_in, n, mask in pairs:
        second = float(mask.kurtosis) * rows.fourth(n_in, kappa, among)
        total += (second - 1) / n
        kappa = second / (second + n - 1)
        among = (second + (rows.group or n) - 1) / (second + n - 1)
    return total


def predictable_variance(ensemble: Ensemble, quartic: ArrayLike) -> np.ndarray:
    """Return Var(R_i | past) of each layer, for R_i of mean one.

    Var(R|x) = (1/n)[(m4/m2²)(3 + (μ4 − 3)κ(x)) − 1], with κ(x) = ‖x‖₄⁴/‖x‖₂⁴ of the
    vector the layer is applied to. Exact at every width. In the fan "in" convention it
    is that of R_i/E R_i. With orthogonal weights the image of x is uniform: N/(N + 2) ·
    (3 m4/m2² + n − 1)/n − 1, N = max(n_i, n_{i−1}), whatever x.

    Args:
        ensemble: of the product.
        quartic: (..., depth), κ before each layer, in [0, 1], as in ``Trace.quartic``;
            0 gives the generic value.

    Returns:
        (..., depth), float64.

    Raises:
        ValueError: for a quartic of another shape or range, for weights without a
            fourth moment, and for those of ``weights.n_of_m``, for which the quartic
            does not say enough.

    Source:
        Derived in theory section 2; held against simulation in tests/test_ensembles.py.
    """
    kappa = _quartic(ensemble, quartic)
    if ensemble.weights.orthogonal:
        n, N = _output_widths(ensemble), _dimensions(ensemble)
        kurtosis = _per_layer(ensemble, lambda mask: mask.kurtosis)
        variance = N / (N + 2) * (3 * kurtosis + n - 1) / n - 1
        return np.broadcast_to(variance, kappa.shape).copy()
    second = _second_moment(ensemble, kappa)
    return (second - 1) / _output_widths(ensemble)


def ratio_third_cumulant(ensemble: Ensemble, quartic: ArrayLike) -> np.ndarray:
    """Return the third central moment of R_i given the past, for R_i of mean one.

    E(R − 1)³ = (E Y³ − 3 E Y² + 2)/n² with Y = D²(w·x)²/m2 and E Y³ = (m6/m2³)(15 +
    15(μ4 − 3)κ + (μ6 − 15μ4 + 30)κ₆). κ₆ = Σ x_a⁶ is taken to be κ²: exact for normal
    weights, and where the non-zero coordinates of x are equal in size (flat,
    coordinate); else κ₆ > κ², and the result is too small by (m6/m2³)(μ6 − 15μ4 +
    30)(κ₆ − κ²)/n².

    Args:
        ensemble: of the product.
        quartic: (..., depth), as in ``predictable_variance``.

    Returns:
        (..., depth), float64.

    Raises:
        ValueError: for a quartic of another shape or range, where the sixth moment of
            the weights is infinite, and for weights whose entries are not independent.

    Source:
        Derived in theory section 3; held against simulation in tests/test_ensembles.py.
    """
    require_independent(ensemble)
    kappa = _quartic(ensemble, quartic)
    second = _second_moment(ensemble, kappa)
    third = _third_moment(ensemble, kappa)
    return (third - 3 * second + 2) / _output_widths(ensemble) ** 2


def _quartic(ensemble: Ensemble, quartic: object) -> np.ndarray:
    """Return κ before each layer, (..., depth), as float64."""
    checks.instance("ensemble", ensemble, Ensemble)
    given = checks.vector("quartic", quartic, None, zero=True)
    kappa = np.asarray(given, dtype=np.float64)
    fits = kappa.ndim >= 1 and kappa.shape[-1] == ensemble.depth
    checks.require(fits, "quartic.shape", kappa.shape, f"(..., {ensemble.depth})")
    # up to rounding in any dtype
    inside = bool(np.all((kappa >= 0) & (kappa <= 1.01)))
    checks.require(inside, "quartic", kappa, "in [0, 1], as ‖x‖₄⁴/‖x‖₂⁴ is")
    return kappa


def _second_moment(ensemble: Ensemble, kappa: np.ndarray) -> np.ndarray:
    """Return E Y² for one coordinate Y = D²(w·x)²/m2 of a layer's output."""
    rows = ensemble.weights.rows
    if rows is not None:
        name = ensemble.weights.name
        allowed = "one for which the quartic says all of a direction"
        instead = "Take ensembles.log_variance, or Trace.increment of samples."
        checks.require(rows.group is None, "ensemble.weights", name, allowed, instead)
        n_in = np.array(ensemble.widths[:-1])
        each = [rows.fourth(int(n), kappa[..., i]) for i, n in enumerate(n_in)]
        fourth = np.stack(each, axis=-1)
        return _per_layer(ensemble, lambda mask: mask.kurtosis) * fourth
    mu4 = float(ensemble.weights.kurtosis)
    fourth = 3 + (mu4 - 3) * kappa  # E(w·x)⁴ for ‖x‖ = 1
    return _per_layer(ensemble, lambda mask: mask.kurtosis) * fourth


def _third_moment(ensemble: Ensemble, kappa: np.ndarray) -> np.ndarray:
    """Return E Y³, where Σ x_a⁶ is taken to be κ²."""
    mu4 = float(ensemble.weights.kurtosis)
    mu6 = float(ensemble.weights.moment(3))
    sixth = 15 + 15 * (mu4 - 3) * kappa + (mu6 - 15 * mu4 + 30) * kappa**2
    ratio = _per_layer(ensemble, lambda mask: mask.moment(3) / mask.moment(1) ** 3)
    return ratio * sixth


def limit_law(ensemble: Ensemble, direction: ArrayLike | None = None) -> laws.Law:
    """Return the limit law of log_norm: N(−v/2, v), shifted by fan "in".

    The shift is ln(n_d/n_0). It is a limit: at width n its variance is low by a
    relative 3.7/n (ReLU), and its KS distance to the truth is about 1/n; it has no atom
    at −inf.

    Args:
        ensemble: of the product.
        direction: (n_0,), default the flat one.

    Returns:
        A normal law, with v of ``log_variance``.

    Raises:
        ValueError: as ``log_variance``, and where v is 0, as of orthogonal linear
            layers of equal widths.

    Source:
        Hanin & Nica (2020), as in theory section 1.
    """
    v = log_variance(ensemble, direction)
    return laws.normal(total_fan_shift(ensemble) - v / 2, v)


def log_alive(ensemble: Ensemble) -> float:
    """Return ln P(log_norm > −inf) = Σ ln(1 − P(D = 0)^{n_i}).

    Args:
        ensemble: of weights without atoms.

    Returns:
        A number ≤ 0, to rounding, however small the probability.

    Raises:
        ValueError: for weights with atoms: there x can also vanish by cancellation.

    Source:
        As in theory section 0.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    law = ensemble.weights
    instead = "Estimate it with sampling.stream(paths.dense(ensemble), ...).dead."
    allowed = "a law without atoms"
    checks.require(not law.atoms, "ensemble.weights", law.name, allowed, instead)
    counts = ensemble.layers.counts.items()
    return math.fsum(count * masks.log_alive(mask, n) for (n, mask), count in counts)


def dead_mass(ensemble: Ensemble) -> float:
    """Return P(log_norm = −inf) = 1 − Π(1 − P(D = 0)^{n_i}).

    Args:
        ensemble: of weights without atoms.

    Returns:
        A probability, the atom of the law of log_norm.

    Raises:
        ValueError: for weights with atoms: there x can also vanish by cancellation.

    Source:
        As in theory section 0.

    >>> round(dead_mass(Ensemble((2,) * 11, weights.normal(), masks.relu())), 4)
    0.9437
    """
    return max(0.0, -math.expm1(log_alive(ensemble)))


def equal_beta(
    beta: float,
    widths: Sequence[int],
    *,
    weight_law: Weights | None = None,
    mask: Mask | None = None,
    fan: str = "out",
    input_width: int | None = None,
) -> list[Ensemble]:
    """Return ensembles of other shape and equal β: depth β·n for each width n.

    Args:
        beta: > 0.
        widths: one or more; β·n must be an integer ≥ 1 for each.
        weight_law: default normal.
        mask: default that of a ReLU.
        fan: as in ``Ensemble``.
        input_width: n_0, an integer ≥ 1, default n.

    Returns:
        One ensemble for each width, in their order.

    Raises:
        ValueError: where β·n is no integer, so that no depth gives that β; for a mask
            that does not count in β; and for arguments that are not of their kind.

    >>> [e.depth for e in equal_beta(0.25, [16, 32, 64])]
    [4, 8, 16]
    """
    beta = checks.number("beta", beta, "(0, inf)")
    allowed = "a sequence of one or more integers ≥ 1"
    checks.listed("widths", widths, allowed)
    checks.require(len(widths) > 0, "widths", widths, allowed)
    weight_law = weights.normal() if weight_law is None else weight_law
    mask = masks.relu() if mask is None else mask
    checks.instance("mask", mask, Mask)
    instead = (
        "A linear layer does not count in β; masks.bernoulli(1) is a linear layer that "
        "does."
    )
    checks.require(mask.counts, "mask", mask.name, "a mask that counts", instead)

    family = []
    for width in widths:
        n = checks.integer("width", width, 1)
        first = n if input_width is None else input_width
        shape = (first, *(n,) * _depth(beta, n))
        family.append(Ensemble(shape, weight_law, mask, fan))
    return family


def _depth(beta: float, width: int) -> int:
    """Return the depth of a product of equal widths that has a β."""
    depth = round(beta * width)
    whole = 1 <= depth <= 10**8 and abs(depth - beta * width) < 1e-9 * depth
    allowed = f"such that {beta}·width is an integer in 1…10⁸, a depth"
    checks.require(whole, "width", width, allowed)
    return depth
