"""What a closure is: which moments of the kernel travel through depth, and how."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from .._architecture.base import AbstractArchitecture


class AbstractClosure(eqx.Module):
    """A closed set of moments, transported layer by layer or along a flow.

    For residual networks the two are tied by rate = d/d(rho^2) push at rho = 0.
    """

    @abc.abstractmethod
    def init(self, kernel: Float[Array, "n n"]) -> Any:
        """The state that an input kernel starts with."""

    @abc.abstractmethod
    def rate(self, network: AbstractArchitecture, state: Any) -> Any:
        """d state / dt along the flow of a residual network, t = sum of rho_l^2."""

    @abc.abstractmethod
    def push(self, network: AbstractArchitecture, state: Any, scale: Float[Array, ""]) -> Any:
        """The state after one layer, exactly; `scale` is an entry of `network.scales()`."""

    @abc.abstractmethod
    def mean_kernel(self, state: Any) -> Float[Array, "n n"]:
        """K0 of a state."""
