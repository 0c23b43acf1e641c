"""Singular values of products and Jacobians: exact exponents, and samples of whole
spectra.
"""

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lognorm_jax import ensembles, networks
from lognorm_jax._tools import bound, checks, graded, scans, traces, undrawn
from lognorm_jax.paths import _conditioned, _frames
from lognorm_jax.theory import exact

__all__ = [
    "log_singular_values",
    "lyapunov",
    "participation",
    "participation_limit",
    "path",
    "singular_path",
]

Source = ensembles.Ensemble | networks.Network


def lyapunov(ensemble: ensembles.Ensemble, k: int) -> np.ndarray:
    """Return the first k Lyapunov exponents: exact at any depth.

    Half the mean of ln R_jj² a layer, R of the QR recursion, given that k coordinates
    survive: for equal widths the limits of (1/d) ln σ_j as the depth grows, and for
    linear layers Newman's, ½[ψ((n − j)/2) + ln(2/n)], j = 0, …. At finite depth they
    are the means of what ``path`` samples, without bias; but (1/d) ln σ_j of a product
    is biased by O(1/d): the largest up, the smallest down, their sum not at all.

    Args:
        ensemble: of normal or orthogonal weights, and {0, 1} masks.
        k: from 1 to the smallest of all widths.

    Returns:
        (k,), float64, descending; of σ, not of its square.

    Raises:
        ValueError: for other k, weights and masks.

    Source:
        Newman (1986), as in theory section 10; with masks derived in theory section 12;
        held against simulation in tests/test_spectra.py.

    >>> from lognorm_jax import masks, weights
    >>> linear = ensembles.Ensemble((3, 3), weights.normal(), masks.identity())
    >>> lyapunov(linear, 3).round(4).tolist()
    [-0.1845, -0.4913, -1.1845]
    """
    return exact.triangle_means(ensemble, k) / (2 * ensemble.depth)


def participation(ensemble: ensembles.Ensemble) -> Fraction | float:
    """Return n_0 E tr G²/(E (tr G)²), G = MᵀM, exactly: 1 where all directions are
    stretched alike, n_0 where all but one are lost.

    T = E (tr G)², Q = E tr G² and F = E Σ G_aa² of M Mᵀ go from layer to layer by a
    matrix.

    Args:
        ensemble: of any widths and masks, and of independent weights with a fourth
            moment, or orthogonal ones.

    Returns:
        A Fraction if moments of weights and masks are rational, else a float; in
        [1, n_0].

    Raises:
        ValueError: for weights without a fourth moment, and for those of which the
            zeros of a row depend on one another.

    Source:
        Derived in theory section 12; held against enumeration and simulation in
        tests/test_spectra.py.

    >>> from lognorm_jax import masks, weights
    >>> relu = ensembles.Ensemble((10,) * 5, weights.normal(), masks.relu())
    >>> round(float(participation(relu)), 4)
    7.5586
    """
    checks.instance("ensemble", ensemble, ensembles.Ensemble)
    ensembles.require_independent(ensemble)
    n_0 = ensemble.widths[0]
    T: Any = Fraction(n_0**2)
    Q: Any = Fraction(n_0)
    F: Any = Fraction(n_0)
    layers = zip(ensemble.widths[:-1], ensemble.widths[1:], ensemble.masks, strict=True)
    for n_in, n, mask in layers:
        K = mask.kurtosis
        if ensemble.weights.orthogonal:
            same, pair_T, pair_Q = _haar(max(n_in, n), T, Q)
            scale = Fraction(max(n_in, n)) ** 2 / Fraction(n) ** 2
            own, pairs = scale * n * K, scale * n * (n - 1)
        else:
            # of a row w: E (w G w)², and E (w G w)(v G v), E (w G v)² of two
            same = T + 2 * Q + (ensemble.weights.kurtosis - 3) * F
            pair_T, pair_Q = T, Q
            own, pairs = K / Fraction(n), Fraction(n - 1, n)
        F = own * same
        T, Q = F + pairs * pair_T, F + pairs * pair_Q
    return n_0 * Q / T


def _haar(N: int, T: Any, Q: Any) -> tuple[Any, Any, Any]:
    """Return E H_aa², E H_aa H_bb and E H_ab² of H = U G Uᵀ, U Haar of N dimensions."""
    same = (T + 2 * Q) / (N * (N + 2))
    if N == 1:
        return same, Fraction(0), Fraction(0)
    scale = Fraction(1, N * (N - 1) * (N + 2))
    return same, scale * ((N + 1) * T - 2 * Q), scale * (N * Q - T)


