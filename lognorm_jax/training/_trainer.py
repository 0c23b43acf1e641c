"""The first steps of optimization, and how stable gradients are in them.

``trainer`` trains one network from one key and records, before each step, what the
theory is about: the norms of the gradients and of the Jacobian, layer by layer. As all
is a pure function of the key, ``path`` makes it one that ``sampling`` runs for as many
seeds as one likes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lognorm_jax import networks
from lognorm_jax._tools import checks, norms, scans, tangents
from lognorm_jax.training import losses, optimizers

# inputs (num_steps, batch, *shape), targets (num_steps, batch, …)
Batches = tuple[Any, Any]


class History(NamedTuple):
    """What was so before each step: +inf in all of it from where ``finite`` is
    False.
    """

    loss: jax.Array  # (num_steps,) mean over the batch
    log_gradient: jax.Array  # (num_steps, depth) ln ‖∂loss/∂W_i‖²; −inf for none
    # (num_steps, depth) ln R_i of the Jacobian at the probe: −inf from where
    increment: jax.Array
    # it is dead, +inf from where its activations overflow
    update_ratio: jax.Array  # (num_steps, depth) ‖ΔW_i‖/‖W_i‖ of the step that follows
    # (num_steps,) whether loss, gradients and update were finite till here
    finite: jax.Array

    @property
    def log_norm(self) -> jax.Array:
        """Return ln ‖J u‖²/‖u‖² at the probe before each step, (num_steps,)."""
        return self.increment.sum(-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """Training of one network, as ``trainer`` makes it: fit(key, batches)."""

    network: networks.Network
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    num_steps: int
    along_first: bool  # whether the first input is probe and tangent
    # (key, inputs, targets) -> (params, History), compiled once
    train: Callable[..., tuple[networks.Params, History]]

    def __call__(
        self, key: jax.Array, batches: Batches
    ) -> tuple[networks.Params, History]:
        """Return the trained parameters, and what was so before each step."""
        return self.train(checks.typed_key(key), *self.checked(batches))

    def checked(self, batches: Batches) -> tuple[jax.Array, jax.Array]:
        """Return inputs and targets as arrays that fit; else raise ``ValueError``."""
        return _checked(
            self.network, self.loss, self.num_steps, self.along_first, batches
        )


def trainer(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    num_steps: int,
    *,
    probe: Any = None,
    tangent: Any = None,
) -> Trainer:
    """Return ``fit(key, batches)`` -> (params, History): ``num_steps`` steps from a
    fresh network.

    network: of ``networks``; its weights and biases are trained, fixed signs and
    dropout masks are not. optimizer: any of optax, with any learning rate that gives
    finite updates, in ``optimizers.by_layer`` if it goes by the norm or shape of single
    arrays, as lamb does; under vmap over learning rates make the trainer in the
    function that is mapped. loss: (outputs, targets) -> an array whose mean is the
    loss, such as ``losses.squared_error``, ``losses.cross_entropy``, or one of
    ``optax.losses``. probe, tangent: where the Jacobian is taken and what it is applied
    to, of the network's shape; default the first input, and that.

    batches: (inputs, targets) with one row a step: (num_steps, batch, *shape of an
    input) and (num_steps, batch, …). fit is a pure function: jit it, vmap it over keys,
    or let ``sampling.sample(path(fit, batches), …)`` do so in blocks. Equal layers are
    scanned, so compile time grows neither with depth nor with steps.

    Where the loss or a gradient is not finite, or the weights or an update of a layer
    have a norm above a quarter of the largest number, the parameters are left as they
    are for the rest of the steps, ``finite`` is False and the other numbers are +inf.
    Raises ``ValueError`` for anything else, and before any training for a loss that
    does not fit the outputs.
    """
    checks.instance("network", network, networks.Network)
    optimizers.check(optimizer)
    checks.require(
        callable(loss), "loss", loss, "a function (outputs, targets) -> values to mean"
    )
    num_steps = checks.integer("num_steps", num_steps, 1)
    optimizer = optimizers.promoting(optimizer)
    optimizers.require(network, optimizer)
    if tangent is not None:
        tangent = norms.unit(checks.vector("tangent", tangent, network.shape))
    if probe is not None:
        dtype, zero = jnp.result_type(float), tangent is not None
        probe = checks.vector("probe", probe, network.shape, zero=zero, dtype=dtype)

    def train(key, inputs, targets):
        params, rest = split(network.init(key))
        x = jnp.asarray(inputs[0, 0] if probe is None else probe, inputs.dtype)
        along = (
            norms.normalise(x)[1] if tangent is None else jnp.asarray(tangent, x.dtype)
        )

        def objective(params, inputs, targets):
            whole = join(params, rest)
            outputs = jax.vmap(lambda x: network.apply(whole, x))(inputs)
            return jnp.mean(loss(outputs, targets))

        def step(carry, batch):
            params, state, finite = carry

            def value_fn(params):
                return objective(params, *batch)

            value, gradient = jax.value_and_grad(value_fn)(params)
            extra = {"value": value, "grad": gradient, "value_fn": value_fn}
            updates, next_state = optimizer.update(gradient, state, params, **extra)
            increment = jacobian_increments(network, join(params, rest), x, along)
            sizes = [_log_sizes(network, tree) for tree in (gradient, updates, params)]
            increment = jnp.where(jnp.isnan(increment), jnp.inf, increment)
            after = optax.apply_updates(params, updates), next_state
            # sums of two such are finite
            most = 2 * jnp.log(jnp.finfo(value.dtype).max / 4)
            finite &= jnp.isfinite(value) & jnp.all(sizes[0] < jnp.inf)
            finite &= jnp.all(sizes[1] < most) & jnp.all(sizes[2] < most)
            for tree in (gradient, after[0]):
                finite &= _finite(_parts(tree, "weight", False))
            record = value, sizes[0], increment, _ratio(*sizes[1:])
            record = jax.tree.map(lambda x: jnp.where(finite, x, jnp.inf), record)
            kept = jax.tree.map(
                functools.partial(jnp.where, finite), after, (params, state)
            )
            value, gradient_size, increment, ratio = record
            return (*kept, finite), History(
                loss=value,
                log_gradient=gradient_size,
                increment=increment,
                update_ratio=ratio,
                finite=finite,
            )

        start = params, optimizer.init(params), jnp.bool_(True)
        end, history = jax.lax.scan(step, start, (inputs, targets))
        return join(end[0], rest), history

    return Trainer(
        network=network,
        loss=loss,
        num_steps=num_steps,
        along_first=probe is None and tangent is None,
        train=jax.jit(train, inline=True),
    )


def path(
    fit: Trainer, batches: Batches, *, observe: Callable[[Any], Any] | None = None
) -> Callable[[jax.Array], Any]:
    """Return key -> History of ``fit`` at these batches: for ``sampling.sample``, with
    any options.

    Seeds then run in blocks that fit the cache, on all devices, and can be kept by
    ``runs``. With another number of devices results agree to rounding, not in every bit
    as those of other paths. observe: trained params -> pytree, such as the error on a
    test set; then key -> (History, that).
    """
    checks.instance("fit", fit, Trainer)
    usable = observe is None or callable(observe)
    checks.require(usable, "observe", observe, "None, or a function params -> pytree")
    inputs, targets = fit.checked(batches)

    def history(key):
        params, history = fit(key, (inputs, targets))
        return (history, observe(params)) if observe else history

    return scans.compiled(history)


# (depth,)
def layer_log_norms(network: networks.Network, tree: Any) -> jax.Array:
    """Return ln‖·‖² of the weights of each layer.

    tree: like the parameters of the network, or like those that are trained.
    """
    checks.instance("network", network, networks.Network)
    parts = optimizers.stacked(tree)
    if isinstance(parts, networks.Params):
        parts = parts.trained
    _check_parts("tree", parts, len(network.places()))
    return network.in_order([norms.log_squares(part["weight"]) for part in parts])


def jacobian_increments(
    network: networks.Network,
    params: networks.Params,
    x: jax.Array,
    tangent: jax.Array,
) -> jax.Array:  # (depth,)
    """Return ``probes.jvp_increments`` of a network at x, its equal layers scanned."""
    checks.instance("network", network, networks.Network)
    network.require_own(params)
    x = checks.vector("x", x, network.shape, zero=True)
    x = jnp.asarray(x, checks.float_dtype(x))
    tangent = jnp.asarray(checks.vector("tangent", tangent, network.shape), x.dtype)

    def step_of(kind):
        def step(carry, own):
            x, tangent, increment = tangents.jvp_step(
                lambda x: kind.apply(own, x), *carry
            )
            return (x, tangent), increment

        return step

    rows = network.rows(params)
    return norms.lasting(
        scans.scan_layers(network.kinds, step_of, (x, tangent), rows)[1]
    )


def split(params: networks.Params) -> tuple[list[Any], list[Any]]:
    """Return what of the parameters of a network is trained, and what is fixed."""
    checks.instance("params", params, networks.Params)
    return params.trained, params.fixed


def join(trained: list[Any], fixed: list[Any]) -> networks.Params:
    """Undo ``split``."""
    _check_parts("trained", trained)
    fits = isinstance(fixed, list | tuple) and len(fixed) == len(trained)
    checks.require(fits, "fixed", fixed, f"a list of {len(trained)}, one each kind")
    return networks.Params(trained, fixed)


def _check_parts(name: str, tree: Any, count: int | None = None) -> None:
    """Require the parameters of a network, or a tree like them: a dictionary for each
    kind.
    """
    allowed = "as network.init returns it: a list of" + (f" {count}" if count else "")
    listed = isinstance(tree, list | tuple) and all(
        isinstance(part, dict) for part in tree
    )
    checks.require(
        listed and count in (None, len(tree)), name, tree, f"{allowed} dictionaries"
    )


def _parts(tree: list[Any], name: str, mine: bool) -> list[Any]:
    """Return what of a tree like the parameters of a network has this name, or the
    rest.
    """
    return [{k: v for k, v in part.items() if (k == name) == mine} for part in tree]


def _log_sizes(network: networks.Network, tree: list[Any]) -> jax.Array:  # (depth,)
    """Return ``layer_log_norms``, faster under vmap; +inf or NaN if an entry is not
    finite.
    """
    return network.in_order([norms.normalise_rows(part["weight"])[0] for part in tree])


def _finite(tree: Any) -> jax.Array:
    """Return whether all numbers of a tree are finite."""
    every = (jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree))
    return functools.reduce(jnp.logical_and, every, jnp.bool_(True))


def _ratio(log_update: jax.Array, log_size: jax.Array) -> jax.Array:
    """Return the ratio of two norms, 0 for no update, also of zeros."""
    still = jnp.isneginf(log_update)
    return jnp.exp(
        jnp.where(still, -jnp.inf, log_update - jnp.where(still, 0, log_size)) / 2
    )


def _checked(
    network, loss, num_steps, along_first, batches
) -> tuple[jax.Array, jax.Array]:
    """Return inputs and targets as arrays that fit the network, the loss and the
    steps.
    """
    pair = isinstance(batches, tuple | list) and len(batches) == 2
    checks.require(pair, "batches", batches, "a pair (inputs, targets)")
    dtype = jnp.result_type(float)
    inputs = checks.vector("inputs", batches[0], None, zero=True, dtype=dtype)
    targets = checks.vector("targets", batches[1], None, zero=True, dtype=dtype)
    shape, own = np.shape(inputs), len(network.shape)
    fits = (
        len(shape) == own + 2 and shape[0] == num_steps and shape[2:] == network.shape
    )
    allowed = f"({num_steps} steps, batch ≥ 1, {', '.join(map(str, network.shape))})"
    checks.require(fits and shape[1] >= 1, "inputs.shape", shape, allowed)
    start = np.shape(targets)[:2]
    checks.require(
        start == shape[:2], "targets.shape", np.shape(targets), f"({shape[:2]}, …)"
    )
    if along_first:
        checks.vector("inputs[0, 0] (without a tangent)", inputs[0, 0], None)
    last = network.outputs(dtype)[-1]
    losses.require(
        loss, jax.ShapeDtypeStruct((shape[1], *last.shape), last.dtype), targets
    )
    return jnp.asarray(inputs, dtype), jnp.asarray(targets)
