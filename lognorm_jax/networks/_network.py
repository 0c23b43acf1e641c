"""A network: how to draw its parameters, how to apply them, what theory says of it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import ensembles, laws
from lognorm_jax._tools import checks, scans
from lognorm_jax.networks import _layers, _params


@dataclasses.dataclass(frozen=True)
class Network:
    """A network: how to draw and apply its parameters, and what theory says of it.

    Attributes:
        name: shown in tables and legends.
        shape: of an input.
        kinds: one per layer; layers alike share one object.
        homogeneous: whether layer(c·x) = c·layer(x) for c > 0: then the norm of x is
            free.
        ensemble: the product of random matrices its Jacobian is equal to in law, if
            there is one.
        law: (x, tangent) -> limit law, if known.
    """

    name: str
    shape: tuple[int, ...]
    kinds: tuple[_layers.Layer, ...] = dataclasses.field(repr=False)
    homogeneous: bool
    ensemble: ensembles.Ensemble | None = dataclasses.field(default=None, repr=False)
    law: Callable[[Any, Any], laws.Law] | None = dataclasses.field(
        default=None, repr=False
    )

    def plain(self) -> "Network":
        """Return the network without its name and theory: networks that are drawn and
        applied alike are then one program.

        Returns:
            A network of the same layers.
        """
        return dataclasses.replace(self, name="network", ensemble=None, law=None)

    @property
    def undrawn(self) -> bool:
        """Whether no weights need be drawn: all are normal or orthogonal."""
        laws = [one.weights for kind in self.kinds for one in kind.maps]
        return all(law.gaussian or law.orthogonal for law in laws)

    def places(self) -> list[list[int]]:
        """Return the indices of the layers of each kind, in order of appearance.

        Returns:
            One list of indices a kind.
        """
        places: dict[_layers.Layer, list[int]] = {}
        for i, kind in enumerate(self.kinds):
            places.setdefault(kind, []).append(i)
        return list(places.values())

    @property
    def matrices(self) -> tuple[str, ...]:
        """The names of the matrices of weights, "layer.map", or "layer" of the only
        one; then of those that are tied, which are one each.
        """
        own, tied = [], set()
        for place, kind in enumerate(self.kinds):
            for name, one in zip(kind.names, kind.maps, strict=True):
                if one.tied:
                    tied.add(one.tied)
                else:
                    own.append(f"{place}.{name}" if name else str(place))
        return *own, *sorted(tied)

    def in_order(self, by_kind: list[jax.Array]) -> jax.Array:
        """Return what is stacked over the layers of each kind in the layers' order.

        Args:
            by_kind: one array (layers of the kind, …) for each kind.

        Returns:
            (depth, …).
        """
        return jnp.concatenate(by_kind)[np.argsort(np.concatenate(self.places()))]

    def outputs(self, dtype: jax.typing.DTypeLike) -> list[jax.ShapeDtypeStruct]:
        """Return shape and type of what each layer returns, for an input of a type.

        Args:
            dtype: of the input.

        Returns:
            One for each layer, in their order.

        Raises:
            ValueError: naming the first layer that cannot take what reaches it.
        """
        outputs = []
        known: dict[Any, Any] = {}
        reached = jax.ShapeDtypeStruct(self.shape, dtype)
        for number, kind in enumerate(self.kinds):
            place = kind, reached.shape
            if place not in known:
                fresh = functools.partial(_drawn_and_applied, kind)
                try:
                    known[place] = jax.eval_shape(fresh, reached)
                except Exception as error:
                    # of any kind: it is the layer that raised it
                    text = f"layer {number} for an input of shape {reached.shape}"
                    raise ValueError(f"{text}: {error}") from error
            reached = known[place]
            outputs.append(reached)
        return outputs

    def init(self, key: jax.Array) -> _params.Params:
        """Draw all parameters: for each kind of layer, stacked over its layers.

        Layer l draws from ``draws.keys(key, l, …)``, whatever the depth.

        Args:
            key: one typed key.

        Returns:
            Lists with one entry for each kind of layer, in order of appearance.

        Raises:
            ValueError: for what is not one typed key.
        """
        checks.typed_key(key)
        drawn = []
        for places in self.places():
            draw = jax.vmap(self.kinds[places[0]].init, (None, 0))
            drawn.append(draw(key, jnp.array(places, jnp.uint32)))
        return _params.Params.of_kinds(drawn)

    @functools.cached_property
    def _drawn(self) -> _params.Params:
        """What ``init`` returns, as shapes and types."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def require_own(self, params: _params.Params) -> None:
        """Require parameters of the shapes that ``init`` returns.

        Args:
            params: of the network.

        Raises:
            ValueError: for others, naming the kind of layer.
        """
        count = len(self._drawn.trained)
        allowed = f"the Params of {count} kinds of layers that init returns"
        listed = isinstance(params, _params.Params) and all(
            isinstance(part, list | tuple) and len(part) == count for part in params
        )
        checks.require(listed, "params", params, allowed)
        pairs = zip(params.by_kind(), self._drawn.by_kind(), strict=True)
        for kind, (given, drawn) in enumerate(pairs):
            shapes = _shapes(given)
            wanted = _shapes(drawn)
            name = f"shapes of params of kind {kind}"
            instead = "Is it another network's? Take network.init(key)."
            checks.require(
                shapes == wanted, name, shapes, f"those of init, {wanted}", instead
            )

    def layers(self, params: _params.Params) -> list[Callable[[jax.Array], jax.Array]]:
        """Return the layers as callables x -> x; their composition is the network.

        Args:
            params: of the network, as ``init`` returns them.

        Returns:
            One callable for each layer, in their order.

        Raises:
            ValueError: for the parameters of another network.
        """
        self.require_own(params)
        layers = {}
        for places, stacked in zip(self.places(), params.by_kind(), strict=True):
            for row, i in enumerate(places):
                one = jax.tree.map(lambda leaf, row=row: leaf[row], stacked)
                kind = self.kinds[i]
                layers[i] = functools.partial(kind.apply, one)
                # what tables of layers call it
                vars(layers[i])["__name__"] = kind.title
        return [layers[i] for i in range(len(self.kinds))]

    def rows(self, params: _params.Params) -> Callable[[np.ndarray], _params.Params]:
        """Return indices of layers of one kind -> their parameters, stacked.

        They are the rows of ``scan_layers``.

        Args:
            params: of the network, as ``init`` returns them.

        Returns:
            A function of indices, evenly apart, of layers of one kind.
        """
        by_kind = params.by_kind()
        where: dict[int, tuple[int, int]] = {}
        for kind, places in enumerate(self.places()):
            where |= {i: (kind, row) for row, i in enumerate(places)}

        def rows_of(layers):
            kind, first = where[layers[0]]
            _, last = where[layers[-1]]
            # a pattern repeats, so that its rows are evenly apart
            step = where[layers[1]][1] - first if len(layers) > 1 else 1
            chosen = slice(first, last + 1, step)
            return jax.tree.map(lambda leaf: leaf[chosen], by_kind[kind])

        return rows_of

    def apply(self, params: _params.Params, x: jax.typing.ArrayLike) -> jax.Array:
        """Return the output for one input; stretches of equal layers are scanned.

        For a batch: ``jax.vmap(functools.partial(network.apply, params))(inputs)``.

        Args:
            params: of the network, as ``init`` returns them.
            x: one input, of ``shape``.

        Returns:
            The output, of the shape of the last of ``outputs``.

        Raises:
            ValueError: for the parameters of another network, and for an input of
                another shape.
        """
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(jnp.result_type(float))
        allowed = f"that of one input, {self.shape}"
        instead = "For a batch use vmap."
        checks.require(x.shape == self.shape, "x.shape", x.shape, allowed, instead)
        self.require_own(params)
        return self._applied(params, x)

    @functools.cached_property
    def _applied(self) -> Callable[[_params.Params, jax.Array], jax.Array]:
        """(params, x) -> output, compiled once, however often it is called."""

        def step_of(kind):
            return lambda x, params: (kind.apply(params, x), ())

        def applied(params, x):
            return scans.scan_layers(self.kinds, step_of, x, self.rows(params))[0]

        return jax.jit(applied, inline=True)


