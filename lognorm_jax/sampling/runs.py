"""Resumable runs: a folder of checked files, one for a few blocks each, to go on from.

The folder holds ``spec.json``, what the caller says the run is; ``sampling.json``, what
the engine says; and ``blocks-NUMBER-SAMPLES-CHECKSUM.npz``, written whole or not at
all. Nothing in it is pickled. All files but the last are full, and the same in a longer
run.
"""

import dataclasses
import hashlib
import io
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.sampling import _files, _specs

_NAME = re.compile(r"blocks-(\d{8})-(\d+)-([0-9a-f]{32})\.npz")


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of one run of ``sampling.sample`` or ``sampling.stream``; see
    ``open_run``.
    """

    directory: Path
    blocks_per_file: int
    seal: str  # digest of what the run is; a part of every checksum
    block_size: int = 1
    # how many are asked for; None: as many as fill all files
    num_samples: int | None = None

    def bind(
        self,
        spec: Mapping[str, Any],
        block_size: int,
        num_samples: int,
        writes: bool = True,
    ) -> "Run":
        """Return the run sealed with ``spec``, the engine's own, as well, and of so
        many samples.

        The spec is written beside the caller's, unless another process does that, or
        refused if there is another one. The number of samples is no part of it.
        """
        if writes:
            _specs.claim(self.directory / "sampling.json", spec)
        seal = _specs.digest({"caller": self.seal, "engine": spec})
        return dataclasses.replace(
            self, seal=seal, block_size=block_size, num_samples=num_samples
        )

    def missing(self, count: int) -> list[int]:
        """Return which of the files 0 … count − 1 are not there, whole.

        What is damaged, of another run, or no file at all, is named in a
        ``UserWarning`` and passed over; it makes way when its blocks are written again.
        What a stopped process left unfinished is removed: let one process at a time
        write.
        """
        for path in self.directory.glob(".unfinished-*"):
            if not path.is_dir():
                path.unlink(missing_ok=True)
        there = {}
        for path in self._files():
            there.setdefault(_number(path), []).append(path)
        missing = []
        for number in range(count):
            content, problems = self._find(number, there.get(number, []))
            outcome = (
                "It is computed again" if content is None else "Another file is whole"
            )
            for problem in problems:
                warnings.warn(f"{problem}. {outcome}.", stacklevel=2)
            if content is None:
                missing.append(number)
        return missing

    def write(self, number: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays of one file, whole or not at all.

        Damaged and shorter files of that number are removed then; the whole one of a
        longer run is left. Raises ``OSError``, on a full disk say; the files already
        written are not touched.
        """
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        content = buffer.getvalue()
        samples = self._needed(number)
        checksum = self._checksum(number, samples, content)
        target = self.directory / f"blocks-{number:08d}-{samples}-{checksum}.npz"
        if target.is_dir():
            _files.make_way(target)
        _files.write(target, content)
        for path in self._files(number):
            if path != target and not self._longer(path, samples):
                _files.make_way(path)

    def fill(
        self, missing: Sequence[int], num_blocks: int, calls: Callable, writes: bool
    ) -> None:
        """Compute the missing files of a run of ``num_blocks``, and write those that
        are complete.

        calls: (first block, one past the last) -> iterator of {name: stacked blocks},
        in order.
        """
        for first, last in _stretches(missing):
            kept = {}
            number = first
            end = min(last * self.blocks_per_file, num_blocks)
            for blocks in calls(first * self.blocks_per_file, end):
                for name, values in blocks.items():
                    kept.setdefault(name, []).extend(values)
                while number < last:
                    room = min(
                        self.blocks_per_file, num_blocks - number * self.blocks_per_file
                    )
                    if any(len(values) < room for values in kept.values()):
                        break
                    if writes:
                        self.write(
                            number, {n: np.stack(v[:room]) for n, v in kept.items()}
                        )
                    kept = {n: v[room:] for n, v in kept.items()}
                    number += 1

    def read(self, number: int) -> dict[str, np.ndarray]:
        """Return the arrays of one file: of the blocks that the run has, though it was
        longer once.

        Raises ``OSError`` if it is not there, whole.
        """
        content, problems = self._find(number, self._files(number))
        if content is None and problems:
            again = "Start the run again: it is computed again."
            raise OSError(f"{'; '.join(problems)}. {again}")
        if content is None:
            raise OSError(
                f"{self.directory}: file {number} is missing. Several processes must share the "
                "folder; if it was removed, start the run again."
            )
        blocks = -(-self._needed(number) // self.block_size)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: values[:blocks] for name, values in arrays.items()}

    def _files(self, number: int | None = None) -> list[Path]:
        """Return the files of blocks, all or of one number, in order; no other
        files.
        """
        start = "blocks-" if number is None else f"blocks-{number:08d}-"
        found = self.directory.glob(f"{start}*.npz")
        return sorted(path for path in found if _NAME.fullmatch(path.name))

    def _needed(self, number: int) -> int:
        """Return how many samples the run has in one file."""
        full = self.blocks_per_file * self.block_size
        if self.num_samples is None:
            return full
        return min(full, self.num_samples - number * full)

    def _find(
        self, number: int, paths: Sequence[Path]
    ) -> tuple[bytes | None, list[str]]:
        """Return what the first whole file holds that has the samples, and what ails
        the others.

        The last block of a longer run has them only if it has no more: it may be summed
        up.
        """
        needed = self._needed(number)
        found = None
        problems = []
        for path in paths:
            samples = _samples(path)
            try:
                content = self._content(path)
            except OSError as error:
                problems.append(f"{path}: {error}")
                continue
            serves = samples > needed and needed % self.block_size == 0
            if found is None and (serves or samples == needed):
                found = content
        return found, problems

    def _content(self, path: Path) -> bytes:
        """Return what a file of blocks holds. Raises ``OSError`` if it is not whole."""
        if not path.is_file():  # a pipe, say, would be waited for
            raise OSError("not a file")
        content = path.read_bytes()
        if path.stem.split("-")[-1] != self._checksum(
            _number(path), _samples(path), content
        ):
            found = f"{len(content)} bytes that do not fit its name"
            raise OSError(f"damaged, or of another run: {found}")
        return content

    def _longer(self, path: Path, samples: int) -> bool:
        """Return whether a file is whole and has more samples."""
        try:
            self._content(path)
        except OSError:
            return False
        return _samples(path) > samples

    def _checksum(self, number: int, samples: int, content: bytes) -> str:
        """Return a checksum of a file that another run, or another number, does not
        share.
        """
        head = f"{self.seal} {number} {samples} ".encode()
        return hashlib.sha256(head + content).hexdigest()[:32]


def open_run(
    directory: Any, spec: Mapping[str, Any], *, blocks_per_file: int = 16
) -> Run:
    """Return the run in ``directory``, made if it is not there, for
    ``sampling.sample(run=…)``.

    spec: what the run is, a dictionary that JSON can hold: say the ensemble, by
    ``ensembles.describe``, the kind of path, and whatever else a result depends on; the
    engine adds the key, the size of a block, the fingerprint of what the path computes,
    the platform and the version of JAX. blocks_per_file: ≥ 1; so much is lost when a
    run is stopped.

    Starting it again with the same arguments goes on where it stopped, and gives bit
    for bit what an uninterrupted run gives, on any number of devices. With more samples
    it goes on after those it has; with fewer it gives the first of them, and the longer
    run stays.

    Raises ``ValueError`` for a folder that holds the run of another spec, naming what
    differs, and for a spec that JSON cannot hold; ``OSError`` where the folder cannot
    be written.

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
    # it also refuses a spec that JSON cannot hold, before any folder
    seal = _specs.digest(spec)
    directory.mkdir(parents=True, exist_ok=True)
    _specs.claim(directory / "spec.json", spec)
    return Run(directory, blocks_per_file, seal)


def _number(path: Path) -> int:
    return int(path.name.split("-")[1])


def _samples(path: Path) -> int:
    return int(path.name.split("-")[2])


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
