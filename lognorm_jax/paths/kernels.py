"""Tangent kernels: how alike the gradients by two inputs are; their exact moments, and
samples of them without any weights.

The moments are those of the kernel K of one input, Σ (∂f/∂w)² over all weights w in
units of their standard deviations, of a ReLU network f without biases (Hanin & Nica
2019). With x_i and δ_i what reaches layer i forward and back, K = Σ K_i, K_i = s_i²
‖x_{i−1}‖² ‖δ_i‖². Given the product C of the masks and matrices between layers i < j,
what is outside of it is independent of what is inside, and
    E K_i K_j = s_i⁴ s_j⁴ E‖x_{i−1}‖⁴ E‖δ_j‖⁴ E(tr C Cᵀ)².

Source: derived in theory section 8; held against enumeration and simulation in
tests/test_kernels.py.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lognorm_jax import activations, networks, weights
from lognorm_jax._tools import checks, scans, traces
from lognorm_jax.paths import _backward, _conditioned, _residual_kernels
from lognorm_jax.theory import residuals

__all__ = ["first_step", "mean", "path", "residual_second_moment", "second_moment"]


class _Shape(NamedTuple):
    """A ReLU network with one output."""

    widths: tuple[int, ...]  # (n_0, …, n_d), n_d = 1
    variance: tuple[float, ...]  # s_i² of a weight, (d,)
    head: float  # P(δ_d = 1): 1 for a linear head, 1/2 for a ReLU


def _shape(widths: Sequence[int], head: str, fan: str) -> _Shape:
    """Return a network by its widths."""
    allowed = "a sequence of at least two integers ≥ 1, the last of them 1"
    checks.listed("widths", widths, allowed)
    sizes = tuple(checks.integer(f"widths[{i}]", n, 1) for i, n in enumerate(widths))
    instead = "Sample the kernel of a cotangent with kernels.path."
    scalar = len(sizes) >= 2 and sizes[-1] == 1
    checks.require(scalar, "widths", widths, allowed, instead)
    linear = checks.one_of("head", head, ("linear", "relu")) == "linear"
    outward = checks.one_of("fan", fan, ("in", "out")) == "out"
    gains = [2.0] * (len(sizes) - 2) + [1.0 if linear else 2.0]
    fans = sizes[1:] if outward else sizes[:-1]
    variance = tuple(gain / n for gain, n in zip(gains, fans, strict=True))
    return _Shape(sizes, variance, 1.0 if linear else 0.5)


def mean(widths: Sequence[int], head: str = "linear", fan: str = "in") -> float:
    """Return E K/‖x‖² of a ReLU network: d/n_0 for fan "in", exactly.

    Args:
        widths: (n_0, …, n_d), integers ≥ 1, n_d = 1.
        head: "linear", a last layer of variance 1/n; or "relu", of 2/n.
        fan: of the variance of a weight of layer i, 2/n_{i−1} ("in") or 2/n_i ("out").

    Returns:
        E K/‖x‖², of weights in units of their standard deviations.

    Raises:
        ValueError: for other widths, heads and fans.

    Source:
        Hanin & Nica (2019), as in theory section 8.

    >>> round(mean((10, 20, 30, 1)), 12)
    0.3
    """
    return math.fsum(_means(_shape(widths, head, fan)))


def second_moment(
    widths: Sequence[int], head: str = "linear", fan: str = "in"
) -> float:
    """Return E K²/(E K)² of a ReLU network without biases, exactly, at any widths.

    For equal widths n and depth d → ∞ it is e^{5b}[1/3 + (2/3) g(6b)], b = d/n and g(x)
    = 2(x − 1 + e^{−x})/x²: of the order of e^{5b}, but never as large. The kernel of
    single networks has heavy tails: of it samples see the less, the larger this is.

    Args:
        widths: as for ``mean``.
        head: likewise.
        fan: likewise.

    Returns:
        A number ≥ 1; inf where it overflows.

    Raises:
        ValueError: for other widths, heads and fans.

    Source:
        Derived in theory section 8; held against enumeration and simulation in
        tests/test_kernels.py.

    >>> round(second_moment((40,) * 9 + (1,)), 3)
    2.025
    """
    shape = _shape(widths, head, fan)
    terms = [outside * T for _, outside, T, _ in _pairs_of(shape)]
    return _sum(terms) / math.fsum(_means(shape)) ** 2


def first_step(widths: Sequence[int], head: str = "linear", fan: str = "in") -> float:
    """Return −E ΔK/(η ‖x‖² E K) of the first step of gradient descent, to first order.

    Of the loss (f(x) − y)²/2 at one input, with learning rate η of weights in units of
    their standard deviations. On average the kernel falls, whatever y; for equal widths
    n by about (4/3) d²/(n n_0) η ‖x‖², where d ≪ n.

    Args:
        widths: as for ``mean``.
        head: likewise.
        fan: likewise.

    Returns:
        By what share of its mean the kernel falls, over η ‖x‖²: a number ≥ 0.

    Raises:
        ValueError: for other widths, heads and fans.

    Source:
        Derived in theory section 8: E f ⟨∇f, ∇K⟩ is 4 Σ_{i < j} of what E K_i K_j is,
        with E tr (C Cᵀ)² for E (tr C Cᵀ)²; held against enumeration and simulation in
        tests/test_kernels.py.
    """
    shape = _shape(widths, head, fan)
    terms = [outside * Q for apart, outside, _, Q in _pairs_of(shape) if apart]
    return 2 * _sum(terms) / math.fsum(_means(shape))


def residual_second_moment(
    width: int,
    depth: int,
    kind: str = "balanced",
    *,
    skip_scale: float = 0.5**0.5,
    branch_scale: float = 0.5**0.5,
    activation: str | activations.Activation = "relu",
    weight_law: weights.Weights | None = None,
    quartic: float | None = None,
) -> float:
    """Return E K²/(E K)² of ⟨c, z^d⟩ of a residual network, c standard normal.

    Exact, and so is E K = d λ² (α² + λ²)^{d−1} ‖x‖². For α² + λ² = 1 and λ² = a/d it
    stays of order 1 at any depth.

    Args:
        width: n, an integer ≥ 1.
        depth: d, the number of blocks, an integer ≥ 1.
        kind: "balanced" or "mask model" of ``networks.residual``, without biases; masks
            of the others depend on what they meet.
        skip_scale: α in [0, 1e6], not traced.
        branch_scale: λ, likewise, not 0.
        activation: of which the mask is: an ``activations.Activation`` or its name.
        weight_law: of independent, symmetric weights with a fourth moment; default
            normal.
        quartic: κ(x) = Σ x_a⁴/‖x‖⁴ of the input, in [1/n, 1]; default 3/(n + 2), of a
            uniform direction.

    Returns:
        A number ≥ 1; inf where it overflows.

    Raises:
        ValueError: for other kinds, activations without a mask, other laws of weights,
            and numbers out of these ranges.

    Source:
        Derived in theory section 8; held against enumeration and simulation in
        tests/test_kernels.py.

    >>> deep = residual_second_moment(40, 100, skip_scale=0.99**0.5, branch_scale=0.1)
    >>> round(deep, 3)
    1.125
    """
    n = checks.integer("width", width, 1)
    depth = checks.integer("depth", depth, 1)
    scales = residuals.unit_scales(skip_scale, branch_scale)
    checks.require(scales[1] > 0, "branch_scale", branch_scale, "a number > 0")
    allowed = "'balanced' or 'mask model', whose masks are independent"
    instead = "Sample the kernel: kernels.path."
    known = kind in ("balanced", "mask model")
    checks.require(known, "kind", kind, allowed, instead)

    phi = activations.named(activation)
    mask = phi.mask
    checks.require(mask is not None, "activation", phi.name, "one with a mask", instead)
    assert mask is not None
    law = weights.normal() if weight_law is None else weight_law
    checks.instance("weight_law", law, weights.Weights)
    fits = law.symmetric and not law.whole
    allowed = "one of independent symmetric weights"
    checks.require(fits, "weight_law", law.name, allowed, instead)
    if quartic is None:
        quartic = 3 / (n + 2)
    inside = checks.number("quartic", quartic, "(0, 1]") >= 1 / n * (1 - 1e-6)
    checks.require(inside, "quartic", quartic, f"a number in [1/{n}, 1]")
    return _residual_kernels.second_moment(
        kind == "balanced",
        n,
        depth,
        scales,
        (float(mask.moment(1)), float(mask.moment(2))),
        float(law.kurtosis),
        quartic,
    )


def _sum(terms: list[float]) -> float:
    """Return the sum of terms ≥ 0; inf where they overflow."""
    return math.fsum(terms) if all(map(math.isfinite, terms)) else math.inf


def _means(shape: _Shape) -> list[float]:
    """Return E K_i/‖x‖² of each layer."""
    hidden = shape.widths[1:-1]
    means = []
    for i, variance in enumerate(shape.variance):
        # masks keep half: forward from the layers before, back from those after
        ahead = [s * n / 2 for s, n in zip(shape.variance[:i], hidden, strict=False)]
        behind = [
            s * n / 2 for s, n in zip(shape.variance[i + 1 :], hidden[i:], strict=True)
        ]
        means.append(shape.head * variance * math.prod(ahead + behind))
    return means


def _pairs_of(shape: _Shape) -> Iterator[tuple[int, float, float, float]]:
    """Yield j − i ≥ 0, what is outside of layers i and j, E (tr C Cᵀ)² and E tr (C
    Cᵀ)², over ‖x‖⁴; pairs of different layers twice, as i, j and j, i.
    """
    hidden = shape.widths[1:-1]
    s = shape.variance
    # E (tr of what a mask keeps)² and E ‖D g‖⁴ of a normal vector g
    square = [n * (n + 1) / 4 for n in hidden]
    fourth = [n * (n + 5) / 4 for n in hidden]
    ahead = [1.0]
    for i, of_layer in enumerate(fourth):
        ahead.append(ahead[-1] * s[i] ** 2 * of_layer)
    behind = [shape.head]
    for i, of_layer in reversed([*enumerate(fourth)]):
        behind.insert(0, behind[0] * s[i + 1] ** 2 * of_layer)

    for i in range(len(s)):
        yield 0, s[i] ** 2 * ahead[i] * behind[i], 1.0, 1.0
        if i == len(hidden):
            return
        T, Q = square[i], hidden[i] / 2
        for j in range(i + 1, len(s)):
            outside = (s[i] * s[j]) ** 2 * ahead[i] * behind[j]
            yield j - i, 2 * outside, T, Q
            if j < len(hidden):
                n = hidden[j]
                same = n / 2 * (T + 2 * Q)
                pairs = n * (n - 1) / 4
                T, Q = (s[j] ** 2 * (same + pairs * part) for part in (T, Q))


def path(
    network: networks.Network,
    inputs: jax.typing.ArrayLike,
    cotangent: jax.typing.ArrayLike | None = None,
    *,
    scaled: bool = True,
) -> traces.Path:
    """Return the path of the tangent kernel of a scalar function of a network.

    K_ij = Σ ⟨∂f(x_i)/∂θ, ∂f(x_j)/∂θ⟩ over all weights and, where they are not 0, biases
    θ, of f = ⟨cotangent, output⟩ (Jacot et al. 2018). At any width: no matrix is drawn,
    as in ``paths.gradients``.

    Args:
        network: any, with normal or orthogonal weights.
        inputs: (m, *network.shape), finite.
        cotangent: of the shape of an output, not zero; None where that is one number.
        scaled: of weights and biases divided by their standard deviations, which is
            the NTK parametrisation; False: of those that are applied.

    Returns:
        A path: key -> (m, m), symmetric and positive semidefinite to rounding; NaN
        where activations overflow.

    Raises:
        ValueError: for other networks, naming the layer, or without matrices of
            weights; for vectors of another shape or not finite; and for a cotangent
            left out where outputs are more than one number.

    Source:
        Derived in theory section 11; held against gradients of drawn networks in
        tests/test_kernels.py.
    """
    _conditioned.require(network)
    checks.flag("scaled", scaled)
    X = checks.vector("inputs", inputs, None, zero=True)
    allowed = f"(m, {', '.join(map(str, network.shape))})"
    fits = X.shape[1:] == network.shape and len(X) > 0
    checks.require(fits, "inputs.shape", X.shape, allowed)
    X = _conditioned.inputs(network.shape, X)
    some = bool(network.matrices)
    checks.require(some, "network", network.name, "one with matrices of weights")
    output = network.outputs(X.dtype)[-1].shape
    if cotangent is None:
        one = math.prod(output) == 1
        instead = "Give the cotangent of a function of it."
        allowed = "one whose output is one number"
        checks.require(one, "network", f"{network.name}, {output}", allowed, instead)
        cotangent = jnp.ones(output)
    same = np.broadcast_to if not checks.traced(cotangent) else jnp.broadcast_to
    along = checks.vector("cotangent", cotangent, output)
    D, size = _backward.cotangents(network, X, same(along, (len(X), *output)), True)
    log_square = 2 * np.log(np.float64(size))
    return traces.Path(_kernel, (scaled,), (network.plain(), X, D, log_square))


def _kernel(
    scaled: bool,
    network: networks.Network,
    X: jax.Array,
    D: jax.Array,
    log_square: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Return the kernel of one network in law, of cotangents that are so much
    larger.
    """
    X = scans.unknown(jnp.asarray(X, jnp.result_type(float)))
    total = functools.partial(_backward.along, jnp.asarray(D, X.dtype))
    more = log_square.astype(X.dtype)
    measure = functools.partial(_products, scaled, more)
    kernels = _backward.in_law(measure, total, network, X, key).measured
    return jnp.sum(kernels, axis=0)


def _products(
    scaled: bool, more: jax.Array, one: networks.Map, part: _backward.Part
) -> jax.Array:
    """Return the products of the gradients by each input, of one map, (m, m)."""
    P, log_square = _backward.on_one_scale(part)
    pulls = _pairs(P)
    of_weights = jnp.sum(_pairs(part.V) * pulls, axis=(1, 3))
    kernel = one.std**2 * of_weights if scaled else of_weights
    if one.bias_scale is not None:
        # the gradient of biases is the sum over rows
        of_biases = jnp.sum(pulls, axis=(1, 3))
        kernel = kernel + (one.bias_scale**2 if scaled else 1.0) * of_biases
    # in two steps: the kernel itself may be small where this is large
    root = jnp.exp((log_square + more) / 2)
    return root * kernel * root


def _pairs(rows: jax.Array) -> jax.Array:
    """Return the products of all rows (m, a, n) with one another: (m, a, m, a)."""
    return jnp.einsum("ian,jbn->iajb", rows, rows, precision="highest")
