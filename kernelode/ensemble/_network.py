"""A batch of random networks of finite width, layer by layer."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._architecture import AbstractLayered, Affine
from .._support.checks import as_real_array
from .._support.custom_types import RealLike
from ._factor import apply_factor, row_factor
from ._normals import standard_normals
from ._plan import Plan
from ._sampler import AbstractSampler, Weights

Neurons = Float[Array, "inputs batch neuron"]


class Data(eqx.Module):
    """Inputs of the networks as data: h^0 = W_in x + b_in, with the read-in variances of the network.

    **Arguments**

    - `x`: one input a row, shape (N, d).
    """

    x: Float[Array, "inputs features"]

    def __init__(self, x: RealLike):
        self.x = as_real_array("x", x)


def layer_weights(affine: Affine, plan: Plan, width: Float[Array, ""]) -> Weights:
    """The law of weights that read the first `width` of the simulated neurons."""
    return Weights(affine.weight_variance, affine.bias_variance, width, present(plan, width))


def present(plan: Plan, width: Float[Array, ""]) -> Float[Array, " neuron"]:
    """One for the first `width` of the simulated neurons, zero for the others."""
    return (jnp.arange(plan.neurons, dtype=plan.dtype) < width).astype(plan.dtype)


def block(network: AbstractLayered, sampler: AbstractSampler, weights: Weights, h: Neurons, key):
    """f(h) of a block of one or more layers, and the normals of the last one."""
    z = None
    for layer_key in block_keys(network, key):
        h, z = sampler.layer(layer_key, network.activation, h, weights)
    return h, z


def block_keys(network: AbstractLayered, key) -> list:
    """A key for each layer of a block."""
    return [key if k == 0 else jr.fold_in(key, k) for k in range(network.layers_per_block)]


def first_layer(plan: Plan, factor: Float[Array, "inputs inputs"], key) -> tuple[Neurons, Neurons]:
    """h^0 with kernel A A^T, and the Gaussian rows A z of the reference chain.

    Both are the same, or with a fixed Gram matrix h^0 = sqrt(n) A q with the orthonormal rows q of z: a
    frame of uniform (Haar) orientation.
    """
    shape = (plan.inputs, plan.batch, plan.neurons)
    z = standard_normals(key, shape, plan.dtype)
    spread = jnp.broadcast_to(factor[:, :, None], (plan.inputs, plan.inputs, plan.batch))
    gaussian = apply_factor(spread, z)
    if not plan.fixed_gram:
        return gaussian, gaussian
    _, frame = row_factor(z, jnp.zeros((), plan.dtype))
    return plan.width**0.5 * apply_factor(spread, frame), gaussian


def read_in(network: AbstractLayered, plan: Plan, x: Float[Array, "inputs features"], key) -> Neurons:
    """h^0 = W_in x + b_in with real weights."""
    for_weights, for_biases = jr.split(key)
    features = x.shape[1]
    matrix = standard_normals(for_weights, (features, plan.batch * plan.neurons), plan.dtype)
    bias = standard_normals(for_biases, (plan.batch, plan.neurons), plan.dtype)
    product = (x @ matrix).reshape(plan.inputs, plan.batch, plan.neurons)
    scaled = jnp.sqrt(network.input_weight_variance / features) * product
    return scaled + jnp.sqrt(network.input_bias_variance) * bias[None]
