"""Layers and the linear maps inside of them: how to draw their parameters, and how to
apply them.

A layer is a function of its linear maps and of x. Said so, the same layer can be
applied with matrices that are drawn, or followed with matrices that are not: what a map
returns is normal given what it is given.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lognorm_jax import masks, weights
from lognorm_jax._tools import bound, checks, draws, random
from lognorm_jax.networks import _params

# (…, n_in) -> (…, n_out), for each name
Maps = Mapping[str, Callable[[jax.Array], jax.Array]]


def same(fixed: Any, x: jax.Array) -> jax.Array:
    """Return x: for a layer that applies its matrix to what reaches it."""
    del fixed
    return x


def image(fixed: Any, x: jax.Array, z: jax.Array) -> jax.Array:
    """Return z: for a layer that is its matrix and biases."""
    del fixed, x
    return z


def activated(
    phi: Callable[[jax.Array], jax.Array],
    dropout: jax.Array | None,
    x: jax.Array,
    z: jax.Array,
) -> jax.Array:
    """Return φ(z), under dropout."""
    del x
    y = phi(z)
    return y if dropout is None else dropout * y


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["std", "bias_scale"],
    meta_fields=["shape", "weights", "stored", "tied"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Map:
    """A linear map x ↦ W x + b of the last axis of x, W iid and b normal.

    A pytree of its numbers.

    Attributes:
        shape: of W, (n_out, n_in).
        std: standard deviation of a weight; may be traced.
        weights: their law, standardised.
        bias_scale: standard deviation of a bias; may be traced; None: all are 0.
        stored: the shape in which parameters hold W; None: its own.
        tied: the name of a matrix that other layers use as well; "": a matrix of its
            own.
    """

    shape: tuple[int, int]
    std: float | jax.Array
    weights: weights.Weights
    bias_scale: float | jax.Array | None = None
    stored: tuple[int, ...] | None = None
    tied: str = ""

    @property
    def described(self) -> tuple:
        """What two maps that are one have in common: numbers that are known, by value;
        traced ones by what they are.
        """
        numbers = [
            id(number) if checks.traced(number) else number
            for number in (self.std, self.bias_scale)
        ]
        return self.shape, self.weights, *numbers

    def drawn(self, key_weight: jax.Array, key_bias: jax.Array) -> dict[str, jax.Array]:
        """Draw parameters.

        Args:
            key_weight: one typed key, of W.
            key_bias: another, of b.

        Returns:
            {"weight": (n_out, n_in) or as stored, "bias": (n_out,)}.
        """
        W = self.weights.sample(key_weight, self.shape, jnp.result_type(float))
        return {
            "weight": (self.std * W).reshape(self.stored or self.shape),
            "bias": biases(key_bias, self.bias_scale, self.shape[0]),
        }

    def applied(self, params: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
        """Return W x + b.

        Args:
            params: {"weight", "bias"}, as ``drawn`` returns them.
            x: (…, n_in).

        Returns:
            (…, n_out).
        """
        W = params["weight"].reshape(self.shape)
        if x.ndim == 1:
            return jnp.dot(W, x, precision="highest") + params["bias"]
        z = jnp.matmul(x, W.T, precision="highest")
        return z + jnp.broadcast_to(params["bias"], z.shape)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["std", "bias_scale", "before", "after", "fixed"],
    meta_fields=["shape", "weights"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Matrix:
    """The inside of a layer x ↦ after(x, W before(x) + b), W iid and b normal.

    A pytree of its numbers. Its functions are those of a module, or ``bound``, if
    layers made anew are to be one program.

    Attributes:
        shape: of W, (n_out, n_in).
        std: standard deviation of a weight; may be traced.
        weights: their law, standardised.
        bias_scale: standard deviation of a bias; may be traced; None for no biases.
        before: (fixed, x) -> what W multiplies, (n_in,); default x itself.
        after: (fixed, x, W before + b) -> x; default W before + b.
        fixed: key -> what else is drawn: signs, dropout; None: nothing.
    """

    shape: tuple[int, int]
    std: float | jax.Array
    weights: weights.Weights
    bias_scale: float | jax.Array | None = None
    before: Callable[[Any, jax.Array], jax.Array] = same
    after: Callable[[Any, jax.Array, jax.Array], jax.Array] = image
    fixed: Callable[[jax.Array], Any] | None = None

    def __post_init__(self):
        for name in ("before", "after", "fixed"):
            object.__setattr__(self, name, bound.bound(getattr(self, name)))

    @property
    def by_entry(self) -> tuple[Callable, masks.Sampler | None] | None:
        """What follows the matrix of a layer x ↦ D ⊙ φ(W x + b): ``after``, which acts
        entry by entry, and the sampler of D if there is one. None for other layers.
        """
        before, after, fixed = map(bound.bound, (self.before, self.after, self.fixed))
        if before.function is not same or after.function not in (image, activated):
            return None
        if fixed is None:
            return after, None
        return (after, fixed.arrays[0]) if fixed.function is _entries else None

    @property
    def map(self) -> Map:
        """The linear map."""
        return Map(self.shape, self.std, self.weights, self.bias_scale)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["function", "maps", "fixed"],
    meta_fields=["names"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A kind of layer: a function of its linear maps and of x. Equal only to itself.

    A pytree of its numbers. Its trained parameters are {name: {"weight": (n_out, n_in),
    "bias": (n_out,)}}, or of one map without a name {"weight": …, "bias": …}.

    Attributes:
        function: (maps, fixed, x) -> x, with a callable (…, n_in) -> (…, n_out) for
            each name.
        maps: the linear maps.
        names: of the maps; ("",) for the only one.
        fixed: key -> what else is drawn: signs, dropout; None: nothing.
    """

    function: Callable[[Maps, Any, jax.Array], jax.Array]
    maps: tuple[Map, ...]
    names: tuple[str, ...] = ("",)
    fixed: Callable[[jax.Array], Any] | None = None

    def __post_init__(self):
        for name in ("function", "fixed"):
            object.__setattr__(self, name, bound.bound(getattr(self, name)))

    @property
    def matrix(self) -> Matrix | None:
        """What is inside, of a layer that ``layer`` made of one matrix."""
        function = bound.bound(self.function)
        if function.function is not _around:
            return None
        (one,) = self.maps
        before, after = function.arrays
        return Matrix(
            one.shape, one.std, one.weights, one.bias_scale, before, after, self.fixed
        )

    @property
    def title(self) -> str:
        """What tables call the layer: its linear maps by their names."""
        return ", ".join(self.names) if any(self.names) else "layer"

    def keys(
        self, key: jax.Array, layer: int | jax.Array
    ) -> tuple[list[tuple[jax.Array, jax.Array]], jax.Array]:
        """Return the keys of the weights and biases of each map, and of what else is
        drawn.

        Args:
            key: of the network, one typed key.
            layer: its index, ≥ 0.

        Returns:
            (key of weights, key of biases) of each map; and the key of the rest.
        """
        count = max(3, 1 + 2 * len(self.maps))
        first, bias, fixed, *more = draws.keys(key, layer, count)
        pairs = [(first, bias), *zip(more[::2], more[1::2], strict=True)]
        own = zip(self.maps, pairs[: len(self.maps)], strict=True)
        return [_tied_keys(key, one.tied) or pair for one, pair in own], fixed

    def drawn_fixed(self, key: jax.Array) -> Any:
        """Return what is drawn besides weights and biases.

        Args:
            key: one typed key, the second that ``keys`` returns.

        Returns:
            A pytree of arrays, or None where nothing is.
        """
        return None if self.fixed is None else self.fixed(key)

    def init(self, key: jax.Array, layer: int | jax.Array) -> _params.Params:
        """Draw parameters, from the key of the network and the index of the layer.

        Args:
            key: of the network, one typed key.
            layer: its index, ≥ 0.

        Returns:
            Parameters of one layer, without an axis of layers.
        """
        pairs, key_fixed = self.keys(key, layer)
        drawn = [one.drawn(*pair) for one, pair in zip(self.maps, pairs, strict=True)]
        return _params.Params(self.named(drawn), self.drawn_fixed(key_fixed))

    def apply(self, params: _params.Params, x: jax.Array) -> jax.Array:
        """Return what the layer makes of x with these parameters.

        Args:
            params: of one layer, as ``init`` returns them.
            x: what reaches the layer.

        Returns:
            What it returns, of a shape that is its own.
        """
        parts = self.parts(params.trained)
        applied = {
            name: functools.partial(one.applied, part)
            for name, one, part in zip(self.names, self.maps, parts, strict=True)
        }
        return self.function(applied, params.fixed, x)

    def parts(self, tree: Any) -> list[Any]:
        """Return what there is of each map, of a tree by their names.

        Args:
            tree: as what is trained of the layer.

        Returns:
            A list like ``maps``.
        """
        return [tree] if self.names == ("",) else [tree[name] for name in self.names]

    def named(self, parts: Sequence[Any]) -> Any:
        """Return what there is of each map by its name.

        Args:
            parts: a list like ``maps``.

        Returns:
            A tree as what is trained of the layer.
        """
        if self.names == ("",):
            return parts[0]
        return dict(zip(self.names, parts, strict=True))


