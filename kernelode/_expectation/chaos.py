"""Pair coefficients in the orthonormal chaos basis,

    c_jk = E[sigma(x) sigma(y) h_j(u) h_k(v)],   x = sqrt(a) u,  y = sqrt(b) (corr u + corr' v),

with corr' = sqrt(1 - corr^2), u and v independent standard normals and h_m = He_m / sqrt(m!). They
factor over the inputs,

    c_jk = sum_i G_ji B_ik,  G_ji = E[sigma(sqrt(a) u) h_j(u) h_i(u)],
    B_ik = s_{i+k}(b) sqrt(binom(i+k, k)) corr^i corr'^k,

one small quadrature per input and one small product per pair, no two-dimensional grid. For positively
homogeneous activations polar coordinates are exact at any correlation (`wedge.py`).

The basis, unlike the moments of `moments.py`, is not differentiable at correlation +-1: v is arbitrary
there. Values are right; derivatives belong to invariant combinations. With any number `spread` in the
place of corr' the same formula gives the coefficients of y = sqrt(b) (corr u + spread w), where w has the
variance corr'^2 / spread^2: smooth ones, of which `_closure/chaos_basis.py` makes those combinations.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from .._activation import scale
from .._activation.base import (
    AbstractActivation,
    AbstractHomogeneousActivation,
)
from .input_chaos import InputChaos, input_chaos
from .moments import Estimate
from .nodes import TERMS
from .wedge import homogeneous_coefficients

#: Estimates are this times the change by a finer rule. The change is about the error; at a kink between
#: two nodes it may be a third of it.
SAFETY = 4


def hermite_spectrum(activation: AbstractActivation, q: Float[Array, ""], terms: int) -> Estimate:
    """s_m(q) = E[sigma(sqrt(q) z) h_m(z)], m < terms, with error estimates. Shape (terms,).

    **Raises** `ValueError` for more than 1024 terms.
    """
    if not 1 <= terms <= TERMS:
        raise ValueError(f"`terms` must be between 1 and {TERMS}, got {terms}.")
    x, finer = (input_chaos(activation, q, 0, terms, finer=finer) for finer in (False, True))
    change = jnp.abs(x.spectrum - finer.spectrum)
    # One coefficient may change little by accident: the largest change up to eight orders further.
    ahead = jnp.concatenate([change[8:], jnp.full((min(8, terms),), jnp.max(change[-8:]))])[:terms]
    largest = jax.lax.cummax(jnp.maximum(ahead, jnp.max(change[:8])))
    size = jnp.sqrt(jnp.abs(finer.square[0]))
    return Estimate(x.spectrum, SAFETY * largest + 64 * jnp.finfo(q.dtype).eps * size)


def pair_coefficients(
    activation: AbstractActivation,
    a: Float[Array, ""],
    b: Float[Array, ""],
    c: Float[Array, ""],
    order: int,
    *,
    terms: int = 512,
) -> Estimate:
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
    eps = jnp.finfo(corr.dtype).eps
    kept = np.add.outer(np.arange(order + 1), np.arange(order + 1)) <= order
    if isinstance(activation, AbstractHomogeneousActivation):
        by_rule = lambda **options: homogeneous_coefficients(
            activation, a, b, corr, complement, order, **options
        )
        value, change, tail = by_rule(), by_rule(finer=True), jnp.zeros_like(corr)
        size = jnp.max(jnp.where(kept, by_rule(sizes=True), 0))
    else:
        (x, y), (x_finer, y_finer) = (
            [input_chaos(activation, q, order, terms, finer=finer) for q in (a, b)]
            for finer in (False, True)
        )
        value = chaos_coefficients(x, y, corr, complement)
        change = chaos_coefficients(x_finer, y_finer, corr, complement)
        tail = coefficient_tails(x, y, corr, complement)
        size = jnp.max(_root(x_finer.energies)) * _root(y_finer.square[0])
    largest = jnp.max(jnp.where(kept, jnp.abs(value - change), 0))
    error = jnp.broadcast_to(SAFETY * largest + 64 * eps * size + tail, kept.shape)
    return Estimate(jnp.where(kept, value, 0), jnp.where(kept, error, 0))


def _root(x: Array) -> Array:
    return jnp.sqrt(jnp.abs(x))


def correlation(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """corr and corr' of a pair; zero correlation where a variance is zero. Inputs whose corr'^2 is
    rounding count as parallel."""
    corr, gap = scale.correlation(a, b, c)
    parallel = gap <= parallel_rounding(gap.dtype)
    return jnp.clip(corr, -1, 1), jnp.where(parallel, 0, jnp.sqrt(jnp.where(parallel, 1, gap)))


def parallel_rounding(dtype: DTypeLike) -> float:
    """The corr'^2 up to which inputs count as parallel."""
    return max(1e-12, 32 * float(jnp.finfo(dtype).eps))


