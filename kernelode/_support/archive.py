"""The format of everything kept on disk: arrays by name in an .npz file, whole or not there at all."""

import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

from .files import write_whole

#: Exceptions from reading a damaged file, or one of another kind. (A header may claim any size.)
UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


def write_arrays(path: pathlib.Path, arrays: dict[str, Any]) -> None:
    """Write the arrays in place of whatever is at `path`. **Raises** `OSError`."""
    write_whole(path, lambda file: np.savez(file, **arrays))  # pyright: ignore


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays by name. **Raises** `OSError` if there is no such file, any of `UNREADABLE` if it is
    damaged."""
    with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
        return dict(file)


def why_unreadable(error: BaseException) -> str:
    """The end of a sentence on one of `UNREADABLE`, without the full stop."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
