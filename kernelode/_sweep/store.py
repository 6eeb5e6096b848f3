"""Where a sweep keeps what it has computed, so that nothing is lost and nothing computed twice."""

import json
import os
import pathlib
import time
import uuid
import warnings
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import jax
import numpy as np
from jax.experimental import multihost_utils

from .._files import write_whole

_SECONDS = 5.0
_CONFIGURATION, _POINTS, _RESULT = "sweep.json", "points-{}.npz", "sweep.nc"


class Table:
    """Results by point, those that are there already marked in `done`."""

    def __init__(self, size: int, layout: list[tuple[tuple[int, ...], np.dtype]]):
        self.done = np.zeros(size, bool)
        self.columns = [np.zeros((size, *shape), dtype) for shape, dtype in layout]

    def fill(self, points: np.ndarray, values: list[np.ndarray]) -> None:
        """Enter the results at some points."""
        for column, value in zip(self.columns, values, strict=True):
            column[points] = value
        self.done[points] = True


class Folder:
    """A folder of a sweep: `sweep.json` says of which, every `points-*.npz` has the results of some of
    its points. Several processes may write to one folder."""

    def __init__(self, path: str | os.PathLike[str], configuration: dict):
        self.path = pathlib.Path(path)
        self._pending: list[np.ndarray] = []
        self._saved = time.monotonic()
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"`folder` must be a folder, but {self.path} is a file.")
        self.path.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            self._check(configuration)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"sweep in {self.path}")
            self._check(configuration)

    def _check(self, configuration: dict) -> None:
        file = self.path / _CONFIGURATION
        text = json.dumps(configuration, indent=1, sort_keys=True)
        if not file.exists():
            if any(self.path.iterdir()):
                raise ValueError(f"`folder` {self.path} is not empty and holds no sweep: name another.")
            write_whole(file, lambda f: f.write(text.encode()))
            return
        try:
            found = json.loads(file.read_text("utf-8"))
            differing = [
                key
                for key, value in json.loads(text).items()
                if key != "versions" and found.get(key) != value
            ]
        except (ValueError, AttributeError) as error:
            raise ValueError(f"`folder`: {file} cannot be read: {error}") from error
        if differing:
            raise ValueError(
                f"`folder` {self.path} holds another sweep, which differs in: {', '.join(differing)}."
            )

    def load(self, table: Table) -> None:
        """Enter what there is. **Raises** `ValueError` for a file that is none of this sweep."""
        for file in sorted(self.path.glob(_POINTS.format("*"))):
            try:
                with open(file, "rb") as handle, np.load(handle, allow_pickle=False) as arrays:
                    values = [arrays[f"result_{i}"] for i in range(len(table.columns))]
                    table.fill(arrays["points"], values)
            except (KeyError, IndexError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise ValueError(f"`folder`: {file} is not a part of this sweep: {error}") from error

    def add(self, table: Table, points: np.ndarray) -> None:
        """Note that these points are in the table now; every few seconds all that is new is written."""
        self._pending.append(points)
        if time.monotonic() - self._saved > _SECONDS:
            self.flush(table)

    def flush(self, table: Table) -> None:
        """Write all that is new."""
        self._saved = time.monotonic()
        if not self._pending:
            return
        points = np.concatenate(self._pending)
        results = {f"result_{i}": column[points] for i, column in enumerate(table.columns)}
        name = _POINTS.format(uuid.uuid4().hex[:12])
        if self._written(name, lambda f: np.savez(f, points=points, **results)):  # pyright: ignore
            self._pending = []

    def finish(self, dataset: Any) -> None:
        """Write the Dataset of all points."""
        self._written(_RESULT, lambda f: f.write(dataset.to_netcdf(engine="h5netcdf")))

    def _written(self, name: str, write: Callable[[BinaryIO], object]) -> bool:
        """Whether the file is there now. A full disk must not cost what is in memory: a warning."""
        try:
            write_whole(self.path / name, write)
        except OSError as error:
            message = (
                f"{self.path / name} could not be written ({error.strerror}): the sweep goes on without."
            )
            warnings.warn(message, stacklevel=5)
            return False
        return True
