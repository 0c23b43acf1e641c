"""What the parameters of a model are declared to be: name patterns and laws.

A declaration is a mapping such as ``{"*.bias": constant(0), "*.weight": fan_in(2)}``;
of several patterns that fit a parameter the first counts. Names are those that an audit
prints, with patterns of ``fnmatch``; a pattern with a slash, such as "Conv*/weight", is
of the class of the layer and the last part of the name.

The sd, the mean and the shape of a law are checked, and whether a matrix is orthogonal;
a uniform law is told from a normal one, a truncated normal law is not.
"""

import dataclasses
import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from lognorm_jax._tools import checks

__all__ = [
    "KINDS",
    "Declaration",
    "Declared",
    "Fans",
    "Ready",
    "anything",
    "constant",
    "fan_average",
    "fan_in",
    "fan_out",
    "normal",
    "of_name",
    "orthogonal",
    "residual",
    "spoken",
    "truncated_normal",
    "uniform",
    "unknown",
]

# sd of a standard normal number that is cut off at ±2
CUT_OFF = 0.8796256610342398


class Fans(NamedTuple):
    """How many units a layer of weights takes in and gives out, times the kernel.

    Attributes:
        fan_in: units, or channels, that go in, times the kernel.
        fan_out: those that come out, times the kernel.
        kernel: positions of a convolution's window, ≥ 1.
    """

    fan_in: int
    fan_out: int
    kernel: int = 1


def fans_of(shape: Sequence[int]) -> Fans:
    """Return the fans of weights (out, in, *kernel)."""
    kernel = int(np.prod(shape[2:], dtype=np.int64))
    return Fans(shape[1] * kernel, shape[0] * kernel, kernel)


