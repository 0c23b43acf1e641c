"""Numbers that others published, where they stand, and the same numbers by this
library.

Each says how far it may be from ours, and why. A number with ``off`` is one that we do
not get, and for a reason: it is an approximation, a bound, or a slip.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from experiments import spectra as gaps
from lognorm_jax import (
    activations,
    advice,
    ensembles,
    exact,
    kernels,
    laws,
    masks,
    moments,
    networks,
    residuals,
    spectra,
    weights,
)

Samples = Mapping[str, np.ndarray]  # arrays with an axis of samples first


class Number(NamedTuple):
    """One published number, and how it is computed here."""

    name: str
    subject: str
    source: str  # authors, year, and arXiv number or repository
    where: str  # in the source
    value: float
    allowance: float  # how far it may be from ours, in its own unit
    reason: str  # of the allowance
    # (samples) -> ours; or ours and its standard error
    ours: Callable[[Samples], float | tuple[float, float]]
    constant: bool = False  # of an activation, an initialiser or a maximum of normals
    off: str = ""  # why theirs is another number than ours


RELU, LINEAR = masks.relu(), masks.identity()
DIGITS = "rounding of its last digit"
WIDE = 100_000  # where terms of second order in 1/n no longer show

# of what is sampled
GAP_WIDTH, ANGLE_WIDTH = 32, 256
KERNEL_WIDTHS = (16, 16, 16, 16, 1)


def _products(width: int, depth: int, mask: masks.Mask, law=None) -> ensembles.Ensemble:
    law = law or weights.normal()
    return ensembles.Ensemble((width,) * (depth + 1), law, mask)


def sampled() -> dict[str, tuple[Callable, int, int, int]]:
    """Return what is sampled: {case: (path, samples, quick samples, block size)}."""
    square = _products(GAP_WIDTH, 1, LINEAR)
    layer = _products(ANGLE_WIDTH, 1, RELU)
    network = networks.relu_mlp(KERNEL_WIDTHS, fan="in", head="linear")
    inputs = np.ones((1, KERNEL_WIDTHS[0]))
    return {
        "singular values": (spectra.singular_path(square, GAP_WIDTH), 4096, 2048, 64),
        "angles": (spectra.path(layer, 2), 60_000, 16_384, 256),
        "tangent kernel": (kernels.path(network, inputs), 30_000, 4096, 256),
    }


def _mean(samples: np.ndarray) -> tuple[float, float]:
    """Return a mean and its standard error."""
    samples = np.asarray(samples, np.float64)
    return float(samples.mean()), float(samples.std(ddof=1) / len(samples) ** 0.5)


# one layer, and moments


def _cumulant(order: int, mask: masks.Mask) -> float:
    """Return n times a cumulant of ln R, at a large width."""
    return float(exact.increment_cumulants(WIDE, mask, order)[order - 1]) * WIDE


def _log_moment(k: int) -> float:
    """Return ln E‖Ju‖^{2k} at width 1,000 and β = 1/10."""
    moment = moments.norm_moment(_products(1000, 100, RELU), k)
    return math.log(moment.numerator) - math.log(moment.denominator)


def _coordinate() -> float:
    """Return n Var R of one layer of random signs along a coordinate."""
    layer = _products(1000, 1, RELU, weights.rademacher())
    return 1000 * (float(moments.norm_moment(layer, 2, [1] + [0] * 999)) - 1)


def _sd_at_beta_one() -> float:
    return exact.law(_products(1000, 1000, RELU)).variance ** 0.5


def _exponent() -> float:
    """Return the exponent of the KS distance to the limit law in the width, β = 1."""
    widths, distances = (64, 128, 256), []
    for n in widths:
        shape = _products(n, n, RELU)
        found = laws.ks_distance(exact.law(shape), ensembles.limit_law(shape))
        distances.append(found)
    return float(np.polyfit(np.log(widths), np.log(distances), 1)[0])


def _kurtosis(width: int, depth: int, mask, law, first, covariance=0) -> float:
    shape = _products(width, depth, mask, law)
    return float(moments.pre_activation_kurtosis(shape, first, covariance))


# scales that keep a moment


def _excess(width: int, mask: masks.Mask, s: float) -> float:
    """Return n²(σ² − σ²₂), σ² the variance that keeps E‖x‖^s, and σ²₂ the mean square.

    E R^{s/2} is an integral over the exact density of ln R.
    """
    law = exact.increment_law(width, mask)
    y, step = np.linspace(law.quantile(1e-15), law.quantile(1 - 1e-15), 4001, retstep=1)
    alive = math.exp(masks.log_alive(mask, width))
    kept = alive * step * float(np.sum(law.pdf(y) * np.exp(s * y / 2)))
    square = 1 / (float(mask.moment(1)) * width)
    return width**2 * square * math.expm1(-2 / s * math.log(kept))


def _log_correction(width: int, activation: str) -> float:
    """Return the log of what a typical norm needs beyond the gain of a wide layer."""
    return math.log(advice.gains(activation, width).backward_correction)


def _typical_gain(width: int) -> float:
    gains = advice.gains("relu", width)
    return gains.backward * gains.backward_correction


# activations, by quadrature


def _gains(function: Callable, scale: float = 1.0) -> advice.Gains:
    """Return the gains of a function of scale times a standard normal number."""
    phi = activations.Activation(
        "scaled", lambda z: function(z * jnp.asarray(scale, z.dtype))
    )
    return advice.gains(phi)


def _variance(function: Callable, scale: float = 1.0) -> float:
    """Return Var φ, from E φ² and E (φ + 1)²."""
    square = _gains(function, scale).forward ** -2
    raised = _gains(lambda z: function(z) + 1, scale).forward ** -2
    return square - ((raised - square - 1) / 2) ** 2


def _slope_square(function: Callable, scale: float = 1.0) -> float:
    """Return E φ'²."""
    return _gains(function, scale).backward ** -2 / scale**2


