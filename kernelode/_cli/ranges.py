"""Lists of numbers on the command line: one, a few, or a range."""

import math
from typing import Annotated, Any

import numpy as np
import typer

from .errors import BadInput

_MOST = 100_000


def values_option(what: str) -> Any:
    """An option that takes a list of numbers, for `Annotated`."""
    return typer.Option(
        help=f"{what}: a number, several (`0.5,1,2`), a range of so many (`0.5:2:16`), or one with equal "
        "ratios (`0.05:2:40:log`).",
        metavar="VALUES",
        rich_help_panel="Network",
    )


ResidualScales = Annotated[str, values_option("rho of every block")]
WeightVariances = Annotated[str, values_option("C_W: fan-in times the variance of a weight")]
BiasVariances = Annotated[str, values_option("C_b: the variance of a bias")]


def parse_values(option: str, text: str) -> np.ndarray:
    """The numbers, none negative. **Raises** `BadInput` if it is not a valid list."""
    try:
        values = _range(option, *text.split(":")) if ":" in text else _numbers(text.split(","))
    except ValueError:
        raise BadInput(
            f"{option} must be a number, several (`0.5,1,2`) or a range (`0.5:2:16`, `0.05:2:40:log`); "
            f"got `{text}`."
        ) from None
    if not all(math.isfinite(x) and x >= 0 for x in values):
        raise BadInput(f"{option} must be numbers that are not negative, got `{text}`.")
    if len(np.unique(values)) < len(values):
        raise BadInput(f"{option} has the same value more than once: `{text}`.")
    return values


def _numbers(entries: list[str]) -> np.ndarray:
    return np.array([float(entry) for entry in entries])


def _range(
    option: str, low: str, high: str, count: str = "", spacing: str = "", *more: str
) -> np.ndarray:
    if more or spacing not in ("", "log"):
        raise ValueError
    first, last, points = float(low), float(high), int(count)
    if not 2 <= points <= _MOST:
        raise BadInput(f"{option}: a range must have 2 to {_MOST} values, got {points}.")
    if not (math.isfinite(first) and math.isfinite(last) and last > first):
        raise BadInput(f"{option}: a range must end above where it starts, got `{low}:{high}`.")
    if spacing and not first > 0:
        raise BadInput(f"{option}: a range with equal ratios must start above zero, got `{low}`.")
    return np.geomspace(first, last, points) if spacing else np.linspace(first, last, points)
