"""Models of your own: name their layers, follow log-norms through them, and read what
it means.
"""

from lognorm_jax.probing import models, probes, reports

__all__ = ["models", "probes", "reports"]
