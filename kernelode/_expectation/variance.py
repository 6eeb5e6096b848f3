"""Single-input moments E[sigma(x)^2], x ~ N(0, q), and their derivatives in q.

(d/dq)^r E[f] = E[f^(2r)] / 2^r: the heat equation, Price's theorem in one dimension.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from .._activation.base import (
    AbstractActivation,
    AbstractAutonomousActivation,
    AbstractKinkedActivation,
    AbstractOddActivation,
    AbstractSmoothActivation,
    AbstractStraightActivation,
    derivatives,
)
from .._support.trees import as_constant
from .adapted import adapted_average, by_range, concentration, fits, fixed_average
from .hermite import hermite_functions
from .kinked import kinked_rule
from .large_variance import beyond, large_variance_ladder
from .nodes import Rule, line_rule, monotone_rule
from .primitive import with_derivative
from .spectrum import trapezoid

#: E[sigma^2] and its derivatives by the variances, or errors of them.
Ladder: TypeAlias = Float[Array, "derivative n"]
#: Functions of the same points, in a list.
Integrands: TypeAlias = Callable[[Array], list[Array]]


@eqx.filter_jit
def variance_ladder(order: int, activation: AbstractActivation, q: Float[Array, " n"]) -> Ladder:
    """E[sigma^2] and its first `order` derivatives with respect to the variance q."""
    return _bind_ladder(order, activation, q)


def _ladder_derivative(
    primals: tuple[int, AbstractActivation, Array], tangents: tuple[None, Any, Array | None]
) -> tuple[Ladder, Ladder]:
    order, activation, q = primals
    _, activation_dot, q_dot = tangents
    ladder = variance_ladder(order if q_dot is None else order + 1, activation, q)
    value = ladder[: order + 1]
    tangent = jnp.zeros_like(value) if q_dot is None else ladder[1:] * q_dot[None, :]
    if any(leaf is not None for leaf in jax.tree.leaves(activation_dot)):
        by_activation = lambda activation: _ladder(order, activation, q, doubling=False)
        tangent = tangent + eqx.filter_jvp(by_activation, (activation,), (activation_dot,))[1]
    return value, tangent


_bind_ladder = with_derivative("ladder", lambda *args: _ladder(*args), _ladder_derivative)


@eqx.filter_jit
def _ladder(
    order: int, activation: AbstractActivation, q: Float[Array, " n"], *, doubling: bool = True
) -> Ladder:
    """The ladder by itself: all that networks need, and so the most frequent quadrature of all."""
    if isinstance(activation, AbstractKinkedActivation):
        return _kinked_ladder(order, activation, q)[0]
    integrands = _integrands(order, activation)

    def ordinary(q: Float[Array, " n"]) -> Ladder:
        root = jnp.sqrt(q)
        return _sum_over_nodes(lambda z: integrands(root * z), _rule(activation), q.dtype)

    if isinstance(activation, AbstractStraightActivation):
        large = beyond(activation, q)
        series = large_variance_ladder(order, activation, q)
        return jnp.where(large[None, :], series, ordinary(jnp.where(large, 1, q)))

    def adapted(q: Float[Array, " n"]) -> Ladder:
        if doubling:
            return _integrate_on_adapted_nodes(order, activation, q)[0]  # pyright: ignore
        function = lambda z: integrands(jnp.sqrt(q)[None, :] * z)
        return fixed_average(function, concentration(as_constant(activation), q))

    return by_range(_usual(activation, q), ordinary, adapted, q)


def _usual(activation: AbstractActivation, q: Float[Array, " n"]) -> Bool[Array, " n"]:
    """At which variances the fixed rule serves."""
    rule = _rule(activation)
    return fits(as_constant(activation), q, rule.spacing, rule.concentration, rule.reach, density=8.0)


@eqx.filter_jit
def integrate_ladder(
    order: int, activation: AbstractActivation, q: Float[Array, " n"]
) -> tuple[Ladder, Ladder]:
    """The ladder and an error estimate of the same shape."""
    if isinstance(activation, AbstractKinkedActivation):
        return _kinked_ladder(order, activation, q)
    if isinstance(activation, AbstractStraightActivation):
        large = beyond(activation, q)
        series = large_variance_ladder(order, activation, q)
        value, error = _integrate_on_fixed_nodes(order, activation, jnp.where(large, 1, q))
        # Its terms have one sign where they matter; each is a few products.
        rounding = 64 * jnp.finfo(q.dtype).eps * jnp.abs(series)
        return jnp.where(large[None, :], series, value), jnp.where(large[None, :], rounding, error)
    ordinary, adapted = (
        functools.partial(way, order, activation)
        for way in (_integrate_on_fixed_nodes, _integrate_on_adapted_nodes)
    )
    return by_range(_usual(activation, q), ordinary, adapted, q)


def _integrate_on_adapted_nodes(
    order: int, activation: AbstractSmoothActivation, q: Float[Array, " n"]
) -> tuple[Ladder, Ladder]:
    """E[f^(2r)] also as E[f' He_{2r-1}(z)] / q^(r - 1/2), by parts: at large variance the former
    cancels, all but 1/q of it, where f' is all that matters; the latter where f' grows. The one with
    the smaller error."""
    integrands, root = _integrands(order, activation), jnp.sqrt(q)
    slope = lambda x: jax.jvp(lambda x: activation(x) ** 2, (x,), (jnp.ones_like(x),))[1]
    inverse = jnp.where(root > 0, 1 / jnp.where(root > 0, root, 1), jnp.nan)

    def function(z: Float[Array, "node n"]) -> list[Array]:
        x = root[None, :] * z
        # He_{k+1}(z) / s^k = (x / s^2) He_k / s^{k-1} - k / s^2 He_{k-1} / s^{k-2}, s^2 = q.
        before, scaled, by_parts = jnp.ones_like(z), inverse[None, :] * z, []
        for r in range(1, order + 1):
            by_parts.append(slope(x) * scaled / 2**r)
            for k in (2 * r - 1, 2 * r):
                square = inverse[None, :] ** 2
                following = inverse[None, :] * z * scaled - k * square * before
                before, scaled = scaled, following
        return [*integrands(x), *by_parts]

    value, error = adapted_average(function, concentration(activation, q))
    direct, by_parts = (jnp.stack([x[1 : order + 1], x[order + 1 :]], 1) for x in (value, error))
    better = by_parts[:, 1] < by_parts[:, 0]
    choose = lambda x: jnp.where(better, x[:, 1], x[:, 0])
    return (
        jnp.concatenate([value[:1], choose(direct)]),
        jnp.concatenate([error[:1], choose(by_parts)]),
    )


def _integrate_on_fixed_nodes(
    order: int, activation: AbstractActivation, q: Float[Array, " n"]
) -> tuple[Ladder, Ladder]:
    rule = _rule(activation)
    x = jnp.sqrt(q)[:, None] * jnp.asarray(rule.nodes, q.dtype)[None, :]
    values = jnp.stack(_integrands(order, activation)(x))
    if isinstance(activation, AbstractAutonomousActivation):
        # No kink can have been overlooked; but polynomials are sums, which round like their terms.
        rate, rows = _square_derivatives(activation.slope_polynomial, order)
        terms = _in_sigma(jnp.abs(activation(x)), abs(rate), list(map(abs, rows)))
        return trapezoid(values, rule.weights, jnp.stack(terms))
    value, error = trapezoid(values, rule.weights)
    return value, error + _by_parts_gap(rule, values[0], value, q)


def _rule(activation: AbstractActivation) -> Rule:
    autonomous = isinstance(activation, AbstractAutonomousActivation)
    rule = monotone_rule() if autonomous else line_rule()
    return rule.half() if isinstance(activation, AbstractOddActivation) else rule


def _integrands(order: int, activation: AbstractActivation) -> Integrands:
    """x -> f^(2r) / 2^r, f = sigma^2, r = 0..order: their averages are the ladder."""
    if isinstance(activation, AbstractAutonomousActivation):
        # Polynomials in sigma: a third of the work of differentiating, a smaller program.
        rate, rows = _square_derivatives(activation.slope_polynomial, order)
        return lambda x: _in_sigma(activation(x), rate, rows)
    square = lambda x: activation(x) ** 2
    return lambda x: [f / 2**r for r, f in enumerate(derivatives(square, x, 2 * order)[::2])]


def _square_derivatives(slope: tuple[float, ...], order: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """f^(2r) / 2^r = p g_r for f = sigma^2, r = 1..order, and sigma' = p: the coefficients of p and of
    the g_r in powers of sigma.

    Every derivative has the factor p: with f^(n) = p h_n, h_{n+1} = d(p h_n)/dsigma. Where sigma
    saturates it is small, and sums of powers of sigma alone would cancel.
    """
    rate, row, rows = np.polynomial.Polynomial(slope), np.polynomial.Polynomial([0.0, 2.0]), []
    for r in range(1, order + 1):
        row = (rate * row).deriv()
        rows.append(row.coef / 2**r)
        row = (rate * row).deriv()
    return rate.coef, rows


def _in_sigma(sigma: Array, rate: np.ndarray, rows: list[np.ndarray]) -> list[Array]:
    """sigma^2, and the products of a polynomial in sigma with others."""
    power = functools.cache(lambda k: sigma**k)

    def polynomial(coefficients: np.ndarray) -> Array:
        constant, *rest = coefficients.tolist()
        total = jnp.full_like(sigma, constant)
        return sum((c * power(k) for k, c in enumerate(rest, 1) if c), total)

    slope = polynomial(rate)
    return [power(2), *(slope * polynomial(row) for row in rows)]


def _sum_over_nodes(function: Integrands, rule: Rule, dtype: DTypeLike) -> Array:
    """sum_i w_i f_j(z_i), stacked, for a function that gives the list of the f_j.

    On CPUs one node after the other, which keeps all but the sums in registers; elsewhere all at once.
    """
    nodes, weights = jnp.asarray(rule.nodes, dtype), jnp.asarray(rule.weights, dtype)
    ways = {"cpu": sum_in_turn, "default": sum_at_once}
    ways = {platform: functools.partial(way, function) for platform, way in ways.items()}
    return jax.lax.platform_dependent(nodes, weights, **ways)


def sum_in_turn(
    function: Integrands, nodes: Float[Array, " node"], weights: Float[Array, " node"]
) -> Array:
    """`_sum_over_nodes` in a loop."""
    step = lambda totals, x: ([t + x[1] * f for t, f in zip(totals, function(x[0]))], None)
    start = [jnp.zeros(f.shape, f.dtype) for f in jax.eval_shape(function, nodes[0])]
    return jnp.stack(jax.lax.scan(step, start, (nodes, weights))[0])


def sum_at_once(
    function: Integrands, nodes: Float[Array, " node"], weights: Float[Array, " node"]
) -> Array:
    """`_sum_over_nodes` as a product of arrays."""
    return jnp.tensordot(weights, jnp.stack(jax.vmap(function)(nodes), 1), 1)


def _by_parts_gap(
    rule: Rule, values: Float[Array, "n node"], ladder: Ladder, q: Float[Array, " n"]
) -> Ladder:
    """By how much E[f^(2r)] and E[f He_2r] / q^r, over 2^r, differ: the delta functions of kinks not
    declared."""
    eps = jnp.finfo(q.dtype).eps
    polynomials = np.polynomial.hermite_e.hermevander(rule.nodes, 2 * (ladder.shape[0] - 1))[:, ::2]
    polynomials = polynomials / 2.0 ** np.arange(ladder.shape[0])
    weights = jnp.asarray(polynomials * rule.weights[:, None], q.dtype)
    powers = q[None, :] ** jnp.arange(ladder.shape[0], dtype=q.dtype)[:, None]
    gap = jnp.abs(powers * ladder - (values @ weights).T)
    gap = gap - 64 * eps * (jnp.abs(values) @ jnp.abs(weights)).T
    return jnp.where(gap > 0, 4 * gap / jnp.where(powers > 0, powers, 1), 0)


def _kinked_ladder(
    order: int, activation: AbstractKinkedActivation, q: Float[Array, " n"]
) -> tuple[Ladder, Ladder]:
    """E[f^(2r)] = sqrt((2r)!) E[f h_2r] / q^r, which names no delta function."""
    positive = jnp.where(q > 0, q, jnp.finfo(q.dtype).tiny)
    z, weights = kinked_rule(activation.kinks, jnp.sqrt(positive)[:, None])
    square = activation(jnp.sqrt(q)[:, None] * z) ** 2
    polynomials = hermite_functions(z, 2 * order + 1)[::2] * jnp.exp(z**2 / 4)[None]
    factors = [math.sqrt(math.factorial(2 * r)) / 2**r for r in range(order + 1)]
    powers = positive[None, :] ** jnp.arange(order + 1, dtype=q.dtype)[:, None]
    scale = jnp.asarray(factors, q.dtype)[:, None] / powers
    value = jnp.einsum("ran,an->ra", polynomials, weights * square)
    size = jnp.einsum("ran,an->ra", jnp.abs(polynomials), weights * square)
    return scale * value, 1024 * jnp.finfo(q.dtype).eps * scale * size
