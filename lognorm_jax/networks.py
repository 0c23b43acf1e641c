"""Real networks as lists of layer callables, with the ensemble that predicts their Jacobian.

For a ReLU network with independent symmetric weights and biases without atoms, and any input
x ≠ 0, the squared norm of J(x)u has exactly the law of the mask model with p = 1/2 (Hanin & Nica
2020): neither x nor the biases matter. The network here and its ``ensemble`` are made by one call.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import checks, ensembles, masks, norms, paths, probes, scans, weights


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A kind of layer: how to draw its parameters, and how to apply it. Equal only to itself."""

    init: Callable[[jax.Array], Any]  # key -> params
    apply: Callable[[Any, jax.Array], jax.Array]  # (params, x) -> x


@dataclasses.dataclass(frozen=True)
class Network:
    """A network: how to draw its parameters, how to apply them, what theory says of it."""

    name: str  # shown in tables and legends
    ensemble: ensembles.Ensemble  # the product of random matrices its Jacobian is equal to in law
    kinds: tuple[Layer, ...]  # one a layer; layers alike share one object
    footprint: int  # floats that the parameters of the largest layer take
    homogeneous: bool  # whether layer(c·x) = c·layer(x) for c > 0: then the norm of x is free

    def _places(self) -> dict[Layer, list[int]]:
        """Return the indices of the layers of each kind, kinds in order of appearance."""
        places = {}
        for i, kind in enumerate(self.kinds):
            places.setdefault(kind, []).append(i)
        return places

    def init(self, key: jax.Array) -> list[Any]:
        """Draw all parameters: one pytree for each kind of layer, stacked over its layers.

        Layer l draws from ``fold_in(key, l)``, whatever the depth.
        """
        checks.typed_key(key)
        fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        return [
            jax.vmap(kind.init)(fold(key, jnp.array(layers, jnp.uint32)))
            for kind, layers in self._places().items()
        ]

    def layers(self, params: list[Any]) -> list[Callable[[jax.Array], jax.Array]]:
        """Return the layers as callables x -> x, in order; their composition is the network."""
        count = len(self._places())
        stacked = isinstance(params, list | tuple) and len(params) == count
        checks.require(stacked, "params", params, f"the list of {count} pytrees that init returns")
        layers = {}
        for (kind, places), stacked in zip(self._places().items(), params, strict=True):
            for row, i in enumerate(places):
                one = jax.tree.map(lambda leaf, row=row: leaf[row], stacked)
                layers[i] = functools.partial(kind.apply, one)
        return [layers[i] for i in range(len(self.kinds))]


def relu_mlp(
    widths: Any,
    bias_scale: float = 0.0,
    fan: str = "out",
    head: str = "relu",
    *,
    weight_law: weights.Weights | None = None,
) -> Network:
    """Return a fully connected ReLU network x ↦ relu(W x + b), layer after layer.

    widths: (n_0, …, n_d), integers ≥ 1. Weight variance 2/n_i (fan "out") or 2/n_{i−1} ("in").
    bias_scale: standard deviation ≥ 0 of the normal biases. weight_law: default normal; the law of
    the Jacobian is the ensemble's only for laws without atoms.
    head: "relu", or "linear" for a last layer without activation, of variance 1/n.

    Parameters of one layer: {"weight": (n_i, n_{i−1}), "bias": (n_i,)}. Raises ``ValueError`` for
    anything else.

    >>> network = relu_mlp((64, 32, 32, 10), bias_scale=0.1, head="linear")
    >>> layers = network.layers(network.init(jax.random.key(0)))
    >>> layers[0](jnp.ones(64)).shape, len(layers)
    ((32,), 3)
    """
    allowed = "a number in [0, 1e30]"
    bias_scale = float(checks.real("bias_scale", bias_scale, allowed))
    checks.require(0 <= bias_scale <= 1e30, "bias_scale", bias_scale, allowed)
    known = isinstance(head, str) and head in ("relu", "linear")
    checks.require(known, "head", head, "'relu' or 'linear'")
    weight_law = weights.normal() if weight_law is None else weight_law
    ensemble = ensembles.Ensemble(widths, weight_law, masks.relu(), fan)
    if head == "linear":
        with_head = (*ensemble.masks[:-1], masks.identity())
        ensemble = dataclasses.replace(ensemble, masks=with_head)
    shapes = list(zip(ensemble.widths[:-1], ensemble.widths[1:], ensemble.masks, strict=True))
    layer = {shape: _dense_layer(ensemble, bias_scale, *shape) for shape in dict.fromkeys(shapes)}
    kinds = tuple(layer[shape] for shape in shapes)
    footprint = max(n_in * n_out for n_in, n_out, _ in shapes)
    return Network(f"relu_mlp, {head} head", ensemble, kinds, footprint, bias_scale == 0)


def _dense_layer(ensemble, bias_scale: float, n_in: int, n_out: int, mask: masks.Mask) -> Layer:
    fan = n_out if ensemble.fan == "out" else n_in
    std = float(fan * mask.moment(1)) ** -0.5
    activation = jax.nn.relu if mask is masks.relu() else lambda z: z

    def init(key):
        dtype = jnp.result_type(float)
        key_weight, key_bias = jax.random.split(key)
        W = std * ensemble.weights.sample(key_weight, (n_out, n_in), dtype)
        return {"weight": W, "bias": bias_scale * jax.random.normal(key_bias, (n_out,), dtype)}

    def apply(params, x):
        return activation(jnp.dot(params["weight"], x, precision="highest") + params["bias"])

    return Layer(init, apply)


def jacobian_path(network: Network, x: Any, tangent: Any) -> paths.Path:
    """Return the path of ‖J(x) tangent‖² through a fresh network a key, by forward-mode autodiff.

    Its increments are those of ``probes.jvp_increments(network.layers(network.init(key)), …)``, but
    a layer is drawn when it is reached, so memory does not grow with depth, and runs of equal
    layers are scanned.

    x, tangent: (n_0,), finite, the tangent not zero; its length does not matter. (At x = 0 without
    biases every ReLU is off and every path dead.) Raises ``ValueError`` for anything else.
    """
    checks.instance("network", network, Network)
    shape = (network.ensemble.widths[0],)
    x = checks.vector("x", x, shape, zero=True)
    tangent = ensembles.unit_direction(network.ensemble, checks.vector("tangent", tangent, shape))

    def step_of(key, kind):
        def layer_step(carry, row):
            x, tangent = carry
            layer, _ = row
            apply = functools.partial(kind.apply, kind.init(jax.random.fold_in(key, layer)))
            x, image, increment = probes.jvp_step(apply, x, tangent)
            if network.homogeneous:  # or x itself would vanish or overflow in a deep network
                _, x = norms.normalise(x)
            return (x, image), paths.Trace(increment, norms.quartic(tangent))

        return layer_step

    def path(key):
        step = functools.partial(step_of, checks.typed_key(key))
        dtype = jnp.result_type(float)
        carry = jnp.asarray(x, dtype), jnp.asarray(tangent, dtype)
        return scans.scan_layers(network.kinds, step, carry, np.zeros(len(network.kinds)))[1]

    path.footprint = network.footprint
    return path
