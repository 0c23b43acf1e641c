"""What to change so that gradients of a network neither vanish nor explode: gains,
depths, widths and residual scales, each with the law that it comes from.

A network counts as stable here as for ``reports``: at most a share of its
initialisations change norms by more than a factor.
"""

from lognorm_jax.tool._advising import Advice, advise
from lognorm_jax.tool._gains import DEEPEST, Default, Gains, defaults, gains
from lognorm_jax.tool._sampled import SAMPLES, Found, sampled
from lognorm_jax.tool._stable import (
    LARGEST,
    branch_scale,
    depth,
    law,
    narrowest,
    outside,
)

__all__ = [
    "DEEPEST",
    "LARGEST",
    "SAMPLES",
    "Advice",
    "Default",
    "Found",
    "Gains",
    "advise",
    "branch_scale",
    "defaults",
    "depth",
    "gains",
    "law",
    "narrowest",
    "outside",
    "sampled",
]
