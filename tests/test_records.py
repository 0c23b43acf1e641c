"""Records are pickled as the call that made them, and come back, in any process."""

import copy
import dataclasses
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
import pytest
from test_contracts import LAWS, MASKS, WEIGHTS

from lognorm_jax import activations, ensembles, exact, laws, masks, weights

pytestmark = pytest.mark.float32

ROOT = Path(__file__).parent.parent
ACTIVATIONS = {
    "relu": activations.relu,
    "linear": activations.linear,
    "tanh": activations.tanh,
    "gelu": activations.gelu,
    "leaky_relu": lambda: activations.leaky_relu(0.1),
    "leaky_relu, fraction": lambda: activations.leaky_relu(Fraction(1, 10)),
    "shaped_relu": lambda: activations.shaped_relu(0, -1, 100),
}


def again(thing):
    """Yield a thing as it comes back from pickle, by each protocol, and from copies."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(thing, protocol))
    yield copy.copy(thing)
    yield copy.deepcopy(thing)


@pytest.mark.parametrize(
    "make", [*WEIGHTS.values(), *MASKS.values(), *ACTIVATIONS.values(), masks.relu]
)
def test_invariance_what_comes_back_is_the_same_object(make):
    assert make() is make()
    for other in again(make()):
        assert other is make()


def test_exact_layers_are_counted_once_and_not_pickled():
    ensemble = ensembles.Ensemble(
        (5, 4, 3, 4), weights.normal(), [masks.relu(), masks.identity(), masks.relu()]
    )
    twin = dataclasses.replace(ensemble)
    bare = pickle.dumps(ensemble)
    layers = ensemble.layers
    assert ensemble.layers is layers and layers.places.tolist() == [0, 1, 0]
    assert layers.distinct == ((4, masks.relu()), (3, masks.identity()))
    assert layers.counts == dict(zip(layers.distinct, (2, 1), strict=True))
    assert ensemble == twin and hash(ensemble) == hash(twin)
    assert pickle.dumps(ensemble) == bare and "layers" not in vars(twin)


def test_invariance_ensemble_comes_back_equal():
    ensemble = ensembles.Ensemble(
        (5, 4, 3), weights.sparse(0.5), [masks.relu(), masks.identity()]
    )
    for other in again(ensemble):
        assert other == ensemble and hash(other) == hash(ensemble)
        assert (
            other.weights is weights.sparse(0.5) and other.masks[1] is masks.identity()
        )
        assert ensembles.beta(other) == 0.25


@pytest.mark.parametrize("make", LAWS.values(), ids=LAWS.keys())
def test_invariance_law_comes_back_bit_for_bit(make):
    law = make()
    x = np.concatenate([[-np.inf, np.inf], np.linspace(-30, 30, 601)])
    q = np.linspace(0, 1, 101)
    for other in again(law):
        for field in ("name", "mean", "variance", "atom"):
            assert getattr(other, field) == getattr(law, field)
        assert np.array_equal(other.cdf(x), law.cdf(x)) and np.array_equal(
            other.sf(x), law.sf(x)
        )
        assert np.array_equal(other.quantile(q), law.quantile(q))
        assert np.array_equal(other.samples, law.samples)
        if law.pdf is laws.no_density:
            assert other.pdf is laws.no_density
        else:
            assert np.array_equal(other.pdf(x), law.pdf(x))


def coin(key, shape, dtype):
    return 2 * jax.random.bernoulli(key, 0.5, shape).astype(dtype) - 1


def one(k):
    del k
    return 1


def softsign(z):
    return z / (1 + abs(z))


def test_invariance_ones_own_comes_back_by_the_names_of_its_functions():
    own = weights.Weights("coin", coin, one, atoms=True)
    mask = masks.Mask("ones", coin, one, ((1, Fraction(1, 2)), (-1, Fraction(1, 2))))
    phi = activations.Activation("mine", softsign, 2.0, mask)
    for thing in (own, mask, phi, weights.sparse(0.5, own), masks.dropout(0.5, mask)):
        assert pickle.loads(pickle.dumps(thing)) == thing == copy.deepcopy(thing)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(weights.Weights("local", lambda key, shape, dtype: None, one))


def test_exact_replaced_records_do_not_come_back_as_what_they_were():
    """A changed record is no longer what the call makes."""
    skewed = dataclasses.replace(weights.laplace(), name="skewed", symmetric=False)
    law = dataclasses.replace(exact.increment_law(3, masks.relu()), mean=0.0)
    for changed in (skewed, law):
        with pytest.raises((pickle.PicklingError, AttributeError)):
            pickle.dumps(changed)
    assert copy.copy(skewed) == skewed
    # of functions that pickle finds by their names
    phi = dataclasses.replace(activations.leaky_relu(0.1), gain=3.0)
    mask = dataclasses.replace(masks.leaky_relu(0.1), name="leaky")
    again = pickle.loads(pickle.dumps(phi))
    assert again == phi == copy.deepcopy(phi) and hash(again) == hash(phi)
    assert mask == copy.deepcopy(mask) and hash(mask) == hash(copy.deepcopy(mask))
    assert again != dataclasses.replace(activations.leaky_relu(0.2), gain=3.0)


def test_invariance_in_a_fresh_process(tmp_path):
    ensemble = ensembles.Ensemble(
        (5, 4, 4, 3), weights.sparse(0.5), masks.leaky_relu(0.1)
    )
    law = exact.law(dataclasses.replace(ensemble, weights=weights.normal()))
    x = np.linspace(-30, 30, 601)
    things = ensemble, activations.leaky_relu(0.1), law, x
    (tmp_path / "things").write_bytes(pickle.dumps(things))
    program = """
import pathlib, pickle, sys
folder = pathlib.Path(sys.argv[1])
ensemble, phi, law, x = pickle.loads((folder / "things").read_bytes())
from lognorm_jax import activations, masks, weights
assert ensemble.weights is weights.sparse(0.5)
assert ensemble.masks[2] is masks.leaky_relu(0.1)
assert phi is activations.leaky_relu(0.1)
(folder / "cdf").write_bytes(pickle.dumps(law.cdf(x)))
"""
    subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, check=True)
    assert np.array_equal(pickle.loads((tmp_path / "cdf").read_bytes()), law.cdf(x))
