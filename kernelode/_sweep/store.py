"""Where a sweep keeps what it has computed, so that nothing is lost and nothing computed twice."""

import json
import os
import pathlib
import time
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from .._support.archive import UNREADABLE, read_arrays, why_unreadable, write_arrays
from .._support.files import is_unfinished, write_whole
from .._support.fingerprint import same_code

_SECONDS = 5.0
_CONFIGURATION, _POINTS, _RESULT = "sweep.json", "points-{}.npz", "sweep.nc"


class Table:
    """Results by point, those that are there already marked in `done`."""

    def __init__(self, size: int, layout: list[tuple[tuple[int, ...], np.dtype]]):
        self.done = np.zeros(size, bool)
        self.columns = [np.zeros((size, *shape), dtype) for shape, dtype in layout]

    def check(self, points: np.ndarray, values: list[np.ndarray]) -> None:
        """**Raises** `ValueError` unless these are numbers of points, and results of the layout here."""
        if points.ndim != 1 or points.dtype.kind not in "iu":
            raise ValueError("its points are not a list of numbers")
        if np.any(points < 0) or np.any(points >= len(self.done)):
            raise ValueError(f"it has points beyond the {len(self.done):,} of the sweep")
        for i, (column, value) in enumerate(zip(self.columns, values, strict=True)):
            if value.shape != (len(points), *column.shape[1:]) or value.dtype != column.dtype:
                raise ValueError(
                    f"its result {i} has shape {value.shape} and type {value.dtype}, where the sweep has "
                    f"{(len(points), *column.shape[1:])} and {column.dtype}"
                )

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
        try:
            # Of a link, the folder that it leads to.
            pathlib.Path(os.path.realpath(self.path)).mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                self._check(configuration)
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices(f"sweep in {self.path}")
                self._check(configuration)
        except OSError as error:
            why = error.strerror or error
            raise ValueError(f"`folder`: {self.path} cannot be made, read or written: {why}.") from error

    def _check(self, configuration: dict) -> None:
        file = self.path / _CONFIGURATION
        text = json.dumps(configuration, indent=1, sort_keys=True)
        if not file.exists():
            # A process that was killed while it wrote the first file has left nothing but a part of it.
            if not all(map(is_unfinished, self.path.iterdir())):
                raise ValueError(f"`folder` {self.path} is not empty and holds no sweep: name another.")
            write_whole(file, lambda f: f.write(text.encode()))
            return
        try:
            found = json.loads(file.read_text("utf-8"))
            differing = [
                key
                for key, value in json.loads(text).items()
                if key not in ("code", "versions") and found.get(key) != value
            ]
            known = same_code(found.get("code"), configuration["code"])
        except (ValueError, AttributeError) as error:
            raise ValueError(f"`folder`: {file} cannot be read: {error}") from error
        if differing:
            raise ValueError(
                f"`folder` {self.path} holds another sweep, which differs in: {', '.join(differing)}."
            )
        if not known:
            raise ValueError(
                f"`folder` {self.path} holds the results of another function of the same name: its code, "
                "or a value or function that it uses, is not what it was. Name another folder."
            )

    def load(self, table: Table) -> None:
        """Enter what there is. **Raises** `ValueError` for a file of another sweep, or a damaged one."""
        for file in sorted(self.path.glob(_POINTS.format("*"))):
            try:
                arrays = read_arrays(file)
                points = arrays["points"]
                values = [arrays[f"result_{i}"] for i in range(len(table.columns))]
                table.check(points, values)
            except UNREADABLE as error:
                raise ValueError(
                    f"`folder`: {file} is not a part of this sweep, or it is damaged: "
                    f"{why_unreadable(error)}. Without the file, its points are computed again."
                ) from error
            table.fill(points, values)

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
        arrays = {"points": points, **results}
        if self._written(_POINTS.format(uuid.uuid4().hex[:12]), lambda path: write_arrays(path, arrays)):
            self._pending = []

    def finish(self, dataset: Any) -> None:
        """Write the Dataset of all points."""
        whole = dataset.to_netcdf(engine="h5netcdf")
        self._written(_RESULT, lambda path: write_whole(path, lambda file: file.write(whole)))

    def _written(self, name: str, write: Callable[[pathlib.Path], None]) -> bool:
        """Whether the file is there now. A full disk must not cost what is in memory: a warning."""
        try:
            write(self.path / name)
        except OSError as error:
            message = (
                f"{self.path / name} could not be written ({error.strerror}): the sweep goes on without."
            )
            warnings.warn(message, stacklevel=5)
            return False
        return True
