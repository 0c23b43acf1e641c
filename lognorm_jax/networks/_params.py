"""Parameters of a network: what is trained apart from what is only drawn."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Params(NamedTuple):
    """Parameters of a network, or of one of its layers: a pytree.

    Layers of one kind are stacked. Those of a network are lists with one entry for
    each kind of layer, in order of appearance; those of one layer are a single entry
    without the axis of layers.

    Attributes:
        trained: {"weight": (layers, n_out, n_in), "bias": (layers, n_out)} for each
            kind, or these by the names of its linear maps.
        fixed: drawn and not trained, such as signs or a dropout mask, for each kind; or
            None.
    """

    trained: Any
    fixed: Any

    def by_kind(self) -> list["Params"]:
        """Return the parameters of each kind of layer, stacked over its layers.

        Returns:
            One for each kind, in order of appearance.
        """
        return [
            Params(trained, fixed)
            for trained, fixed in zip(self.trained, self.fixed, strict=True)
        ]

    @classmethod
    def of_kinds(cls, kinds: Sequence["Params"]) -> "Params":
        """Return the parameters of a network from those of each kind of layer.

        Args:
            kinds: what ``by_kind`` returns.

        Returns:
            The parameters of the network.
        """
        return cls([kind.trained for kind in kinds], [kind.fixed for kind in kinds])
