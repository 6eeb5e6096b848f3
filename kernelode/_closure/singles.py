"""Orders and degrees of a Wick tower in either layout, and its towers of inputs by themselves."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._activation.base import AbstractActivation
from .._architecture import AbstractArchitecture, Layer
from .._architecture.start import upstream_moments
from .._expectation.products import SingleProducts, single_products
from .chaos_basis import Degrees, basis_floor, degrees
from .chaos_couplings import degree_step, top_degree
from .single_tower import Above, SingleTower, begin_single

#: The order for elements of one input through layers: K1 of tanh at variance 4 is then right to 1e-4.
SINGLE_ORDER = 120


def known_order(closure: Any) -> int:
    """The order of a tower; one that has a tolerance has none before `prepare`."""
    if closure.order is None:
        raise ValueError("`WickTower(tolerance=...)` has no order before `prepare(network, kernel)`.")
    return closure.order


def tower_degrees(closure: Any, network: AbstractArchitecture) -> Degrees:
    """Those of the towers of pairs."""
    activation = network.activation
    return degrees(known_order(closure), degree_step(activation), basis_floor(activation))


def single_order(closure: Any) -> int:
    """The order for elements of one input; it costs next to nothing, one number a degree."""
    given = closure.single_order
    return max(known_order(closure), SINGLE_ORDER) if given is None else given


def single_degrees(closure: Any, network: AbstractArchitecture) -> Degrees:
    return degrees(single_order(closure), degree_step(network.activation))


def highest_order(closure: Any) -> int:
    """The highest degree of elements of one input, with a state or without."""
    return max(single_order(closure), closure.tail or 0)


def along_flow(closure: Any) -> Any:
    """With one order for all elements, and higher degrees of single inputs without a state. Memory of
    degree p relaxes at the rate (p/2) Q/K, and steps would have to follow."""
    if closure.single_order is not None:
        return closure
    order = known_order(closure)
    tail = SINGLE_ORDER if order + 1 < SINGLE_ORDER else None
    return dataclasses.replace(closure, single_order=order, tail=tail)


def through_layers(closure: Any) -> Any:
    """Without the degrees that have no state: their memory is that of a flow. (The closure of a flow's
    solution may be given to `propagate`.)"""
    return dataclasses.replace(closure, tail=None)


def begin_singles(closure: Any, network: AbstractArchitecture, kernel: Any) -> SingleTower:
    """The towers of all inputs by themselves at the start."""
    start, d, variances = closure.start, single_degrees(closure, network), jnp.diagonal(kernel)
    inputs = np.arange(kernel.shape[0])[:, None]
    covariance, shift = upstream_moments(start, kernel.shape[0], [inputs, inputs], kernel.dtype)
    spectrum = None
    if closure.tail is not None:
        spectrum = input_singles(network.activation, variances, highest_order(closure)).square
    begin = lambda *x: begin_single(start, d, *x)
    return jax.vmap(begin)(variances, covariance[:, 0, 0], shift[:, 0], spectrum)


def map_singles(
    step: Callable[..., Any],
    closure: Any,
    network: Any,
    products: SingleProducts,
    variances: Array,
    towers: SingleTower,
    layer: Layer,
) -> SingleTower:
    """`single_rate` or `single_push` of every input, with its expectations and its variance."""
    d, above = single_degrees(closure, network), None
    if towers.tail is not None:
        p = np.arange(d.neglected, highest_order(closure) + 1, degree_step(network.activation))
        above = Above(p, network.flow_layer().affine)
    one_input = lambda x, q, tower: step(x, q, tower, layer, d, above)
    return jax.vmap(one_input)(products, variances, towers)


def input_singles(activation: AbstractActivation, variances: Array, order: int) -> SingleProducts:
    return jax.vmap(lambda q: single_products(activation, q, top_degree(order)))(variances)
