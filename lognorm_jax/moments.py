"""Exact integer moments of the norm, for any symmetric weights, any mask and any direction.

Paths counted as transfer matrices: with power sums p_r(x) = Σ_a x_a^{2r} and P_λ = Π_j p_{λ_j} for
a partition λ of k, a layer x' = DWx maps the P_λ linearly, on average, to themselves:

    E[P_λ(x') | x] = Σ_π (n)_{|π|} Π_{b∈π} E D^{2r_b} s^{2r_b} E[(w·x)^{2r_b} | x],

over the set partitions π of the parts of λ, r_b being the sum of the parts in block b, (n)_j the
falling factorial, and E[(w·x)^{2r} | x] a combination of the P_ν(x), ν a partition of r, with the
cumulants of one weight in its coefficients. ‖x‖^{2k} is P_λ for λ = (1, …, 1).

Source: derived; tests/test_moments.py holds it against enumeration, sampling and exact laws.
"""

import functools
import itertools
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np

from lognorm_jax import checks, ensembles, masks, weights

_MOST = 12  # largest k: its matrices are 77 × 77

Partition = tuple[int, ...]  # parts in descending order


@functools.cache
def partitions(k: int) -> tuple[Partition, ...]:
    """Return the partitions of k, from (k,) to (1, …, 1): 1, 2, 3, 5, 7, 11, … of them."""

    def below(total, largest):
        if total == 0:
            yield ()
        for part in range(min(total, largest), 0, -1):
            for rest in below(total - part, part):
                yield (part, *rest)

    return tuple(below(k, k))


@functools.cache
def _mergers(parts: Partition) -> Counter[Partition]:
    """Count the set partitions of the parts by the sums of their blocks."""
    found = Counter({(): 1})
    for part in parts:
        step = Counter()
        for blocks, count in found.items():
            step[_sorted(*blocks, part)] += count
            for i, block in enumerate(blocks):
                step[_sorted(*blocks[:i], block + part, *blocks[i + 1 :])] += count
        found = step
    return found


def _sorted(*parts: int) -> Partition:
    return tuple(sorted(parts, reverse=True))


@functools.cache
def _cumulants(law: weights.Weights, k: int) -> tuple:
    """Return κ_2, κ_4, …, κ_2k of one weight; the odd ones are 0."""
    moment = [law.moment(j) for j in range(k + 1)]
    found = [Fraction(0)]
    for m in range(1, k + 1):
        known = (math.comb(2 * m - 1, 2 * j - 1) * found[j] * moment[m - j] for j in range(1, m))
        found.append(moment[m] - sum(known))
    return tuple(found[1:])


@functools.cache
def _projected(law: weights.Weights, r: int) -> dict[Partition, Any]:
    """Return E[(w·x)^{2r} | x] as coefficients of P_ν(x), ν a partition of r."""
    cumulant = _cumulants(law, r)
    found = {}
    for nu in partitions(r):
        ways = math.factorial(2 * r)
        for part, multiplicity in Counter(nu).items():
            ways //= math.factorial(2 * part) ** multiplicity * math.factorial(multiplicity)
        found[nu] = ways * math.prod(cumulant[part - 1] for part in nu)
    return found


@functools.cache
def _products(law: weights.Weights, k: int) -> list[list]:
    """Return Π_{r∈μ} E[(w·x)^{2r} | x] as coefficients of P_ν(x): rows μ, columns ν."""
    index = {nu: i for i, nu in enumerate(partitions(k))}
    rows = []
    for mu in partitions(k):
        total = {(): Fraction(1)}
        for r in mu:
            step = Counter()
            for (nu, a), (more, b) in itertools.product(total.items(), _projected(law, r).items()):
                step[_sorted(*nu, *more)] += a * b
            total = step
        row = [Fraction(0)] * len(index)
        for nu, coefficient in total.items():
            row[index[nu]] = coefficient
        rows.append(row)
    return rows


