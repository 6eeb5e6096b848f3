"""Search over any parameters of a network for the largest value of a differentiable objective."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix as optx
from jaxtyping import Array, Float

from ._architecture import AbstractArchitecture, AbstractResidualNetwork
from ._checks import is_concrete, positive_integer
from ._custom_types import RealLike
from ._kernel import checked_kernel
from ._response import response
from ._results import RESULTS, choose_result


class Optimum(eqx.Module):
    """Where a search ended.

    - `network`: with the chosen leaves replaced.
    - `value`: the objective there.
    - `steps`: how many steps were taken.
    - `history`: the objective before each step, shape (max_steps,); the last value from there on.
    - `result`: `RESULTS.successful`; `nonlinear_max_steps_reached`; `nonfinite`; or `unbounded`.
    """

    network: Any
    value: Float[Array, ""]
    steps: Array
    history: Float[Array, " max_steps"]
    result: RESULTS


class AbstractResponseObjective(eqx.Module):
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
        pairs = jnp.triu_indices(self.kernel.shape[0], 1)
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
        default 1e-6 in float64, 1e-3 in float32. Minimisers have their own tolerances.
    - `grad`: how an optax search differentiates: `jax.grad`, or `jax.jacfwd` for objectives that have
        forward mode only, such as a Diffrax solve with `diffrax.ForwardMode()`.
    - `throw`: raise where the search fails; else see `Optimum.result`.

    **Raises** `ValueError` for searches of a response that are ill-posed:

    - over all per-layer residual scales: one layer takes everything (each layer's share of sum rho_l^2
        is nearly flat, and uniform is a saddle);
    - over residual scale and weight variance together: only rho^2 C_W and rho^2 C_b enter, and the
        optimum runs away to C_b / C_W -> 0;
    - over the read-out variances: a prefactor, and nothing at all;

    `ValueError` where a positive leaf does not start positive, `TypeError` for other optimisers.
    """
    chosen = where(network)
    leaves = jax.tree.leaves(chosen)
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
        search = _by_optimistix
    elif isinstance(optimiser, optax.GradientTransformation):
        search = _by_optax
    else:
        raise TypeError(
            f"`optimiser` must come from optax or be an optimistix minimiser, got {optimiser!r}."
        )
    optimum = _search(search, objective, network, where, optimiser, positive, max_steps, tolerance, grad)
    if throw:
        failed = optimum.result != RESULTS.successful
        optimum = optimum.result.error_if(optimum, failed)
    return optimum


@functools.cache
def _default_optimiser() -> optax.GradientTransformation:
    return optax.adam(0.1)  # one object, since optax's are compared by identity when compiled


def _refuse_ill_posed(objective, network, leaves) -> None:
    if not isinstance(objective, AbstractResponseObjective):
        return
    chose = lambda name: any(leaf is getattr(network, name) for leaf in leaves)
    residual = isinstance(network, AbstractResidualNetwork) and chose("residual_scale")
    if residual and network.residual_scale.ndim == 1:
        raise ValueError(
            "Maximising a response over all per-layer residual scales is ill-posed: one layer takes "
            "everything. Search one factor for a fixed profile: `optimal_residual_scale`, or a scalar "
            "`residual_scale`."
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


@eqx.filter_jit
def _search(
    search, objective, network, where, optimiser, positive, max_steps, tolerance, grad
) -> Optimum:
    chosen = where(network)
    strong = lambda x: jnp.asarray(x, jnp.result_type(x))  # not weakly typed: a loop carries it
    start = jax.tree.map(lambda x: strong(jnp.log(x) if positive else x), chosen)

    def place(y):
        values = jax.tree.map(jnp.exp, y) if positive else y
        return eqx.tree_at(where, network, values)

    cost = lambda y: -objective(place(y))
    y, steps, history, result = search(cost, start, optimiser, max_steps, tolerance, grad)
    runaway = jnp.array([jnp.any(jnp.abs(a - b) > 30) for a, b in _zip(y, start)])
    result = choose_result(jnp.any(runaway) & positive, RESULTS.unbounded, result)
    value = -cost(y)
    filled = jnp.where(jnp.arange(max_steps) < steps, -history, value)
    return Optimum(place(y), value, steps, filled, result)


def _zip(tree, other):
    return zip(jax.tree.leaves(tree), jax.tree.leaves(other))


def _finite(tree) -> Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _by_optax(cost, start, optimiser, max_steps, tolerance, grad):
    optimiser = optax.with_extra_args_support(optimiser)
    dtype = jnp.result_type(*jax.tree.leaves(start))
    if tolerance is None:
        tolerance = 1e-6 if dtype == jnp.float64 else 1e-3

    def unfinished(carry):
        _, _, count, _, largest = carry
        return (count < max_steps) & (largest >= tolerance) & jnp.isfinite(largest)

    def step(carry):
        y, state, count, history, _ = carry
        value, slope = cost(y), grad(cost)(y)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes inside
            extra = dict(value=value, grad=slope, value_fn=cost)
            updates, state = optimiser.update(slope, state, y, **extra)
        largest = jnp.max(jnp.array([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(slope)]))
        largest = jnp.where(jnp.isfinite(value), largest, jnp.nan)
        moved = optax.apply_updates(y, updates)
        done = ~(largest >= tolerance)
        y = jax.tree.map(lambda new, old: jnp.where(done, old, new), moved, y)
        return y, state, count + 1, history.at[count].set(value), largest

    largest = jnp.finfo(dtype).max
    carry = (
        start,
        optimiser.init(start),
        jnp.asarray(0),
        jnp.zeros((max_steps,), dtype),
        jnp.asarray(largest, dtype),
    )
    y, _, count, history, largest = jax.lax.while_loop(unfinished, step, carry)
    result = choose_result(largest < tolerance, RESULTS.successful, RESULTS.nonlinear_max_steps_reached)
    return y, count, history, choose_result(jnp.isfinite(largest), result, RESULTS.nonfinite)


def _by_optimistix(cost, start, optimiser, max_steps, tolerance, grad):
    del tolerance, grad  # a minimiser has its own
    function = lambda y, args: (cost(y), None)
    shape = jax.ShapeDtypeStruct((), jnp.result_type(*jax.tree.leaves(start)))
    tags = frozenset()
    state = optimiser.init(function, start, None, {}, shape, None, tags)
    arrays, static = eqx.partition(state, eqx.is_array)

    def end(y, arrays):
        state = eqx.combine(arrays, static)
        done, result = optimiser.terminate(function, y, None, {}, state, tags)
        return done, RESULTS.promote(result)

    def unfinished(carry):
        y, arrays, count, _ = carry
        return (count < max_steps) & ~end(y, arrays)[0] & _finite(y)

    def step(carry):
        y, arrays, count, history = carry
        history = history.at[count].set(cost(y))
        state = eqx.combine(arrays, static)
        y, state, _ = optimiser.step(function, y, None, {}, state, tags)
        return y, eqx.filter(state, eqx.is_array), count + 1, history

    carry = (start, arrays, jnp.asarray(0), jnp.zeros((max_steps,), shape.dtype))
    y, arrays, count, history = jax.lax.while_loop(unfinished, step, carry)
    done, result = end(y, arrays)
    state = eqx.combine(arrays, static)
    y, _, _ = optimiser.postprocess(function, y, None, None, {}, state, tags, result)
    result = choose_result(done, result, RESULTS.nonlinear_max_steps_reached)
    return y, count, history, choose_result(_finite(y), result, RESULTS.nonfinite)
