"""Architectures: how a unit of depth maps a kernel, and how the last one is read out."""

import abc
from typing import Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._activation.base import AbstractActivation
from .._kernel import input_kernel
from .._support.checks import as_real_array, checked_sign, described, is_concrete, refuse_where, scalar
from .._support.custom_types import RealLike
from .._support.show import Shown
from .layer import Affine, Kernel, Layer


class AbstractArchitecture(Shown):
    """A network with Gaussian weights and biases, width n to infinity.

    Weight variances are C_W = (fan-in) Var(W), bias variances C_b = Var(b). A kernel is a `Variances`,
    a `Block` or a `Triangle`; every map returns the same kind. Everything follows from `drift` and
    `layers` by JAX, so that the methods that follow from them cannot be overridden.
    """

    activation: eqx.AbstractVar[AbstractActivation]
    depth: eqx.AbstractVar[int]
    input_weight_variance: eqx.AbstractVar[Float[Array, ""]]
    input_bias_variance: eqx.AbstractVar[Float[Array, ""]]
    output_weight_variance: eqx.AbstractVar[Float[Array, ""]]
    output_bias_variance: eqx.AbstractVar[Float[Array, ""]]
    last_width: eqx.AbstractVar[Float[Array, ""]]

    #: Methods of this class that follow from others: the theory has only those.
    _follows: ClassVar[tuple[str, ...]] = ("layer", "read_in", "read_out", "read_out_layer")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for base in cls.__mro__[1:]:
            for name in vars(base).get("_follows", ()):
                if name in vars(cls):
                    raise TypeError(
                        f"`{cls.__name__}.{name}` cannot be overridden: it follows from `drift` and "
                        "`layers`. What differs between layers belongs into `layers`."
                    )

    @abc.abstractmethod
    def drift(self, kernel: Kernel, layer: Layer) -> Kernel:
        """Q(K): the kernel that one unit of depth adds to the stream, or puts in its place; `layer` is
        an entry of `layers()`, of which it reads all but `scale`, `skip` and `width`."""

    @abc.abstractmethod
    def layers(self) -> Layer:
        """The layers, stacked over depth: the carry of a scan runs over them."""

    @final
    def layer(self, kernel: Kernel, layer: Layer) -> Kernel:
        """One unit of depth, K <- skip^2 K + scale^2 Q(K); `layer` is an entry of `layers()`."""
        step = lambda k, q: layer.skip**2 * k + layer.scale**2 * q
        return jax.tree.map(step, kernel, self.drift(kernel, layer))

    @final
    def read_in(self, x: RealLike) -> Float[Array, "n n"]:
        """K^0 of the inputs `x`, with this network's read-in variances."""
        return input_kernel(x, self.input_weight_variance, self.input_bias_variance)

    @final
    def read_out(self, kernel: Kernel) -> Kernel:
        """K_out = C_W,out E[sigma sigma] + C_b,out."""
        return self.read_out_layer().affine(self.activation, kernel)

    @final
    def read_out_layer(self) -> Layer:
        """The read-out as a layer, which nothing skips."""
        one = jnp.ones_like(self.last_width)
        affine = Affine(self.output_weight_variance, self.output_bias_variance)
        return Layer(scale=one, skip=jnp.zeros_like(one), width=self.last_width, affine=affine)


class AbstractResidualNetwork(AbstractArchitecture):
    """A network whose blocks add to a stream: K <- alpha_l^2 K + rho_l^2 Q(K). With alpha_l = 1 and equal
    blocks it has the flow dK/dt = Q(K)."""

    residual_scale: eqx.AbstractVar[Float[Array, "*depth"]]
    skip_scale: eqx.AbstractVar[Float[Array, "*depth"]]

    def scale_profile(self) -> Float[Array, " depth"]:
        """Per-layer scales rho_l over their root mean square: the shape that a search keeps. Ones if all
        are zero."""
        scales = self.layers().scale
        square = jnp.mean(scales**2)
        return jnp.where(square > 0, scales / jnp.sqrt(jnp.where(square > 0, square, 1)), 1)

    def flow_layer(self) -> Layer:
        """The layer that the flow is made of: of scale, skip and width one. Where blocks differ, their
        mean, weighted by rho_l^2: to first order in those the network is the flow of that."""
        layers, weights = self.layers(), self.scale_profile() ** 2
        mean = lambda x: jnp.mean(weights.reshape(-1, *[1] * (x.ndim - 1)) * x, axis=0)
        return _unit(jax.tree.map(mean, layers))

    def equal_blocks(self) -> bool | Bool[Array, ""]:
        """Whether all blocks are alike but for their scales."""
        rest = jax.tree.leaves(_unit(self.layers()))
        return jnp.all(jnp.array([jnp.all(x == x[:1]) for x in rest if x.ndim]))


def _unit(layer: Layer) -> Layer:
    one = jnp.ones((), layer.scale.dtype)
    return eqx.tree_at(lambda x: (x.scale, x.skip, x.width), layer, (one, one, one))


def unit_skip(network: AbstractResidualNetwork, what: str) -> AbstractResidualNetwork:
    """`network`, if its skip connections have alpha = 1, as `what` needs; traced: at run time."""
    alpha, message = network.skip_scale, f"{what} is defined for `skip_scale` = 1 only."
    if is_concrete(alpha):
        return refuse_where(network, np.any(np.asarray(alpha) != 1), f"{message} Got {alpha}.")
    return refuse_where(network, jnp.any(alpha != 1), message)


def equal_blocks(network: AbstractResidualNetwork, what: str) -> AbstractResidualNetwork:
    """`network`, if its blocks are alike but for their scales, as `what` needs; traced: at run time."""
    same = network.equal_blocks()
    if same is True:
        return network
    message = f"{what} is defined for equal blocks only: one weight and one bias variance for all layers."
    return refuse_where(network, ~same, message)


def checked_variance(name: str, value: RealLike) -> Float[Array, ""]:
    """A variance: a scalar, not negative, traced."""
    return scalar(name, value, non_negative=True)


def per_layer(
    name: str, value: RealLike, count: int, *, positive: bool = False
) -> Float[Array, "*layers"]:
    """A scalar, or `count` numbers one a layer; not negative, or `positive`."""
    array = as_real_array(name, value)
    if array.shape not in ((), (count,)):
        raise ValueError(
            f"`{name}` must be a scalar or have one entry a layer, shape ({count},); "
            f"got shape {array.shape}."
        )
    return checked_sign(name, array, positive=positive, non_negative=True)


def checked_activation(activation: object) -> AbstractActivation:
    """`activation`, if it is one: an instance, not a class or a bare function."""
    if not isinstance(activation, AbstractActivation):
        raise TypeError(
            "`activation` must be an activation such as `Tanh()`, or `Elementwise(fn)` for a function "
            f"of your own; got {described(activation)}."
        )
    return activation
