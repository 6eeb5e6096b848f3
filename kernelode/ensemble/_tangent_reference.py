"""The tangent kernel of infinite width, integrated by the ensemble's own rule (`_reference.py`):

Theta' = lambda_b + lambda_W E[sigma_a sigma_b] + C_W E[sigma'_a sigma'_b] Theta.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture import AbstractLayered
from .._architecture.rates import LearningRates, RatedLayer
from .._kernel import as_block
from ._elements import Elements
from ._reference import kinks_of, pair_integrals, plane_integrals


def tangent_chain(
    network: AbstractLayered,
    rates: LearningRates,
    kernel: Float[np.ndarray, "layers element"],
    elements: Elements,
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "layers element"]]:
    """Theta of the read-in, and that of the network's output, read out at each layer, of which `kernel`
    has K0; in float64."""
    with jax.enable_x64(True):
        double = lambda x: jnp.asarray(np.asarray(x), jnp.float64)
        exact = lambda tree: jax.tree.map(lambda x: double(x) if eqx.is_inexact_array(x) else x, tree)
        network, rates = exact(network), exact(rates)
        first = as_block(double(elements.unfold(kernel[0])))
        start = rates.read_in(network, first)
        rated = rates.layers(network), rates.read_out_layer(network)
        columns = tuple(tuple(int(i) for i in column) for column in elements[:2])
        begin = start[elements.first, elements.second]
        theta = _chain(network, rated, double(kernel), begin, columns, elements.inputs)
        return np.asarray(start), np.asarray(theta)


@eqx.filter_jit
def _chain(network, rated: tuple[RatedLayer, RatedLayer], kernel, begin, columns, inputs: int) -> Array:
    first, second = (np.array(column) for column in columns)
    own = np.flatnonzero(first == second)
    assert len(own) == inputs
    sigma = network.activation
    slope = lambda x: jax.jvp(sigma, (x,), (jnp.ones_like(x),))[1]

    def averages(k):
        """E[sigma_a sigma_b] and E[sigma'_a sigma'_b]."""
        one = lambda x: (pair_integrals(sigma, *x)[0], plane_integrals(slope, kinks_of(sigma), *x)[0])
        return jax.lax.map(one, (k[own][first], k[own][second], k))

    def affine(layer: RatedLayer, k, theta):
        moment, gradient = averages(k)
        after = lambda law, x: law.weight_variance * x + law.bias_variance
        return (
            after(layer.affine, moment),
            after(layer.rates, moment) + layer.affine.weight_variance * gradient * theta,
        )

    layers, read_out = rated

    def step(theta, xs):
        layer, k = xs
        block = k, theta
        for _ in range(network.layers_per_block):
            block = affine(layer, *block)
        return layer.skip**2 * theta + layer.scale**2 * block[1], affine(read_out, k, theta)[1]

    last, outs = jax.lax.scan(step, begin, (layers, kernel[:-1]))
    return jnp.concatenate([outs, affine(read_out, kernel[-1], last)[1][None]])