def _exact_gelu(z):
    return jax.nn.gelu(z, approximate=False)


@functools.cache
def _critical(function: Callable) -> tuple[float, float]:
    """Return the variances (C_b, C_W) at which a wide network is critical.

    K = C_b + C_W E φ², with C_W E φ'² = 1 for tangents across and C_W dE φ²/dK = 1 for
    those along, z of variance K.
    """

    def square(variance):
        return _gains(function, variance**0.5).forward ** -2

    def along_less_across(variance):
        # fourth-order difference
        step = 1e-3 * variance
        near = square(variance + step) - square(variance - step)
        far = square(variance + 2 * step) - square(variance - 2 * step)
        slope = (8 * near - far) / (12 * step)
        return slope / _slope_square(function, variance**0.5) - 1

    fixed = optimize.brentq(along_less_across, 0.1, 30, xtol=1e-12)
    c_w = 1 / _slope_square(function, fixed**0.5)
    return fixed - c_w * square(fixed), c_w


# angles between inputs: integrals of Jakub & Nica, at angle t
def _j11(t: float) -> float:
    return (math.sin(t) + (math.pi - t) * math.cos(t)) / (2 * math.pi)


def _j22(t: float) -> float:
    even = (math.pi - t) * (2 * math.cos(t) ** 2 + 1)
    return (even + 3 * math.sin(t) * math.cos(t)) / (2 * math.pi)


def _rho(n: int) -> float:
    """Return their fall of ln sin² of a small angle, a layer."""
    log = math.log((n + 5) / (n - 1))
    return log - 10 / (n * (5 / n + 1) ** 2) + 6 / (n * (1 - 1 / n) ** 2)


def _angle_fall(width: int) -> float:
    """Return by how much ln sin² of a small angle falls: both inputs keep the same
    units, so that it is the area of two vectors over the squares of both.
    """
    first, second = exact.triangle_means(_products(width, 1, RELU), 2)
    return float(first - second)


