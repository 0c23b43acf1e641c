"""Refuse bad input at the door, in words: what was given, what is allowed, what to do.

Each check raises ``ValueError``, and returns what it was given in the type that the
library computes with.
"""

import difflib
import numbers
import operator
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, NoReturn, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

# larger numbers have squares and sums that float64 does not hold
_HUGE = 1e300


def require(
    ok: bool, name: str, value: object, allowed: str, instead: str = ""
) -> None:
    """Raise a ValueError unless a condition holds.

    Args:
        ok: the condition.
        name: the argument that is refused.
        value: what was given; long ones are cut.
        allowed: what the argument must be.
        instead: the way out, a sentence.
    """
    if not ok:
        refuse(name, value, allowed, instead)


def refuse(name: str, value: object, allowed: str, instead: str = "") -> NoReturn:
    """Raise the ValueError of ``require``."""
    shown = repr(value)
    if len(shown) > 200:
        shown = shown[:200] + "…"
    raise ValueError(f"{name} = {shown}: must be {allowed}. {instead}".rstrip())


# how each class of this library is made: the way out where one is missing
_MADE = {
    "Ensemble": "ensembles.Ensemble(widths, weights, masks), or that of a network, "
    "network.ensemble",
    "Mask": "a call such as masks.relu()",
    "Network": "a call such as networks.mlp(widths, 'relu')",
    "Weights": "a call such as weights.normal()",
}


def instance(name: str, value: object, kind: type) -> None:
    """Require an instance of a class of this library."""
    article = "an" if kind.__name__[0] in "AEIO" else "a"
    made = _MADE.get(kind.__name__)
    instead = f"Make it with {made}." if made else ""
    require(isinstance(value, kind), name, value, f"{article} {kind.__name__}", instead)


def function(name: str, value: object, allowed: str = "a function") -> None:
    """Require something that can be called."""
    require(callable(value), name, value, allowed)


def text(name: str, value: object) -> None:
    """Require a string."""
    require(isinstance(value, str), name, value, "a string")


def flag(name: str, value: object) -> None:
    """Require True or False."""
    require(isinstance(value, bool | np.bool_), name, value, "True or False")


def integer(name: str, value: Any, minimum: int) -> int:
    """Return an integer ≥ ``minimum`` as an int; floats and booleans are refused."""
    allowed = f"an integer ≥ {minimum}, below 2³¹"
    require(not isinstance(value, bool | np.bool_), name, value, allowed)
    try:
        whole = operator.index(value)
    except TypeError:
        refuse(name, value, allowed)
    require(minimum <= whole < 1 << 31, name, value, allowed)
    return whole


def real(name: str, value: Any, allowed: str, instead: str = "") -> Fraction | float:
    """Return a finite real number: a Fraction if it is rational, else a float."""
    usable = isinstance(value, numbers.Real) and not isinstance(value, bool)
    require(usable, name, value, allowed, instead)
    # also False for NaN
    require(abs(value) < _HUGE, name, value, allowed, instead)
    if isinstance(value, numbers.Rational):
        return Fraction(int(value.numerator), int(value.denominator))
    return float(value)


def number(name: str, value: object, interval: str, instead: str = "") -> float:
    """Return a real number in an interval as a float.

    Args:
        name: the argument, for the error.
        value: what was given.
        interval: such as "[0.5, 1)" or "(0, inf)"; infinite ends are never reached.
        instead: the way out, for the error.

    Raises:
        ValueError: for what is no finite real number, or outside.

    >>> number("confidence", 0.95, "[0.5, 1)")
    0.95
    """
    low, high = map(float, interval[1:-1].split(","))
    allowed = f"a number in {interval.replace('inf', '∞')}"
    checked = float(real(name, value, allowed, instead))
    above = checked > low or (checked == low and interval[0] == "[")
    below = checked < high or (checked == high and interval[-1] == "]")
    require(above and below, name, value, allowed, instead)
    return checked


