"""What an experiment is given to compute with: counts, keys, samples, progress; and how
its nested results are stored.
"""

import dataclasses
import hashlib
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from experiments import _cluster
from lognorm_jax import runs, sampling

ROOT = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of an experiment, in its full or its quick form."""

    root: jax.Array  # the key that all others come from
    quick: bool = False
    bar: tqdm = dataclasses.field(default_factory=lambda: tqdm(disable=True))
    folder: Path | None = None  # where finished blocks are kept; None: nowhere
    spec: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def count(self, full: Any, quick: Any) -> Any:
        """Return what the form of the job asks for: a number, or anything else."""
        return quick if self.quick else full

    def key(self, name: str) -> jax.Array:
        """Return the key of this name, whatever other keys were asked for."""
        return jax.random.fold_in(self.root, zlib.crc32(name.encode()))

    def sample(
        self,
        case: str,
        path: Callable,
        num_samples: int,
        *,
        engine: Callable | None = None,
        key: jax.Array | None = None,
    ) -> Any:
        """Return samples of a path, moving the bar, and going on from finished blocks.

        Args:
            case: a name of its own, which is also that of the key and of the blocks.
            path: what ``engine`` samples.
            num_samples: how many.
            engine: called as ``sampling.sample``, the default, is.
            key: another key than that of the case, to give two cases the same draws.

        Returns:
            What the engine returns.

        Raises:
            SystemExit: with code 2, where the folder has blocks of another run, or
                cannot be written.
        """
        key = self.key(case) if key is None else key
        engine = engine or sampling.sample
        self._announce(case, num_samples)
        if self.folder is None:
            return engine(path, key, num_samples, progress=self.bar.update)
        folder = self.folder / re.sub(r"\W+", "_", case).strip("_")
        try:
            run = runs.open_run(folder, {**self.spec, "label": case})
            return engine(path, key, num_samples, progress=self.bar.update, run=run)
        except (ValueError, OSError) as error:
            if _cluster.lost(error):
                raise
            told = f"\n{error}\nAll blocks of this experiment are in {self.folder}."
            print(told, file=sys.stderr)
            raise SystemExit(2) from error

    def tick(self, case: str) -> None:
        """Count one thing that was done, other than a sample."""
        self._announce(case, 1)
        self.bar.update()

    def _announce(self, case: str, count: int) -> None:
        """Let the bar expect so much more."""
        self.bar.set_description(case)
        self.bar.total = (self.bar.total or 0) + count


def flat(results: Mapping[str, Any], parents: str = "") -> dict[str, np.ndarray]:
    """Return nested results as arrays, named a/b/c."""
    arrays = {}
    for name, value in results.items():
        if "/" in name:
            raise ValueError(f"name of a result: {name!r} may not have a /, use a word")
        if isinstance(value, Mapping):
            arrays |= flat(value, f"{parents}{name}/")
        else:
            arrays[parents + name] = np.asarray(value)
    return arrays


def nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``flat`` was made of: results to check or draw again.

    >>> nested({"relu/mean": 1, "relu/error": 2, "beta": 3})
    {'relu': {'mean': 1, 'error': 2}, 'beta': 3}
    """
    results: dict[str, Any] = {}
    for path, value in arrays.items():
        *parents, name = path.split("/")
        place = results
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return results


def source_digest() -> str:
    """Return a digest of all source: blocks belong to the program that made them."""
    digest = hashlib.sha256()
    for folder in ("lognorm_jax", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT)).encode()
            digest.update(name + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]
