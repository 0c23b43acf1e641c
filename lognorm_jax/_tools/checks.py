"""Refuse bad input before any compute, in words: what was given, what is allowed, what
to do.
"""

import numbers
import operator
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def require(ok: bool, name: str, value: Any, allowed: str, instead: str = "") -> None:
    """Raise a ValueError that names the argument, its value, the allowed set and the
    way out.
    """
    if not ok:
        text = repr(value)
        shown = text if len(text) <= 200 else text[:200] + "…"
        raise ValueError(
            f"{name} = {shown}: must be {allowed}." + (f" {instead}" if instead else "")
        )


def instance(name: str, value: Any, kind: type) -> None:
    """Require an instance of a class of this library."""
    article = "an" if kind.__name__[0] in "AEIO" else "a"
    require(isinstance(value, kind), name, value, f"{article} {kind.__name__}")


def function(name: str, value: Any, allowed: str = "a function") -> None:
    """Require something that can be called."""
    require(callable(value), name, value, allowed)


def text(name: str, value: Any) -> None:
    """Require a string."""
    require(isinstance(value, str), name, value, "a string")


def flag(name: str, value: Any) -> None:
    """Require True or False."""
    require(isinstance(value, bool | np.bool_), name, value, "True or False")


def integer(name: str, value: Any, minimum: int) -> int:
    """Return ``value`` as an int ≥ ``minimum``; floats and booleans are refused, not
    rounded.
    """
    allowed = f"an integer ≥ {minimum}, below 2³¹"
    require(not isinstance(value, bool | np.bool_), name, value, allowed)
    try:
        value = operator.index(value)
    except TypeError:
        require(False, name, value, allowed)
    require(minimum <= value < 1 << 31, name, value, allowed)
    return value


def real(name: str, value: Any, allowed: str, instead: str = "") -> Fraction | float:
    """Return a finite real number: integers and fractions as Fraction, anything else as
    float.
    """
    require(isinstance(value, numbers.Real), name, value, allowed, instead)
    require(not isinstance(value, bool), name, value, allowed, instead)
    require(abs(value) < 1e300, name, value, allowed, instead)  # also False for NaN
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
    ends = interval[1:-1].split(",")
    low, high = map(float, ends)
    allowed = f"a number in {interval.replace('inf', '∞')}"
    found = float(real(name, value, allowed, instead))
    above = found > low or (found == low and interval[0] == "[")
    below = found < high or (found == high and interval[-1] == "]")
    require(above and below, name, value, allowed, instead)
    return found


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


def scale(name: str, value: Any, low: float, high: float) -> Any:
    """Return a number in [low, high] as a float; or one that JAX traces as it is,
    unchecked.

    A traced one is a scalar array of JAX's default type, which no Python ``if`` may
    look at: ``traced`` tells.
    """
    allowed = f"a number in [{low:g}, {high:g}]"
    if isinstance(value, jax.Array):
        numeric = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(
            value.dtype, jnp.integer
        )
        require(value.shape == () and numeric, name, value, f"{allowed}, a scalar")
        try:
            value = float(value)
        except jax.errors.ConcretizationTypeError:
            return value.astype(jnp.result_type(float))
    value = float(real(name, value, allowed))
    require(low <= value <= high, name, value, allowed)
    return value


def probability(name: str, value: Any, instead: str = "") -> Fraction | float:
    """Return a number in (0, 1], not below 1e-30, so that its powers do not
    underflow.
    """
    allowed = "a number in (0, 1], ≥ 1e-30"
    value = real(name, value, allowed, instead)
    require(1e-30 <= value <= 1, name, value, allowed, instead)
    return value


def known(value: Any) -> np.ndarray | None:
    """Return the values of an array, or None under a JAX transformation: there they are
    unknown.
    """
    try:
        return np.asarray(value)
    except jax.errors.TracerArrayConversionError:
        return None


def traced(value: Any) -> bool:
    """Return whether a value is not known yet: under jit, grad or vmap."""
    return known(value) is None


