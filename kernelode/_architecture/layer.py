"""A unit of depth: a fully connected layer with its scale, skip connection and width."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation
from .._expectation import second_moments
from .._kernel import Kernel
from .._support.show import Shown


class Affine(Shown):
    """A fully connected layer W sigma(h) + b with Gaussian weights and biases.

    - `weight_variance`: C_W = (fan-in) Var(W), a scalar, or stacked over depth.
    - `bias_variance`: C_b = Var(b), likewise.
    """

    weight_variance: Float[Array, "*depth"]
    bias_variance: Float[Array, "*depth"]

    def __call__(self, activation: AbstractActivation, kernel: Kernel) -> Kernel:
        """C_W E[sigma sigma] + C_b: the kernel after the layer, at infinite width.

        **Raises** `TypeError` unless `kernel` is a `Variances`, a `Block` or a `Triangle`.
        """
        moments = second_moments(activation, kernel)
        return jax.tree.map(lambda e: self.weight_variance * e + self.bias_variance, moments)

    @classmethod
    def stacked(cls, depth: int, weight_variance: Array, bias_variance: Array) -> "Affine":
        """The layers of a network of that depth; either variance is one for all, or has one a layer."""
        over_depth = lambda x: jnp.broadcast_to(x, (depth,))
        return cls(over_depth(weight_variance), over_depth(bias_variance))


class Layer(Shown):
    """A unit of depth, h <- skip h + scale f(h), f made of fully connected layers: scalars, or stacked
    over depth.

    - `scale`, `skip`: rho_l and alpha_l. A feed-forward layer has scale 1 and skip 0.
    - `width`: n_l / n of the layer that f averages over, n being the width that 1/n refers to.
    - `affine`: the weight and bias variances of f.

    An architecture of your own may need more: a subclass has further fields, stacked over depth too.
    """

    scale: Float[Array, "*depth"]
    skip: Float[Array, "*depth"]
    width: Float[Array, "*depth"]
    affine: Affine
