"""Kernels and responses against depth, with or without measured points."""

from typing import Any

import numpy as np

from .._depth.response import Response
from .._kernel import input_pairs
from ._checks import (
    Measured,
    checked_axes,
    checked_depths,
    checked_elements,
    checked_matrices,
    checked_measured,
)
from ._style import (
    DIAGONAL,
    NEUTRAL,
    OFF_DIAGONAL,
    Axes,
    draw_band,
    draw_line,
    draw_points,
    legend_above,
    line_style,
    set_calm_limits,
)


def plot_kernel_against_depth(
    axes: Axes,
    depths: Any,
    kernel: Any,
    elements: list[tuple[int, int]],
    *,
    measured: Any = None,
) -> Axes:
    """Elements of the kernel against depth, each a line; what was measured as points with error bars.

    **Arguments**

    - `axes`: where to draw.
    - `depths`: layers or times, shape (times,).
    - `kernel`: at those depths, shape (times, n, n), such as `Solution.mean_kernel`.
    - `elements`: which elements (a, b) to show, at most six.
    - `measured`: depths (m,), values (m, n, n) and standard errors (m, n, n) or `None`.

    **Returns** `axes`.

    **Raises** `ValueError` where shapes do not fit, or for an element that does not exist.
    """
    checked_axes(axes)
    kernel = checked_matrices("kernel", kernel)
    depths = checked_depths(depths, len(kernel), "kernel")
    elements = checked_elements(elements, kernel.shape[1])
    points = checked_measured(measured, kernel.shape[1:])
    for number, (a, b) in enumerate(elements):
        draw_line(axes, depths, kernel[:, a, b], label=f"$K_{{{a},{b}}}$", **line_style(number))
    draw_measured(axes, points, elements)
    return _finish(axes, "kernel")


def plot_response_against_depth(
    axes: Axes,
    depths: Any,
    response: Response,
    elements: list[tuple[int, int]] | None = None,
    *,
    measured: Any = None,
) -> Axes:
    """Responses against depth: of chosen elements, or the mean over all elements of a kind.

    Any response with a leading axis over depth will do: chi or eta of `layer_response` and
    `response_flow`. The axis is linear; `axes.set_yscale("log")` suits a response of many decades.

    **Arguments**

    - `axes`: where to draw.
    - `depths`: layers or times, shape (times,). chi is of layers 0 .. L, eta of layers 1 .. L.
    - `response`: at those depths.
    - `elements`: which to show, at most six: (a, a) is chi_aa;aa, (a, b) is chi_ab;ab. By default, the
        mean over all diagonal ones and over all pairs a < b, shaded by their standard deviation.
    - `measured`: depths (m,), values and standard errors (or `None`). Each of the latter two is a
        `Response`, a tuple of diagonal (m, n) and off-diagonal (m, n, n) elements, or an array (m, n, n)
        of both. Where means over elements are shown, so are those of the points, with the mean of the
        standard errors: an error of a mean is at most that, however the elements depend on each other.

    **Returns** `axes`.

    **Raises** `ValueError` where shapes do not fit, or for an element that does not exist.
    """
    checked_axes(axes)
    values = checked_matrices("response", _as_matrices(response))
    depths = checked_depths(depths, len(values), "response")
    n = values.shape[1]
    if isinstance(measured, tuple | list):
        measured = tuple(_as_matrices(part) for part in measured)
    points = checked_measured(measured, (n, n))
    if elements is None:
        _draw_means(axes, depths, values, points)
    else:
        elements = checked_elements(elements, n)
        for number, (a, b) in enumerate(elements):
            draw_line(axes, depths, values[:, a, b], label=f"({a}, {b})", **line_style(number))
        draw_measured(axes, points, elements)
    return _finish(axes, "response")


def draw_measured(axes: Axes, points: Measured | None, elements: list[tuple[int, int]]) -> None:
    """Points of several elements in their colours, and one entry for them in the legend."""
    if points is None:
        return
    for number, (a, b) in enumerate(elements):
        errors = None if points.errors is None else points.errors[:, a, b]
        draw_points(axes, points.depths, points.values[:, a, b], errors, number)
    _explain_points(axes)


def _explain_points(axes: Axes) -> None:
    axes.plot([], [], "o", color=NEUTRAL, markersize=4, markerfacecolor="white", label="measured")


def _draw_means(axes: Axes, depths: np.ndarray, values: np.ndarray, points: Measured | None) -> None:
    n = values.shape[1]
    kinds = [("diagonal", (np.arange(n), np.arange(n)), DIAGONAL)]
    if n > 1:
        kinds.append(("off-diagonal", input_pairs(n), OFF_DIAGONAL))
    for number, (name, (rows, columns), style) in enumerate(kinds):
        chosen = values[:, rows, columns]
        count = chosen.shape[1]
        mean, spread = chosen.mean(axis=1), chosen.std(axis=1)
        if count > 1:
            draw_band(axes, depths, mean - spread, mean + spread, style["color"])
        label = f"{name}, mean of {count}" if count > 1 else name
        draw_line(axes, depths, mean, label=label, **style)
        if points is not None:
            middle = points.values[:, rows, columns].mean(axis=1)
            errors = None if points.errors is None else points.errors[:, rows, columns].mean(axis=1)
            draw_points(axes, points.depths, middle, errors, number)
    if points is not None:
        _explain_points(axes)


def _as_matrices(response: Any) -> Any:
    """chi_aa;aa on the diagonal and chi_ab;ab off it; what is no response is left as it is."""
    if isinstance(response, Response):
        response = (response.diagonal, response.off_diagonal)
    if not isinstance(response, tuple) or len(response) != 2:
        return response
    diagonal, matrices = np.asarray(response[0], float), np.array(response[1], float)
    if diagonal.ndim != 2 or matrices.shape != (*diagonal.shape, diagonal.shape[-1]):
        raise ValueError(
            "A response must have diagonal (times, n) and off-diagonal (times, n, n) elements, such as "
            f"those of `layer_response`; got {diagonal.shape} and {matrices.shape}."
        )
    index = np.arange(diagonal.shape[1])
    matrices[:, index, index] = diagonal
    return matrices


def _finish(axes: Axes, label: str) -> Axes:
    axes.set_xlabel("depth")
    axes.set_ylabel(label)
    set_calm_limits(axes)
    legend_above(axes)
    return axes
