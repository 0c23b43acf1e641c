"""Predict, sample and measure the log-norm of random matrix products and network Jacobians.

A *Path* is a pure function ``key -> Trace``: one random product, or one random network, followed
layer by layer. A *Law* is a record of host functions: a prediction for a log-norm. Everything here
builds a Path, builds a Law, or compares the two. The modules are the namespace::

    from lognorm_jax import ensembles, laws, masks, paths, sampling, weights
"""

__version__ = "0.1.0"
