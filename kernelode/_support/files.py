"""Atomic writes, and library versions for provenance."""

import functools
import importlib.metadata
import os
import pathlib
from collections.abc import Callable
from typing import BinaryIO

from .interrupt import signals_held


def versions() -> dict[str, str]:
    """Of the libraries that numbers depend on."""
    return dict(_versions())


@functools.cache
def _versions() -> list[tuple[str, str]]:
    return [(name, importlib.metadata.version(name)) for name in ("kernelode", "jax", "jaxlib", "numpy")]


def write_whole(path: pathlib.Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write(file)` and put the file in the place of `path` only when it is complete on disk.

    A link is followed: its target is replaced, on the disk where that is. Ctrl-C and SIGTERM wait until
    the file is there.
    """
    place = pathlib.Path(os.path.realpath(path))
    part = place.with_name(f".{place.name}.{os.getpid()}{_PART}")
    with signals_held():
        try:
            with open(part, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, place)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


_PART = ".part"


def is_unfinished(path: pathlib.Path) -> bool:
    """Whether this is what a process that was killed while it wrote has left behind."""
    return path.name.startswith(".") and path.name.endswith(_PART)
