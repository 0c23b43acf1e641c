"""From cumulants to central moments, and back."""

import math
from collections.abc import Sequence
from typing import Any


def to_moments(cumulants: Sequence[Any]) -> list[Any]:
    """Return moments about the point from which the first cumulant is the distance: E
    X^k for k ≥ 0, numbers or arrays.
    """
    moments = [1.0 + 0 * cumulants[0]]
    for k in range(1, len(cumulants) + 1):
        terms = (
            math.comb(k - 1, j - 1) * cumulants[j - 1] * moments[k - j]
            for j in range(1, k + 1)
        )
        moments.append(sum(terms))
    return moments


def from_moments(central: Sequence[float]) -> list[float]:
    """Return the cumulants from the second on, of central moments E (X − E X)^k, k ≥
    0.
    """
    kappa = [0.0, 0.0]
    for k in range(2, len(central)):
        known = (
            math.comb(k - 1, j - 1) * kappa[j] * central[k - j] for j in range(2, k)
        )
        kappa.append(central[k] - sum(known))
    return kappa[2:]
