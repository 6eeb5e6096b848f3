"""Results of sweeps: curves over one axis, heat maps over two."""

from typing import TYPE_CHECKING, Any

from ._coordinates import is_axis
from ._style import Axes
from ._sweep_curves import draw_curves
from ._sweep_maps import draw_maps

if TYPE_CHECKING:
    from xarray import DataArray
else:
    # As Matplotlib, an optional dependency.
    DataArray = Any


def plot_sweep(axes: Axes, values: DataArray, *, optimum: DataArray | None = None) -> Axes:
    """A result of a sweep against what was swept.

    A dimension with numbers as coordinates is an axis; any other one has entries, such as inputs.

    - One axis: a curve. With entries besides (one or two dimensions of them): a curve for each of up to
      six, and for more of them the mean, shaded by the standard deviation; on a logarithmic axis, of the
      logarithms.
    - Two axes: a heat map, the first axis along the horizontal, with contours where the result is smooth.
    - Two axes and a third dimension, of up to six entries or numbers: as many heat maps side by side
      within `axes`, with one scale of colours.

    Axes are logarithmic where coordinates are spaced geometrically; so are results that are positive and
    span more than a factor of a hundred. Names, or the attributes `long_name` and `units`, are labels.
    Values that are not finite are hatched in a heat map; along a curve, a cross at the bottom marks it.

    **Arguments**

    - `axes`: where to draw.
    - `values`: an `xarray.DataArray`, such as `ko.sweep(...)["diagonal"]`.
    - `optimum`: an `xarray.DataArray` of where along one axis the result is best. On a heat map it is
        over the first axis (or over the second), such as rho*(weight_variance), and drawn as a line; with
        curves it is one number, or has dimensions of the entries, and is drawn as vertical lines. It may
        have the third dimension of several heat maps. Where it is not finite (or, on a logarithmic
        axis, not positive) there is none: a cross at the edge marks it, or the legend says how many
        there are.

    **Returns** `axes`.

    **Raises** `TypeError` for anything but a DataArray; `ValueError` for one without an axis or with more
    dimensions, and for an optimum that does not fit.
    """
    _check_array("values", values)
    if not 1 <= values.ndim <= 3:
        raise ValueError(
            f"`values` must have one, two or three dimensions, got {values.ndim}: {values.dims}. Choose "
            "by `.isel` or `.sel`, or average."
        )
    if values.size == 0:
        raise ValueError(f"`values` must not be empty, got shape {values.shape}.")
    names = [str(name) for name in values.dims]
    swept = [name for name in names if is_axis(values, name)]
    if not swept:
        raise ValueError(
            f"`values` must have numbers as coordinates along at least one of {values.dims}; "
            "`values.assign_coords` gives them some."
        )
    values = values.sortby(swept)
    if optimum is not None:
        _check_array("optimum", optimum)
    if len(swept) == 1:
        return draw_curves(axes, values, swept[0], optimum)
    panels = [name for name in names if name not in swept[:2]]
    return draw_maps(axes, values, swept[:2], panels[0] if panels else None, optimum)


def _check_array(name: str, array: Any) -> None:
    try:
        import xarray
    except ModuleNotFoundError:
        known = False
    else:
        known = isinstance(array, xarray.DataArray)
    if not known:
        raise TypeError(f"`{name}` must be an xarray.DataArray, got {type(array).__name__}.")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"`{name}` must be real numbers, got {array.dtype}.")
