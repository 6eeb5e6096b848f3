"""Other libraries on our networks, for comparison: optional, and imported when first used."""

from ._from_stax import from_stax as from_stax
from ._loader import load_neural_tangents as load_neural_tangents
from ._neural_tangents import (
    neural_tangents_kernels as neural_tangents_kernels,
    stax_network as stax_network,
)
