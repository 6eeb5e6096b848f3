"""The orthonormal chaos basis of a pair of inputs, and how it turns as their kernel changes.

phi_a = A11 u, phi_b = A21 u + A22 v with A the lower Cholesky factor of the pair's kernel. A chaos of
degree p has the coordinates (p, k), k = 0 .. p, of h_{p-k}(u) h_k(v); arrays keep all degrees in one
padded array with axes (degree, k). Scaled monomials of phi would need no basis, but their Gram matrix
is all but singular for correlated inputs; this one is orthonormal.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from .._expectation.chaos import cumulative_powers


class Degrees(NamedTuple):
    """The degrees p of a truncation, and the static tables for them. Axes (degree, k)."""

    p: np.ndarray  # (degree,)
    j: np.ndarray  # (degree, order + 1): p - k, zero where outside
    k: np.ndarray  # (order + 1,)
    inside: np.ndarray  # (degree, order + 1): k <= p

    @property
    def order(self) -> int:
        return len(self.k) - 1

    @property
    def second(self) -> int:
        """Where p = 2 is, which every tower has."""
        return int(np.argmax(self.p == 2))

    @property
    def neglected(self) -> int:
        """The lowest degree that is left out."""
        return int(self.p[-1] + self.p[0])


@functools.lru_cache
def degrees(order: int, step: int) -> Degrees:
    """p = step, 2 step, ... <= order; odd degrees vanish for activations of definite parity."""
    p, k = np.arange(step, order + 1, step), np.arange(order + 1)
    difference = p[:, None] - k[None, :]
    return Degrees(p, np.maximum(difference, 0), k, difference >= 0)


def by_degree(square: Float[Array, "j k"], p: np.ndarray, width: int) -> Float[Array, "degree width"]:
    """Coefficients c_jk as [p, k] = c_{p-k, k}, zero beyond k = p."""
    k = np.arange(width)
    j = p[:, None] - k[None, :]
    return jnp.where(j >= 0, square[np.maximum(j, 0), np.minimum(k, square.shape[1] - 1)[None, :]], 0)


@functools.lru_cache
def _rotation_roots(top: int) -> np.ndarray:
    p, k = np.arange(top + 1)[:, None], np.arange(top + 1)[None, :]
    k = np.minimum(k, p)
    gammaln = scipy.special.gammaln
    return np.exp((gammaln(p + 1) - gammaln(p - k + 1) - gammaln(k + 1)) / 2)


def rotated_square(square: Float[Array, " p"], corr, complement) -> Float[Array, "p k"]:
    """The coefficients of sigma(y)^2 from those along y: sqrt(binom(p, k)) corr^{p-k} corr'^k h_p."""
    top = square.shape[0] - 1
    p, k = np.arange(top + 1)[:, None], np.arange(top + 1)[None, :]
    along = cumulative_powers(corr, top + 1)[np.maximum(p - k, 0)]
    across = cumulative_powers(complement, top + 1)[None, :]
    value = square[:, None] * jnp.asarray(_rotation_roots(top), corr.dtype) * along * across
    return jnp.where(k <= p, value, 0)


class Frame(NamedTuple):
    """A, and B = A^{-1} with zeros for what an input of zero variance or a parallel one lacks."""

    a: Float[Array, "2 2"]
    b: Float[Array, "2 2"]


def frame(qa, qb, corr, complement) -> Frame:
    root = lambda q: jnp.where(q > 0, jnp.sqrt(jnp.where(q > 0, q, 1)), 0)
    a11, a21, a22 = root(qa), root(qb) * corr, root(qb) * complement
    inverse = lambda x: jnp.where(x == 0, 0, 1 / jnp.where(x == 0, 1, x))
    b11, b22 = inverse(a11), inverse(a22)
    b21 = -a21 * b11 * b22
    zero = jnp.zeros_like(a11)
    matrix = lambda x, y, z: jnp.stack([jnp.stack([x, zero]), jnp.stack([y, z])])
    return Frame(matrix(a11, a21, a22), matrix(b11, b21, b22))


def second_power(m: Float[Array, "2 2"]) -> Float[Array, "3 3"]:
    """S3(m): how (aa, ab, bb) transforms into (uu, uv, vv) under u_i = m_ij phi_j."""
    (p, q), (r, s) = m[0], m[1]
    rows = (p * p, 2 * p * q, q * q), (p * r, p * s + q * r, q * s), (r * r, 2 * r * s, s * s)
    return jnp.stack([jnp.stack(row) for row in rows])