def _tied_keys(key: jax.Array, name: str) -> tuple[jax.Array, jax.Array] | None:
    """Return the keys of weights and biases that layers share under a name; or None."""
    if not name:
        return None
    # beyond the numbers of layers
    number = (1 << 31) | zlib.crc32(name.encode())
    key_weight, key_bias = draws.keys(key, jnp.uint32(number), 2)
    return key_weight, key_bias


def layer(
    inside: Matrix | Callable,
    maps: Mapping[str, Map] | None = None,
    fixed: Callable[[jax.Array], Any] | None = None,
) -> Layer:
    """Return a layer: a function of its linear maps and of x.

    Args:
        inside: (maps, x) -> x, in which ``maps[name](v)`` is W v + b along the last
            axis of v; to be called outside of jit, vmap and scan. Or a ``Matrix``,
            whose layer has the parameters {"weight": (n_out, n_in), "bias": (n_out,)}.
        maps: the linear maps by their names, for a function; see ``linear``.
        fixed: key -> what else is drawn, such as signs, or dropout at initialisation;
            then inside is (maps, x, fixed) -> x.

    Returns:
        The layer, equal only to itself.

    Raises:
        ValueError: for what is neither a Matrix nor a function, for maps that are no
            dictionary of linear maps by their names, and for fixed that is no function.

    >>> def block(maps, x):
    ...     return x + maps["down"](jnp.tanh(maps["up"](x)))
    >>> residual = layer(block, {"up": linear(8, 32), "down": linear(32, 8)})
    >>> params = residual.init(jax.random.key(0), 0)
    >>> residual.apply(params, jnp.ones((5, 8))).shape
    (5, 8)
    """
    if isinstance(inside, Matrix):
        around = bound.Bound(_around, arrays=(inside.before, inside.after))
        return Layer(around, (inside.map,), fixed=inside.fixed)
    checks.function("inside", inside, "a Matrix, or a function (maps, x) -> x")
    named = isinstance(maps, Mapping) and all(
        isinstance(name, str) and isinstance(one, Map) for name, one in maps.items()
    )
    allowed = "a dictionary of linear maps by their names"
    checks.require(named, "maps", maps, allowed, "Make one with networks.linear.")
    assert maps is not None
    if fixed is not None:
        checks.function("fixed", fixed, "None, or a function of a key")
    function = bound.Bound(_called, (fixed is not None,), (bound.bound(inside),))
    return Layer(function, tuple(maps.values()), tuple(maps), fixed)


