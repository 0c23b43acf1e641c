"""Predict, sample and measure the log-norm of random matrix products and network Jacobians.

A *Path* is a pure function ``key -> Trace``: one random product, or one random network, followed
layer by layer. A *Law* is a record of host functions: a prediction for a log-norm. Everything here
builds a Path, builds a Law, or compares the two. The modules are the namespace, and this is their
table of contents; after ``import lognorm_jax`` all are there:

* what a product is made of: ``weights``, ``masks``, ``activations``, ``ensembles``
* laws, and how far they are from one another or from samples: ``laws``
* theory: ``exact``, ``moments``, ``martingales``, ``residuals``, ``convolutions``
* networks and paths: ``networks``, ``paths``
* samples of a path, kept or in constant memory, stopped and gone on with: ``sampling``,
  ``summaries``, ``runs``
* models of your own: ``blocks``, ``probes``, ``reports``
* the first steps of optimization: ``training``, ``optimizers``, ``losses``, ``datasets``

What is not in this list is machinery, and may change.
"""

from lognorm_jax import (
    activations,
    blocks,
    convolutions,
    datasets,
    ensembles,
    exact,
    laws,
    losses,
    martingales,
    masks,
    moments,
    networks,
    optimizers,
    paths,
    probes,
    reports,
    residuals,
    runs,
    sampling,
    summaries,
    training,
    weights,
)

__version__ = "0.1.0"

__all__ = [
    "activations",
    "blocks",
    "convolutions",
    "datasets",
    "ensembles",
    "exact",
    "laws",
    "losses",
    "martingales",
    "masks",
    "moments",
    "networks",
    "optimizers",
    "paths",
    "probes",
    "reports",
    "residuals",
    "runs",
    "sampling",
    "summaries",
    "training",
    "weights",
]


def __dir__() -> list[str]:
    """Return the table of contents, for ``dir`` and completion: machinery is left out."""
    return [*__all__, "__version__"]
