"""Resumable runs: a folder of checked files, one for a few blocks each, to go on from.

The folder holds ``spec.json``, what the caller says the run is; ``sampling.json``, what the engine
says; and ``blocks-NUMBER-CHECKSUM.npz``, written whole or not at all. Nothing in it is pickled.
"""

import dataclasses
import hashlib
import io
import json
import os
import re
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lognorm_jax import checks

_NAME = re.compile(r"blocks-\d{8}-[0-9a-f]{32}\.npz")


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of one run of ``sampling.sample`` or ``sampling.stream``; see ``open_run``."""

    directory: Path
    blocks_per_file: int
    seal: str  # digest of what the run is; a part of every checksum

    def bind(self, spec: Mapping[str, Any], writes: bool = True) -> "Run":
        """Return the run sealed with ``spec``, the engine's own, as well.

        It is written beside the caller's, unless another process does that, or refused if there is
        another one.
        """
        if writes:
            _claim(self.directory / "sampling.json", spec)
        return dataclasses.replace(self, seal=_digest({"caller": self.seal, "engine": spec}))

    def missing(self, count: int) -> list[int]:
        """Return which of the files 0 … count − 1 are not there, whole.

        A file that is damaged, or of another run, is named in a ``UserWarning``; it is missing, and
        makes way when its blocks are written again. What a stopped process left unfinished is
        removed: let one process at a time write.
        """
        for path in self.directory.glob(".unfinished-*"):
            path.unlink(missing_ok=True)
        found = set()
        for path in self._files():
            problem = self._damage(path)
            if problem:
                warnings.warn(f"{path}: {problem}. It is computed again.", stacklevel=2)
            else:
                found.add(int(path.name.split("-")[1]))
        return [number for number in range(count) if number not in found]

    def write(self, number: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays of one file, whole or not at all.

        Raises ``OSError``, on a full disk say; the files already written are not touched.
        """
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        content = buffer.getvalue()
        name = f"blocks-{number:08d}-{self._checksum(number, content)}.npz"
        _write(self.directory / name, content)
        for path in self._files(number):
            if path.name != name:
                path.unlink()

    def fill(self, missing: Sequence[int], num_blocks: int, calls: Callable, writes: bool) -> None:
        """Compute the missing files of a run of ``num_blocks``, and write those that are complete.

        calls: (first block, one past the last) -> iterator of {name: stacked blocks}, in order.
        """
        for first, last in _stretches(missing):
            kept, number = {}, first
            end = min(last * self.blocks_per_file, num_blocks)
            for blocks in calls(first * self.blocks_per_file, end):
                for name, values in blocks.items():
                    kept.setdefault(name, []).extend(values)
                while number < last:
                    room = min(self.blocks_per_file, num_blocks - number * self.blocks_per_file)
                    if any(len(values) < room for values in kept.values()):
                        break
                    if writes:
                        self.write(number, {n: np.stack(v[:room]) for n, v in kept.items()})
                    kept, number = {n: v[room:] for n, v in kept.items()}, number + 1

    def read(self, number: int) -> dict[str, np.ndarray]:
        """Return the arrays of one file. Raises ``OSError`` if it is not there, whole."""
        for path in self._files(number):
            problem = self._damage(path)
            if problem:
                raise OSError(f"{path}: {problem}. Start the run again: it is computed again.")
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        raise OSError(
            f"{self.directory}: file {number} is missing. Several processes must share the folder; "
            "if it was removed, start the run again."
        )

    def _files(self, number: int | None = None) -> list[Path]:
        """Return the files of blocks, all or of one number, in order; no other files."""
        start = "blocks-" if number is None else f"blocks-{number:08d}-"
        found = self.directory.glob(f"{start}*.npz")
        return sorted(path for path in found if _NAME.fullmatch(path.name))

    def _checksum(self, number: int, content: bytes) -> str:
        """Return a checksum of a file that another run, or another number, does not share."""
        head = f"{self.seal} {number} ".encode()
        return hashlib.sha256(head + content).hexdigest()[:32]

    def _damage(self, path: Path) -> str:
        """Return what is wrong with a file of blocks, "" if nothing is."""
        content = path.read_bytes()
        _, number, checksum = path.stem.split("-")
        if self._checksum(int(number), content) != checksum:
            return f"damaged, or of another run: {len(content)} bytes that do not fit its name"
        return ""