def participation_limit(ensemble: ensembles.Ensemble) -> float:
    """Return what ``participation`` tends to for wide layers at fixed depth.

    1 + Σ n_0 (m4/m2²)/n_i, as free probability has it: 1 + d/p for {0, 1} masks and
    equal widths; orthogonal weights take off n_0/max(n_i, n_{i−1}).

    Args:
        ensemble: as for ``participation``.

    Returns:
        A number ≥ 1.

    Raises:
        ValueError: for what is no Ensemble.

    Source:
        As in theory section 12; held against ``participation`` in
        tests/test_spectra.py.
    """
    checks.instance("ensemble", ensemble, ensembles.Ensemble)
    n_0 = ensemble.widths[0]
    total = 1.0
    layers = zip(ensemble.widths[:-1], ensemble.widths[1:], ensemble.masks, strict=True)
    for n_in, n, mask in layers:
        total += n_0 * float(mask.kurtosis) / n
        if ensemble.weights.orthogonal:
            total -= n_0 / max(n_in, n)
    return total


def path(
    source: Source, k: int, x: ArrayLike | None = None, *, drawn: bool = False
) -> traces.Path:
    """Return the path of ln R_jj², R of the QR of k vectors layer by layer.

    The sum over layers and the first j is the log of the squared j-volume; of k = 1 it
    is the log-norm. Vectors are a uniform frame. Normal and orthogonal matrices are
    never drawn: of normal ones with {0, 1} masks a layer costs k² numbers, whatever its
    width.

    Args:
        source: an ensemble of any weights and masks; or a network, whose Jacobian is
            followed, with normal or orthogonal weights.
        k: from 1 to the smallest of all widths, or sizes of outputs of layers.
        x: an input, of a network.
        drawn: draw the weights of a network, of any law.

    Returns:
        A path: key -> (depth, k), −inf where a direction is lost.

    Raises:
        ValueError: for other networks, k and inputs; for an input or drawn=True with an
            ensemble.

    Source:
        Derived in theory section 12; held against exact laws and drawn networks in
        tests/test_spectra.py.
    """
    return _path(source, k, x, False, drawn)


def singular_path(
    source: Source, k: int, x: ArrayLike | None = None, *, drawn: bool = False
) -> traces.Path:
    """Return the path of ln σ, descending, of a product M V or a Jacobian J(x) V.

    V is a uniform frame of k vectors; for k = n_0 these are the singular values of M.
    Each is relatively accurate, however many layers and however far apart: a product of
    the triangles of the QR recursion, never of the matrices. Relative errors are about
    eps times the sum over layers of their condition numbers.

    Args:
        source: as for ``path``.
        k: likewise.
        x: an input, of a network.
        drawn: draw the weights of a network, of any law.

    Returns:
        A path: key -> (k,); −inf where a direction is lost by a mask. Where a matrix of
        signs, or of few weights a row, is singular by chance, rounding is left of it.

    Raises:
        ValueError: for other networks, k and inputs; for an input or drawn=True with an
            ensemble.

    Source:
        Derived in theory section 12; held against drawn products and many digits in
        tests/test_spectra.py.
    """
    return _path(source, k, x, True, drawn)


def log_singular_values(factors: ArrayLike) -> jax.Array:
    """Return ln σ of a product A_d ⋯ A_1, descending, each to relative accuracy.

    Args:
        factors: (d, n, n), A_1 first, finite.

    Returns:
        (n,): relative errors are about eps times the sum of the condition numbers of
        the factors, with eps of float64 for factors that are known, whatever the
        result's type; −inf where the product is singular, or about ln eps below, if it
        is so by chance. It has derivatives forwards (``jax.jvp``).

    Raises:
        ValueError: for other shapes, and for factors that are not finite.

    >>> scaled = np.array([[[2.0, 0.0], [0.0, 0.5]]] * 10)
    >>> (log_singular_values(scaled) / np.log(2)).round(4).tolist()
    [10.0, -10.0]
    """
    A = checks.vector("factors", factors, None, zero=True)
    square = np.ndim(A) == 3 and A.shape[1] == A.shape[2] > 0 and len(A) > 0
    checks.require(square, "factors.shape", np.shape(A), "(d, n, n)")
    # powers of 2 apart, so that any type holds the rest
    numpy: Any = jnp if checks.traced(A) else np
    A = numpy.asarray(A, jnp.result_type(float) if checks.traced(A) else np.float64)
    _, exponent = numpy.frexp(numpy.max(numpy.abs(A), axis=(1, 2)))
    scaled = numpy.ldexp(A, -exponent[:, None, None])
    if checks.traced(A):
        return _of_factors(scaled, exponent)
    with jax.enable_x64(True):
        log_values = _of_factors(jnp.asarray(scaled), exponent)
    return jnp.asarray(np.asarray(log_values), jnp.result_type(float))


