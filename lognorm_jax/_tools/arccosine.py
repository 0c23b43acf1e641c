"""Means of a ReLU over pairs of normal numbers, as functions of their correlation.

For standard normal a, b of correlation ρ and φ the ReLU, these arc-cosine functions say
how layers, positions and inputs that share their weights depend on one another.

Source: Cho & Saul, "Kernel methods for deep learning" (2009); S and K derived from
their means of φ(a)²φ(b)² and φ(a)²φ'(b), see tests/test_arccosine.py.
"""

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray


def squares(rho: Array) -> Array:
    """Return S(ρ) = (2/π)[(1 + 2ρ²) asin ρ + 3ρ√(1 − ρ²)], odd, S(1) = 3.

    4 Cov(φ(a)², φ(b)²) = S(ρ) + 2ρ².

    Args:
        rho: ρ, in [−1, 1], any shape.
    """
    xp = _namespace(rho)
    root = xp.sqrt(1 - rho**2)
    return 2 / xp.pi * ((1 + 2 * rho**2) * xp.arcsin(rho) + 3 * rho * root)


def signs(rho: Array) -> Array:
    """Return K(ρ) = (2/π)[asin ρ + ρ√(1 − ρ²)] = 4 Cov(φ(a)², φ'(b)), odd, K(1) = 1.

    Args:
        rho: ρ, in [−1, 1], any shape.
    """
    xp = _namespace(rho)
    return 2 / xp.pi * (xp.arcsin(rho) + rho * xp.sqrt(1 - rho**2))


def kink(rho: Array) -> Array:
    """Return [√(1 − ρ²) − ρ acos ρ]/2π = E φ(a)φ(b) − ρ/2: 0 at ρ = 1.

    (c_+ − c_−)² times it is ν, what the kink of a shaped ReLU of slopes 1 + c_±/√n adds
    to the drift of a cosine.

    Args:
        rho: ρ, in [−1, 1], any shape.
    """
    xp = _namespace(rho)
    return (xp.sqrt(1 - rho**2) - rho * xp.arccos(rho)) / (2 * xp.pi)


def _namespace(value: Array) -> ModuleType:
    """Return the library that an array belongs to."""
    return jnp if isinstance(value, jax.Array) else np
