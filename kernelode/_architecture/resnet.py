"""Pre-activation residual networks."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._activation.base import AbstractActivation
from .._support.checks import positive_integer
from .._support.custom_types import RealLike
from .base import AbstractResidualNetwork, checked_activation, checked_variance, per_layer
from .layer import Affine, Layer
from .layered import AbstractLayered


class ResNet(AbstractLayered, AbstractResidualNetwork):
    """A pre-activation residual network of `depth` blocks,

        h^0 = W_in x + b_in,   h^l = alpha_l h^{l-1} + rho_l f(h^{l-1}),   y = W_out sigma(h^L) + b_out,

    where a block f has `layers_per_block` layers, each W sigma(.) + b. Its kernel obeys
    K^l = alpha_l^2 K^{l-1} + rho_l^2 Q(K^{l-1}), Q the k-fold composition of C_b + C_W E[sigma sigma]
    (Fischer, Dahmen & Helias, arXiv:2305.07715, for alpha = 1 and one layer a block).
    """

    activation: AbstractActivation
    depth: int = eqx.field(static=True)
    residual_scale: Float[Array, ""] | Float[Array, " depth"]
    weight_variance: Float[Array, ""] | Float[Array, " depth"]
    bias_variance: Float[Array, ""] | Float[Array, " depth"]
    input_weight_variance: Float[Array, ""]
    input_bias_variance: Float[Array, ""]
    output_weight_variance: Float[Array, ""]
    output_bias_variance: Float[Array, ""]
    layers_per_block: int = eqx.field(static=True)
    skip_scale: Float[Array, ""] | Float[Array, " depth"]

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
        skip_scale: RealLike = 1.0,
    ):
        self.activation = checked_activation(activation)
        self.depth = positive_integer("depth", depth)
        self.residual_scale = per_layer("residual_scale", residual_scale, self.depth)
        self.skip_scale = per_layer("skip_scale", skip_scale, self.depth)
        self.weight_variance = per_layer("weight_variance", weight_variance, self.depth)
        self.bias_variance = per_layer("bias_variance", bias_variance, self.depth)
        self.input_weight_variance = checked_variance("input_weight_variance", input_weight_variance)
        self.input_bias_variance = checked_variance("input_bias_variance", input_bias_variance)
        self.output_weight_variance = checked_variance("output_weight_variance", output_weight_variance)
        self.output_bias_variance = checked_variance("output_bias_variance", output_bias_variance)
        self.layers_per_block = positive_integer("layers_per_block", layers_per_block)

    def layers(self) -> Layer:
        scale = jnp.broadcast_to(self.residual_scale, (self.depth,))
        skip = jnp.broadcast_to(self.skip_scale, (self.depth,)).astype(scale.dtype)
        affine = Affine.stacked(self.depth, self.weight_variance, self.bias_variance)
        return Layer(scale=scale, skip=skip, width=jnp.ones_like(scale), affine=affine)

    def scale_profile(self) -> Float[Array, " depth"]:
        # Known without its value where there is one scale: a constant, which costs nothing in a loop.
        ones = jnp.ones(self.depth, self.residual_scale.dtype)
        return super().scale_profile() if self.residual_scale.ndim else ones

    def flow_layer(self) -> Layer:
        if self.equal_blocks() is not True:
            return super().flow_layer()
        one = jnp.ones((), self.residual_scale.dtype)
        return Layer(one, one, one, Affine(self.weight_variance, self.bias_variance))

    def equal_blocks(self) -> bool | Bool[Array, ""]:
        # Known without their values where there is one of each.
        alike = self.weight_variance.ndim == self.bias_variance.ndim == 0
        return True if alike else super().equal_blocks()

    @property
    def last_width(self) -> Float[Array, ""]:
        return jnp.ones((), self.residual_scale.dtype)


ResNet.__init__.__doc__ = """**Arguments**

- `activation`: sigma; an instance, such as `Tanh()`.
- `depth`: L, the number of residual blocks. Static; everything below is traced but the last.
- `residual_scale`: rho, for all blocks, or rho_l, one a block.
- `weight_variance`, `bias_variance`: C_W = (fan-in) Var(W) and C_b of the layers in a block, for all
    blocks or one a block.
- `input_weight_variance`, `input_bias_variance`: the same of the read-in, used by `read_in`.
- `output_weight_variance`, `output_bias_variance`: the same of the read-out.
- `layers_per_block`: k, static.
- `skip_scale`: alpha, the factor of the skip connection, or alpha_l, one a block. Continuous depth
    and the optimal residual scale are defined for alpha = 1.

**Raises** `TypeError` or `ValueError`, naming the argument, for a wrong type or shape, and for
values that are not finite or negative.
"""