def linear(
    n_in: int,
    n_out: int,
    std: float | jax.Array | None = None,
    bias_scale: float | jax.Array = 0.0,
    weight_law: weights.Weights | None = None,
    *,
    tied: str = "",
) -> Map:
    """Return a linear map from vectors (…, n_in) to (…, n_out), for ``layer``.

    Args:
        n_in: an integer ≥ 1.
        n_out: an integer ≥ 1.
        std: standard deviation of a weight, in [1e-30, 1e30]; default 1/√n_in; may be
            traced.
        bias_scale: standard deviation ≥ 0 of the normal biases; may be traced.
        weight_law: default normal.
        tied: a name; all linear maps of a network with this name are one, drawn once,
            as the matrix that a recurrent network uses at every step.

    Returns:
        The map, of which nothing is drawn yet.

    Raises:
        ValueError: for arguments outside of these.
    """
    n_in = checks.integer("n_in", n_in, 1)
    n_out = checks.integer("n_out", n_out, 1)
    scale = n_in**-0.5 if std is None else checks.scale("std", std, 1e-30, 1e30)
    named = isinstance(tied, str) and (not tied or tied.isidentifier())
    checks.require(named, "tied", tied, "a name, such as 'recurrent', or ''")
    law, biases = checked_law(weight_law), checked_biases(bias_scale)
    return Map((n_out, n_in), scale, law, biases, tied=tied)