@dataclasses.dataclass(frozen=True)
class Declared:
    """The law of one parameter, in units in which its entries are alike.

    Attributes:
        kind: "normal", "uniform", "truncated normal" (at two sd of the normal law,
            rescaled), "constant", "orthogonal", "any" law of mean 0 and this sd, or
            "unknown".
        scale: sd of an entry, > 0; of a constant, the value; times fan^(−1/2) where
            there is a fan.
        fan: "in", "out" or "average"; None where the sd does not depend on it.
        blocks: residual blocks, by which the scale was divided as √(2·blocks): for
            likely causes.

    Raises:
        ValueError: for fields that are not of their kind.
    """

    kind: str
    scale: float
    fan: str | None = None
    blocks: int | None = None

    def __post_init__(self):
        checks.one_of("kind", self.kind, KINDS)
        lowest = "(-inf, inf)" if self.kind == "constant" else "(0, inf)"
        checks.number("scale", self.scale, lowest)
        if self.fan is not None:
            checks.one_of("fan", self.fan, ("in", "out", "average"))
            # a constant has no sd, and that of an orthogonal matrix is its own
            checks.one_of("kind of a law with a fan", self.kind, FANNED)

    def std(self, fans: Fans | None) -> float | None:
        """Return the sd of an entry.

        Args:
            fans: of the layer; None where they are not known.

        Returns:
            The sd, 0 for a constant; None where fans matter and are not known, and for
            "unknown".
        """
        if self.kind == "constant":
            return 0.0
        if self.kind == "unknown":
            return None
        if self.kind == "orthogonal":
            # rows or columns of the matrix (out, in × kernel)
            if fans is None:
                return None
            return self.scale / math.sqrt(max(fans.fan_in, fans.fan_out // fans.kernel))
        if self.fan is None:
            return self.scale
        if fans is None:
            return None
        size = {
            "in": fans.fan_in,
            "out": fans.fan_out,
            "average": (fans.fan_in + fans.fan_out) / 2,
        }[self.fan]
        return self.scale / math.sqrt(size)

    def told(self, fans: Fans | None) -> str:
        """Return it in words, for tables.

        Args:
            fans: of the layer; None where they are not known.

        Returns:
            Such as "uniform, sd 0.5 (1.5/√fan-in)"; "" for "unknown".
        """
        if self.kind == "constant":
            return f"constant {self.scale:g}"
        if self.kind == "unknown":
            return ""
        std = self.std(fans)
        text = self.kind if self.kind != "any" else "any law"
        if std is not None:
            text += f", sd {std:.4g}"
        if self.fan is not None:
            text += f" ({self.scale:.4g}/√fan-{self.fan})"
        return text


KINDS = (
    *("normal", "uniform", "truncated normal", "constant", "orthogonal"),
    *("any", "unknown"),
)
# of these the sd may depend on a fan
FANNED = ("normal", "uniform", "truncated normal", "any")
# fourth standardised moment; of a uniform number 9/5
KURTOSIS = {"normal": 3.0, "uniform": 1.8, "truncated normal": 2.3657, "any": 9.0}

Declaration = Mapping[str, Declared]


def normal(std: float) -> Declared:
    """Return the normal law of mean 0.

    Args:
        std: sd of an entry, > 0.

    Returns:
        The law.

    Raises:
        ValueError: for another sd.
    """
    return Declared("normal", std)


def truncated_normal(std: float) -> Declared:
    """Return a normal law that is cut off at two of its sd.

    Args:
        std: sd > 0 of an entry, of what is left.

    Returns:
        The law.

    Raises:
        ValueError: for another sd.
    """
    return Declared("truncated normal", std)


def uniform(bound: float) -> Declared:
    """Return the uniform law on [−bound, bound], of sd bound/√3.

    Args:
        bound: > 0.

    Returns:
        The law.

    Raises:
        ValueError: for another bound.
    """
    return Declared("uniform", checks.number("bound", bound, "(0, inf)") / 3**0.5)


def constant(value: float) -> Declared:
    """Return one value for all entries.

    Args:
        value: finite.

    Returns:
        The law.

    Raises:
        ValueError: for another value.
    """
    return Declared("constant", value)


def fan_in(gain: float = 1.0, kind: str = "normal") -> Declared:
    """Return a law of sd gain/√fan-in: gain 1 is LeCun's, √2 He's.

    Args:
        gain: > 0.
        kind: "normal", "uniform", "truncated normal" or "any".

    Returns:
        The law.

    Raises:
        ValueError: for another gain or kind.

    Source:
        LeCun et al., "Efficient backprop" (1998); He et al., "Delving deep into
        rectifiers" (2015), arXiv 1502.01852.
    """
    return Declared(kind, gain, "in")


def fan_out(gain: float = 1.0, kind: str = "normal") -> Declared:
    """Return a law of sd gain/√fan-out: gain √2 is He's for gradients.

    Args:
        gain: > 0.
        kind: "normal", "uniform", "truncated normal" or "any".

    Returns:
        The law.

    Raises:
        ValueError: for another gain or kind.

    Source:
        He et al., "Delving deep into rectifiers" (2015), arXiv 1502.01852.
    """
    return Declared(kind, gain, "out")


def fan_average(gain: float = 1.0, kind: str = "normal") -> Declared:
    """Return a law of sd gain/√((fan-in + fan-out)/2): gain 1 is Glorot's.

    Args:
        gain: > 0.
        kind: "normal", "uniform", "truncated normal" or "any".

    Returns:
        The law.

    Raises:
        ValueError: for another gain or kind.

    Source:
        Glorot & Bengio, "Understanding the difficulty of training deep feedforward
        neural networks" (2010).
    """
    return Declared(kind, gain, "average")


def orthogonal(gain: float = 1.0) -> Declared:
    """Return gain times rows, or columns, that are orthonormal.

    Of the matrix (out, in × kernel); the sd of an entry is gain/√(its longer side).

    Args:
        gain: > 0.

    Returns:
        The law.

    Raises:
        ValueError: for another gain.
    """
    return Declared("orthogonal", gain)


def residual(base: Declared, blocks: int) -> Declared:
    """Return a law over √(2·blocks), for the last layers of residual branches.

    As of GPT-2, which has two branches in each of its blocks.

    Args:
        base: the law without that.
        blocks: of the network, ≥ 1.

    Returns:
        The law, of a smaller scale.

    Raises:
        ValueError: for what is no ``Declared``, and another number.

    Source:
        Radford et al., "Language models are unsupervised multitask learners" (2019).
    """
    checks.instance("base", base, Declared)
    count = checks.integer("blocks", blocks, 1)
    scale = base.scale / math.sqrt(2 * count)
    return dataclasses.replace(base, scale=scale, blocks=count)


def anything(std: float) -> Declared:
    """Return any law of mean 0 and this sd.

    Args:
        std: sd of an entry, > 0.

    Returns:
        The law, of which the shape is not checked.

    Raises:
        ValueError: for another sd.
    """
    return Declared("any", std)


def unknown() -> Declared:
    """Return what says nothing, for parameters that later patterns would fit.

    Returns:
        The law, of which nothing is checked.
    """
    return Declared("unknown", 1.0)


def cdf(kind: str, z: np.ndarray) -> np.ndarray | None:
    """Return P(Z ≤ z) of the standardised law of a kind; None where it is not known."""
    if kind == "normal":
        return special.ndtr(z)
    if kind == "uniform":
        return np.clip(z / (2 * 3**0.5) + 0.5, 0, 1)
    if kind == "truncated normal":
        edge = special.ndtr(-2.0)
        inside = np.clip(CUT_OFF * z, -2, 2)
        return (special.ndtr(inside) - edge) / (1 - 2 * edge)
    return None


def of_name(declaration: Declaration, name: str, layer: str = "") -> Declared | None:
    """Return what is declared of a parameter, by its name and its layer's class.

    Args:
        declaration: patterns and their laws, in the order in which they are tried.
        name: of the parameter, as an audit prints it.
        layer: class of its layer; "" where it is not known.

    Returns:
        The law of the first pattern that fits, or None.
    """
    pattern = _first(declaration, name, layer)
    return None if pattern is None else declaration[pattern]


def _first(declaration: Declaration, name: str, layer: str) -> str | None:
    """Return the first pattern that fits a parameter."""
    in_layer = f"{layer}/{name.rpartition('.')[2]}"
    for pattern in declaration:
        if fnmatch.fnmatchcase(in_layer if "/" in pattern else name, pattern):
            return pattern
    return None


class Ready(dict):
    """A declaration for many models, of which a model may have a part."""


def unused(
    declaration: Declaration, parameters: Sequence[tuple[str, str]]
) -> list[str]:
    """Return the patterns that are the first to fit none of the names and layers."""
    used = {_first(declaration, name, layer) for name, layer in parameters}
    return [pattern for pattern in declaration if pattern not in used]


def unchecked(
    declaration: Declaration, parameters: Sequence[tuple[str, str, Fans | None]]
) -> list[str]:
    """Return the names of parameters that are declared by fans that are not known."""
    names = []
    for name, layer, fans in parameters:
        declared = of_name(declaration, name, layer)
        by_fans = declared is not None and declared.kind != "unknown"
        if by_fans and declared is not None and declared.std(fans) is None:
            names.append(name)
    return names


def checked(declaration: object) -> Declaration:
    """Return a declaration, with laws that may be written as words.

    Raises:
        ValueError: for anything else, naming the pattern.
    """
    allowed = 'a mapping such as {"*.weight": declarations.fan_in(2 ** 0.5)}'
    mapping = isinstance(declaration, Mapping)
    checks.require(mapping, "declaration", declaration, allowed)
    assert isinstance(declaration, Mapping)
    if isinstance(declaration, Ready):
        return declaration
    found = {}
    for pattern, law in declaration.items():
        checks.text("a pattern of the declaration", pattern)
        if isinstance(law, str):
            law = spoken(law)
        checks.instance(f"declaration[{pattern!r}]", law, Declared)
        found[pattern] = law
    return found


_WORDS = {
    "normal": normal,
    "truncated_normal": truncated_normal,
    "uniform": uniform,
    "constant": constant,
    "fan_in": fan_in,
    "fan_out": fan_out,
    "fan_average": fan_average,
    "orthogonal": orthogonal,
    "any": anything,
}


def spoken(text: str) -> Declared:
    """Return the law of words such as "normal:0.02" or "fan_in:1.414:uniform".

    "any" alone says nothing of a parameter.

    Args:
        text: the name of a law, its number, and for fans its kind, joined by ":".

    Returns:
        The law.

    Raises:
        ValueError: for other words, with those that are known, and other numbers.

    >>> spoken("fan_in:1.5:uniform").told(Fans(9, 4))
    'uniform, sd 0.5 (1.5/√fan-in)'
    """
    word, *rest = text.split(":")
    if text in ("any", "unknown"):
        return unknown()
    allowed = f"one of {', '.join(_WORDS)}, with its number, such as normal:0.02"
    checks.require(word in _WORDS, "declared law", text, allowed)
    fans = word.startswith("fan_")
    fits = len(rest) in (
        (0, 1, 2) if fans else (0, 1) if word == "orthogonal" else (1,)
    )
    checks.require(fits, "declared law", text, allowed)
    values: list = []
    for i, piece in enumerate(rest):
        if i == 1:
            values.append(checks.one_of("kind", piece.replace("_", " "), KINDS))
            continue
        try:
            values.append(float(piece))
        except ValueError:
            checks.refuse("declared law", text, f"{allowed}; {piece!r} is no number")
    return _WORDS[word](*values)
