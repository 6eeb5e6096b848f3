"""The theory of finite width, as commands ask for it."""

import enum
from collections.abc import Sequence
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import typer

import kernelode as ko

from .errors import BadInput, refusing

PANEL = "Theory"


class ClosureName(enum.StrEnum):
    """Closures by their names on the command line."""

    wick_tower = "wick-tower"
    g_only = "g-only"

    def closure(
        self, order: int, start: ko.GaussianRows | ko.FixedGram | None = None
    ) -> ko.WickTower | ko.GOnly:
        """The closure, the Wick tower truncated at `order`. **Raises** `BadInput` for a wrong one."""
        start = ko.GaussianRows() if start is None else start
        with refusing():
            return (
                ko.GOnly(start=start) if self is ClosureName.g_only else ko.WickTower(order, start=start)
            )

    def truncation(self, estimate: float) -> float:
        """The estimate of a truncation error, where there is one: NaN for what is not truncated."""
        return abs(estimate) if self is ClosureName.wick_tower else np.nan


Order = Annotated[int, typer.Option(help="Order of the Wick tower.", rich_help_panel=PANEL)]


def moments_of(
    network: ko.AbstractArchitecture,
    kernel: np.ndarray,
    closure: ko.WickTower | ko.GOnly | ko.TangentTower,
    layers: Sequence[int],
    *,
    pairs: bool,
) -> ko.Solution:
    """Moments of order 1/n. **Raises** `BadInput` where the kernel overflows."""
    propagate = ko.propagate_pairs if pairs else ko.propagate
    solution = propagate(network, kernel, closure=closure, layers=layers, throw=False)
    if solution.result != ko.RESULTS.successful:
        raise BadInput("The kernel overflows: reduce the residual scale, depth or variances.")
    return solution


def check_covered(network: ko.AbstractArchitecture, kernel: np.ndarray, closure: ko.TangentTower) -> None:
    """**Raises** `BadInput` for inputs that the tower is not known for."""
    try:
        closure.prepare(network, jnp.asarray(kernel))
    except ValueError as error:  # its sentence speaks of classes
        raise BadInput(
            "The theory needs samples of positive variance and, for an activation with kinks, none that "
            "is a multiple of another: leave out what repeats."
        ) from error
