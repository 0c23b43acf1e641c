"""Exact integer moments of the norm: any symmetric weights, any mask, any direction.

Paths counted as transfer matrices. For a partition λ of k let m_λ(x) be the sum over
distinct indices a_1, a_2, … of Π_j x_{a_j}^{2λ_j}. The rows of a layer x' = DWx are
independent given x, so

    E[m_λ(x') | x] = (n)_{|λ|} Π_j E D^{2λ_j} s^{2λ_j} E[(w·x)^{2λ_j} | x],

with n the width, (n)_j the falling factorial and s² the variance of a weight; and
E[(w·x)^{2r} | x] is the sum over the partitions ν of r of (2r)!/Π_i (2ν_i)! Π_i E
w^{2ν_i} m_ν(x)/Π mult!. Products of such sums are sums of m_ν again, and ‖x‖^{2k} is
one too. All coefficients are positive: nothing cancels, in floats either.

Source: derived in theory section 5; held against enumeration, sampling and exact laws
in tests/test_moments.py.
"""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from lognorm_jax import ensembles, masks, weights
from lognorm_jax._tools import checks

__all__ = ["norm_moment", "partitions", "pre_activation_kurtosis"]

_MOST = 12  # largest k of a moment: its matrices are 77 × 77
_LARGEST = 50  # that has its partitions listed

Partition = tuple[int, ...]  # parts in descending order
Sums = Mapping[Partition, Any]  # coefficients of m_ν, integers or Fractions
Matrix = list[list[Fraction]]
Numbers = list[Fraction | float]


def partitions(k: int) -> tuple[Partition, ...]:
    """Return the partitions of k, from (k,) to (1, …, 1): 1, 2, 3, 5, 7, 11, … of them.

    Args:
        k: an integer in 0…50, where there are 204,226.

    Returns:
        The partitions, each a tuple of its parts in descending order.

    Raises:
        ValueError: for other k.
    """
    k = checks.integer("k", k, 0)
    instead = "The number of partitions of k grows as exp(2.57 √k)."
    checks.require(k <= _LARGEST, "k", k, f"an integer in 0…{_LARGEST}", instead)
    return _partitions(k)


@functools.cache
def _partitions(k: int) -> tuple[Partition, ...]:
    def below(total, largest):
        if total == 0:
            yield ()
        for part in range(min(total, largest), 0, -1):
            for rest in below(total - part, part):
                yield (part, *rest)

    return tuple(below(k, k))


@functools.cache
def _set_partitions(k: int) -> Counter[Partition]:
    """Count set partitions of k things by their block sizes: ‖x‖^{2k} in sums m_ν."""
    one: Counter[Partition] = Counter({(): 1})
    for _ in range(k):
        one = _times(one, {(1,): 1})
    return one


def _sorted(*parts: int) -> Partition:
    """Return parts in descending order."""
    return tuple(sorted(parts, reverse=True))


def _times(left: Sums, right: Sums) -> Counter[Partition]:
    """Multiply two sums of m_ν: indices of one may meet those of the other, or not."""
    product: Counter[Partition] = Counter()
    for (mu, a), (nu, b) in itertools.product(left.items(), right.items()):
        for merged, ways in _meetings(mu, nu).items():
            product[merged] += a * b * ways
    return product


@functools.cache
def _meetings(mu: Partition, nu: Partition) -> Counter[Partition]:
    """Count the ways in which parts of ν join distinct parts of μ, or stand alone."""
    # parts of μ not yet met, and the rest
    ways: Counter[tuple[Partition, Partition]] = Counter({(mu, ()): 1})
    for part in nu:
        longer: Counter[tuple[Partition, Partition]] = Counter()
        for (free, rest), count in ways.items():
            longer[free, _sorted(*rest, part)] += count
            for i, met in enumerate(free):
                others = (*free[:i], *free[i + 1 :])
                longer[others, _sorted(*rest, met + part)] += count
        ways = longer

    merged: Counter[Partition] = Counter()
    for (free, rest), count in ways.items():
        merged[_sorted(*free, *rest)] += count
    return merged


