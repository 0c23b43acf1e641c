"""Random matrix products followed layer by layer: pure functions ``key -> Trace``.

A path never holds the product: ``dense`` follows one vector, renormalised after each
layer, ``transport`` draws the increments themselves, ``gram`` follows a network in law,
``backward`` and ``gradients`` also on its way back, and ``jacobian`` one whose weights
are drawn. They live in JAX, in JAX's own precision unless told otherwise, and are meant
to be run by ``sampling.sample`` or lifted by ``vmap``.
"""

from lognorm_jax._tools.traces import Path, Trace
from lognorm_jax.paths._backward import backward
from lognorm_jax.paths._dense import dense
from lognorm_jax.paths._gradients import gradients
from lognorm_jax.paths._gram import gram
from lognorm_jax.paths._jacobian import jacobian
from lognorm_jax.paths._transport import transport

__all__ = [
    "Path",
    "Trace",
    "backward",
    "dense",
    "gradients",
    "gram",
    "jacobian",
    "transport",
]
