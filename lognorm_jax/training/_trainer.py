"""The first steps of optimization, and how stable gradients are in them.

``trainer`` trains one network from one key and records, before each step, what the
theory is about: the norms of the gradients and of the Jacobian, layer by layer. As all
is a pure function of the key, ``path`` makes it one that ``sampling`` runs for as many
seeds as one likes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from lognorm_jax import networks
from lognorm_jax._tools import checks, closures, norms, traces
from lognorm_jax.training import (
    _asked,
    _crossover,
    _linear,
    _steps,
    _undrawn,
    losses,
    optimizers,
)
from lognorm_jax.training._steps import History, Loss

# inputs (num_steps, batch, *shape), targets (num_steps, batch, …)
Batches = tuple[ArrayLike, ArrayLike]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["network", "probe", "tangent"],
    meta_fields=["optimizer", "loss", "num_steps", "drawn", "drawn_only"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """Training of one network, as ``trainer`` makes it: (key, batches) -> what came.

    A pure function: jit it, vmap it over keys, or let ``sampling.sample(path(fit,
    batches), …)`` do so in blocks. A pytree of its arrays, those of the network among
    them.

    Attributes:
        network: what is trained, drawn afresh from each key.
        optimizer: of optax.
        loss: (outputs, targets) -> an array whose mean is the loss.
        num_steps: how many steps, ≥ 1.
        probe: where the Jacobian is taken, (*shape of an input,); None: at the first
            input.
        tangent: the unit vector it is applied to, of that shape; None: that of the
            probe.
        drawn: whether weights are drawn; None: where that is less work.
        drawn_only: whether they have to be drawn, by the network or the optimizer; of
            ``drawn`` None.
    """

    network: networks.Network
    optimizer: optax.GradientTransformationExtraArgs = dataclasses.field(repr=False)
    loss: Loss
    num_steps: int
    probe: ArrayLike | None = None
    tangent: ArrayLike | None = None
    drawn: bool | None = True
    drawn_only: bool = False

    def __call__(self, key: jax.Array, batches: Batches) -> tuple[Any, History]:
        """Train a fresh network.

        Args:
            key: one typed key, what the network is drawn from.
            batches: (inputs, targets) with one row a step: (num_steps, batch, *shape
                of an input) and (num_steps, batch, …), finite.

        Returns:
            Its parameters after the last step, or without drawing None; and what was so
            before each.

        Raises:
            ValueError: for another kind of key, and batches that do not fit network,
                steps and loss.
        """
        checks.typed_key(key)
        inputs, targets = self.checked(batches)
        fit = self.settled(inputs.shape[1]).plain()
        if not fit.drawn:
            return None, _train_undrawn(fit, key, inputs, targets)
        return _train(fit, key, inputs, targets)

    def settled(self, batch: int) -> "Trainer":
        """Return the trainer that draws weights, or does not.

        Args:
            batch: how many inputs a step has, ≥ 1.

        Returns:
            Itself, if ``drawn`` is True or False; for None one of which it is.
        """
        if self.drawn is not None:
            return self
        undrawn = not self.drawn_only and _crossover.pays(
            self.network, batch, self.num_steps
        )
        return dataclasses.replace(self, drawn=not undrawn)

    def plain(self) -> "Trainer":
        """Return the trainer without what is known of its network in theory.

        Returns:
            A trainer that does the same.
        """
        return dataclasses.replace(self, network=self.network.plain())

    def checked(self, batches: object) -> tuple[jax.Array, jax.Array]:
        """Return inputs and targets as arrays that fit network, steps and loss.

        Args:
            batches: (inputs, targets), as for ``__call__``.

        Returns:
            Inputs (num_steps, batch, *shape of an input), of JAX's floating type, and
            targets (num_steps, batch, …).

        Raises:
            ValueError: for others, naming the shape that is allowed.
        """
        if not isinstance(batches, tuple | list) or len(batches) != 2:
            checks.refuse("batches", batches, "a pair (inputs, targets)")
        dtype = jnp.result_type(float)
        inputs = checks.vector("inputs", batches[0], None, zero=True, dtype=dtype)
        targets = checks.vector("targets", batches[1], None, zero=True, dtype=dtype)
        self._check_shapes(np.shape(inputs), np.shape(targets))
        if self.probe is None and self.tangent is None:
            checks.vector("inputs[0, 0] (without a tangent)", inputs[0, 0], None)

        # the loss of a batch, before any training
        last = self.network.outputs(dtype)[-1]
        batch = (np.shape(inputs)[1], *last.shape)
        losses.require(self.loss, jax.ShapeDtypeStruct(batch, last.dtype), targets)
        return jnp.asarray(inputs, dtype), jnp.asarray(targets)

    def _check_shapes(self, inputs: tuple[int, ...], targets: tuple[int, ...]) -> None:
        """Require inputs and targets of every step, of the network's shape."""
        shape = self.network.shape
        steps = f"{self.num_steps} steps"
        allowed = f"({steps}, batch ≥ 1, {', '.join(map(str, shape))})"
        fits = inputs[:1] == (self.num_steps,) and inputs[2:] == shape
        fits &= len(inputs) == 2 + len(shape) and inputs[1] >= 1
        checks.require(fits, "inputs.shape", inputs, allowed)
        alike = targets[:2] == inputs[:2]
        checks.require(alike, "targets.shape", targets, f"({inputs[:2]}, …)")

    def run(
        self, key: jax.Array, inputs: jax.Array, targets: jax.Array
    ) -> tuple[Any, History]:
        """Train a fresh network, as operations of whatever traces or compiles.

        Args:
            key: one typed key, what the network is drawn from.
            inputs: (num_steps, batch, *shape of an input), as ``checked`` returns them.
            targets: (num_steps, batch, …), likewise.

        Returns:
            As ``__call__``, but without drawing a function in place of parameters:
            inputs (m, *shape) -> outputs (m, …) of the trained network, of which all
            inputs are asked at once. Nothing is checked.
        """
        if not self.drawn:
            at = self._probe_and_tangent(inputs)
            return _undrawn.train(
                self.network, self.optimizer, self.loss, key, (inputs, targets), *at
            )
        trained, fixed = self.network.init(key)
        step = _steps.train_step(
            self.network,
            self.optimizer,
            self.loss,
            fixed,
            *self._probe_and_tangent(inputs),
        )
        start = _steps.State(trained, self.optimizer.init(trained), jnp.bool_(True))
        end, history = jax.lax.scan(step, start, (inputs, targets))
        return networks.Params(end.trained, fixed), history

    def _probe_and_tangent(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return where the Jacobian is taken, and the unit vector it is applied to."""
        probe = inputs[0, 0] if self.probe is None else self.probe
        probe = jnp.asarray(probe, inputs.dtype)
        if self.tangent is None:
            _, tangent = norms.normalise(probe)
        else:
            tangent = jnp.asarray(self.tangent, inputs.dtype)
        return probe, tangent


@functools.partial(jax.jit, inline=True)
def _train(fit, key, inputs, targets):
    return fit.run(key, inputs, targets)


@functools.partial(jax.jit, inline=True)
def _train_undrawn(fit, key, inputs, targets):
    return fit.run(key, inputs, targets)[1]


def trainer(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    num_steps: int,
    *,
    probe: ArrayLike | None = None,
    tangent: ArrayLike | None = None,
    drawn: bool | None = True,
) -> Trainer:
    """Return ``fit(key, batches) -> (params, History)``, which trains fresh networks.

    Equal layers are scanned, so compile time grows neither with depth nor with steps.

    Where the loss or a gradient is not finite, or the weights or an update of a layer
    have a norm above a quarter of the largest number, the parameters are left as they
    are for the rest of the steps, ``finite`` is False and the other numbers are +inf.

    Args:
        network: of ``networks``; its weights and biases are trained, fixed signs and
            dropout masks are not.
        optimizer: any of optax, with any learning rate that gives finite updates, in
            ``optimizers.by_layer`` if it goes by the norm or shape of single arrays,
            as lamb does. Under vmap over learning rates make the trainer in the
            function that is mapped.
        loss: (outputs, targets) -> an array whose mean is the loss, such as
            ``losses.squared_error``, ``losses.cross_entropy``, or one of
            ``optax.losses``.
        num_steps: how many steps, ≥ 1.
        probe: where the Jacobian is taken, of the network's shape; default the first
            input.
        tangent: what it is applied to, of that shape, not all zero; default the probe.
        drawn: False to train in law, without drawing matrices: weights normal or
            orthogonal, an optimizer that is linear entry by entry (gradient descent
            with any schedule, momentum, decayed weights), whatever the size of arrays.
            A matrix then keeps, of each step, 2 · batch + 2 directions that it met and
            their images, for each vector that it is given of one input. With other
            rates or batches a key is then the same network in the first step only. None
            to do so where those are fewer numbers than the weights, and on GPUs where
            the weights would not fit; else they are drawn.

    Returns:
        The ``Trainer``. It raises ``ValueError``, before any training, for batches that
        do not fit the network and for a loss that does not fit the outputs.

    Raises:
        ValueError: for arguments of another kind, shape or range; for a network whose
            layers share a matrix; for an optimizer whose updates are not finite, or
            are others where equal layers are stacked; and for ``drawn`` False for
            other weights, layers and optimizers.

    Source:
        The setting of theory section 9; without matrices, theory section 11. Held
        against a plain loop, and before the first step against the exact law, in
        tests/test_training.py; without matrices against drawn ones, in
        tests/test_undrawn_training.py.
    """
    checks.instance("network", network, networks.Network)
    tied = any(one.tied for kind in network.kinds for one in kind.maps)
    allowed = "a network of which no two layers share a matrix, which would part"
    instead = "Give each layer a linear map of its own, without tied=."
    checks.require(not tied, "network", network.name, allowed, instead)
    optimizers.check(optimizer)
    checks.function("loss", loss, "a function (outputs, targets) -> values to mean")
    num_steps = checks.integer("num_steps", num_steps, 1)
    promoting = closures.first_equal(optimizers.promoting(optimizer))
    if drawn is not None:
        checks.flag("drawn", drawn)
    drawn_only = drawn is None and not _may_be_undrawn(network, promoting, num_steps)
    if drawn is False:
        # on few numbers: the network may have more weights than fit anywhere
        _undrawn.require(network)
        _linear.require(network, promoting, num_steps)
    elif drawn or drawn_only:
        optimizers.require(network, promoting)
    if tangent is not None:
        tangent = norms.unit(checks.vector("tangent", tangent, network.shape))
    if probe is not None:
        probe = checks.vector(
            "probe",
            probe,
            network.shape,
            # zero has no direction, but a Jacobian
            zero=tangent is not None,
            dtype=jnp.result_type(float),
        )
    same_loss = closures.first_equal(loss)
    given = probe, tangent, drawn, drawn_only
    return Trainer(network, promoting, same_loss, num_steps, *given)


def _may_be_undrawn(
    network: networks.Network, optimizer: optax.GradientTransformation, num_steps: int
) -> bool:
    """Return whether a network can be trained without its matrices."""
    try:
        _undrawn.require(network)
        _linear.require(network, optimizer, num_steps)
    except ValueError:
        return False
    return True


def path(
    fit: Trainer,
    batches: Batches,
    *,
    observe: Callable[[Any], Any] | None = None,
) -> traces.Path:
    """Return key -> History of a trainer, for ``sampling.sample`` with any options.

    Seeds then run in blocks that fit the cache, on all devices, and can be kept by
    ``runs``. With another number of devices results agree to rounding, not in every bit
    as those of other paths.

    Args:
        fit: what ``trainer`` returns.
        batches: as ``fit`` takes them, the same for all seeds.
        observe: trained params -> pytree, such as the error on a test set; the path is
            then key -> (History, that). For ``drawn`` of False or None it is given, in
            place of params, the trained network: inputs (m, *shape) -> outputs (m, …),
            to be asked once, for all inputs, and not to be differentiated.

    Returns:
        The path, of leaves as in ``History``.

    Raises:
        ValueError: for what ``trainer`` does not return, batches that do not fit it,
            and an ``observe`` that is no function; and as the path runs, for one that
            asks twice, or for a derivative.
    """
    checks.require(isinstance(fit, Trainer), "fit", fit, "one that trainer returns")
    usable = observe is None or callable(observe)
    checks.require(usable, "observe", observe, "None, or a function params -> pytree")
    inputs, targets = fit.checked(batches)

    settled = fit.settled(inputs.shape[1])
    # the trained network as a function, also where weights are drawn after all
    choices = closures.first_equal(observe), not fit.drawn
    return traces.Path(_history, choices, (settled.plain(), inputs, targets))


def _history(
    observe: Callable[[Any], Any] | None,
    asked: bool,
    fit: Trainer,
    inputs: jax.Array,
    targets: jax.Array,
    key: jax.Array,
) -> Any:
    """Return the History of one seed, and what is observed of its parameters."""
    trained, history = fit.run(key, inputs, targets)
    if observe is None:
        return history
    if asked and fit.drawn:
        trained = functools.partial(_steps.outputs, fit.network, trained)
    return history, observe(_asked.once(trained) if asked else trained)
