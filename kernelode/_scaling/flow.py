"""The diagonal optimum at continuous depth.

The flow dK/dt = Q(K) of a variance is autonomous, hence chi(t) = Q(K(t)) / Q(K0) and

    log chi_out = F(K(t)) - log Q(K0),   F = log a_out + log Q,   a_out = dK_out/dK.

The optimum is a kernel K* = argmax_{K >= K0} F(K), which does not depend on the depth, and the time to
get there, t* = int_{K0}^{K*} dK / Q(K). For L blocks rho*^2 = (t* + t1/L + O(1/L^2)) / L, where t1
follows from the modified equation of the Euler scheme that a discrete network is (docs/theory.md):

    t1 = t*/2 log(Q*/Q0) + [Q'* - Q'0 + t* Q* Q''*] / (2 F''* Q*^2).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture import AbstractResidualNetwork
from .._kernel import Variances
from .._support.trees import as_constant
from .newton import implicit, maximise, slope_and_curvature
from .objective import flow_drift, gain, slope, value_and_slope

_GRID = 40


class FlowOptimum(NamedTuple):
    """t*, t1, K* and how the search ended, for one variance."""

    time: Float[Array, ""]
    correction: Float[Array, ""]
    kernel: Float[Array, ""]
    interior: Array
    decreasing: Array
    increasing: Array


def height_and_drift(
    network: AbstractResidualNetwork,
) -> Callable[[Array], tuple[Array, Array]]:
    """k -> (F, Q) of a variance, elementwise. They go together: a derivative of one is then one of the
    other, and expectations that both need are evaluated once."""

    of_flow = flow_drift(network)

    def both(k: Array) -> tuple[Array, Array]:
        drift, _ = gain(of_flow, Variances(k))
        _, read_out_slope = gain(network.read_out, Variances(k))
        return jnp.log(jnp.abs(read_out_slope)) + jnp.log(jnp.abs(drift.values)), drift.values

    return both


def diagonal_flow_optimum(
    network: AbstractResidualNetwork, q: Float[Array, ""], *, refine: bool = True
) -> FlowOptimum:
    """Where the diagonal response of an input of variance `q` is largest along the flow.

    Without `refine` by one Newton step from a grid, to a relative 1e-3 or better, without derivatives: a
    start for other searches. `interior` is then what the grid says.
    """
    frozen, start = as_constant((network, q))
    height = lambda k: height_and_drift(frozen)(k)[0]

    # F and its slope at K0 and, in v = log(K - K0), from a fine to a coarse distance. In turn: where many
    # inputs are searched at once, all their grids would not fit into the cache.
    grid = jnp.linspace(-14.0, 12.0, _GRID - 1, dtype=q.dtype) + jnp.log(1 + start)
    distances = jnp.concatenate([jnp.zeros_like(grid[:1]), jnp.exp(grid)])
    heights, slopes = jax.lax.map(value_and_slope(height), start + distances, batch_size=8)
    heights = jnp.where(jnp.isfinite(heights), heights, -jnp.inf)
    best = jnp.argmax(heights)
    rises = slopes[best] > 0
    decreasing = (best == 0) & ~rises
    increasing = best == _GRID - 1
    interior = ~decreasing & ~increasing

    # The maximum is next to the highest point: that of the cubic through two heights and slopes.
    left = jnp.clip(jnp.where(rises, best, best - 1), 0, _GRID - 2)
    low, high = grid[jnp.maximum(left - 1, 0)], grid[left]
    slopes = slopes * distances * (grid[1] - grid[0])
    share = _highest(heights[left], heights[left + 1], slopes[left], slopes[left + 1])
    v = low + share * (high - low)
    if refine:
        search = maximise(
            slope_and_curvature(lambda v: height(start + jnp.exp(v))),
            v,
            lower=-80.0,
            upper=grid[-1] + 1,
            bracket=(jnp.where(left == 0, -jnp.inf, low), high),
            skip=~interior,
        )
        decreasing = decreasing | (search.below & interior)
        interior = search.converged & interior
        v = implicit(_slope_at_distance, search.position, interior, (network, q))

    kernel, both = q + jnp.exp(v), height_and_drift(network)
    ends = value_and_slope(value_and_slope(both))(jnp.stack([q, kernel]))
    ((_, value), (gradient, rate)), (_, (sharpness, curvature)) = ends
    if not refine:
        distance = jnp.exp(v)
        bend = sharpness[1] * distance + gradient[1]
        newton = jnp.where(bend < 0, -gradient[1] / jnp.where(bend < 0, bend, 1), 0)
        kernel = q + distance * jnp.exp(jnp.clip(newton, -0.5, 0.5))
    time = _passage_time(lambda k: both(k)[1], q, kernel, value[0], rate[0])
    moved = rate[1] - rate[0] + time * value[1] * curvature[1]
    correction = time / 2 * jnp.log(value[1] / value[0]) + moved / (2 * sharpness[1] * value[1] ** 2)
    return FlowOptimum(time, correction, kernel, interior, decreasing, increasing)


def _highest(before: Array, after: Array, rise: Array, fall: Array) -> Array:
    """Where on [0, 1] the cubic with these values and slopes at the ends has its maximum; in the middle
    if the slopes do not say that it has one."""
    turns = (rise > 0) & (fall < 0)
    rise, fall = jnp.where(turns, rise, 1), jnp.where(turns, fall, -1)
    climb = jnp.where(turns, after - before, 0)
    square, cubic = 3 * climb - 2 * rise - fall, rise + fall - 2 * climb
    return jnp.where(turns, rise / (jnp.sqrt(square**2 - 3 * cubic * rise) - square), 0.5)


def _slope_at_distance(v: Array, args: Any) -> Array:
    """dF/dv at K = K0 + exp(v)."""
    network, q = args
    return slope(lambda v: height_and_drift(network)(q + jnp.exp(v))[0])(v)


def _passage_time(drift: Callable[..., Any], first: Array, last: Array, value: Array, rate: Any) -> Array:
    """int dK / Q(K) by Gauss-Legendre in log(K + shift), in which growth is nearly uniform; `value` and
    `rate` are Q and dQ/dK at `first`."""
    growing = rate > 0
    shift = jnp.where(growing, value / jnp.where(growing, rate, 1) - first, 1)
    shift = jax.lax.stop_gradient(jnp.maximum(shift, 0))
    # NumPy's nodes: `scipy.special` alone takes 0.15 s to import.
    points, weights = (jnp.asarray(x, first.dtype) for x in np.polynomial.legendre.leggauss(24))
    low, high = jnp.log(first + shift), jnp.log(last + shift)
    moved = jnp.exp((high + low) / 2 + (high - low) / 2 * points)
    return (high - low) / 2 * jnp.sum(weights * moved / drift(moved - shift))
