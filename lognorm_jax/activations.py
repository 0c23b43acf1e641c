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


@dataclasses.dataclass(frozen=True)
class Activation:
    """A function applied to each coordinate, ``φ``.

    Those of this module are pickled as the call that makes them, and come back as the
    same object; one's own, if the function is that of a module.

    Raises:
        ValueError: if a field is not of its kind.
    """

    name: str  # shown in tables and legends
    apply: Callable[[jax.Array], jax.Array]  # coordinate by coordinate, differentiable
    # the variance of a weight is gain/n unless a network is told otherwise; 1/E D²
    # where there is a mask, so that norms are kept in mean
    gain: float | jax.Array = 1.0
    # φ' at initialisation, up to a factor that gain takes up
    mask: masks.Mask | None = None
    homogeneous: bool = False  # whether φ(c·z) = c·φ(z) for c > 0
    rectifier: bool = False  # whether φ(z) = max(z, 0): some theory is of that alone
    # the call that pickle repeats, of a constructor of this module
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
    """Return a gain, a number in [1e-30, 1e30]; or one that is traced."""
    return checks.scale("gain", value, 1e-30, 1e30)


def relu() -> Activation:
    """Return max(z, 0), gain 2."""
    return RELU


def linear() -> Activation:
    """Return z itself, gain 1."""
    return LINEAR


def tanh() -> Activation:
    """Return tanh z, gain 1: there a small signal is neither lost nor blown up."""
    return TANH


def gelu() -> Activation:
    """Return z·Φ(z), exactly, gain 2: that of its asymptote, the ReLU."""
    return GELU


def sine(frequency: float = 1.0) -> Activation:
    """Return sin(ω z), gain 1/ω²: there a small signal is neither lost nor blown up.

    Args:
        frequency: ω in [1e-6, 1e6].

    Raises:
        ValueError: for anything else.

    Source: Sitzmann et al., "Implicit neural representations with periodic activation
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

    Raises:
        ValueError: for anything else.
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
        width: of the layers, ≥ 1.

    Raises:
        ValueError: for anything else.

    Source: Li, Nica & Roy, "The neural covariance SDE" (2022).

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
        ValueError: for anything else, as far as it is known under a transformation.

    Source: Li, Nica & Roy, "The neural covariance SDE" (2022); checked in tests.
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
