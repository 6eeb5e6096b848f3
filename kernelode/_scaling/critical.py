"""K*, the variance at which the diagonal response of a flow is largest."""

import numpy as np

from .._architecture import AbstractResidualNetwork
from .optimal_time import optimal_flow_time
from .status import STATUS


def critical_variance(network: AbstractResidualNetwork) -> float:
    """The variance K* up to which the diagonal response of the network's flow grows: zero if it grows at
    none, infinite if at all. It does not depend on where the flow starts (docs/theory.md)."""
    # From next to nothing, every K* is ahead.
    found = optimal_flow_time(network, np.full((1, 1), 1e-6), pairs=False).diagonal
    if np.all(found.status == STATUS.increasing):
        return np.inf
    return float(found.kernel[0]) if np.all(found.interior) else 0.0
