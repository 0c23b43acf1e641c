"""The engine: run a path for many keys, in blocks, on any number of devices and
processes.
"""

from lognorm_jax.sampling import runs, summaries
from lognorm_jax.sampling._blocks import DRAWS
from lognorm_jax.sampling._engine import sample, stream

__all__ = ["DRAWS", "runs", "sample", "stream", "summaries"]
