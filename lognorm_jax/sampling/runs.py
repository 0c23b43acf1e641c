"""Resumable runs: a folder of checked files, one for a few blocks each, to go on from.

The folder holds ``spec.json``, what the caller says the run is; ``sampling.json``, what
the engine says; and ``blocks-NUMBER-SAMPLES-CHECKSUM.npz``, written whole or not at
all. Nothing in it is pickled. All files but the last are full, and the same in a longer
run.
"""

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lognorm_jax._tools import checks
from lognorm_jax.sampling import _block_files, _files, _specs

__all__ = ["Run", "open_run"]


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of one run of ``sampling.sample`` or ``stream``; see ``open_run``.

    Attributes:
        directory: the folder.
        blocks_per_file: ≥ 1; so much is lost when a run is stopped.
        seal: digest of what the run is, a part of every checksum.
        block_size: samples of a block, ≥ 1.
        num_samples: how many are asked for; None: as many as fill all files.
    """

    directory: Path
    blocks_per_file: int
    seal: str
    block_size: int = 1
    num_samples: int | None = None

    def bind(
        self,
        spec: Mapping[str, object],
        block_size: int,
        num_samples: int,
        writes: bool = True,
    ) -> "Run":
        """Return the run sealed with what the engine says it is as well.

        Args:
            spec: the engine's own, written beside the caller's.
            block_size: how many samples a block has, ≥ 1.
            num_samples: how many are asked for, ≥ 1; no part of the seal.
            writes: False where another process writes the spec.

        Returns:
            The run in the same folder, with that seal, block size and number.

        Raises:
            ValueError: for a folder with another such spec, naming what differs, and
                for a spec that JSON cannot hold.
            OSError: where the folder cannot be written.
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

        Args:
            count: how many files the run has, ≥ 0.

        Returns:
            Their numbers, increasing.

        Raises:
            OSError: where what is unfinished cannot be removed.
        """
        for path in self.directory.glob(".unfinished-*"):
            if not path.is_dir():
                path.unlink(missing_ok=True)
        paths: dict[int, list[Path]] = {}
        for path in _block_files.listed(self.directory):
            paths.setdefault(_block_files.number_of(path), []).append(path)

        missing = []
        for number in range(count):
            content, problems = self._find(number, paths.get(number, []))
            whole = content is not None
            outcome = "Another file is whole" if whole else "It is computed again"
            for problem in problems:
                warnings.warn(f"{problem}. {outcome}.", stacklevel=2)
            if not whole:
                missing.append(number)
        return missing

    def write(self, number: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays of one file, whole or not at all.

        Damaged and shorter files of that number are removed then; the whole one of a
        longer run is left.

        Args:
            number: of the file, ≥ 0.
            arrays: its blocks, stacked: {name: (blocks, block_size, …)}.

        Raises:
            OSError: on a full disk, say; the files already written are not touched.
        """
        content = _block_files.packed(arrays)
        samples = self._needed(number)
        name = _block_files.name(number, samples, self.seal, content)
        target = self.directory / name
        if target.is_dir():
            _files.make_way(target)
        _files.write(target, content)
        for path in _block_files.listed(self.directory, number):
            if path != target and not self._longer(path, samples):
                _files.make_way(path)

    def read(self, number: int) -> dict[str, np.ndarray]:
        """Return the arrays of one file: its blocks of this run, if it has more.

        Args:
            number: of the file, ≥ 0.

        Returns:
            {name: (blocks, block_size, …)}, as they were written.

        Raises:
            OSError: if it is not there, whole.
        """
        paths = _block_files.listed(self.directory, number)
        content, problems = self._find(number, paths)
        if content is None and problems:
            again = "Start the run again: it is computed again."
            raise OSError(f"{'; '.join(problems)}. {again}")
        if content is None:
            raise OSError(
                f"{self.directory}: file {number} is missing. Several processes must "
                "share the folder; if it was removed, start the run again."
            )
        blocks = -(-self._needed(number) // self.block_size)
        return _block_files.unpacked(content, blocks)

    def _needed(self, number: int) -> int:
        """Return how many samples the run has in one file."""
        full = self.blocks_per_file * self.block_size
        if self.num_samples is None:
            return full
        return min(full, self.num_samples - number * full)

    def _find(
        self, number: int, paths: Sequence[Path]
    ) -> tuple[bytes | None, list[str]]:
        """Return what the first file that serves holds, and what ails the others.

        The last block of a longer run serves only if this run has all of it: it may be
        summed up.
        """
        needed = self._needed(number)
        first = None
        problems = []
        for path in paths:
            try:
                content = _block_files.read(path, self.seal)
            except OSError as error:
                problems.append(f"{path}: {error}")
                continue
            samples = _block_files.samples_of(path)
            longer = samples > needed and needed % self.block_size == 0
            if first is None and (longer or samples == needed):
                first = content
        return first, problems

    def _longer(self, path: Path, samples: int) -> bool:
        """Return whether a file is whole and has more samples."""
        try:
            _block_files.read(path, self.seal)
        except OSError:
            return False
        return _block_files.samples_of(path) > samples


def open_run(
    directory: str | os.PathLike[str],
    spec: Mapping[str, object],
    *,
    blocks_per_file: int = 16,
) -> Run:
    """Return the run in a folder, made if it is not there, to go on from.

    Given to ``sampling.sample(run=…)`` with the same arguments, it goes on where it
    stopped, and gives bit for bit what an uninterrupted run gives, on any number of
    devices. With more samples it goes on after those it has; with fewer it gives the
    first of them, and the longer run stays.

    Args:
        directory: the folder.
        spec: what the run is, a dictionary that JSON can hold: say the ensemble, by
            ``ensembles.describe``, the kind of path, and whatever else a result depends
            on. The engine adds the key, the size of a block, the fingerprint of what
            the path computes, the platform and the version of JAX.
        blocks_per_file: ≥ 1; so much is lost when a run is stopped.

    Returns:
        The ``Run``, for ``sampling.sample`` and ``sampling.stream``.

    Raises:
        ValueError: for arguments of another kind or range, for a folder that holds the
            run of another spec, naming what differs, and for a spec that JSON cannot
            hold.
        OSError: where the folder cannot be written.

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

    # it also refuses a spec that JSON cannot hold, before any folder is made
    seal = _specs.digest(spec)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    _specs.claim(folder / "spec.json", spec)
    return Run(folder, blocks_per_file, seal)