def _called(
    draws_more: bool, inside: Callable, maps: Maps, fixed: Any, x: jax.Array
) -> jax.Array:
    """Return what a function of the user's makes of x."""
    return inside(maps, x, fixed) if draws_more else inside(maps, x)


def _around(
    before: Callable, after: Callable, maps: Maps, fixed: Any, x: jax.Array
) -> jax.Array:
    """Return what a layer makes of x around its one map."""
    return after(fixed, x, maps[""](before(fixed, x)))


def biases(key: jax.Array, scale: float | jax.Array | None, count: int) -> jax.Array:
    """Return normal biases of a standard deviation, (count,); zeros for None."""
    dtype = jnp.result_type(float)
    if scale is None:
        return jnp.zeros(count, dtype)
    return scale * random.normal(key, (count,), dtype)


def signs(width: int) -> bound.Bound:
    """Return key -> (width,) random signs, ±1."""
    return bound.Bound(_signs, (width,))


def _signs(width: int, key: jax.Array) -> jax.Array:
    return weights.rademacher().sample(key, (width,), jnp.result_type(float))


def entries(mask: masks.Mask, width: int) -> bound.Bound:
    """Return key -> (width,) iid entries of a mask."""
    return bound.Bound(_entries, (width,), (bound.bound(mask.sample),))


def _entries(width: int, sample: masks.Sampler, key: jax.Array) -> jax.Array:
    return sample(key, (width,), jnp.result_type(float))


def checked_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """Return widths (n_0, …, n_d), two or more integers ≥ 1."""
    allowed = "a sequence of at least two integers ≥ 1"
    several = checks.is_sequence(widths) and len(widths) >= 2
    checks.require(several, "widths", widths, allowed)
    return tuple(checks.integer("widths", width, 1) for width in widths)


def checked_biases(value: object) -> float | jax.Array | None:
    """Return a standard deviation in [0, 1e30], or a traced one; None for 0."""
    scale = checks.scale("bias_scale", value, 0, 1e30)
    return scale if checks.traced(scale) or scale != 0 else None


def checked_law(law: weights.Weights | None) -> weights.Weights:
    """Return the law of the weights, normal for None."""
    if law is None:
        return weights.normal()
    checks.instance("weight_law", law, weights.Weights)
    return law
