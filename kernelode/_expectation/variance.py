"""Single-input moments E[sigma(x)^2], x ~ N(0, q), and their derivatives in q.

(d/dq)^r E[f] = E[f^(2r)] / 2^r: the heat equation, Price's theorem in one dimension.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import (
    AbstractActivation,
    AbstractAutonomousActivation,
    AbstractKinkedActivation,
    AbstractOddActivation,
    derivatives,
)
from .kinked import kinked_rule
from .nodes import Rule, hermite_functions, line_rule, monotone_rule
from .spectrum import trapezoid


@eqx.filter_custom_jvp
def variance_ladder(
    order: int, activation: AbstractActivation, q: Float[Array, " n"]
) -> Float[Array, "derivative n"]:
    """E[sigma^2] and its first `order` derivatives with respect to the variance q."""
    return _ladder(order, activation, q)


@variance_ladder.def_jvp
def _(primals, tangents):
    order, activation, q = primals
    _, activation_dot, q_dot = tangents
    ladder = variance_ladder(order if q_dot is None else order + 1, activation, q)
    value = ladder[: order + 1]
    tangent = jnp.zeros_like(value) if q_dot is None else ladder[1:] * q_dot[None, :]
    if any(leaf is not None for leaf in jax.tree.leaves(activation_dot)):
        by_activation = lambda activation: _ladder(order, activation, q)
        tangent = tangent + eqx.filter_jvp(by_activation, (activation,), (activation_dot,))[1]
    return value, tangent


@eqx.filter_jit
def _ladder(order: int, activation: AbstractActivation, q: Float[Array, " n"]):
    """The ladder by itself: all that networks need, and so the most frequent quadrature of all."""
    if isinstance(activation, AbstractKinkedActivation):
        return _kinked_ladder(order, activation, q)[0]
    integrands = _integrands(order, activation)
    root, rule = jnp.sqrt(q), _rule(activation)
    sums = _sum_over_nodes(lambda z: integrands.values(root * z), rule, q.dtype)
    return jnp.asarray(integrands.table, q.dtype) @ sums


@eqx.filter_jit
def integrate_ladder(order: int, activation: AbstractActivation, q: Float[Array, " n"]):
    """The ladder and an error estimate of the same shape."""
    if isinstance(activation, AbstractKinkedActivation):
        return _kinked_ladder(order, activation, q)
    integrands, rule = _integrands(order, activation), _rule(activation)
    x = jnp.sqrt(q)[:, None] * jnp.asarray(rule.nodes, q.dtype)[None, :]
    values = jnp.stack(integrands.values(x))
    sizes = None if integrands.sizes is None else jnp.stack(integrands.sizes(x))
    value, error = trapezoid(values, rule.weights, sizes)
    table = jnp.asarray(integrands.table, q.dtype)
    value, error = table @ value, jnp.abs(table) @ error
    if isinstance(activation, AbstractAutonomousActivation):
        return value, error  # no kink can have been overlooked
    return value, error + _by_parts_gap(rule, values[0], value, q)


def _rule(activation: AbstractActivation) -> Rule:
    autonomous = isinstance(activation, AbstractAutonomousActivation)
    rule = monotone_rule() if autonomous else line_rule()
    return rule.half() if isinstance(activation, AbstractOddActivation) else rule


class Integrands(NamedTuple):
    """Functions f_j of x, and a matrix A with (d/dq)^r E[sigma^2] = sum_j A_rj E[f_j].

    Both functions give a list: of the f_j, and of the terms that an f_j is a sum of, which bound its
    rounding; None where that is the f_j themselves.
    """

    values: Callable[[Array], list[Array]]
    sizes: Callable[[Array], list[Array]] | None
    table: np.ndarray


def _integrands(order: int, activation: AbstractActivation) -> Integrands:
    if not isinstance(activation, AbstractAutonomousActivation):
        square = lambda x: activation(x) ** 2
        values = lambda x: list(derivatives(square, x, 2 * order)[::2])
        return Integrands(values, None, np.diag(0.5 ** np.arange(order + 1.0)))
    # Polynomials in sigma: a third of the work of differentiating, a smaller program.
    slope = activation.slope_polynomial
    powers, rows = _square_derivatives(slope, order)

    def values(sigma, slope):
        rate = functools.reduce(lambda total, c: total * sigma + c, slope[::-1], jnp.zeros_like(sigma))
        return [sigma**2, *(rate * sigma**power for power in powers)]

    table = np.zeros((order + 1, len(powers) + 1))
    table[0, 0], table[1:, 1:] = 1, rows
    return Integrands(
        lambda x: values(activation(x), slope),
        lambda x: values(jnp.abs(activation(x)), tuple(map(abs, slope))),
        table,
    )


def _sum_over_nodes(function, rule: Rule, dtype) -> Array:
    """sum_i w_i f_j(z_i), stacked, for a function that gives the list of the f_j.

    On CPUs one node after the other, which keeps all but the sums in registers; elsewhere all at once.
    """
    nodes, weights = jnp.asarray(rule.nodes, dtype), jnp.asarray(rule.weights, dtype)
    ways = {"cpu": sum_in_turn, "default": sum_at_once}
    ways = {platform: functools.partial(way, function) for platform, way in ways.items()}
    return jax.lax.platform_dependent(nodes, weights, **ways)


def sum_in_turn(function, nodes: Float[Array, " node"], weights: Float[Array, " node"]) -> Array:
    """`_sum_over_nodes` in a loop."""
    step = lambda totals, x: ([t + x[1] * f for t, f in zip(totals, function(x[0]))], None)
    start = [jnp.zeros(f.shape, f.dtype) for f in jax.eval_shape(function, nodes[0])]
    return jnp.stack(jax.lax.scan(step, start, (nodes, weights))[0])


def sum_at_once(function, nodes: Float[Array, " node"], weights: Float[Array, " node"]) -> Array:
    """`_sum_over_nodes` as a product of arrays."""
    return jnp.tensordot(weights, jnp.stack(jax.vmap(function)(nodes), 1), 1)


def _square_derivatives(slope: tuple[float, ...], order: int) -> tuple[tuple[int, ...], np.ndarray]:
    """f^(2r) / 2^r = sigma' sum_k B_rk sigma^k for f = sigma^2, r = 1..order: the powers k, and B.

    Every derivative has a factor sigma' = p: with f^(n) = p g_n, g_{n+1} = d(p g_n)/dsigma. Where sigma
    saturates it is small, and sums of powers of sigma alone would cancel.
    """
    rate = np.polynomial.Polynomial(slope)
    rows = [np.polynomial.Polynomial([0.0, 2.0])]
    for _ in range(2 * order - 1):
        rows.append((rate * rows[-1]).deriv())
    table = np.zeros((order, rows[-1].coef.size))
    for r, row in enumerate(rows[1::2]):
        table[r, : row.coef.size] = row.coef / 2 ** (r + 1)
    powers = np.flatnonzero(np.any(table != 0, axis=0))
    return tuple(int(power) for power in powers), table[:, powers]


def _by_parts_gap(rule: Rule, values: Float[Array, "n node"], ladder: Float[Array, "derivative n"], q):
    """By how much E[f^(2r)] and E[f He_2r] / q^r differ: the delta functions of kinks not declared."""
    eps = jnp.finfo(q.dtype).eps
    polynomials = np.polynomial.hermite_e.hermevander(rule.nodes, 2 * (ladder.shape[0] - 1))[:, ::2]
    weights = jnp.asarray(polynomials * rule.weights[:, None], q.dtype)
    powers = q[None, :] ** jnp.arange(ladder.shape[0], dtype=q.dtype)[:, None]
    gap = jnp.abs(powers * ladder - (values @ weights).T)
    gap = gap - 64 * eps * (jnp.abs(values) @ jnp.abs(weights)).T
    return jnp.where(gap > 0, 4 * gap / jnp.where(powers > 0, powers, 1), 0)


def _kinked_ladder(order, activation, q):
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
