"""Colours, line styles, lines, bands, points and legends, shared by all figures."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
else:
    # Matplotlib is an optional dependency: at run time, axes are taken as they come.
    Axes = Any

#: Okabe and Ito's colours, told apart by colour-blind readers; in grey, line styles tell them apart.
STYLES: list[tuple[str, Any]] = [
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#E69F00", (0, (5, 1, 1, 1, 1, 1))),
    ("#56B4E9", (0, (9, 3))),
]
#: Shapes of measured points, one a style.
MARKERS = "os^Dvp"
DIAGONAL: dict[str, Any] = {"color": STYLES[0][0], "linestyle": STYLES[0][1]}
OFF_DIAGONAL: dict[str, Any] = {"color": STYLES[1][0], "linestyle": STYLES[1][1]}
#: What explains a legend and belongs to no single curve.
NEUTRAL = "0.35"


def line_style(number: int) -> dict[str, Any]:
    """Colour and line style of one of several curves."""
    color, style = STYLES[number % len(STYLES)]
    return {"color": color, "linestyle": style}


def draw_line(
    axes: Axes, x: np.ndarray, y: np.ndarray, *, alone: str = "o", size: float = 5.0, **style: Any
) -> None:
    """A curve, with a marker (`alone`, of this size) on every point without a neighbour, which a line
    does not show."""
    here = np.isfinite(x) & np.isfinite(y)
    before, after = np.r_[False, here[:-1]], np.r_[here[1:], False]
    single = here & ~before & ~after
    if np.array_equal(single, here) and single.any():
        axes.plot(x, y, marker=alone, markersize=size, **style)
        return
    axes.plot(x, y, **style)
    if single.any():
        style |= {"label": None, "linestyle": "none"}
        axes.plot(x[single], y[single], marker=alone, markersize=size, **style)


def draw_band(axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, color: str) -> None:
    """A shaded band between two curves; at a single point, a shaded bar."""
    if len(x) == 1:
        axes.vlines(x, low, high, color=color, alpha=0.3, linewidth=7)
    else:
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def draw_points(axes: Axes, x, y, error, number: int, color: str | None = None, **more: Any) -> Any:
    """Points with error bars: open, and with caps of different widths, since they may coincide."""
    return axes.errorbar(
        x,
        y,
        error,
        linestyle="none",
        color=line_style(number)["color"] if color is None else color,
        marker=MARKERS[number % len(MARKERS)],
        markersize=4,
        markerfacecolor="white",
        elinewidth=1,
        capsize=1.5 + number,
        **more,
    )


def mark_missing(axes: Axes, places, label: str, marker: str, **style: Any) -> None:
    """Marks along the lower edge of the axes where there is no value."""
    if len(places):
        edge, transform = np.full(len(places), 0.025), axes.get_xaxis_transform()
        style = {"color": NEUTRAL, "markersize": 5, "label": label, "zorder": 4} | style
        axes.plot(places, edge, marker, transform=transform, **style)


def legend_above(axes: Axes, handles: Any = None, labels: Any = None, *, pad: float = 0.2) -> None:
    """A legend above the axes, where it covers nothing, in as many columns as they are wide; `pad` is the
    distance in units of its font."""
    if handles is None:
        handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    for columns in range(min(len(handles), 4), 0, -1):
        legend = axes.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=columns,
            frameon=False,
            fontsize="small",
            borderaxespad=pad,
            handlelength=2.6,
            columnspacing=1.5,
        )
        if legend.get_window_extent().width <= 1.05 * axes.bbox.width:
            return


def set_calm_limits(axes: Axes) -> None:
    """Of the vertical axis. What is constant, but for rounding, is shown as constant."""
    low, high = axes.dataLim.intervaly
    middle = (low + high) / 2
    if axes.get_yscale() == "linear" and high - low < 1e-6 * abs(middle):
        axes.set_ylim(middle - 0.1 * abs(middle), middle + 0.1 * abs(middle))


def label_plainly(axis: Any) -> None:
    """0.1, 0.2, 0.5, 1 ... along a logarithmic axis, in place of powers of ten."""
    from ._ticks import PlainLocator, plain_formatter, plain_minor_locator

    axis.set_major_locator(PlainLocator())
    axis.set_major_formatter(plain_formatter())
    axis.set_minor_locator(plain_minor_locator())
    axis.set_minor_formatter("")
