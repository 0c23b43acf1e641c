"""What a command line says in a word: shapes, activations and laws of weights."""

import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from lognorm_jax import activations, weights
from lognorm_jax._tools import checks
from lognorm_jax.tool import _gaussian

__all__ = ["activation", "shape", "weight_law"]

_LARGEST = 10**6  # widths, and matrices, of a shape


@functools.cache
def _of_jax(name: str) -> activations.Activation:
    """Return an activation of ``jax.nn``, with the gain that keeps gradients."""
    function = getattr(jax.nn, name)
    slopes = _gaussian.moments(activations.Activation(name, function))
    return activations.Activation(name, function, 1 / slopes.slope_square)


# by other names, too
_OF_JAX = {
    name: name
    for name in ("celu", "elu", "mish", "selu", "sigmoid", "silu", "soft_sign")
} | {"softplus": "softplus", "softsign": "soft_sign", "swish": "silu"}
_ACTIVATIONS: Mapping[str, tuple[Callable[..., Any], tuple[type, ...]]] = {
    "relu": (activations.relu, ()),
    "linear": (activations.linear, ()),
    "tanh": (activations.tanh, ()),
    "gelu": (activations.gelu, ()),
    "leaky": (activations.leaky_relu, (float,)),
    "leaky_relu": (activations.leaky_relu, (float,)),
    "shaped": (activations.shaped_relu, (float, float, int)),
    "sine": (activations.sine, (float,)),
    **{word: (functools.partial(_of_jax, name), ()) for word, name in _OF_JAX.items()},
}
_WEIGHTS: Mapping[str, tuple[Callable[..., Any], tuple[type, ...]]] = {
    "normal": (weights.normal, ()),
    "orthogonal": (weights.orthogonal, ()),
    "uniform": (weights.uniform, ()),
    "rademacher": (weights.rademacher, ()),
    "laplace": (weights.laplace, ()),
    "student_t": (weights.student_t, (float,)),
    "sparse": (weights.sparse, (float,)),
    "fixed_fan_in": (weights.fixed_fan_in, (int,)),
    "n_of_m": (weights.n_of_m, (int, int)),
}


def shape(text: str) -> tuple[int, ...]:
    """Return the widths that a shape such as "64-100x10" stands for.

    Args:
        text: widths from the input to the output, joined by "-"; 100x10 is ten layers
            of 100. Each number is in 1…1,000,000.

    Returns:
        The widths n_0, …, n_d, d ≥ 1.

    Raises:
        ValueError: pointing at the first character that does not fit.

    >>> shape("64-100x3-1")
    (64, 100, 100, 100, 1)
    """
    widths: list[int] = []
    place = 0
    for part in text.split("-"):
        count, *times = part.split("x")
        offset = place
        numbers = []
        for piece in (count, *times):
            if not (piece.isascii() and piece.isdigit() and int(piece) >= 1):
                _point(text, offset + _first_bad(piece))
            if int(piece) > _LARGEST:
                _point(text, offset)
            numbers.append(int(piece))
            offset += len(piece) + 1
        if len(numbers) > 2:
            _point(text, place + len(count) + 1 + len(times[0]))
        repeat = numbers[1] if len(numbers) == 2 else 1
        widths += [numbers[0]] * repeat
        place += len(part) + 1
    if len(widths) < 2:
        _point(text, len(text))
    if len(widths) > _LARGEST:
        _point(text, 0)
    return tuple(widths)


def _first_bad(piece: str) -> int:
    """Return where a piece stops being a number ≥ 1."""
    for i, letter in enumerate(piece):
        if not (letter.isascii() and letter.isdigit()):
            return i
    return 0


def _point(text: str, place: int) -> None:
    """Raise ``ValueError`` that points at a character."""
    raise ValueError(
        f"shape = {text!r}: must be at least two widths from the input to the output, "
        f"joined by '-', each WIDTH or WIDTHxTIMES, numbers in 1…{_LARGEST:,}, such as "
        f"64-100x10\n  {text}\n  {' ' * place}^"
    )


def activation(text: str) -> activations.Activation:
    """Return the activation of a name such as "relu" or "leaky:0.1".

    Those of ``jax.nn`` have the gain 1/E φ'² of a standard normal number.

    Args:
        text: a name and its numbers, joined by ":".

    Returns:
        The activation.

    Raises:
        ValueError: for other names, with the nearest; and for other numbers.

    Source:
        The gain is derived in theory section 15, and held against closed forms in
        tests/test_advice.py.

    >>> activation("leaky:0.1").name
    'leaky_relu(0.1)'
    """
    return _made("activation", text, _ACTIVATIONS)


def weight_law(text: str) -> weights.Weights:
    """Return the law of weights of a name such as "normal" or "n_of_m:2:4".

    Args:
        text: a name and its numbers, joined by ":".

    Returns:
        The law.

    Raises:
        ValueError: for other names, with the nearest; and for other numbers.
    """
    return _made("weights", text, _WEIGHTS)


def _made(name: str, text: str, known: Mapping[str, Any]) -> Any:
    """Return what a constructor and its numbers, joined by ":", make."""
    word, *numbers = text.strip().lower().split(":")
    if word not in known:
        nearest = difflib.get_close_matches(word, known, 1, 0.4)
        instead = f"Did you mean {nearest[0]!r}?" if nearest else ""
        checks.refuse(name, text, f"one of {', '.join(known)}", instead)
    make, kinds = known[word]
    form = ":".join([word, *("NUMBER" for _ in kinds)])
    checks.require(len(numbers) == len(kinds), name, text, form)
    values = []
    for kind, given in zip(kinds, numbers, strict=True):
        try:
            values.append(kind(given))
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            checks.refuse(name, text, f"{form}, where {given!r} is {what}")
    return make(*values)
