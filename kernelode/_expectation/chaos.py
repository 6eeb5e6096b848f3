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

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from .._activation import scale
from .._activation.base import (
    AbstractActivation,
    AbstractHomogeneousActivation,
    AbstractKinkedActivation,
)
from .kinked import kinked_steps
from .moments import Moments
from .nodes import TERMS, chaos_reach, chaos_rule, hermite_functions
from .wedge import homogeneous_coefficients


class InputChaos(eqx.Module):
    """What one input brings to the coefficients of its pairs and of itself.

    - `products`: G_ji, shape (order + 1, terms).
    - `spectrum`: s_m, shape (terms + order,).
    - `square`: E[sigma^2 h_m], shape (order + 1,): the coefficients of the input with itself.
    - `energies`: E[(sigma h_j)^2], shape (order + 1,).
    - `relative_error`: of the quadrature, by comparison with half of the nodes.
    """

    products: Float[Array, "*n order terms"]
    spectrum: Float[Array, "*n term"]
    square: Float[Array, "*n order"]
    energies: Float[Array, "*n order"]
    relative_error: Float[Array, "*n"]


def hermite_spectrum(activation: AbstractActivation, q: Float[Array, ""], terms: int) -> Moments:
    """s_m(q) = E[sigma(sqrt(q) z) h_m(z)], m < terms, with error estimates. Shape (terms,).

    **Raises** `ValueError` for more than 1024 terms.
    """
    if not 1 <= terms <= TERMS:
        raise ValueError(f"`terms` must be between 1 and {TERMS}, got {terms}.")
    x = input_chaos(activation, q, 0, terms)
    error = x.relative_error * jnp.sqrt(jnp.abs(x.square[0]))
    return Moments(x.spectrum, jnp.full_like(x.spectrum, 1) * error)


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
    corr, complement = correlation(a, b, c)
    kept = np.add.outer(np.arange(order + 1), np.arange(order + 1)) <= order
    if isinstance(activation, AbstractHomogeneousActivation):
        value, error = homogeneous_coefficients(activation, a, b, corr, complement, order)
    else:
        x, y = (input_chaos(activation, q, order, terms) for q in (a, b))
        value = chaos_coefficients(x, y, corr, complement)
        error = coefficient_errors(x, y, corr, complement)
    return Moments(jnp.where(kept, value, 0), jnp.where(kept, error, 0))


def correlation(a, b, c) -> tuple[Array, Array]:
    """corr and corr' of a pair; zero correlation where a variance is zero. Inputs whose corr'^2 is
    rounding count as parallel."""
    corr, gap = scale.correlation(a, b, c)
    parallel = gap <= max(1e-12, 32 * jnp.finfo(gap.dtype).eps)
    return jnp.clip(corr, -1, 1), jnp.where(parallel, 0, jnp.sqrt(jnp.where(parallel, 1, gap)))


def input_chaos(
    activation: AbstractActivation, q: Float[Array, ""], order: int, terms: int, *, power: int = 1
) -> InputChaos:
    """Everything that an input of variance `q` brings to coefficients up to `order`, of sigma^power."""
    if kinks := _kinks(activation):
        positive = jnp.where(q > 0, q, 1)
        scale = jnp.sqrt(positive)[None, None]
        z, steps = (x[0] for x in kinked_steps(kinks, scale, chaos_reach(order)))
        basis = scan_hermite(z, terms + order)
        lowest = basis[: order + 1]
    else:
        rule = chaos_rule(order, terms)
        z, steps = (jnp.asarray(x, q.dtype) for x in (rule.nodes, rule.steps))
        # Constants as they are used: XLA would slice and transpose them at compile time, slowly.
        basis = jnp.asarray(_basis(order, terms), q.dtype)
        lowest = jnp.asarray(_basis(order, terms)[: order + 1], q.dtype)
    root = jnp.where(q > 0, jnp.sqrt(jnp.where(q > 0, q, 1)), 0)
    values = activation(root * z) ** power
    low = values[None, :] * lowest
    weighted = low * steps[None, :]
    damping = jnp.exp(-(z**2) / 4)
    square = weighted @ (values * damping)
    energies = jnp.sum(weighted * low, axis=1)
    eps = jnp.finfo(q.dtype).eps
    relative = jnp.asarray(1024 * eps, q.dtype)
    if not kinks:
        # Every second node: the change is about the square root of the error that is left. An input by
        # itself needs `square` only, whose integrands oscillate less.
        halved = lambda x: 2 * (x[:, ::2] @ steps[::2])
        needed, found = (low**2, energies) if terms > 1 else (low * (values * damping)[None], square)
        size = jnp.where(energies > 0, energies, 1) if terms > 1 else jnp.max(jnp.abs(square))
        change = jnp.abs(halved(needed) - found) / jnp.where(size > 0, size, 1)
        relative = jnp.max(change) ** 2 + 64 * eps
    return InputChaos(
        products=jnp.einsum("jz,iz->ji", weighted, basis)[:, :terms],
        spectrum=basis @ (steps * damping * values),
        square=square,
        energies=energies,
        relative_error=relative,
    )


