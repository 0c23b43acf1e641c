"""Exact finite-width laws for Gaussian weights: any width, depth and mask.

With Gaussian weights the ratios R_i are independent and free of the past, because W x
is normal with covariance ‖x‖²·I for every x. So log_norm is a sum of independent
increments, whatever the direction; ``_density`` has the density of one,
``_quadrature`` its transform, ``_inversion`` the law of the sum.
"""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from lognorm_jax import ensembles, laws, masks
from lognorm_jax._tools import checks
from lognorm_jax.theory import _density, _frames, _inversion, _quadrature, _tilted

__all__ = [
    "cumulants",
    "increment_cumulants",
    "increment_law",
    "law",
    "triangle_means",
    "volume_cumulants",
    "volume_law",
    "volume_limit_law",
]

# an output width and a mask of one vector with normal weights; or a frame
Layer = tuple[int, masks.Mask] | _frames.Frame
Counts = dict[Layer, int]  # how often each appears


def increment_cumulants(
    width: int, mask: masks.Mask, order: int = 4
) -> tuple[float, ...]:
    """Return the first cumulants of ln R given survival: one Gaussian layer, fan "out".

    Of the standard deviation to the power k, the k-th is exact to about 1e-13 up to the
    fourth and 1e-7 up to the eighth; and the mean to 1e-11 relative even at width 10⁶,
    where it is −2.5e-6.

    Args:
        width: n, an integer ≥ 1.
        mask: any with a support of values within a factor 1e8 of one another.
        order: how many, an integer in 1…8.

    Returns:
        κ₁, …, κ_order of the log of the squared-norm ratio: mean, variance, third
        cumulant, ….

    Raises:
        ValueError: for other widths, masks and orders.

    Source:
        Derived in theory section 4; held against the χ² mixture, polygamma functions
        and simulation in tests/test_exact.py.

    >>> [round(c, 6) for c in increment_cumulants(100, masks.relu(), 2)]
    [-0.025421, 0.05194]
    """
    order = _order(order)
    checks.instance("mask", mask, masks.Mask)
    width = checks.integer("width", width, 1)
    return _quadrature.cumulants(width, mask)[:order]


def require_normal(ensemble: ensembles.Ensemble) -> None:
    """Require normal weights, of which increments are independent.

    Raises:
        ValueError: for others, and for what is no Ensemble.
    """
    checks.instance("ensemble", ensemble, ensembles.Ensemble)
    checks.require(
        ensemble.weights.gaussian,
        "ensemble.weights",
        ensemble.weights.name,
        "weights.normal(): with other weights the increments depend on one another",
        "Sample with paths.dense; moments.norm_moment has exact moments of independent "
        "weights.",
    )


def _order(order: object) -> int:
    """Return how many cumulants are wanted, in 1…8."""
    count = checks.integer("order", order, 1)
    checks.require(count <= 8, "order", order, "an integer in 1…8")
    return count


def _cumulants_of(layer: Layer) -> tuple[float, ...]:
    """Return the first eight cumulants of one layer, fan "out"."""
    if isinstance(layer, _frames.Frame):
        return _frames.cumulants(layer)
    return _quadrature.cumulants(*layer)


def _layer_of(layer: Layer) -> _tilted.Layer:
    """Return one layer as the inversion asks for it."""
    if isinstance(layer, _frames.Frame):
        return _frames.layer(layer)
    return _quadrature.layer(_density.increment(*layer))


def _sum_cumulants(counts: Mapping[Layer, int], order: int) -> list[float]:
    """Return the first cumulants of the sum of these layers, fan "out"."""
    if not counts:
        return [0.0] * order
    terms = [
        np.multiply(count, _cumulants_of(layer)[:order])
        for layer, count in counts.items()
    ]
    return [math.fsum(column) for column in zip(*terms, strict=True)]


def _require(ensemble: ensembles.Ensemble) -> None:
    """Require weights that are normal or orthogonal."""
    checks.instance("ensemble", ensemble, ensembles.Ensemble)
    if not ensemble.weights.orthogonal:
        require_normal(ensemble)


def _counts(ensemble: ensembles.Ensemble, k: int) -> Counts:
    """Return how often each layer appears, as it acts on k vectors."""
    orthogonal = ensemble.weights.orthogonal
    if k == 1 and not orthogonal:
        of_vectors: Mapping[tuple[int, masks.Mask], int]
        of_vectors = ensembles.layer_counts(ensemble)
        return dict(of_vectors.items())
    of_frames: Mapping[_frames.Frame, int] = _frame_counts(ensemble, k, orthogonal)
    return dict(of_frames.items())


