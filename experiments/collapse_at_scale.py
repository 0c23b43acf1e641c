"""TODO claim.

Figure: TODO.
Time: TODO.
Command: python -m experiments collapse_at_scale
"""

import functools
import itertools

import jax
import numpy as np
import optax

from experiments import _check, _data, _edge, _explained, _figure
from lognorm_jax import exact, losses, sampling, training

BETAS = (0.25, 0.5, 1.0, 2.0)
WIDTHS = (32, 128, 512, 2048)
STEPS = _edge.STEPS
UNIT = 2.0
# learning rate × width × number of matrices, of so many matrices
RATES = {
    "fixed": lambda matrices: UNIT * matrices / 9,
    "1/depth": lambda matrices: UNIT,
    "4/depth": lambda matrices: 4 * UNIT,
    "16/depth": lambda matrices: 16 * UNIT,
}


def path_of(depth: int, width: int):
    """Return key -> (ln ‖J u‖², ln ‖∂L/∂W‖² of the middle layer), (rates, steps) each:
    one network from one key, each rate.
    """
    network, batches = _edge.network_of(depth, width), _edge.images(STEPS)
    probe = _data.digits().test_inputs[0]
    tangent = np.random.default_rng(0).normal(size=64)
    rates = np.array([rate(depth + 1) for rate in RATES.values()], np.float32)

    def path_at(rate):
        fit = training.trainer(
            network,
            optax.sgd(rate),
            losses.squared_error,
            STEPS,
            probe=probe,
            tangent=tangent,
            drawn=None,
        )
        return training.path(fit, batches)

    def path(key):
        one = lambda rate: path_at(rate)(key)
        history = jax.vmap(one)(rates / _edge.size(depth, width))
        return history.log_norm, history.log_gradient[..., depth // 2]

    return path
