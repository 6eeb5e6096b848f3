"""Results of a sweep along one axis."""

from typing import Any

import numpy as np

from ._coordinates import Coordinate, coordinate, entry_labels, label_of
from ._image import spans_decades
from ._style import (
    NEUTRAL,
    STYLES,
    Axes,
    draw_band,
    draw_line,
    label_plainly,
    legend_above,
    line_style,
    mark_missing,
    set_calm_limits,
)


def draw_curves(axes: Axes, values: Any, name: str, optimum: Any) -> Axes:
    """`values`, a DataArray, against the axis `name`; other dimensions have entries."""
    x, further = coordinate(values, name), [other for other in values.dims if other != name]
    if optimum is not None and not set(optimum.dims) <= set(further):
        raise ValueError(
            f"`optimum` must be one number, or have dimensions among {tuple(further)}, "
            f"got {optimum.dims}."
        )
    table = np.asarray(values.transpose(name, *further), float).reshape(len(x.points), -1)
    count = table.shape[1]
    table = np.where(np.isfinite(table), table, np.nan)
    axes.set_xscale(x.scale)
    if spans_decades(table):
        axes.set_yscale("log")
    if count <= len(STYLES):
        for number, label in enumerate(entry_labels(values, further)):
            draw_line(axes, x.points, table[:, number], label=label, **line_style(number))
    else:
        _draw_mean(axes, x, table)
    have_value = np.isfinite(table)
    mark_missing(axes, x.points[~have_value.any(axis=1)], "no value", "x")
    some = have_value.any(axis=1) & ~have_value.all(axis=1)
    mark_missing(axes, x.points[some], "not all have a value", "+")
    if optimum is not None:
        whole = values.isel({name: 0}).transpose(*further)
        _draw_optima(axes, optimum, whole)
    axes.set_xlim(*x.limits)
    if x.logarithmic:
        label_plainly(axes.xaxis)
    axes.set_xlabel(x.label)
    axes.set_ylabel(label_of(values))
    set_calm_limits(axes)
    legend_above(axes)
    return axes


def _draw_mean(axes: Axes, x: Coordinate, table: np.ndarray) -> None:
    """Mean and standard deviation over the entries that have a value; on a logarithmic axis, of the
    logarithms."""
    logarithmic = axes.get_yscale() == "log"
    table = np.log(table) if logarithmic else table
    has_value = np.isfinite(table)
    counts = has_value.sum(axis=1)
    counts = np.where(counts > 0, counts, np.nan)
    mean = np.nansum(table, axis=1) / counts
    squares = np.where(has_value, table - mean[:, None], 0) ** 2
    spread = np.sqrt(squares.sum(axis=1) / counts)
    curves = np.stack([mean - spread, mean, mean + spread])
    low, middle, high = np.exp(curves) if logarithmic else curves
    style = line_style(0)
    draw_band(axes, x.points, low, high, style["color"])
    draw_line(axes, x.points, middle, label=f"mean of {table.shape[1]}", **style)


def _draw_optima(axes: Axes, optimum: Any, whole: Any) -> None:
    """Vertical lines: one, or one in the style of each curve, or one at the mean over entries."""
    if optimum.ndim == 0:
        places, styles = np.atleast_1d(float(optimum)), [{"color": NEUTRAL, "linestyle": "-"}]
    else:
        # An optimum for inputs alone stands for all entries of an input.
        places = np.asarray(optimum.broadcast_like(whole).transpose(*whole.dims), float).ravel()
        styles = [line_style(number) for number in range(len(places))]
    # rho* is zero where the response falls from the start: a logarithmic axis has no such place.
    finite = np.isfinite(places) & ((places > 0) | (axes.get_xscale() == "linear"))
    share = "" if finite.all() else f", {finite.sum()} of {len(places)}"
    if not finite.any():
        axes.plot([], [], " ", label="no optimum")
    elif len(places) > len(STYLES):
        label = f"mean optimum{share}"
        axes.axvline(float(np.mean(places[finite])), linewidth=1, color=NEUTRAL, label=label)
    else:
        for place, style in zip(places[finite], np.array(styles)[finite]):
            axes.axvline(float(place), linewidth=1, **style)
        axes.plot([], [], color=NEUTRAL, linewidth=1, label=f"optimum{share}")
