"""Laws of a log-norm on the host: predictions, samples, and distances between them.

A Law is a record of pure functions. Its cdf is that of the whole law: it starts at
``atom``, the probability of −inf (a dead path); mean and variance are conditional on
survival. All is float64.
"""

from lognorm_jax.laws._compare import Comparison, compare, ks_distance
from lognorm_jax.laws._edgeworth import edgeworth
from lognorm_jax.laws._law import Law, empirical, no_density, normal, tabulated
from lognorm_jax.laws._table import Curve, interpolate

__all__ = [
    "Comparison",
    "Curve",
    "Law",
    "compare",
    "edgeworth",
    "empirical",
    "interpolate",
    "ks_distance",
    "no_density",
    "normal",
    "tabulated",
]
