"""The mean kernel alone: infinite width."""

from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, Layer
from .._kernel import Block, Triangle, as_triangle
from .base import AbstractClosure


class MeanOnly(AbstractClosure):
    """K0, the neural-network Gaussian-process kernel: dK0/dt = Q(K0), or K0 <- layer(K0).

    Of a `Block` too, row inputs against column inputs.
    """

    def init(
        self, network: AbstractArchitecture, kernel: Float[Array, "n n"] | Block
    ) -> Triangle | Block:
        del network
        return kernel if isinstance(kernel, Block) else as_triangle(kernel)

    def rate(
        self, network: AbstractArchitecture, state: Triangle | Block, layer: Layer
    ) -> Triangle | Block:
        return network.drift(state, layer)

    def push(
        self, network: AbstractArchitecture, state: Triangle | Block, layer: Layer
    ) -> Triangle | Block:
        return network.layer(state, layer)

    def mean_kernel(self, state: Triangle | Block) -> Float[Array, "n m"]:
        return state.matrix()

    def kernel(self, state: Triangle | Block) -> Triangle | Block:
        return state