def network(
    shape: Sequence[int],
    layers: Sequence[_layers.Layer],
    name: str = "network",
    *,
    homogeneous: bool = False,
) -> Network:
    """Return a network of layers, applied in turn.

    Args:
        shape: of an input, of one axis or more.
        layers: from ``networks.layer``; layers that are alike should be one object,
            which compiles once.
        name: shown in tables and legends.
        homogeneous: whether every layer has layer(c·x) = c·layer(x) for c > 0; then
            activations are renormalised, and neither over- nor underflow.

    Returns:
        The network, without an ensemble and without a law.

    Raises:
        ValueError: for layers that cannot take what reaches them, or return something
            else than one array of floats, naming the layer; for maps tied by one name
            that are not alike; and for arguments that are not of their kind.
    """
    checks.require(isinstance(shape, Sequence), "shape", shape, "(n, …), integers ≥ 1")
    sizes = tuple(checks.integer("shape", size, 1) for size in shape)
    checks.require(len(sizes) >= 1, "shape", shape, "of one axis or more")
    several = isinstance(layers, Sequence) and len(layers) >= 1
    allowed = "a sequence of layers, from networks.layer"
    checks.require(several, "layers", layers, allowed)
    for place, layer in enumerate(layers):
        checks.instance(f"layers[{place}]", layer, _layers.Layer)
    _require_one_tied(layers)
    checks.flag("homogeneous", homogeneous)
    made = Network(str(name), sizes, tuple(layers), homogeneous)

    # each layer takes one array and returns one
    outputs = made.outputs(jnp.result_type(float))
    for place, output in enumerate(outputs):
        one = isinstance(output, jax.ShapeDtypeStruct)
        one = one and jnp.issubdtype(output.dtype, jnp.floating)
        allowed = "one that returns an array of floats"
        checks.require(one, f"layers[{place}]", output, allowed)

    # one layer with inputs of two shapes is two kinds of layers
    kinds: dict[Any, _layers.Layer] = {}
    used: set[_layers.Layer] = set()
    shapes = [sizes, *(output.shape for output in outputs[:-1])]
    for kind in zip(layers, shapes, strict=True):
        if kind not in kinds:
            again = kind[0] in used
            kinds[kind] = dataclasses.replace(kind[0]) if again else kind[0]
            used.add(kind[0])
    pairs = zip(layers, shapes, strict=True)
    return dataclasses.replace(made, kinds=tuple(kinds[pair] for pair in pairs))


