"""Results of a sweep along two axes, as one heat map or as several with one scale of colours."""

from typing import Any

import numpy as np

from ._coordinates import coordinate, entry_labels, label_of
from ._image import add_colour_bar, colour_norm, draw_cells, draw_contours, hatched_handle
from ._style import STYLES, Axes, draw_line, label_plainly, legend_above


def draw_maps(axes: Axes, values: Any, swept: list[str], panels: str | None, optimum: Any) -> Axes:
    """`values`, a DataArray, over the axes `swept`: a heat map for every entry along `panels`."""
    count = 1 if panels is None else values.sizes[panels]
    if count > len(STYLES):
        raise ValueError(
            f"`values` has {count} entries along {panels!r}: {len(STYLES)} heat maps at most. Choose by "
            "`.isel`, or average."
        )
    _check_optimum(optimum, swept, panels)
    x, y = (coordinate(values, name) for name in swept)
    numbers = np.asarray(values.transpose(*([panels] if panels else []), *swept[::-1]), float)
    numbers = numbers.reshape(count, len(y.points), len(x.points))
    norm = colour_norm(numbers)
    places = [axes] if panels is None else _split(axes, count)
    titles = [None] if panels is None else entry_labels(values, [panels])
    for number, (place, title) in enumerate(zip(places, titles)):
        place.set(xscale=x.scale, yscale=y.scale)
        image = draw_cells(place, x.edges, y.edges, numbers[number], norm)
        place.set(xlim=(x.edges[0], x.edges[-1]), ylim=(y.edges[0], y.edges[-1]))
        draw_contours(place, x.points, y.points, numbers[number], norm, labelled=count <= 2)
        if optimum is not None:
            here = {panels: number} if panels in optimum.dims else {}
            _draw_optimum(place, optimum.isel(here), swept)
        for points, axis in ((x, place.xaxis), (y, place.yaxis)):
            if points.logarithmic:
                label_plainly(axis)
        if title is not None:
            place.set_title(title, fontsize="small")
            place.tick_params(labelleft=number == 0, labelsize="small")
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    if np.any(np.isfinite(numbers)):
        add_colour_bar(axes, image, label_of(values))
    _explain(axes, places, not np.all(np.isfinite(numbers)))
    return axes


def _check_optimum(optimum: Any, swept: list[str], panels: str | None) -> None:
    if optimum is None:
        return
    over = [name for name in optimum.dims if name in swept]
    if len(over) != 1 or not set(optimum.dims) <= {*swept, panels}:
        raise ValueError(
            f"`optimum` must be over one axis of the heat map, {swept[0]!r} or {swept[1]!r}; "
            f"got {optimum.dims}."
        )
    if over[0] not in optimum.coords:
        raise ValueError(f"`optimum` must have coordinates along {over[0]!r}.")


def _split(axes: Axes, count: int) -> list[Axes]:
    """Axes side by side within `axes`, which are left with the labels alone."""
    gap = 0.04
    width = (1 - gap * (count - 1)) / count
    axes.set(xticks=[], yticks=[], frame_on=False)
    axes.xaxis.labelpad = 20
    axes.yaxis.labelpad = 30
    return [axes.inset_axes((i * (width + gap), 0, width, 1)) for i in range(count)]


def _draw_optimum(axes: Axes, optimum: Any, swept: list[str]) -> None:
    """A line that is seen on dark and on light cells."""
    from matplotlib.patheffects import withStroke

    (over,) = optimum.dims
    at = coordinate(optimum.sortby(over), over)
    best = np.asarray(optimum.sortby(over), float)
    horizontal = over == swept[0]
    scale = axes.get_yscale() if horizontal else axes.get_xscale()
    # rho* is zero where the response falls from the start: a logarithmic axis has no such place.
    best = np.where(np.isfinite(best) & ((best > 0) | (scale == "linear")), best, np.nan)
    x, y = (at.points, best) if horizontal else (best, at.points)
    style: dict[str, Any] = {"color": "white", "linewidth": 1.5, "linestyle": (0, (4, 1.5)), "zorder": 3}
    outline = [withStroke(linewidth=3.5, foreground="black")]
    draw_line(axes, x, y, label="optimum", path_effects=outline, scalex=False, scaley=False, **style)
    missing = at.points[np.isnan(best)]
    if len(missing):
        edge = np.full(len(missing), 0.025)
        where = (missing, edge) if horizontal else (edge, missing)
        transform = axes.get_xaxis_transform() if horizontal else axes.get_yaxis_transform()
        axes.plot(
            *where,
            "x",
            color="white",
            markersize=4,
            zorder=3,
            transform=transform,
            label="no optimum",
            path_effects=[withStroke(linewidth=3, foreground="black")],
        )


def _explain(axes: Axes, places: list[Axes], hatched: bool) -> None:
    """One legend for all heat maps."""
    found = {}
    for place in places:
        handles, labels = place.get_legend_handles_labels()
        found |= dict(zip(labels, handles))
    if hatched:
        found["no value"] = hatched_handle()
    legend_above(axes, list(found.values()), list(found), pad=0.2 if places == [axes] else 2.2)
