"""What models of other frameworks need, told by names and messages, without importing
them.
"""

import re
from typing import Any

from lognorm_jax._tools import checks

EVALUATION = "Set the model to evaluation"
WAYS_OUT = (  # what a framework says, and what to do about it
    (
        "from a different trace level",  # Flax NNX
        f"{EVALUATION}, model.eval(), if it has dropout or batch normalisation. A layer that keeps "
        "state even then, such as nnx.RNN, is made anew at each call: graph, state = "
        "nnx.split(layer), and lambda x: nnx.merge(graph, state, copy=True)(x).",
    ),
    (
        # Flax Linen
        r'collection "batch_stats" is immutable|"use_running_average" must',
        f"{EVALUATION}: use_running_average=True for batch normalisation.",
    ),
    (
        r'needs PRNG for "dropout"|"deterministic" must',  # Flax Linen
        f"{EVALUATION}: deterministic=True for dropout.",
    ),
    (
        "non-deterministic mode",  # Equinox
        f"{EVALUATION}: eqx.nn.inference_mode(model).",
    ),
    (
        "required positional argument: 'state'",  # Equinox
        f"{EVALUATION}, eqx.nn.inference_mode(model), and take lambda x: layer(x, state)[0].",
    ),
)


def way_out(message: Any) -> str:
    """Return what to do about an error of a layer, by its message; "" where that is not
    known.

    >>> way_out('Dropout_0 needs PRNG for "dropout"')
    'Set the model to evaluation: deterministic=True for dropout.'
    """
    known = (advice for pattern, advice in WAYS_OUT if re.search(pattern, str(message)))
    return next(known, "")


def refuse_torch(name: str, value: Any) -> None:
    """Raise ``ValueError`` for modules and tensors of PyTorch."""
    homes = {kind.__module__.partition(".")[0] for kind in type(value).__mro__}
    checks.require(
        "torch" not in homes,
        name,
        value,
        "of JAX, which cannot differentiate what is PyTorch's",
        "Write its layers as functions f(params, x) of JAX arrays, and let blocks.functions bind "
        "the weights, jnp.asarray(weight.detach().numpy()).",
    )