def _angle_variance(samples: Samples) -> tuple[float, float]:
    log_squares = np.asarray(samples["angles"], np.float64)[:, 0]
    change = log_squares[:, 1] - log_squares[:, 0]
    return _mean((change - change.mean()) ** 2)


def _cosine_after_relu(cosine: float) -> float:
    """Return the cosine of two inputs after a wide ReLU layer, from the drift of
    shaped ones.
    """
    drift = float(activations.cosine_drift(cosine, 1.0, -1.0))
    kink = (drift + cosine * (1 - cosine**2) / 2) / 4
    return cosine + 2 * kink


# maxout, spectra, kernels, initialisers


def _maxout_square(pieces: int) -> float:
    """Return E R of a layer of maxout along its input, at gain 1: E max²."""
    x = np.ones(4)
    law = networks.limit_law(networks.maxout((4, 1000), pieces, gain=1.0), x, x)
    return math.exp(law.mean + law.variance / 2)


def _largest_square(pieces: int) -> float:
    """Return E max² of so many normal numbers, E φ² of φ(z) = z√(K Φ(z)^(K−1))."""

    def weighted(z):
        log_share = (pieces - 1) / 2 * jax.scipy.special.log_ndtr(z)
        return z * pieces**0.5 * jnp.exp(log_share)

    return _gains(weighted).forward ** -2


def _log_condition(samples: Samples) -> tuple[float, float]:
    log_values = np.asarray(samples["singular values"], np.float64)
    mean, error = _mean(log_values[:, 0] - log_values[:, -1])
    return mean - math.log(GAP_WIDTH), error


def _gap_ratio(samples: Samples) -> tuple[float, float]:
    return _mean(gaps.gap_ratios(samples["singular values"]))


def _mean_exponential() -> float:
    exponents = spectra.lyapunov(_products(1000, 1, LINEAR), 1000)
    return float(np.mean(np.exp(exponents)))


def _participation(depth: int, mask: masks.Mask) -> float:
    return float(spectra.participation(_products(10_000, depth, mask)))


def _mean_kernel(samples: Samples) -> tuple[float, float]:
    # of an input of norm² n_0
    wide = kernels.mean(KERNEL_WIDTHS) * KERNEL_WIDTHS[0]
    mean, error = _mean(np.ravel(samples["tangent kernel"]))
    return mean / wide, error / wide


def _residual(skip_scale: float, kurtosis: float = 2.0) -> float:
    """Return n Var R of a residual layer with α² + λ² = 1."""
    scales = skip_scale, (1 - skip_scale**2) ** 0.5
    return 1000 * float(
        residuals.predictable_variance(1000, *scales, mask_kurtosis=kurtosis)
    )


def _branch_std(**options) -> float:
    """Return the sd of the weights that end a branch, in 12 blocks of width 768."""
    network = networks.transformer(768, 12, 12, 4, **options)
    return float(network.kinds[0].maps[-1].std)


def _lecun(samples: Samples) -> tuple[float, float]:
    """Return the sd of JAX's lecun_normal times √fan-in."""
    values = np.asarray(samples["lecun_normal"], np.float64) * LECUN_SHAPE[0] ** 0.5
    square, error = _mean(np.ravel(values) ** 2)
    return square**0.5, error / (2 * square**0.5)


LECUN_SHAPE = (512, 512)

