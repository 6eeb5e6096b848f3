"""The mean kernel alone: infinite width."""

from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, Layer
from .._triangle import Triangle, as_triangle, triangle_matrix
from .base import AbstractClosure


class MeanOnly(AbstractClosure):
    """K0, the neural-network Gaussian-process kernel: dK0/dt = Q(K0), or K0 <- layer(K0)."""

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> Triangle:
        del network
        return as_triangle(kernel)

    def rate(self, network: AbstractArchitecture, state: Triangle, layer: Layer) -> Triangle:
        return network.drift(state, layer)

    def push(self, network: AbstractArchitecture, state: Triangle, layer: Layer) -> Triangle:
        return network.layer(state, layer)

    def mean_kernel(self, state: Triangle) -> Float[Array, "n n"]:
        return triangle_matrix(state)
