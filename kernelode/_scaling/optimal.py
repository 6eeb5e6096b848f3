"""The residual scale rho* at which the output response of a network of finite depth is largest."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork
from .._architecture.base import unit_skip
from .._depth.arguments import checked_network
from .._depth.sizes import check_optima
from .._expectation import expectation_error, gain_error, has_known_accuracy, tolerance
from .._kernel import AbstractKernel, Variances, as_block, checked_kernel, element_inputs
from .._numerics.chunks import map_in_chunks
from .._support.checks import flag, is_concrete
from .._support.custom_types import RealLike
from .._support.trees import as_constant, cast
from .estimate import OptimalScale, ScaleEstimate, statuses
from .flow import diagonal_flow_optimum
from .newton import (
    Interval,
    Search,
    best_interval,
    implicit,
    known,
    maximise,
    verdict,
)
from .objective import (
    gain,
    growth_time,
    log_read_out,
    log_response,
    scan_times,
    slope,
    value_and_slope,
)
from .pairs import from_elements, pair_block, pair_entries
from .status import STATUS

#: Outside these depths, in the same unit, an optimum does not count as one.
_LIMITS = (1e-14, 1e6)


def optimal_residual_scale(
    network: AbstractArchitecture, kernel: RealLike, *, pairs: bool = True
) -> OptimalScale:
    """rho* = argmax over rho of the output response chi_out, for every element of the kernel.

    At the network's own depth, by safeguarded Newton on log rho, started on the diagonal from the
    continuous-depth optimum with its 1/L correction, off the diagonal from a coarse scan. The scale
    that the network has does not matter; per-layer scales keep their shape: rho_l = rho* w_l, the root
    mean square of w being one. (All rho_l free is ill-posed: one layer takes everything.)

    **Arguments**

    - `network`: a `ResNet`.
    - `kernel`: K^0, shape (n, n).
    - `pairs`: search the off-diagonal responses of all pairs too; static.

    **Returns** an `OptimalScale`: `.diagonal` (n,) and `.off_diagonal` (n, n), each with `.value`,
    `.status` and `.response` (chi_out there). `STATUS.inaccurate` says that an expectation, of the input
    or of the pair, misses the tolerance, so that the others cannot be told apart. Elements without an
    interior maximum have value 0 (`decreasing`) or infinity (`increasing`). Gradients of interior values
    with respect to everything traced are those of the implicit function theorem, of all others zero.

    **Raises** `TypeError` for a network without a residual scale, `ValueError` for an invalid kernel.
    """
    network = check_residual(network)
    kernel, pairs = checked_kernel(kernel), flag("pairs", pairs)
    check_optima(network, kernel, pairs)
    return _optimal_residual_scale(network, kernel, pairs)


def check_residual(network: Any) -> AbstractResidualNetwork:
    """The network, if it has a residual scale to optimise; per-layer scales must have a shape."""
    if not isinstance(checked_network(network), AbstractResidualNetwork):
        raise TypeError(
            f"`network` must have a residual scale to optimise; {type(network).__name__} has none."
        )
    scales = network.residual_scale
    if scales.ndim == 1 and is_concrete(scales) and not np.any(np.asarray(scales) > 0):
        raise ValueError("Per-layer `residual_scale` gives the shape to keep: it must not be all zero.")
    return unit_skip(network, "The optimal residual scale")


@eqx.filter_jit
def _optimal_residual_scale(network: AbstractResidualNetwork, kernel: Any, pairs: bool) -> OptimalScale:
    network = cast(network, kernel.dtype)
    variances = jnp.diagonal(kernel)
    diagonal = jax.vmap(lambda q: _diagonal_element(network, q))(variances)
    if has_known_accuracy(network.activation):
        error = expectation_error(network.activation, variances, order=1)
    else:
        each = lambda x: _path_error(network, Variances(x[0][None]), x[1])
        errors = jax.lax.map(each, (variances, diagonal))
        diagonal, error = jax.vmap(_accurate)(diagonal, errors), jnp.max(errors)
    return OptimalScale(diagonal, _all_pairs(network, kernel) if pairs else None, error)


def _path_error(
    network: AbstractResidualNetwork, kernel: AbstractKernel, optimum: ScaleEstimate
) -> Float[Array, ""]:
    """The largest relative error of an expectation on the way of a kernel of one entry through a network
    with its rho*."""
    network, kernel, optimum = as_constant((network, kernel, optimum))
    scale = jnp.where(optimum.interior, optimum.value, 0)
    layers = eqx.tree_at(lambda x: x.scale, network.layers(), scale * network.scale_profile())
    error = lambda kernel: gain_error(network.activation, kernel)
    step = lambda kernel, layer: (network.layer(kernel, layer), error(kernel))
    last, errors = jax.lax.scan(step, kernel, layers)
    return jnp.maximum(jnp.max(errors), error(last))


def _accurate(found: ScaleEstimate, error: Float[Array, ""]) -> ScaleEstimate:
    """An estimate that says where the expectations on its way were not accurate enough."""
    poor = (error > tolerance(error.dtype)) & (found.status != STATUS.failed)
    status = STATUS.where(poor, STATUS.inaccurate, found.status)
    return eqx.tree_at(lambda x: x.status, found, status)


def _limits(network: AbstractResidualNetwork, unit: Any) -> tuple[Array, Array]:
    low, high = _LIMITS
    return (
        jnp.log(low * unit / network.depth) / 2,
        jnp.log(high * unit / network.depth) / 2,
    )


def _diagonal_element(network: AbstractResidualNetwork, q: Float[Array, ""]) -> ScaleEstimate:
    depth = network.depth
    frozen, start = as_constant((network, q))
    flow = diagonal_flow_optimum(frozen, start, refine=False)
    unit = growth_time(frozen, start)
    guess = jnp.maximum(flow.time + flow.correction / depth, flow.time / 2)
    time = jnp.where(flow.interior, guess, unit)
    lower, upper = _limits(network, unit)
    at = lambda u: _at(u, frozen, Variances(start))
    search = maximise(
        _derivatives(at),
        jnp.log(time / depth) / 2,
        beside=(jnp.zeros_like(q), jnp.ones_like(q)),
        lower=lower,
        upper=upper,
        skip=(flow.decreasing | flow.increasing) & frozen.equal_blocks(),
    )
    # Whether equal blocks have a maximum does not depend on the depth (docs/theory.md): where the flow
    # has none, none is looked for, least of all at the huge kernels of an unbounded activation.
    at_end = jnp.where(search.above | flow.increasing, jnp.inf, -jnp.inf)
    return _finish(network, Variances(q), search, at_end)


def _derivatives(
    function: Callable[..., Any],
) -> Callable[[Array], tuple[Array, Array, Array, Array]]:
    """For `maximise`, of u -> (log |chi_out|, sign): f', f'', the height that Newton's step from there
    will reach, and the sign."""

    def derivatives(u: Array) -> tuple[Array, Array, Array, Array]:
        ((height, sign), (g, _)), (_, (h, _)) = value_and_slope(value_and_slope(function))(u)
        return g, h, height - g**2 / (2 * jnp.where(h == 0, 1, h)), sign

    return derivatives


def _at(u: Array, network: AbstractResidualNetwork, kernel: Any) -> tuple[Array, Array]:
    """log |chi_out| of a kernel's only entry at rho = exp(u), and its sign."""
    height, sign = log_response(network, kernel, jnp.exp(u))
    return height.reshape(()), sign.reshape(())


