"""Mistakes of the user: one sentence and exit code 2. Anything else is a bug and keeps its traceback."""

import contextlib
import pathlib
from collections.abc import Iterator


class BadInput(Exception):
    """A sentence for the user about an option or a file."""


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """The library's refusals of arguments, as `BadInput`.

    To be put around the checks of user input only: a `ValueError` from anywhere else is a bug.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise BadInput(" ".join(str(error).split())) from error


@contextlib.contextmanager
def writing(option: str, path: pathlib.Path) -> Iterator[None]:
    """A file that cannot be written, as `BadInput`."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{option}: {path} cannot be written: {error.strerror}.") from error