HANIN_NICA = "Hanin & Nica 2018, arXiv:1812.05994; Nica's talk of 2019"
BOOK = "Roberts, Yaida & Hanin 2021, arXiv:2106.10165"
CRITICAL = f"{BOOK}; its critical networks in public code"
KURTOSIS = "Grzejdziok/vanishing-empirical-variance, kurtosis_utils.py"
FRACTIONAL = "Gürbüzbalaban & Hu 2020, arXiv:2005.11878; in public code"
WALK = "Sussillo & Abbott 2014, arXiv:1412.6558; in public code"
ANGLES = (
    "Jakub & Nica 2023, arXiv:2302.09712; camjakub/Depth-Degeneracy-in-Neural-Networks"
)
MAXOUT = (
    "Tseran & Montúfar 2023, arXiv:2301.06956; hanna-tseran/maxout_expected_gradients"
)
ISOMETRY = "Pennington et al. 2017, arXiv:1711.04735, as taught by depthfirstlearning"
RATIOS = "Atas et al. 2013, arXiv:1212.5611; in public tests of spectra"
NFNETS = "google-deepmind/deepmind-research, nfnets/base.py"
TORCH = "pytorch/pytorch, torch/nn/init.py"
UNIT = "graphcore-research/unit-scaling, unit_scaling/functional.py"
STABLE = "Kedia et al. 2024, arXiv:2403.09635; akhilkedia/TranformersGetStable"

ONE_SAMPLE = (
    "an estimate from one sample of normal numbers: that of selu, which is 1 exactly, "
    "is 0.09% off, and the others may be twice as much"
)
TABLE = "nonlinearities, which are divided by the sd of φ(z)"


def _nfnets(name: str, value: float, function: Callable) -> Number:
    return Number(
        f"1/sd of {name}",
        "gains",
        NFNETS,
        TABLE,
        value,
        0.0017 * value,
        ONE_SAMPLE,
        lambda _: _variance(function) ** -0.5,
        constant=True,
    )


LAW = (
    Number(
        "n·Var ln R, ReLU (p = 1/2): 3/p − 1",
        "law",
        HANIN_NICA,
        "limit theorem for networks, 5β",
        5.0,
        100 / WIDE,
        "terms of second order in 1/n, 18.5/n",
        lambda _: _cumulant(2, RELU),
    ),
    Number(
        "n·Var ln R, linear (p = 1): 3/p − 1",
        "law",
        HANIN_NICA,
        "limit theorem for products",
        2.0,
        100 / WIDE,
        "terms of second order in 1/n",
        lambda _: _cumulant(2, LINEAR),
    ),
    Number(
        "n·Var ln R, p = 1/4: 3/p − 1",
        "law",
        HANIN_NICA,
        "limit theorem for products",
        11.0,
        200 / WIDE,
        "terms of second order in 1/n, 97/n",
        lambda _: _cumulant(2, masks.bernoulli(0.25)),
    ),
    Number(
        "mean of the law over β, ReLU",
        "law",
        HANIN_NICA,
        "limit theorem for networks, −5β/2",
        -2.5,
        20 / WIDE,
        "terms of second order in 1/n, 4.1/n",
        lambda _: _cumulant(1, RELU),
    ),
    Number(
        "ln E‖Ju‖⁴, β = 1/10, n = 1,000",
        "law",
        HANIN_NICA,
        "precise theorem, 5·C(2,2)β",
        0.5,
        30 * 1e-4,
        "the theorem's O(Σ n⁻²), with a constant of 30 (it is 12.5)",
        lambda _: _log_moment(2),
    ),
    Number(
        "ln E‖Ju‖⁶, β = 1/10, n = 1,000",
        "law",
        HANIN_NICA,
        "precise theorem, 5·C(3,2)β",
        1.5,
        200 * 1e-4,
        "the theorem's O(Σ n⁻²), whose constant grows with the moment",
        lambda _: _log_moment(3),
    ),
    Number(
        "n·Var R, random signs, a coordinate",
        "law",
        HANIN_NICA,
        "arbitrary vectors: 3/p − 1 + (μ₄ − 3)/p",
        1.0,
        1e-9,
        "none: one layer is exact",
        lambda _: _coordinate(),
    ),
    Number(
        "n·drift of a layer, ReLU",
        "law",
        HANIN_NICA,
        "slides, line (2) of the martingale",
        2.5,
        20 / WIDE,
        "terms of second order in 1/n",
        lambda _: _cumulant(1, RELU),
        off="slip of the slides: the sign, as ln(1 + x) ≈ x − x²/2",
    ),
    Number(
        "sd of ln‖Mu‖² at β = 1, ReLU",
        "law",
        HANIN_NICA,
        "slides, proposition of the proof",
        5.0,
        0.01,
        "terms of second order in 1/n",
        lambda _: _sd_at_beta_one(),
        off="slip of the slides: a root is missing, √5",
    ),
    Number(
        "exponent of the KS distance in n",
        "law",
        HANIN_NICA,
        "precise theorem, (Σn⁻²/Σn⁻¹)^(1/5)",
        -0.2,
        0.02,
        "the fit of three widths",
        lambda _: _exponent(),
        off="a bound: the distance falls as 1/n",
    ),
    Number(
        "kurtosis, random signs, 7 wide, 9 deep",
        "law",
        KURTOSIS,
        "run with start kurtosis 3.3, covariance 0.1",
        88.978483435198,
        1e-10,
        "rounding of their floats",
        lambda _: _kurtosis(7, 9, RELU, weights.rademacher(), 3.3, 0.1),
    ),
    Number(
        "kurtosis, normal, 10 wide, 100 deep",
        "law",
        KURTOSIS,
        "run with start kurtosis 3, covariance 0",
        1.2196835326056e18,
        1e6,
        "rounding of their floats",
        lambda _: _kurtosis(10, 100, RELU, weights.normal(), 3),
    ),
    Number(
        "kurtosis, uniform, leaky, 50 wide, 50 deep",
        "law",
        KURTOSIS,
        "run with slope 0.01, start kurtosis 1.8",
        257.7886605757,
        1e-9,
        "rounding of their floats",
        lambda _: _kurtosis(50, 50, masks.leaky_relu(0.01), weights.uniform(), 1.8),
    ),
)

