"""Specs: what a run is, as a dictionary that JSON can hold, sealed by its digest in a
file.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lognorm_jax._tools import checks
from lognorm_jax.sampling import _files, _fingerprints


def canonical(spec: Mapping[str, Any]) -> str:
    """Return the spec as text, the same for equal ones; ``ValueError`` if JSON cannot
    hold it.
    """
    try:
        _string_keys(spec)
        text = json.dumps(
            dict(spec), sort_keys=True, allow_nan=False, ensure_ascii=False
        )
        text.encode()  # lone surrogates are no text
        return text
    except (TypeError, ValueError) as error:
        allowed = f"made of strings, finite numbers, lists and dictionaries ({error})"
        checks.require(False, "spec", spec, allowed)


def _string_keys(value: Any) -> None:
    """Raise ``TypeError`` for a dictionary, at any depth, with keys that JSON would
    change.
    """
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not a string")
            _string_keys(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            _string_keys(entry)


def digest(spec: Mapping[str, Any]) -> str:
    """Return a short text that no other spec has."""
    return hashlib.sha256(canonical(spec).encode()).hexdigest()[:32]


def claim(path: Path, spec: Mapping[str, Any]) -> None:
    """Write a spec with its digest, or require that it is the one already there."""
    spec = json.loads(canonical(spec))
    if not path.exists():
        record = {"digest": digest(spec), "spec": spec}
        try:
            _files.write(
                path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
            )
            return
        except FileNotFoundError:  # another process of the run was first, and tidied up
            if not path.exists():
                raise
    known = _read(path)
    way_out = "Take another directory, or remove this one to start afresh."
    folder = str(path.parent)
    whole = f"one whose {path.name} is whole, and can be read"
    checks.require(known is not None, "directory", folder, whole, way_out)
    differing = "; ".join(_differences(known, spec))
    same = f"that of the same run, but {path.name} differs in {differing}"
    checks.require(not differing, "directory", folder, same, way_out)


def _read(path: Path) -> dict[str, Any] | None:
    """Return the spec in a file; None if it is not there, whole."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        spec = record["spec"]
        return spec if record["digest"] == digest(spec) else None
    except (ValueError, TypeError, KeyError, OSError):
        return None


def _differences(known: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    """Return the entries in which two specs differ, each as it was and is."""
    found = []
    for name in sorted({*known, *spec}):
        before, now = (
            json.dumps(each[name]) if name in each else "none" for each in (known, spec)
        )
        if before != now:
            other = _fingerprints.difference(known.get(name), spec.get(name))
            found.append(f"{name}: {other or f'{before} there, {now} now'}")
    return found
