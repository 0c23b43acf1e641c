"""Specs: what a run is, as a dictionary that JSON can hold, sealed by its digest in a
file.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from lognorm_jax._tools import checks
from lognorm_jax.sampling import _files, _fingerprints


def canonical(spec: Mapping[str, object]) -> str:
    """Return the spec as text, the same for equal ones.

    Raises:
        ValueError: for a spec that JSON cannot hold.
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
        raise


def _string_keys(value: object) -> None:
    """Raise ``TypeError`` for a dictionary, at any depth, with other keys."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not a string")
            _string_keys(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            _string_keys(entry)


def digest(spec: Mapping[str, object]) -> str:
    """Return a short text that no other spec has."""
    return hashlib.sha256(canonical(spec).encode()).hexdigest()[:32]


def claim(path: Path, spec: Mapping[str, object]) -> None:
    """Write a spec with its digest, or require that it is the one already there.

    Raises:
        ValueError: for a file that is not whole, or of another spec, naming what
            differs.
    """
    spec = json.loads(canonical(spec))
    if not path.exists():
        record = {"digest": digest(spec), "spec": spec}
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        try:
            _files.write(path, text.encode())
            return
        except FileNotFoundError:  # another process of the run was first, and tidied up
            if not path.exists():
                raise

    # there already: is it the same?
    known = _read(path)
    if known is None:
        differences = ["all"]
        allowed = f"one whose {path.name} is whole, and can be read"
    else:
        differences = _differences(known, spec)
        differing = "; ".join(differences)
        allowed = f"that of the same run, but {path.name} differs in {differing}"
    way_out = "Take another directory, or remove this one to start afresh."
    checks.require(not differences, "directory", str(path.parent), allowed, way_out)


def _read(path: Path) -> dict[str, object] | None:
    """Return the spec in a file; None if it is not there, whole."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        spec = record["spec"]
        return spec if record["digest"] == digest(spec) else None
    except (ValueError, TypeError, KeyError, OSError):
        return None


def _differences(known: Mapping[str, object], spec: Mapping[str, object]) -> list[str]:
    """Return the entries in which two specs differ, each as it was and is."""
    differences = []
    for name in sorted({*known, *spec}):
        before = json.dumps(known[name]) if name in known else "none"
        now = json.dumps(spec[name]) if name in spec else "none"
        if before != now:
            words = _fingerprints.difference(known.get(name), spec.get(name))
            differences.append(f"{name}: {words or f'{before} there, {now} now'}")
    return differences
