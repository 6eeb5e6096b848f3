"""Search over any parameters of a network for the largest value of a differentiable objective."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork
from .._depth.arguments import checked_network
from .._depth.response import response
from .._kernel import checked_kernel, input_pairs
from .._support.checks import (
    as_real_array,
    checked_function,
    described,
    flag,
    is_concrete,
    positive_integer,
    reason,
    scalar,
)
from .._support.custom_types import RealLike
from .._support.results import RESULTS
from .._support.show import Shown
from .search import Optimiser, Round, by_optax, by_optimistix, minimise


class Optimum(Shown):
    """Where a search ended.

    - `network`: with the chosen leaves replaced by the maximum, or by the best point that a failed search
        has seen.
    - `value`: the objective there.
    - `steps`: how many steps were taken.
    - `history`: the objective before each step, shape (max_steps,); the last value from there on.
    - `result`: `RESULTS.successful`: on both sides of the point the objective falls, or it is constant;
        `nonlinear_max_steps_reached`; `nonfinite`; or `unbounded`: in some direction the objective never
        falls again, up to a factor exp(128) in the leaves (1e9 times their size with `positive=False`)
        or to where it is no number, and it rises in that direction, or falls in the opposite one. An
        objective that is flat to rounding on its way to zero or infinity has no maximum either: such a
        response is `decreasing` or `increasing` for `optimal_residual_scale`.
    """

    network: Any
    value: Float[Array, ""]
    steps: Array
    history: Float[Array, " max_steps"]
    result: RESULTS


class AbstractResponseObjective(Shown):
    """The output response of a kernel: for which some searches are known to have no answer."""


class DiagonalResponse(AbstractResponseObjective):
    """The mean of log |chi_out| over the diagonal elements of a kernel."""

    kernel: Float[Array, "n n"]

    def __init__(self, kernel: RealLike):
        self.kernel = checked_kernel(kernel)

    def __call__(self, network: AbstractArchitecture) -> Float[Array, ""]:
        return jnp.mean(jnp.log(jnp.abs(response(network, self.kernel).diagonal)))


class OffDiagonalResponse(AbstractResponseObjective):
    """The mean of log |chi_out| over the pairs of distinct inputs of a kernel."""

    kernel: Float[Array, "n n"]

    def __init__(self, kernel: RealLike):
        self.kernel = checked_kernel(kernel)
        if self.kernel.shape[0] < 2:
            raise ValueError("`kernel` needs at least two inputs to have off-diagonal elements.")

    def __call__(self, network: AbstractArchitecture) -> Float[Array, ""]:
        pairs = input_pairs(self.kernel.shape[0])
        return jnp.mean(jnp.log(jnp.abs(response(network, self.kernel).off_diagonal[pairs])))


def optimise(
    objective: Callable[[Any], Float[Array, ""]],
    network: AbstractArchitecture,
    where: Callable[[Any], Any],
    *,
    optimiser: optax.GradientTransformation | optx.AbstractMinimiser[Any, Any, Any] | None = None,
    positive: bool = True,
    max_steps: int = 1000,
    tolerance: float | None = None,
    grad: Callable[..., Any] = jax.grad,
    throw: bool = True,
) -> Optimum:
    """argmax of objective(network) over the leaves `where(network)`.

    **Arguments**

    - `objective`: maps a network to a scalar, differentiably: `DiagonalResponse(kernel)`,
        `OffDiagonalResponse(kernel)` or a function of your own (compiled once per function object).
    - `network`: where the search starts.
    - `where`: picks one leaf or a tuple of leaves, as in `equinox.tree_at`: for example
        `lambda n: (n.residual_scale, n.bias_variance)`.
    - `optimiser`: an optax transformation (default `optax.adam(0.1)`), or an optimistix minimiser such
        as `optimistix.BFGS(rtol=1e-8, atol=1e-8)`.
    - `positive`: search in the logarithms of the leaves, which keeps them positive, and their steps
        relative. `False` searches in the leaves themselves.
    - `max_steps`: static.
    - `tolerance`: an optax search ends where the largest component of the gradient is below it; by
        default 1e-6 in float64, 1e-3 in float32. Minimisers have their own tolerances. Either is cut
        off where rounding does not let it be reached: after 100 steps without progress (10 of a
        minimiser), with a gradient that is rounding. However a search ended, and now and then
        before (a minimiser creeps where the objective bends upwards), the objective is looked at on both
        sides, in a few directions; from where it is larger than that gradient explains, the
        search goes on afresh, its steps counted with the others.
    - `grad`: how an optax search differentiates: `jax.grad`, or `jax.jacfwd` for objectives that have
        forward mode only, such as a Diffrax solve with `diffrax.ForwardMode()`.
    - `throw`: raise where the search fails; else see `Optimum.result`.

    **Raises** `ValueError` for searches of a response that are ill-posed:

    - over all per-layer residual scales: one layer takes everything (each layer's share of sum rho_l^2
        is nearly flat, and uniform is a saddle);
    - over residual scale and weight variance together: only rho^2 C_W and rho^2 C_b enter, and the
        optimum runs away to C_b / C_W -> 0;
    - over the read-out variances: a prefactor, and nothing at all;

    `ValueError` where a positive leaf does not start positive, `TypeError` for other optimisers, leaves
    that are not real arrays and other arguments of a wrong type.
    """
    network = checked_network(network)
    checked_function("objective", objective, "DiagonalResponse(kernel)")
    checked_function("where", where, "lambda n: n.residual_scale")
    checked_function("grad", grad, "jax.grad")
    positive = flag("positive", positive)
    if tolerance is not None:
        scalar("tolerance", tolerance, positive=True)
    leaves = _chosen_leaves(where, network)
    _refuse_ill_posed(objective, network, leaves)
    if positive:
        for leaf in leaves:
            if is_concrete(leaf) and not bool(jnp.all(leaf > 0)):
                raise ValueError(
                    "A search in logarithms has to start from positive values, but a leaf chosen by "
                    f"`where` is {leaf}. Start above zero, or pass `positive=False`."
                )
    max_steps = positive_integer("max_steps", max_steps)
    optimiser = _default_optimiser() if optimiser is None else optimiser
    if isinstance(optimiser, optx.AbstractMinimiser):
        search = by_optimistix
    elif isinstance(optimiser, optax.GradientTransformation):
        search = by_optax
    else:
        raise TypeError(
            "`optimiser` must come from optax, such as `optax.adam(0.1)`, or be an optimistix minimiser; "
            f"got {described(optimiser)}."
        )
    optimum = _search(search, objective, network, where, optimiser, positive, max_steps, tolerance, grad)
    if throw:
        failed = optimum.result != RESULTS.successful
        optimum = optimum.result.error_if(optimum, failed)
    return optimum


@functools.cache
def _default_optimiser() -> optax.GradientTransformation:
    return optax.adam(0.1)  # one object, since optax's are compared by identity when compiled


def _chosen_leaves(where: Callable[[Any], Any], network: AbstractArchitecture) -> list[Array]:
    """The leaves that `where` picks: floating-point arrays of the network."""
    try:
        leaves = jax.tree.leaves(where(network))
    except (AttributeError, TypeError, KeyError, IndexError) as error:
        raise TypeError(f"`where` must pick leaves of `network`, but raised: {reason(error)}") from error
    if not leaves:
        raise TypeError("`where` must pick leaves of `network`, but picks none.")
    for leaf in leaves:
        if not eqx.is_inexact_array(leaf):
            raise TypeError(
                "`where` must pick real arrays of `network` such as `n.residual_scale`, but picks "
                f"{described(leaf)}: what is static cannot be searched."
            )
        as_real_array("where(network)", leaf)
    return leaves


def _refuse_ill_posed(
    objective: Callable[[Any], Any], network: AbstractArchitecture, leaves: list[Array]
) -> None:
    if not isinstance(objective, AbstractResponseObjective):
        return
    chose = lambda name: any(leaf is getattr(network, name, None) for leaf in leaves)
    residual = isinstance(network, AbstractResidualNetwork) and chose("residual_scale")
    if residual and network.residual_scale.ndim == 1:  # pyright: ignore
        raise ValueError(
            "Maximising a response over all per-layer residual scales is ill-posed: one layer takes "
            "everything. Search one factor for a fixed profile: `optimal_residual_scale`, or a scalar "
            "`residual_scale`."
        )
    per_layer = [name for name in ("weight_variance", "bias_variance") if chose(name)]
    if any(getattr(network, name).ndim for name in per_layer):
        raise ValueError(
            "Maximising a response over the variances of every layer is ill-posed: one layer takes "
            f"everything. Search a scalar `{per_layer[0]}`."
        )
    if residual and chose("weight_variance"):
        raise ValueError(
            "Maximising a response over residual scale and weight variance together is ill-posed: "
            "only rho^2 C_W and rho^2 C_b enter, and the response keeps improving as C_b / C_W -> 0. "
            "Fix one."
        )
    if chose("output_weight_variance") or chose("output_bias_variance"):
        raise ValueError(
            "A response has no maximum in the read-out variances: it is proportional to "
            "`output_weight_variance` and does not depend on `output_bias_variance`."
        )


def _coarser(*arrays: Array) -> np.dtype:
    """The dtype of the array with the largest rounding: what a search can tell apart."""
    return max((x.dtype for x in arrays), key=lambda dtype: float(jnp.finfo(dtype).eps))


@eqx.filter_jit
def _search(
    search: Callable[..., Round],
    objective: Callable[[Any], Any],
    network: AbstractArchitecture,
    where: Callable[[Any], Any],
    optimiser: Optimiser,
    positive: bool,
    max_steps: int,
    tolerance: Any,
    grad: Callable[..., Any],
) -> Optimum:
    chosen = where(network)
    strong = lambda x: jnp.asarray(x, jnp.result_type(x))  # not weakly typed: a loop carries it
    start = jax.tree.map(lambda x: strong(jnp.log(x) if positive else x), chosen)

    def place(y: Any) -> Any:
        values = jax.tree.map(jnp.exp, y) if positive else y
        return eqx.tree_at(where, network, values)

    def cost(y: Any) -> Float[Array, ""]:
        value = jnp.asarray(objective(place(y)))
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(
                f"`objective` must return a real scalar, got shape {value.shape} and dtype {value.dtype}."
            )
        value = -value.astype(_coarser(value, *jax.tree.leaves(y)))
        if not positive:
            return value
        # Where a logarithm is so far out that its leaf is zero or infinite, that leaf is not positive.
        inside = [jnp.all((x > 0) & jnp.isfinite(x)) for x in jax.tree.leaves(jax.tree.map(jnp.exp, y))]
        return jnp.where(jnp.all(jnp.stack(inside)), value, jnp.nan)

    end = minimise(search, cost, start, optimiser, max_steps, tolerance, grad, positive)
    count = end.track.count
    filled = jnp.where(jnp.arange(max_steps) < count, -end.track.history, -end.cost)
    return Optimum(place(end.position), -end.cost, count, filled, end.result)
