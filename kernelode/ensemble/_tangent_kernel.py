"""The tangent kernel of every network of a batch, with real weights.

Of the outputs z_i = W_i sigma(h) of a network that is read out at layer l,

    H_ij,ab = delta_ij (lambda_W sigma_a . sigma_b / n_l + lambda_b)
        + sum_{m <= l} (g_ia . g_jb) (lambda_W sigma_a . sigma_b / n_m + lambda_b),

g_i = d z_i / d (W sigma + b), the rates and sigma of layer m in each term; that of the read-in has its
Theta in the place of the bracket. One backward pass for each l gives the g of all layers and outputs; no
weight matrix is differentiated.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._architecture import Affine
from ._draw import Draw, Sums
from ._network import Data, block_keys, first_layer, layer_weights, present, read_in
from ._normals import standard_normals
from ._sampler import Weights
from ._tangent_sums import tangent_sums

#: Outputs of a network. They share its weights, which are what costs, and their average has less noise:
#: errors of A and D fall to those that the hidden layers make, and those of F and B with the number of
#: pairs. More than eight gain little (docs/ensembles.md).
OUTPUTS = 8


def tangent_kernels(draw: Draw, key) -> Sums:
    """Sums over the tangent kernels of a batch, read out at the layers that are measured. With the same
    key, the networks are those whose kernels are measured."""
    network, plan, tangent, elements = draw.network, draw.plan, draw.tangent_kernel, draw.elements
    assert tangent is not None
    first_key, layers_key = jr.split(key)
    if isinstance(draw.start, Data):
        h0 = read_in(network, plan, draw.start.x, first_key)
    else:
        h0, _ = first_layer(plan, draw.start, first_key)
    shape = (OUTPUTS, *h0.shape[1:])
    vectors = standard_normals(jr.fold_in(layers_key, network.depth), shape, h0.dtype)

    def read_out(h, width):
        """z_i of each input but for its bias, the part of H_ii that the read-out's own parameters have,
        and sigma_a . sigma_b / n."""
        values = network.activation(h) * present(plan, width)[None, None, :]
        z = jnp.sqrt(network.output_weight_variance / width) * jnp.einsum("asn,isn->ias", values, vectors)
        square = _gram(values) / width
        return z, _affine(tangent.read_out.rates, square), square

    @jax.checkpoint  # weights are drawn again on the way back, not kept
    def one_layer(h, pushes, layer, width, layer_key):
        weights = layer_weights(layer.affine, plan, width)
        u, grams = h, []
        for inner_key, push in zip(block_keys(network, layer_key), pushes):
            grams.append(_affine(layer.rates, _layer_gram(network.activation(u), weights)))
            u = draw.sampler.layer(inner_key, network.activation, u, weights)[0] + push
        following = layer.skip * h + layer.scale * u if draw.residual else u
        return following, jnp.stack(grams)

    def outputs(h0, pushes):
        def step(h, xs):
            push, layer, width, index = xs
            following, grams = one_layer(h, push, layer, width, jr.fold_in(layers_key, index))
            return following, (read_out(h, width), grams)

        index = jnp.arange(network.depth, dtype=jnp.uint32)
        last, (outs, grams) = jax.lax.scan(step, h0, (pushes, tangent.layers, draw.widths[:-1], index))
        join = lambda x, end: jnp.concatenate([x, end[None]])[jnp.asarray(plan.layers)]
        z, own, square = jax.tree.map(join, outs, read_out(last, draw.widths[-1]))
        return z, (own, square, grams)

    pushes = jnp.zeros((network.depth, network.layers_per_block, *h0.shape), h0.dtype)
    z, backward, (own, square, grams) = jax.vjp(outputs, h0, pushes, has_aux=True)

    def add_layer(total, layer):
        g, gram = layer  # (output, layer of the block, inputs, batch, neuron), (layer of the block, ...)
        return total + jnp.sum(jax.vmap(_products, 1)(g) * gram[:, None, None], axis=0), None

    def measured(place, z_here, own, square, moment, limit):
        one = lambda i: backward(jnp.zeros_like(z).at[place, i].set(1))
        at_start, gradients = jax.vmap(one, out_axes=(0, 1))(jnp.arange(OUTPUTS))
        begin = _products(at_start) * tangent.start[None, None, :, :, None]
        below, _ = jax.lax.scan(add_layer, begin, (gradients, grams))
        h = below + jnp.eye(OUTPUTS, dtype=own.dtype)[:, :, None, None, None] * own[None, None]
        sigma = square[elements.first, elements.second] - moment[:, None]
        return tangent_sums(elements, h, z_here, network.output_weight_variance * sigma, limit)

    layers = jnp.asarray(plan.layers)
    place = jnp.arange(len(plan.layers))
    here = draw.reference.moment[layers], tangent.limit[layers]
    return jax.lax.map(lambda xs: measured(*xs), (place, z, own, square, *here))


def _products(g: Float[Array, "output inputs batch neuron"]) -> Array:
    """g_ia . g_jb, (output, output, inputs, inputs, batch)."""
    return jnp.einsum("iasn,jbsn->ijabs", g, g)


def _gram(values: Float[Array, "inputs batch neuron"]) -> Float[Array, "inputs inputs batch"]:
    return jnp.einsum("asn,bsn->abs", values, values)


def _layer_gram(values, weights: Weights) -> Array:
    """sigma sigma^T / n_l."""
    return _gram(values * weights.mask[None, None, :]) / weights.width


def _affine(rates: Affine, square: Array) -> Array:
    """What the parameters of a layer have of the tangent kernel after it."""
    return rates.weight_variance * square + rates.bias_variance