def open_run(directory: Any, spec: Mapping[str, Any], *, blocks_per_file: int = 16) -> Run:
    """Return the run in ``directory``, made if it is not there, for ``sampling.sample(run=…)``.

    spec: what the run is, a dictionary that JSON can hold: say the ensemble, by
    ``ensembles.describe``, the kind of path, and whatever else a result depends on; the engine adds
    the key, the counts, the platform and the version of JAX. blocks_per_file: ≥ 1; so much is lost
    when a run is stopped. Starting it again with the same arguments goes on where it stopped, and
    gives bit for bit what an uninterrupted run gives, on any number of devices.

    Raises ``ValueError`` for a folder that holds the run of another spec, naming what differs, and
    for a spec that JSON cannot hold; ``OSError`` where the folder cannot be written.

    >>> import tempfile
    >>> run = open_run(tempfile.mkdtemp(), {"path": "dense", "widths": [4, 8, 8]})
    >>> run.write(1, {"increment": np.zeros((2, 3))})
    >>> run.missing(3), run.read(1)["increment"].shape
    ([0, 2], (2, 3))
    """
    usable = isinstance(directory, str | os.PathLike) and str(directory) != ""
    checks.require(usable, "directory", directory, "a path")
    blocks_per_file = checks.integer("blocks_per_file", blocks_per_file, 1)
    checks.require(isinstance(spec, Mapping), "spec", spec, "a dictionary")
    directory = Path(directory)
    text = _canonical(spec)
    directory.mkdir(parents=True, exist_ok=True)
    _claim(directory / "spec.json", json.loads(text))
    return Run(directory, blocks_per_file, _digest(json.loads(text)))


def _canonical(spec: Mapping[str, Any]) -> str:
    try:
        _string_keys(spec)
        text = json.dumps(dict(spec), sort_keys=True, allow_nan=False, ensure_ascii=False)
        text.encode()  # lone surrogates are no text
        return text
    except (TypeError, ValueError) as error:
        allowed = f"made of strings, finite numbers, lists and dictionaries ({error})"
        checks.require(False, "spec", spec, allowed)


def _string_keys(value: Any) -> None:
    """Raise ``TypeError`` for a dictionary, at any depth, with keys that JSON would change."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not a string")
            _string_keys(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            _string_keys(entry)


def _digest(spec: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(spec).encode()).hexdigest()[:32]


def _claim(path: Path, spec: Mapping[str, Any]) -> None:
    """Write a spec with its digest, or require that it is the one already there."""
    spec = json.loads(_canonical(spec))
    digest = _digest(spec)
    if not path.exists():
        record = {"digest": digest, "spec": spec}
        try:
            _write(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
            return
        except FileNotFoundError:  # another process of the run was first, and tidied up
            if not path.exists():
                raise
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known, there = record["spec"], record["digest"]
        whole = there == _digest(known)
    except (ValueError, TypeError, KeyError):
        whole = False
    way_out = "Take another directory, or remove this one to start afresh."
    checks.require(whole, "directory", str(path.parent), f"one whose {path.name} is whole", way_out)
    differing = []
    for name in sorted({*known, *spec}):
        before, now = (json.dumps(s[name]) if name in s else "none" for s in (known, spec))
        if before != now:
            differing.append(f"{name}: {before} there, {now} now")
    allowed = f"that of the same run, but {path.name} differs in {'; '.join(differing)}"
    checks.require(there == digest, "directory", str(path.parent), allowed, way_out)


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, whenever the power fails."""
    unfinished = path.with_name(f".unfinished-{uuid.uuid4().hex}")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"{error.strerror}: {path.name} could not be written, all files before it are kept. "
            "Mend that, then start the same run again: it goes on from there",
            str(path.parent),
        ) from error


def _stretches(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the stretches (first, one past the last) of increasing numbers.

    >>> _stretches([0, 1, 2, 5, 7, 8])
    [(0, 3), (5, 6), (7, 9)]
    """
    found = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found
