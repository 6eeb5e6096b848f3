"""Moments along the flow of an infinitely deep residual network, by Diffrax."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork
from .._architecture.base import equal_blocks, unit_skip
from .._closure import AbstractClosure, MeanOnly
from .._kernel import Block, Variances, checked_entries
from .._support.checks import as_real_array, is_concrete
from .._support.custom_types import RealLike
from .._support.results import RESULTS
from .._support.trees import cast
from .arguments import check_diffrax, check_rectangular, check_steps, checked_closure, checked_network
from .failure import flow_outcome
from .sizes import check_integration
from .solution import Solution


def solve(
    network: AbstractArchitecture,
    kernel: RealLike | Block,
    ts: RealLike,
    *,
    closure: AbstractClosure | None = None,
    solver: diffrax.AbstractSolver[Any] | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController[Any, Any] | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    saveat: diffrax.SaveAt | None = None,
    dt0: RealLike | None = None,
    max_steps: int | None = 4096,
    throw: bool = True,
) -> Solution:
    """Moments at continuous depth t = sum of rho_l^2: d state/dt = rate(state), from t = 0.

    The limit of infinitely many blocks of vanishing residual scale; `residual_scale` and `depth` of
    the network do not enter. A network of finite depth is `propagate`; for the mean kernel it is also
    this flow under `diffrax.Euler()` with steps rho^2.

    **Arguments**

    - `network`: a `ResNet` with one weight and one bias variance for all blocks.
    - `kernel`: K(0), shape (n, n), or a `Block` as for `propagate`. Its dtype is that of the
        calculation.
    - `ts`: increasing depths at which to save; the last one ends the integration.
    - `closure`: which moments; `MeanOnly()` by default.
    - `solver`, `stepsize_controller`, `adjoint`, `saveat`, `dt0`, `max_steps`, `throw`: handed to
        `diffrax.diffeqsolve`. Defaults: `Tsit5()`, a `PIDController` with relative tolerance 1e-9 in
        float64 and 1e-5 in float32, Diffrax's own adjoint (reverse mode; pass
        `diffrax.ForwardMode()` for `jvp`), and `SaveAt(ts=ts)`.

    **Returns** a `Solution`.

    **Raises** `TypeError` for a network without a flow, `ValueError` for invalid `ts` or kernel; with
    `throw`, an error if the integration fails.
    """
    network = check_flow(network, instead="propagate")
    kernel = checked_entries(kernel)
    ts = checked_times(ts).astype(kernel.dtype)
    closure = checked_closure(closure, MeanOnly())
    check_rectangular(kernel, closure)
    options = flow_options(solver, stepsize_controller, adjoint, saveat, dt0, max_steps)
    closure = closure.prepare(network, kernel, ts)
    check_integration(network, kernel, closure, ts, options)
    solution = _solve(network, kernel, ts, closure, options)
    if throw:
        solution = solution.result.error_if(solution, solution.result != RESULTS.successful)
    return solution


def check_flow(network: AbstractArchitecture, instead: str) -> AbstractResidualNetwork:
    """The network, if it has continuous depth; others are refused, naming what to use `instead`."""
    network = checked_network(network)
    if not isinstance(network, AbstractResidualNetwork):
        raise TypeError(
            f"Continuous depth needs a residual network; {type(network).__name__} has discrete layers "
            f"only: use `{instead}`."
        )
    return equal_blocks(unit_skip(network, "Continuous depth"), "Continuous depth")


def flow_options(
    solver: diffrax.AbstractSolver[Any] | None,
    stepsize_controller: diffrax.AbstractStepSizeController[Any, Any] | None,
    adjoint: diffrax.AbstractAdjoint | None,
    saveat: diffrax.SaveAt | None,
    dt0: RealLike | None,
    max_steps: int | None,
) -> dict[str, Any]:
    """Options of `integrate`, with defaults; a given step without a controller is a constant one."""
    check_diffrax(solver=solver, stepsize_controller=stepsize_controller, adjoint=adjoint, saveat=saveat)
    check_steps(dt0, max_steps)
    if stepsize_controller is None and dt0 is not None:
        stepsize_controller = diffrax.ConstantStepSize()
    return dict(
        solver=diffrax.Tsit5() if solver is None else solver,
        stepsize_controller=stepsize_controller,
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        saveat=saveat,
        dt0=dt0,
        max_steps=max_steps,
    )


def checked_times(ts: RealLike) -> Float[Array, " times"]:
    """Increasing depths as a vector."""
    array = jnp.atleast_1d(as_real_array("ts", ts))
    if array.ndim != 1 or array.shape[0] == 0:
        raise ValueError(f"`ts` must be a vector of depths, got shape {array.shape}.")
    if is_concrete(array):
        numbers = np.asarray(array)
        if not np.all(np.isfinite(numbers)) or numbers[0] < 0 or np.any(np.diff(numbers) < 0):
            raise ValueError(f"`ts` must be finite, non-negative and increasing, got {numbers}.")
    return array


@eqx.filter_jit
def _solve(
    network: AbstractResidualNetwork,
    kernel: Float[Array, "n n"] | Block,
    ts: Float[Array, " times"],
    closure: AbstractClosure,
    options: dict[str, Any],
) -> Solution:
    network, closure = cast((network, closure), kernel.dtype)
    first = closure.init(network, kernel)
    solution = integrate(
        first,
        lambda state, net: closure.rate(net, state, closure.flow_layer(net)),
        network,
        ts,
        closure,
        **options,
    )
    result = flow_outcome(network, closure.kernel(first), solution.result, solution.state)
    return eqx.tree_at(lambda s: s.result, solution, result)


def default_controller(
    state: Any, end: Float[Array, ""] | None = None, growth: Float[Array, ""] | None = None
) -> diffrax.AbstractStepSizeController[Any, Any]:
    """A tight tolerance for the dtype of `state`, the absolute one relative to its largest entry, or to
    the `growth` of a state that starts at zero. Steps that are rounding of the `end` are too small: no
    step of a rate that is NaN would be accepted."""
    leaves = jax.tree.leaves(state)
    rtol = 1e-9 if leaves[0].dtype == jnp.float64 else 1e-5
    size = jnp.max(jnp.array([jnp.max(jnp.abs(leaf)) for leaf in leaves if leaf.size]))
    if growth is not None:
        # A tolerance that is NaN would end nothing: steps would not even become small.
        size = jnp.where(jnp.isfinite(growth), jnp.maximum(size, growth), size)
    tiny = jnp.finfo(leaves[0].dtype).tiny
    atol = 1e-3 * rtol * jax.lax.stop_gradient(size) + tiny
    smallest = None if end is None else jax.lax.stop_gradient(end) * jnp.finfo(leaves[0].dtype).eps
    return diffrax.PIDController(rtol=rtol, atol=atol, dtmin=smallest, force_dtmin=False)


def integrate(
    state: Any,
    rate: Callable[[Any, Any], Any],
    network: AbstractResidualNetwork,
    ts: Float[Array, " times"],
    closure: AbstractClosure,
    *,
    solver: diffrax.AbstractSolver[Any],
    stepsize_controller: diffrax.AbstractStepSizeController[Any, Any] | None,
    adjoint: diffrax.AbstractAdjoint,
    saveat: diffrax.SaveAt | None,
    dt0: RealLike | None,
    max_steps: int | None,
) -> Solution:
    """Diffrax on d state/dt = rate(state, network), as a `Solution`. The network goes in as `args`:
    an adjoint then differentiates it."""
    term = diffrax.ODETerm(lambda t, y, args: rate(y, args))  # pyright: ignore
    # The variance that biases give to inputs that are zero.
    zero = Variances(jnp.zeros((1,), ts.dtype))
    growth = jnp.max(network.drift(zero, network.flow_layer()).values) * ts[-1]
    out = diffrax.diffeqsolve(
        term,
        solver,
        t0=0,
        t1=ts[-1],
        dt0=dt0,  # pyright: ignore
        y0=state,
        args=network,
        saveat=diffrax.SaveAt(ts=ts) if saveat is None else saveat,
        stepsize_controller=default_controller(state, ts[-1], growth)
        if stepsize_controller is None
        else stepsize_controller,
        adjoint=adjoint,
        max_steps=max_steps,
        throw=False,
    )
    return Solution(
        network=network,
        closure=closure,
        saved_ts=out.ts,
        state=out.ys,
        result=RESULTS.promote(out.result),
        stats=out.stats,
        interpolation=out.interpolation,
    )
