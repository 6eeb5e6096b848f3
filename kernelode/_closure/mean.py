"""The mean kernel alone: infinite width."""

from jaxtyping import Array, Float

from .._architecture.base import AbstractArchitecture, Layer
from .._kernel import Block, as_block, as_matrix
from .base import AbstractClosure


class MeanOnly(AbstractClosure):
    """K0, the neural-network Gaussian-process kernel: dK0/dt = Q(K0), or K0 <- layer(K0)."""

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> Block:
        del network
        return as_block(kernel)

    def rate(self, network: AbstractArchitecture, state: Block) -> Block:
        return network.drift(state)

    def push(self, network: AbstractArchitecture, state: Block, layer: Layer) -> Block:
        return network.layer(state, layer)

    def mean_kernel(self, state: Block) -> Float[Array, "n n"]:
        return as_matrix(state)
