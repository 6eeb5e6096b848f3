"""What every result that is kept on disk needs: whole files only, and the versions that made it."""

import functools
import importlib.metadata
import os
import pathlib
from collections.abc import Callable
from typing import BinaryIO


def versions() -> dict[str, str]:
    """Of the libraries that numbers depend on."""
    return dict(_versions())


@functools.cache
def _versions() -> list[tuple[str, str]]:
    return [(name, importlib.metadata.version(name)) for name in ("kernelode", "jax", "jaxlib", "numpy")]


def write_whole(path: pathlib.Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write(file)` and put the file in the place of `path` only when it is complete on disk."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
