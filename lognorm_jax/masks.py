"""The law of one diagonal entry of a mask: what an activation does to a gradient.

A mask multiplies the coordinates of a layer's output by iid entries D. Only D² matters
to the norm, and only through its moments: m4/m2² = E D⁴/(E D²)², the kurtosis, sets the
predictable variance.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from lognorm_jax._tools import checks, draws, records


@dataclasses.dataclass(frozen=True)
class Mask:
    """The law of one diagonal entry D, with even moments E D^{2k}.

    ``moment(0)`` counts the non-zero entries only: it is P(D ≠ 0), the keep
    probability, not 1. The support, if the law is discrete, is what the exact
    finite-width law needs beyond the moments. Masks are equal if they are made by the
    same call, so a mask may be a static argument of jit. Those of this module are
    pickled as that call, and come back as the same object; one's own, if its functions
    are those of a module.

    Raises ``ValueError`` if ``moment(0)`` is not in (0, 1], ``moment(1)`` is not
    positive, a support does not have these two, or a field is not of its kind.
    """

    name: str  # shown in tables and legends
    sample: Callable[
        [jax.Array, tuple[int, ...], Any], jax.Array
    ]  # (key, shape, dtype) -> iid draws
    # k -> E D^{2k}, zeros left out: moment(0) = P(D ≠ 0)
    moment: Callable[[int], Fraction]
    support: tuple[tuple[float, float], ...] | None = (
        None  # (value, probability) pairs, non-zero ones
    )
    # whether a layer with this mask counts in β
    counts: bool = True
    # the call that pickle repeats, of a constructor of this module
    made: tuple | None = dataclasses.field(
        default=None, init=False, compare=False, repr=False
    )

    def __post_init__(self):
        checks.text("name", self.name)
        checks.function(
            "sample", self.sample, "a function (key, shape, dtype) -> iid draws"
        )
        checks.function("moment", self.moment, "a function k -> E D^{2k}")
        checks.probability(f"moment(0) of {self.name}", self.moment(0))
        name, allowed = f"moment(1) of {self.name}", "a finite number > 0"
        second = checks.real(name, self.moment(1), allowed)
        checks.require(second > 0, name, second, allowed)
        if self.support is not None:
            object.__setattr__(self, "support", _support(self.support))
        checks.flag("counts", self.counts)
        for k in (0, 1) if self.support is not None else ():
            sum_of_support = float(
                sum(prob * value ** (2 * k) for value, prob in self.support)
            )
            agrees = math.isclose(sum_of_support, self.moment(k), rel_tol=1e-9)
            allowed = f"that of its support, {sum_of_support}"
            checks.require(
                agrees, f"moment({k}) of {self.name}", self.moment(k), allowed
            )

    def __reduce_ex__(self, protocol):
        return self.made or super().__reduce_ex__(protocol)

    @property
    def keep_prob(self) -> Fraction:
        """p = P(D ≠ 0)."""
        return self.moment(0)

    @property
    def kurtosis(self) -> Fraction:
        """m4/m2² = E D⁴/(E D²)², raw: 1/p for a {0, 1} mask."""
        return self.moment(2) / self.moment(1) ** 2


def _support(support: Any) -> tuple[tuple[float, float], ...]:
    """Return a support as pairs of a value, not zero, and its probability."""
    allowed = "(value ≠ 0, probability) pairs"
    listed = isinstance(support, Sequence) and not isinstance(support, str)
    pairs = listed and all(
        isinstance(pair, Sequence) and len(pair) == 2 for pair in support
    )
    checks.require(pairs, "support", support, allowed)
    for value, prob in support:
        checks.require(
            checks.real("support", value, allowed) != 0, "support", support, allowed
        )
        checks.probability("support", prob)
    return tuple(tuple(pair) for pair in support)


def log_alive(mask: Mask, width: int) -> float:
    """Return ln P(some of width entries is not zero) = ln(1 − P(D = 0)^width), to
    rounding.

    width: ≥ 1. Raises ``ValueError`` for anything else.
    """
    checks.instance("mask", mask, Mask)
    width = checks.integer("width", width, 1)
    if mask.keep_prob == 1:
        return 0.0
    log_lost = width * math.log1p(-float(mask.keep_prob))
    if log_lost < -0.7:
        return math.log1p(-math.exp(log_lost))
    return math.log(-math.expm1(log_lost))


def coin(key: jax.Array, prob: float, shape: tuple[int, ...]) -> jax.Array:
    """Draw True with probability ``prob``, also where it is below the grain of one
    float32.
    """
    if prob == Fraction(1, 2):
        return draws.packed(key, shape, 1) == 1
    return jax.random.bernoulli(
        key, float(prob), shape, mode="low" if prob > 1e-3 else "high"
    )


def _from_support(call, name, sample, support, **flags) -> Mask:
    """Return a discrete Mask that ``call``, a constructor and its arguments, makes.

    support: its non-zero values with their probabilities.
    """

    def moment(k):
        checks.integer("k", k, 0)
        return sum((prob * value ** (2 * k) for value, prob in support), Fraction(0))

    return records.made_by(Mask(name, sample, moment, support, **flags), *call)


@functools.cache
def identity() -> Mask:
    """Return no mask at all: D = 1, a linear layer. Such a layer does not count in
    β.
    """

    def sample(key, shape, dtype):
        del key
        return jnp.ones(shape, dtype)

    one = ((Fraction(1), Fraction(1)),)
    return _from_support((identity,), "identity", sample, one, counts=False)


def bernoulli(keep_prob: float) -> Mask:
    """Return D ∈ {0, 1} with P(D = 1) = ``keep_prob`` in (0, 1].

    ``bernoulli(1)`` is a layer of the p = 1 family: it changes nothing but counts in β.

    >>> bernoulli(0.25).kurtosis
    4.0
    """
    instead = "A layer that is never kept is dead; for no mask take masks.identity()."
    return _bernoulli(checks.probability("keep_prob", keep_prob, instead))


@functools.lru_cache(maxsize=None, typed=True)
def _bernoulli(keep_prob) -> Mask:
    return _coins((bernoulli, keep_prob), f"bernoulli({keep_prob})", keep_prob)


def _coins(call, name, keep_prob) -> Mask:
    def sample(key, shape, dtype):
        return coin(key, keep_prob, shape).astype(dtype)

    return _from_support(call, name, sample, ((Fraction(1), keep_prob),))


@functools.cache
def relu() -> Mask:
    """Return the mask of a ReLU at initialisation: D ∈ {0, 1} with equal odds (Hanin &
    Nica).
    """
    return _coins((relu,), "relu", Fraction(1, 2))


def leaky_relu(slope: float) -> Mask:
    """Return the mask of a leaky ReLU: D = 1 or ``slope`` with equal odds.

    slope: 0, or of size in [1e-30, 1e30], of any sign.

    >>> leaky_relu(0).kurtosis == relu().kurtosis
    True
    """
    allowed = "0, or a finite number of size in [1e-30, 1e30]"
    slope = checks.real("slope", slope, allowed, "For a plain ReLU take masks.relu().")
    checks.require(slope == 0 or 1e-30 <= abs(slope) <= 1e30, "slope", slope, allowed)
    return _leaky_relu(slope)


@functools.lru_cache(maxsize=None, typed=True)
def _leaky_relu(slope) -> Mask:
    def sample(key, shape, dtype):
        positive = coin(key, 0.5, shape)
        return jnp.where(
            positive, jnp.ones((), dtype), jnp.asarray(float(slope), dtype)
        )

    half = Fraction(1, 2)
    support = ((Fraction(1), half), (slope, half)) if slope else ((Fraction(1), half),)
    return _from_support((leaky_relu, slope), f"leaky_relu({slope})", sample, support)


def dropout(keep_prob: float, base: Mask | None = None) -> Mask:
    """Return ``base`` (default relu) with each entry kept with probability
    ``keep_prob`` in (0, 1].

    The usual rescaling by 1/keep_prob is left out: a layer's scale divides by E D²
    anyhow.

    >>> str(dropout(0.5).keep_prob)
    '0.25'
    """
    keep_prob = checks.probability(
        "keep_prob", keep_prob, "For no dropout take the base mask."
    )
    base = relu() if base is None else base
    checks.instance("base", base, Mask)
    return _dropout(keep_prob, base)


@functools.lru_cache(maxsize=None, typed=True)
def _dropout(keep_prob, base) -> Mask:
    def sample(key, shape, dtype):
        key_keep, key_base = jax.random.split(key)
        keep = coin(key_keep, keep_prob, shape)
        return jnp.where(
            keep, base.sample(key_base, shape, dtype), jnp.zeros((), dtype)
        )

    support = base.support and tuple(
        (value, keep_prob * prob) for value, prob in base.support
    )
    name = f"dropout({keep_prob}, {base.name})"
    mask = Mask(name, sample, lambda k: keep_prob * base.moment(k), support)
    return records.made_by(mask, dropout, keep_prob, base)
