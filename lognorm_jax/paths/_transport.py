"""The path that draws each increment from its exact law, without a matrix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import ensembles, masks
from lognorm_jax._tools import checks, draws, random, traces
from lognorm_jax.paths import _quantiles
from lognorm_jax.theory import exact


def transport(
    ensemble: ensembles.Ensemble,
    *,
    tolerance: float = 1e-6,
    dtype: jax.typing.DTypeLike | None = None,
) -> traces.Path:
    """Return the path that draws each increment from its exact law: one normal each.

    For Gaussian weights the increments are independent of one another and of the
    direction, so ln R = Q(Z) with Z standard normal and Q = F⁻¹∘Φ, F the exact law of
    ln R given survival, tabulated once for each distinct (width, mask). A path dies in
    the first layer whose cumulated hazard −Σ ln P(alive) exceeds one exponential
    variable: the dead mass is exact, however small (and to 3e-8 where all but that
    die). The first layers of a deeper product are the same draws. The maps are arrays
    of the path; depth, dtype and how finely they are tabulated are its program.

    Args:
        ensemble: the product, of normal weights.
        tolerance: bound of |F(Q(z)) − Φ(z)|, in [1e-9, 1]; in float32, what is asked
            beyond 1e-6 is lost in rounding, and with fan "in" more, where
            ln(n_i/n_{i−1}) is large beside the spread.
        dtype: float32 or wider, default JAX's own. Note that float32 normals reach to
            |z| < 5.5, so of each increment tails of 1e-8 are missing; float64 ones are
            cut at |z| = 6.

    Returns:
        A path: key -> Trace, with increments (depth,) of dtype, and None for its
        quartic, which nothing needs for normal weights.

    Raises:
        ValueError: for weights that are not normal, for masks that ``exact.law`` does
            not cover, for other dtypes, and for a tolerance out of range or that a
            table does not reach.

    Source:
        Derived in theory section 4; held against exact laws in
        tests/test_transports.py.

    >>> from lognorm_jax import weights
    >>> ensemble = ensembles.Ensemble((100,) * 101, weights.normal(), masks.relu())
    >>> transport(ensemble)(jax.random.key(0)).increment.shape
    (100,)
    """
    dtype = checks.floating("dtype", jnp.result_type(float) if dtype is None else dtype)
    wide = jnp.finfo(dtype).bits >= 32
    checks.require(
        wide, "dtype", dtype, "float32 or float64", "Cast the trace instead."
    )
    exact.require_normal(ensemble)
    tolerance = checks.number("tolerance", tolerance, "[1e-9, 1]")
    distinct, table = ensembles.layer_index(ensemble)

    # the map of each distinct layer, and what is added to it
    maps = _maps(tuple(distinct), tolerance)
    quantiles = _quantiles.tables(maps, table, dtype)
    shift = ensembles.fan_shift(ensemble).astype(dtype)
    if not shift.any():
        shift = shift[:1]

    log_alive = np.array([masks.log_alive(mask, width) for width, mask in distinct])
    hazard = -np.cumsum(log_alive[table]).astype(dtype)  # (depth,)

    choices = jnp.dtype(dtype), ensemble.depth, maps.cells
    return traces.Path(_increments, choices, (quantiles, shift, hazard))


@functools.lru_cache(maxsize=64)
def _maps(
    distinct: tuple[tuple[int, masks.Mask], ...], tolerance: float
) -> _quantiles.Transport:
    """Return the maps of layers of these widths and masks, fitted once."""
    laws = [exact.increment_law(*layer) for layer in distinct]
    return _quantiles.fit(laws, tolerance)


def _increments(
    dtype: jax.typing.DTypeLike,
    depth: int,
    cells: int,
    quantiles: tuple[jax.Array, ...],
    shift: jax.Array,
    hazard: jax.Array,
    key: jax.Array,
) -> traces.Trace:
    """Return the trace of one product of these quantiles and hazards."""
    key_normal, key_life = random.split(key)
    z = random.normal(key_normal, (depth,), dtype)
    increment = _quantiles.evaluate(cells, quantiles, z) + shift
    lifetime = draws.exponential(key_life, dtype)
    return traces.Trace(jnp.where(hazard > lifetime, -jnp.inf, increment), None)
