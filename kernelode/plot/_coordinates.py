"""The coordinates of a sweep as axes of a figure: spacing, edges of cells, names."""

from typing import Any, NamedTuple

import numpy as np

#: Names that the field has symbols for.
_SYMBOLS = {
    "residual_scale": r"residual scale $\rho$",
    "skip_scale": r"skip scale $\alpha$",
    "weight_variance": "weight variance $C_W$",
    "bias_variance": "bias variance $C_b$",
    "input_weight_variance": r"input weight variance $C_\mathrm{in}$",
    "output_weight_variance": r"output weight variance $C_{W,\mathrm{out}}$",
}


class Coordinate(NamedTuple):
    """A dimension with its points in increasing order."""

    name: str
    label: str
    points: np.ndarray
    logarithmic: bool

    @property
    def scale(self) -> str:
        """As Matplotlib calls it."""
        return "log" if self.logarithmic else "linear"

    @property
    def edges(self) -> np.ndarray:
        """The edges of the cells around the points."""
        if not self.logarithmic:
            return _edges(self.points)
        return np.exp(_edges(np.log(self.points)))

    @property
    def limits(self) -> tuple[float, float]:
        """Where a curve over the points begins and ends, or the cell of a single point."""
        ends = self.points if len(self.points) > 1 else self.edges
        return float(ends[0]), float(ends[-1])


def is_axis(values: Any, name: str) -> bool:
    """Whether a dimension of a DataArray has numbers as coordinates."""
    return name in values.coords and np.asarray(values.coords[name]).dtype.kind in "iuf"


def coordinate(values: Any, name: str) -> Coordinate:
    """Of a DataArray that is sorted along `name`. **Raises** `ValueError` for a name of no axis."""
    points = np.asarray(values.coords[name], float)
    if points.size == 0 or not np.all(np.isfinite(points)):
        raise ValueError(f"`values`: coordinates {name!r} must be finite numbers, got {points}.")
    if np.any(np.diff(points) <= 0):
        raise ValueError(f"`values`: coordinates {name!r} must differ from each other, got {points}.")
    return Coordinate(name, label_of(values.coords[name]), points, _is_geometric(points))


def label_of(array: Any) -> str:
    """The label of a DataArray: its `long_name` and `units` if it has them, or else its name."""
    name = "" if array.name is None else str(array.name)
    label = array.attrs.get("long_name", _SYMBOLS.get(name, name.replace("_", " ")))
    units = array.attrs.get("units")
    return f"{label} ({units})" if units else label


def entry_labels(values: Any, names: list[str]) -> list[str | None]:
    """Labels of the entries along some dimensions of a DataArray: input 0, input 1, ..."""
    if not names:
        return [None]
    labels = []
    for index in np.ndindex(*[values.sizes[name] for name in names]):
        parts = []
        for name, i in zip(names, index):
            point = values.coords[name].values[i] if name in values.coords else i
            written = f"{point:.4g}" if isinstance(point, float) else str(point)
            parts.append(f"{name.replace('_', ' ')} {written}")
        labels.append(", ".join(parts))
    return labels


def _is_geometric(points: np.ndarray) -> bool:
    """Whether ratios are equal, and differences are not. (Of two points, both are.)"""
    if len(points) < 3 or points[0] <= 0:
        return False
    return bool(np.ptp(np.diff(np.log(points))) < 1e-3 * np.log(points[-1] / points[0]) / len(points))


def _edges(points: np.ndarray) -> np.ndarray:
    if len(points) == 1:
        half = 0.5 * abs(points[0]) or 0.5
        return np.array([points[0] - half, points[0] + half])
    middle = (points[1:] + points[:-1]) / 2
    return np.r_[2 * points[0] - middle[0], middle, 2 * points[-1] - middle[-1]]
