"""Laws of a log-norm on the host: predictions, samples, and distances between them.

A Law is a record of pure functions. Its cdf is that of the whole law: it starts at
``atom``, the probability of −inf (a dead path); mean and variance are conditional on
survival. All is float64.
"""

from lognorm_jax.laws._compare import Comparison, compare, ks_distance
from lognorm_jax.laws._edgeworth import edgeworth
from lognorm_jax.laws._law import Law, empirical, normal, tabulated
from lognorm_jax.laws._law import no_density as no_density
from lognorm_jax.laws._table import Curve
from lognorm_jax.laws._table import interpolate as interpolate

__all__ = [
    "Comparison",
    "Curve",
    "Law",
    "compare",
    "edgeworth",
    "empirical",
    "ks_distance",
    "normal",
    "tabulated",
]
