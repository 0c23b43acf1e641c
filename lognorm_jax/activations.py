"""Activations, with the masks that their derivatives are equal to in law.

For symmetric weights a piecewise linear activation without offset multiplies the
gradient by iid slopes, independent of everything before (Hanin & Nica 2020): a mask.
Others have none.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lognorm_jax import masks
from lognorm_jax._tools import arccosine, bound, checks, records

__all__ = [
    "Activation",
    "cosine_drift",
    "gelu",
    "leaky_relu",
    "linear",
    "named",
    "relu",
    "shaped_relu",
    "sine",
    "tanh",
]


@dataclasses.dataclass(frozen=True)
class Activation:
    """A function applied to each coordinate, ``φ``.

    Those of this module are pickled as the call that makes them, and come back as the
    same object; one's own, if the function is that of a module.

    Attributes:
        name: shown in tables and legends.
        apply: φ, of an array, coordinate by coordinate; differentiable.
        gain: a number in [1e-30, 1e30], may be traced: the variance of a weight is
            gain/n unless a network is told otherwise; 1/E D² where there is a mask, so
            that norms are kept in mean.
        mask: φ' at initialisation, up to a factor that gain takes up; None where φ' is
            equal to no mask in law.
        homogeneous: whether φ(c·z) = c·φ(z) for c > 0.
        rectifier: whether φ(z) = max(z, 0): some theory is of that alone.
        made: the call that pickle repeats, of a constructor of this module.

    Raises:
        ValueError: if a field is not of its kind.
    """

    name: str
    apply: Callable[[jax.Array], jax.Array]
    gain: float | jax.Array = 1.0
    mask: masks.Mask | None = None
    homogeneous: bool = False
    rectifier: bool = False
    made: tuple | None = dataclasses.field(
        default=None, init=False, compare=False, repr=False
    )

    def __post_init__(self):
        checks.text("name", self.name)
        checks.function("apply", self.apply, "a function of an array")
        gain(self.gain)
        usable = self.mask is None or isinstance(self.mask, masks.Mask)
        instead = "For a ReLU: masks.relu()."
        checks.require(usable, "mask", self.mask, "None or a Mask", instead)
        checks.flag("homogeneous", self.homogeneous)
        checks.flag("rectifier", self.rectifier)

    __reduce_ex__ = records.as_call


def gain(value: object) -> float | jax.Array:
    """Return a gain, a number in [1e-30, 1e30]; or one that is traced.

    Raises:
        ValueError: for other numbers, and for what is no number.
    """
    return checks.scale("gain", value, 1e-30, 1e30)


def relu() -> Activation:
    """Return max(z, 0), gain 2.

    Returns:
        The activation; its mask is ``masks.relu()``.
    """
    return RELU


def linear() -> Activation:
    """Return z itself, gain 1.

    Returns:
        The activation; its mask is ``masks.identity()``.
    """
    return LINEAR


def tanh() -> Activation:
    """Return tanh z, gain 1: there a small signal is neither lost nor blown up.

    Returns:
        The activation, without a mask.
    """
    return TANH


def gelu() -> Activation:
    """Return z·Φ(z), exactly, gain 2: that of its asymptote, the ReLU.

    Returns:
        The activation, without a mask.
    """
    return GELU


def sine(frequency: float = 1.0) -> Activation:
    """Return sin(ω z), gain 1/ω²: there a small signal is neither lost nor blown up.

    Args:
        frequency: ω in [1e-6, 1e6].

    Returns:
        The activation, without a mask.

    Raises:
        ValueError: for other frequencies.

    Source:
        Sitzmann et al., "Implicit neural representations with periodic activation
        functions" (2020), where ω = 30 and the gain is 2/ω².
    """
    return _sine(checks.number("frequency", frequency, "[1e-6, 1e6]"))


@functools.lru_cache(maxsize=None, typed=True)
def _sine(frequency: float) -> Activation:
    apply = bound.Bound(_sine_of, (), (frequency,))
    phi = Activation(f"sine({frequency})", apply, frequency**-2)
    return records.made_by(phi, sine, frequency)


def _sine_of(frequency, z):
    return jnp.sin(jnp.asarray(frequency, z.dtype) * z)


def leaky_relu(slope: float) -> Activation:
    """Return z for z > 0 and slope·z below; gain 2/(1 + slope²).

    Args:
        slope: 0, or of size in [1e-30, 1e15], of any sign.

    Returns:
        The activation; its mask is ``masks.leaky_relu(slope)``.

    Raises:
        ValueError: for other slopes.
    """
    mask = masks.leaky_relu(slope)
    checks.require(abs(slope) <= 1e15, "slope", slope, "of size at most 1e15")
    return _leaky_relu(slope, mask)


@functools.lru_cache(maxsize=None, typed=True)
def _leaky_relu(slope: float, mask: masks.Mask) -> Activation:
    phi = _slopes(f"leaky_relu({slope})", 1.0, float(slope), mask)
    return records.made_by(phi, leaky_relu, slope)


def shaped_relu(c_plus: float, c_minus: float, width: int) -> Activation:
    """Return the shaped ReLU, of slopes 1 + c_±/√width above and below 0.

    As width and depth grow with depth/width → T, log_norm tends to N(−T, 2T), and the
    cosine of two inputs follows a diffusion: ``cosine_drift``.

    Args:
        c_plus: finite; the slope above 0 must not vanish.
        c_minus: finite.
        width: of the layers, an integer ≥ 1.

    Returns:
        The activation; its mask is that of a leaky ReLU with the ratio of the slopes.

    Raises:
        ValueError: for c that are not finite numbers, a slope above 0 of size below
            1e-6, and widths that are no integer ≥ 1.

    Source:
        Li, Nica & Roy, "The neural covariance SDE" (2022), as in theory section 10.

    >>> round(shaped_relu(0, -1, 100).gain, 4)  # 2/(1 + 0.9²)
    1.105
    """
    width = checks.integer("width", width, 1)
    checks.real("c_plus", c_plus, "a finite number")
    checks.real("c_minus", c_minus, "a finite number")
    return _shaped_relu(c_plus, c_minus, width)


@functools.lru_cache(maxsize=None, typed=True)
def _shaped_relu(c_plus: float, c_minus: float, width: int) -> Activation:
    above = 1 + float(c_plus) / width**0.5
    below = 1 + float(c_minus) / width**0.5
    allowed = f"such that 1 + c_plus/√{width} ≠ 0"
    checks.require(abs(above) >= 1e-6, "c_plus", c_plus, allowed)
    name = f"shaped_relu({c_plus}, {c_minus}, {width})"
    phi = _slopes(name, above, below, masks.leaky_relu(below / above))
    return records.made_by(phi, shaped_relu, c_plus, c_minus, width)


def _slopes(name: str, above: float, below: float, mask: masks.Mask) -> Activation:
    """Return the activation of two slopes, above and below 0."""
    gain = 2 / (above**2 + below**2)
    apply = bound.Bound(_two_slopes, (), (above, below))
    return Activation(name, apply, gain, mask, homogeneous=True)


def _two_slopes(above, below, z):
    up = jnp.asarray(above, z.dtype)
    down = jnp.asarray(below, z.dtype)
    return jnp.where(z > 0, up, down) * z


def cosine_drift(cosine: ArrayLike, c_plus: float, c_minus: float) -> jax.Array:
    """Return the drift, per unit of d/n, of the cosine ρ of two inputs.

    In a shaped ReLU network dρ = [ν(ρ) − ρ(1 − ρ²)/2] dt + (1 − ρ²) dB, with
    ν = ((c_+ − c_−)²/2π)(√(1 − ρ²) − ρ acos ρ). At width n it is off by a few 1/n,
    relative (4/n in simulations of slopes ±1), or by −(c_+ + c_−)/√n where these do
    not cancel.

    Args:
        cosine: ρ, numbers in [−1, 1], any shape.
        c_plus: a finite number, as in ``shaped_relu``.
        c_minus: a finite number.

    Returns:
        An array of the shape of ``cosine``.

    Raises:
        ValueError: for other cosines, as far as they are known under a transformation,
            and for c that are not finite numbers.

    Source:
        Li, Nica & Roy, "The neural covariance SDE" (2022), as in theory section 10;
        held against one wide layer and simulation in tests/test_activations.py.
    """
    given = checks.vector("cosine", cosine, None, zero=True)
    values = checks.known(given)
    # up to rounding in any dtype
    inside = values is None or bool(np.all(np.abs(values) <= 1.01))
    checks.require(inside, "cosine", cosine, "numbers in [−1, 1]")

    rho = jnp.clip(jnp.asarray(given, checks.float_dtype(given)), -1, 1)
    plus = checks.vector("c_plus", c_plus, (), zero=True)
    minus = checks.vector("c_minus", c_minus, (), zero=True)
    bend = jnp.asarray(plus, rho.dtype) - jnp.asarray(minus, rho.dtype)
    nu = bend**2 * jnp.asarray(arccosine.kink(rho))
    return nu - rho * (1 - rho**2) / 2


def named(activation: object) -> Activation:
    """Return an Activation as it is, or the one of a name.

    Args:
        activation: an Activation, or "relu", "linear", "tanh" or "gelu".

    Returns:
        The Activation.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(activation, Activation):
        return activation
    known = {phi.name: phi for phi in (RELU, LINEAR, TANH, GELU)}
    if isinstance(activation, str) and activation in known:
        return known[activation]
    allowed = f"an Activation, or one of {', '.join(known)}"
    instead = "Make your own: activations.Activation('mine', function, gain)."
    checks.refuse("activation", activation, allowed, instead)


# functions of this module, which pickle finds by their names


def _identity(z):
    return z


def _relu(z):
    return jax.nn.relu(z)


def _tanh(z):
    return jnp.tanh(z)


def _gelu(z):
    return jax.nn.gelu(z, approximate=False)


RELU = records.made_by(
    Activation("relu", _relu, 2.0, masks.relu(), homogeneous=True, rectifier=True),
    relu,
)
LINEAR = records.made_by(
    Activation("linear", _identity, 1.0, masks.identity(), homogeneous=True),
    linear,
)
TANH = records.made_by(Activation("tanh", _tanh), tanh)
GELU = records.made_by(Activation("gelu", _gelu, 2.0), gelu)
