"""Random networks of finite width, against which the theory is checked."""

from .._architecture.start import FixedGram as FixedGram, GaussianRows as GaussianRows
from ._budget import AbsoluteError as AbsoluteError, RelativeError as RelativeError
from ._ensemble import Ensemble as Ensemble
from ._estimates import Estimates as Estimates
from ._extrapolation import Extrapolation as Extrapolation, extrapolate as extrapolate
from ._measured import Measured as Measured
from ._network import Data as Data
from ._sample import sample as sample
from ._sampler import BlockLaw as BlockLaw, RealWeights as RealWeights
