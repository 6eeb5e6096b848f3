"""Figures of theory and simulation."""

import numpy as np

from .._compare import Comparison
from ._style import STYLES, Axes, draw_band, draw_line, draw_points, line_style

_SYMBOLS = {
    "mean_kernel": r"$E[G]$",
    "mean_correction": r"$K_1$",
    "kernel_covariance": r"$V_4$",
    "limit_covariance": r"$V_4$",
    "tangent_correction": r"$\Theta_1$",
    "tangent_covariance": "A",
    "tangent_mixed": "D",
    "tangent_cross": "F",
    "tangent_exchange": "B",
}


def plot_comparison(
    axes: Axes, comparison: Comparison, quantity: str, labels: list[tuple[int, ...]] | None = None
) -> Axes:
    """One quantity against depth t: theory as lines with a band of its truncation error, simulation as
    points with standard errors.

    **Arguments**

    - `axes`: where to draw.
    - `comparison`: a result of `compare`.
    - `quantity`: one of those compared, such as `"mean_correction"`.
    - `labels`: the inputs of the components to show, such as `[(0, 0), (0, 1)]`. By default the first
        six.

    **Returns** `axes`.

    **Raises** `ValueError` for a quantity that was not compared.
    """
    known = list(dict.fromkeys(row.labels for row in comparison.rows if row.quantity == quantity))
    if not known:
        raise ValueError(f"`quantity` must be one of those compared, got {quantity!r}.")
    missing = [label for label in labels or [] if label not in known]
    if missing:
        raise ValueError(f"`labels` must be inputs of components, such as {known[0]}; got {missing[0]}.")
    for number, label in enumerate(known[: len(STYLES)] if labels is None else labels):
        rows = [row for row in comparison.rows if (row.quantity, row.labels) == (quantity, label)]
        t, theory, truncation, measured, error = np.array(
            [(r.t, r.theory, r.truncation, r.measured, r.standard_error) for r in rows]
        ).T
        style = line_style(number)
        draw_band(axes, t, theory - truncation, theory + truncation, style["color"])
        draw_line(axes, t, theory, label=" ".join(map(str, label)), **style)
        draw_points(axes, t, measured, error, number)
    axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    axes.set_xlabel("depth t")
    axes.set_ylabel(_SYMBOLS[quantity])
    axes.legend(frameon=False, fontsize="small", title="inputs", loc="upper left", bbox_to_anchor=(1, 1))
    return axes
