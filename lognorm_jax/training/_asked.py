"""A trained network without matrices, as those are given it who observe it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lognorm_jax._tools import checks

_INSTEAD = "Take drawn=True, and observe the parameters."


def once(outputs: Callable[[jax.Array], jax.Array]) -> Callable[[Any], jax.Array]:
    """Return inputs -> outputs of a trained network, for one question.

    What its matrices answer is drawn then, and not kept: two questions would be
    answered by two networks, and a derivative would be that of what was drawn before.

    Args:
        outputs: inputs (m, *shape) -> outputs (m, …).

    Returns:
        The function, which raises ``ValueError`` where it is asked again, or
        differentiated.
    """
    asked: list[bool] = []

    def ask(inputs):
        allowed = "one that asks the trained network once, for all inputs"
        instead = "Ask of inputs that are joined, as by jnp.concatenate."
        checks.require(not asked, "observe", "one that asks twice", allowed, instead)
        asked.append(True)
        return outputs(_underived(jnp.asarray(inputs, jnp.result_type(float))))

    return ask


@jax.custom_jvp
def _underived(inputs: jax.Array) -> jax.Array:
    """Return inputs that are not differentiated by."""
    return inputs


@_underived.defjvp
def _refused(primals, tangents):
    del primals, tangents
    allowed = "one that does not differentiate the trained network by its inputs"
    checks.refuse("observe", "one that does", allowed, _INSTEAD)
