"""What models of other frameworks need, told by their messages; none is imported."""

import re

from lognorm_jax._tools import checks

EVALUATION = "Set the model to evaluation"
# what a framework says, and what to do about it
WAYS_OUT = {
    # Flax NNX
    "from a different trace level": (
        f"{EVALUATION}, model.eval(), if it has dropout or batch normalisation. A "
        "layer that keeps state even then, such as nnx.RNN, is made anew at each call: "
        "graph, state = nnx.split(layer), and "
        "lambda x: nnx.merge(graph, state, copy=True)(x)."
    ),
    # Flax Linen
    r'collection "batch_stats" is immutable|"use_running_average" must': (
        f"{EVALUATION}: use_running_average=True for batch normalisation."
    ),
    r'needs PRNG for "dropout"|"deterministic" must': (
        f"{EVALUATION}: deterministic=True for dropout."
    ),
    # Equinox
    "non-deterministic mode": f"{EVALUATION}: eqx.nn.inference_mode(model).",
    "required positional argument: 'state'": (
        f"{EVALUATION}, eqx.nn.inference_mode(model), and take "
        "lambda x: layer(x, state)[0]."
    ),
}


def way_out(error: object) -> str:
    """Return what to do about an error of a layer; "" where that is not known.

    >>> way_out('Dropout_0 needs PRNG for "dropout"')
    'Set the model to evaluation: deterministic=True for dropout.'
    """
    for pattern, advice in WAYS_OUT.items():
        if re.search(pattern, str(error)):
            return advice
    return ""


def refuse_torch(name: str, value: object) -> None:
    """Raise ``ValueError`` for modules and tensors of PyTorch."""
    homes = {kind.__module__.partition(".")[0] for kind in type(value).__mro__}
    allowed = "of JAX, which cannot differentiate what is PyTorch's"
    instead = (
        "Write its layers as functions f(params, x) of JAX arrays, and let "
        "models.functions bind the weights, jnp.asarray(weight.detach().numpy())."
    )
    checks.require("torch" not in homes, name, value, allowed, instead)
