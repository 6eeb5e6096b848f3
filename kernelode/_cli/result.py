"""Everything that `kernelode rho` shows: the question and the answer."""

import dataclasses
import math

import numpy as np

import kernelode as ko

from .data import DataSet
from .evidence import Problem, Split
from .options import Recipe
from .study import Study, once_a_pair

STATUSES = ("interior", "decreasing", "increasing", "failed")


@dataclasses.dataclass(frozen=True)
class Result:
    """A study, and what was asked.

    - `factor`: of the input kernel; `input_scale`: the mean diagonal that it gives, None for raw data.
    - `split`, `problem`: the regression; None if there is none, and then `skipped` says why.
    """

    recipe: Recipe
    data: DataSet
    samples: np.ndarray
    factor: float
    input_scale: float | None
    seed: int
    study: Study
    split: Split | None
    problem: Problem | None
    noise: float
    skipped: str | None


def status_masks(estimate: ko.ScaleEstimate) -> dict[str, np.ndarray]:
    """For each status, which elements have it."""
    return {name: np.asarray(estimate.status == getattr(ko.STATUS, name)) for name in STATUSES}


def status_counts(estimate: ko.ScaleEstimate) -> dict[str, int]:
    """For each status, how many inputs, or pairs a < b, have it."""
    return {name: int(np.sum(once_a_pair(mask))) for name, mask in status_masks(estimate).items()}


def as_text(value) -> str:
    """Four digits; a dash for a value that is not finite."""
    value = float(value)
    return f"{value:.4g}" if math.isfinite(value) else "-"
