"""The law of one diagonal entry of a mask: what an activation does to a gradient.

A mask multiplies the coordinates of a layer's output by iid entries D. Only D² matters
to the norm, and only through its moments: m4/m2² = E D⁴/(E D²)², the kurtosis, sets the
predictable variance.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from lognorm_jax._tools import bound, checks, draws, random, records

__all__ = ["Mask", "bernoulli", "dropout", "identity", "leaky_relu", "relu"]

# (key, shape, dtype) -> iid draws
Sampler = Callable[[jax.Array, tuple[int, ...], DTypeLike], jax.Array]
# (value, probability) pairs
Support = tuple[tuple[Fraction | float, Fraction | float], ...]

_HALF = Fraction(1, 2)
_ONE = Fraction(1)


@dataclasses.dataclass(frozen=True)
class Mask:
    """The law of one diagonal entry D, with even moments E D^{2k}.

    ``moment(0)`` counts the non-zero entries only: it is P(D ≠ 0), the keep
    probability, not 1. Masks are equal if they are made by the
    same call, so a mask may be a static argument of jit. Those of this module are
    pickled as that call, and come back as the same object; one's own, if its functions
    are those of a module.

    Attributes:
        name: shown in tables and legends.
        sample: (key, shape, dtype) -> iid draws.
        moment: k -> E D^{2k}, zeros left out: moment(0) = P(D ≠ 0).
        support: (value, probability) pairs of the non-zero values, if the law is
            discrete: what the exact finite-width law needs beyond the moments.
        counts: whether a layer with this mask counts in β.
        made: the call that pickle repeats, of a constructor of this module.

    Raises:
        ValueError: if ``moment(0)`` is not in (0, 1], ``moment(1)`` is not positive, a
            support does not have these two, or a field is not of its kind.
    """

    name: str
    sample: Sampler
    moment: Callable[[int], Fraction | float]
    support: Support | None = None
    counts: bool = True
    made: tuple | None = dataclasses.field(
        default=None, init=False, compare=False, repr=False
    )

    def __post_init__(self):
        checks.text("name", self.name)
        kind = "a function (key, shape, dtype) -> iid draws"
        checks.function("sample", self.sample, kind)
        checks.function("moment", self.moment, "a function k -> E D^{2k}")
        checks.flag("counts", self.counts)

        checks.probability(f"moment(0) of {self.name}", self.moment(0))
        checks.number(f"moment(1) of {self.name}", self.moment(1), "(0, inf)")
        if self.support is not None:
            support = _support(self.support)
            object.__setattr__(self, "support", support)
            self._require_moments_of(support)

    def _require_moments_of(self, support: Support) -> None:
        for k in (0, 1):
            total = math.fsum(p * value ** (2 * k) for value, p in support)
            moment = self.moment(k)
            agrees = math.isclose(total, moment, rel_tol=1e-9)
            allowed = f"that of its support, {total}"
            checks.require(agrees, f"moment({k}) of {self.name}", moment, allowed)

    __reduce_ex__ = records.as_call

    @property
    def keep_prob(self) -> Fraction | float:
        """p = P(D ≠ 0)."""
        return self.moment(0)

    @property
    def kurtosis(self) -> Fraction | float:
        """m4/m2² = E D⁴/(E D²)², raw: 1/p for a {0, 1} mask."""
        return self.moment(2) / self.moment(1) ** 2


def _support(support: Any) -> Support:
    """Return a support as pairs of a value, not zero, and its probability."""
    allowed = "(value ≠ 0, probability) pairs"
    pairs = checks.is_sequence(support)
    pairs = pairs and all(checks.is_sequence(x) and len(x) == 2 for x in support)
    checks.require(pairs, "support", support, allowed)
    for value, prob in support:
        nonzero = checks.real("support", value, allowed) != 0
        checks.require(nonzero, "support", support, allowed)
        checks.probability("support", prob)
    return tuple((value, prob) for value, prob in support)


def log_alive(mask: Mask, width: int) -> float:
    """Return ln P(some entry is not zero) = ln(1 − P(D = 0)^width), to rounding.

    Args:
        mask: the law of an entry.
        width: how many entries, an integer ≥ 1.

    Returns:
        A number ≤ 0.

    Raises:
        ValueError: for other widths, and for what is no Mask.
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
    """Draw True with probability ``prob``, also below the grain of one float32."""
    return _coin(_grain(prob), float(prob), key, shape)


def _grain(prob: float) -> str:
    """Return what a coin is drawn of: of one bit, or of words, few or more of them.

    It is part of a program; the probability is not.
    """
    if prob == _HALF:
        return "bit"
    return "low" if prob > 1e-3 else "high"


