"""The law of one standardised weight: its exact even moments and its sampler.

Every law here is symmetric with mean 0 and variance 1; the scale of a layer belongs to
the ensemble. What the theory asks of a law is its moments E w^{2k}: the fourth, the
kurtosis μ4, enters the predictable variance, the others the moments of the norm.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from lognorm_jax._tools import checks, draws, random, records, undrawn

__all__ = [
    "Weights",
    "fixed_fan_in",
    "laplace",
    "n_of_m",
    "normal",
    "orthogonal",
    "rademacher",
    "sparse",
    "student_t",
    "uniform",
]

# (key, shape, dtype) -> iid draws
Sampler = Callable[[jax.Array, tuple[int, ...], DTypeLike], jax.Array]


class Rows(NamedTuple):
    """Rows of a matrix of which so many weights in each group are not zero.

    Attributes:
        kept: how many weights of a group are not zero.
        group: how many neighbouring weights a group has; None: the whole row.
        kurtosis: of the weights that are not zero.
    """

    kept: int
    group: int | None
    kurtosis: Fraction | float

    def fourth(self, n_in: int, quartic: Any, square: float = 1.0) -> Any:
        """Return E (w·x)⁴ of a row, weights of variance 1, for x of norm 1.

        Args:
            n_in: how many weights a row has.
            quartic: Σ x_j⁴, a number or an array of them.
            square: Σ over groups of (Σ x_j²)²; of one group 1.

        Returns:
            A number, or an array of the shape of ``quartic``.
        """
        size = n_in if self.group is None else self.group
        share = size / self.kept
        # of two weights of one group
        pairs = share * (self.kept - 1) / (size - 1) if size > 1 else 0.0
        apart = 3 * (1 - square) + 3 * pairs * (square - quartic)
        return apart + share * float(self.kurtosis) * quartic


@dataclasses.dataclass(frozen=True)
class Weights:
    """The law of one standardised weight: symmetric, E w = 0, E w² = 1.

    Two laws are equal if they are made by the same call, so a law may be a static
    argument of jit. Those of this module are pickled as that call, and come back as the
    same object; one's own, if its functions are those of a module.

    Attributes:
        name: shown in tables and legends.
        sample: (key, shape, dtype) -> iid draws.
        moment: k -> E w^{2k}, k an integer ≥ 0; ``ValueError`` where it is infinite.
        atoms: whether sums of weights can cancel exactly: P(w·x = 0) > 0 for some
            x ≠ 0.
        symmetric: whether −w has the law of w, as for every law of this module.
        gaussian: whether w is normal: its vectors have no preferred direction, which
            theory needs.
        orthogonal: whether a matrix is orthogonal, so that its entries are not
            independent.
        rows: how the zeros of a row depend on one another; None: not at all.
        made: the call that pickle repeats, of a constructor of this module.

    Raises:
        ValueError: if ``moment(1)`` is not 1, or a field is not of its kind.
    """

    name: str
    sample: Sampler
    moment: Callable[[int], Fraction | float]
    atoms: bool = False
    symmetric: bool = True
    gaussian: bool = False
    orthogonal: bool = False
    rows: Rows | None = None
    made: tuple | None = dataclasses.field(
        default=None, init=False, compare=False, repr=False
    )

    def __post_init__(self):
        checks.text("name", self.name)
        kind = "a function (key, shape, dtype) -> iid draws"
        checks.function("sample", self.sample, kind)
        checks.function("moment", self.moment, "a function k -> E w^{2k}")
        for flag in ("atoms", "symmetric", "gaussian", "orthogonal"):
            checks.flag(flag, getattr(self, flag))

        name = f"moment(1) of {self.name}"
        instead = "Divide the draws by their standard deviation."
        second = float(checks.real(name, self.moment(1), "1", instead))
        checks.require(abs(second - 1) < 1e-12, name, second, "1", instead)

    __reduce_ex__ = records.as_call

    @property
    def whole(self) -> bool:
        """Whether entries depend on one another: a matrix has to be drawn as a
        whole.
        """
        return self.orthogonal or self.rows is not None

    @property
    def kurtosis(self) -> Fraction | float:
        """μ4 = E w⁴, raw: 3 for the normal law."""
        return self.moment(2)


def _weights(call, *, moment, **fields) -> Weights:
    """Return the Weights that ``call``, a constructor and its arguments, makes.

    Its ``moment`` refuses anything but an integer k ≥ 0.
    """

    def checked(k):
        return moment(checks.integer("k", k, 0))

    return records.made_by(Weights(moment=checked, **fields), *call)


@functools.cache
def normal() -> Weights:
    """Return the standard normal law: E w^{2k} = (2k − 1)!!.

    Returns:
        The law, whose moments are Fractions of any order.

    >>> [int(normal().moment(k)) for k in (1, 2, 3)]
    [1, 3, 15]
    """
    return _weights(
        (normal,),
        name="normal",
        sample=random.normal,
        moment=lambda k: Fraction(math.prod(range(1, 2 * k, 2))),
        gaussian=True,
    )


@functools.cache
def orthogonal() -> Weights:
    """Return Haar orthogonal matrices, scaled so that an entry has variance 1.

    A matrix (n_out, n_in) is the first rows and columns of √n U, U uniform on the
    orthogonal matrices of n = max(n_out, n_in) dimensions. Its entries are not
    independent, so what theory says of independent ones is refused.

    Returns:
        The law. Its ``sample`` takes shapes (n_out, n_in), and O(n³) operations, where
        ``paths.gram`` draws no matrix; its ``moment`` is known for k ≤ 1, and refuses
        larger ones, which depend on the size of the matrix.
    """

    def sample(key, shape, dtype):
        checks.require(len(shape) == 2, "shape", shape, "(n_out, n_in)")
        one = jnp.ones((), jnp.result_type(float))
        matrix = undrawn.orthogonal(tuple(shape), one)
        eye = jnp.eye(shape[1], dtype=jnp.result_type(float))
        return undrawn.product(matrix, key, eye)[1].T.astype(dtype)

    def moment(k):
        allowed = "0 or 1: others depend on the size of the matrix"
        checks.require(k <= 1, "k", k, allowed)
        return Fraction(1)

    return _weights(
        (orthogonal,),
        name="orthogonal",
        sample=sample,
        moment=moment,
        orthogonal=True,
    )


@functools.cache
def rademacher() -> Weights:
    """Return the random sign: w = ±1 with equal odds, E w^{2k} = 1.

    A sign takes one random bit.

    Returns:
        The law, which has atoms; its moments are Fractions of any order.
    """

    def sample(key, shape, dtype):
        one = jnp.ones((), dtype)
        return draws.packed(key, shape, 1, lambda bit: jnp.where(bit == 1, one, -one))

    return _weights(
        (rademacher,),
        name="rademacher",
        sample=sample,
        moment=lambda k: Fraction(1),
        atoms=True,
    )


def _centred(halves: jax.Array) -> jax.Array:
    """Return numbers of 16 bits as equally spaced values of mean 0 and variance 1."""
    numbers = halves.astype(jnp.int32).astype(jnp.float32)
    return (numbers - 32767.5) * math.sqrt(12 / (2**32 - 1))


@functools.cache
def uniform() -> Weights:
    """Return the uniform law on [−√3, √3]: E w^{2k} = 3^k / (2k + 1).

    Matrices of at least 32 × 32 float32 weights are made of 16 random bits a weight,
    which halves their cost: of 65,536 equally spaced values, symmetric, of variance 1
    exactly and E w^{2k} right to k²·1e-9 relative. Smaller ones, where sums could
    cancel, have all bits of the type.

    Returns:
        The law, whose moments are Fractions of any order.
    """

    def sample(key, shape, dtype):
        if jnp.dtype(dtype) != jnp.float32 or len(shape) < 2 or min(shape) < 32:
            bound = math.sqrt(3)
            return random.uniform(key, shape, dtype, minval=-bound, maxval=bound)
        return draws.packed(key, shape, 16, _centred)

    return _weights(
        (uniform,),
        name="uniform",
        sample=sample,
        moment=lambda k: Fraction(3**k, 2 * k + 1),
    )


@functools.cache
def laplace() -> Weights:
    """Return the Laplace law of scale 1/√2: E w^{2k} = (2k)! / 2^k.

    Returns:
        The law, whose moments are Fractions of any order.
    """

    def sample(key, shape, dtype):
        scale = jnp.asarray(math.sqrt(0.5), dtype)
        return random.laplace(key, shape, dtype) * scale

    return _weights(
        (laplace,),
        name="laplace",
        sample=sample,
        moment=lambda k: Fraction(math.factorial(2 * k), 2**k),
    )


def student_t(dof: float) -> Weights:
    """Return Student's t law, scaled to variance 1.

    E w^{2k} = (ν − 2)^k Π_{i=1..k} (2i − 1)/(ν − 2i) for 2k < ν = dof.

    Args:
        dof: degrees of freedom ν, 4 < ν ≤ 1e6.

    Returns:
        The law; its moments are Fractions if dof is rational, and asking for one that
        is infinite raises ``ValueError``.

    Raises:
        ValueError: for other dof. Without a fourth moment no product of such matrices
            has a predictable variance.

    Source:
        of the sampler, Bailey, "Polar generation of random variates with the
        t-distribution", Math. Comp. 62 (1994).

    >>> float(student_t(6).kurtosis)
    6.0
    """
    allowed = "a number > 4, so that the fourth moment is finite, and ≤ 1e6"
    instead = "For heavy tails with all moments take weights.sparse or weights.laplace."
    checked = checks.real("dof", dof, allowed, instead)
    checks.require(4 < checked <= 1e6, "dof", dof, allowed, instead)
    return _student_t(checked)


@functools.lru_cache(maxsize=None, typed=True)
def _student_t(dof) -> Weights:
    def moment(k):
        allowed = f"< dof/2 = {dof}/2: higher moments are infinite"
        checks.require(2 * k < dof, "k", k, allowed)
        factors = ((2 * i - 1) * (dof - 2) / (dof - 2 * i) for i in range(1, k + 1))
        return math.prod(factors, start=Fraction(1))

    return _weights(
        (student_t, dof),
        name=f"student_t({dof})",
        sample=functools.partial(_polar_t, dof),
        moment=moment,
    )


def _polar_t(dof, key, shape, dtype):
    """Draw w ∝ √(U^{−2/ν} − 1)·cos 2πV, of variance 1."""
    key_radius, key_fine, key_angle = random.split(key, 3)
    wide = jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32

    # The tail of w is the smallest U, so U gets the bits of two draws: with the 23 of
    # one float32 the fourth moment of dof = 5 would be 2% too small.
    grain = float(jnp.finfo(wide).eps)
    u = random.uniform(key_radius, shape, wide)
    u = u + grain * random.uniform(key_fine, shape, wide, minval=grain)

    tail = jnp.expm1(jnp.log(jnp.minimum(u, 1)) * (-2 / float(dof)))
    radius = jnp.sqrt(float(dof - 2) * tail)
    angle = 2 * math.pi * random.uniform(key_angle, shape, wide)
    return (radius * jnp.cos(angle)).astype(dtype)


def sparse(density: float, base: Weights | None = None) -> Weights:
    """Return a law whose draws are kept with some probability, else zero.

    Scaled to variance 1: w = b·w_base/√density, so E w^{2k} = density^{1−k} E
    w_base^{2k}.

    Args:
        density: the probability, in (0, 1], ≥ 1e-30.
        base: the law, of independent entries; default normal.

    Returns:
        The law; its moments are Fractions if density and those of the base are
        rational. It has atoms below density 1.

    Raises:
        ValueError: for other densities, and for a base that is no law of independent
            entries.

    >>> int(sparse(0.5).kurtosis)
    6
    """
    instead = "For no sparsity take the base law itself."
    checked = checks.probability("density", density, instead)
    return _sparse(checked, _independent(base))


def _independent(base: object) -> Weights:
    """Return a law of independent entries, normal for None."""
    if base is None:
        return normal()
    checks.instance("base", base, Weights)
    assert isinstance(base, Weights)
    allowed = "a law of independent entries"
    checks.require(not base.whole, "base", base.name, allowed)
    return base


@functools.lru_cache(maxsize=None, typed=True)
def _sparse(density, base) -> Weights:
    def sample(key, shape, dtype):
        key_keep, key_value = random.split(key)
        # where the grain of one float32 would show
        mode = "low" if density > 1e-3 else "high"
        keep = random.bernoulli(key_keep, float(density), shape, mode=mode)
        scale = jnp.asarray(float(density) ** -0.5, dtype)
        value = base.sample(key_value, shape, dtype) * scale
        return jnp.where(keep, value, jnp.zeros((), dtype))

    def moment(k):
        return density ** (1 - k) * base.moment(k) if k else Fraction(1)

    return _weights(
        (sparse, density, base),
        name=f"sparse({density}, {base.name})",
        sample=sample,
        moment=moment,
        atoms=base.atoms or density < 1,
        symmetric=base.symmetric,
    )


def fixed_fan_in(kept: int, base: Weights | None = None) -> Weights:
    """Return matrices of which each row has so many weights that are not zero.

    At uniform places of the row, and scaled to variance 1. Rows are independent, but
    not the zeros of one: so what theory says of independent entries is refused, all but
    ``ensembles.log_variance`` and, exactly, ``predictable_variance``.

    Args:
        kept: how many, an integer ≥ 1, at most the input width of any layer.
        base: the law of those, of independent entries; default normal.

    Returns:
        The law, which has atoms. Its ``sample`` takes shapes (n_out, n_in); its
        ``moment`` is known for k ≤ 1, and refuses larger ones.

    Raises:
        ValueError: for other numbers, and for a base that is no law of independent
            entries; ``ensembles.Ensemble``, for widths below kept.

    Source:
        Derived in theory section 13; held against simulation in tests/test_weights.py.
    """
    kept = checks.integer("kept", kept, 1)
    return _structured(fixed_fan_in, (kept,), kept, None, _independent(base))


def n_of_m(kept: int, group: int, base: Weights | None = None) -> Weights:
    """Return matrices of which in each group of neighbours of a row so many weights are
    not zero: N:M sparsity, such as 2 of 4.

    As ``fixed_fan_in``, which is the case of one group.

    Args:
        kept: N, an integer in 1…M.
        group: M, an integer ≥ 1, a divisor of the input width of any layer.
        base: the law of the weights that are not zero, of independent entries; default
            normal.

    Returns:
        The law, as that of ``fixed_fan_in``.

    Raises:
        ValueError: for other numbers, and for a base that is no law of independent
            entries; ``ensembles.Ensemble``, for input widths that are no multiple of
            group.
    """
    group = checks.integer("group", group, 1)
    kept = checks.integer("kept", kept, 1)
    checks.require(kept <= group, "kept", kept, f"an integer in 1…{group}, the group")
    return _structured(n_of_m, (kept, group), kept, group, _independent(base))


@functools.cache
def _structured(make, numbers, kept, group, base) -> Weights:
    def sample(key, shape, dtype):
        checks.require(len(shape) == 2, "shape", shape, "(n_out, n_in)")
        n_out, n_in = shape
        size = n_in if group is None else group
        allowed = f"(n_out, n_in) with n_in ≥ {kept}"
        if group is not None:
            allowed = f"(n_out, n_in) with n_in a multiple of {group}"
        fits = size >= kept and n_in % size == 0
        checks.require(fits, "shape", shape, allowed)
        key_place, key_value = random.split(key)
        # a uniform permutation of each group: the first places of it
        bits = random.bits(key_place, (n_out, n_in // size, size), jnp.uint32)
        keep = (jnp.argsort(bits, axis=-1) < kept).reshape(shape)
        scale = jnp.asarray((size / kept) ** 0.5, dtype)
        value = base.sample(key_value, shape, dtype) * scale
        return jnp.where(keep, value, jnp.zeros((), dtype))

    def moment(k):
        allowed = "0 or 1: entries of a row depend on one another"
        checks.require(k <= 1, "k", k, allowed)
        return Fraction(1)

    return _weights(
        (make, *numbers, base),
        name=f"{make.__name__}({', '.join(map(str, numbers))}, {base.name})",
        sample=sample,
        moment=moment,
        atoms=True,
        symmetric=base.symmetric,
        rows=Rows(kept, group, base.kurtosis),
    )