def _slope_at(u: Array, args: Any) -> Array:
    """d log chi_out / d log rho."""
    return slope(lambda u: _at(u, *args)[0])(u)


def _finish(
    network: AbstractResidualNetwork, kernel: AbstractKernel, search: Search, at_end: Float[Array, ""]
) -> ScaleEstimate:
    """An estimate, with its implicit derivatives, from where a search ended. The interior maximum is
    compared with log chi_out at scale zero and with `at_end`, its supremum at large scales."""
    u = implicit(_slope_at, search.position, search.converged, (network, kernel))
    height, sign = known(_at, search.beside, (u, network, kernel))
    factor_at_zero = gain(network.read_out, kernel)[1].reshape(())
    at_zero = log_read_out(network, kernel).reshape(())
    interior, decreasing, increasing = verdict(search, height, at_zero, at_end, sign > 0)
    at_limit = jnp.where(increasing, jnp.exp(at_end), factor_at_zero)
    return ScaleEstimate(
        value=jnp.where(interior, jnp.exp(u), jnp.where(increasing, jnp.inf, 0).astype(u.dtype)),
        response=jnp.where(interior, sign * jnp.exp(height), at_limit),
        status=statuses(interior, decreasing, increasing),
    )


def _all_pairs(network: AbstractResidualNetwork, kernel: Any) -> ScaleEstimate:
    rows, columns = element_inputs(kernel.shape[0])
    positions, *scan = _coarse_scan(*as_constant((network, kernel)))
    interval = best_interval(positions, *(x[..., rows, columns] for x in scan))
    known = has_known_accuracy(network.activation)

    def one_pair(x):
        entries, interval = x
        found = _pair_element(network, entries, interval)
        return found if known else _accurate(found, _path_error(network, pair_block(entries), found))

    found = map_in_chunks(one_pair, (pair_entries(kernel), interval), size=64)
    return from_elements(found, kernel.shape[0])


def _coarse_scan(network: AbstractResidualNetwork, kernel: Any) -> tuple[Array, Array, Array]:
    """Positions u = log rho, and log |chi_out| there and at rho = 0, for all pairs at once. The inputs'
    own expectations are shared between the pairs, which is what makes the scan cheap."""
    positions = jnp.log(scan_times(network, jnp.diagonal(kernel)) / network.depth) / 2
    block = as_block(kernel)
    at = lambda scale: log_response(network, block, scale)[0]
    return positions, jax.lax.map(at, jnp.exp(positions)), log_read_out(network, block)


def _pair_element(network: AbstractResidualNetwork, entries: Any, interval: Interval) -> ScaleEstimate:
    frozen, fixed = as_constant((network, entries))
    at = lambda u: _at(u, frozen, pair_block(fixed))
    search = maximise(
        _derivatives(at),
        interval.start,
        beside=(jnp.zeros_like(interval.start), jnp.ones_like(interval.start)),
        lower=interval.start - 20,
        upper=interval.high + 1,
        bracket=(interval.low, interval.high),
        skip=~interval.found,
    )
    return _finish(network, pair_block(entries), search, interval.at_end)