@functools.lru_cache
def _triangular_table(order: int, step: int) -> np.ndarray:
    """sqrt(binom(k', i) binom(p - i, p - k')) for i <= k' <= p: (degree, order + 1, order + 1)."""
    d = degrees(order, step)
    p, k, i = d.p[:, None, None], d.k[None, :, None], d.k[None, None, :]
    valid = (i <= k) & (k <= p)
    p, k, i = (np.where(valid, x, 0) for x in np.broadcast_arrays(p, k, i))
    gammaln = scipy.special.gammaln
    logarithm = lambda n, m: gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1)
    return np.where(valid, np.exp((logarithm(k, i) + logarithm(p - i, p - k)) / 2), 0)


def change_basis(
    r: Float[Array, "x degree k"], m: Float[Array, "2 2"], step: int
) -> Float[Array, "x degree k"]:
    """Chaos coordinates in a new frame, m = alpha B' A lower triangular:

    R'[p, k'] = sum_i m11^{p-k'} m21^{k'-i} m22^i sqrt(binom(k', i) binom(p-i, p-k')) R[p, i].
    """
    order = r.shape[-1] - 1
    d = degrees(order, step)
    first, mixed, second = (cumulative_powers(x, order + 1) for x in (m[0, 0], m[1, 0], m[1, 1]))
    shift = np.maximum(d.k[:, None] - d.k[None, :], 0)
    table = jnp.asarray(_triangular_table(order, step), r.dtype)
    matrix = table * first[d.j][:, :, None] * (mixed[shift] * second[None, :])[None]
    return jnp.einsum("pki,xpi->xpk", matrix, r)


def turning(
    r: Float[Array, "x degree k"], drift: Float[Array, "2 2"], b: Float[Array, "2 2"], step: int
) -> Float[Array, "x degree k"]:
    """d/dt of `change_basis` as the kernel moves by `drift`: with q = B Q B^T,

    -(j q_uu + k q_vv) R[p, k] / 2 - q_uv sqrt(k (j + 1)) R[p, k - 1].
    """
    d = degrees(r.shape[-1] - 1, step)
    q = b @ drift @ b.T
    j, k = (jnp.asarray(x, r.dtype) for x in (d.j, d.k[None, :]))
    mixed = jnp.asarray(np.where(d.inside, np.sqrt(d.k[None, :] * (d.j + 1.0)), 0), r.dtype)
    before = jnp.concatenate([jnp.zeros_like(r[..., :1]), r[..., :-1]], axis=-1)
    return -((j * q[0, 0] + k * q[1, 1]) / 2)[None] * r - (q[1, 0] * mixed)[None] * before


def project(
    overlap: Float[Array, "2 2"], coefficients: Float[Array, "degree k"], step: int
) -> Float[Array, "degree k"]:
    """Cov(f, h_{p-k}(u) h_k(v)) for a function f given by its chaos coefficients in another frame,
    whose covariance with (u, v) is `overlap`: c_p S^p(X), S^p the p-th symmetric power of X, by

        S^p[k', k] sqrt(j') = X11 sqrt(j) S^{p-1}[k', k] + X12 sqrt(k) S^{p-1}[k', k-1],   k' < p,
        S^p[p, k] sqrt(p) = X21 sqrt(j) S^{p-1}[p-1, k] + X22 sqrt(k) S^{p-1}[p-1, k-1].
    """
    order = coefficients.shape[-1] - 1
    roots = jnp.sqrt(jnp.arange(order + 1, dtype=coefficients.dtype))
    k = np.arange(order + 1)

    def next_power(power, p):
        j = jnp.maximum(p - k, 0)
        shifted = jnp.concatenate([jnp.zeros_like(power[:, :1]), power[:, :-1]], axis=1)
        from_row = lambda row: row[0] * roots[j][None, :] * power + row[1] * roots[None, :] * shifted
        upper = from_row(overlap[0]) / jnp.maximum(roots[j], 1)[:, None]
        last = from_row(overlap[1]) / roots[p]
        # Row p of the new power comes from row p - 1 of the old.
        moved = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]], axis=0)
        inside = (k[:, None] <= p) & (k[None, :] <= p)
        return jnp.where(inside, jnp.where(k[:, None] < p, upper, moved), 0)

    def advance(power, entry):
        p, c = entry
        for back in range(step - 1, -1, -1):
            power = next_power(power, p - back)
        return power, c @ power

    start = jnp.zeros((order + 1, order + 1), coefficients.dtype).at[0, 0].set(1)
    d = degrees(order, step)
    return jax.lax.scan(advance, start, (jnp.asarray(d.p), coefficients))[1]
