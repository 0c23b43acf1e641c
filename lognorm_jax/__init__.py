"""Predict, sample and measure the log-norm of random matrix products and network
Jacobians.

A *Path* is a pure function ``key -> Trace``: one random product, or one random network,
followed layer by layer. A *Law* is a record of host functions: a prediction for a
log-norm. Everything here builds a Path, builds a Law, or compares the two. The modules
are the namespace, and this is their table of contents, by wing; after ``import
lognorm_jax`` all are there:

* what a product is made of: ``weights``, ``masks``, ``activations``, ``ensembles``
* laws, and how far they are from one another or from samples: ``laws``
* theory: ``exact``, ``moments``, ``martingales``, ``residuals``, ``convolutions``
* networks, paths, tangent kernels and singular values: ``networks``, ``paths``,
  ``kernels``, ``spectra``
* samples of a path, kept or in constant memory, stopped and gone on with: ``sampling``,
  ``summaries``, ``runs``
* models of your own: ``models``, ``probes``, ``reports``
* the first steps of optimization: ``training``, ``optimizers``, ``losses``,
  ``datasets``
* is an initialisation what it is declared to be, and is it stable, of models of JAX and
  PyTorch: ``audits``, ``declarations``, ``ready``, ``testing``
* what to change, figures, and the words of the command line: ``advice``, ``plots``,
  ``spoken``

What is not in this list is machinery, and may change.
"""

import sys

from lognorm_jax import (
    activations,
    ensembles,
    laws,
    masks,
    networks,
    paths,
    sampling,
    training,
    weights,
)
from lognorm_jax._tools import checks, draws, norms, records, scans
from lognorm_jax.auditing import audits, declarations, ready, testing
from lognorm_jax.laws import _table
from lognorm_jax.paths import _conditioned, _quantiles, kernels, spectra
from lognorm_jax.probing import _shapes, models, probes, reports
from lognorm_jax.sampling import _fingerprints, _memory, _programs, runs, summaries
from lognorm_jax.theory import (
    _density,
    _quadrature,
    _vanilla,
    convolutions,
    exact,
    martingales,
    moments,
    residuals,
)
from lognorm_jax.tool import advice, plots, spoken
from lognorm_jax.training import datasets, losses, optimizers

__version__ = "0.3.0"

__all__ = [
    "activations",
    "advice",
    "audits",
    "convolutions",
    "datasets",
    "declarations",
    "ensembles",
    "exact",
    "kernels",
    "laws",
    "losses",
    "martingales",
    "masks",
    "models",
    "moments",
    "networks",
    "optimizers",
    "paths",
    "plots",
    "probes",
    "ready",
    "reports",
    "residuals",
    "runs",
    "sampling",
    "spectra",
    "spoken",
    "summaries",
    "testing",
    "training",
    "weights",
]

# networks lie below paths, and the path of a network's Jacobian has its old name there
# too
networks.jacobian_path = paths.jacobian
# and so do probes below audits
probes.audit = audits.audit

# names that modules had before they lay in folders: ``from lognorm_jax import blocks``
# and ``import lognorm_jax.exact`` go on as they were
_FORMER = {
    "bits": draws,
    "blocks": models,
    "checks": checks,
    "convolutions": convolutions,
    "datasets": datasets,
    "exact": exact,
    "fingerprints": _fingerprints,
    "grams": _conditioned,
    "increments": _density,
    "layers": networks,
    "losses": losses,
    "martingales": martingales,
    "memory": _memory,
    "moments": moments,
    "norms": norms,
    "optimizers": optimizers,
    "probes": probes,
    "programs": _programs,
    "quadrature": _quadrature,
    "records": records,
    "reports": reports,
    "residuals": residuals,
    "runs": runs,
    "scans": scans,
    "shapes": _shapes,
    "summaries": summaries,
    "tables": _table,
    "transports": _quantiles,
    "vanilla": _vanilla,
}
# modules of later rooms have their short names as well
_FORMER |= {
    "advice": advice,
    "audits": audits,
    "declarations": declarations,
    "kernels": kernels,
    "plots": plots,
    "ready": ready,
    "spectra": spectra,
    "spoken": spoken,
    "testing": testing,
}
sys.modules.update({f"{__name__}.{name}": module for name, module in _FORMER.items()})
blocks = models


def __dir__() -> list[str]:
    """Return the table of contents, for ``dir`` and completion: machinery is left
    out.
    """
    return [*__all__, "__version__"]