def _frame_counts(
    ensemble: ensembles.Ensemble, k: int, orthogonal: bool
) -> dict[_frames.Frame, int]:
    """Return how often each layer appears, as it acts on a k-frame."""
    pairs = Counter(
        zip(itertools.pairwise(ensemble.widths), ensemble.masks, strict=True)
    )
    counts: dict[_frames.Frame, int] = {}
    for ((n_in, n), mask), count in pairs.items():
        frame = _frames.Frame(n, _kept(mask), k, max(n_in, n) if orthogonal else 0)
        if not frame.fixed:
            counts[frame] = counts.get(frame, 0) + count
    return counts


def _kept(mask: masks.Mask) -> float:
    """Return p of a mask that is 0 or has one size.

    Raises:
        ValueError: for other masks.
    """
    sizes = {abs(float(value)) for value, _ in mask.support or ()}
    one = "a {0, 1} mask, such as masks.relu() or masks.bernoulli(0.9)"
    instead = "Sample it: spectra.path for volumes, paths.dense for one vector."
    checks.require(len(sizes) == 1, "mask", mask.name, one, instead)
    return float(mask.keep_prob)


def cumulants(ensemble: ensembles.Ensemble, order: int = 4) -> tuple[float, ...]:
    """Return the first cumulants of log_norm given survival.

    The sums of those of the layers. With ``ensembles.dead_mass`` for its atom,
    ``laws.edgeworth`` makes a law of them.

    Args:
        ensemble: as for ``law``.
        order: how many, an integer in 1…8.

    Returns:
        κ₁, …, κ_order: mean, variance, third cumulant, ….

    Raises:
        ValueError: for other orders, weights and masks.

    Source:
        Derived in theory section 4; held against exact moments and simulation in
        tests/test_exact.py.
    """
    return volume_cumulants(ensemble, 1, order)


def volume_cumulants(
    ensemble: ensembles.Ensemble, k: int, order: int = 4
) -> tuple[float, ...]:
    """Return the first cumulants of the log of a squared k-volume given survival.

    Args:
        ensemble: as for ``volume_law``.
        k: likewise.
        order: how many, an integer in 1…8.

    Returns:
        κ₁, …, κ_order: mean, variance, third cumulant, ….

    Raises:
        ValueError: for other orders, k, weights and masks.

    Source:
        Derived in theory section 12; held against the law itself and simulation in
        tests/test_volumes.py.

    >>> from lognorm_jax import weights
    >>> ensemble = ensembles.Ensemble((5, 8, 6, 7), weights.normal(), masks.relu())
    >>> [round(c, 3) for c in volume_cumulants(ensemble, 2, 2)]
    [-3.832, 12.865]
    """
    k = _size(ensemble, k)
    order = _order(order)
    mean, *higher = _sum_cumulants(_counts(ensemble, k), order)
    return (mean + k * ensembles.total_fan_shift(ensemble), *higher)


def triangle_means(ensemble: ensembles.Ensemble, k: int) -> np.ndarray:
    """Return the means of Σ ln R_jj² over layers, R of the QR of a k-frame.

    Given that all layers keep k coordinates. Their sum is the mean of the log of the
    squared k-volume.

    Args:
        ensemble: of normal or orthogonal weights, and {0, 1} masks.
        k: from 1 to the smallest of all widths.

    Returns:
        (k,), float64, descending.

    Raises:
        ValueError: for other k, weights and masks.

    Source:
        Derived in theory section 12; held against Newman's exponents and volumes in
        tests/test_spectra.py.
    """
    size = _size(ensemble, k)
    total = np.full(size, ensembles.total_fan_shift(ensemble))
    orthogonal = ensemble.weights.orthogonal
    for frame, count in _frame_counts(ensemble, size, orthogonal).items():
        total += count * _frames.triangle_means(frame)
    return total


def _size(ensemble: ensembles.Ensemble, k: object) -> int:
    """Return how many vectors go through an ensemble."""
    _require(ensemble)
    size = checks.integer("k", k, 1)
    most = min(ensemble.widths)
    allowed = f"an integer in 1…{most}, the smallest width"
    instead = "More vectors are not independent after that layer: their volume is 0."
    checks.require(size <= most, "k", k, allowed, instead)
    return size


