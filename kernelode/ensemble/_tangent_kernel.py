"""The neural tangent kernel of every network of a batch, with real weights.

In the parametrisation W = sqrt(C_W / n) w, b = sqrt(C_b) beta, w and beta standard normal and all of them
trained, the read-in and the read-out too, of a network with one output y:

    Theta_ab = sum_layers (g_a . g_b) (C_W sigma_a . sigma_b / n_l + C_b),     g = d y / d (W sigma + b).

One backward pass gives the g of all layers; no weight matrix is differentiated.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork
from ._network import Data, first_layer, layer_weights, read_in
from ._normals import standard_normals
from ._plan import Plan
from ._sampler import AbstractSampler


def tangent_kernels(
    network: AbstractArchitecture, sampler: AbstractSampler, plan: Plan, widths, start, key
) -> Float[Array, "inputs inputs batch"]:
    """Theta of each network. The networks are those whose kernels are measured with the same key."""
    first_key, layers_key = jr.split(key)
    if isinstance(start, Data):
        h0 = read_in(network, plan, start.x, first_key)
        gram = network.input_weight_variance * start.x @ start.x.T / start.x.shape[1]
        kernel = gram + network.input_bias_variance
    else:
        h0, _ = first_layer(plan, start, first_key)
        kernel = start @ start.T
    residual = isinstance(network, AbstractResidualNetwork)
    steps = network.layers_per_block

    @jax.checkpoint  # weights are drawn again on the way back, not kept
    def one_layer(h, pushes, layer, width, layer_key):
        weights = layer_weights(network, plan, width)
        u, grams = h, []
        for k in range(steps):
            inner_key = layer_key if k == 0 else jr.fold_in(layer_key, k)
            grams.append(_layer_gram(network.activation(u), weights))
            u = sampler.layer(inner_key, network.activation, u, weights)[0] + pushes[k]
        following = layer.skip * h + layer.scale * u if residual else u
        return following, jnp.stack(grams)

    def outputs(h0, pushes):
        index = jnp.arange(network.depth, dtype=jnp.uint32)

        def step(h, xs):
            push, layer, width, i = xs
            return one_layer(h, push, layer, width, jr.fold_in(layers_key, i))

        h, grams = jax.lax.scan(step, h0, (pushes, network.layers(), widths[:-1], index))
        weights = layer_weights(network, plan, widths[-1])
        values = network.activation(h) * weights.mask[None, None, :]
        vector = standard_normals(jr.fold_in(layers_key, network.depth), values.shape[1:], h.dtype)
        scale = jnp.sqrt(network.output_weight_variance / widths[-1])
        last = network.output_weight_variance / widths[-1] * _gram(values)
        return scale * jnp.sum(values * vector[None], axis=-1), (grams, last)

    pushes = jnp.zeros((network.depth, steps, *h0.shape), h0.dtype)
    y, backward, (grams, last) = jax.vjp(outputs, h0, pushes, has_aux=True)
    at_start, gradients = backward(jnp.ones_like(y))
    theta = last + network.output_bias_variance + _gram(at_start) * kernel[:, :, None]
    return theta + jnp.einsum("lkabs,lkabs->abs", jax.vmap(jax.vmap(_gram))(gradients), grams)


def _gram(values: Float[Array, "inputs batch neuron"]) -> Float[Array, "inputs inputs batch"]:
    return jnp.einsum("ain,bin->abi", values, values)


def _layer_gram(values, weights) -> Array:
    """C_W sigma sigma^T / n_l + C_b."""
    masked = values * weights.mask[None, None, :]
    return weights.weight_variance / weights.width * _gram(masked) + weights.bias_variance
