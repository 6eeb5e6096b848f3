"""Figures of moments of order 1/n."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .._width import AtWidth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:
    # Matplotlib is an optional dependency: at run time, axes are taken as they come.
    Axes = Any

#: Colour-blind safe (Okabe & Ito), and told apart by line style in print.
STYLES: list[tuple[str, Any]] = [
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#E69F00", (0, (5, 1, 1, 1, 1, 1))),
    ("#56B4E9", (0, (1, 3))),
]


def plot_kernel_at_width(
    axes: Axes,
    depths: Any,
    at_width: AtWidth,
    mean_kernel: Any,
    elements: list[tuple[int, int]],
) -> Axes:
    """The kernel of networks of one width against depth: the mean, a band of one standard deviation
    over networks, and the kernel of infinite width as a thin line.

    **Arguments**

    - `axes`: where to draw.
    - `depths`: the saved depths, shape (times,).
    - `at_width`: what `Solution.at_width` returned.
    - `mean_kernel`: K0, shape (times, n, n).
    - `elements`: which elements (a, b) of the kernel to show.

    **Returns** `axes`.
    """
    depths, kernel = np.asarray(depths), np.asarray(mean_kernel)
    mean, spread = np.asarray(at_width.mean), np.asarray(at_width.standard_deviation)
    for number, (a, b) in enumerate(elements):
        color, style = STYLES[number % len(STYLES)]
        low, high = mean[:, a, b] - spread[:, a, b], mean[:, a, b] + spread[:, a, b]
        axes.fill_between(depths, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(depths, mean[:, a, b], linestyle=style, color=color, label=f"({a}, {b})")
        axes.plot(depths, kernel[:, a, b], color=color, linewidth=0.6)
    axes.set_xlabel("depth")
    axes.set_ylabel("kernel")
    axes.legend(frameon=False, title="element")
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
    - `measured`: depths, values and standard errors of a simulation.

    **Returns** `axes`.
    """
    for number, (name, values) in enumerate(curves.items()):
        color, style = STYLES[number % len(STYLES)]
        axes.plot(np.asarray(depths), np.asarray(values), linestyle=style, color=color, label=name)
    if measured is not None:
        at, values, errors = measured
        axes.errorbar(at, values, errors, fmt="k.", capsize=2, label="simulation")
    axes.set_xlabel("depth t")
    axes.set_ylabel(label)
    axes.legend(frameon=False, fontsize="small")
    return axes