_RESIDUAL_REASON = "none: a formula for one layer of independent masks"
RESIDUAL = (
    Number(
        "ν, residual ReLU, γ² = 1/2",
        "residual",
        CRITICAL,
        "nu(gamma, relu)",
        2.25,
        1e-9,
        _RESIDUAL_REASON,
        lambda _: _residual(0.5**0.5),
    ),
    Number(
        "ν, residual ReLU, γ = 0.9",
        "residual",
        CRITICAL,
        "nu(gamma, relu)",
        0.19 * (0.19 * 5 + 4 * 0.81),
        1e-9,
        _RESIDUAL_REASON,
        lambda _: _residual(0.9),
    ),
    Number(
        "ν, residual linear, γ² = 1/2",
        "residual",
        CRITICAL,
        "nu(gamma, linear)",
        1.5,
        1e-9,
        _RESIDUAL_REASON,
        lambda _: _residual(0.5**0.5, 1.0),
    ),
)

SCALES = (
    *(
        Number(
            f"n²(σ² − σ²₂) for E‖x‖^{s:g}, {label}",
            "scales",
            FRACTIONAL,
            "yuanhan_normal_, the term in 1/fan²",
            value,
            5 / 100,
            "an expansion, whose next term is about 3/n: n = 100",
            functools.partial(lambda mask, s, _: _excess(100, mask, s), mask, s),
        )
        for label, mask, s, value in (
            ("ReLU", RELU, 1.0, 2.5),
            ("ReLU", RELU, 1.5, 1.25),
            ("linear", LINEAR, 1.0, 0.5),
            (
                "leaky 0.1",
                masks.leaky_relu(0.1),
                1.0,
                ((5 - 24) * 0.01 + 10) / (2 * 3 * 0.01 + 4),
            ),
        )
    ),
    Number(
        "ln of the walk's factor, linear, n = 100",
        "scales",
        WALK,
        "randomwalk_normal_, 1/(2n)",
        0.005,
        0.5e-4,
        "the leading order; terms of second order in 1/n, 0.17/n²",
        lambda _: _log_correction(100, "linear"),
    ),
    Number(
        "ln of the walk's factor, ReLU, n = 100",
        "scales",
        WALK,
        "randomwalk_normal_, 1.2/(n − 2.4)",
        1.2 / 97.6,
        0.05 / 97.6,
        "a formula fitted to simulations, with 1.2 rounded",
        lambda _: _log_correction(100, "relu"),
    ),
    Number(
        "factor of the walk, ReLU",
        "scales",
        "TensorFlow; uniform_unit_scaling_initializer, after Sussillo & Abbott 2014",
        "its description: ReLU about 1.43",
        1.43,
        0.005,
        f"{DIGITS}; no width is told: ours at 100",
        lambda _: _typical_gain(100),
    ),
)