def _coin(
    grain: str, prob: float | jax.Array, key: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    if grain == "bit":
        return draws.packed(key, shape, 1) == 1
    return random.bernoulli(key, prob, shape, mode=grain)


def _from_support(call, *, support, **fields) -> Mask:
    """Return the discrete Mask that ``call``, a constructor and its arguments, makes.

    support: its non-zero values with their probabilities.
    """

    def moment(k):
        checks.integer("k", k, 0)
        return sum((prob * value ** (2 * k) for value, prob in support), Fraction(0))

    return records.made_by(Mask(moment=moment, support=support, **fields), *call)


@functools.cache
def identity() -> Mask:
    """Return no mask at all: D = 1, a linear layer. It does not count in β.

    Returns:
        The mask, all of whose moments are 1.
    """
    return _from_support(
        (identity,),
        name="identity",
        sample=_ones,
        support=((_ONE, _ONE),),
        counts=False,
    )


def _ones(key, shape, dtype):
    del key
    return jnp.ones(shape, dtype)


def bernoulli(keep_prob: float) -> Mask:
    """Return D ∈ {0, 1} with P(D = 1) = ``keep_prob``.

    ``bernoulli(1)`` is a layer of the p = 1 family: it changes nothing but counts in β.

    Args:
        keep_prob: p in (0, 1], ≥ 1e-30.

    Returns:
        The mask, all of whose moments are p, a Fraction if given as a rational number.

    Raises:
        ValueError: for other probabilities.

    >>> bernoulli(0.25).kurtosis
    4.0
    """
    instead = "A layer that is never kept is dead; for no mask take masks.identity()."
    return _bernoulli(checks.probability("keep_prob", keep_prob, instead))


@functools.lru_cache(maxsize=None, typed=True)
def _bernoulli(keep_prob) -> Mask:
    return _coins((bernoulli, keep_prob), f"bernoulli({keep_prob})", keep_prob)


def _coins(call, name, keep_prob) -> Mask:
    sample = bound.Bound(_kept, (_grain(keep_prob),), (float(keep_prob),))
    return _from_support(call, name=name, sample=sample, support=((_ONE, keep_prob),))


def _kept(grain, keep_prob, key, shape, dtype):
    return _coin(grain, keep_prob, key, shape).astype(dtype)


@functools.cache
def relu() -> Mask:
    """Return the mask of a ReLU at initialisation: D ∈ {0, 1} with equal odds.

    Returns:
        The mask, all of whose moments are 1/2.

    Source:
        Hanin & Nica (2020).
    """
    return _coins((relu,), "relu", _HALF)


def leaky_relu(slope: float) -> Mask:
    """Return the mask of a leaky ReLU: D = 1 or ``slope`` with equal odds.

    Args:
        slope: 0, or of size in [1e-30, 1e30], of any sign.

    Returns:
        The mask; its moments are Fractions if the slope is rational.

    Raises:
        ValueError: for other slopes.

    >>> leaky_relu(0).kurtosis == relu().kurtosis
    True
    """
    allowed = "0, or a finite number of size in [1e-30, 1e30]"
    instead = "For a plain ReLU take masks.relu()."
    checked = checks.real("slope", slope, allowed, instead)
    in_range = checked == 0 or 1e-30 <= abs(float(checked)) <= 1e30
    checks.require(in_range, "slope", slope, allowed)
    return _leaky_relu(checked)


@functools.lru_cache(maxsize=None, typed=True)
def _leaky_relu(slope) -> Mask:
    support = ((_ONE, _HALF), (slope, _HALF)) if slope else ((_ONE, _HALF),)
    return _from_support(
        (leaky_relu, slope),
        name=f"leaky_relu({slope})",
        sample=bound.Bound(_sloped, (), (float(slope),)),
        support=support,
    )


def _sloped(slope, key, shape, dtype):
    positive = coin(key, 0.5, shape)
    below = jnp.asarray(slope, dtype)
    return jnp.where(positive, jnp.ones((), dtype), below)


def dropout(keep_prob: float, base: Mask | None = None) -> Mask:
    """Return a mask each of whose entries is kept with some probability, else zero.

    The usual rescaling by 1/keep_prob is left out: a layer's scale divides by E D²
    anyhow.

    Args:
        keep_prob: the probability, in (0, 1], ≥ 1e-30.
        base: the mask; default relu.

    Returns:
        The mask, with keep probability ``keep_prob`` times that of the base.

    Raises:
        ValueError: for other probabilities, and for a base that is no Mask.

    >>> str(dropout(0.5).keep_prob)
    '0.25'
    """
    instead = "For no dropout take 1, or the base mask."
    checked = checks.probability("keep_prob", keep_prob, instead)
    base = relu() if base is None else base
    checks.instance("base", base, Mask)
    return _dropout(checked, base)


@functools.lru_cache(maxsize=None, typed=True)
def _dropout(keep_prob, base) -> Mask:
    arrays = float(keep_prob), bound.bound(base.sample)
    support = base.support
    if support is not None:
        support = tuple((value, keep_prob * prob) for value, prob in support)
    mask = Mask(
        name=f"dropout({keep_prob}, {base.name})",
        sample=bound.Bound(_dropped, (_grain(keep_prob),), arrays),
        moment=lambda k: keep_prob * base.moment(k),
        support=support,
    )
    return records.made_by(mask, dropout, keep_prob, base)


def _dropped(grain, keep_prob, sample, key, shape, dtype):
    key_keep, key_base = random.split(key)
    keep = _coin(grain, keep_prob, key_keep, shape)
    value = sample(key_base, shape, dtype)
    return jnp.where(keep, value, jnp.zeros((), dtype))
