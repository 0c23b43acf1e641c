"""The first steps of optimization, and how stable gradients are in them."""

from lognorm_jax.training import datasets, losses, optimizers
from lognorm_jax.training._log_norms import LogNorms, leaf_log_norms, log_norms
from lognorm_jax.training._measures import (
    jacobian_increments,
    join,
    layer_log_norms,
    split,
)
from lognorm_jax.training._steps import History
from lognorm_jax.training._trainer import Batches, Trainer, path, trainer

__all__ = [
    "Batches",
    "History",
    "LogNorms",
    "Trainer",
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