ANGLE = (
    Number(
        "fall of ln sin²θ a layer, θ → 0, n = 4,096",
        "angles",
        ANGLES,
        "ρ(n) of Approximation 1",
        _rho(4096),
        100 / 4096**2,
        "their O(n⁻²): by their own formula it is 2/n + 100/n²",
        lambda _: _angle_fall(4096),
    ),
    Number(
        "fall of ln sin²θ a layer, θ → 0, n = 256",
        "angles",
        ANGLES,
        "ρ(n) of Approximation 1, the width of Figure 1",
        _rho(256),
        0.0,
        "none",
        lambda _: _angle_fall(256),
        off="an expansion: its O(n⁻²) is 89/n² too large",
    ),
    Number(
        "n·Var of ln sin²θ a layer, θ → 0, n = 256",
        "angles",
        ANGLES,
        "8n/(n + 5)² of Approximation 2",
        8 * 256**2 / 261**2,
        160 / 256,
        "their O(n⁻²): by their own formula 8/n − 80/n², twice; ours is sampled",
        lambda samples: tuple(256 * np.array(_angle_variance(samples))),
    ),
    Number(
        "cosine 0.3 after a wide ReLU layer",
        "angles",
        ANGLES,
        "infinite width, 2·J₁₁",
        2 * _j11(math.acos(0.3)),
        1e-6,
        "rounding of float32",
        lambda _: _cosine_after_relu(0.3),
    ),
    Number(
        "E φ²(a)φ²(b) of ReLUs, cosine 0.3",
        "angles",
        ANGLES,
        "J₂₂",
        _j22(math.acos(0.3)),
        1e-6,
        "rounding of float32",
        lambda _: (float(residuals.square_correlation(0.3)) + 1 + 2 * 0.09) / 4,
    ),
)

SPECTRA = (
    Number(
        "E ln κ − ln n, square normal matrix",
        "spectra",
        "Edelman 1988; Eigenvalues and condition numbers of random matrices",
        "abstract",
        1.537,
        2 / GAP_WIDTH,
        "for n → ∞; at n = 8 to 32 it is 1.6/n less, and ours is sampled",
        _log_condition,
    ),
    Number(
        "ratio of gaps of ln σ",
        "spectra",
        RATIOS,
        "symmetric Gaussian matrices, large",
        0.5307,
        0.01,
        "for n → ∞; the middle half of n = 32, and ours is sampled",
        _gap_ratio,
    ),
    Number(
        "ratio of gaps of ln σ, surmise",
        "spectra",
        RATIOS,
        "4 − 2√3, of 3 × 3 matrices",
        4 - 2 * 3**0.5,
        0.0,
        "none",
        _gap_ratio,
        off="a surmise: of 3 × 3 matrices",
    ),
    Number(
        "mean of e^λ, triangle law",
        "spectra",
        "Akemann et al. 2014, arXiv:1406.0803; Newman's law",
        "abstract: density 2x on (0, 1)",
        2 / 3,
        0.002,
        "for n → ∞; at n = 1,000 terms of order 1/n",
        lambda _: _mean_exponential(),
    ),
    Number(
        "m₂/m₁² of JJᵀ, p = 1/2, 5 layers",
        "spectra",
        ISOMETRY,
        "(L + p)/p, Gaussian weights",
        11.0,
        0.02,
        "for n → ∞; at n = 10,000 terms of order d²/n",
        lambda _: _participation(5, RELU),
    ),
    Number(
        "m₂/m₁² of JJᵀ, p = 1/4, 3 layers",
        "spectra",
        ISOMETRY,
        "(L + p)/p, Gaussian weights",
        13.0,
        0.02,
        "for n → ∞; at n = 10,000 terms of order d²/n",
        lambda _: _participation(3, masks.bernoulli(0.25)),
    ),
    Number(
        "E K over that of wide layers, ReLU",
        "kernels",
        "Guillen et al. 2025, arXiv:2508.11522",
        "abstract: no correction on the diagonal",
        1.0,
        0.0,
        "none: exact at any width; ours is sampled at width 16",
        _mean_kernel,
    ),
    Number(
        "E K²/(E K)², 50 layers of width 100",
        "kernels",
        "Hanin & Nica 2019, arXiv:1909.05989",
        "theorem: of the order of exp(5β)",
        math.exp(5 * 0.49),
        0.0,
        "none",
        lambda _: kernels.second_moment((100,) * 50 + (1,)),
        off="order of growth: exp(5β) is up to 3 times too large",
    ),
)

