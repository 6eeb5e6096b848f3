"""When a run has measured enough."""

import abc

import equinox as eqx
import numpy as np

from .._support.checks import scalar
from ._ensemble import Ensemble
from ._estimates import Estimates

#: A standard error from fewer bins is too uncertain to stop by.
_BINS = 16


class AbstractGoal(eqx.Module):
    """A precision at which a run ends."""

    @abc.abstractmethod
    def reached(self, ensemble: Ensemble) -> bool:
        """Whether it is there."""


class RelativeError(AbstractGoal):
    """Every standard error at most `tolerance` times the largest entry of its layer, or a thousandth of
    the largest of all (a start may have nothing to measure).

    **Arguments**

    - `tolerance`: such as 1e-3.
    - `of`: an estimate by its name, such as `"kernel_covariance"` or `"mean_correction"`.
    """

    tolerance: float | int
    of: str = "kernel_covariance"

    def __check_init__(self) -> None:
        _check(self.tolerance, self.of)

    def reached(self, ensemble: Ensemble) -> bool:
        measured = _measured(ensemble, self.of)
        if measured is None:
            return False
        axes = tuple(range(1, measured.value.ndim))
        size = np.max(np.abs(measured.value), axis=axes, keepdims=True)
        size = np.maximum(size, 1e-3 * np.max(size))
        return bool(np.all(measured.standard_error <= self.tolerance * size))


class AbsoluteError(AbstractGoal):
    """Every standard error at most `tolerance`, in the units of the estimate."""

    tolerance: float | int
    of: str = "mean_correction"

    def __check_init__(self) -> None:
        _check(self.tolerance, self.of)

    def reached(self, ensemble: Ensemble) -> bool:
        measured = _measured(ensemble, self.of)
        return measured is not None and bool(np.all(measured.standard_error <= self.tolerance))


def _measured(ensemble: Ensemble, name: str):
    return getattr(ensemble.estimates, name) if np.sum(ensemble.counts > 0) >= _BINS else None


def _check(tolerance: float | int, name: str) -> None:
    scalar("tolerance", tolerance, positive=True)
    if name == "names" or not isinstance(vars(Estimates).get(name), property):
        raise ValueError(f"`of` must name an estimate, such as 'kernel_covariance'; got {name!r}.")
