"""Models of your own: name their layers, and read what they do to log-norms."""

from lognorm_jax.probing import models, probes, reports

__all__ = ["models", "probes", "reports"]
