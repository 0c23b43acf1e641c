"""Files that are there whole or not at all, whenever a program or the power stops."""

import os
import uuid
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
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
        told = (
            f"{error.strerror}: {path.name} could not be written, all files before it "
            "are kept. Mend that, then start the same run again: it goes on from there"
        )
        raise OSError(error.errno, told, str(path.parent)) from error


def make_way(path: Path) -> None:
    """Remove a file or a link; a folder, which may hold anything, gets another name."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"folder-{uuid.uuid4().hex}-{path.name}"))
    else:
        path.unlink(missing_ok=True)
