"""Checks of the arguments of figures."""

from typing import Any, NamedTuple

import numpy as np

from .._support.checks import described
from ._style import STYLES


def checked_axes(axes: Any) -> None:
    """Refuse what nothing can be drawn on."""
    if not callable(getattr(axes, "plot", None)) or not hasattr(axes, "set_xlabel"):
        raise TypeError(
            f"`axes` must be Matplotlib axes, such as `plt.figure().gca()`, got {described(axes)}."
        )


def numbers(name: str, values: Any) -> np.ndarray:
    """`values` as an array of numbers."""
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be numbers, got {described(values)}.") from error


class Measured(NamedTuple):
    """Measured points: depths (m,), values and standard errors (m, ...)."""

    depths: np.ndarray
    values: np.ndarray
    errors: np.ndarray | None


def checked_depths(depths: Any, times: int, name: str) -> np.ndarray:
    """`depths` as an array that fits the leading axis of `name`."""
    depths = numbers("depths", depths)
    if depths.ndim != 1 or depths.size == 0:
        raise ValueError(f"`depths` must be a list of at least one depth, got shape {depths.shape}.")
    if len(depths) != times:
        raise ValueError(
            f"`depths` and `{name}` must have one length, got {len(depths)} depths and {times}."
        )
    return depths


def checked_matrices(name: str, values: Any) -> np.ndarray:
    """`values` as an array (times, n, n)."""
    values = numbers(name, values)
    if values.ndim != 3 or values.shape[1] != values.shape[2] or values.size == 0:
        raise ValueError(f"`{name}` must have shape (times, n, n), got {values.shape}.")
    return values


def checked_elements(elements: Any, n: int) -> list[tuple[int, int]]:
    """Pairs of inputs, at most as many as can be told apart."""
    try:
        elements = [tuple(element) for element in elements]
    except TypeError as error:
        raise TypeError(f"`elements` must be pairs (a, b), got {described(elements)}.") from error
    if not elements:
        raise ValueError("`elements` must name at least one element (a, b), got none.")
    if len(elements) > len(STYLES):
        raise ValueError(
            f"`elements` must be at most {len(STYLES)}, which can be told apart, got {len(elements)}: "
            "draw the others on other axes."
        )
    for element in elements:
        if len(element) != 2 or not all(isinstance(i, int | np.integer) for i in element):
            raise ValueError(f"`elements` must be pairs of integers (a, b), got {element}.")
        if not all(0 <= i < n for i in element):
            raise ValueError(f"`elements` must be of inputs 0 .. {n - 1}, got {element}.")
    return elements


def checked_measured(measured: Any, shape: tuple[int, ...]) -> Measured | None:
    """`measured` as arrays of which values and standard errors have `shape` at every depth."""
    if measured is None:
        return None
    if not isinstance(measured, tuple | list) or len(measured) != 3:
        raise ValueError("`measured` must be three things: depths, values and standard errors.")
    depths, values, errors = measured
    depths, values = np.atleast_1d(np.asarray(depths, float)), np.asarray(values, float)
    errors = None if errors is None else np.asarray(errors, float)
    expected = (len(depths), *shape)
    for name, array in (("values", values), ("standard errors", errors)):
        if array is not None and array.shape != expected:
            raise ValueError(
                f"`measured`: {name} at {len(depths)} depths must have shape {expected}, "
                f"got {array.shape}."
            )
    return Measured(depths, values, errors)
