"""What an architecture is: how one unit of depth maps a kernel, and how it is read out."""

import abc
from typing import TypeVar

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation
from .._checks import scalar
from .._custom_types import RealLike
from .._expectation import pair_moment, variance_moment
from .._kernel import Block, Variances, input_kernel

Kernel = TypeVar("Kernel", Variances, Block)


class AbstractArchitecture(eqx.Module):
    """A network with Gaussian weights and biases, width n to infinity.

    Weight variances are C_W = (fan-in) Var(W), bias variances C_b = Var(b). A kernel is a `Variances`
    or a `Block`; every map returns the same kind. Everything follows from `drift` by JAX.
    """

    activation: eqx.AbstractVar[AbstractActivation]
    depth: eqx.AbstractVar[int]
    input_weight_variance: eqx.AbstractVar[Float[Array, ""]]
    input_bias_variance: eqx.AbstractVar[Float[Array, ""]]
    output_weight_variance: eqx.AbstractVar[Float[Array, ""]]
    output_bias_variance: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def drift(self, kernel: Kernel) -> Kernel:
        """Q(K): the kernel that one block adds to the stream, or that one layer puts in its place."""

    @abc.abstractmethod
    def layer(self, kernel: Kernel, scale: Float[Array, ""]) -> Kernel:
        """One unit of depth; `scale` is an entry of `scales()`."""

    @abc.abstractmethod
    def scales(self) -> Float[Array, " depth"]:
        """What differs between layers, for a scan over depth."""

    def read_in(self, x: RealLike) -> Float[Array, "n n"]:
        """K^0 of the inputs `x`, with this network's read-in variances."""
        return input_kernel(x, self.input_weight_variance, self.input_bias_variance)

    def read_out(self, kernel: Kernel) -> Kernel:
        """K_out = C_W,out E[sigma sigma] + C_b,out."""
        return affine_moment(
            self.activation, self.output_weight_variance, self.output_bias_variance, kernel
        )


class AbstractResidualNetwork(AbstractArchitecture):
    """A network whose blocks add to a stream: K <- K + rho_l^2 Q(K), with the flow dK/dt = Q(K)."""

    residual_scale: eqx.AbstractVar[Float[Array, "*depth"]]


def affine_moment(activation, weight_variance, bias_variance, kernel: Kernel) -> Kernel:
    """C_W E[sigma sigma] + C_b: the kernel of one fully connected layer."""
    moment = lambda q: variance_moment(activation, q)
    if isinstance(kernel, Block):
        cross = pair_moment(activation, kernel.row, kernel.column, kernel.cross)
        moments = Block(moment(kernel.row), moment(kernel.column), cross)
    else:
        moments = Variances(moment(kernel.values))
    return jax.tree.map(lambda e: weight_variance * e + bias_variance, moments)


def checked_variance(name: str, value: RealLike) -> Float[Array, ""]:
    """A variance: a scalar, not negative, traced."""
    return scalar(name, value, non_negative=True)


def checked_activation(activation) -> AbstractActivation:
    """`activation`, if it is one: an instance, not a class or a bare function."""
    if not isinstance(activation, AbstractActivation):
        raise TypeError(
            "`activation` must be an activation such as `Tanh()`, or `Elementwise(fn)` for a function "
            f"of your own; got {activation!r}."
        )
    return activation
