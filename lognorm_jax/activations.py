"""Activations, with what theory knows of them: the mask that their derivative is equal to in law.

For symmetric weights a piecewise linear activation without offset multiplies the gradient by iid
slopes, independent of everything before (Hanin & Nica 2020): a mask. Others have none.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lognorm_jax import checks, masks


@dataclasses.dataclass(frozen=True)
class Activation:
    """A function applied to each coordinate, ``φ``.

    gain: the variance of a weight is gain/n unless a network is told otherwise; 1/E D² where there
    is a mask, so that norms are kept in mean.
    """

    name: str  # shown in tables and legends
    apply: Callable[[jax.Array], jax.Array]  # coordinate by coordinate, differentiable
    gain: float = 1.0
    mask: masks.Mask | None = None  # φ' at initialisation, up to a factor that gain takes up
    homogeneous: bool = False  # whether φ(c·z) = c·φ(z) for c > 0

    def __post_init__(self):
        checks.require(callable(self.apply), "apply", self.apply, "a function of an array")
        gain(self.gain)


def gain(value: Any) -> Any:
    """Return a gain, a number in [1e-30, 1e30]; or one that is traced."""
    return checks.scale("gain", value, 1e-30, 1e30)


def relu() -> Activation:
    """Return max(z, 0), gain 2."""
    return RELU


def linear() -> Activation:
    """Return z itself, gain 1."""
    return LINEAR


def leaky_relu(slope: float) -> Activation:
    """Return z for z > 0 and slope·z below; gain 2/(1 + slope²).

    slope: 0, or of size in [1e-30, 1e15], of any sign.
    """
    mask = masks.leaky_relu(slope)
    allowed = "of size at most 1e15"
    checks.require(abs(slope) <= 1e15, "slope", slope, allowed)
    return _slopes(f"leaky_relu({slope})", 1.0, float(slope), mask)


def shaped_relu(c_plus: float, c_minus: float, width: int) -> Activation:
    """Return the shaped ReLU, of slopes 1 + c_±/√width above and below 0.

    As width and depth grow with depth/width → T, log_norm tends to N(−T, 2T), and the cosine of two
    inputs follows a diffusion: ``cosine_drift``. c_plus, c_minus: finite numbers; the slope above 0
    must not vanish. Source: Li, Nica & Roy, "The neural covariance SDE" (2022).

    >>> round(shaped_relu(0, -1, 100).gain, 4)  # 2/(1 + 0.9²)
    1.105
    """
    width = checks.integer("width", width, 1)
    slopes = []
    for name, c in (("c_plus", c_plus), ("c_minus", c_minus)):
        slopes.append(1 + float(checks.real(name, c, "a finite number")) / width**0.5)
    above, below = slopes
    checks.require(abs(above) >= 1e-6, "c_plus", c_plus, f"such that 1 + c_plus/√{width} ≠ 0")
    name = f"shaped_relu({c_plus}, {c_minus}, {width})"
    return _slopes(name, above, below, masks.leaky_relu(below / above))


def cosine_drift(cosine: Any, c_plus: float, c_minus: float) -> Any:
    """Return the drift of the cosine ρ of two inputs of a shaped ReLU network, per unit of d/n.

    dρ = [ν(ρ) − ρ(1 − ρ²)/2] dt + (1 − ρ²) dB, with
    ν = ((c_+ − c_−)²/2π)(√(1 − ρ²) − ρ acos ρ). cosine: numbers in [−1, 1], any shape. At width n
    it is off by a relative 1/n, or by −(c_+ + c_−)/√n where these do not cancel.
    Source: Li, Nica & Roy, "The neural covariance SDE" (2022); checked in tests.
    """
    cosine = jnp.clip(jnp.asarray(cosine), -1, 1)  # where rounding has led beyond
    rest = jnp.sqrt(1 - cosine**2)
    kink = (c_plus - c_minus) ** 2 / (2 * jnp.pi) * (rest - cosine * jnp.arccos(cosine))
    return kink - cosine * (1 - cosine**2) / 2


def tanh() -> Activation:
    """Return tanh z, gain 1: that at which a small signal is neither lost nor blown up."""
    return TANH


def gelu() -> Activation:
    """Return z·Φ(z), exactly, gain 2: that of its asymptote, the ReLU."""
    return GELU


def named(activation: Any) -> Activation:
    """Return an Activation as it is, or the one of a name: relu, linear, tanh, gelu."""
    if isinstance(activation, Activation):
        return activation
    known = {each.name: each for each in (RELU, LINEAR, TANH, GELU)}
    allowed = f"an Activation, or one of {', '.join(known)}"
    instead = "Make your own: activations.Activation('mine', function, gain)."
    usable = isinstance(activation, str) and activation in known
    checks.require(usable, "activation", activation, allowed, instead)
    return known[activation]


def _slopes(name: str, above: float, below: float, mask: masks.Mask) -> Activation:
    def apply(z):
        return jnp.where(z > 0, jnp.asarray(above, z.dtype), jnp.asarray(below, z.dtype)) * z

    return Activation(name, apply, 2 / (above**2 + below**2), mask, True)


RELU = Activation("relu", jax.nn.relu, 2.0, masks.relu(), True)
LINEAR = Activation("linear", lambda z: z, 1.0, masks.identity(), True)
TANH = Activation("tanh", jnp.tanh)
GELU = Activation("gelu", lambda z: jax.nn.gelu(z, approximate=False), 2.0)
