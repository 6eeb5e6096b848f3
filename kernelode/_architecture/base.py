"""What an architecture is: how one unit of depth maps a kernel, and how it is read out."""

import abc
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation
from .._checks import as_real_array, checked_sign, described, is_concrete, scalar
from .._custom_types import RealLike
from .._expectation import pair_moment, triangle_moment, variance_moment
from .._kernel import Block, Variances, input_kernel
from .._triangle import Triangle

Kernel = TypeVar("Kernel", Variances, Block, Triangle)


class Layer(eqx.Module):
    """What differs between units of depth, h <- skip h + scale f(h): scalars, or stacked over depth.

    - `scale`, `skip`: rho_l and alpha_l. A feed-forward layer has scale 1 and skip 0.
    - `width`: n_l / n of the layer that f averages over, n being the width that 1/n refers to.
    """

    scale: Float[Array, "*depth"]
    skip: Float[Array, "*depth"]
    width: Float[Array, "*depth"]


class AbstractArchitecture(eqx.Module):
    """A network with Gaussian weights and biases, width n to infinity.

    Weight variances are C_W = (fan-in) Var(W), bias variances C_b = Var(b). A kernel is a `Variances`,
    a `Block` or a `Triangle`; every map returns the same kind. Everything follows from `drift` by JAX.
    """

    activation: eqx.AbstractVar[AbstractActivation]
    depth: eqx.AbstractVar[int]
    weight_variance: eqx.AbstractVar[Float[Array, ""]]
    bias_variance: eqx.AbstractVar[Float[Array, ""]]
    layers_per_block: eqx.AbstractVar[int]
    input_weight_variance: eqx.AbstractVar[Float[Array, ""]]
    input_bias_variance: eqx.AbstractVar[Float[Array, ""]]
    output_weight_variance: eqx.AbstractVar[Float[Array, ""]]
    output_bias_variance: eqx.AbstractVar[Float[Array, ""]]
    last_width: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def drift(self, kernel: Kernel) -> Kernel:
        """Q(K): the kernel that one block adds to the stream, or that one layer puts in its place."""

    @abc.abstractmethod
    def layers(self) -> Layer:
        """What differs between layers, stacked over depth, for a scan."""

    def layer(self, kernel: Kernel, layer: Layer) -> Kernel:
        """One unit of depth, K <- skip^2 K + scale^2 Q(K); `layer` is an entry of `layers()`."""
        step = lambda k, q: layer.skip**2 * k + layer.scale**2 * q
        return jax.tree.map(step, kernel, self.drift(kernel))

    def read_in(self, x: RealLike) -> Float[Array, "n n"]:
        """K^0 of the inputs `x`, with this network's read-in variances."""
        return input_kernel(x, self.input_weight_variance, self.input_bias_variance)

    def read_out(self, kernel: Kernel) -> Kernel:
        """K_out = C_W,out E[sigma sigma] + C_b,out."""
        return affine_moment(
            self.activation, self.output_weight_variance, self.output_bias_variance, kernel
        )


class AbstractResidualNetwork(AbstractArchitecture):
    """A network whose blocks add to a stream: K <- alpha_l^2 K + rho_l^2 Q(K). With alpha_l = 1 it has
    the flow dK/dt = Q(K)."""

    residual_scale: eqx.AbstractVar[Float[Array, "*depth"]]
    skip_scale: eqx.AbstractVar[Float[Array, "*depth"]]

    def scale_profile(self) -> Float[Array, " depth"]:
        """Per-layer scales rho_l over their root mean square: the shape that a search keeps. Ones if all
        are zero."""
        scales = self.layers().scale
        square = jnp.mean(scales**2)
        return jnp.where(square > 0, scales / jnp.sqrt(jnp.where(square > 0, square, 1)), 1)


def unit_skip(network, what: str):
    """`network`, if its skip connections have alpha = 1, as `what` needs; traced: at run time."""
    message = f"{what} is defined for `skip_scale` = 1 only."
    if is_concrete(network.skip_scale):
        if (np.asarray(network.skip_scale) != 1).any():
            raise ValueError(f"{message} Got {network.skip_scale}.")
        return network
    wrong = jnp.any(network.skip_scale != 1)
    return eqx.error_if(network, wrong, message)


def affine_moment(activation, weight_variance, bias_variance, kernel: Kernel) -> Kernel:
    """C_W E[sigma sigma] + C_b: the kernel of one fully connected layer."""
    moment = lambda q: variance_moment(activation, q)
    if isinstance(kernel, Block):
        cross = pair_moment(activation, kernel.row, kernel.column, kernel.cross)
        moments = Block(moment(kernel.row), moment(kernel.column), cross)
    elif isinstance(kernel, Triangle):
        cross = triangle_moment(activation, kernel.diagonal, kernel.cross)
        moments = Triangle(moment(kernel.diagonal), cross)
    elif isinstance(kernel, Variances):
        moments = Variances(moment(kernel.values))
    else:
        raise TypeError(
            "`kernel` must be a `Variances`, a `Block` or a `Triangle`, such as "
            f"`Block(diagonal, diagonal, matrix)` of a kernel matrix; got {described(kernel)}."
        )
    return jax.tree.map(lambda e: weight_variance * e + bias_variance, moments)


def checked_variance(name: str, value: RealLike) -> Float[Array, ""]:
    """A variance: a scalar, not negative, traced."""
    return scalar(name, value, non_negative=True)


def per_layer(name: str, value: RealLike, count: int, **sign: bool) -> Float[Array, "*layers"]:
    """A scalar, or `count` numbers one a layer; of the right sign."""
    array = as_real_array(name, value)
    if array.shape not in ((), (count,)):
        raise ValueError(
            f"`{name}` must be a scalar or have one entry a layer, shape ({count},); "
            f"got shape {array.shape}."
        )
    return checked_sign(name, array, **sign)


def checked_activation(activation) -> AbstractActivation:
    """`activation`, if it is one: an instance, not a class or a bare function."""
    if not isinstance(activation, AbstractActivation):
        raise TypeError(
            "`activation` must be an activation such as `Tanh()`, or `Elementwise(fn)` for a function "
            f"of your own; got {described(activation)}."
        )
    return activation
