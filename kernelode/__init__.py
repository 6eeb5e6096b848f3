"""Kernels, responses and residual scaling of wide, deep networks at initialisation, in JAX."""

from . import (
    _deprecated as _deprecated,
    baselines as baselines,
    ensemble as ensemble,
    learning as learning,
    plot as plot,
)
from ._activation import (
    GELU as GELU,
    AbstractActivation as AbstractActivation,
    AbstractAutonomousActivation as AbstractAutonomousActivation,
    AbstractClosedFormActivation as AbstractClosedFormActivation,
    AbstractHomogeneousActivation as AbstractHomogeneousActivation,
    AbstractKinkedActivation as AbstractKinkedActivation,
    AbstractOddActivation as AbstractOddActivation,
    AbstractSmoothActivation as AbstractSmoothActivation,
    AbstractStraightActivation as AbstractStraightActivation,
    Elementwise as Elementwise,
    Erf as Erf,
    LeakyReLU as LeakyReLU,
    Linear as Linear,
    Polynomial as Polynomial,
    ReLU as ReLU,
    Sin as Sin,
    Softplus as Softplus,
    Swish as Swish,
    Tanh as Tanh,
)
from ._architecture import (
    MLP as MLP,
    AbstractArchitecture as AbstractArchitecture,
    AbstractLayered as AbstractLayered,
    AbstractResidualNetwork as AbstractResidualNetwork,
    Affine as Affine,
    Layer as Layer,
    ResNet as ResNet,
)
from ._architecture.rates import LearningRates as LearningRates
from ._architecture.start import (
    AbstractStart as AbstractStart,
    FixedGram as FixedGram,
    GaussianRows as GaussianRows,
    RandomCovariance as RandomCovariance,
)
from ._closure import (
    AbstractClosure as AbstractClosure,
    AbstractMomentClosure as AbstractMomentClosure,
    AbstractPairable as AbstractPairable,
    AbstractPairClosure as AbstractPairClosure,
    AbstractTangentClosure as AbstractTangentClosure,
    DifferentialMoments as DifferentialMoments,
    GOnly as GOnly,
    MeanOnly as MeanOnly,
    TangentDifferential as TangentDifferential,
    TangentKernel as TangentKernel,
    TangentMoments as TangentMoments,
    TangentReadOut as TangentReadOut,
    TangentTower as TangentTower,
    WickTower as WickTower,
    WidthMoments as WidthMoments,
)
from ._closure.width import AtWidth as AtWidth, TangentAtWidth as TangentAtWidth
from ._compare import Comparison as Comparison, compare as compare
from ._depth.diagnostics import (
    ClosureResidual as ClosureResidual,
    ClosureValidity as ClosureValidity,
    closure_residual as closure_residual,
    closure_validity as closure_validity,
    source_mismatch as source_mismatch,
)
from ._depth.pairs import propagate_pairs as propagate_pairs, solve_pairs as solve_pairs
from ._depth.propagate import propagate as propagate
from ._depth.response import (
    LayerResponse as LayerResponse,
    Response as Response,
    ResponseSummary as ResponseSummary,
    Spread as Spread,
    layer_response as layer_response,
    response as response,
    response_flow as response_flow,
)
from ._depth.solution import Solution as Solution
from ._depth.solve import solve as solve
from ._expectation import (
    Estimate as Estimate,
    hermite_spectrum as hermite_spectrum,
    pair_coefficients as pair_coefficients,
    pair_moments as pair_moments,
    single_moments as single_moments,
    variance_derivatives as variance_derivatives,
)
from ._kernel import (
    AbstractKernel as AbstractKernel,
    Block as Block,
    Triangle as Triangle,
    Variances as Variances,
    checked_kernel as checked_kernel,
    input_kernel as input_kernel,
)
from ._scaling import (
    STATUS as STATUS,
    OptimalScale as OptimalScale,
    OptimalTime as OptimalTime,
    ScaleEstimate as ScaleEstimate,
    Summary as Summary,
    TimeEstimate as TimeEstimate,
    optimal_flow_time as optimal_flow_time,
    optimal_residual_scale as optimal_residual_scale,
)
from ._scaling.optimise import (
    DiagonalResponse as DiagonalResponse,
    OffDiagonalResponse as OffDiagonalResponse,
    Optimum as Optimum,
    optimise as optimise,
)
from ._scaling.width_response import (
    ResponseCorrection as ResponseCorrection,
    ScaleCorrection as ScaleCorrection,
    residual_scale_correction as residual_scale_correction,
    response_correction as response_correction,
)
from ._support.results import RESULTS as RESULTS
from ._sweep import Axis as Axis, sweep as sweep
from ._version import __version__ as __version__
