import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import norms

normalise = jax.jit(norms.normalise)
log_squares = jax.jit(norms.log_squares)
log_squares_of_a_batch = jax.jit(jax.vmap(norms.log_squares))


def test_oracle_normalise_against_numpy(rounding):
    rng = np.random.default_rng(0)
    for scale in (1e-30, 1.0, 1e30):
        y = (scale * rng.normal(size=(3, 4))).astype(np.float32)
        log_square, unit = normalise(y)
        y = y.astype(np.float64)
        assert np.allclose(log_square, np.log(np.sum(y**2)), rtol=2e-6)
        assert np.allclose(unit, y / np.linalg.norm(y), rtol=2e-6)


def test_exact_normalise_of_zero_and_its_gradient():
    log_square, unit = normalise(jnp.zeros(4))
    assert log_square == -jnp.inf and np.all(unit == 0)
    jacobians = jax.jit(jax.jacrev(norms.normalise))
    for derivative in jacobians(jnp.zeros(4)):
        assert np.all(np.isfinite(derivative))
    gradient, _ = jacobians(jnp.array([3.0, 0.0, 4.0, 0.0]))
    assert np.allclose(gradient, np.array([6.0, 0.0, 8.0, 0.0]) / 25)


def test_exact_the_largest_numbers_are_not_lost():
    """The inverse of the largest floats is subnormal: 0 on most devices."""
    largest = float(jnp.finfo(jnp.result_type(float)).max)
    for part in (1.0, 0.5, 1 / 300):
        y = jnp.full((3, 5), part * largest)  # of rows the compiler takes the inverse
        log_square, unit = jax.jit(norms.normalise_rows)(y)
        expected = np.log(5) + 2 * np.log(part) + 2 * np.log(largest)
        assert np.allclose(log_square, expected, rtol=1e-6)
        assert np.allclose(unit, 5**-0.5, rtol=1e-6)


def test_exact_nan_is_not_taken_for_dead():
    """The largest of a long row of zeros and a NaN may be 0, as XLA computes it."""
    rows = np.zeros((32, 256), np.float32)
    rows[:, 3] = np.nan
    for log_square in (lambda rows: norms.normalise_rows(rows)[0], norms.log_squares):
        assert np.isnan(jax.jit(log_square)(rows)).all()


def test_oracle_log_squares_of_rows_of_any_size():
    """In one pass where squares stay in range, else as normalise; also in a batch."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(3, 4, 5)).astype(np.float32)
    cases = [(1, 2, 3), (1, 0, 3), (1e-25, 1, 1), (1, 1e25, 1e-25), (1e-40, 1, 1)]
    for scales in cases:
        scaled = rows * np.array(scales, np.float32)[:, None, None]
        with np.errstate(divide="ignore"):
            expected = np.log(np.sum(scaled.astype(np.float64) ** 2, axis=(1, 2)))
        if 1e-40 in scales:
            expected[0] = -np.inf  # subnormal: taken for 0
        np.testing.assert_allclose(log_squares(scaled), expected, rtol=2e-6)
        batch = log_squares_of_a_batch(np.stack([rows, scaled]))
        np.testing.assert_allclose(batch[1], expected, rtol=2e-6)
    broken = rows.copy()
    broken[0, 0, 0] = np.nan
    broken[1] = np.inf
    broken = np.asarray(log_squares(broken))
    assert not np.isfinite(broken[:2]).any() and np.isfinite(broken[2])
    half = log_squares(np.full((2, 1000), 3e4, np.float16))
    np.testing.assert_allclose(half, np.log(1000 * 9e8), rtol=1e-3)
    assert np.all(norms.log_squares(jnp.zeros((2, 0))) == -np.inf)


def test_exact_what_comes_first_lasts():
    inf, nan = np.inf, np.nan
    rows = np.array(
        [[1, -inf, nan, 2], [1, nan, -inf, 2], [1, 2, 3, -inf], [1, 2, 3, nan]]
    )
    expected = [
        [1, -inf, -inf, -inf],
        [1, nan, nan, nan],
        [1, 2, 3, -inf],
        [1, 2, 3, nan],
    ]
    np.testing.assert_array_equal(jax.jit(norms.lasting)(rows), expected)
