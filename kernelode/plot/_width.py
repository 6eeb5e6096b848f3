"""Figures of moments of order 1/n."""

from typing import Any

import numpy as np

from .._closure.width import AtWidth, TangentAtWidth
from ._checks import checked_depths, checked_elements, checked_matrices, checked_measured
from ._depth import draw_measured
from ._style import NEUTRAL, Axes, draw_band, draw_line, legend_above, line_style, set_calm_limits


def plot_kernel_at_width(
    axes: Axes,
    depths: Any,
    at_width: AtWidth | TangentAtWidth,
    mean_kernel: Any,
    elements: list[tuple[int, int]],
    *,
    symbol: str = "G",
    measured: Any = None,
) -> Axes:
    """The kernel or the tangent kernel of networks of one width against depth: the mean, a band of one
    standard deviation over networks, and the kernel of infinite width as a thin line.

    **Arguments**

    - `axes`: where to draw.
    - `depths`: the saved depths, shape (times,).
    - `at_width`: a result of `Solution.at_width`, or of `TangentMoments.at_width`.
    - `mean_kernel`: K0, or Theta, shape (times, n, n).
    - `elements`: which elements (a, b) of the kernel to show, at most six.
    - `symbol`: what the kernel is called in the legend, in TeX.
    - `measured`: of the mean over networks, such as `mean_kernel` of an ensemble: depths (m,), values
        (m, n, n) and standard errors (m, n, n) or `None`. Drawn as points with error bars.

    **Returns** `axes`.

    **Raises** `ValueError` where shapes do not fit, or for an element that does not exist.
    """
    kernel = checked_matrices("mean_kernel", mean_kernel)
    depths = checked_depths(depths, len(kernel), "mean_kernel")
    elements = checked_elements(elements, kernel.shape[1])
    mean, spread = np.asarray(at_width.mean), np.asarray(at_width.standard_deviation)
    if mean.shape != kernel.shape:
        raise ValueError(
            f"`at_width` and `mean_kernel` must be of the same depths and inputs, got {mean.shape} and "
            f"{kernel.shape}."
        )
    points = checked_measured(measured, kernel.shape[1:])
    for number, (a, b) in enumerate(elements):
        style = line_style(number)
        low, high = mean[:, a, b] - spread[:, a, b], mean[:, a, b] + spread[:, a, b]
        draw_band(axes, depths, low, high, style["color"])
        draw_line(axes, depths, mean[:, a, b], label=f"${symbol}_{{{a},{b}}}$", **style)
        draw_line(
            axes, depths, kernel[:, a, b], color=style["color"], linewidth=0.6, alone="_", size=14.0
        )
    draw_measured(axes, points, elements)
    axes.plot([], [], color=NEUTRAL, linewidth=0.6, label="infinite width")
    axes.fill_between([], [], [], color=NEUTRAL, alpha=0.2, linewidth=0, label="spread over networks")
    axes.set_xlabel("depth")
    axes.set_ylabel("kernel")
    set_calm_limits(axes)
    legend_above(axes)
    return axes


def plot_moment_by_closure(
    axes: Axes, depths: Any, curves: dict[str, Any], label: str, measured: Any = None
) -> Axes:
    """One moment against depth, under several closures.

    **Arguments**

    - `axes`: where to draw.
    - `depths`: shape (times,).
    - `curves`: for each closure's name, the moment at those depths.
    - `label`: of the vertical axis.
    - `measured`: depths, values and standard errors (or `None`) of a simulation.

    **Returns** `axes`.

    **Raises** `ValueError` where lengths do not fit.
    """
    for number, (name, values) in enumerate(curves.items()):
        values = np.asarray(values, float)
        at = checked_depths(depths, len(values), f"curves[{name!r}]")
        draw_line(axes, at, values, label=name, **line_style(number))
    points = checked_measured(measured, ())
    if points is not None:
        axes.errorbar(*points, fmt="k.", capsize=2, label="simulation")
    axes.set_xlabel("depth t")
    axes.set_ylabel(label)
    axes.legend(frameon=False, fontsize="small", handlelength=2.6)
    return axes
