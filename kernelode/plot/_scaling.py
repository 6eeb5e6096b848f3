"""Figures against the residual scale: responses, and regression with the Gaussian process."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from .._depth.response import Response
from .._kernel import input_pairs
from .._scaling import OptimalScale, ScaleEstimate
from .._support.checks import instance
from ._checks import checked_axes, numbers
from ._style import (
    DIAGONAL,
    OFF_DIAGONAL,
    STYLES,
    Axes,
    draw_band,
    draw_line,
    label_plainly,
    legend_above,
)

_EVIDENCE: dict[str, Any] = {"color": "#000000", "linestyle": "-", "marker": "o", "markersize": 3.5}
_ERROR: dict[str, Any] = {
    "color": STYLES[2][0],
    "linestyle": "-",
    "marker": "s",
    "markersize": 3.5,
    "markerfacecolor": "white",
}
#: Share of the height that is kept free at the top, for marks.
_STRIP = 0.16
#: Share of the width that the name of a mark takes.
_ROOM = 0.33
_SCALE_LABEL = r"residual scale $\rho$"


def plot_response_against_scale(
    axes: Axes,
    scales: Float[Array | np.ndarray, " scales"],
    response: Response,
    optimum: OptimalScale | None = None,
) -> Axes:
    """chi_out against rho on logarithmic axes: mean over elements, shaded by their standard deviation.

    **Arguments**

    - `axes`: Matplotlib axes.
    - `scales`: residual scales, increasing and positive.
    - `response`: chi_out, as from `response`, with a leading axis over `scales`.
    - `optimum`: rho*, to mark the mean over elements, shaded by their standard deviation.
    """
    checked_axes(axes)
    instance("response", response, Response, "a `Response` with a leading axis over `scales`")
    diagonal = np.asarray(response.diagonal)
    if numbers("scales", scales).shape != diagonal.shape[:1] or diagonal.ndim != 2:
        raise ValueError(
            "`response` must have a leading axis over `scales`, got shape "
            f"{diagonal.shape} for {np.size(scales)} scales."
        )
    rows, columns = input_pairs(diagonal.shape[-1])
    off_diagonal = np.asarray(response.off_diagonal)[:, rows, columns]
    _band(axes, scales, diagonal, r"diagonal, $\chi_{aa;aa}$", DIAGONAL)
    if off_diagonal.size:
        _band(axes, scales, off_diagonal, r"off-diagonal, $\chi_{ab;ab}$", OFF_DIAGONAL)
    axes.set_yscale("log")
    axes.set_ylabel(r"output response $\chi_\mathrm{out}$")
    _finish(axes, scales, optimum)
    _make_room(axes)
    legend_above(axes)
    return axes


def plot_evidence_against_scale(
    axes: Axes,
    scales: Float[Array | np.ndarray, " scales"],
    log_evidence: Float[Array | np.ndarray, " scales"],
    error: Float[Array | np.ndarray, " scales"],
    optimum: OptimalScale | None = None,
    *,
    error_label: str = "held-out error",
) -> Axes:
    """Log evidence (left) and held-out error (right axis) of a Gaussian process against rho.

    **Arguments**

    - `axes`: Matplotlib axes; the error gets a twin of theirs.
    - `scales`: residual scales, increasing and positive.
    - `log_evidence`, `error`: at every scale. What is not finite is left out.
    - `optimum`: rho*, to mark the mean over elements, shaded by their standard deviation.
    - `error_label`: what the error is.
    """
    checked_axes(axes)
    twin = axes.twinx()
    twin.spines["right"].set_visible(True)
    (left,) = axes.plot(scales, _finite(log_evidence), **_EVIDENCE)
    (right,) = twin.plot(scales, _finite(error), **_ERROR)
    axes.set_ylabel("log evidence per sample")
    twin.set_ylabel(error_label, color=right.get_color())
    twin.tick_params(axis="y", colors=right.get_color())
    _finish(axes, scales, optimum)
    twin.set_xlim(axes.get_xlim())
    _make_room(axes)
    _make_room(twin)
    legend_above(axes, [left, right], ["log evidence", error_label])
    return axes


def _make_room(axes: Axes) -> None:
    """Raise the upper limit, so that a strip at the top is free of data."""
    to_data = axes.transData.inverted().transform
    (_, low), (_, high) = to_data(axes.transAxes.transform([(0, 0), (0, 1 + _STRIP)]))
    axes.set_ylim(float(low), float(high))


def _finite(values) -> np.ndarray:
    values = np.asarray(values, float)
    return np.where(np.isfinite(values), values, np.nan)


def _band(axes: Axes, scales, values: np.ndarray, label: str, style: dict[str, Any]) -> None:
    """Mean and standard deviation over the last axis, in the logarithm: the axis is logarithmic."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(values > 0, np.log(values), np.nan)
    middle, spread = logs.mean(axis=-1), logs.std(axis=-1)
    scales = np.asarray(scales, float)
    draw_band(axes, scales, np.exp(middle - spread), np.exp(middle + spread), style["color"])
    draw_line(axes, scales, np.exp(middle), label=label, **style)


def _finish(axes: Axes, scales, optimum: OptimalScale | None) -> None:
    axes.set_xscale("log")
    axes.set_xlim(float(scales[0]), float(scales[-1]))
    axes.set_xlabel(_SCALE_LABEL)
    label_plainly(axes.xaxis)
    if optimum is None:
        return
    found = [_Mark("diagonal", optimum.diagonal, DIAGONAL)]
    if optimum.pairs is not None:
        found.append(_Mark("off-diagonal", optimum.off_diagonal, OFF_DIAGONAL))
    found = [mark for mark in found if np.any(mark.estimate.interior)]
    # Names stand on the outer sides of the lines, unless there is no room: then in two rows.
    places = [_place(axes, mark) for mark in found]
    outward = [places[0] > _ROOM, places[-1] < 1 - _ROOM] if found else []
    for i, mark in enumerate(found):
        to_the_left = outward[0] if i == 0 else not outward[1]
        _draw(axes, mark, "right" if to_the_left else "left", row=0 if all(outward) else i)


def _place(axes: Axes, mark: "_Mark") -> float:
    """Where the mean optimum is along the axis, from 0 to 1."""
    in_pixels = axes.transData.transform((float(mark.estimate.summary().mean), 1))
    return float(axes.transAxes.inverted().transform(in_pixels)[0])


class _Mark(NamedTuple):
    name: str
    estimate: ScaleEstimate
    style: dict[str, Any]


def _draw(axes: Axes, mark: _Mark, alignment: str, row: int) -> None:
    """A line at the mean optimum, shaded by the standard deviation, named in a row of the strip."""
    summary, colour = mark.estimate.summary(), mark.style["color"]
    mean, spread = float(summary.mean), float(summary.standard_deviation)
    axes.axvspan(max(mean - spread, mean / 10), mean + spread, color=colour, alpha=0.12, linewidth=0)
    axes.axvline(mean, linewidth=1, **mark.style)
    axes.annotate(
        rf"{mark.name} $\rho^* = {mean:.3g}$",
        (mean, 0.99 - row * _STRIP / 2),
        xycoords=("data", "axes fraction"),
        xytext=(4 if alignment == "left" else -4, 0),
        textcoords="offset points",
        ha=alignment,
        va="top",
        fontsize="small",
        color=colour,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
    )