def one_of(name: str, value: object, choices: Iterable[str], instead: str = "") -> str:
    """Return a string that is one of some choices.

    Raises:
        ValueError: for anything else, with the choices.

    >>> one_of("fan", "in", ("out", "in"))
    'in'
    """
    choices = tuple(choices)
    allowed = " or ".join(map(repr, choices))
    known = isinstance(value, str) and value in choices
    require(known, name, value, allowed, instead)
    return str(value)


def one_of_many(name: str, value: object, choices: Iterable[str]) -> str:
    """Return a string that is one of many choices, of which an error names the nearest.

    >>> one_of_many("fruit", "pear", ("apple", "pear"))
    'pear'
    """
    choices = tuple(choices)
    if isinstance(value, str) and value in choices:
        return value
    nearest = difflib.get_close_matches(str(value), choices, 3, 0.5)
    instead = f"Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    few = len(choices) <= 20
    allowed = ", ".join(choices) if few else f"the {len(choices)} that are known"
    refuse(name, value, f"one of {allowed}", instead)


def listed(name: str, value: object, allowed: str) -> None:
    """Require a sequence, not a string, or a vector of NumPy."""
    vector = isinstance(value, np.ndarray) and value.ndim == 1
    require(vector or is_sequence(value), name, value, allowed)


def scale(name: str, value: Any, low: float, high: float) -> Any:
    """Return a number in [low, high] as a float; one that JAX traces, unchecked.

    A traced one is a scalar array of JAX's default type, which no Python ``if`` may
    look at: ``traced`` tells.
    """
    interval = f"[{low:g}, {high:g}]"
    if isinstance(value, jax.Array):
        scalar = value.shape == () and _is_real(value.dtype)
        require(scalar, name, value, f"a number in {interval}, a scalar")
        if traced(value):
            return value.astype(jnp.result_type(float))
        value = float(value)
    return number(name, value, interval)


def probability(name: str, value: object, instead: str = "") -> Fraction | float:
    """Return a number in (0, 1], not below 1e-30: its powers must not underflow."""
    allowed = "a number in (0, 1], ≥ 1e-30"
    checked = real(name, value, allowed, instead)
    require(1e-30 <= checked <= 1, name, value, allowed, instead)
    return checked


def known(value: Any) -> np.ndarray | None:
    """Return the values of an array, or None where JAX traces it: there are none."""
    try:
        return np.asarray(value)
    except jax.errors.TracerArrayConversionError:
        return None


def traced(value: object) -> bool:
    """Return whether a value is not known yet: under jit, grad or vmap."""
    return known(value) is None


def traced_array(array: object) -> bool:
    """Return ``traced`` of an array of numbers or keys, of which nothing is read."""
    if not isinstance(array, jax.Array):
        return False
    try:
        array.devices()
    except jax.errors.ConcretizationTypeError:
        return True
    return False


def require_known(name: str, value: object) -> None:
    """Require a value that is not traced: laws are computed on the host, in NumPy."""
    instead = (
        "Laws are computed on the host, in float64: ask for them outside jit, grad "
        "and vmap; for a derivative take that of a mean over samples of a path, or "
        "finite differences."
    )
    require(not traced(value), name, value, "known, not traced by JAX", instead)


def array(name: str, value: Any, allowed: str = "an array of real numbers") -> Any:
    """Return what has a real type as it is, anything else as a NumPy array."""
    if not hasattr(value, "dtype"):
        try:
            value = np.asarray(value)
        except ValueError:
            refuse(name, value, allowed)
    if value.dtype == object:
        value = _from_objects(name, value, allowed)
    real_type = _is_real(value.dtype) or jnp.issubdtype(value.dtype, bool)
    require(real_type, f"{name}.dtype", value.dtype, allowed)
    return value


