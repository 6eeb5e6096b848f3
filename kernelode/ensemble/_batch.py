"""One batch of random networks, from the first layer to the last, and the sums over it.

Beside each network runs, on the same normals, its non-interacting reference: neurons phi_i that see the
mean kernel, and the linear response d_i of the kernel to each of them,

    phi' = alpha phi + rho A0 z,      d'_ab = alpha^2 d_ab + rho^2 [C_W (f_ab(phi) - E f_ab) + DQ[d]_ab],

f_ab = sigma(phi_a) sigma(phi_b). A neuron's part in the kernel is x_ab = phi_a phi_b - K0_ab + d_ab; in a
feed-forward network d_ab alone. Neurons are independent and E x = 0, exactly; the mean of x over
neurons, `lin`, is the fluctuation dG of the kernel to leading order. So n Cov(lin) = Cov(x) is the limit
of n Cov(G, G), and dG - lin has the mean of dG (docs/ensembles.md).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from .._architecture.layer import Layer
from ._draw import Draw, Sums
from ._elements import Elements
from ._factor import apply_factor
from ._network import Data, block, first_layer, layer_weights, present, read_in
from ._reference import Reference
from ._tangent_kernel import tangent_kernels


class Companion(eqx.Module):
    """The reference neurons phi, (inputs, batch, neurons), and the response d of the kernel to each,
    (element, batch, neurons)."""

    free: Array
    response: Array


class State(eqx.Module):
    """A batch of networks at one layer.

    - `h`: preactivations, (inputs, batch, neurons).
    - `kernel`: of a feed-forward network: the deviation from K0 of the covariance of h given the weights
        before, (element, batch).
    - `companion`: their reference, if there is one.
    """

    h: Array
    kernel: Array | None
    companion: Companion | None


def run_batch(draw: Draw, key) -> Sums:
    """Sums over one batch of networks."""
    if not draw.plan.responses:
        sums = _walk(draw, draw.start, key)
    else:

        def kernel(start):
            sums = _walk(draw, start, key)
            return sums["y"], sums

        push = lambda tangent: jax.jvp(kernel, (draw.start,), (tangent,), has_aux=True)[1:]
        change, sums = jax.vmap(push, out_axes=(1, None))(draw.tangents)
        sums = sums | {"response": change}
    return sums if draw.tangent_kernel is None else sums | tangent_kernels(draw, key)


def _walk(draw: Draw, start, key) -> Sums:
    plan, network = draw.plan, draw.network
    first_key, layers_key = jr.split(key)
    places = np.full(network.depth + 1, -1)
    places[list(plan.layers)] = np.arange(len(plan.layers))
    state = _first(draw, start, first_key)
    here = lambda index: jax.tree.map(lambda x: x[index], draw.reference)
    shapes = eqx.filter_eval_shape(_measure, draw, state, here(0), draw.widths[0])
    store = jax.tree.map(lambda s: jnp.zeros((len(plan.layers), *s.shape), s.dtype), shapes)

    def write(store, place, *measured):
        at_place = lambda s, x: s.at[place].set(x)
        put = lambda store: jax.tree.map(at_place, store, _measure(draw, *measured))
        return jax.lax.cond(place >= 0, put, lambda store: store, store)

    # A layer hands on the needs of the next one in the carry: XLA would look it up in the stacked
    # arrays for every neuron, at three times the cost of a layer.
    def step(carry, following):
        state, store, now = carry
        layer, width, place, reference, index = now
        store = write(store, place, state, reference, width)
        layer_key = jr.fold_in(layers_key, index)
        state = _next(draw, state, reference, layer, width, layer_key)
        return (state, store, following), None

    before = jax.tree.map(lambda x: x[:-1], draw.reference)
    index = jnp.arange(network.depth, dtype=jnp.uint32)
    stacked = (network.layers(), draw.widths[:-1], jnp.asarray(places[:-1]), before, index)
    first = jax.tree.map(lambda x: x[0], stacked)
    following = jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), stacked)
    (state, store, _), _ = jax.lax.scan(step, (state, store, first), following)
    return write(store, jnp.asarray(places[-1]), state, here(-1), draw.widths[-1])


def _first(draw: Draw, start, key) -> State:
    plan, elements = draw.plan, draw.elements
    if isinstance(start, Data):
        h = free = read_in(draw.network, plan, start.x, key)
    else:
        h, free = first_layer(plan, start, key)
    kernel = None if draw.residual else jnp.zeros((elements.count, plan.batch), h.dtype)
    if not plan.controlled:
        return State(h, kernel, None)
    response = jnp.zeros((elements.count, plan.batch, plan.neurons), h.dtype)
    if plan.fixed_gram:  # the kernel does not fluctuate: d cancels what the reference does
        response = -_deviations(elements, free, draw.reference.kernel[0])
    return State(h, kernel, Companion(free, response))


def _next(draw: Draw, state: State, reference: Reference, layer: Layer, width, key) -> State:
    """One layer of the networks, and of their references on the same normals."""
    weights = layer_weights(layer.affine, draw.plan, width)
    increment, z = block(draw.network, draw.sampler, weights, state.h, key)
    h = layer.skip * state.h + layer.scale * increment if draw.residual else increment
    kernel = None
    if not draw.residual:
        deviation = _sigma_deviations(draw, state.h, reference, width)
        kernel = layer.affine.weight_variance * jnp.mean(deviation, axis=-1)
    before = state.companion
    if before is None or z is None:
        return State(h, kernel, None)
    batched = jnp.broadcast_to(reference.factor[:, :, None], (*reference.factor.shape, draw.plan.batch))
    moved = apply_factor(batched, z)
    free = layer.skip * before.free + layer.scale * moved if draw.residual else moved
    source = layer.affine.weight_variance * _sigma_response(draw, before, reference, width)
    response = layer.skip**2 * before.response + layer.scale**2 * source if draw.residual else source
    return State(h, kernel, Companion(free, response))


def _deviations(elements: Elements, h, kernel):
    """h_a h_b - K_ab of every neuron."""
    return h[elements.first] * h[elements.second] - kernel[:, None, None]


def _sigma_deviations(draw: Draw, h, reference: Reference, width):
    """(n_sim / n_l) (f_ab - E f_ab) of every neuron that is there: its mean over all is that over n_l."""
    plan = draw.plan
    values = draw.network.activation(h)
    deviation = _deviations(draw.elements, values, reference.moment)
    if draw.residual:
        return deviation
    weight = present(plan, width) * (plan.neurons / width)
    return deviation * weight[None, None, :]


def _sigma_response(draw: Draw, companion: Companion, reference: Reference, width):
    """f_ab(phi) - E f_ab + DE f[d]_ab of every neuron."""
    deviation = _sigma_deviations(draw, companion.free, reference, width)
    aa, ab, bb = draw.elements.triple.T
    slope = reference.slope[:, :, None, None]
    d = companion.response
    return deviation + slope[:, 0] * d[aa] + slope[:, 1] * d[ab] + slope[:, 2] * d[bb]


def _measure(draw: Draw, state: State, reference: Reference, width) -> Sums:
    """Sums over the batch at one layer: of deviations of G and of G_sigma, (2 E) together.

    - `y`, `yy`, `yyy`: first moments; second ones of G with both, by group; third ones of G.
    - `l`, `ll`: first and second moments of `lin`; `xx`: the second ones from single neurons.
    """
    elements = draw.elements
    if state.kernel is None:
        kernel = jnp.mean(_deviations(elements, state.h, reference.kernel), axis=-1)
    else:
        kernel = state.kernel
    sigma = jnp.mean(_sigma_deviations(draw, state.h, reference, width), axis=-1)
    y = jnp.concatenate([kernel, sigma])
    sums = {"y": jnp.sum(y, axis=1), "yy": _seconds(elements, y), "yyy": jnp.sum(kernel**3, axis=1)}
    companion = state.companion
    if companion is None:
        return sums
    x = companion.response
    if draw.residual:
        x = x + _deviations(elements, companion.free, reference.kernel)
    x = jnp.concatenate([x, _sigma_response(draw, companion, reference, width)])
    lin = jnp.mean(x, axis=-1)
    neurons = _seconds(elements, x.reshape(x.shape[0], -1)) / float(x.shape[-1]) ** 2
    return sums | {"l": jnp.sum(lin, axis=1), "ll": _seconds(elements, lin), "xx": neurons}


def _seconds(elements: Elements, y):
    """sum y_i y_j, i a kernel element, j a kernel or sigma element of the same group."""
    both = np.concatenate([elements.groups, elements.groups + elements.count], axis=1)
    return jnp.einsum("gib,gjb->gij", y[elements.groups], y[both])
