from .estimate import (
    OptimalScale as OptimalScale,
    OptimalTime as OptimalTime,
    ScaleEstimate as ScaleEstimate,
    Summary as Summary,
    TimeEstimate as TimeEstimate,
)
from .optimal import optimal_residual_scale as optimal_residual_scale
from .optimal_time import optimal_flow_time as optimal_flow_time
from .status import STATUS as STATUS
