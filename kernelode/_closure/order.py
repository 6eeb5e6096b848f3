"""The order of a tower from a tolerance, by one pass of a few extreme pairs through the network.

The bound of `truncation.py` needs the spectra of a layer alone: one pass at the highest order has those
of all lower ones, by adding what they leave out degree by degree.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork, Layer
from .._kernel import input_pairs
from .._numerics.safe import safe_divide, safe_root
from .._support.checks import is_concrete
from .._support.trees import cast
from .chaos_basis import Degrees, square_norms
from .chaos_couplings import SOURCES, Couplings
from .tower import Tower, tower_push
from .truncation import Neglected, neglected_push, nothing_neglected

#: What an order is rounded up to: a program is compiled for each.
ORDERS = (8, 12, 16, 24, 32, 48, 64)

#: A flow is as many layers here. Bounds change by some per cent, orders hardly.
_FLOW_LAYERS = 128


def chosen_order(closure: Any, network: AbstractArchitecture, kernel: Any, ts: Any) -> int:
    """The lowest of `ORDERS` with which the truncation is within the tolerance of `closure`."""
    leaves = jax.tree.leaves(eqx.filter((network, kernel, ts), eqx.is_array))
    if not all(is_concrete(leaf) for leaf in leaves):
        raise ValueError(
            "`WickTower(tolerance=...)` chooses its order by the kernel's numbers: where they are traced "
            "(inside of `jit`, `grad` or `vmap`) it needs an `order`."
        )
    highest = dataclasses.replace(closure, order=ORDERS[-1], tolerance=None)
    kernels = jnp.asarray(_extreme_pairs(np.asarray(kernel)), kernel.dtype)
    network, highest = cast((network, highest), kernel.dtype)
    end = None if ts is None else ts[-1]
    alone = kernel.shape[0] == 1
    worst = np.asarray(_worst_errors(highest, network, kernels, end, alone))
    for order, error in zip(ORDERS, worst):
        if error <= closure.tolerance:
            return order
    raise ValueError(
        f"No order up to {ORDERS[-1]} truncates the tower to `tolerance={closure.tolerance}` here: at "
        f"{ORDERS[-1]} the bound is {worst[-1]:.2g}."
    )


def _extreme_pairs(kernel: np.ndarray) -> np.ndarray:
    """Blocks (m, 2, 2) of the pairs of largest and smallest variances and correlations; an input with
    itself if there is but one."""
    n = kernel.shape[0]
    if n == 1:
        return np.broadcast_to(kernel, (1, 2, 2))
    rows, columns = input_pairs(n)
    q = np.diagonal(kernel)
    product = q[rows] * q[columns]
    corr = kernel[rows, columns] / np.sqrt(np.where(product > 0, product, 1))
    ratio = np.abs(np.log(np.where(q > 0, q, 1))[rows] - np.log(np.where(q > 0, q, 1))[columns])
    ranked = (product, -product, corr, -corr, -np.abs(corr), ratio, product * corr)
    found = sorted({int(np.argmax(x)) for x in ranked})
    index = np.stack([rows, columns], axis=1)[found]
    return kernel[index[:, :, None], index[:, None, :]]


@eqx.filter_jit
def _worst_errors(
    closure: Any, network: Any, kernels: Any, end: Any, alone: bool
) -> Float[Array, " orders"]:
    """Of every order: the largest bound among pairs, of V4[X, X] relative to itself and of K1 to the
    kernel's scale, at the end and in the read-out there."""
    layers = network.layers() if end is None else _flow_layers(network, end)

    def one_pair(kernel):
        first = closure.init(network, kernel)
        lowest = nothing_neglected(3, kernel.dtype)
        bounds = [jax.tree.map(lambda x: x[None], lowest) for _ in ORDERS]
        state = eqx.tree_at(lambda s: s.towers, first, (first.towers, bounds))
        step = lambda state, layer: (closure.layer(network, state, layer, _advance), None)
        last = jax.lax.scan(step, state, layers)[0]
        out = closure.layer(network, last, network.read_out_layer(), _advance)
        errors = []
        for at, found in ((last, closure.moments), (out, closure.conditional_moments)):
            tower, bounds = at.towers
            moments = found(network, eqx.tree_at(lambda s: s.towers, at, tower))
            errors.append([_relative(moments, b, end is not None, alone) for b in bounds])
        return jnp.max(jnp.asarray(errors), axis=0)

    return jnp.max(jax.lax.map(one_pair, kernels), axis=0)


def _flow_layers(network: AbstractResidualNetwork, end: Any) -> Layer:
    layer = eqx.tree_at(lambda x: x.scale, network.flow_layer(), jnp.sqrt(end / _FLOW_LAYERS))
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (_FLOW_LAYERS, *x.shape)), layer)


def _relative(moments: Any, bounds: Neglected, flow: bool, alone: bool) -> Float[Array, ""]:
    """Elements of single inputs have the bound of their own tower, but along a flow."""
    x = np.arange(3)
    v4, own = moments.kernel_covariance[0, 1][x, x], moments.covariance_truncation[0, 1][x, x]
    shift = moments.correction_truncation[np.array([0, 0, 1]), np.array([0, 1, 1])]
    variances = jnp.diagonal(moments.mean_kernel)
    scale = jnp.sqrt(jnp.stack([variances[0] ** 2, variances[0] * variances[1], variances[1] ** 2]))
    ours = np.array([flow, not alone, flow])
    errors = jnp.where(ours, bounds.covariance[0][x, x], jnp.where(alone & ~ours & (x == 1), 0, own))
    shifts = jnp.where(ours, bounds.correction[0], jnp.where(alone & ~ours & (x == 1), 0, shift))
    return jnp.max(jnp.maximum(safe_divide(errors, v4), safe_divide(shifts, scale)))


def _advance(
    here: Couplings, carried: Any, layer: Layer, turned: Any, d: Degrees, step: int
) -> tuple[Tower, list[Any]]:
    """A layer of the tower at the highest order, and of the bounds at all."""
    tower: Tower = carried[0]
    # Square norms of every degree, as Parseval's sums have them.
    driven = jnp.sum(here.expansion * here.drive, axis=2)
    sources = square_norms(here.sources, here.gram, step)
    bounds = [
        _lower(found, here, driven, sources, layer, d, order) for found, order in zip(carried[1], ORDERS)
    ]
    return tower_push(here, tower, layer, turned, d, step), bounds


def _lower(
    found: Neglected, here: Couplings, driven: Any, sources: Any, layer: Layer, d: Degrees, order: int
) -> Neglected:
    beyond = d.p > order
    energy = lambda norms: jnp.sum(norms[:, beyond], axis=1)
    tails = here.tails._replace(
        drive=safe_root(here.tails.drive**2 + energy(driven)),
        source=safe_root((here.tails.source**2).at[SOURCES].add(energy(sources))),
    )
    curved = jnp.einsum("xyz,yz->x", jnp.abs(here.curvature), found.covariance)
    first = int(d.p[d.p <= order][-1] + d.p[0])
    return neglected_push(found, tails, here.chi, curved, layer, first)
