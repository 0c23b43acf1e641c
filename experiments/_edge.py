"""The largest learning rate with which a network trains, seed by seed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _data
from lognorm_jax import losses, networks, training

OUTPUTS = 10
STEPS = 51  # what was so before steps 0 to 50
# rate × width × number of matrices: where it is looked for, and how often the range, in
# its logarithm, is halved
RANGE, HALVINGS = (2.0**-12, 2.0**36), 9


def network_of(depth: int, width: int) -> networks.Network:
    """Return the ReLU network with so many hidden layers."""
    widths = (64, *(width,) * depth, OUTPUTS)
    return networks.relu_mlp(widths, fan="in", head="linear")


def size(depth: int, width: int) -> int:
    """Return width × number of matrices, which the tangent kernel grows with."""
    return width * (depth + 1)


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first digits, (count, 1, 64), and what the outputs should be, (count,
    1, 10): one image a step.
    """
    digits = _data.digits()
    targets = np.eye(OUTPUTS, dtype=np.float32)[digits.labels[:count]]
    return digits.inputs[:count, None], targets[:, None]


def path_of(depth: int, width: int):
    """Return key -> ln of the largest rate × ``size`` that works, of one seed.

    A rate works if gradient descent on one image does not diverge with it: the numbers
    of all steps are finite, the loss at last is no larger than at first, and the
    gradient not zero, as it is where too large a step has turned off a whole layer.
    Halving finds one rate at which that ends; it may begin again above.
    """
    network, unit = network_of(depth, width), size(depth, width)
    image, target = images(1)
    batches = (
        np.broadcast_to(image, (STEPS, 1, 64)),
        np.broadcast_to(target, (STEPS, 1, OUTPUTS)),
    )

    def works(key, log_rate):
        fit = training.trainer(
            network,
            optax.sgd(jnp.exp(log_rate) / unit),
            losses.squared_error,
            STEPS,
            # one network at every rate, as it would not be without its matrices
            drawn=True,
        )
        history = training.path(fit, batches)(key)
        alive = jnp.all(history.log_gradient[-1] > -jnp.inf)
        # of small gradients small steps change no digit of the loss
        return history.finite[-1] & (history.loss[-1] <= history.loss[0]) & alive

    def path(key):
        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            right = works(key, middle)
            return jnp.where(right, middle, low), jnp.where(right, high, middle)

        ends = [jnp.asarray(np.log(end), jnp.result_type(float)) for end in RANGE]
        low, high = jax.lax.fori_loop(0, HALVINGS, halve, tuple(ends))
        return (low + high) / 2

    return path
