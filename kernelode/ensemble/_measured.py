"""Estimates with standard errors, from sums over many batches: the delete-one-bin jackknife."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Measured(NamedTuple):
    """An estimate.

    - `value`: the estimate; a numpy array, float64.
    - `scatter`: its uncertainty by bins, shape (bins, *value.shape): sum over bins of
        scatter_i scatter_j is the covariance of the errors of its entries i and j.
    """

    value: np.ndarray
    scatter: np.ndarray

    @property
    def standard_error(self) -> np.ndarray:
        """The standard error of every entry."""
        return np.sqrt(np.sum(self.scatter**2, axis=0))

    def map(self, linear: Callable[[np.ndarray], np.ndarray]) -> "Measured":
        """A linear map of the estimate; it acts on trailing axes."""
        return Measured(linear(self.value), linear(self.scatter))


def combine(estimates: Sequence[Measured], weights: Sequence[float]) -> Measured:
    """The sum of estimates with weights, for independent estimates."""
    value = np.sum([a * each.value for a, each in zip(weights, estimates)], axis=0)
    return Measured(value, np.concatenate([a * each.scatter for a, each in zip(weights, estimates)]))


def jackknife(
    statistic: Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray],
    sums: Mapping[str, np.ndarray],
    counts: np.ndarray,
) -> Measured:
    """A smooth statistic of means, and what it scatters by when single bins are left out.

    With h = N / m for a bin of m of the N samples, theta_(-) the statistic without it and the
    pseudo-value tau = h theta - (h - 1) theta_(-), the variance is the mean over bins of
    (tau - <tau>)^2 / (h - 1) (Busing, Meijer & van der Leeden, Stat. Comput. 9, 3 (1999)).

    - `statistic`: of (means by name, their number of samples); leading axis of both: replicates.
    - `sums`: by name, shape (bins, ...); `counts`: samples, (bins,).
    """
    used = counts > 0
    counts = counts[used].astype(float)
    sums = {name: values[used] for name, values in sums.items()}
    total = np.sum(counts)

    def means(left_out: bool) -> tuple[dict[str, np.ndarray], np.ndarray]:
        number = total - counts if left_out else np.array([total])
        take = lambda x: np.sum(x, axis=0) - x if left_out else np.sum(x, axis=0)[None]
        over = lambda x: x / number.reshape(-1, *[1] * (x.ndim - 1))
        return {name: over(take(values)) for name, values in sums.items()}, number

    whole = statistic(*means(False))[0]
    parts = statistic(*means(True))
    h = (total / counts).reshape(-1, *[1] * whole.ndim)
    pseudo = h * whole[None] - (h - 1) * parts
    scatter = (pseudo - np.mean(pseudo, axis=0)) / np.sqrt((h - 1) * len(counts))
    return Measured(whole, scatter)