@functools.lru_cache(maxsize=256)
def _transfer(law: weights.Weights, mask: masks.Mask, fan_in: int, width: int, k: int) -> list:
    """Return E[P_λ(x') | x], rows λ, as coefficients of P_ν(x), columns ν; s² = 1/(m2·fan_in)."""
    scale = (mask.moment(1) * fan_in) ** k
    weight = {
        mu: math.perm(width, len(mu)) * math.prod(mask.moment(r) for r in mu) / scale
        for mu in partitions(k)
    }
    products = dict(zip(partitions(k), _products(law, k), strict=True))
    rows = []
    for parts in partitions(k):
        terms = [(ways * weight[mu], products[mu]) for mu, ways in _mergers(parts).items()]
        rows.append([sum(c * row[j] for c, row in terms) for j in range(len(weight))])
    return rows


def _entries(direction: Any, n: int) -> list[Fraction | float]:
    """Return the entries of a direction (n,): integers and fractions become Fractions."""
    allowed = f"an array of shape ({n},) of finite real numbers, not all zero"
    entries = np.asarray(direction)
    if entries.dtype != object:
        entries = np.asarray(checks.vector("direction", direction, (n,)))
        entries = entries.astype(int) if entries.dtype == bool else entries
    checks.require(entries.shape == (n,), "direction", direction, allowed)
    found = [checks.real("direction", entry, allowed) for entry in entries.tolist()]
    checks.require(any(found), "direction", direction, allowed)
    return found


def _power_sums(entries: list[Fraction | float], k: int) -> list:
    """Return P_ν of the unit vector along the entries."""
    largest = max(map(abs, entries))
    squares = [(entry / largest) ** 2 for entry in entries]
    total = sum(squares)
    power = [sum((square / total) ** r for square in squares) for r in range(k + 1)]
    return [math.prod((power[part] for part in nu), start=Fraction(1)) for nu in partitions(k)]


def _check_weights(law: weights.Weights, k: int) -> None:
    checks.require(
        law.symmetric or k <= 2,
        "ensemble.weights",
        law.name,
        f"a symmetric law: for k = {k} odd power sums would enter",
        "Take k ≤ 2, which holds for any law of mean 0, or sample with paths.dense.",
    )
    try:
        law.moment(k)
    except ValueError as error:
        raise ValueError(
            f"k = {k}: must be at most half the order of the highest finite moment of "
            f"{law.name} weights. E‖Mu‖^{2 * k} is infinite: compare laws of log_norm, "
            "sampled with paths.dense."
        ) from error


def norm_moment(ensemble: ensembles.Ensemble, k: int, direction: Any = None) -> Fraction | float:
    """Return E‖Mu‖^{2k} for the unit vector u along ``direction``; a dead path counts as 0.

    k: an integer in 0…12. direction: (n_0,), default the flat one. A Fraction if the parameters of
    weights and masks and the entries of the direction are integers or Fractions; else a float,
    to about 1e-11 relative at k = 8, which is inf where it overflows. Matrices have the size p(k) =
    1, 2, 3, 5, 7, 11, …, 77, so the cost is p(k)² numbers a layer, whatever the widths.

    Raises ``ValueError`` for other k, for weights without a finite moment of order 2k, and from
    k = 3 for weights that are not symmetric. For large k·β the mean is carried by very rare paths:
    a Monte Carlo estimate of it has relative standard deviation e^{5k²β/2} a path.
    Source: derived; at k = 2 and normal weights it is Π(1 + (3 m4/m2² − 1)/n_i), see tests.

    >>> from lognorm_jax import masks, weights
    >>> ensemble = ensembles.Ensemble((5, 7, 6, 8), weights.rademacher(), masks.relu())
    >>> norm_moment(ensemble, 2, direction=[9, 3, -2, 5, 1])
    Fraction(313219, 100800)
    """
    checks.instance("ensemble", ensemble, ensembles.Ensemble)
    k = checks.integer("k", k, 0)
    checks.require(k <= _MOST, "k", k, f"an integer in 0…{_MOST}")
    _check_weights(ensemble.weights, k)
    n = ensemble.widths[0]
    start = [Fraction(1, n) ** (k - len(nu)) for nu in partitions(k)]
    if direction is not None:
        start = _power_sums(_entries(direction, n), k)
    fans = ensemble.widths[1:] if ensemble.fan == "out" else ensemble.widths[:-1]
    shapes = list(zip(ensemble.masks, fans, ensemble.widths[1:], strict=True))
    transfers = {shape: _transfer(ensemble.weights, *shape, k) for shape in set(shapes)}
    entries = itertools.chain(start, *itertools.chain(*transfers.values()))
    if all(isinstance(entry, Fraction) for entry in entries):
        return _exact(start, [transfers[shape] for shape in reversed(shapes)])
    numbers = {shape: np.array(rows, dtype=np.float64) for shape, rows in transfers.items()}
    row = np.zeros(len(start))
    row[-1] = 1.0
    with np.errstate(over="ignore"):
        for shape in reversed(shapes):
            row = row @ numbers[shape]
        return float(row @ np.array(start, dtype=np.float64))


