"""The orthonormal chaos basis of a pair of inputs, and how it turns as their kernel changes.

phi_a = A11 u, phi_b = A21 u + A22 w with u and w independent. A chaos of degree p has the coordinates
(p, k), k = 0 .. p, of :u^{p-k} w^k: / sqrt((p-k)! k!); arrays keep all degrees in one padded array with
axes (degree, k). Scaled monomials of phi would need no basis, but their Gram matrix is all but singular
for correlated inputs; this one is orthogonal, and but for nearly parallel inputs orthonormal.

Parallel inputs have no second direction, and a Cholesky factor no derivative there. Moments are smooth
in the kernel nevertheless: they depend on corr'^2 = 1 - corr^2, which moves at a finite rate. Hence w is
not normalised but measured in units sqrt(q_b) `spread`, with a `spread` that stays away from zero:

    spread^2 = corr'^2 + floor,        Var w = corr'^2 / spread^2.

Then A, its inverse B and all coordinates are smooth functions of the kernel. `frame` has the details,
also for kinks and for zero variance.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation
from .._expectation.chaos import alignment, cumulative_powers
from .._expectation.input_chaos import has_kinks
from .._expectation.nodes import TERMS


class Degrees(NamedTuple):
    """The degrees p of a truncation, and the static tables for them. Axes (degree, k). `floor` is that
    of the bases, `step` from one degree to the next."""

    p: np.ndarray  # (degree,)
    j: np.ndarray  # (degree, order + 1): p - k, zero where outside
    k: np.ndarray  # (order + 1,)
    inside: np.ndarray  # (degree, order + 1): k <= p
    floor: float
    step: int

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
        return int(self.p[-1]) + self.step


def basis_floor(activation: AbstractActivation) -> float:
    """How far `spread`^2 stays from zero. The coefficients of a smooth activation grow by a factor of at
    most (1 + floor)^{m/2} from it, with m up to TERMS: by less than two. Those of one with kinks would
    diverge: see `frame`."""
    return 0.0 if has_kinks(activation) else 1 / TERMS


@functools.lru_cache
def degrees(order: int, step: int, floor: float = 0.0, first: int | None = None) -> Degrees:
    """p = step, 2 step, ... <= order; odd degrees vanish for activations of definite parity. Or from the
    `first` degree on."""
    p, k = np.arange(step if first is None else first, order + 1, step), np.arange(order + 1)
    difference = p[:, None] - k[None, :]
    return Degrees(p, np.maximum(difference, 0), k, difference >= 0, floor, step)


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


def rotated_square(square: Float[Array, " p"], corr: Array, spread: Array) -> Float[Array, "p k"]:
    """The coefficients of sigma(y)^2 from those along y: sqrt(binom(p, k)) corr^{p-k} spread^k h_p."""
    top = square.shape[0] - 1
    p, k = np.arange(top + 1)[:, None], np.arange(top + 1)[None, :]
    along = cumulative_powers(corr, top + 1)[np.maximum(p - k, 0)]
    across = cumulative_powers(spread, top + 1)[None, :]
    value = square[:, None] * jnp.asarray(_rotation_roots(top), corr.dtype) * along * across
    return jnp.where(k <= p, value, 0)


class Frame(NamedTuple):
    """A, B = A^{-1} and the covariance of (u, w), which is diagonal but for derivatives at zero variance;
    corr and `spread` of the pair."""

    a: Float[Array, "2 2"]
    b: Float[Array, "2 2"]
    gram: Float[Array, "2 2"]
    corr: Float[Array, ""]
    spread: Float[Array, ""]


def frame(qa: Array, qb: Array, c: Array, floor: float) -> Frame:
    """The basis of a pair.

    *Kinks* (floor zero): `spread` is corr' itself, and one for parallel inputs, of which two degrees in w
    are enough for values and first derivatives (`_expectation/parallel.py`).

    *Zero variance*: u is phi_a and w is phi_b, each in units of its own deviation, or of one if that is
    zero. They are uncorrelated, but their covariance may have a derivative.
    """
    corr, gap = alignment(qa, qb, c)
    some = (qa > 0) & (qb > 0)
    square = gap + floor
    positive = some & (square > 0)
    spread = jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 1)
    unit_a, unit_b = (jnp.where(q > 0, jnp.sqrt(jnp.where(q > 0, q, 1)), 1) for q in (qa, qb))
    of_u = jnp.where(qa > 0, 1, qa)
    of_w = jnp.where(some, gap / spread**2, jnp.where(qb > 0, 1, qb))
    mixed = jnp.where(some, 0, c / unit_a / unit_b)
    zero = jnp.zeros_like(unit_a)
    matrix = lambda x, y, z, upper=zero: jnp.stack([jnp.stack([x, upper]), jnp.stack([y, z])])
    return Frame(
        matrix(unit_a, unit_b * corr, unit_b * spread),
        matrix(1 / unit_a, -corr / spread / unit_a, 1 / unit_b / spread),
        matrix(of_u, mixed, of_w, mixed),
        corr,
        spread,
    )


def own_frame(here: Frame) -> Frame:
    """Of an input with itself: there is no w."""
    nothing = jnp.zeros_like(here.spread)
    return Frame(
        here.a.at[1].set(jnp.stack([here.a[0, 0], nothing])),
        here.b.at[1].set(0),
        here.gram.at[1].set(0).at[0, 1].set(0),
        jnp.ones_like(here.corr),
        here.spread,
    )


def units(gram: Float[Array, "2 2"]) -> Float[Array, "2"]:
    """Inverse deviations of u and w, which make the basis orthonormal; zero for missing directions."""
    return jnp.stack(
        [jnp.where(g > 0, 1 / jnp.sqrt(jnp.where(g > 0, g, 1)), 0) for g in jnp.diagonal(gram)]
    )


def frame_rate(
    qa: Array, qb: Array, c: Array, drift: Float[Array, "2 2"], floor: float
) -> Float[Array, "2 2"]:
    """(dB/dt) A as the kernel moves by `drift`."""
    here = frame(qa, qb, c, floor)
    kernel = (qa, qb, c)
    moves = (drift[0, 0], drift[1, 1], drift[0, 1])
    return jax.jvp(lambda *kernel: frame(*kernel, floor=floor).b, kernel, moves)[1] @ here.a


def lowered(
    c: Float[Array, "x degree k"], gram: Float[Array, "2 2"], step: int, first: int | None = None
) -> Float[Array, "x degree k"]:
    """Cov(f, :u^j w^k: / sqrt(j! k!)) for functions f = sum c[p, k] :u^j w^k: / sqrt(j! k!), to first
    order in the covariance of u and w:

        g_u^j g_w^k c[j, k] + g_uw (sqrt(j (k+1)) g_u^{j-1} g_w^k c[j-1, k+1] + (u <-> w)).
    """
    order = c.shape[-1] - 1
    d = degrees(order, step, first=first)
    of_u, of_w = (cumulative_powers(g, order + 1) for g in (gram[0, 0], gram[1, 1]))
    weighted = c * (of_u[d.j] * of_w[None, :])[None]
    before = np.maximum(d.j - 1, 0)
    roots = lambda x: jnp.asarray(np.where(d.inside, np.sqrt(x), 0), c.dtype)
    up = roots(d.j * (d.k[None, :] + 1.0)) * of_u[before] * of_w[None, :]
    down = roots((d.j + 1.0) * d.k[None, :]) * of_u[d.j] * of_w[np.maximum(d.k - 1, 0)][None, :]
    none = jnp.zeros_like(c[..., :1])
    above = jnp.concatenate([c[..., 1:], none], axis=-1)
    below = jnp.concatenate([none, c[..., :-1]], axis=-1)
    return weighted + gram[0, 1] * (up[None] * above + down[None] * below)


def square_norms(
    c: Float[Array, "x degree k"], gram: Float[Array, "2 2"], step: int
) -> Float[Array, "x degree"]:
    """Of the chaos of each degree of functions with these coefficients."""
    return jnp.sum(c * lowered(c, gram, step), axis=2)


def second_power(m: Float[Array, "2 2"]) -> Float[Array, "3 3"]:
    """S3(m): how (aa, ab, bb) transforms into (uu, uv, vv) under u_i = m_ij phi_j."""
    (p, q), (r, s) = m[0], m[1]
    rows = (p * p, 2 * p * q, q * q), (p * r, p * s + q * r, q * s), (r * r, 2 * r * s, s * s)
    return jnp.stack([jnp.stack(row) for row in rows])


@functools.lru_cache
def _triangular_table(order: int, step: int, first: int | None) -> np.ndarray:
    """sqrt(binom(k', i) binom(p - i, p - k')) for i <= k' <= p: (degree, order + 1, order + 1)."""
    d = degrees(order, step, first=first)
    p, k, i = d.p[:, None, None], d.k[None, :, None], d.k[None, None, :]
    valid = (i <= k) & (k <= p)
    p, k, i = (np.where(valid, x, 0) for x in np.broadcast_arrays(p, k, i))
    gammaln = scipy.special.gammaln
    logarithm = lambda n, m: gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1)
    return np.where(valid, np.exp((logarithm(k, i) + logarithm(p - i, p - k)) / 2), 0)


