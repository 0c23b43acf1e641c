"""Files of blocks, ``blocks-NUMBER-SAMPLES-CHECKSUM.npz``: each says what it holds.

The checksum is of the content, of the number and the samples, and of the seal of the
run; so what is damaged, was renamed or came from another run is found.
"""

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_NAME = re.compile(r"blocks-(\d{8})-(\d+)-([0-9a-f]{32})\.npz")


def name(number: int, samples: int, seal: str, content: bytes) -> str:
    """Return the name of a file with this content, in the run with this seal."""
    return (
        f"blocks-{number:08d}-{samples}-{_checksum(number, samples, seal, content)}.npz"
    )


def listed(directory: Path, number: int | None = None) -> list[Path]:
    """Return the files of blocks, all or of one number, in order; no other files."""
    start = "blocks-" if number is None else f"blocks-{number:08d}-"
    paths = directory.glob(f"{start}*.npz")
    return sorted(path for path in paths if _NAME.fullmatch(path.name))


def number_of(path: Path) -> int:
    """Return which file of its run a file says that it is."""
    return int(path.name.split("-")[1])


def samples_of(path: Path) -> int:
    """Return how many samples a file says that it holds."""
    return int(path.name.split("-")[2])


def read(path: Path, seal: str) -> bytes:
    """Return what a file of blocks holds; ``OSError`` if it is not whole."""
    if not path.is_file():  # a pipe, say, would be waited for
        raise OSError("not a file")
    content = path.read_bytes()
    if path.name != name(number_of(path), samples_of(path), seal, content):
        misfit = f"{len(content)} bytes that do not fit its name"
        raise OSError(f"damaged, or of another run: {misfit}")
    return content


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the content of a file with these arrays."""
    buffer = io.BytesIO()
    # its stub takes the names of arrays for options of its own
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpacked(content: bytes, blocks: int) -> dict[str, np.ndarray]:
    """Return the first blocks of each array in a file with this content."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: values[:blocks] for name, values in arrays.items()}


def _checksum(number: int, samples: int, seal: str, content: bytes) -> str:
    """Return a checksum that no file of another run, or number, shares."""
    head = f"{seal} {number} {samples} ".encode()
    return hashlib.sha256(head + content).hexdigest()[:32]
