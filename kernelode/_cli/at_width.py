"""The report of moments at a width, as `moments` and `tangent` share it."""

import pathlib
from typing import Annotated, Any

import numpy as np
import rich.console
import typer

from kernelode._support.archive import write_arrays

from .errors import writing
from .figure import save_axes

Output = Annotated[
    str | None,
    typer.Option(
        help="Save all moments at the saved layers: .npz.",
        metavar="FILE",
        rich_help_panel="Output",
    ),
]


def save_numbers(path: pathlib.Path | None, numbers: dict[str, Any]) -> None:
    """Write the numbers, if there is a file for them."""
    if path is not None:
        with writing("--output", path):
            write_arrays(path, numbers)


def save_figure(
    figure: pathlib.Path | None,
    layers: list[int],
    at: Any,
    limit: Any,
    *,
    labels: tuple[str, str],
    symbol: str = "G",
) -> None:
    """Mean and spread of the first input and the first pair over depth, if there is a file for them."""
    if figure is None:
        return
    elements = [(0, 0), (0, 1)] if np.shape(limit)[-1] > 1 else [(0, 0)]
    from kernelode.plot import plot_kernel_at_width

    def draw(axes):
        plot_kernel_at_width(axes, layers, at, limit, elements, symbol=symbol)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])

    save_axes(figure, draw)


def print_notes(console: rich.console.Console, validity: float, error: float) -> None:
    """How far the numbers can be trusted."""
    console.print(
        f"* Corrections over the kernel, at most: {validity:.2g}; neglected: of the order of its square."
    )
    if validity > 0.5:
        console.print(
            "* Corrections are not small: at this width and depth the numbers are a rough guide at best."
        )
    console.print(f"* Relative error of the Gaussian expectations, estimated: {error:.1g}.")


def print_files(archive: pathlib.Path | None, figure: pathlib.Path | None) -> None:
    """What was saved."""
    for what, path in (("Moments", archive), ("Figure", figure)):
        if path is not None:
            print(f"{what}: {path}")