def change_basis(
    r: Float[Array, "x degree k"], m: Float[Array, "2 2"], step: int, first: int | None = None
) -> Float[Array, "x degree k"]:
    """Chaos coordinates in a new frame, m = alpha B' A lower triangular:

    R'[p, k'] = sum_i m11^{p-k'} m21^{k'-i} m22^i sqrt(binom(k', i) binom(p-i, p-k')) R[p, i].
    """
    order = r.shape[-1] - 1
    d = degrees(order, step, first=first)
    along, mixed, across = (cumulative_powers(x, order + 1) for x in (m[0, 0], m[1, 0], m[1, 1]))
    shift = np.maximum(d.k[:, None] - d.k[None, :], 0)
    table = jnp.asarray(_triangular_table(order, step, first), r.dtype)
    matrix = table * along[d.j][:, :, None] * (mixed[shift] * across[None, :])[None]
    return jnp.einsum("pki,xpi->xpk", matrix, r)


def turning(
    r: Float[Array, "x degree k"], rate: Float[Array, "2 2"], step: int, first: int | None = None
) -> Float[Array, "x degree k"]:
    """d/dt of `change_basis` for a frame that turns at `rate` = (dB/dt) A:

    (j rate_uu + k rate_ww) R[p, k] + rate_wu sqrt(k (j + 1)) R[p, k - 1].
    """
    d = degrees(r.shape[-1] - 1, step, first=first)
    j, k = (jnp.asarray(x, r.dtype) for x in (d.j, d.k[None, :]))
    mixed = jnp.asarray(np.where(d.inside, np.sqrt(d.k[None, :] * (d.j + 1.0)), 0), r.dtype)
    before = jnp.concatenate([jnp.zeros_like(r[..., :1]), r[..., :-1]], axis=-1)
    return (j * rate[0, 0] + k * rate[1, 1])[None] * r + (rate[1, 0] * mixed)[None] * before


def project(
    overlap: Float[Array, "2 2"], coefficients: Float[Array, "degree k"], step: int
) -> Float[Array, "degree k"]:
    """Cov(f, :u^j w^k: / sqrt(j! k!)) for a function f given by its chaos coefficients in another frame,
    whose covariance with (u, w) is `overlap`: c_p S^p(X), S^p the p-th symmetric power of X, by

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