def chaos_coefficients(x: InputChaos, y: InputChaos, corr, complement) -> Float[Array, "j k"]:
    """c_jk for all j, k up to the inputs' order, of which j + k <= order are meaningful."""
    terms, order = x.products.shape[-1], x.products.shape[-2] - 1
    return x.products @ _partner(y, corr, complement, order, terms)


def _partner(y: InputChaos, corr, complement, order: int, terms: int) -> Float[Array, "term k"]:
    """B_ik."""
    i, k = np.arange(terms)[:, None], np.arange(order + 1)[None, :]
    binomial = jnp.asarray(_binomial_roots(order, terms), corr.dtype)
    powers = cumulative_powers(corr, terms)[:, None] * cumulative_powers(complement, order + 1)[None, :]
    return y.spectrum[i + k] * binomial * powers


def coefficient_errors(x: InputChaos, y: InputChaos, corr, complement) -> Float[Array, "j k"]:
    """Estimates of the errors of `chaos_coefficients`: of the quadratures, and of the sum's tail.

    Cauchy-Schwarz for the terms i >= `terms`, where B_ik^2 <= s_{i+k}^2 times the largest weight there:
    the binomial weights fall beyond i = k corr^2 / corr'^2, and never exceed one.
    """
    terms, order = x.products.shape[-1], x.products.shape[-2] - 1
    k = np.arange(order + 1)
    g_tail = jnp.abs(x.energies - jnp.sum(x.products**2, axis=1))
    s_tail = jnp.abs(y.square[0] - jnp.cumsum(y.spectrum**2))[terms - 1 :]
    last = jnp.asarray(_binomial_roots(order, terms)[-1], corr.dtype)
    power = jnp.abs(corr) ** (terms - 1) * cumulative_powers(complement, order + 1)
    falling = jnp.asarray(k, corr.dtype) * corr**2 <= terms * complement**2
    largest = jnp.where(falling, (last * power) ** 2, 1)
    tail = jnp.sqrt(g_tail)[:, None] * jnp.sqrt(s_tail * largest)[None, :]
    size = jnp.sqrt(x.energies)[:, None] * jnp.sqrt(jnp.abs(y.square[0]))
    return tail + (x.relative_error + y.relative_error) * size


def cumulative_powers(x, count: int):
    """1, x, x^2, ..., differentiable at zero."""
    return jnp.cumprod(jnp.concatenate([jnp.ones((1,), x.dtype), jnp.full((count - 1,), x)]))


@functools.lru_cache
def _binomial_roots(order: int, terms: int) -> np.ndarray:
    """sqrt(binom(i + k, k)), (terms, order + 1)."""
    i, k = np.arange(terms)[:, None], np.arange(order + 1)[None, :]
    gammaln = scipy.special.gammaln
    return np.exp((gammaln(i + k + 1) - gammaln(i + 1) - gammaln(k + 1)) / 2)


@functools.lru_cache
def _basis(order: int, terms: int) -> np.ndarray:
    return hermite_functions(chaos_rule(order, terms).nodes, terms + order)


def _kinks(activation) -> tuple[float, ...]:
    if isinstance(activation, AbstractHomogeneousActivation):
        return (0.0,)
    return activation.kinks if isinstance(activation, AbstractKinkedActivation) else ()


def scan_hermite(z, terms: int):
    """h_m(z) exp(-z^2/4) for many m on traced nodes: (terms, node)."""

    def step(carry, m):
        previous, current = carry
        following = (z * current - jnp.sqrt(m) * previous) / jnp.sqrt(m + 1)
        return (current, following), current

    start = (jnp.zeros_like(z), jnp.exp(-(z**2) / 4))
    return jax.lax.scan(step, start, jnp.arange(terms, dtype=z.dtype))[1]
