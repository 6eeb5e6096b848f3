from .base import (
    AbstractClosure as AbstractClosure,
    AbstractMomentClosure as AbstractMomentClosure,
    AbstractPairable as AbstractPairable,
    AbstractPairClosure as AbstractPairClosure,
    AbstractTangentClosure as AbstractTangentClosure,
    TangentMoments as TangentMoments,
    WidthMoments as WidthMoments,
)
from .default import SINGLE_INPUT as SINGLE_INPUT, default_closure as default_closure
from .g_only import GOnly as GOnly
from .mean import MeanOnly as MeanOnly
from .tangent_differential import (
    DifferentialMoments as DifferentialMoments,
    TangentDifferential as TangentDifferential,
)
from .tangent_kernel import TangentKernel as TangentKernel, TangentReadOut as TangentReadOut
from .tangent_tower import TangentTower as TangentTower
from .wick_tower import WickTower as WickTower
