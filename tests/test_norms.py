import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import norms


def test_oracle_normalise_against_numpy(rounding):
    rng = np.random.default_rng(0)
    for scale in (1e-30, 1.0, 1e30):
        y = (scale * rng.normal(size=(3, 4))).astype(np.float32)
        log_square, unit = norms.normalise(jnp.asarray(y))
        y = y.astype(np.float64)
        assert np.allclose(log_square, np.log(np.sum(y**2)), rtol=2e-6)
        assert np.allclose(unit, y / np.linalg.norm(y), rtol=2e-6)


def test_exact_normalise_of_zero_and_its_gradient():
    log_square, unit = norms.normalise(jnp.zeros(4))
    assert log_square == -jnp.inf and np.all(unit == 0)
    for i in (0, 1):
        gradient = jax.grad(lambda y, i=i: norms.normalise(y)[i].sum())(jnp.zeros(4))
        assert np.all(np.isfinite(gradient))
    y = jnp.array([3.0, 4.0])
    gradient = jax.grad(lambda y: norms.normalise(y)[0])(y)
    assert np.allclose(gradient, 2 * y / 25)