def _require_one_tied(layers: Sequence[_layers.Layer]) -> None:
    """Require that linear maps of one name are alike."""
    first: dict[str, _layers.Map] = {}
    for place, layer in enumerate(layers):
        for one in layer.maps:
            known = first.setdefault(one.tied, one) if one.tied else one
            alike = known is one or known.described == one.described
            allowed = f"like the first map that is tied as {one.tied!r}"
            checks.require(alike, f"layers[{place}]", one, allowed)


def _flat(network: Network) -> tuple[tuple, tuple]:
    """Return the distinct layers of a network, and the rest of it: what is static."""
    distinct, order = scans.order_of(network.kinds)
    rest = network.name, network.shape, network.homogeneous
    return distinct, (order, *rest, network.ensemble, network.law)


def _unflat(rest: tuple, distinct: tuple) -> Network:
    """Return the network of what ``_flat`` returned."""
    order, name, shape, homogeneous, ensemble, law = rest
    kinds = tuple(scans.in_order(distinct, order))
    return Network(name, shape, kinds, homogeneous, ensemble, law)


jax.tree_util.register_pytree_node(Network, _flat, _unflat)


def _drawn_and_applied(kind: _layers.Layer, x: jax.Array) -> jax.Array:
    """Return what a fresh layer makes of x."""
    return kind.apply(kind.init(jax.random.key(0), 0), x)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each leaf, by its path."""
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