@functools.cache
def _projected(weight_law: weights.Weights, r: int) -> Sums:
    """Return E[(w·x)^{2r} | x] as coefficients of m_ν(x), ν a partition of r."""
    coefficients = {}
    for nu in partitions(r):
        orders = math.prod(math.factorial(2 * part) for part in nu)
        equal = math.prod(map(math.factorial, Counter(nu).values()))
        ways = Fraction(math.factorial(2 * r) // orders, equal)
        moments = (Fraction(weight_law.moment(part)) for part in nu)
        coefficients[nu] = ways * math.prod(moments)
    return coefficients


@functools.cache
def _products(weight_law: weights.Weights, k: int) -> list[Counter[Partition]]:
    """Return Π_j E[(w·x)^{2μ_j} | x] in m_ν(x), for each partition μ of k."""
    one: Counter[Partition] = Counter({(): 1})
    factors = ([_projected(weight_law, r) for r in mu] for mu in partitions(k))
    return [functools.reduce(_times, sums, one) for sums in factors]


def _mask_moments(mask: masks.Mask, k: int) -> list[Fraction]:
    """Return E D^{2r} for r ≤ k; exactly those of the support, where there is one."""
    if mask.support is None:
        return [Fraction(mask.moment(r)) for r in range(k + 1)]
    pairs = [(Fraction(value) ** 2, Fraction(prob)) for value, prob in mask.support]
    powers = ((prob * square**r for square, prob in pairs) for r in range(k + 1))
    return [sum(terms, Fraction(0)) for terms in powers]


@functools.lru_cache(maxsize=256)
def _transfer(
    weight_law: weights.Weights, mask: masks.Mask, fan_in: int, width: int, k: int
) -> list[list[Fraction]]:
    """Return E[m_λ(x') | x], rows λ, in m_ν(x), columns ν; s² = 1/(m2·fan_in)."""
    moment = _mask_moments(mask, max(k, 1))
    scale = (moment[1] * fan_in) ** k
    rows = []
    for parts, product in zip(partitions(k), _products(weight_law, k), strict=True):
        kept = math.prod(moment[r] for r in parts)
        factor = math.perm(width, len(parts)) * kept / scale
        rows.append([factor * product[nu] for nu in partitions(k)])
    return rows


def _entries(direction: object, n: int) -> list[Fraction | float]:
    """Return the entries of a direction (n,): integers and fractions as Fractions."""
    allowed = f"an array of shape ({n},) of finite real numbers, not all zero"
    try:
        entries = np.asarray(direction)
    except ValueError:
        checks.require(False, "direction", direction, allowed)
    if entries.dtype != object:
        entries = np.asarray(checks.vector("direction", direction, (n,)))
        entries = entries.astype(int) if entries.dtype == bool else entries
    checks.require(entries.shape == (n,), "direction", direction, allowed)
    numbers = [checks.real("direction", entry, allowed) for entry in entries.tolist()]
    checks.require(any(numbers), "direction", direction, allowed)
    return numbers


def _sums(entries: list[Fraction | float], k: int) -> list[Fraction]:
    """Return m_ν of the unit vector along the entries."""
    squares = [Fraction(entry) ** 2 for entry in entries]
    total = sum(squares, Fraction(0))
    shares = [square / total for square in squares]
    power = [sum((share**r for share in shares), Fraction(0)) for r in range(k + 1)]

    @functools.cache
    def distinct(nu: Partition) -> Fraction:
        if not nu:
            return Fraction(1)
        *rest, last = nu
        whole = distinct(tuple(rest)) * power[last]
        for i, part in enumerate(rest):
            whole -= distinct(_sorted(*rest[:i], part + last, *rest[i + 1 :]))
        return whole

    return [distinct(nu) for nu in partitions(k)]


def _check_weights(weight_law: weights.Weights, k: int) -> None:
    """Refuse weights whose moment of order 2k is infinite, or not enough."""
    checks.require(
        weight_law.rows is None or k <= 1,
        "ensemble.weights",
        weight_law.name,
        f"a law of independent entries, or orthogonal, for k = {k}",
        "Sample it with paths.dense.",
    )
    checks.require(
        weight_law.symmetric or k <= 2,
        "ensemble.weights",
        weight_law.name,
        f"a symmetric law: for k = {k} odd power sums would enter",
        "Take k ≤ 2, which holds for any law of mean 0, or sample with paths.dense.",
    )
    try:
        weight_law.moment(k)
    except OverflowError:  # finite, but not in floats
        return
    except ValueError as error:
        raise ValueError(
            f"k = {k}: must be at most half the order of the highest finite moment of "
            f"{weight_law.name} weights. E‖Mu‖^{2 * k} is infinite: compare laws of "
            "log_norm, sampled with paths.dense."
        ) from error


def norm_moment(
    ensemble: ensembles.Ensemble, k: int, direction: ArrayLike | None = None
) -> Fraction | float:
    """Return E‖Mu‖^{2k} for the unit vector u along a direction; dead paths count as 0.

    Matrices have the size p(k) = 1, 2, 3, 5, 7, 11, …, 77, so a layer costs
    p(k)² products, whatever the widths; those of Fractions grow with the depth (k = 8:
    1 s for 1000 layers).

    For large k·β the mean is carried by very rare paths: a Monte Carlo estimate of it
    has, for ReLU, a relative standard deviation of up to e^{5k²β/2} per path, its
    leading order.

    Args:
        ensemble: of independent weights, symmetric for k ≥ 3; or of orthogonal ones.
        k: an integer in 0…12; at k = 0 the moment is 1.
        direction: (n_0,), not zero, default the flat one.

    Returns:
        A Fraction if the parameters of weights and masks and the entries of the
        direction are integers or Fractions; else a float, to about 1e-15 per layer,
        which is inf where it overflows.

    Raises:
        ValueError: for other k and directions; for weights without a finite moment of
            order 2k; from k = 2 for those of which the zeros of a row depend on one
            another; and from k = 3 for weights that are not symmetric.

    Source:
        Derived in theory section 5; held against enumeration, simulation and reference
        moments in tests/test_moments.py. At k = 2 and normal weights it is Π(1 + (3
        m4/m2² − 1)/n_i).

    >>> from lognorm_jax import masks, weights
    >>> ensemble = ensembles.Ensemble((5, 7, 6, 8), weights.rademacher(), masks.relu())
    >>> norm_moment(ensemble, 2, direction=[9, 3, -2, 5, 1])
    Fraction(313219, 100800)
    """
    checks.instance("ensemble", ensemble, ensembles.Ensemble)
    k = checks.integer("k", k, 0)
    checks.require(k <= _MOST, "k", k, f"an integer in 0…{_MOST}")
    if ensemble.weights.orthogonal:
        return _orthogonal_moment(ensemble, k, direction)
    _check_weights(ensemble.weights, k)
    n = ensemble.widths[0]
    if direction is None:
        entries: Numbers = []
        start = [Fraction(math.perm(n, len(nu)), n**k) for nu in partitions(k)]
    else:
        entries = _entries(direction, n)
        start = _sums(entries, k)

    # from the last layer to the first, each distinct one once
    fans = ensemble.widths[1:] if ensemble.fan == "out" else ensemble.widths[:-1]
    shapes = list(zip(ensemble.masks, fans, ensemble.widths[1:], strict=True))
    counted = _set_partitions(k)
    row = [counted[nu] for nu in partitions(k)]
    try:
        floats = _has_floats(ensemble, k, entries)
        distinct = set(shapes)
        transfers = {one: _transfer(ensemble.weights, *one, k) for one in distinct}
        layers = [transfers[shape] for shape in reversed(shapes)]
        if floats:
            return _in_floats(row, layers, start)
    except OverflowError:  # of a float
        return math.inf
    return _in_integers(row, layers, start)


def _orthogonal_moment(
    ensemble: ensembles.Ensemble, k: int, direction: ArrayLike | None
) -> Fraction | float:
    """Return the moment for orthogonal weights: that of normal ones over those of the
    norms that these have and an orthogonal matrix has not.

    A normal vector of N = max(n_i, n_{i−1}) dimensions is a uniform one times the root
    of an independent χ²_N, and E (χ²_N/N)^k = Π_{j<k} (1 + 2j/N).
    """
    ensembles.unit_direction(ensemble, direction)
    normal = dataclasses.replace(ensemble, weights=weights.normal())
    sizes = Counter(map(max, itertools.pairwise(ensemble.widths)))
    norms = Fraction(1)
    for N, count in sizes.items():
        norms *= math.prod(Fraction(N + 2 * j, N) for j in range(k)) ** count
    moment = norm_moment(normal, k)
    return moment / (norms if isinstance(moment, Fraction) else float(norms))


def _in_floats(counts: list[int], layers: list[Matrix], start: list[Fraction]) -> float:
    """Return row · T_d ⋯ T_1 · start; the scale of the row is carried apart."""
    numbers = {id(rows): np.array(rows, dtype=np.float64) for rows in layers}
    row = np.array(counts, dtype=np.float64)
    exponent = 0
    for rows in layers:
        row = row @ numbers[id(rows)]
        shift = math.frexp(row.max())[1]
        row = np.ldexp(row, -shift)
        exponent += shift
    return math.ldexp(float(row @ np.array(start, dtype=np.float64)), exponent)


def _in_integers(
    row: list[int], layers: list[Matrix], start: list[Fraction]
) -> Fraction:
    """Return the same exactly, over one common denominator."""
    whole = {id(rows): _common(itertools.chain(*rows)) for rows in layers}
    denominator = 1
    for rows in layers:
        entries, common = whole[id(rows)]
        columns = (entries[j :: len(start)] for j in range(len(start)))
        row = [sum(map(int.__mul__, row, column)) for column in columns]
        denominator *= common
    entries, common = _common(start)
    return Fraction(sum(map(int.__mul__, row, entries)), denominator * common)


def _has_floats(ensemble: ensembles.Ensemble, k: int, entries: Numbers) -> bool:
    """Return whether a parameter or an entry of the direction is a float."""
    numbers: list[object] = [*entries]
    numbers += [ensemble.weights.moment(r) for r in range(k + 1)]
    for mask in {id(mask): mask for mask in ensemble.masks}.values():
        numbers += itertools.chain(*mask.support) if mask.support else [mask.moment(1)]
    return any(isinstance(number, float) for number in numbers)


def _common(entries: Iterable[Fraction]) -> tuple[list[int], int]:
    """Return Fractions as integers over their common denominator."""
    entries = list(entries)
    common = math.lcm(*(entry.denominator for entry in entries))
    whole = [entry.numerator * (common // entry.denominator) for entry in entries]
    return whole, common


def pre_activation_kurtosis(
    ensemble: ensembles.Ensemble, kurtosis: float = 3, covariance: float = 0
) -> Fraction | float:
    """Return E z⁴/(E z²)² of one pre-activation z of the last layer.

    z_i = W_i D_i z_{i−1}: here the mask of layer i stands before its matrix, as an
    activation does. The scale of the weights, and so the fan, cancels.

    Args:
        ensemble: of independent weights with a finite fourth moment.
        kurtosis: of the n_0 exchangeable entries of z_0, raw, ≥ 1: 3 for normal ones.
        covariance: of their squares, E z_a² z_b²/(E z²)² − 1 ≥ −1.

    Returns:
        A Fraction if all parameters are rational, else a float.

    Raises:
        ValueError: for other kurtoses and covariances, for weights without a finite
            fourth moment, and for those whose entries are not independent.

    Source:
        Derived in theory section 5, the recursion of ``norm_moment`` at k = 2 for one
        coordinate; held against an independent recursion and simulation in
        tests/test_moments.py.

    >>> from lognorm_jax import masks, weights
    >>> shape = ensembles.Ensemble((7,) * 10, weights.rademacher(), masks.relu())
    >>> exact = pre_activation_kurtosis(shape, Fraction("3.3"), Fraction("0.1"))
    >>> f"{float(exact):.12f}"
    '88.978483435198'
    """
    checks.instance("ensemble", ensemble, ensembles.Ensemble)
    fourth = checks.real("kurtosis", kurtosis, "a finite number ≥ 1")
    checks.require(fourth >= 1, "kurtosis", kurtosis, "a finite number ≥ 1")
    joint = 1 + checks.real("covariance", covariance, "a finite number ≥ −1")
    checks.require(joint >= 0, "covariance", covariance, "a finite number ≥ −1")
    _check_weights(ensemble.weights, 2)
    ensembles.require_independent(ensemble)
    mu4 = ensemble.weights.kurtosis
    for n, mask in zip(ensemble.widths[:-1], ensemble.masks, strict=True):
        same = mask.kurtosis * fourth / n
        apart = joint * Fraction(n - 1, n)
        fourth = mu4 * same + 3 * apart
        joint = same + apart
    return fourth
