"""Figures. Every function draws on the Matplotlib axes that it is given and returns them.

Matplotlib is not imported before they are: who has axes has it.
"""

from ._compare import plot_comparison as plot_comparison
from ._scaling import (
    plot_evidence_against_scale as plot_evidence_against_scale,
    plot_response_against_scale as plot_response_against_scale,
)
from ._width import (
    plot_kernel_at_width as plot_kernel_at_width,
    plot_moment_by_closure as plot_moment_by_closure,
)