_MAXOUT_REASON = f"{DIGITS}; computed with Mathematica"
CONSTANTS = (
    *(
        Number(
            f"E max² of {pieces} normal numbers",
            "constants",
            MAXOUT,
            f"{where}; maxout's gain is 1 over it",
            value,
            5.1e-6,
            _MAXOUT_REASON,
            functools.partial(lambda square, pieces, _: square(pieces), square, pieces),
            constant=True,
        )
        for pieces, value, square, where in (
            (3, 1.27566, _maxout_square, "second_moment.ipynb"),
            (5, 1.80002, _largest_square, "second_moment.ipynb"),
            (20, 3.76316, _largest_square, "second_moment.ipynb, 5 pieces, pools of 4"),
        )
    ),
    Number(
        "C_W, GELU at criticality",
        "constants",
        f"{BOOK}; public code ntkunlimited, README",
        "--C_w",
        1.98305826,
        1e-8,
        DIGITS,
        lambda _: _critical(_exact_gelu)[1],
        constant=True,
    ),
    Number(
        "C_b, GELU at criticality",
        "constants",
        f"{BOOK}; public code ntkunlimited, README",
        "--C_b",
        0.17292239,
        1e-8,
        DIGITS,
        lambda _: _critical(_exact_gelu)[0],
        constant=True,
    ),
    Number(
        "C_W, SWISH at criticality",
        "constants",
        CRITICAL,
        "distribution_hyperparameters",
        1.98800468,
        1e-8,
        DIGITS,
        lambda _: _critical(jax.nn.silu)[1],
        constant=True,
    ),
    Number(
        "C_b, SWISH at criticality",
        "constants",
        CRITICAL,
        "distribution_hyperparameters",
        0.055514317,
        1e-8,
        DIGITS,
        lambda _: _critical(jax.nn.silu)[0],
        constant=True,
        off="slip of that code: the point is one place off, 0.55514317",
    ),
    Number(
        "sd that ends a branch, GPT-2, 12 blocks",
        "constants",
        "karpathy/nanoGPT, model.py",
        "0.02/√(2·n_layer)",
        0.02 / 24**0.5,
        1e-9,
        "none: an exact scale",
        lambda _: _branch_std(),
        constant=True,
    ),
    Number(
        "DeepNorm's β, 12 layers",
        "constants",
        "Wang et al. 2022, arXiv:2203.00555; microsoft/torchscale",
        "architecture/encoder.py, (8N)^(−1/4)",
        96**-0.25,
        1e-9,
        "none: an exact scale",
        lambda _: _branch_std(norm="post", residual="deepnorm", init=1.0),
        constant=True,
    ),
    Number(
        "sd of lecun_normal times √fan-in",
        "constants",
        "jax-ml/jax, jax/_src/nn/initializers.py",
        "its description: sd √(scale/n) after truncation",
        1.0,
        0.0,
        "none; ours is measured",
        _lecun,
        constant=True,
    ),
)

