"""Differences of log-gamma functions, to absolute accuracy where the two are huge."""

import numpy as np
from scipy import special

_LARGE = 30.0  # from here on Stirling's series is exact to rounding
# of Stirling's series: B_2k/(2k (2k − 1))
_SERIES = 1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360


def log1p(z: np.ndarray) -> np.ndarray:
    """Return ln(1 + z), to full precision for small complex z too."""
    if not np.iscomplexobj(z):
        return np.log1p(z)
    x, y = z.real, z.imag
    near = np.abs(z) < 0.5
    small = 0.5 * np.log1p(np.where(near, x * (2 + x) + y * y, 0))
    large = np.log(np.where(near, 1, np.maximum(np.abs(1 + z), 1e-300)))
    return np.where(near, small, large) + 1j * np.arctan2(y, 1 + x)


def log_ratio(a: np.ndarray, s: np.ndarray, unit: float = 1.0) -> np.ndarray:
    """Return ln Γ(a + s) − ln Γ(a) − s ln(unit), of the shape of a + s.

    Args:
        a: > 0.
        s: real or complex, Re(a + s) > 0.
        unit: > 0; of the size of a, it keeps the result small.
    """
    a, s = np.broadcast_arrays(np.asarray(a, np.float64), s)
    large = (a >= _LARGE) & (a + s.real >= _LARGE)
    found = np.empty(a.shape, np.result_type(s, np.float64))
    found[large] = _stirling(a[large], s[large], unit)
    a, s = a[~large], s[~large]
    log_gamma = special.loggamma if np.iscomplexobj(s) else special.gammaln
    found[~large] = log_gamma(a + s) - special.gammaln(a) - s * np.log(unit)
    return found


def _stirling(a: np.ndarray, s: np.ndarray, unit: float) -> np.ndarray:
    """Return it by Stirling's series, in which all that is large cancels first."""
    # of (a + s − ½) ln(a + s) − (a − ½) ln a − s
    steep = (a + s - 0.5) * log1p(s / a) - s
    size = s * np.log1p((a - unit) / unit)
    return steep + size + (_correction(a + s) - _correction(a))


def _correction(z: np.ndarray) -> np.ndarray:
    square = 1 / (z * z)
    total = np.zeros_like(z)
    for coefficient in reversed(_SERIES):
        total = total * square + coefficient
    return total / z


def polygamma(order: int, a: np.ndarray, unit: float = 1.0) -> np.ndarray:
    """Return ψ^(order)(a), for order 0 less ln(unit), to absolute accuracy.

    Args:
        order: ≥ 0.
        a: > 0.
        unit: > 0; of the size of a, it keeps the result small.
    """
    if order:
        return special.polygamma(order, a)
    large = a >= _LARGE
    square = 1 / np.where(large, a, _LARGE) ** 2
    # of ψ(a) − ln a: −1/(2a) − Σ B_2k/(2k a^2k)
    series = np.zeros_like(square)
    for k, coefficient in reversed([*enumerate(_SERIES, 1)]):
        series = series * square + (2 * k - 1) * coefficient
    far = np.log1p((a - unit) / unit) - 0.5 / a - series * square
    return np.where(large, far, special.digamma(a) - np.log(unit))