@jax.jit
def _of_factors(factors: jax.Array, exponent: jax.Array) -> jax.Array:
    n = factors.shape[-1]

    def step(carry, factor):
        frame, product = carry
        W, power = factor
        rows = jnp.matmul(frame, W.T, precision="highest")
        _, L, frame = undrawn.split(rows, rows[:0])
        product = graded.times_triangle(product, L)
        return (frame, product._replace(exponent=product.exponent + power)), None

    # directions that no factor knows: else what is small might come first
    first = _frames.uniform(jax.random.key(0), n, n).astype(factors.dtype)
    start = first, graded.identity(n)
    powers = jnp.asarray(exponent, jnp.int32)
    (_, product), _ = jax.lax.scan(step, start, (factors, powers))
    return graded.log_singular_values(product)


def _path(
    source: Source, k: int, x: ArrayLike | None, values: bool, drawn: bool
) -> traces.Path:
    checks.flag("drawn", drawn)
    if isinstance(source, networks.Network):
        return _network_path(source, k, x, values, drawn)
    checks.instance("source", source, ensembles.Ensemble)
    checks.require(not drawn, "drawn", drawn, "False: it is for networks")
    checks.require(x is None, "x", x, "None: a product has no input")
    k = _size(k, min(source.widths), "the smallest width")
    law = source.weights
    distinct, table = ensembles.layer_index(source)

    # kinds of layers, and the scale of their weights
    samplers, form = scans.by_form([bound.bound(m.sample) for _, m in distinct], table)
    by_counts = [
        law.gaussian and len({abs(float(v)) for v, _ in mask.support or ()}) == 1
        for _, mask in distinct
    ]
    # vectors themselves matter to what follows only where weights know directions
    alone = law.gaussian
    pairs = zip(source.widths[:-1], source.widths[1:], strict=True)
    kinds = [
        _frames.Kind(*widths, int(form[i]), alone and by_counts[table[i]])
        for i, widths in enumerate(pairs)
    ]
    variance = [1 / (float(mask.moment(1)) * width) for width, mask in distinct]
    scales = np.sqrt(np.array(variance)[table] * np.exp(ensembles.fan_shift(source)))
    order = scans.order_of(kinds)
    choices = values, law, k, *order
    return traces.Path(_of_ensemble, choices, (scales, samplers))


def _size(k: object, most: int, what: str) -> int:
    size = checks.integer("k", k, 1)
    allowed = f"an integer in 1…{most}, {what}"
    checks.require(size <= most, "k", k, allowed)
    return size


def _of_ensemble(values, law, k, distinct, order, scales, samplers, key) -> jax.Array:
    start, reduce = _folded(values, k)
    state, told = _frames.of_ensemble(
        law, k, distinct, order, reduce, start, scales, samplers, key
    )
    return _finished(values, state, told)


def _network_path(
    network: networks.Network, k: int, x: ArrayLike | None, values: bool, drawn: bool
) -> traces.Path:
    if not drawn:
        allowed = "one of normal or orthogonal weights"
        name = network.name
        checks.require(network.undrawn, "network", name, allowed, "Take drawn=True.")
        _conditioned.require(network)
    checks.require(x is not None, "x", x, f"an input, {network.shape}")
    assert x is not None
    X = _conditioned.inputs(network.shape, checks.vector("x", x, network.shape))
    sizes = [output.size for output in network.outputs(X.dtype)]
    k = _size(k, min(X.size, *sizes), "the smallest size of the output of a layer")
    return traces.Path(_of_network, (values, drawn, k), (network.plain(), X[0]))


def _of_network(values, drawn, k, network, x, key) -> jax.Array:
    start, reduce = _folded(values, k)
    follow = _frames.of_drawn if drawn else _frames.of_network
    state, told = follow(k, reduce, start, network, x, key)
    return _finished(values, state, told)


def _folded(values: bool, k: int):
    """Return what layers are folded into, and how."""
    if values:
        return graded.identity(k), _frames.multiplied
    return None, _frames.log_diagonal


def _finished(values: bool, state: Any, told: jax.Array) -> jax.Array:
    """Return what was told of each layer, or the singular values of their product."""
    if not values:
        return told
    log_values = graded.log_singular_values(state)
    return jnp.where(jnp.all(told), log_values, jnp.nan)
