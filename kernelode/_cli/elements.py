"""Tables of kernel elements."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import rich.console
import rich.table

import kernelode as ko

from .inputs import Inputs
from .result import as_text

_ROWS = 15


def print_heading(
    console: rich.console.Console, inputs: Inputs, network: ko.ResNet, width: float | int
) -> None:
    """Which samples, and which network."""
    drawn = inputs.samples
    console.print(
        f"{inputs.data.name}: samples {', '.join(str(k) for k in drawn[:12])}"
        f"{', ...' if len(drawn) > 12 else ''}; input kernel times {inputs.factor:.4g}\n"
        f"{network.depth} blocks, rho = {float(network.residual_scale):.4g}, "
        f"C_W = {float(network.weight_variance):g}, C_b = {float(network.bias_variance):g}, "
        f"n = {width:g}\n"
    )


def print_elements(
    console: rich.console.Console,
    table: rich.table.Table,
    samples: np.ndarray,
    cells: Callable[[int, int], Iterable[Any]],
) -> None:
    """A row for each of the first elements (a, b), a <= b, with `cells(a, b)`."""
    count = len(samples)
    elements = [(a, b) for a in range(count) for b in range(a, count)]
    for a, b in elements[:_ROWS]:
        table.add_row(f"{samples[a]}, {samples[b]}", *(as_text(cell) for cell in cells(a, b)))
    console.print(table)
    if len(elements) > _ROWS:
        console.print(f"... and {len(elements) - _ROWS} more: --output or --json has all of them.")
