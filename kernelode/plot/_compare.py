"""Figures of theory beside simulation."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .._compare import Comparison
from ._width import STYLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:
    # Matplotlib is an optional dependency: at run time, axes are taken as they come.
    Axes = Any

_SYMBOLS = {
    "mean_kernel": r"$E[G]$",
    "mean_correction": r"$K_1$",
    "kernel_covariance": r"$V_4$",
    "limit_covariance": r"$V_4$",
}

_MARKERS: list[dict[str, Any]] = [
    {"fmt": shape, "markersize": 4, "markerfacecolor": "white", "elinewidth": 1} for shape in "os^Dvp"
]


def plot_comparison(
    axes: Axes, comparison: Comparison, quantity: str, labels: list[tuple[int, ...]] | None = None
) -> Axes:
    """One quantity against depth t: theory as lines with a band of its truncation error, simulation as
    points with standard errors.

    **Arguments**

    - `axes`: where to draw.
    - `comparison`: what `compare` returned.
    - `quantity`: one of those compared, such as `"mean_correction"`.
    - `labels`: the inputs of the components to show, such as `[(0, 0), (0, 1)]`. By default the first
        six.

    **Returns** `axes`.

    **Raises** `ValueError` for what was not compared.
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
        color, style = STYLES[number % len(STYLES)]
        axes.fill_between(
            t, theory - truncation, theory + truncation, color=color, alpha=0.2, linewidth=0
        )
        axes.plot(t, theory, linestyle=style, color=color, label=" ".join(map(str, label)))
        # Open markers and caps of different widths: components may nearly coincide.
        marker = _MARKERS[number % len(_MARKERS)]
        axes.errorbar(t, measured, error, color=color, capsize=1.5 + number, **marker)
    axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    axes.set_xlabel("depth t")
    axes.set_ylabel(_SYMBOLS[quantity])
    axes.legend(frameon=False, fontsize="small", title="inputs", loc="upper left", bbox_to_anchor=(1, 1))
    return axes
