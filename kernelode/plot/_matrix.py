"""Kernel matrices as images."""

from typing import Any

import numpy as np

from ._image import COLOURS, colour_norm, hatch_missing, hatched_handle
from ._style import Axes, legend_above


def plot_kernel_matrix(axes: Axes, before: Any, after: Any = None) -> Axes:
    """A kernel matrix as an image; or two side by side within the axes, with one scale of colours.

    Rows run from top to bottom. Entries that are not finite are hatched. The bar of colours is
    `axes.child_axes[0]`, whose label can be changed.

    **Arguments**

    - `axes`: where to draw.
    - `before`: shape (n, n), such as the input kernel.
    - `after`: of the same shape, such as the kernel of the last layer.

    **Returns** `axes`.

    **Raises** `ValueError` for a matrix that is not square, or for two of different sizes.
    """
    matrices = [_checked("before", before)]
    if after is not None:
        matrices.append(_checked("after", after))
    n = len(matrices[0])
    if len(matrices[-1]) != n:
        raise ValueError(
            f"`after` must have the shape of `before`, ({n}, {n}); got {matrices[-1].shape}."
        )
    norm = colour_norm(np.stack(matrices), logarithmic=False)
    # From the first column of one image to that of the next.
    stride = 1.12 * n
    edges, middle = np.arange(n + 1) - 0.5, (n - 1) / 2
    for number, matrix in enumerate(matrices):
        x = edges + number * stride
        hatch_missing(axes, x, edges, matrix)
        # Unlike cells, an image is averaged where it has more entries than there are pixels.
        image = axes.imshow(
            np.ma.masked_invalid(matrix), norm=norm, cmap=COLOURS, extent=(x[0], x[-1], n - 0.5, -0.5)
        )
        if after is not None:
            axes.annotate(
                ("before", "after")[number],
                (middle + number * stride, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                va="bottom",
            )
    ticks = np.arange(0, n, _step(n))
    places = np.concatenate([ticks + number * stride for number in range(len(matrices))])
    axes.set_xticks(places, np.tile(ticks, len(matrices)).astype(str))
    axes.set_yticks(ticks, ticks.astype(str))
    # The rest of the width holds the colour bar.
    share = 0.8 if after is None else 0.86
    right = (n + stride * (len(matrices) - 1)) / share - 0.5
    axes.set(xlim=(-0.5, right), ylim=(n - 0.5, -0.5), aspect="equal", frame_on=False)
    axes.set_xlabel("input $b$", x=share / 2)
    axes.set_ylabel("input $a$")
    if np.any(np.isfinite(matrices)):
        bar = axes.inset_axes((share + 0.02, 0, 0.05 * share / len(matrices), 1))
        axes.get_figure().colorbar(image, cax=bar, label="kernel $K_{ab}$")  # pyright: ignore
    if not np.all(np.isfinite(matrices)):
        legend_above(axes, [hatched_handle()], ["no value"], pad=0.2 if after is None else 2.4)
    return axes


def _checked(name: str, matrix: Any) -> np.ndarray:
    matrix = np.asarray(matrix, float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"`{name}` must have shape (n, n), got {matrix.shape}.")
    return matrix


def _step(n: int) -> int:
    """Between labelled inputs: at most seven of them."""
    steps = [factor * 10**power for power in range(12) for factor in (1, 2, 5)]
    return next(step for step in steps if n <= 7 * step)
