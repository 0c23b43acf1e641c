"""Real networks as lists of layer callables, made together with the law that theory
predicts.

For a ReLU network with independent symmetric weights and biases without atoms, and any
input x ≠ 0, the squared norm of J(x)u has exactly the law of the mask model with p =
1/2 (Hanin & Nica 2020): neither x nor the biases matter. Residual and convolutional
networks have other laws; the network and what is known of its law are made by one call.
"""

from collections.abc import Callable

from lognorm_jax._tools.traces import Path
from lognorm_jax.networks._batch import batch_normalised
from lognorm_jax.networks._conv import conv
from lognorm_jax.networks._gated import gated, maxout
from lognorm_jax.networks._graph import graph
from lognorm_jax.networks._law import limit_law
from lognorm_jax.networks._layers import Layer, Map, Maps, Matrix, layer, linear
from lognorm_jax.networks._mlp import mlp, relu_mlp
from lognorm_jax.networks._network import Network, network
from lognorm_jax.networks._params import Params
from lognorm_jax.networks._recurrent import recurrent
from lognorm_jax.networks._residual import residual
from lognorm_jax.networks._transformer import transformer

# ``paths.jacobian``, which lies above networks: the package sets it
jacobian_path: Callable[..., Path]

__all__ = [
    "Layer",
    "Map",
    "Maps",
    "Matrix",
    "Network",
    "Params",
    "batch_normalised",
    "conv",
    "gated",
    "graph",
    "layer",
    "limit_law",
    "linear",
    "maxout",
    "mlp",
    "network",
    "recurrent",
    "relu_mlp",
    "residual",
    "transformer",
]
