"""The inputs of a command: some samples of a data set, and their kernel."""

from typing import NamedTuple

import numpy as np

from . import options
from .data import DataSet
from .errors import BadInput


class Inputs(NamedTuple):
    """Samples of a data set, and their kernel.

    - `order`: all samples of the data set, in random order; `samples`: the first of them, sorted.
    - `factor`: of the input kernel; `kernel`: that of `samples`, times the factor.
    """

    data: DataSet
    order: np.ndarray
    samples: np.ndarray
    factor: float
    kernel: np.ndarray


def draw_inputs(
    data: DataSet, asked: int | None, default: int, lowest: int, seed: int, input_scale: float | None
) -> Inputs:
    """`asked` samples, or `default`, or all; the data scaled to a mean diagonal, or None for raw data."""
    factor = 1.0 if input_scale is None else input_scale / float(np.mean(data.variances()))
    order = np.random.default_rng(seed).permutation(data.size)
    samples = np.sort(order[: take("--samples", asked, default, lowest, data.size)])
    return Inputs(data, order, samples, factor, data.kernel(samples, factor))


def take(option: str, asked: int | None, default: int, lowest: int, available: int) -> int:
    """The number of samples to take: as asked for, or the default if there are that many."""
    if asked is None:
        return min(default, available)
    options.at_least(option, asked, lowest)
    if asked > available:
        raise BadInput(f"{option} is {asked}, but only {available} samples are there to take.")
    return asked
