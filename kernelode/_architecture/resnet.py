"""Pre-activation residual networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation
from .._checks import as_real_array, checked_sign, positive_integer
from .._custom_types import RealLike
from .base import (
    AbstractResidualNetwork,
    Kernel,
    affine_moment,
    checked_activation,
    checked_variance,
)


class ResNet(AbstractResidualNetwork):
    """A pre-activation residual network of `depth` blocks,

        h^0 = W_in x + b_in,   h^l = h^{l-1} + rho_l f(h^{l-1}),   y = W_out sigma(h^L) + b_out,

    where a block f has `layers_per_block` layers, each W sigma(.) + b. Its kernel obeys
    K^l = K^{l-1} + rho_l^2 Q(K^{l-1}), Q the k-fold composition of C_b + C_W E[sigma sigma]
    (Fischer, Dahmen & Helias, arXiv:2305.07715, for one layer a block).
    """

    activation: AbstractActivation
    depth: int = eqx.field(static=True)
    residual_scale: Float[Array, ""] | Float[Array, " depth"]
    weight_variance: Float[Array, ""]
    bias_variance: Float[Array, ""]
    input_weight_variance: Float[Array, ""]
    input_bias_variance: Float[Array, ""]
    output_weight_variance: Float[Array, ""]
    output_bias_variance: Float[Array, ""]
    layers_per_block: int = eqx.field(static=True)

    def __init__(
        self,
        activation: AbstractActivation,
        depth: int,
        *,
        residual_scale: RealLike = 1.0,
        weight_variance: RealLike = 1.0,
        bias_variance: RealLike = 0.0,
        input_weight_variance: RealLike = 1.0,
        input_bias_variance: RealLike = 0.0,
        output_weight_variance: RealLike = 1.0,
        output_bias_variance: RealLike = 0.0,
        layers_per_block: int = 1,
    ):
        self.activation = checked_activation(activation)
        self.depth = positive_integer("depth", depth)
        scale = as_real_array("residual_scale", residual_scale)
        if scale.shape not in ((), (self.depth,)):
            raise ValueError(
                f"`residual_scale` must be a scalar or have one entry a block, shape ({self.depth},); "
                f"got shape {scale.shape}."
            )
        self.residual_scale = checked_sign("residual_scale", scale, non_negative=True)
        self.weight_variance = checked_variance("weight_variance", weight_variance)
        self.bias_variance = checked_variance("bias_variance", bias_variance)
        self.input_weight_variance = checked_variance("input_weight_variance", input_weight_variance)
        self.input_bias_variance = checked_variance("input_bias_variance", input_bias_variance)
        self.output_weight_variance = checked_variance("output_weight_variance", output_weight_variance)
        self.output_bias_variance = checked_variance("output_bias_variance", output_bias_variance)
        self.layers_per_block = positive_integer("layers_per_block", layers_per_block)

    def drift(self, kernel: Kernel) -> Kernel:
        for _ in range(self.layers_per_block):
            kernel = affine_moment(self.activation, self.weight_variance, self.bias_variance, kernel)
        return kernel

    def layer(self, kernel: Kernel, scale: Float[Array, ""]) -> Kernel:
        return jax.tree.map(lambda k, q: k + scale**2 * q, kernel, self.drift(kernel))

    def scales(self) -> Float[Array, " depth"]:
        return jnp.broadcast_to(self.residual_scale, (self.depth,))


ResNet.__init__.__doc__ = """**Arguments**

- `activation`: sigma; an instance, such as `Tanh()`.
- `depth`: L, the number of residual blocks. Static; everything below is traced but the last.
- `residual_scale`: rho, for all blocks, or rho_l, one a block.
- `weight_variance`, `bias_variance`: C_W = (fan-in) Var(W) and C_b of the layers in a block.
- `input_weight_variance`, `input_bias_variance`: the same of the read-in, used by `read_in`.
- `output_weight_variance`, `output_bias_variance`: the same of the read-out.
- `layers_per_block`: k, static.

**Raises** `TypeError` or `ValueError`, naming the argument, for a wrong type or shape, and for
values that are not finite or negative.
"""
