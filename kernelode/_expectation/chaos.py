"""Pair coefficients in the orthonormal chaos basis,

    c_jk = E[sigma(x) sigma(y) h_j(u) h_k(v)],   x = sqrt(a) u,  y = sqrt(b) (corr u + corr' v),

with corr' = sqrt(1 - corr^2), u and v independent standard normals and h_m = He_m / sqrt(m!). They
factor over the inputs,

    c_jk = sum_i G_ji B_ik,  G_ji = E[sigma(sqrt(a) u) h_j(u) h_i(u)],
    B_ik = s_{i+k}(b) sqrt(binom(i+k, k)) corr^i corr'^k,

one small quadrature per input and one small product per pair, no two-dimensional grid. For positively
homogeneous activations polar coordinates are exact at any correlation (`wedge.py`).

The basis, unlike the moments of `moments.py`, is not differentiable at correlation +-1: v is arbitrary
there. Values are right; derivatives belong to invariant combinations.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import gammaln

from .._activation.base import (
    AbstractActivation,
    AbstractHomogeneousActivation,
    AbstractKinkedActivation,
)
from .kinked import kinked_rule
from .moments import Moments
from .nodes import TERMS, hermite_functions, spectral_matrix, spectral_rule
from .spectrum import trapezoid
from .wedge import homogeneous_coefficients


def hermite_spectrum(activation: AbstractActivation, q: Float[Array, ""], terms: int) -> Moments:
    """s_m(q) = E[sigma(sqrt(q) z) h_m(z)], m < terms, with error estimates. Shape (terms,).

    **Raises** `ValueError` for more than 1024 terms.
    """
    if not 1 <= terms <= TERMS:
        raise ValueError(f"`terms` must be between 1 and {TERMS}, got {terms}.")
    products, _, error = _input_products(activation, q, 0, terms)
    return Moments(products[0], error[0])


def pair_coefficients(
    activation: AbstractActivation,
    a: Float[Array, ""],
    b: Float[Array, ""],
    c: Float[Array, ""],
    order: int,
    *,
    terms: int = 512,
) -> Moments:
    """c_jk for j + k <= order (others are zero), with error estimates: both (order+1, order+1).

    **Arguments**

    - `a`, `b`, `c`: Var x, Var y and Cov(x, y); traced scalars (`vmap` for many pairs).
    - `terms`: how many orders of the Hermite expansion are summed; static. The estimate contains
        the neglected tail, which Parseval's sum bounds.

    **Raises** `ValueError` where `terms + order` exceeds 1024.
    """
    if not 1 <= terms <= TERMS - order:
        raise ValueError(f"`terms` must lie between 1 and {TERMS - order}, got {terms}.")
    corr, complement = _correlation(a, b, c)
    kept = np.add.outer(np.arange(order + 1), np.arange(order + 1)) <= order
    if isinstance(activation, AbstractHomogeneousActivation):
        value, error = homogeneous_coefficients(activation, a, b, corr, complement, order)
        return Moments(jnp.where(kept, value, 0), jnp.where(kept, error, 0))

    g, g_energy, g_error = _input_products(activation, a, order, terms)
    spectrum, energy, s_error = _input_products(activation, b, 0, terms + order)
    i, k = np.arange(terms)[:, None], np.arange(order + 1)[None, :]
    binomial = np.exp((gammaln(i + k + 1) - gammaln(i + 1) - gammaln(k + 1)) / 2)
    powers = _powers(corr, terms)[:, None] * _powers(complement, order + 1)[None, :]
    weights = jnp.asarray(binomial, c.dtype) * powers
    value = g @ (spectrum[0][i + k] * weights)

    # Cauchy-Schwarz for the tail i >= terms, where B_ik^2 <= s_{i+k}^2 times the largest weight there
    # (the binomial weights fall beyond i = k corr^2 / corr'^2, and never exceed one).
    g_tail = jnp.abs(g_energy - jnp.sum(g**2, axis=1))
    s_tail = jnp.abs(energy[0] - jnp.cumsum(spectrum[0] ** 2))[terms - 1 :]
    falling = jnp.asarray(k[0], c.dtype) * corr**2 <= terms * complement**2
    largest = jnp.where(falling, (jnp.asarray(binomial, c.dtype)[-1] * powers[-1]) ** 2, 1)
    tail = jnp.sqrt(g_tail)[:, None] * jnp.sqrt(s_tail * largest)[None, :]
    quadrature = g_error @ jnp.abs(weights * spectrum[0][i + k]) + jnp.abs(g) @ jnp.abs(
        weights * s_error[0][i + k]
    )
    return Moments(jnp.where(kept, value, 0), jnp.where(kept, tail + quadrature, 0))


def _correlation(a, b, c):
    positive = (a > 0) & (b > 0)
    product = jnp.where(positive, a * b, 1)
    corr = jnp.clip(jnp.where(positive, c / jnp.sqrt(product), 0), -1, 1)
    gap = (1 - corr) * (1 + corr)
    return corr, jnp.where(gap > 0, jnp.sqrt(jnp.where(gap > 0, gap, 1)), 0)


def _powers(x, count: int):
    """1, x, x^2, ..., differentiable at zero."""
    return jnp.cumprod(jnp.concatenate([jnp.ones((1,), x.dtype), jnp.full((count - 1,), x)]))


def _kinks(activation) -> tuple[float, ...]:
    if isinstance(activation, AbstractHomogeneousActivation):
        return (0.0,)
    return activation.kinks if isinstance(activation, AbstractKinkedActivation) else ()


def _input_products(activation, q, order: int, terms: int):
    """G_ji = E[sigma(sqrt(q) z) h_j(z) h_i(z)] (order+1, terms), E[(sigma h_j)^2], and errors."""
    if kinks := _kinks(activation):
        positive = jnp.where(q > 0, q, 1)
        z, weights = (x[0] for x in kinked_rule(kinks, jnp.sqrt(positive)[None, None]))
        low = hermite_functions(z, order + 1)
        damped = _scan_hermite(z, terms)
    else:
        rule = spectral_rule()
        z, weights = (jnp.asarray(x, q.dtype) for x in rule)
        low = jnp.asarray(hermite_functions(rule.nodes, order + 1), q.dtype)
        undo = np.exp(-(rule.nodes**2) / 4) / rule.weights
        damped = jnp.asarray(spectral_matrix()[:terms] * undo[None, :], q.dtype)
    steps = weights * jnp.exp(z**2 / 2)  # the rule without the normal density
    values = activation(jnp.sqrt(q) * z)[None, :] * low
    value = (values * steps[None, :]) @ damped.T
    energy = jnp.sum(values**2 * steps[None, :], axis=1)
    if kinks:
        relative = jnp.full_like(energy, 1024 * jnp.finfo(q.dtype).eps)
    else:
        growth = jnp.exp(z**2 / 2)[None, :]
        size = jnp.where(energy > 0, energy, 1)
        of_square = trapezoid(values**2 * growth, np.asarray(rule.weights))[1]
        lowest = trapezoid(values * damped[:1] * growth, np.asarray(rule.weights))[1]
        relative = of_square / size + lowest / jnp.sqrt(size) + 64 * jnp.finfo(q.dtype).eps
    error = jnp.sqrt(energy)[:, None] * relative[:, None] * jnp.ones_like(value)
    return value, energy, error


def _scan_hermite(z, terms: int):
    """h_m(z) exp(-z^2/4) for many m on traced nodes: (terms, node)."""

    def step(carry, m):
        previous, current = carry
        following = (z * current - jnp.sqrt(m) * previous) / jnp.sqrt(m + 1)
        return (current, following), current

    start = (jnp.zeros_like(z), jnp.exp(-(z**2) / 4))
    return jax.lax.scan(step, start, jnp.arange(terms, dtype=z.dtype))[1]
