"""S, K and ν are the means over pairs of normal numbers that they are said to be."""

import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax._tools import arccosine


def pair_mean(function, rho, nodes=80):
    """Return E f(a, b) for standard normals of correlation ρ, where both are positive.

    In polar coordinates of (a, c), b = ρ a + √(1 − ρ²) c, by Gauss's rule over the
    angles at which a and b are positive, and exactly over the radius: f is of degree k.
    """
    low = -np.arcsin(rho)
    s, weight = np.polynomial.legendre.leggauss(nodes)
    angle = low + (np.pi / 2 - low) * (1 + s) / 2
    a, b = np.cos(angle), rho * np.cos(angle) + np.sqrt(1 - rho**2) * np.sin(angle)
    return np.sum(weight * function(a, b)) * (np.pi / 2 - low) / 2 / (2 * np.pi)


# E r^k over the radius, density r exp(−r²/2)
RADIUS = {2: 2.0, 4: 8.0}


@pytest.mark.parametrize("rho", [-0.9, -0.3, 0.0, 0.5, 0.97])
def test_oracle_arccosine_functions_against_quadrature(rho):
    both = RADIUS[4] * pair_mean(lambda a, b: a**2 * b**2, rho)
    one = RADIUS[2] * pair_mean(lambda a, b: a**2, rho)
    product = RADIUS[2] * pair_mean(lambda a, b: a * b, rho)
    assert arccosine.squares(rho) + 2 * rho**2 == pytest.approx(4 * both - 1, abs=1e-12)
    assert arccosine.signs(rho) == pytest.approx(4 * one - 1, abs=1e-12)
    assert arccosine.kink(rho) == pytest.approx(product - rho / 2, abs=1e-12)


def test_exact_arccosine_functions_at_the_ends():
    ends = np.array([-1.0, 1.0])
    assert np.allclose(arccosine.squares(ends), [-3, 3], atol=1e-12)
    assert np.allclose(arccosine.signs(ends), [-1, 1], atol=1e-12)
    assert np.allclose(arccosine.kink(ends), [0.5, 0], atol=1e-12)
    traced = arccosine.squares(jnp.asarray(ends))
    assert isinstance(traced, jnp.ndarray) and np.allclose(traced, [-3, 3])