def require_known(name: str, value: Any) -> None:
    """Raise ``ValueError`` for a value that is traced: laws are computed on the host,
    in NumPy.
    """
    instead = "Laws are computed on the host, in float64: ask for them outside jit, grad and vmap; "
    instead += "for a derivative take that of a mean over samples of a path, or finite differences."
    require(not traced(value), name, value, "known, not traced by JAX", instead)


def array(name: str, value: Any, allowed: str = "an array of real numbers") -> Any:
    """Return what has a real type as it is, and anything else as an array of real
    numbers.
    """
    if not hasattr(value, "dtype"):
        try:
            value = np.asarray(value)
        except ValueError:
            require(False, name, value, allowed)
    if value.dtype == object and all(
        isinstance(x, numbers.Real) for x in np.ravel(value)
    ):
        # fractions, or integers that no type of an array holds
        require(all(abs(x) < 1e300 for x in np.ravel(value)), name, value, allowed)
        value = np.asarray(value, dtype=np.float64)
    real_type = any(
        jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer, bool)
    )
    require(real_type, f"{name}.dtype", value.dtype, allowed)
    return value


def on_host(name: str, value: Any) -> np.ndarray:
    """Return real numbers of any shape, NaN and ±inf among them, as float64."""
    values = known(array(name, value))
    allowed = "numbers that are known: laws are functions of the host"
    instead = "Call it outside of jit, or with jax.pure_callback."
    require(values is not None, name, value, allowed, instead)
    return values.astype(np.float64)


def vector(
    name: str,
    value: Any,
    shape: tuple[int, ...] | None,
    *,
    zero: bool = False,
    dtype: Any = np.float64,
) -> Any:
    """Return ``value`` of the given shape, if any: finite, also in a type that it will
    be computed with, and not all zero unless ``zero``.

    What is not an array becomes one. Under a JAX transformation the values are not
    known; then only the shape is checked.
    """
    allowed = "an array" + (f" of shape {shape}" if shape is not None else "")
    allowed += " of finite real numbers" + ("" if zero else ", not all zero")
    value = array(name, value, allowed)
    if shape is not None:
        require(np.shape(value) == shape, f"{name}.shape", np.shape(value), allowed)
    values = known(value)
    if values is None:
        return value
    wide = values.astype(np.float64)
    finite = np.abs(wide) <= float(jnp.finfo(dtype).max)
    require(
        bool(np.all(finite)),
        name,
        value,
        f"{allowed}, finite in {jnp.dtype(dtype).name}",
    )
    require(zero or bool(np.any(wide)), name, value, allowed)
    return value


def float_dtype(value: Any) -> Any:
    """Return the dtype of a floating array, and JAX's default one for anything else."""
    floating = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)
    return jnp.asarray(value).dtype if floating else jnp.result_type(float)


def floating(name: str, dtype: Any) -> Any:
    """Return a floating dtype that JAX can compute in as it is set up."""
    allowed = "a floating type, and float64 only with jax_enable_x64"
    try:
        dtype = jnp.dtype(dtype)
    except TypeError:
        require(False, name, dtype, allowed)
    known = jnp.issubdtype(dtype, jnp.floating)
    require(
        known and (dtype != jnp.float64 or jax.config.jax_enable_x64),
        name,
        dtype,
        allowed,
    )
    return dtype


def typed_key(key: Any) -> jax.Array:
    """Return ``key`` if it is one typed threefry key, as made by
    ``jax.random.key(seed)``.
    """
    allowed = "one typed key"
    instead = (
        "Make it with jax.random.key(seed); to run a batch of keys, vmap over them."
    )
    typed = isinstance(key, jax.Array) and jax.dtypes.issubdtype(
        key.dtype, jax.dtypes.prng_key
    )
    require(typed, "key", key, allowed, instead)
    require(key.shape == (), "key.shape", key.shape, "(), " + allowed, instead)
    require(
        str(jax.random.key_impl(key)) == "threefry2x32",
        "jax.random.key_impl(key)",
        jax.random.key_impl(key),
        "'threefry2x32', whose draws do not depend on batch or device",
        "Make it with jax.random.key(seed, impl='threefry2x32').",
    )
    return key
