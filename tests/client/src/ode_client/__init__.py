"""A project that uses kernelode: all of its public names, as a type checker sees them from outside."""

from .figures import draw as draw
from .kernels import Kernels as Kernels, kernels as kernels
from .networks import Mish as Mish, activations as activations, networks as networks
from .optima import Optima as Optima, optima as optima
from .others import condition as condition, translate as translate
from .simulation import (
    Simulation as Simulation,
    from_data as from_data,
    other_starts as other_starts,
    simulate as simulate,
)
