"""Fully connected feed-forward networks."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation
from .._support.checks import positive_integer
from .._support.custom_types import RealLike
from .base import checked_activation, checked_variance, per_layer
from .layer import Affine, Layer
from .layered import AbstractLayered


class MLP(AbstractLayered):
    """A feed-forward network with `depth` hidden layers after the read-in,

        h^0 = W_in x + b_in,   h^l = W^l sigma(h^{l-1}) + b^l,   y = W_out sigma(h^L) + b_out.

    Its kernel obeys K^l = Q(K^{l-1}), Q(K) = C_b + C_W E[sigma sigma].
    """

    activation: AbstractActivation
    depth: int = eqx.field(static=True)
    weight_variance: Float[Array, ""] | Float[Array, " depth"]
    bias_variance: Float[Array, ""] | Float[Array, " depth"]
    input_weight_variance: Float[Array, ""]
    input_bias_variance: Float[Array, ""]
    output_weight_variance: Float[Array, ""]
    output_bias_variance: Float[Array, ""]
    relative_width: Float[Array, ""] | Float[Array, " layers"]

    def __init__(
        self,
        activation: AbstractActivation,
        depth: int,
        *,
        weight_variance: RealLike = 1.0,
        bias_variance: RealLike = 0.0,
        input_weight_variance: RealLike = 1.0,
        input_bias_variance: RealLike = 0.0,
        output_weight_variance: RealLike = 1.0,
        output_bias_variance: RealLike = 0.0,
        relative_width: RealLike = 1.0,
    ):
        self.activation = checked_activation(activation)
        self.depth = positive_integer("depth", depth)
        self.weight_variance = per_layer("weight_variance", weight_variance, self.depth)
        self.bias_variance = per_layer("bias_variance", bias_variance, self.depth)
        self.input_weight_variance = checked_variance("input_weight_variance", input_weight_variance)
        self.input_bias_variance = checked_variance("input_bias_variance", input_bias_variance)
        self.output_weight_variance = checked_variance("output_weight_variance", output_weight_variance)
        self.output_bias_variance = checked_variance("output_bias_variance", output_bias_variance)
        self.relative_width = per_layer("relative_width", relative_width, self.depth + 1, positive=True)

    def layers(self) -> Layer:
        widths = jnp.broadcast_to(self.relative_width, (self.depth + 1,))[:-1]
        affine = Affine.stacked(self.depth, self.weight_variance, self.bias_variance)
        return Layer(jnp.ones_like(widths), jnp.zeros_like(widths), widths, affine)

    @property
    def layers_per_block(self) -> int:
        return 1

    @property
    def last_width(self) -> Float[Array, ""]:
        return jnp.broadcast_to(self.relative_width, (self.depth + 1,))[-1]


MLP.__init__.__doc__ = """**Arguments**

- `activation`: sigma; an instance, such as `Tanh()`.
- `depth`: L, the number of hidden layers after the read-in. Static; everything below is traced.
- `weight_variance`, `bias_variance`: C_W = (fan-in) Var(W) and C_b of the hidden layers, for all or
    one a layer, shape (depth,).
- `input_weight_variance`, `input_bias_variance`: the same of the read-in, used by `read_in`.
- `output_weight_variance`, `output_bias_variance`: the same of the read-out.
- `relative_width`: n_l / n of h^0, ..., h^L, shape (depth + 1,), or one for all. The mean kernel does
    not depend on it; its corrections of order 1/n do.

**Raises** `TypeError` or `ValueError`, naming the argument, for a wrong type or shape, and for
values that are not finite or negative.
"""
