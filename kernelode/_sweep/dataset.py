"""The results of a sweep with their names and coordinates, as an xarray Dataset."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .grid import Coordinates

if TYPE_CHECKING:
    from xarray import Dataset
else:
    Dataset = Any

#: What a function's only array is called.
_ONLY = "value"


def variable_names(result: Any) -> list[str]:
    """The arrays of a result by the path to them, such as `diagonal_value`."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(result)[0]]
    names = [jax.tree_util.keystr(path, simple=True, separator="_") for path in paths]
    # An enumeration, such as STATUS, is its number.
    return [name.removesuffix("__value") or _ONLY for name in names]


def check_dimensions(dims: Mapping[str, Sequence[str]], result: Any, axes: Coordinates) -> None:
    """**Raises** `ValueError` for names of dimensions that do not fit."""
    shapes = dict(zip(variable_names(result), (x.shape for x in jax.tree.leaves(result))))
    if clashing := set(shapes) & set(axes):
        raise ValueError(f"An axis must not have the name of a result: {', '.join(sorted(clashing))}.")
    for name, names in dims.items():
        if name not in shapes:
            raise ValueError(f"`dims` names {name!r}, but the results are {', '.join(shapes)}.")
        if isinstance(names, str) or len(names) != len(shapes[name]) or set(names) & set(axes):
            raise ValueError(
                f"`dims[{name!r}]` must name the dimensions of a result of shape {shapes[name]}, unlike "
                f"the axes; got {names!r}."
            )


def as_dataset(
    axes: Coordinates,
    names: list[str],
    columns: list[np.ndarray],
    dims: Mapping[str, Sequence[str]],
    configuration: str,
) -> Dataset:
    """Results by point, as arrays over the axes."""
    import xarray

    variables, shape = {}, [len(labels) for labels in axes.values()]
    for name, column in zip(names, columns, strict=True):
        inner = tuple(dims.get(name, [f"{name}_{i}" for i in range(column.ndim - 1)]))
        attributes = {}
        if np.issubdtype(column.dtype, np.inexact):
            attributes["not_finite"] = int(np.sum(~np.isfinite(column)))
        values = column.reshape(*shape, *column.shape[1:])
        variables[name] = ((*axes, *inner), values, attributes)
    return xarray.Dataset(variables, axes, {"configuration": configuration})
