"""What a path is, and what it returns."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

Path = Callable[[jax.Array], "Trace"]
"""A pure function of one typed key, free of side effects: the same key gives the same
trace.

It may carry an attribute ``footprint``, the number of floats that one sample keeps
alive at once; the engine then batches samples so that they stay in cache.
"""


class Trace(NamedTuple):
    """One product, or a stack of them, layer by layer."""

    # (..., depth): ln R_i, −inf from the layer that died on
    increment: jax.Array | np.ndarray
    # (..., depth): κ before each layer, 0 once dead
    quartic: jax.Array | np.ndarray | None

    @property
    def log_norm(self) -> jax.Array | np.ndarray:  # (...)
        """Σ ln R_i, the log of the SQUARED norm; −inf if dead. NumPy traces sum in
        float64.
        """
        if isinstance(self.increment, np.ndarray):
            return self.increment.sum(-1, dtype=np.float64)
        return self.increment.sum(-1)
