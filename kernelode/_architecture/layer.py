"""What a unit of depth is: a fully connected layer, its scale, its skip connection and its width."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation
from .._checks import described
from .._expectation import pair_moment, triangle_moment, variance_moment
from .._kernel import Block, Variances
from .._show import Shown
from .._triangle import Triangle

Kernel = TypeVar("Kernel", Variances, Block, Triangle)


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
        moments = _moments(activation, kernel)
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


def _moments(activation: AbstractActivation, kernel: Kernel) -> Kernel:
    """E[sigma sigma] of every entry."""
    moment = lambda q: variance_moment(activation, q)
    if isinstance(kernel, Block):
        cross = pair_moment(activation, kernel.row, kernel.column, kernel.cross)
        return Block(moment(kernel.row), moment(kernel.column), cross)
    if isinstance(kernel, Triangle):
        cross = triangle_moment(activation, kernel.diagonal, kernel.cross)
        return Triangle(moment(kernel.diagonal), cross)
    if isinstance(kernel, Variances):
        return Variances(moment(kernel.values))
    raise TypeError(
        "`kernel` must be a `Variances`, a `Block` or a `Triangle`, such as "
        f"`Block(diagonal, diagonal, matrix)` of a kernel matrix; got {described(kernel)}."
    )
