"""Which optimizers can do without matrices, and that they are told from others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_undrawn_training import CASES, DECAY, MOMENTUM, batches, p_values

from lognorm_jax import losses, networks, training
from lognorm_jax.training import _linear, optimizers

pytestmark = pytest.mark.float32

WIDE = networks.relu_mlp((4, 400, 400, 2), fan="in", head="linear")


def decayed(rank):
    """Matrices decay, biases do not."""

    def mask(params):
        return jax.tree.map(lambda leaf: leaf.ndim >= rank, params)

    return optax.chain(optax.add_decayed_weights(0.5, mask), optax.sgd(0.2))


def some(name):
    """Only what has this name is trained, by gradient descent."""

    def labels(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "on" if path[-1].key == name else "off", params
        )

    rules = {"on": optax.sgd(0.1), "off": optax.set_to_zero()}
    return optax.multi_transform(rules, labels)


LINEAR = {
    "momentum": MOMENTUM,
    "decay": DECAY,
    "small": optax.sgd(1e-9),
    "large": optax.sgd(1e4),
    "none": optax.sgd(0.0),
    "by rank of a layer": optimizers.by_layer(decayed(2)),
    "by name": some("bias"),
    "some steps": optax.MultiSteps(optax.sgd(0.1), 2),
    "given": optax.inject_hyperparams(optax.sgd)(0.1),
}
# at rates and sizes at which little is seen of it
OTHERS = {
    "adam": optax.adam(1e-8),
    "adamw": optax.adamw(1e-6),
    "sign": optax.sign_sgd(1e-6),
    "warming up": optax.adam(optax.linear_schedule(0.0, 1e-4, 1000)),
    "clip": optax.chain(optax.clip(1000.0), optax.sgd(1e-8)),
    "clip all": optax.chain(optax.clip_by_global_norm(1e6), optax.sgd(0.1)),
    "later": optax.MultiSteps(optax.adam(0.1), 9),
    "centred": optimizers.by_layer(optax.chain(optax.centralize(), optax.sgd(0.2))),
    "norms": optax.lamb(0.1),
    "searching": optax.lbfgs(),
    "some": optax.multi_transform(
        {"weight": optax.adam(0.1), "bias": optax.sgd(0.1)},
        lambda params: jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key, params
        ),
    ),
}


def test_exact_linear_optimizers_are_taken():
    network, _ = CASES["tanh"]
    taken = {**dict.fromkeys(LINEAR, True), **dict.fromkeys(OTHERS, False)}
    for name, optimizer in {**LINEAR, **OTHERS}.items():
        try:
            _linear.require(network, optimizers.promoting(optimizer), 12)
            found = True
        except ValueError as error:
            assert "not linear" in str(error), name
            found = False
        assert found == taken[name], name


@pytest.mark.parametrize("transform", [jax.vmap, jax.jit])
def test_exact_optimizers_of_rates_that_are_not_known(transform):
    """Whether they are linear is; and where weights have to be drawn, they are."""
    settled = []

    def settle(make, drawn, rate, network=WIDE):
        rate = jnp.max(rate)
        fit = training.trainer(
            network, make(rate), losses.squared_error, 2, drawn=drawn
        )
        settled.append(fit.settled(1).drawn)
        return rate

    rates = jnp.array([0.001, 0.01])
    for make in (optax.sgd, optax.adam):
        transform(functools.partial(settle, make, None))(rates)
    transform(functools.partial(settle, optax.sgd, False))(rates)
    assert settled == [False, True, False]
    with pytest.raises(ValueError, match="not linear"):
        transform(functools.partial(settle, optax.adam, False))(rates)
    # and whether it goes by the norm of single arrays
    deep = networks.mlp((6, 8, 8, 8, 2), "tanh", 0.1, head="linear")
    with pytest.raises(ValueError, match="by_layer"):
        transform(functools.partial(settle, optax.lamb, True, network=deep))(rates)


def test_exact_what_goes_by_the_rank_of_stacked_layers_is_told_so():
    """As in training of drawn weights."""
    network = networks.mlp((6, 8, 8, 8, 2), "tanh", 0.1, head="linear")
    for drawn in (True, False):
        with pytest.raises(ValueError, match="by_layer"):
            training.trainer(network, decayed(2), losses.squared_error, 2, drawn=drawn)


def test_exact_training_at_rates_that_are_mapped_over():
    network, _ = CASES["tanh"]
    given = batches(network, 2, 2)

    def last(rate):
        fit = training.trainer(
            network, optax.sgd(rate), losses.squared_error, 2, drawn=False
        )
        return training.path(fit, given)(jax.random.key(0)).loss[-1]

    mapped = jax.vmap(last)(jnp.array([0.01, 0.1]))
    np.testing.assert_allclose(mapped, [last(0.01), last(0.1)], rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["by rank of a layer", pytest.param("by name", marks=pytest.mark.slow)]
)
def test_statistical_optimizers_that_go_by_rank_or_name(name):
    """As those of drawn weights, which they change much."""
    network, _ = CASES["tanh"]
    found = p_values(network, LINEAR[name], 3, 2, 1_000)
    assert min(found.values()) > 1e-4, min(found, key=found.get)
