"""The neural tangent kernel of every network of a batch, with real weights.

In the parametrisation W = sqrt(C_W / n) w, b = sqrt(C_b) beta, w and beta standard normal and all of
them trained, the read-in and the read-out too, of a network whose one output y reads layer l:

    Theta_ab = sum_{m <= l} (g_a . g_b) (C_W sigma_a . sigma_b / n_m + C_b),    g = d y / d (W sigma + b).

One backward pass for each l gives the g of all layers; no weight matrix is differentiated.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._architecture import AbstractLayered, AbstractResidualNetwork
from ._network import Data, block_keys, first_layer, layer_weights, present, read_in
from ._normals import standard_normals
from ._plan import Plan
from ._sampler import AbstractSampler, Weights


def tangent_kernels(
    network: AbstractLayered, sampler: AbstractSampler, plan: Plan, widths, start, key
) -> Float[Array, "layers inputs inputs batch"]:
    """Theta of each network, read out at the layers that are measured. With the same key, the networks
    are those whose kernels are measured."""
    first_key, layers_key = jr.split(key)
    if isinstance(start, Data):
        h0 = read_in(network, plan, start.x, first_key)
        kernel = network.read_in(start.x)
    else:
        h0, _ = first_layer(plan, start, first_key)
        kernel = start @ start.T
    residual = isinstance(network, AbstractResidualNetwork)
    vector = standard_normals(jr.fold_in(layers_key, network.depth), h0.shape[1:], h0.dtype)

    def read_out(h, width):
        """y of each input, and the part of Theta that the read-out's own weights have."""
        values = network.activation(h) * present(plan, width)[None, None, :]
        variance = network.output_weight_variance / width
        y = jnp.sqrt(variance) * jnp.sum(values * vector[None], axis=-1)
        return y, variance * _gram(values) + network.output_bias_variance

    @jax.checkpoint  # weights are drawn again on the way back, not kept
    def one_layer(h, pushes, layer, width, layer_key):
        weights = layer_weights(layer.affine, plan, width)
        u, grams = h, []
        for inner_key, push in zip(block_keys(network, layer_key), pushes):
            grams.append(_layer_gram(network.activation(u), weights))
            u = sampler.layer(inner_key, network.activation, u, weights)[0] + push
        following = layer.skip * h + layer.scale * u if residual else u
        return following, jnp.stack(grams)

    def outputs(h0, pushes):
        def step(h, xs):
            push, layer, width, index = xs
            following, grams = one_layer(h, push, layer, width, jr.fold_in(layers_key, index))
            return following, (read_out(h, width), grams)

        index = jnp.arange(network.depth, dtype=jnp.uint32)
        last, (outs, grams) = jax.lax.scan(step, h0, (pushes, network.layers(), widths[:-1], index))
        join = lambda x, end: jnp.concatenate([x, end[None]])[jnp.asarray(plan.layers)]
        y, own = jax.tree.map(join, outs, read_out(last, widths[-1]))
        return y, (own, grams)

    pushes = jnp.zeros((network.depth, network.layers_per_block, *h0.shape), h0.dtype)
    y, backward, (own, grams) = jax.vjp(outputs, h0, pushes, has_aux=True)

    def below(layer):
        """The part of Theta from the layers before a read-out, and from the read-in."""
        at_start, gradients = backward(jnp.zeros_like(y).at[layer].set(1))
        inner = jnp.einsum("lkabs,lkabs->abs", jax.vmap(jax.vmap(_gram))(gradients), grams)
        return inner + _gram(at_start) * kernel[:, :, None]

    return own + jax.lax.map(below, jnp.arange(len(plan.layers)))


def _gram(values: Float[Array, "inputs batch neuron"]) -> Float[Array, "inputs inputs batch"]:
    return jnp.einsum("ain,bin->abi", values, values)


def _layer_gram(values, weights: Weights) -> Array:
    """C_W sigma sigma^T / n_l + C_b."""
    masked = values * weights.mask[None, None, :]
    return weights.weight_variance / weights.width * _gram(masked) + weights.bias_variance
