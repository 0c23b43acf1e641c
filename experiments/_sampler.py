"""How an experiment samples: with a progress bar, and from a folder of blocks it can go
on from.
"""

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import _cluster
from lognorm_jax import runs, sampling

ROOT = Path(__file__).parent.parent


def sampler(
    bar: Any, folder: Path | None = None, spec: dict[str, Any] | None = None
) -> Callable:
    """Return ``sample(label, path, key, num_samples)`` -> Trace, which moves the bar.

    It calls ``engine(path, key, num_samples, **options)``, by default
    ``sampling.sample``. folder: where to keep finished blocks, one subfolder a label;
    None: nowhere. spec: what the experiment is. Blocks of another spec, or that cannot
    be written, end the program with code 2.
    """

    def sample(label, path, key, num_samples, engine=sampling.sample):
        bar.set_description(label)
        if folder is None:
            return engine(path, key, num_samples, progress=bar.update)
        own = folder / re.sub(r"\W+", "_", label).strip("_")
        try:
            run = runs.open_run(own, {**(spec or {}), "label": label})
            return engine(path, key, num_samples, progress=bar.update, run=run)
        except (ValueError, OSError) as error:
            if _cluster.lost(error):
                raise
            print(
                f"\n{error}\nAll blocks of this experiment are in {folder}.",
                file=sys.stderr,
            )
            raise SystemExit(2) from error

    return sample


def source_digest() -> str:
    """Return a digest of all source: blocks are only gone on from by the program that
    made them.
    """
    digest = hashlib.sha256()
    for folder in ("lognorm_jax", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(
                str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0"
            )
    return digest.hexdigest()[:32]
