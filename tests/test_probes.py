import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax import probes


def test_oracle_jvp_increments_against_the_whole_jacobian(rounding):
    rng = np.random.default_rng(1)
    A, B = (jnp.asarray(rng.normal(size=shape)) for shape in ((5, 3), (4, 5)))
    layers = [lambda x: jnp.tanh(A @ x), lambda x: B @ x, lambda x: x.reshape(2, 2) ** 3]
    x, tangent = rng.normal(size=3), 7 * rng.normal(size=3)

    def network(x):
        for layer in layers:
            x = layer(x)
        return x

    J = np.asarray(jax.jacobian(network)(jnp.asarray(x, A.dtype))).reshape(4, 3)
    expected = np.log(np.sum((J @ tangent) ** 2) / np.sum(tangent**2))
    increments = probes.jvp_increments(layers, x, tangent)
    assert increments.shape == (3,)
    assert np.allclose(increments.sum(), expected, rtol=0, atol=10 * rounding)
    both = jax.jit(jax.vmap(lambda x, t: probes.jvp_increments(layers, x, t)))
    many = both(jnp.stack([x] * 3), jnp.stack([tangent] * 3))
    assert np.allclose(many, increments[None], rtol=0, atol=10 * rounding)


def test_exact_dead_layers():
    layers = [lambda x: x, jax.nn.relu, lambda x: 3 * x]
    x = -jnp.ones(3)
    increments = probes.jvp_increments(layers, x, jnp.ones(3))
    assert np.allclose(increments, [0, -np.inf, -np.inf], atol=1e-6)

    def total(scale):
        layers = [lambda x: scale * x, jax.nn.relu]
        return probes.jvp_increments(layers, x, jnp.ones(3)).sum()

    value, gradient = jax.value_and_grad(total)(2.0)
    assert value == -jnp.inf and np.isfinite(gradient)


def test_exact_layers_that_cannot_follow_are_named():
    first, second = jnp.ones((4, 3)), jnp.ones((2, 5))
    layers = [lambda x: first @ x, lambda x: second @ x]
    with pytest.raises(ValueError, match=r"layers\[1\] for an input of shape \(4,\)"):
        probes.jvp_increments(layers, np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"layers\[1\].*floating point"):
        probes.jvp_increments([lambda x: x, lambda x: (x, x)], np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"layers\[0\].*a callable"):
        probes.jvp_increments([3], np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"len\(layers\) = 0"):
        probes.jvp_increments([], np.ones(3), np.ones(3))


def test_exact_nan_is_not_taken_for_dead():
    layers = [lambda x: x, lambda x: x * jnp.nan, lambda x: x]
    increments = probes.jvp_increments(layers, jnp.ones(3), jnp.ones(3))
    assert increments[0] == pytest.approx(0, abs=1e-6) and np.all(np.isnan(increments[1:]))


def test_exact_the_floating_type_of_x_is_kept():
    weight = jnp.ones((2, 2), jnp.bfloat16)
    increments = probes.jvp_increments([lambda x: weight @ x], jnp.ones(2, jnp.bfloat16), [1, 1])
    assert increments.dtype == jnp.bfloat16
    assert probes.jvp_increments([jnp.sin], [0, 0], [1, 0]).dtype == jnp.result_type(float)
    generated = (layer for layer in [jnp.sin, jnp.cos])
    assert probes.jvp_increments(generated, np.ones(2), np.ones(2)).shape == (2,)
