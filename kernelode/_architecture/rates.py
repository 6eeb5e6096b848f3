"""Learning rates of weights and biases: what a tangent kernel is made with, besides the network."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._kernel import AbstractKernel
from .._support.checks import as_real_array, checked_sign, scalar
from .._support.custom_types import RealLike
from .._support.show import Shown
from .base import AbstractArchitecture, AbstractResidualNetwork, per_layer
from .layer import Affine, Layer

Rate = Float[Array, "*depth"] | None


class RatedLayer(Layer):
    """A unit of depth with its learning rates: `rates` has lambda_W in place of the weight variance and
    lambda_b in place of the bias variance, so that it maps a kernel to lambda_W E[sigma sigma] +
    lambda_b, which a layer's own parameters add to the tangent kernel."""

    rates: Affine


class LearningRates(Shown):
    """Learning rates of a network's parameters. The tangent kernel is

        Theta_ab = sum over all parameters theta of lambda_theta (dz_a/dtheta) (dz_b/dtheta),

    with lambda_theta = lambda_W / (fan-in) for weights and lambda_b for biases (Roberts, Yaida & Hanin,
    arXiv:2106.10165, section 7.2). Those of a residual block are of the weights in h <- alpha h + rho (W
    sigma(h) + b), so that its part of Theta is multiplied by rho^2.

    **Arguments**, all of them traced

    - `weight`, `bias`: lambda_W and lambda_b of the layers in depth, scalars or one a layer, (depth,).
        None, the default: the variances C_W and C_b, layer by layer. That is gradient descent of rate one
        in the NTK parametrisation, W = sqrt(C_W / n) w and b = sqrt(C_b) beta with w and beta trained.
        Zero: not trained. Along a flow those of layers are averaged with the weights rho_l^2.
    - `input_weight`, `input_bias`, `output_weight`, `output_bias`: the same of the read-in and of the
        read-out, scalars.

    **Raises** `ValueError` for a negative number or a wrong shape, `TypeError` for anything else.
    """

    weight: Rate
    bias: Rate
    input_weight: Float[Array, ""] | None
    input_bias: Float[Array, ""] | None
    output_weight: Float[Array, ""] | None
    output_bias: Float[Array, ""] | None

    def __init__(
        self,
        weight: RealLike | None = None,
        bias: RealLike | None = None,
        *,
        input_weight: RealLike | None = None,
        input_bias: RealLike | None = None,
        output_weight: RealLike | None = None,
        output_bias: RealLike | None = None,
    ):
        one = lambda name, x: None if x is None else scalar(name, x, non_negative=True)
        self.weight, self.bias = _stacked("weight", weight), _stacked("bias", bias)
        self.input_weight = one("input_weight", input_weight)
        self.input_bias = one("input_bias", input_bias)
        self.output_weight = one("output_weight", output_weight)
        self.output_bias = one("output_bias", output_bias)

    @classmethod
    def standard(
        cls,
        network: AbstractArchitecture,
        *,
        width: RealLike,
        inputs: RealLike,
        rate: RealLike = 1.0,
    ) -> "LearningRates":
        """One rate for all parameters, in the standard parametrisation: gradient descent on W itself,
        W ~ N(0, C_W / n_l). Then lambda_W = rate * n_l and lambda_b = rate.

        **Arguments**

        - `width`: n, that of `network`'s relative widths; of a tangent kernel that grows with it.
        - `inputs`: the number d of features, the read-in's fan-in.
        - `rate`: of gradient descent on the sum of losses.
        """
        n, d = scalar("width", width, positive=True), scalar("inputs", inputs, positive=True)
        rate = scalar("rate", rate, non_negative=True)
        return cls(
            rate * n * network.layers().width,
            rate,
            input_weight=rate * d,
            input_bias=rate,
            output_weight=rate * n * network.last_width,
            output_bias=rate,
        )

    def layers(self, network: AbstractArchitecture) -> RatedLayer:
        """The network's layers with their rates, stacked over depth."""
        return _rated(network.layers(), *self._of_depth(network))

    def flow_layer(self, network: AbstractResidualNetwork) -> RatedLayer:
        """The layer that the network's flow is made of, with the mean of the layers' rates."""
        squares = network.scale_profile() ** 2
        mean = lambda x: x if x is None or x.ndim == 0 else jnp.mean(squares * x)
        weight, bias = self._of_depth(network)
        return _rated(network.flow_layer(), mean(weight), mean(bias))

    def read_out_layer(self, network: AbstractArchitecture) -> RatedLayer:
        """The read-out with its rates."""
        return _rated(network.read_out_layer(), self.output_weight, self.output_bias)

    def read_in(self, network: AbstractArchitecture, kernel: AbstractKernel) -> Float[Array, "*entries"]:
        """The tangent kernel of the read-in whose kernel is given, of its `entries`: lambda_b + lambda_W
        x x^T / d.

        **Raises** an error when it runs where that is not known: the read-in has no weights, and they
        have a learning rate.
        """
        k = kernel.entries
        weight, bias = network.input_weight_variance, network.input_bias_variance
        of_bias = bias if self.input_bias is None else self.input_bias
        if self.input_weight is None:
            return k - bias + of_bias
        message = "The tangent kernel of a read-in without weights is not known: pass `tangent`."
        weight = eqx.error_if(weight, (weight == 0) & (self.input_weight > 0), message)
        ratio = self.input_weight / jnp.where(weight > 0, weight, 1)
        return of_bias + ratio * (k - bias)

    def _of_depth(self, network: AbstractArchitecture) -> tuple[Array | None, Array | None]:
        for name in ("weight", "bias"):
            if getattr(self, name) is not None:
                per_layer(f"rates.{name}", getattr(self, name), network.depth)
        return self.weight, self.bias


def _rated(layer: Layer, weight: Array | None, bias: Array | None) -> RatedLayer:
    """A layer, or layers, with their rates: those given, or the variances."""
    own = layer.affine
    rates = own.weight_variance if weight is None else weight, own.bias_variance if bias is None else bias
    over_depth = [jnp.broadcast_to(x, layer.scale.shape) for x in rates]
    return RatedLayer(layer.scale, layer.skip, layer.width, own, Affine(*over_depth))


def _stacked(name: str, rate: Any) -> Rate:
    if rate is None:
        return None
    array = as_real_array(name, rate)
    if array.ndim > 1:
        raise ValueError(f"`{name}` must be a scalar or have one entry a layer; got shape {array.shape}.")
    return checked_sign(name, array, non_negative=True)