def law(ensemble: ensembles.Ensemble) -> laws.Law:
    """Return the exact law of log_norm, for normal or orthogonal weights.

    Distinct layers are computed once, and neither width nor depth enters the cost: 20
    to 40 ms for each of them, and up to 0.7 s for one or two layers of width below 100
    with many values lost (10⁶ layers: 0.4 s to count them).

    Accuracy: cdf and atom to 1e-12, or in the lower tail beyond the point given below
    to 2e-9; mean and variance to 1e-10 (relative, where they are large). Far tails keep
    a relative accuracy of 1e-8: the upper one, by ``sf`` and the pdf, to 1e-300; the
    lower one to 1e-300 for linear and leaky layers of width ≥ 1000, and for other
    layers to where a single layer with few surviving coordinates, or none but small
    ones, makes up the tail: 1e-50 for 100 ReLU layers of width 1000, 1e-15 at width
    100, 1e-7 for one layer of width 50. Below that point ln P(X ≤ x) goes on as a
    straight line, which says little. Note that the cdf begins at the atom: next to it,
    smaller probabilities cannot be told in float64.

    Args:
        ensemble: of any widths, depth and fan. With normal weights a mask needs a
            support of values within a factor 1e8 of one another, with orthogonal ones
            it is {0, 1}.

    Returns:
        The law, tabulated, with the dead mass for its atom.

    Raises:
        ValueError: for other weights, whose increments depend on one another; for other
            masks; and for orthogonal weights of so few units that the law has steps.

    Source:
        Derived in theory section 4, and of orthogonal weights in theory section 13: for
        {0, 1} masks R_i is χ²_B/(p n_i), B binomial, as in Noci et al. (2021), and with
        orthogonal weights Beta(B/2, (N − B)/2) over p n_i/N. Held against reference
        laws, closed forms and simulation in tests/test_exact.py and
        tests/test_volumes.py.

    >>> from lognorm_jax import weights
    >>> relu_net = ensembles.Ensemble((64, *(16,) * 16), weights.normal(), masks.relu())
    >>> exact_law = law(relu_net)
    >>> exact_law.name, round(exact_law.mean, 6), round(float(exact_law.cdf(-2.822)), 9)
    ('exact law, depth 16, β = 1', -2.822357, 0.483827623)
    """
    return _law(ensemble, 1, "exact law")


def volume_law(ensemble: ensembles.Ensemble, k: int) -> laws.Law:
    """Return the exact law of ln det((M V)ᵀ(M V)), V any orthonormal k-frame.

    By how much a product, or the Jacobian of a real ReLU network with biases,
    multiplies the square of k-dimensional volumes; k = 1 is ``law``, and k = n of
    square linear layers ln |det|². −inf where a layer keeps fewer than k coordinates.
    The cost is that of ``law`` at any width, but where k is near the number of
    coordinates that masks keep: then it is that of all these numbers, up to seconds.
    Accuracy as there, to 1e-11.

    Args:
        ensemble: of normal or orthogonal weights; for k > 1 of {0, 1} masks.
        k: from 1 to the smallest of all widths.

    Returns:
        The law, tabulated; its atom is the probability that a layer keeps fewer than k
        coordinates.

    Raises:
        ValueError: for other k, weights and masks, and for orthogonal weights of so few
            units that the law has steps.

    Source:
        Bartlett's decomposition, layer by layer: a sum of independent Σ_j ln χ²_{B − j}
        − k ln(p n_i), j < k, B ~ Bin(n_i, p); derived in theory section 12; held
        against other inversions and simulation in tests/test_volumes.py.

    >>> from lognorm_jax import weights
    >>> ensemble = ensembles.Ensemble((20,) * 11, weights.normal(), masks.relu())
    >>> law = volume_law(ensemble, 3)
    >>> law.name, round(law.mean, 3), round(float(law.cdf(-9)), 6)
    ('3-volume, exact, depth 10, β = 0.5', -8.147, 0.400933)
    """
    size = _size(ensemble, k)
    return _law(ensemble, size, "exact law" if size == 1 else f"{size}-volume, exact")


