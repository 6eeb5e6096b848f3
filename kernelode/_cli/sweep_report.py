"""The output of `kernelode sweep`: a table, a figure, a JSON document."""

from collections.abc import Callable
from typing import Any

import numpy as np
import rich.console
import rich.table

from .inputs import Inputs
from .quantities import Quantity
from .report import make_table
from .result import as_text

_ROWS = 12
_KINDS = {"diagonal": "inputs", "off_diagonal": "pairs"}


def panel(values, quantity: Quantity) -> Callable[[Any], Any]:
    """A function that draws one result on axes."""

    def draw(axes):
        from kernelode.plot import plot_sweep

        plot_sweep(axes, values.assign_attrs(long_name=quantity.label))
        axes.set_title(f"mean over {_KINDS[values.name]}", fontsize="medium")

    return draw


def sweep_document(found, quantity: Quantity, inputs: Inputs, fixed: dict[str, float]) -> dict[str, Any]:
    """The document that `--json` prints; null for numbers that are not finite."""
    plain = lambda array: np.array(np.where(np.isfinite(array), array.astype(object), None)).tolist()
    return {
        "quantity": quantity.value,
        "data": inputs.data.name,
        "samples": inputs.samples.tolist(),
        "factor": inputs.factor,
        "fixed": fixed,
        "axes": {name: labels.values.tolist() for name, labels in found.coords.items()},
        "results": {name: plain(values.values) for name, values in found.data_vars.items()},
    }


def print_sweep(console: rich.console.Console, found, quantity: Quantity) -> None:
    """All values of a small sweep; of a large one the largest and the least, and where they are."""
    if found["diagonal"].size <= _ROWS:
        console.print(_all_values(found, quantity))
    else:
        console.print(_extremes(found, quantity))
    missing = int(np.sum(~np.isfinite(found["diagonal"].values + found["off_diagonal"].values)))
    if quantity is not Quantity.rho:
        if missing:
            console.print(f"* At {missing} points there is no value (-): the kernel overflows.")
    else:
        for name, kind in _KINDS.items():
            share = found[f"{name}_interior"].values
            console.print(
                f"* {kind.capitalize()}: the optimum is interior for all at {np.mean(share == 1):.0%} of "
                f"the points, for none at {np.mean(share == 0):.0%}."
            )


def _all_values(found, quantity: Quantity) -> rich.table.Table:
    axes = list(found.coords)
    table = make_table(f"Mean {quantity.value}", *axes, *_KINDS.values())
    for index in np.ndindex(found["diagonal"].shape):
        table.add_row(*_places(found, index), *(as_text(found[name].values[index]) for name in _KINDS))
    return table


def _extremes(found, quantity: Quantity) -> rich.table.Table:
    axes = list(found.coords)
    table = make_table(f"Mean {quantity.value}", "", "", quantity.value, *axes)
    for name, kind in _KINDS.items():
        values = found[name].values
        for what, choose in (("largest", np.nanargmax), ("least", np.nanargmin)):
            if np.all(np.isnan(values)):
                table.add_row(kind, what, "-", *("-" for _ in axes))
                continue
            index = np.unravel_index(choose(values), values.shape)
            table.add_row(kind, what, as_text(values[index]), *_places(found, index))
    return table


def _places(found, index) -> list[str]:
    return [as_text(labels[i]) for labels, i in zip(found.coords.values(), index)]