GAINS = (
    _nfnets("ReLU", 1.7139588594436646, jax.nn.relu),
    _nfnets("GELU", 1.7015043497085571, jax.nn.gelu),
    _nfnets("SiLU", 1.7881293296813965, jax.nn.silu),
    _nfnets("tanh", 1.5939117670059204, jnp.tanh),
    _nfnets("sigmoid", 4.803835391998291, jax.nn.sigmoid),
    _nfnets("ELU", 1.2716004848480225, jax.nn.elu),
    _nfnets("softplus", 1.9203323125839233, jax.nn.softplus),
    _nfnets("SELU", 1.0008515119552612, jax.nn.selu),
    Number(
        "gain of ReLU",
        "gains",
        TORCH,
        "calculate_gain",
        2**0.5,
        1e-9,
        "none: an exact formula",
        lambda _: advice.gains("relu").forward,
        constant=True,
    ),
    Number(
        "gain of leaky ReLU, slope 0.01",
        "gains",
        TORCH,
        "calculate_gain, √(2/(1 + a²))",
        (2 / 1.0001) ** 0.5,
        1e-9,
        "none: an exact formula",
        lambda _: advice.gains(activations.leaky_relu(0.01)).forward,
        constant=True,
    ),
    Number(
        "gain of tanh",
        "gains",
        TORCH,
        "calculate_gain",
        5 / 3,
        0.0,
        "none",
        lambda _: advice.gains("tanh").forward,
        constant=True,
        off="a rule of thumb: 1.59 keeps activations, 1.47 gradients",
    ),
    Number(
        "gain of sigmoid",
        "gains",
        TORCH,
        "calculate_gain",
        1.0,
        0.0,
        "none",
        lambda _: _gains(jax.nn.sigmoid).forward,
        constant=True,
        off="a convention: 1.85 keeps activations, 4.72 gradients",
    ),
    Number(
        "root mean square of SiLU",
        "gains",
        "NVlabs/edm2, training/networks_edm2.py",
        "mp_silu, equation 81",
        0.596,
        5e-4,
        DIGITS,
        lambda _: 1 / _gains(jax.nn.silu).forward,
        constant=True,
    ),
    Number(
        "sd of GELU",
        "gains",
        UNIT,
        "gelu, output_scale",
        0.588,
        5e-4,
        f"{DIGITS}; found empirically",
        lambda _: _variance(_exact_gelu) ** 0.5,
        constant=True,
    ),
    Number(
        "root mean square of GELU's slope",
        "gains",
        UNIT,
        "gelu, grad_input_scale",
        0.675,
        5e-4,
        f"{DIGITS}; found empirically",
        lambda _: 1 / advice.gains("gelu").backward,
        constant=True,
    ),
    Number(
        "variance of ReLU",
        "gains",
        STABLE,
        "simulations/relu.py, (π − 1)/2π",
        (math.pi - 1) / (2 * math.pi),
        1e-9,
        "none: an exact formula",
        lambda _: _variance(jax.nn.relu),
        constant=True,
    ),
    Number(
        "variance of GELU, input of variance 10",
        "gains",
        STABLE,
        "simulations/gelu.py, pred_x_out_var",
        3.500711456437821,
        1e-9,
        "none: an exact formula",
        lambda _: _variance(_exact_gelu, 10**0.5),
        constant=True,
    ),
    Number(
        "E φ'² of GELU, input of variance 10",
        "gains",
        STABLE,
        "simulations/gelu.py, pred_g_out_var",
        0.5112957698798588,
        1e-9,
        "none: an exact formula",
        lambda _: _slope_square(_exact_gelu, 10**0.5),
        constant=True,
    ),
)

NUMBERS = (*LAW, *RESIDUAL, *SCALES, *ANGLE, *SPECTRA, *CONSTANTS, *GAINS)
