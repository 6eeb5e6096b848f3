"""The diagonal optimum at continuous depth.

The flow dK/dt = Q(K) of a variance is autonomous, hence chi(t) = Q(K(t)) / Q(K0) and

    log chi_out = F(K(t)) - log Q(K0),   F = log a_out + log Q,   a_out = dK_out/dK.

The optimum is a kernel K* = argmax_{K >= K0} F(K), which does not depend on the depth, and the time to
get there, t* = int_{K0}^{K*} dK / Q(K). For L blocks rho*^2 = (t* + t1/L + O(1/L^2)) / L, where t1
follows from the modified equation of the Euler scheme that a discrete network is (docs/theory.md):

    t1 = t*/2 log(Q*/Q0) + [Q'* - Q'0 + t* Q* Q''*] / (2 F''* Q*^2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import scipy
from jaxtyping import Array, Float

from .._architecture import AbstractResidualNetwork
from .._kernel import Variances
from .newton import implicit, maximise, slope_and_curvature
from .objective import gain, slope, value_and_slope

_GRID = 64


class FlowOptimum(NamedTuple):
    """t*, t1, K* and how the search ended, for one variance."""

    time: Float[Array, ""]
    correction: Float[Array, ""]
    kernel: Float[Array, ""]
    interior: Array
    decreasing: Array
    increasing: Array


def diagonal_functions(network: AbstractResidualNetwork):
    """Q and F of a variance, elementwise."""
    drift = lambda k: network.drift(Variances(k)).values

    def objective(k):
        # The slope of the drift, not needed, costs nothing: it makes its expectations those of the
        # read-out's slope, which are then evaluated once.
        drift, _ = gain(network.drift, Variances(k))
        _, read_out_slope = gain(network.read_out, Variances(k))
        return jnp.log(jnp.abs(read_out_slope)) + jnp.log(jnp.abs(drift.values))

    return drift, objective


def diagonal_flow_optimum(network: AbstractResidualNetwork, q: Float[Array, ""]) -> FlowOptimum:
    """Where the diagonal response of an input of variance `q` is largest along the flow."""
    frozen, start = jax.lax.stop_gradient((network, q))
    _, objective = diagonal_functions(frozen)

    # In v = log(K - K0), from a fine to a coarse distance.
    reach = jnp.log(1 + start)
    grid = jnp.linspace(-14.0, 12.0, _GRID, dtype=q.dtype) + reach
    at_distance = lambda v: objective(start + jnp.exp(v))
    # In turn: where many inputs are searched at once, all their grids would not fit into the cache.
    heights = jax.lax.map(at_distance, grid, batch_size=8)
    heights = jnp.where(jnp.isfinite(heights), heights, -jnp.inf)
    best = jnp.argmax(heights)
    height_at_start, slope_at_start = value_and_slope(objective)(start)
    grows_at_start = slope_at_start > 0
    grows_at_end = best == _GRID - 1
    decreasing = ~grows_at_start & (heights[best] <= height_at_start)
    low = jnp.where(best == 0, -jnp.inf, grid[jnp.maximum(best - 1, 0)])
    search = maximise(
        slope_and_curvature(at_distance),
        grid[best],
        lower=-80.0,
        upper=grid[-1] + 1,
        bracket=(low, grid[jnp.minimum(best + 1, _GRID - 1)]),
        skip=decreasing | grows_at_end,
    )
    interior = search.converged & ~decreasing & ~grows_at_end

    drift, objective = diagonal_functions(network)
    v = implicit(_slope_at_distance, search.position, interior, (network, q))
    kernel = q + jnp.exp(v)
    time = _passage_time(drift, q, kernel)
    return FlowOptimum(
        time=time,
        correction=_first_correction(drift, objective, q, kernel, time),
        kernel=kernel,
        interior=interior,
        decreasing=decreasing | (search.below & ~grows_at_end),
        increasing=~decreasing & grows_at_end,
    )


def _slope_at_distance(v, args):
    """dF/dv at K = K0 + exp(v)."""
    network, q = args
    return slope(lambda v: diagonal_functions(network)[1](q + jnp.exp(v)))(v)


def _passage_time(drift, first, last):
    """int dK / Q(K) by Gauss-Legendre in log(K + shift), in which growth is nearly uniform."""
    value, rate = value_and_slope(drift)(first)
    growing = rate > 0
    shift = jnp.where(growing, value / jnp.where(growing, rate, 1) - first, 1)
    shift = jax.lax.stop_gradient(jnp.maximum(shift, 0))
    points, weights = (jnp.asarray(x, first.dtype) for x in scipy.special.roots_legendre(24))
    low, high = jnp.log(first + shift), jnp.log(last + shift)
    moved = jnp.exp((high + low) / 2 + (high - low) / 2 * points)
    return (high - low) / 2 * jnp.sum(weights * moved / drift(moved - shift))


def _first_correction(drift, objective, first, last, time):
    q_first, slope_first = value_and_slope(drift)(first)
    (q_last, slope_last), (_, curvature) = value_and_slope(value_and_slope(drift))(last)
    sharpness = slope(slope(objective))(last) * q_last**2
    numerator = slope_last - slope_first + time * q_last * curvature
    return time / 2 * jnp.log(q_last / q_first) + numerator / (2 * sharpness)
