"""What theory says, without simulation: exact laws, moments, drifts, and laws of other
layers.
"""

from lognorm_jax.theory import convolutions, exact, martingales, moments, residuals

__all__ = ["convolutions", "exact", "martingales", "moments", "residuals"]
