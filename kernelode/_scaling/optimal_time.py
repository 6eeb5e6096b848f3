"""The continuous-depth limit of the optimal residual scale: t* = lim L rho*^2, and its 1/L correction.

Diagonal elements: `flow.py`. For a pair the flow of (K_aa, K_bb, K_ab) is integrated with the logarithm
of the response; with c = d log chi_ab;ab / dt and b_out = dK_out,ab/dK_ab, the optimum is where

    G = c + d log b_out / dt

turns from positive to negative. L blocks are the Euler scheme with steps e = t/L. Its modified equation
gives the first correction to the kernel, e k1, and to the log-response, e l1:

    dk1/dt = DQ[k1] - DQ[Q] / 2,    dl1/dt = Dc[k1] - c^2 / 2 - Dc[Q] / 2,

so that log chi_out(t; L) = Phi(t) + Psi(t)/L with Psi = t (D log b_out[k1] + l1), and
t1 = - Psi'(t*) / Phi''(t*).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork
from .._architecture.base import equal_blocks
from .._depth.arguments import check_diffrax
from .._depth.sizes import check_optima
from .._depth.solve import default_controller
from .._expectation import gain_error, has_known_accuracy, tolerance
from .._kernel import AbstractKernel, Block, Variances, checked_kernel
from .._numerics.chunks import map_in_chunks
from .._support.checks import flag
from .._support.custom_types import RealLike
from .._support.trees import as_constant, cast
from .estimate import OptimalTime, TimeEstimate, statuses
from .flow import diagonal_flow_optimum
from .newton import Search, best_interval, maximise, verdict
from .objective import flow_drift, gain, log_read_out, scan_times
from .optimal import check_residual
from .pairs import from_elements, pair_block, pair_entries


def optimal_flow_time(
    network: AbstractArchitecture,
    kernel: RealLike,
    *,
    pairs: bool = True,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> OptimalTime:
    """t* = argmax over t of chi_out at continuous depth, for every element of the kernel.

    rho* of L blocks is sqrt((t* + t1/L)/L) up to relative errors O(1/L^2), which
    `TimeEstimate.residual_scale` gives. The network's own depth and residual scale do not enter.

    **Arguments**

    - `network`: a `ResNet`.
    - `kernel`: K^0, shape (n, n).
    - `pairs`: search the off-diagonal elements too; static.
    - `adjoint`: how the flow of the pairs is differentiated: Diffrax's default for reverse mode,
        `diffrax.ForwardMode()` for `jvp`. Diagonal elements need none, and have all derivatives;
        off-diagonal ones have first derivatives.

    **Returns** an `OptimalTime`: `.diagonal` (n,) and `.off_diagonal` (n, n), each with `.time`,
    `.correction`, `.kernel` and `.status`.

    **Raises** `TypeError` for a network without a residual scale, `ValueError` for an invalid kernel.
    """
    network = equal_blocks(check_residual(network), "The optimal depth of a flow")
    check_diffrax(adjoint=adjoint)
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    kernel, pairs = checked_kernel(kernel), flag("pairs", pairs)
    check_optima(network, kernel, pairs, flow=True)
    return _optimal_flow_time(network, kernel, pairs, adjoint)


@eqx.filter_jit
def _optimal_flow_time(
    network: AbstractResidualNetwork, kernel: Any, pairs: bool, adjoint: Any
) -> OptimalTime:
    network = cast(network, kernel.dtype)
    diagonal = jax.vmap(lambda q: _diagonal_element(network, q))(jnp.diagonal(kernel))
    if not pairs:
        return OptimalTime(diagonal=diagonal, pairs=None)
    times = jax.lax.stop_gradient(scan_times(network, jnp.diagonal(kernel)))
    one_pair = lambda entries: _pair_element(network, entries, times, adjoint)
    found = map_in_chunks(one_pair, pair_entries(kernel), size=64)
    return OptimalTime(diagonal=diagonal, pairs=from_elements(found, kernel.shape[0]))


def _diagonal_element(network: AbstractResidualNetwork, q: Array) -> TimeEstimate:
    optimum = diagonal_flow_optimum(network, q)
    limit = jnp.where(optimum.increasing, jnp.inf, 0).astype(q.dtype)
    return TimeEstimate(
        time=jnp.where(optimum.interior, optimum.time, limit),
        correction=jnp.where(optimum.interior, optimum.correction, 0),
        kernel=jnp.where(optimum.interior, optimum.kernel, jnp.where(optimum.increasing, limit, q)),
        status=statuses(
            optimum.interior,
            optimum.decreasing,
            optimum.increasing,
            _inaccurate(network, Variances(q[None]), Variances(optimum.kernel[None])),
        ),
    )


def _inaccurate(network: AbstractResidualNetwork, *kernels: AbstractKernel) -> Array:
    """Whether an expectation at the start or at the optimum misses the tolerance."""
    if has_known_accuracy(network.activation):
        return jnp.zeros((), bool)
    network, kernels = as_constant((network, kernels))
    errors = jnp.stack([gain_error(network.activation, kernel) for kernel in kernels])
    return jnp.any(errors > tolerance(errors.dtype))


class _Flow(NamedTuple):
    """A pair on its way: kernel, log-response, and the first corrections to both in 1/L."""

    kernel: Block
    log_response: Array
    kernel_correction: Block
    log_correction: Array


class _Leading(NamedTuple):
    """The same without corrections: all that the search needs."""

    kernel: Block
    log_response: Array


def _growth(network: AbstractResidualNetwork, kernel: Block) -> Array:
    """c = d log chi_ab;ab / dt."""
    return gain(flow_drift(network), kernel)[1].reshape(())


def _log_read_out(network: AbstractResidualNetwork, kernel: Block) -> Array:
    """log b_out."""
    return log_read_out(network, kernel).reshape(())


def _derivative(function: Callable[..., Any], at: Any, along: Any) -> tuple[Any, Any]:
    return jax.jvp(function, (at,), (along,))


def _leading_rate(y: _Leading, network: AbstractResidualNetwork) -> _Leading:
    drift, growth = gain(flow_drift(network), y.kernel)
    return _Leading(drift, growth.reshape(()))


def _rate(y: _Flow, network: AbstractResidualNetwork) -> _Flow:
    # Both directional derivatives in one sweep: the expectations are evaluated once.
    of_flow = flow_drift(network)
    drift_and_growth = lambda kernel: gain(of_flow, kernel)
    directions = (of_flow(y.kernel), y.kernel_correction)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *directions)
    (drift, c), along = jax.vmap(
        lambda direction: _derivative(drift_and_growth, y.kernel, direction), out_axes=(None, 0)
    )(stacked)
    drift_along, c_along = jax.tree.map(lambda x: x[0], along)
    drift_moved, c_moved = jax.tree.map(lambda x: x[1], along)
    return _Flow(
        kernel=drift,
        log_response=c.reshape(()),
        kernel_correction=jax.tree.map(lambda m, d: m - d / 2, drift_moved, drift_along),
        log_correction=(c_moved - c**2 / 2 - c_along / 2).reshape(()),
    )


def _slope(network: AbstractResidualNetwork, kernel: Block) -> Array:
    """G = d log chi_out / dt."""
    read_out = lambda kernel: _log_read_out(network, kernel)
    return _growth(network, kernel) + _derivative(read_out, kernel, flow_drift(network)(kernel))[1]


def _psi(network: AbstractResidualNetwork, t: Float[Array, ""], y: _Flow) -> Array:
    read_out = lambda kernel: _log_read_out(network, kernel)
    return t * (_derivative(read_out, y.kernel, y.kernel_correction)[1] + y.log_correction)


def _integrate(
    rate: Any, network: AbstractResidualNetwork, y: Any, t0: Float[Array, ""], ts: Any, adjoint: Any
) -> Any:
    """dy/dt = rate(y, network) at `ts`, from `t0`."""
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, network: rate(y, network)),  # pyright: ignore
        diffrax.Tsit5(),
        t0=t0,
        t1=ts[-1],
        dt0=jnp.maximum(
            (ts[0] - t0) / 100, jnp.finfo(ts.dtype).tiny
        ),  # the controller's own guess would compile the rate twice more
        y0=y,
        args=network,
        saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=default_controller(y.kernel),
        adjoint=adjoint,
        throw=False,
    ).ys  # pyright: ignore


def _pair_element(
    network: AbstractResidualNetwork, pair: Any, times: Float[Array, " times"], adjoint: Any
) -> TimeEstimate:
    frozen, fixed = as_constant((network, pair))
    forward = diffrax.ForwardMode()
    origin = _Leading(pair_block(fixed), jnp.zeros_like(fixed[0]))
    path = _integrate(_leading_rate, frozen, origin, jnp.zeros_like(times[0]), times, forward)
    heights = path.log_response + jax.vmap(lambda k: _log_read_out(frozen, k))(path.kernel)
    interval = best_interval(jnp.log(times), heights, _log_read_out(frozen, origin.kernel))
    left = jnp.argmin(jnp.abs(jnp.log(times) - interval.low))
    at_left = jax.tree.map(lambda x: x[left], path)

    def derivatives(v: Array) -> tuple[Array, Array]:
        """Of log chi_out with respect to v = log t."""
        t = jnp.exp(v)
        until = jnp.maximum(t, times[left])[None]
        end = _integrate(_leading_rate, frozen, at_left, times[left], until, forward)
        kernel = jax.tree.map(lambda x: x[-1], end.kernel)
        slope = lambda kernel: _slope(frozen, kernel)
        g, h = _derivative(slope, kernel, flow_drift(frozen)(kernel))
        return t * g, t * g + t**2 * h

    search = maximise(
        derivatives,
        interval.start,
        lower=jnp.log(times[0]),
        upper=interval.high + 1,
        bracket=(interval.low, interval.high),
        skip=~interval.found,
    )
    return _finish(network, pair, search, interval, adjoint)


def _finish(
    network: AbstractResidualNetwork, pair: Any, search: Search, interval: Any, adjoint: Any
) -> TimeEstimate:
    found = jnp.exp(search.position)
    kernel, zero = pair_block(pair), jnp.zeros_like(found)
    origin = _Flow(kernel, zero, jax.tree.map(jnp.zeros_like, kernel), zero)
    path = _integrate(_rate, network, origin, zero, found[None], adjoint)
    end = jax.tree.map(lambda x: x[-1], path)
    slope = lambda kernel: _slope(network, kernel)
    g, sharpness = _derivative(slope, end.kernel, flow_drift(network)(end.kernel))

    # One Newton step from the optimum: nothing in value, the implicit first derivative.
    at_zero = _log_read_out(network, origin.kernel)
    height = end.log_response + _log_read_out(network, end.kernel)
    interior, decreasing, increasing = verdict(search, height, at_zero, interval.at_end)
    fixed = jax.lax.stop_gradient(jnp.where(interior, sharpness, 1))
    step = jnp.where(interior, -g / fixed, 0)
    end = jax.tree.map(lambda y, r: y + step * r, end, _rate(end, network))
    time = found + step

    _, psi_slope = _derivative(
        lambda args: _psi(network, *args), (time, end), (jnp.ones_like(time), _rate(end, network))
    )
    _, sharpness = _derivative(slope, end.kernel, flow_drift(network)(end.kernel))
    correction = -psi_slope / jnp.where(interior, sharpness, 1)
    limit = jnp.where(increasing, jnp.inf, 0).astype(time.dtype)
    at_limit = jnp.where(increasing, jnp.inf, pair[2])
    return TimeEstimate(
        time=jnp.where(interior, time, limit),
        correction=jnp.where(interior, correction, 0),
        kernel=jnp.where(interior, end.kernel.entries.reshape(()), at_limit),
        status=statuses(interior, decreasing, increasing, _inaccurate(network, kernel, end.kernel)),
    )