@jax.custom_jvp
def alignment(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """corr and corr'^2 of a pair, with their derivatives also where inputs are parallel; constant where
    a variance is zero."""
    corr, complement = correlation(a, b, c)
    return corr, complement**2


@alignment.defjvp
def _(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    (a, b, c), (da, db, dc) = primals, tangents
    corr, gap = alignment(a, b, c)
    some = (a > 0) & (b > 0)
    inverse = lambda q: jnp.where(some, 1 / jnp.sqrt(jnp.where(some, q, 1)), 0)
    of_a, of_b = inverse(a), inverse(b)
    rate = dc * of_a * of_b - corr / 2 * (da * of_a**2 + db * of_b**2)
    return (corr, gap), (rate, -2 * corr * rate)


def chaos_coefficients(
    x: InputChaos, y: InputChaos, corr: Float[Array, ""], spread: Float[Array, ""]
) -> Float[Array, "j k"]:
    """c_jk for all j, k up to the inputs' order, of which j + k <= order are meaningful."""
    terms, order = x.products.shape[-1], x.products.shape[-2] - 1
    return x.products @ _partner(y, corr, spread, order, terms)


def uncorrelated_coefficients(
    x: InputChaos, y: InputChaos, covariance: Float[Array, ""]
) -> Float[Array, "j k"]:
    """c_jk of inputs of which one has zero variance, to first order in Cov(u, w), in the units of
    `lowest`."""
    order = x.products.shape[-2] - 1
    roots = jnp.sqrt(jnp.arange(1, order + 2, dtype=covariance.dtype))
    raised = lambda side: roots * side.lowest[1:]
    kept = lambda side: side.lowest[: order + 1]
    by_covariance = raised(x)[:, None] * raised(y)[None, :]
    return kept(x)[:, None] * kept(y)[None, :] + covariance * by_covariance


def _partner(
    y: InputChaos, corr: Float[Array, ""], spread: Float[Array, ""], order: int, terms: int
) -> Float[Array, "term k"]:
    """B_ik."""
    i, k = np.arange(terms)[:, None], np.arange(order + 1)[None, :]
    binomial = jnp.asarray(_binomial_roots(order, terms), corr.dtype)
    powers = cumulative_powers(corr, terms)[:, None] * cumulative_powers(spread, order + 1)[None, :]
    return y.spectrum[i + k] * binomial * powers


def coefficient_tails(
    x: InputChaos, y: InputChaos, corr: Float[Array, ""], complement: Float[Array, ""]
) -> Float[Array, "j k"]:
    """Bounds of what the sum of `chaos_coefficients` leaves out.

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
    return jnp.sqrt(g_tail)[:, None] * jnp.sqrt(s_tail * largest)[None, :]


def cumulative_powers(x: Float[Array, ""], count: int) -> Float[Array, " count"]:
    """1, x, x^2, ..., differentiable at zero."""
    return jnp.cumprod(jnp.concatenate([jnp.ones((1,), x.dtype), jnp.full((count - 1,), x)]))


@functools.lru_cache
def _binomial_roots(order: int, terms: int) -> np.ndarray:
    """sqrt(binom(i + k, k)), (terms, order + 1)."""
    i, k = np.arange(terms)[:, None], np.arange(order + 1)[None, :]
    gammaln = scipy.special.gammaln
    return np.exp((gammaln(i + k + 1) - gammaln(i + 1) - gammaln(k + 1)) / 2)
