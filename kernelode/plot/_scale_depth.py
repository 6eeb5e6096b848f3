"""The optimal residual scale against depth, and its law of large depth."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._kernel import input_pairs
from .._scaling import OptimalScale, OptimalTime, ScaleEstimate, TimeEstimate
from .._support.checks import instance
from ._checks import checked_axes, checked_depths
from ._style import DIAGONAL, OFF_DIAGONAL, Axes, draw_points, label_plainly, legend_above


def plot_scale_against_depth(
    axes: Axes, depths: Any, scales: Sequence[OptimalScale], law: OptimalTime | None = None
) -> Axes:
    """rho* against the number L of blocks on logarithmic axes, and its law sqrt((t* + t1/L) / L).

    A point is the mean over the elements that have an interior optimum, its error bar their standard
    deviation; the legend says how many they are where it is not all of them, and a depth at which
    there is none has no point. The law is likewise the mean over its own interior elements; it has no
    value at the small depths at which t* + t1/L < 0 for one of them.

    **Arguments**

    - `axes`: where to draw.
    - `depths`: numbers of blocks, positive.
    - `scales`: results of `optimal_residual_scale` at each depth, for the same inputs.
    - `law`: the result of `optimal_flow_time` for them.

    **Returns** `axes`.

    **Raises** `ValueError` where lengths or inputs do not fit.
    """
    checked_axes(axes)
    for scale in scales:
        instance("scales", scale, OptimalScale, "a list of results of `optimal_residual_scale`")
    depths = checked_depths(depths, len(scales), "scales")
    if not np.all(depths > 0):
        raise ValueError(f"`depths` must be positive: the axis is logarithmic; got {depths}.")
    inputs = {scale.diagonal.value.shape for scale in scales}
    searched = {scale.pairs is None for scale in scales}
    if len(inputs) > 1 or len(searched) > 1:
        raise ValueError("`scales` must be of the same inputs at every depth, all with pairs or none.")
    if law is not None and {law.diagonal.time.shape} != inputs:
        raise ValueError(
            f"`law` must be of the inputs of `scales`, {inputs.pop()[0]} of them; "
            f"got {law.diagonal.time.shape[0]}."
        )
    kinds = [("diagonal", lambda found: found.diagonal, DIAGONAL)]
    if scales[0].pairs is not None and scales[0].diagonal.value.shape[0] > 1:
        kinds.append(("off-diagonal", lambda found: found.pairs, OFF_DIAGONAL))
    axes.set_xscale("log")
    axes.set_yscale("log")
    points, laws = [], []
    for number, (name, pick, style) in enumerate(kinds):
        found = [pick(scale) for scale in scales]
        points.append(_draw_scales(axes, depths, found, name, number, style["color"]))
        if law is not None and (estimate := pick(law)) is not None:
            laws.append(_draw_law(axes, depths, estimate, name, style))
    label_plainly(axes.xaxis)
    label_plainly(axes.yaxis)
    axes.set_xlabel("depth $L$")
    axes.set_ylabel(r"optimal residual scale $\rho^*$")
    handles = points + laws
    legend_above(axes, handles, [handle.get_label() for handle in handles])
    return axes


def _draw_scales(axes, depths, estimates: list[ScaleEstimate], name: str, number: int, color) -> Any:
    found = [estimate.summary() for estimate in estimates]
    mean = np.array([float(summary.mean) for summary in found])
    spread = np.array([float(summary.standard_deviation) for summary in found])
    count = found[0].count
    interior = [round(float(summary.interior_fraction) * count) for summary in found]
    some = np.array(interior) > 0
    mean = np.where(some, mean, np.nan)
    # A logarithmic axis has no room for more.
    below = np.minimum(spread, 0.9 * mean)
    return draw_points(
        axes, depths, mean, np.stack([below, spread]), number, color, label=name + _share(interior, count)
    )


def _draw_law(axes, depths, estimate: TimeEstimate, name: str, style: dict[str, Any]) -> Any:
    interior = np.asarray(estimate.interior)
    chosen = input_pairs(len(interior)) if interior.ndim == 2 else np.arange(len(interior))
    inside = interior[chosen]
    share = _share([int(inside.sum())], inside.size)
    if not inside.any():
        return axes.plot([], [], label=f"law, {name}{share}", **style)[0]
    margin = 1.5 if depths.min() == depths.max() else 1.0
    at = np.geomspace(depths.min() / margin, depths.max() * margin, 61)
    values = [np.mean(np.asarray(estimate.residual_scale(depth))[chosen][inside]) for depth in at]
    label = rf"{name}, $\sqrt{{(t^* + t_1/L)/L}}${share}"
    return axes.plot(at, values, linewidth=1.2, zorder=1, label=label, **style)[0]


def _share(interior: list[int], count: int) -> str:
    """How many elements have an interior optimum, where that is not all of them."""
    low, high = min(interior), max(interior)
    if low == count:
        return ""
    return f" ({low} of {count} interior)" if low == high else f" ({low} to {high} of {count} interior)"
