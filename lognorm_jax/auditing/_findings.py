"""What is wrong with an initialisation, in words, and why it may be.

Tests are at a level of 1e-6 for a whole audit (Bonferroni); and what is significant but
small is none: the sd has to be off by 2%, the mean by 5% of the sd, and the
distribution function by 0.03; a normal law that is cut off at two sd is at 0.02 of one
that is not, and not told from it.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from lognorm_jax.auditing import declarations
from lognorm_jax.auditing._parameters import SMALLEST, Measured
from lognorm_jax.auditing.declarations import Declared, Fans

LEVEL = 1e-6  # of a false finding in an audit
_SD = 0.02
_MEAN = 0.05
_SHAPE = 0.03
_DRAWN = ("normal", "uniform", "truncated normal")


class Finding(NamedTuple):
    """One thing that is wrong with one parameter, or with several alike.

    Attributes:
        parameters: their names.
        problem: what is wrong, in words.
        cause: the likely one, in words; "" where none is likely.
    """

    parameters: tuple[str, ...]
    problem: str
    cause: str

    def __str__(self) -> str:
        """Return it in a sentence or two."""
        text = f"{pattern(self.parameters)}: {self.problem}."
        return f"{text} Likely: {self.cause}." if self.cause else text

    def as_dict(self) -> dict:
        """Return what JSON can hold.

        Returns:
            The fields by name.
        """
        return self._asdict()


def found(
    parameters: Sequence[Measured], declaration: declarations.Declaration
) -> list[Finding]:
    """Return all findings, those alike together."""
    level = LEVEL / max(3 * len(parameters), 1)
    findings: list[tuple[str, str, str]] = []
    for one in parameters:
        declared = declarations.of_name(declaration, one.name, one.layer)
        problems = _sure(one, declared)
        if not problems and declared is not None:
            problems = _against(one, declared, level)
        findings += [(one.name, *each) for each in problems]
    findings += _copies(parameters)
    return _together(findings)


def _sure(one: Measured, declared: Declared | None) -> list[tuple[str, str]]:
    """Return what is wrong whatever was declared."""
    if not one.trained:
        return []
    if not one.finite:
        return [
            (
                "has entries that are not finite",
                "not initialised, or of no finite scale",
            )
        ]
    if one.constant:
        wanted = declared is not None and declared.kind == "constant"
        if _is_matrix(one) and np.any(one.low != 0) and not wanted:
            problem = f"all entries are {one.low[0]:g}"
            return [
                (problem, "a constant in place of random weights: units stay alike")
            ]
        return []
    if one.same and _random(one):
        cause = "not initialised from the seed that the model is given"
        return [("is the same for all seeds", cause)]
    if not one.same and one.repeated.all():
        cause = "one random key for all of them"
        return [("its slices along the first axis are equal", cause)]
    return []


def _is_matrix(one: Measured) -> bool:
    """Return whether a parameter is the matrix of a layer, by its name and shape.

    And not scales of more than one axis, tables or gates, which may be constant.
    """
    named = one.name.rpartition(".")[2] in ("weight", "kernel", "embedding")
    wide = sum(side > 1 for side in one.shape) >= 2
    return named and wide and "norm" not in f"{one.layer} {one.name}".lower()


def _random(one: Measured) -> bool:
    """Return whether entries look like numbers that were drawn, and not a table.

    Tables, such as sines of positions, or ln 1, ln 2, … of a state space, vary from
    entry to entry, or follow no law that weights are drawn from; those of few values,
    such as the identity, repeat them.
    """
    first, entries = one.first[0], one.entries[0]
    if len(first) < 4 * SMALLEST or len(np.unique(first)) < len(first) / 2:
        return False
    centred = first - first.mean()
    along = np.sum(centred[1:] * centred[:-1]) / np.sum(centred**2)
    z = np.sort((entries - entries.mean()) / entries.std())
    distances = [_distance(kind, z) or 0.0 for kind in _DRAWN]
    return bool(abs(along) < 0.5 and min(distances) < _SHAPE + 1.4 / math.sqrt(len(z)))


def _against(one: Measured, declared: Declared, level: float) -> list[tuple[str, str]]:
    """Return what is other than declared."""
    std = declared.std(one.fans)
    if std is None or one.used == 0:
        return []
    if declared.kind == "constant":
        return _against_constant(one, declared)
    if one.constant:
        problem = f"all entries are {one.low[0]:g}, declared {declared.told(one.fans)}"
        return [(problem, "not initialised, or by a constant")]
    problems = []
    mean, measured = one.pooled_mean, one.pooled_std
    # two-sided, a normal law for the mean and χ² for the variance
    spread = max(std, measured)
    bound = -scipy.special.ndtri(level / 2) * spread / math.sqrt(one.total)
    if abs(mean) > max(bound, _MEAN * spread):
        problems.append((f"mean {mean:.3g}, declared 0", _cause_of_mean(one, std)))
    kurtosis = declarations.KURTOSIS.get(declared.kind, 3.0)
    freedom = 2 * one.total / (kurtosis - 1)
    ratio = math.sqrt(measured**2 + mean**2) / std
    tails = scipy.stats.chi2(freedom)
    below = float(tails.cdf(freedom * ratio**2))
    if kurtosis != 3:
        # at 0 sums of other squares fall less fast than χ²
        normal = scipy.special.ndtr((ratio**2 - 1) * math.sqrt(freedom / 2))
        below = max(below, float(normal))
    tail = min(float(tails.sf(freedom * ratio**2)), below)
    if tail < level / 2 and abs(ratio - 1) > _SD and not problems:
        size = f"{ratio:.3g} × as large"
        problem = f"sd {measured:.4g}, declared {declared.told(one.fans)}: {size}"
        error = 3 / math.sqrt(2 * freedom)
        cause = _cause_of_std(one, declared, measured, std, max(_SD, error))
        return [(problem, cause)]
    if declared.kind == "orthogonal" and not problems:
        # rounding of any type is well below
        crooked = float(one.angle.max()) > 0.1
        return [("rows, or columns, are not orthogonal", "")] if crooked else []
    return problems or _against_shape(one, declared, level)


def _against_constant(one: Measured, declared: Declared) -> list[tuple[str, str]]:
    """Return how a parameter is not the constant that it was declared."""
    value = declared.scale
    off = max(np.max(np.abs(one.low - value)), np.max(np.abs(one.high - value)))
    if off <= 1e-6 * max(1.0, abs(value)):
        return []
    if one.constant:
        problem = f"all entries are {one.low[0]:g}, declared {value:g}"
        return [(problem, "")]
    problem = f"sd {one.pooled_std:.3g}, declared constant {value:g}"
    cause = ""
    if one.fans is not None and _near(
        one.pooled_std, (3 * one.fans.fan_in) ** -0.5, 0.1
    ):
        cause = "PyTorch's and Equinox's default for biases, U(±1/√fan-in)"
    return [(problem, cause)]


def _against_shape(
    one: Measured, declared: Declared, level: float
) -> list[tuple[str, str]]:
    """Return whether the shape of the law is another one, whatever its sd."""
    entries = one.entries.ravel()[: 10 * 2_000]
    z = np.sort((entries - one.pooled_mean) / one.pooled_std)
    distance = _distance(declared.kind, z)
    if distance is None or distance < _SHAPE or len(z) < 100:
        return []
    if scipy.stats.kstwobign.sf(distance * math.sqrt(len(z))) > level:
        return []
    distances = {kind: _distance(kind, z) or 0.0 for kind in _DRAWN}
    nearest = min(_DRAWN, key=distances.__getitem__)
    cause = f"it is {nearest}" if distances[nearest] < _SHAPE else ""
    problem = f"the law is not {declared.kind} (KS distance {distance:.2g})"
    return [(problem, cause)]


def _distance(kind: str, z: np.ndarray) -> float | None:
    """Return the KS distance of sorted numbers from a standardised law."""
    levels = declarations.cdf(kind, z)
    if levels is None:
        return None
    steps = np.arange(len(z) + 1) / len(z)
    return float(max(np.max(levels - steps[:-1]), np.max(steps[1:] - levels)))


def _near(value: float, other: float, tolerance: float) -> bool:
    """Return whether two sizes agree up to a relative tolerance."""
    return abs(value / other - 1) <= tolerance


def _cause_of_mean(one: Measured, std: float) -> str:
    """Return why a mean may not be 0."""
    if np.all(one.low >= 0):
        return "no entry is negative: numbers of [0, 1), or absolute values"
    return ""


def _cause_of_std(
    one: Measured, declared: Declared, measured: float, std: float, tolerance: float
) -> str:
    """Return the likely reasons for an sd, at most two."""
    causes = []
    for value, words in _candidates(one.fans, declared, std):
        if value > 0 and _near(measured, value, tolerance) and words not in causes:
            causes.append(words)
    return ", or ".join(causes[:2])


def _candidates(
    fans: Fans | None, declared: Declared, std: float
) -> Iterable[tuple[float, str]]:
    """Yield sd that mistakes give, the likelier first."""
    if declared.blocks is not None:
        L = declared.blocks
        root = math.sqrt(2 * L)
        yield std * root, f"residual projections are not scaled by 1/√(2L), L = {L}"
        yield std * math.sqrt(2), "residual projections are scaled by 1/√L, not 1/√(2L)"
        yield std / root, f"the residual scale 1/√(2L) is applied twice, L = {L}"
    if fans is not None:
        if declared.fan == "in":
            yield _of_fan(declared, fans.fan_out), "it is that of fan-out, not fan-in"
        if declared.fan == "out":
            yield _of_fan(declared, fans.fan_in), "it is that of fan-in, not fan-out"
        if declared.fan is not None:
            mean = (fans.fan_in + fans.fan_out) / 2
            yield _of_fan(declared, mean), "it is that of the average of the fans"
            if fans.kernel > 1:
                channels = _fan(declared, fans) / fans.kernel
                yield _of_fan(declared, channels), "fans leave out the kernel's size"
    yield std / 3**0.5, "√3 too small: an sd was taken for the bound of a uniform law"
    yield std * 3**0.5, "√3 too large: the bound of a uniform law was taken for its sd"
    yield std / 2**0.5, "√2 too small: the gain of ReLU is missing"
    yield std * 2**0.5, "√2 too large: a gain of ReLU that was not declared"
    yield std**2, "the variance was taken for the sd"
    yield std**0.5, "the sd was taken for the variance"
    yield std * declarations.CUT_OFF, "cut off at two sd, and not rescaled"
    yield std / declarations.CUT_OFF, "rescaled as if it were cut off"
    if fans is not None:
        default = (3 * fans.fan_in) ** -0.5
        yield default, "PyTorch's and Equinox's default, U(±1/√fan-in)"
        yield fans.fan_in**-0.5, "LeCun's, 1/√fan-in, Flax's default"
        yield (2 / fans.fan_in) ** 0.5, "He's, √(2/fan-in)"
        yield (2 / fans.fan_out) ** 0.5, "He's by fan-out, √(2/fan-out)"
        glorot = (2 / (fans.fan_in + fans.fan_out)) ** 0.5
        yield glorot, "Glorot's, √(2/(fan-in + fan-out))"
    yield 1.0, "standard normal numbers: the default of embeddings, or no scale at all"
    yield 0.02, "0.02, whatever the width"
    yield std / 2, "half of it"
    yield std * 2, "twice as large"


def _fan(declared: Declared, fans: Fans) -> float:
    """Return the fan that is declared."""
    std = declared.std(fans)
    assert std is not None
    return (declared.scale / std) ** 2


def _of_fan(declared: Declared, fan: float) -> float:
    """Return the sd of the declared scale at another fan."""
    return declared.scale / math.sqrt(fan)


def _copies(parameters: Sequence[Measured]) -> list[tuple[str, str, str]]:
    """Return which parameters are copies of one another, or multiples, and not tied."""
    groups: dict[tuple, list[Measured]] = {}
    for one in parameters:
        usable = one.trained and one.finite and not one.constant and not one.same
        # rows that are zero, such as that of a padding token, are alike in many
        if usable and one.used >= SMALLEST and np.all(one.first[:, :SMALLEST]):
            groups.setdefault(_fingerprint(one), []).append(one)
    copies = []
    for alike in groups.values():
        first, *others = alike
        for other in others:
            if not _along(first, other):
                continue
            equal = np.array_equal(first.entries, other.entries)
            what = "equal to" if equal else "a multiple of"
            cause = "one random key for both, or a copy of the layer"
            problem = f"is {what} {first.name} at initialisation, and not tied to it"
            copies.append((other.name, problem, cause))
    return copies


def _fingerprint(one: Measured) -> tuple:
    """Return what multiples of one parameter, and longer ones, have in common."""
    first = one.first[0][:SMALLEST]
    return tuple(np.round(first / first[np.argmax(np.abs(first))], 3) + 0.0)


def _along(one: Measured, other: Measured) -> bool:
    """Return whether the first entries are multiples of one another, in all draws."""
    length = min(one.first.shape[1], other.first.shape[1])
    a, b = one.first[:, :length], other.first[:, :length]
    products = np.sum(a * b, axis=1) ** 2
    return bool(np.all(products > 0.999999 * np.sum(a**2, 1) * np.sum(b**2, 1)))


def _together(findings: Sequence[tuple[str, str, str]]) -> list[Finding]:
    """Return findings, those of the same kind in one."""
    groups: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for name, problem, cause in findings:
        kind = pattern_of(name), _kind(problem, bool(cause)), cause
        groups.setdefault(kind, []).append((name, problem))
    return [
        Finding(tuple(name for name, _ in alike), alike[0][1], cause)
        for (_, _, cause), alike in groups.items()
    ]


def _kind(problem: str, explained: bool) -> str:
    """Return a problem without its numbers; but whether an sd is too large, or, where
    that has no cause, by how much, to 10%.
    """
    ratio = re.search(r"([\d.e+-]+) × as large", problem)
    size = ""
    if ratio:
        log_ratio = math.log(float(ratio[1]))
        size = str(log_ratio > 0) if explained else f"{log_ratio / 0.1:.0f}"
    return re.sub(r"[\d.e-]+", "*", problem) + size


def pattern(names: Sequence[str]) -> str:
    """Return the name, or the pattern that several have in common and their count."""
    if len(names) == 1:
        return names[0]
    return f"{pattern_of(names[0])} ({len(names)})"


def pattern_of(name: str) -> str:
    """Return a name with stars for the numbers of layers."""
    return re.sub(r"(?<![a-zA-Z_\d])\d+", "*", name)
