"""A network: how to draw its parameters, how to apply them, what theory says of it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import ensembles, laws
from lognorm_jax._tools import checks, scans
from lognorm_jax.networks import _layers, _params


@dataclasses.dataclass(frozen=True)
class Network:
    """A network: how to draw its parameters, how to apply them, what theory says of
    it.
    """

    name: str  # shown in tables and legends
    shape: tuple[int, ...]  # of an input
    # one per layer; layers alike share one object
    kinds: tuple[_layers.Layer, ...] = dataclasses.field(repr=False)
    footprint: int  # floats that the parameters of the largest layer take
    # whether layer(c·x) = c·layer(x) for c > 0: then the norm of x is free
    homogeneous: bool
    # the product of random matrices its Jacobian is equal to in law, if there is one
    ensemble: ensembles.Ensemble | None = dataclasses.field(default=None, repr=False)
    # (x, tangent) -> limit law, if known
    law: Callable[[Any, Any], laws.Law] | None = dataclasses.field(
        default=None, repr=False
    )

    def places(self) -> list[list[int]]:
        """Return the indices of the layers of each kind, kinds in order of
        appearance.
        """
        places = {}
        for i, kind in enumerate(self.kinds):
            places.setdefault(kind, []).append(i)
        return list(places.values())

    def in_order(self, by_kind: list[jax.Array]) -> jax.Array:
        """Return what is stacked over the layers of each kind, (depth, …), in the
        layers' order.
        """
        return jnp.concatenate(by_kind)[np.argsort(np.concatenate(self.places()))]

    def outputs(self, dtype: Any) -> list[jax.ShapeDtypeStruct]:
        """Return shape and type of what each layer returns, for an input of a type."""
        outputs, seen, key = [], {}, jax.random.key(0)
        reached = jax.ShapeDtypeStruct(self.shape, dtype)
        for kind in self.kinds:
            place = kind, reached.shape
            if place not in seen:
                one = functools.partial(
                    lambda kind, x: kind.apply(kind.init(key), x), kind
                )
                seen[place] = jax.eval_shape(one, reached)
            reached = seen[place]
            outputs.append(reached)
        return outputs

    def init(self, key: jax.Array) -> _params.Params:
        """Draw all parameters: for each kind of layer, stacked over its layers.

        Layer l draws from ``fold_in(key, l)``, whatever the depth.
        """
        checks.typed_key(key)
        fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        drawn = [
            jax.vmap(self.kinds[own[0]].init)(fold(key, jnp.array(own, jnp.uint32)))
            for own in self.places()
        ]
        return _params.Params.of_kinds(drawn)

    @functools.cached_property
    def _drawn(self) -> _params.Params:
        """What ``init`` returns, as shapes and types."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def require_own(self, params: Any) -> None:
        """Raise ``ValueError`` for parameters that are not of the shapes that ``init``
        returns.
        """
        count = len(self._drawn.trained)
        allowed = f"the Params of {count} kinds of layers that init returns"
        stacked = isinstance(params, _params.Params) and [count] * 2 == [
            len(part) if isinstance(part, list | tuple) else None for part in params
        ]
        checks.require(stacked, "params", params, allowed)
        pairs = zip(params.by_kind(), self._drawn.by_kind(), strict=True)
        for kind, (own, drawn) in enumerate(pairs):
            given, allowed = (
                {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
                for leaves in map(jax.tree.leaves_with_path, (own, drawn))
            )
            instead = "Is it another network's? Take network.init(key)."
            name = f"shapes of params, kind {kind}"
            checks.require(
                given == allowed, name, given, f"those of init, {allowed}", instead
            )

    def layers(self, params: _params.Params) -> list[Callable[[jax.Array], jax.Array]]:
        """Return the layers as callables x -> x, in order; their composition is the
        network.
        """
        self.require_own(params)
        layers = {}
        for own, stacked in zip(self.places(), params.by_kind(), strict=True):
            for row, i in enumerate(own):
                one = jax.tree.map(lambda leaf, row=row: leaf[row], stacked)
                layers[i] = functools.partial(self.kinds[i].apply, one)
        return [layers[i] for i in range(len(self.kinds))]

    def rows(self, params: _params.Params) -> Callable[[np.ndarray], Any]:
        """Return indices of layers of one kind -> their parameters: rows of
        ``scan_layers``.
        """
        places = self.places()
        by_kind = params.by_kind()
        where = {
            i: (kind, row)
            for kind, own in enumerate(places)
            for row, i in enumerate(own)
        }

        def rows_of(layers):
            kind, first = where[layers[0]]
            own = np.array([where[i][1] for i in layers])
            step = own[1] - first if len(own) > 1 else 1
            return jax.tree.map(
                lambda leaf: leaf[first : own[-1] + 1 : step], by_kind[kind]
            )

        return rows_of

    def apply(self, params: _params.Params, x: jax.Array) -> jax.Array:
        """Return the output for one input; stretches of equal layers are scanned.

        For a batch: ``jax.vmap(functools.partial(network.apply, params))(inputs)``.
        """
        x = jnp.asarray(x)
        x = (
            x
            if jnp.issubdtype(x.dtype, jnp.floating)
            else x.astype(jnp.result_type(float))
        )
        allowed = f"that of one input, {self.shape}"
        checks.require(
            x.shape == self.shape, "x.shape", x.shape, allowed, "For a batch use vmap."
        )
        self.require_own(params)
        return self._applied(params, x)

    @functools.cached_property
    def _applied(self) -> Callable[[_params.Params, jax.Array], jax.Array]:
        """(params, x) -> output, compiled once, however often it is called."""

        def step_of(kind):
            return lambda x, own: (kind.apply(own, x), ())

        def applied(params, x):
            return scans.scan_layers(self.kinds, step_of, x, self.rows(params))[0]

        return jax.jit(applied, inline=True)
