"""Assertions for test suites: an initialisation that is what it is declared to be, and
gradients that neither vanish nor explode.

Both raise ``AssertionError`` with the whole report. A recipe for pytest::

    from lognorm_jax import declarations, testing

    def test_initialisation():
        declared = {"*.bias": "constant:0", "*.kernel": "fan_in:1:truncated_normal"}
        testing.assert_initialised(lambda key: Model(nnx.Rngs(key)), declared)

    def test_gradients():
        testing.assert_stable(lambda key: Model(nnx.Rngs(key)), inputs, blocks=[…])
"""

from collections.abc import Callable, Mapping
from typing import Any

from lognorm_jax.auditing import _audit, audits

__all__ = ["assert_initialised", "assert_stable"]


def assert_stable(
    model: Callable[..., Any], inputs: Any, *, torch: bool = False, **options: Any
) -> _audit.Audit:
    """Raise ``AssertionError`` where norms vanish or explode, else return the audit.

    Of tangents and gradients, unless ``kinds`` are given. A verdict that is only
    borderline passes: more samples decide it.

    Args:
        model: key -> model, as for ``audits.audit``; or () -> module of PyTorch.
        inputs: likewise, but not None.
        torch: whether it is a model of PyTorch.
        **options: of ``audits.audit`` or ``audits.audit_torch``.

    Returns:
        The ``audits.Audit``, where it is stable.

    Raises:
        AssertionError: with the report, where it is not, or nothing was followed.
        ValueError: without inputs, and as for ``audits.audit`` or
            ``audits.audit_torch``.
    """
    if inputs is None:
        raise ValueError("inputs = None: must be given; without, nothing is followed.")
    make = audits.audit_torch if torch else audits.audit
    found = make(model, inputs, **{"kinds": ("jvp", "vjp"), **options})
    if not found.reports or not found.stable:
        raise AssertionError(f"not stable\n{found}")
    return found


def assert_initialised(
    model: Callable[..., Any],
    declaration: str | Mapping[str, Any] | None = None,
    *,
    torch: bool = False,
    **options: Any,
) -> _audit.Audit:
    """Raise ``AssertionError`` for any finding about parameters, else return the audit.

    At a level of 1e-6 for all of them: it does not fail by chance.

    Args:
        model: as for ``assert_stable``.
        declaration: patterns of names and their laws, or the name of one that is ready,
            as for ``audits.audit``.
        torch: whether it is a model of PyTorch.
        **options: of ``audits.audit`` or ``audits.audit_torch``.

    Returns:
        The ``audits.Audit``, which has no finding.

    Raises:
        AssertionError: with the findings.
        ValueError: as for ``audits.audit`` or ``audits.audit_torch``.

    Source:
        The level, and what a finding means: theory section 17; held against fresh
        initialisations in tests/test_audits.py.
    """
    make = audits.audit_torch if torch else audits.audit
    found = make(model, None, declaration=declaration, **options)
    if found.findings:
        raise AssertionError(f"not as declared\n{found}")
    return found