def _from_objects(name: str, value: np.ndarray, allowed: str) -> np.ndarray:
    """Return fractions, or integers that no type of an array holds, as float64."""
    entries = np.ravel(value)
    if not all(isinstance(x, numbers.Real) for x in entries):
        return value
    require(all(abs(x) < _HUGE for x in entries), name, value, allowed)
    return np.asarray(value, dtype=np.float64)


def on_host(name: str, value: object) -> np.ndarray:
    """Return real numbers of any shape, NaN and ±inf among them, as float64."""
    values = known(array(name, value))
    if values is None:
        allowed = "numbers that are known: laws are functions of the host"
        instead = "Call it outside of jit, or with jax.pure_callback."
        refuse(name, value, allowed, instead)
    return np.asarray(values, np.float64)


def vector(
    name: str,
    value: object,
    shape: tuple[int, ...] | None,
    *,
    zero: bool = False,
    dtype: DTypeLike = np.float64,
) -> Any:
    """Return finite real numbers of a given shape.

    What is not an array becomes one. Under a JAX transformation the values are not
    known; then only the shape is checked.

    Args:
        name: the argument, for the error.
        value: what was given.
        shape: the only one that is allowed, or None for any.
        zero: whether all of them may be zero.
        dtype: the type that they will be computed with; they must be finite in it.
    """
    allowed = "an array" if shape is None else f"an array of shape {shape}"
    allowed += " of finite real numbers" + ("" if zero else ", not all zero")
    given = array(name, value, allowed)
    if shape is not None:
        require(np.shape(given) == shape, f"{name}.shape", np.shape(given), allowed)

    values = known(given)
    if values is None:
        return given
    wide = values.astype(np.float64)
    finite = bool(np.all(np.abs(wide) <= float(jnp.finfo(dtype).max)))
    in_type = f"{allowed}, finite in {jnp.dtype(dtype).name}"
    require(finite, name, given, in_type)
    require(zero or bool(np.any(wide)), name, given, allowed)
    return given


def float_dtype(value: Any) -> Any:
    """Return the dtype of a floating array, JAX's default one for anything else."""
    floating = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)
    return jnp.asarray(value).dtype if floating else jnp.result_type(float)


def floating(name: str, dtype: Any) -> Any:
    """Return a floating dtype that JAX can compute in as it is set up."""
    allowed = "a floating type, and float64 only with jax_enable_x64"
    try:
        dtype = jnp.dtype(dtype)
    except TypeError:
        refuse(name, dtype, allowed)
    # the stubs of JAX do not know its own setting
    wide = jax.config.jax_enable_x64  # type: ignore[attr-defined]
    usable = jnp.issubdtype(dtype, jnp.floating) and (dtype != jnp.float64 or wide)
    require(usable, name, dtype, allowed)
    return dtype


def typed_key(key: object) -> jax.Array:
    """Return one typed threefry key, as made by ``jax.random.key(seed)``."""
    allowed = "one typed key"
    instead = (
        "Make it with jax.random.key(seed); to run a batch of keys, vmap over them."
    )
    if not _is_key(key):
        refuse("key", key, allowed, instead)
    require(key.shape == (), "key.shape", key.shape, f"(), {allowed}", instead)

    # of one implementation only
    kind = jax.random.key_impl(key)
    allowed = "'threefry2x32', whose draws do not depend on batch or device"
    instead = "Make it with jax.random.key(seed, impl='threefry2x32')."
    same = str(kind) == "threefry2x32"
    require(same, "jax.random.key_impl(key)", kind, allowed, instead)
    return key


def _is_key(value: object) -> TypeGuard[jax.Array]:
    """Return whether a value is an array of typed keys."""
    if not isinstance(value, jax.Array):
        return False
    return jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)


def is_sequence(value: object) -> TypeGuard[Sequence]:
    """Return whether a value is a sequence, not a string."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_real(dtype: Any) -> bool:
    """Return whether a dtype is one of floats or integers."""
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer))
