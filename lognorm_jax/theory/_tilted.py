"""What the inversion of a sum asks of one layer: its law, tilted by e^{tilt y}.

A layer is Y given survival. Whether its law is known by a density or by its transform,
the inversion sees functions of frequencies only.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Part(NamedTuple):
    """One distinct layer under the tilted law."""

    log_mass: float  # ln E e^{tilt Y}
    mean: float
    variance: float
    # t -> ln E e^{it(Y − mean)}, precise where that is small, (frequencies,)
    log_transform: Callable[[np.ndarray], np.ndarray]
    # θ -> ln E e^{θ(Y − mean)}, (tilts,)
    log_growth: Callable[[np.ndarray], np.ndarray]
    # x -> ln P(Y ≤ x, in a far left tail that is left out); None: nothing is
    left_out: Callable[[np.ndarray], np.ndarray] | None = None


class Placed(NamedTuple):
    """Where the tilted law has its mass."""

    # t -> about −ln|E e^{itY}|, increasing
    fall: Callable[[np.ndarray], np.ndarray]
    # frequency up to which it has to be good -> part
    part: Callable[[float], Part]


class Layer(NamedTuple):
    """One distinct layer."""

    edge: float  # E e^{sY} is finite for s > −edge
    # (tilt, how often it appears) -> where its mass is; None: it has no transform there
    place: Callable[[float, int], Placed | None]
