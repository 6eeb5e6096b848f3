"""Figures. Every function draws on the Matplotlib axes that it is given and returns them.

Neither Matplotlib nor xarray is imported before they are: who has axes has the one, who has a DataArray
the other. Legends stand above the axes; `Figure(layout="constrained")` makes room for them.
"""

from ._compare import plot_comparison as plot_comparison
from ._depth import (
    plot_kernel_against_depth as plot_kernel_against_depth,
    plot_response_against_depth as plot_response_against_depth,
)
from ._matrix import plot_kernel_matrix as plot_kernel_matrix
from ._scale_depth import plot_scale_against_depth as plot_scale_against_depth
from ._scaling import (
    plot_evidence_against_scale as plot_evidence_against_scale,
    plot_response_against_scale as plot_response_against_scale,
)
from ._sweep import plot_sweep as plot_sweep
from ._width import (
    plot_kernel_at_width as plot_kernel_at_width,
    plot_moment_by_closure as plot_moment_by_closure,
)