def _law(ensemble: ensembles.Ensemble, k: int, name: str) -> laws.Law:
    """Return the law of the log of a squared volume."""
    _require(ensemble)
    counts = _counts(ensemble, k)
    shift = k * ensembles.total_fan_shift(ensemble)
    name = f"{name}, depth {ensemble.depth}, β = {ensembles.beta(ensemble):.4g}"
    if not counts:
        # volumes are kept as they are
        return dataclasses.replace(laws.empirical(np.array([shift])), name=name)

    mean, variance = _sum_cumulants(counts, 2)
    try:
        lower, upper = _curves(tuple(counts.items()), mean, variance)
    except ArithmeticError:
        if not ensemble.weights.orthogonal:
            raise
        allowed = "widths for which the law is smooth"
        instead = (
            "Where masks keep all, or nearly all, coordinates of an orthogonal matrix, "
            "it has steps or sharp ends: sample it with spectra.path."
        )
        checks.refuse("ensemble.widths", ensemble.widths, allowed, instead)
    log_alive = _log_alive(ensemble, counts, k)
    return laws.tabulated(
        name,
        lower._replace(x=lower.x + shift),
        upper._replace(x=upper.x + shift),
        mean=mean + shift,
        variance=variance,
        atom=abs(math.expm1(log_alive)),
        alive=math.exp(log_alive),
    )


def _log_alive(ensemble: ensembles.Ensemble, counts: Counts, k: int) -> float:
    """Return ln P(all layers keep k coordinates)."""
    if k == 1:
        return ensembles.log_alive(ensemble)
    frames = [(f, c) for f, c in counts.items() if isinstance(f, _frames.Frame)]
    return math.fsum(count * _frames.log_alive(frame) for frame, count in frames)


def volume_limit_law(ensemble: ensembles.Ensemble, k: int) -> laws.Law:
    """Return the limit law of the log of a squared k-volume, for wide layers.

    With normal weights N(−Σ k(k + 2 − p)/(2 p n_i), Σ k(2 + k(1 − p))/(p n_i)), which
    is N(−v/2, v) for k = 1 only; orthogonal ones take off k(k + 1)/2N and 2k/N, N =
    max(n_i, n_{i−1}). How far it is from ``volume_law``: ``laws.ks_distance``.

    Args:
        ensemble: as for ``volume_law``.
        k: likewise; 1 is ``ensembles.limit_law``.

    Returns:
        A normal law.

    Raises:
        ValueError: for other k, weights and masks, and a law without variance.

    Source:
        The first order in 1/n of ``volume_cumulants``, derived in theory section 12;
        held against them in tests/test_volumes.py.
    """
    size = _size(ensemble, k)
    if size == 1:
        return ensembles.limit_law(ensemble)
    mean = size * ensembles.total_fan_shift(ensemble)
    variance = 0.0
    layers = zip(itertools.pairwise(ensemble.widths), ensemble.masks, strict=True)
    for (n_in, n), mask in layers:
        p = _kept(mask)
        mean -= size * (size + 2 - p) / (2 * p * n)
        variance += size * (2 + size * (1 - p)) / (p * n)
        if ensemble.weights.orthogonal:
            mean += size * (size + 1) / (2 * max(n_in, n))
            variance -= 2 * size / max(n_in, n)
    allowed = "one whose volumes vary"
    some = variance > 1e-12
    checks.require(some, "ensemble", ensembles.describe(ensemble), allowed)
    return laws.normal(mean, variance)


def increment_law(width: int, mask: masks.Mask) -> laws.Law:
    """Return the exact law of ln R given survival: one Gaussian layer, fan "out".

    Masks and accuracy as for ``law``; it has no atom, whatever the mask.

    Args:
        width: n, an integer ≥ 1.
        mask: any with a support of values within a factor 1e8 of one another.

    Returns:
        The law, tabulated, of the log of the squared-norm ratio.

    Raises:
        ValueError: for other widths and masks.

    Source:
        Derived in theory section 4; held against closed forms in tests/test_exact.py
        and tests/test_increments.py.

    >>> law = increment_law(2, masks.identity())  # R is Exp(1), of median ln 2
    >>> round(float(law.quantile(0.5)), 6)
    -0.366513
    """
    checks.instance("mask", mask, masks.Mask)
    return _increment_law(checks.integer("width", width, 1), mask)


@functools.lru_cache(maxsize=256)
def _increment_law(width: int, mask: masks.Mask) -> laws.Law:
    counts: Counts = {(width, mask): 1}
    mean, variance = _sum_cumulants(counts, 2)
    curves = _curves(tuple(counts.items()), mean, variance)
    return laws.tabulated(f"ln R, width {width}, {mask.name}", *curves, mean, variance)


@functools.lru_cache(maxsize=256)
def _curves(
    counts: tuple[tuple[Layer, int], ...], mean: float, variance: float
) -> tuple[laws.Curve, laws.Curve]:
    """Return the tables of the sum of these layers, given survival, fan "out"."""
    layers = [(_layer_of(layer), count) for layer, count in counts]
    return _inversion.curves(layers, mean, math.sqrt(variance))
