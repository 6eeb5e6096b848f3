from .base import (
    AbstractActivation as AbstractActivation,
    AbstractAutonomousActivation as AbstractAutonomousActivation,
    AbstractClosedFormActivation as AbstractClosedFormActivation,
    AbstractHomogeneousActivation as AbstractHomogeneousActivation,
    AbstractKinkedActivation as AbstractKinkedActivation,
    AbstractOddActivation as AbstractOddActivation,
    AbstractSmoothActivation as AbstractSmoothActivation,
    AbstractStraightActivation as AbstractStraightActivation,
)
from .elementwise import Elementwise as Elementwise
from .erf import Erf as Erf
from .gelu import GELU as GELU
from .leaky_relu import LeakyReLU as LeakyReLU
from .linear import Linear as Linear
from .polynomial import Polynomial as Polynomial
from .relu import ReLU as ReLU
from .sin import Sin as Sin
from .softplus import Softplus as Softplus
from .swish import Swish as Swish
from .tanh import Tanh as Tanh
