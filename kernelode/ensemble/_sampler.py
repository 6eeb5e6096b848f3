"""Two ways to draw a layer of a random network of finite width, which have the same law."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation
from .._support.custom_types import KeyLike
from ._factor import apply_factor, row_factor
from ._normals import standard_normals


class Weights(eqx.Module):
    """The law of a layer's weights: C_W, C_b, the width n_l of the layer below, and a mask of its
    neurons; all traced."""

    weight_variance: Float[Array, ""]
    bias_variance: Float[Array, ""]
    width: Float[Array, ""]
    mask: Float[Array, " neuron"]


class AbstractSampler(eqx.Module):
    """How W sigma(h) + b is drawn, for a batch of networks at once.

    `coupled`: whether it gives the normals that it used too, with which a non-interacting reference
    chain can be driven (control variates).
    """

    coupled: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def layer(
        self,
        key: KeyLike,
        activation: AbstractActivation,
        h: Float[Array, "inputs batch neuron"],
        weights: Weights,
    ) -> tuple[Float[Array, "inputs batch neuron"], Float[Array, "inputs batch neuron"] | None]:
        """W sigma(h) + b, and the standard normals behind it if `coupled`."""

    @abc.abstractmethod
    def numbers(self, inputs: int, neurons: int) -> int:
        """How many floating-point numbers one network needs at a time."""


class BlockLaw(AbstractSampler):
    """The exact law of a layer given the one before, without weights: at a cost of n N^2 for N inputs.

    Given h, the rows of W sigma(h) + b are independent Gaussians over the inputs, with the empirical
    covariance C_b + C_W sigma(h) sigma(h)^T / n. They are drawn as A z, z standard normal, with the
    triangular factor A read off sigma(h) itself, so that equal, parallel and dead inputs are exact.
    """

    coupled: ClassVar[bool] = True

    def layer(
        self,
        key: KeyLike,
        activation: AbstractActivation,
        h: Float[Array, "inputs batch neuron"],
        weights: Weights,
    ) -> tuple[Float[Array, "inputs batch neuron"], Float[Array, "inputs batch neuron"]]:
        values = _scaled(activation, h, weights)
        factor, _ = row_factor(values, weights.bias_variance)
        z = standard_normals(key, h.shape, h.dtype)
        return apply_factor(factor, z), z

    def numbers(self, inputs: int, neurons: int) -> int:
        return 6 * inputs * neurons


class RealWeights(AbstractSampler):
    """Weight matrices and biases drawn entry by entry, W_ij ~ N(0, C_W / n): a cost of n^2 a layer."""

    coupled: ClassVar[bool] = False

    def layer(
        self,
        key: KeyLike,
        activation: AbstractActivation,
        h: Float[Array, "inputs batch neuron"],
        weights: Weights,
    ) -> tuple[Float[Array, "inputs batch neuron"], None]:
        for_weights, for_biases = jr.split(key)
        batch, neurons = h.shape[1:]
        matrix = standard_normals(for_weights, (batch, neurons, neurons), h.dtype)
        bias = standard_normals(for_biases, (batch, neurons), h.dtype)
        values = _scaled(activation, h, weights)
        product = jax.lax.dot_general(matrix, values, (((2,), (2,)), ((0,), (1,))))
        out = jnp.transpose(product, (2, 0, 1)) + jnp.sqrt(weights.bias_variance) * bias[None]
        return out, None

    def numbers(self, inputs: int, neurons: int) -> int:
        return 2 * neurons**2 + 4 * inputs * neurons


def _scaled(activation, h, weights: Weights):
    """sqrt(C_W / n_l) sigma(h) of the neurons that are there."""
    scale = jnp.sqrt(weights.weight_variance / weights.width)
    return activation(h) * (scale * weights.mask)[None, None, :]
