"""The first steps of optimization, and how stable gradients are in them."""

from lognorm_jax.training import datasets, losses, optimizers
from lognorm_jax.training._log_norms import LogNorms, leaf_log_norms, log_norms
from lognorm_jax.training._trainer import (
    Batches,
    History,
    jacobian_increments,
    join,
    layer_log_norms,
    path,
    split,
    trainer,
)

__all__ = [
    "Batches",
    "History",
    "LogNorms",
    "datasets",
    "jacobian_increments",
    "join",
    "layer_log_norms",
    "leaf_log_norms",
    "log_norms",
    "losses",
    "optimizers",
    "path",
    "split",
    "trainer",
]
