"""Single-input moments E[sigma(x)^2], x ~ N(0, q), and their derivatives in q.

(d/dq)^r E[f] = E[f^(2r)] / 2^r: the heat equation, Price's theorem in one dimension.
"""

import math

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
from .nodes import Rule, half_line_rule, hermite_functions, line_rule
from .spectrum import trapezoid


@eqx.filter_custom_jvp
def variance_ladder(
    order: int, activation: AbstractActivation, q: Float[Array, " n"]
) -> Float[Array, "derivative n"]:
    """E[sigma^2] and its first `order` derivatives with respect to the variance q."""
    return integrate_ladder(order, activation, q)[0]


@variance_ladder.def_jvp
def _(primals, tangents):
    order, activation, q = primals
    _, activation_dot, q_dot = tangents
    ladder = variance_ladder(order if q_dot is None else order + 1, activation, q)
    value = ladder[: order + 1]
    tangent = jnp.zeros_like(value) if q_dot is None else ladder[1:] * q_dot[None, :]
    if any(leaf is not None for leaf in jax.tree.leaves(activation_dot)):
        by_activation = lambda activation: integrate_ladder(order, activation, q)[0]
        tangent = tangent + eqx.filter_jvp(by_activation, (activation,), (activation_dot,))[1]
    return value, tangent


@eqx.filter_jit
def integrate_ladder(order: int, activation: AbstractActivation, q: Float[Array, " n"]):
    """The ladder and an error estimate of the same shape."""
    if isinstance(activation, AbstractKinkedActivation):
        return _kinked_ladder(order, activation, q)
    rule = half_line_rule() if isinstance(activation, AbstractOddActivation) else line_rule()
    x = jnp.sqrt(q)[:, None] * jnp.asarray(rule.nodes, q.dtype)[None, :]
    if isinstance(activation, AbstractAutonomousActivation):
        return _polynomial_ladder(order, activation, x, rule)
    square = lambda x: activation(x) ** 2
    halves = 0.5 ** jnp.arange(order + 1, dtype=q.dtype)[:, None]
    even = derivatives(square, x, 2 * order)[::2]
    value, error = trapezoid(even, rule.weights)
    return halves * value, halves * (error + _by_parts_gap(rule, even[0], value, q))


def _polynomial_ladder(order: int, activation: AbstractAutonomousActivation, x, rule: Rule):
    """With sigma' = p(sigma), f^(2r) is a polynomial in sigma: the ladder is a few moments E[sigma^j].

    A third of the work of differentiating f, and a small program to compile.
    """
    table = _square_derivatives(activation.slope_polynomial, order)
    powers = np.flatnonzero(np.any(table != 0, axis=0))
    table = jnp.asarray(table[:, powers], x.dtype)
    sigma = activation(x)
    value, error = zip(*(trapezoid(sigma ** int(power), rule.weights) for power in powers))
    return table @ jnp.stack(value), jnp.abs(table) @ jnp.stack(error)


def _square_derivatives(slope: tuple[float, ...], order: int) -> np.ndarray:
    """The coefficients of f^(2r) / 2^r in powers of sigma, f = sigma^2: (order + 1, powers)."""
    rows = [np.polynomial.Polynomial([0.0, 0.0, 1.0])]
    for _ in range(2 * order):
        rows.append(rows[-1].deriv() * np.polynomial.Polynomial(slope))
    table = np.zeros((order + 1, rows[-1].coef.size))
    for r, row in enumerate(rows[::2]):
        table[r, : row.coef.size] = row.coef / 2**r
    return table


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
