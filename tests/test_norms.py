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


def test_exact_the_largest_numbers_are_not_lost():
    """The inverse of the largest floats is subnormal, and flushed to 0 on most
    devices.
    """
    largest = float(jnp.finfo(jnp.result_type(float)).max)
    for part in (1.0, 0.5, 1 / 300):
        y = jnp.full((3, 5), part * largest)  # of rows the compiler takes the inverse
        log_square, unit = jax.jit(norms.normalise_rows)(y)
        expected = np.log(5) + 2 * np.log(part) + 2 * np.log(largest)
        assert np.allclose(log_square, expected, rtol=1e-6)
        assert np.allclose(unit, 5**-0.5, rtol=1e-6)


def test_exact_nan_is_not_taken_for_dead():
    """The largest of a long row of zeros and a NaN may be 0, as XLA computes it."""
    rows = jnp.zeros((32, 256)).at[:, 3].set(jnp.nan)
    for log_square in (lambda rows: norms.normalise_rows(rows)[0], norms.log_squares):
        assert np.isnan(jax.jit(log_square)(rows)).all()


def test_oracle_log_squares_of_rows_of_any_size():
    """In one pass where squares stay in range, as those of normalise elsewhere; also in
    a batch.
    """
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(3, 4, 5)).astype(np.float32)
    for scales in (
        (1, 2, 3),
        (1, 0, 3),
        (1e-25, 1, 1),
        (1, 1e25, 1e-25),
        (1e-40, 1, 1),
    ):
        scaled = rows * np.array(scales, np.float32)[:, None, None]
        with np.errstate(divide="ignore"):
            expected = np.log(np.sum(scaled.astype(np.float64) ** 2, axis=(1, 2)))
        if 1e-40 in scales:
            expected[0] = -np.inf  # subnormal: taken for 0
        np.testing.assert_allclose(
            norms.log_squares(jnp.asarray(scaled)), expected, rtol=2e-6
        )
        batch = jax.vmap(norms.log_squares)(jnp.stack([rows, scaled]))
        np.testing.assert_allclose(batch[1], expected, rtol=2e-6)
    broken = norms.log_squares(
        jnp.asarray(rows).at[0, 0, 0].set(jnp.nan).at[1].set(jnp.inf)
    )
    assert not np.isfinite(broken[:2]).any() and np.isfinite(broken[2])
    half = norms.log_squares(jnp.full((2, 1000), 3e4, jnp.float16))
    np.testing.assert_allclose(half, np.log(1000 * 9e8), rtol=1e-3)
    assert np.all(norms.log_squares(jnp.zeros((2, 0))) == -np.inf)


def test_exact_what_comes_first_lasts():
    inf, nan = np.inf, np.nan
    rows = jnp.array(
        [[1, -inf, nan, 2], [1, nan, -inf, 2], [1, 2, 3, -inf], [1, 2, 3, nan]]
    )
    expected = [
        [1, -inf, -inf, -inf],
        [1, nan, nan, nan],
        [1, 2, 3, -inf],
        [1, 2, 3, nan],
    ]
    np.testing.assert_array_equal(norms.lasting(rows), expected)