def _exact(start: list[Fraction], transfers: list[list]) -> Fraction:
    """Return the last entry of the product of the transfers applied to start, in integers."""
    whole = {id(rows): _common(itertools.chain(*rows)) for rows in transfers}
    size, denominator = len(start), 1
    row = [0] * (size - 1) + [1]
    for rows in transfers:
        flat, common = whole[id(rows)]
        row = [sum(map(int.__mul__, row, flat[j::size])) for j in range(size)]
        denominator *= common
    flat, common = _common(start)
    return Fraction(sum(map(int.__mul__, row, flat)), denominator * common)


def _common(entries) -> tuple[list[int], int]:
    """Return Fractions as integers over their common denominator."""
    entries = list(entries)
    common = math.lcm(*(entry.denominator for entry in entries))
    return [entry.numerator * (common // entry.denominator) for entry in entries], common


def pre_activation_kurtosis(
    ensemble: ensembles.Ensemble, kurtosis: float = 3, covariance: float = 0
) -> Fraction | float:
    """Return E z⁴/(E z²)² of one pre-activation z of the last layer of a network of this shape.

    z_i = W_i D_i z_{i−1}: here the mask of layer i stands before its matrix, as an activation does.
    z_0 has n_0 exchangeable entries of this kurtosis (raw, ≥ 1: 3 for normal) and this covariance
    of squares E z_a² z_b²/(E z²)² − 1. The scale of the weights, and so the fan, cancels.

    Source: derived; the recursion of norm_moment at k = 2 for one coordinate.

    >>> from lognorm_jax import masks, weights
    >>> shape = ensembles.Ensemble((7,) * 10, weights.rademacher(), masks.relu())
    >>> f"{float(pre_activation_kurtosis(shape, Fraction('3.3'), Fraction('0.1'))):.12f}"
    '88.978483435198'
    """
    checks.instance("ensemble", ensemble, ensembles.Ensemble)
    fourth = checks.real("kurtosis", kurtosis, "a finite number ≥ 1")
    checks.require(fourth >= 1, "kurtosis", kurtosis, "a finite number ≥ 1")
    joint = 1 + checks.real("covariance", covariance, "a finite number ≥ −1")
    checks.require(joint >= 0, "covariance", covariance, "a finite number ≥ −1")
    _check_weights(ensemble.weights, 2)
    mu4 = ensemble.weights.kurtosis
    for n, mask in zip(ensemble.widths[:-1], ensemble.masks, strict=True):
        own, others = mask.kurtosis * fourth / n, joint * Fraction(n - 1, n)
        fourth, joint = mu4 * own + 3 * others, own + others
    return fourth
