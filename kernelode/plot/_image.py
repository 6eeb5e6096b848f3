"""Heat maps: one scale of colours for all of them, and cells without a value hatched."""

from typing import Any

import numpy as np

from ._style import Axes

#: Perceptually uniform, and from dark to light in grey as well.
COLOURS = "viridis"
_HATCHED: dict[str, Any] = {
    "facecolor": "0.85",
    "edgecolor": "0.55",
    "hatch": "////",
    "linewidth": 0,
}


def spans_decades(values: np.ndarray) -> bool:
    """Whether values are positive and differ by more than a factor of a hundred."""
    finite = values[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() > 100 * finite.min())


def colour_norm(values: np.ndarray, *, logarithmic: bool | None = None) -> Any:
    """From the least to the largest finite value; a constant is in the middle of the colours."""
    from matplotlib.colors import LogNorm, Normalize

    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if spans_decades(values) if logarithmic is None else logarithmic:
        return LogNorm(low, high)
    if high - low <= 1e-6 * max(abs(low), abs(high)) or low == high:
        middle = (low + high) / 2
        half = 0.1 * abs(middle) or 0.1
        return Normalize(middle - half, middle + half)
    return Normalize(low, high)


def draw_cells(axes: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray, norm: Any) -> Any:
    """Cells between the edges `x` and `y`; `values` are over (y, x). What is not finite is hatched."""
    hatch_missing(axes, x, y, values)
    cells = np.ma.masked_invalid(values)
    return axes.pcolormesh(x, y, cells, norm=norm, cmap=COLOURS, shading="flat", rasterized=True)


def hatch_missing(axes: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray) -> None:
    """Hatch the ground, which is seen through cells that are not drawn."""
    if not np.all(np.isfinite(values)):
        from matplotlib.patches import Rectangle

        size = (float(x[-1] - x[0]), float(y[-1] - y[0]))
        axes.add_patch(Rectangle((float(x[0]), float(y[0])), *size, zorder=-1, **_HATCHED))


def draw_contours(
    axes: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray, norm: Any, labelled: bool
) -> None:
    """A few contours, where the values are smooth enough for them to say something."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator, MaxNLocator

    logarithmic = isinstance(norm, LogNorm)
    if min(values.shape) < 5 or not _is_smooth(values, logarithmic):
        return
    locator = LogLocator(numticks=6) if logarithmic else MaxNLocator(6)
    levels = np.asarray(locator.tick_values(norm.vmin, norm.vmax))
    levels = levels[(levels > norm.vmin) & (levels < norm.vmax)]
    if len(levels) == 0 or np.nanmin(values) == np.nanmax(values):
        return
    # White on the darker half of the colours, black on the lighter one.
    ink = ["white" if norm(level) < 0.55 else "black" for level in levels]
    lines = axes.contour(
        x, y, np.ma.masked_invalid(values), levels=levels, colors=ink, linewidths=0.7, linestyles="-"
    )
    if labelled:
        axes.clabel(lines, fontsize=7, fmt="%g", inline_spacing=2)


def add_colour_bar(axes: Axes, image: Any, label: str) -> None:
    """Beside the axes."""
    axes.get_figure().colorbar(image, ax=axes, label=label)  # pyright: ignore


def hatched_handle() -> Any:
    """For a legend."""
    from matplotlib.patches import Patch

    return Patch(**_HATCHED)


def _is_smooth(values: np.ndarray, logarithmic: bool) -> bool:
    """Whether differences of differences are smaller than differences. (Of noise they are larger by the
    square root of three, of random walks by that of two.)"""
    values = np.where(np.isfinite(values), values, np.nan)
    values = np.log(values) if logarithmic else values
    sizes = []
    for order in (1, 2):
        squares = np.concatenate([np.diff(values, order, axis=axis).ravel() ** 2 for axis in (0, 1)])
        squares = squares[np.isfinite(squares)]
        sizes.append(np.mean(squares) if squares.size else 0.0)
    return bool(0 < sizes[0] and sizes[1] < 1.2 * sizes[0])
