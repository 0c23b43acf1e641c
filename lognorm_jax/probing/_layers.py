"""What a layer is: a callable x -> x with a name, alone or made of parts."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax

from lognorm_jax._tools import checks
from lognorm_jax.probing import _frameworks

Layer = Callable[[jax.Array], jax.Array]
# layers, each with what errors call it
Labelled = Sequence[tuple[str, Layer]]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["parts"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Chain:
    """Callables applied in turn, as one: a layer whose parts are known.

    Attributes:
        parts: the callables x -> x, in order.
    """

    parts: tuple[Layer, ...]

    @property
    def __name__(self) -> str:
        """The joint name of the parts."""
        return ", ".join(map(name_of, self.parts))

    def __call__(self, x: Any) -> Any:
        """Apply the parts in turn.

        Args:
            x: what the first part takes.

        Returns:
            What the last part gives.
        """
        for part in self.parts:
            x = part(x)
        return x


def chain(layers: Sequence[Layer]) -> Layer:
    """Return callables applied in turn, as one, of their joint name.

    Args:
        layers: callables x -> x, in order.

    Returns:
        A ``Chain`` of all parts; of one callable, itself.

    >>> chain([abs, chain([min, max])]).__name__
    'abs, min, max'
    """
    if len(layers) == 1:
        return layers[0]
    return Chain(tuple(part for layer in layers for part in parts(layer)))


def parts(layer: Layer) -> tuple[Layer, ...]:
    """Return what a chain applies in turn; any other layer is one part.

    Args:
        layer: a callable x -> x.

    Returns:
        The parts, at least one.
    """
    return layer.parts if isinstance(layer, Chain) else (layer,)


def named(layer: Layer, name: str) -> Layer:
    """Return the callable under another name, which reports and errors then show.

    Args:
        layer: a callable x -> x.
        name: its ``__name__`` from now on.

    Returns:
        A function that does the same.
    """

    def apply(x):
        return layer(x)

    apply.__name__ = name
    return apply


def name_of(layer: object) -> str:
    """Return the name of a function, or that of the class of an object.

    Args:
        layer: any object.

    Returns:
        Its ``__name__``, or that of its class where it has none.
    """
    return getattr(layer, "__name__", type(layer).__name__)


def label(place: int, layer: object) -> str:
    """Return what errors call a layer: its place and, unless a lambda, its name."""
    name = name_of(layer)
    return f"layers[{place}]" + (f" ({name})" if name != "<lambda>" else "")


def labelled(layers: Sequence[Layer]) -> Labelled:
    """Return each layer with what errors call it."""
    return [(label(place, layer), layer) for place, layer in enumerate(layers)]


@contextlib.contextmanager
def naming(label: str) -> Iterator[None]:
    """Raise ``ValueError``, naming the layer, where it cannot be differentiated."""
    try:
        yield
    except Exception as error:
        # of any kind: it is the layer that raised it
        raise ValueError(f"{label}: {error}") from error


def listed(layers: Iterable[Layer]) -> list[Layer]:
    """Return layers as a list; refuse what cannot be called, and PyTorch's."""
    allowed = "a sequence of callables x -> x"
    checks.require(isinstance(layers, Iterable), "layers", layers, allowed)
    layers = list(layers)
    for place, layer in enumerate(layers):
        _frameworks.refuse_torch(f"layers[{place}]", layer)
        checks.function(f"layers[{place}]", layer, "a callable x -> x")
    return layers
