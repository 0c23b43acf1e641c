"""Gains that keep activations or gradients, and what default initialisations do."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from lognorm_jax import activations
from lognorm_jax._tools import checks
from lognorm_jax.theory import exact
from lognorm_jax.tool import _gaussian

DEEPEST = 1_000  # layers of defaults that are followed


class Gains(NamedTuple):
    """Standard deviations of weights, times √fan-in, that keep norms.

    Attributes:
        activation: its name.
        forward: what keeps activations, 1/√(E φ²).
        backward: what keeps gradients and tangents, 1/√(E φ'²).
        forward_correction: e^{−E ln R/2} at the width, by which forward is multiplied
            so that the typical norm is kept and not only the mean square; 1 without a
            width.
        backward_correction: the same of backward.
    """

    activation: str
    forward: float
    backward: float
    forward_correction: float = 1.0
    backward_correction: float = 1.0


def gains(activation: str | activations.Activation, width: int | None = None) -> Gains:
    """Return the gains of an activation, forward and backward.

    Weights of standard deviation gain/√fan-in keep the mean square of activations that
    are standard normal, or of tangents and gradients. The two agree for ReLU-like
    activations only: for others no gain keeps both.

    Args:
        activation: an ``activations.Activation`` or its name.
        width: n ≥ 1, for the corrections of finite width: exact for ReLU-like ones, and
            of first order in 1/n for others.

    Returns:
        The ``Gains``, as floats.

    Raises:
        ValueError: for another activation or width, and for activations with E φ² or
            E φ'² of 0 or not finite.

    Source:
        Derived in theory section 15, by quadrature. The corrections have E ln R from
        theory section 4 for ReLU-like activations, and from theory section 16 for
        others. Held against closed forms and sampled layers in tests/test_advice.py.

    >>> [round(gain, 4) for gain in gains("tanh")[1:3]]
    [1.5925, 1.4674]
    >>> round(gains("relu", 100).backward_correction, 4)
    1.0128
    """
    phi = activations.named(activation)
    found = _gaussian.moments(phi)
    usable = all(math.isfinite(value) and value > 0 for value in found)
    allowed = "one whose E φ² and E φ'² of a standard normal number are finite and > 0"
    checks.require(usable, "activation", phi.name, allowed)
    forward, backward = found.square**-0.5, found.slope_square**-0.5
    if width is None:
        return Gains(phi.name, forward, backward)

    n = checks.integer("width", width, 1)
    if phi.mask is not None:
        mean = exact.increment_cumulants(n, phi.mask, 1)[0]
        correction = math.exp(-mean / 2)
        return Gains(phi.name, forward, backward, correction, correction)
    # E ln R is −Var R/2 to first order
    along = (found.fourth / found.square**2 - 1) / n
    across = (3 * found.slope_fourth / found.slope_square**2 - 1) / n
    corrections = math.exp(along / 4), math.exp(across / 4)
    return Gains(phi.name, forward, backward, *corrections)


class Default(NamedTuple):
    """What the default initialisation of a framework does to a layer.

    Attributes:
        framework: its name.
        layer: classes of its layers.
        law: of their weights, in words.
        variance: of a weight, times fan-in.
        activation: its name.
        log_ratio: ln E R of gradients, in the first layer.
        depth: number of layers after which gradients have changed by the factor;
            ``DEEPEST``: later, or never.
    """

    framework: str
    layer: str
    law: str
    variance: float
    activation: str
    log_ratio: float
    depth: int


# variance × fan-in, for layers of as many units as inputs
_DEFAULTS = (
    ("Flax", "Dense, nnx.Linear, Conv", "lecun_normal: truncated normal", 1.0),
    ("Equinox", "nn.Linear, Conv", "U(±1/√fan-in), biases too", 1 / 3),
    ("PyTorch", "nn.Linear, Conv2d", "U(±1/√fan-in), biases too", 1 / 3),
)


def defaults(
    activation: str | activations.Activation = "relu", *, factor: float = 10.0
) -> list[Default]:
    """Return what default initialisations do to gradients, a layer, and how deep that
    may go.

    In the mean of wide layers: ln(variance × fan-in × E φ'²), at an input of standard
    normal coordinates and at what layers make of it.

    Args:
        activation: an ``activations.Activation`` or its name.
        factor: > 1, by which norms may change: not squared.

    Returns:
        A ``Default`` for each framework.

    Raises:
        ValueError: for another factor, and for activations as of ``gains``.

    Source:
        Derived in theory section 15, by quadrature; held against the frameworks' own
        layers and a wide network in tests/test_advice.py.

    >>> [row.depth for row in defaults("relu")]
    [6, 2, 2]
    """
    limit = 2 * math.log(checks.number("factor", factor, "(1, inf)"))
    phi = activations.named(activation)
    gains(phi)
    rows = []
    for framework, layer, law_of, variance in _DEFAULTS:
        log_ratios = _log_ratios(phi, variance)
        first = next(log_ratios)
        total, deep = first, 0
        while abs(total) <= limit and deep < DEEPEST:
            total, deep = total + next(log_ratios), deep + 1
        row = Default(framework, layer, law_of, variance, phi.name, first, deep)
        rows.append(row)
    return rows


def _log_ratios(phi: activations.Activation, variance: float) -> Iterator[float]:
    """Yield ln E R of gradients, layer by layer, where layers are wide."""
    square = variance
    while True:
        found = _gaussian.moments(phi, square**0.5)
        yield math.log(variance * found.slope_square)
        square = variance * found.square
