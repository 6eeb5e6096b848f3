"""Second moments of an activation over Gaussian inputs: by formula where there is one, else by series.

The only functions that the rest of the library calls. What they return is differentiable to any
order in forward and reverse mode, with respect to variances, covariances and the activation's
parameters; at equal and parallel inputs and at zero variance too. For kinked activations, derivatives
that are infinite at correlation +-1 are dealt with as `_activation/homogeneous.py` says.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._activation.base import (
    AbstractActivation,
    AbstractClosedFormActivation,
    AbstractHomogeneousActivation,
)
from .._activation.homogeneous import homogeneous_errors, homogeneous_moments
from .._activation.price import directional, mixed_derivative
from .._kernel import AbstractKernel, Kernel
from .._support.checks import described
from .._support.trees import as_constant
from .mehler import integrate_table, moment_table, table_indices
from .variance import integrate_ladder, variance_ladder


class Estimate(NamedTuple):
    """Expectations, and estimates (upper bounds but for rare accidents) of their absolute errors."""

    value: Array
    error: Array


@eqx.filter_jit
def variance_moment(activation: AbstractActivation, q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """E[sigma(x)^2] for x ~ N(0, q), elementwise."""
    if isinstance(activation, AbstractClosedFormActivation):
        return activation.variance_moment(q)
    return variance_ladder(0, activation, q.reshape(-1))[0].reshape(q.shape)


@eqx.filter_jit
def pair_moment(
    activation: AbstractActivation,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    c: Float[Array, "n m"],
) -> Float[Array, "n m"]:
    """E[sigma(x) sigma(y)] for all pairs: Var x = a[i], Var y = b[j], Cov(x, y) = c[i, j]."""
    if isinstance(activation, AbstractClosedFormActivation):
        rows, columns = (jnp.broadcast_to(q, c.shape) for q in (a[:, None], b[None, :]))
        return activation.second_moment(rows, columns, c)
    return moment_table(0, activation, a, b, c)[0]


@eqx.filter_jit
def entry_moment(
    activation: AbstractClosedFormActivation,
    a: Float[Array, "*shape"],
    b: Float[Array, "*shape"],
    c: Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """E[sigma(x) sigma(y)], elementwise, by its formula."""
    return activation.second_moment(a, b, c)


def second_moments(activation: AbstractActivation, kernel: Kernel) -> Kernel:
    """E[sigma sigma] of every entry of a kernel, of any kind."""
    if not isinstance(kernel, AbstractKernel):
        raise TypeError(
            "`kernel` must be a `Variances`, a `Block` or a `Triangle`, such as "
            f"`Block(diagonal, diagonal, matrix)` of a kernel matrix; got {described(kernel)}."
        )
    bound = lambda function: functools.partial(function, activation)
    closed = isinstance(activation, AbstractClosedFormActivation)
    return kernel.map(bound(variance_moment), bound(pair_moment), bound(entry_moment) if closed else None)


def variance_derivatives(
    activation: AbstractActivation, q: Float[Array, " n"], order: int = 0
) -> Estimate:
    """(d/dq)^r E[sigma^2] for r = 0 .. order, with error estimates; both (order + 1, n)."""
    if isinstance(activation, AbstractClosedFormActivation):
        value = _nested_derivatives(lambda q: variance_moment(activation, q), q, order)
        return Estimate(value, _rounding(value, variance_moment(activation, q)[None, :]))
    return Estimate(*integrate_ladder(order, activation, q))


def pair_moments(
    activation: AbstractActivation,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    c: Float[Array, "n m"],
    order: int = 0,
) -> dict[tuple[int, int], Estimate]:
    """E[sigma^(i)(x) sigma^(j)(y)] with error estimates, for all i + j even and at most 2 `order`.

    They are all the derivatives of E[sigma sigma] up to `order`, by Price's theorem:
    (d/da)^p (d/dc)^r (d/db)^s E[sigma sigma] = E[sigma^(2p+r) sigma^(r+2s)] / 2^(p+s).

    Where a moment is infinite or is not known, its estimate is infinite.
    """
    if isinstance(activation, AbstractHomogeneousActivation):
        rows, columns = (jnp.broadcast_to(q, c.shape) for q in (a[:, None], b[None, :]))
        closed = homogeneous_moments(*activation.slopes, rows, columns, c, table_indices(order))
        errors = homogeneous_errors(*activation.slopes, rows, columns, c, closed)
        return {ij: Estimate(value, errors[ij]) for ij, value in closed.items()}
    if isinstance(activation, AbstractClosedFormActivation):
        size = jnp.sqrt(jnp.abs(variance_moment(activation, a)))[:, None]
        size = size * jnp.sqrt(jnp.abs(variance_moment(activation, b)))[None, :]
        moment = functools.partial(pair_moment, activation)
        closed = {ij: mixed_derivative(moment, *ij, a, b, c) for ij in table_indices(order)}
        return {ij: Estimate(value, _rounding(value, size)) for ij, value in closed.items()}
    values = moment_table(order, activation, a, b, c)
    constants = jax.lax.stop_gradient((a, b, c))
    _, errors = integrate_table(order, as_constant(activation), *constants, errors=True)
    return {ij: Estimate(value, error) for ij, value, error in zip(table_indices(order), values, errors)}


def _nested_derivatives(
    function: Callable[[Array], Array], q: Float[Array, " n"], order: int
) -> Float[Array, "derivative n"]:
    values = []
    for _ in range(order + 1):
        values.append(function(q))
        function = directional(function, 0)
    return jnp.stack(values)


def _rounding(value: Array, size: Array) -> Array:
    """The rounding error of a closed form and its derivatives: some units in the last place."""
    return 64 * jnp.finfo(value.dtype).eps * (jnp.abs(value) + size)
