"""`sweep`: a function of a network over a grid of values, compiled once, resumable."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from jax.experimental import multihost_utils

from .._architecture.describe import describe
from .._support.checks import checked_function, positive_integer
from .._support.custom_types import RealLike
from .._support.files import versions
from .._support.fingerprint import code_fingerprint
from .._support.interrupt import sigterm_as_interrupt
from .._support.memory import check_memory
from .._support.progress import reporting
from .dataset import as_dataset, check_dimensions, variable_names
from .grid import Axis, Grid, at_point, grid_of
from .run import Program, chunk_size, chunks, examine
from .store import Folder, Table

if TYPE_CHECKING:
    from xarray import Dataset
else:
    Dataset = Any


def sweep(
    function: Callable[[Any], Any],
    target: Any,
    axes: Mapping[str, Axis | RealLike],
    *,
    folder: str | os.PathLike[str] | None = None,
    chunk: int | None = None,
    progress: bool | Callable[[int], None] = False,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> Dataset:
    """function(target) for all combinations of values of some leaves of `target`.

    Compiled once, whatever the number of points; run in chunks on all local devices, so that memory is
    bounded; under `jax.distributed` every process takes a share of the points and returns all of them.

    **Arguments**

    - `function`: from the target to an array or a pytree of arrays, such as
        `lambda network: ko.response(network, kernel)`. It is traced: a function that raises at a point
        (as for a kernel that overflows) ends the sweep, unless it has `throw=False` for that.
    - `target`: a network, or any pytree, such as `(network, kernel)` or a dictionary.
    - `axes`: the names of the axes with their values, if a field of the target has that name, or an
        `Axis`, which can pick any leaf. Values of a field are checked as its constructor would.
    - `folder`: where to keep what is computed, at least every five seconds, and at Ctrl-C or SIGTERM. The
        same call again goes on from there, with any number of devices or processes; a function whose code
        has changed, or that gives other values, is refused. At the end `sweep.nc` in it has the returned
        Dataset.
    - `chunk`: points that a device computes at once; by default as many as keep the largest intermediate
        array of all of them below 128 MiB, and their results below 4 MiB.
    - `progress`: show a bar, or call a function with the number of points so far.
    - `dims`: names for the dimensions of results, such as `{"diagonal": ("input",)}`.

    **Returns** an `xarray.Dataset`. Its variables are the arrays that the function returns, by the path
    to them (`diagonal_value`; a lone array is `value`), with the axes as first dimensions. What is not
    finite, such as an optimum where there is none, is counted in the attribute `not_finite` of its
    variable. The attribute `configuration` has the target, the axes and the versions of libraries, in
    JSON.

    **Raises** `ValueError` or `TypeError` for axes, dims or a folder that do not fit, and for results
    that do not fit into memory; `ImportError` without xarray or, with a folder, h5netcdf and h5py.
    """
    checked_function("function", function, "lambda network: ko.response(network, kernel)")
    _require("xarray", *(["h5netcdf", "h5py"] if folder is not None else []))
    grid, coordinates = grid_of(target, axes)
    program = Program(function, target, grid)
    code = _code(program)
    result, bytes_at_once = examine(program)
    if code != _code(program):
        code = None  # tracing has changed it: a counter, a cache. Values alone can tell.
    dims = {} if dims is None else dims
    check_dimensions(dims, result, coordinates)
    layout = [(x.shape, np.dtype(x.dtype)) for x in jax.tree.leaves(result)]
    point = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in layout)
    check_memory(grid.size * point, f"The results at {grid.size:,} points", "Sweep over fewer.")
    mine = _share(grid.size)
    size = (
        chunk_size(bytes_at_once, point, len(mine)) if chunk is None else positive_integer("chunk", chunk)
    )
    names = variable_names(result)
    configuration = _configuration(function, target, coordinates, grid, names) | {"code": code}
    table = Table(grid.size, layout)
    place = None if folder is None else Folder(folder, configuration)
    if place is not None:
        place.load(table)
        _check_program(program, table, mine, size, place)
    with sigterm_as_interrupt():
        try:
            with reporting(progress, "points", len(mine)) as report:
                missing = mine[~table.done[mine]]
                done = len(mine) - len(missing)
                report(done)
                for points, values in chunks(program, missing, size):
                    table.fill(points, values)
                    if place is not None:
                        place.add(table, points)
                    done += len(points)
                    report(done)
        finally:
            if place is not None:
                place.flush(table)
    _gather(table, mine)
    text = json.dumps(configuration)
    dataset = as_dataset(coordinates, names, table.columns, dims, text)
    if place is not None and jax.process_index() == 0:
        place.finish(dataset)
    return dataset


def _require(*packages: str) -> None:
    for package in packages:
        try:
            __import__(package)
        except ModuleNotFoundError as error:
            raise ImportError(
                f'A sweep needs {package}: install it with `pip install "kernelode[xarray]"`.'
            ) from error


def _share(points: int) -> np.ndarray:
    """The points of this process."""
    edges = np.linspace(0, points, jax.process_count() + 1).round().astype(int)
    return np.arange(edges[jax.process_index()], edges[jax.process_index() + 1])


def _gather(table: Table, mine: np.ndarray) -> None:
    """The results of all processes, in each of them."""
    if jax.process_count() == 1:
        return
    # Of equal length in all processes, as gathering needs: filled up with points that are none, -1.
    points = np.full(-(-len(table.done) // jax.process_count()) + 1, -1)
    points[: len(mine)] = mine
    gathered = multihost_utils.process_allgather((points, [column[points] for column in table.columns]))
    points, *columns = [np.asarray(x).reshape(-1, *x.shape[2:]) for x in jax.tree.leaves(gathered)]
    table.fill(points[points >= 0], [column[points >= 0] for column in columns])


def _code(program: Program) -> str | None:
    """Fingerprints of the function and of those within the target: others may have the same name."""
    return code_fingerprint((program.function, eqx.filter(program.target, eqx.is_array, inverse=True)))


def _check_program(program: Program, table: Table, mine: np.ndarray, size: int, place: Folder) -> None:
    """Code cannot tell everything, and there are folders without: what the function gave at some points
    has to come out again."""
    known = mine[table.done[mine]]
    some = _sampled(known, size * jax.local_device_count())
    scales = [_scale(column[some]) for column in table.columns]
    for points, values in chunks(program, some, size):
        for column, value, scale in zip(table.columns, values, scales):
            eps = np.finfo(value.dtype).eps if np.issubdtype(value.dtype, np.inexact) else 0.0
            # What is zero but for rounding is another zero in a chunk of another size.
            close = {"rtol": np.sqrt(eps), "atol": 64 * eps * scale, "equal_nan": True}
            if not np.allclose(column[points], value, **close):
                raise ValueError(
                    f"`folder` {place.path} holds the results of another function, or of other values "
                    "that it uses: at points computed again they differ."
                )


def _sampled(points: np.ndarray, chunk: int) -> np.ndarray:
    """The first, the last and random ones of these points, the same every time: two chunks, which cost
    the same however few they hold, and where chunks are small a tenth of the points, at most 16."""
    count = min(len(points), max(2 * chunk, min(16, len(points) // 10)))
    if count == 0:
        return points[:0]
    others = np.random.default_rng(0).permutation(np.arange(1, len(points) - 1))
    chosen = {0, len(points) - 1, *others[: count - 2].tolist()} if count > 1 else {0}
    return points[np.sort(list(chosen))]


def _scale(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)] if np.issubdtype(values.dtype, np.inexact) else values
    return float(np.max(np.abs(finite), initial=0))


def _configuration(
    function, target: Any, axes: Iterable[str], grid: Grid, names: list[str]
) -> dict[str, Any]:
    start = at_point(grid, target, [0] * len(grid.values))  # what is swept has no value of its own
    leaves = jax.tree.map(lambda x: _digest(x) if eqx.is_array(x) and x.size > 64 else x, start)
    return {
        "axes": {name: _digest(values) for name, values in zip(axes, grid.values)},
        "function": getattr(function, "__qualname__", type(function).__qualname__),
        "results": names,
        "target": describe(leaves),
        "versions": versions(),
    }


def _digest(array) -> dict[str, Any]:
    """A short fingerprint of an array."""
    numbers = np.ascontiguousarray(array)
    digest = hashlib.sha256(numbers.tobytes()).hexdigest()[:16]
    return {"shape": list(numbers.shape), "dtype": numbers.dtype.name, "sha256": digest}
