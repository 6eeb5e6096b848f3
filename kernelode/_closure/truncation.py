"""Bounds, by inequalities, on the part of the moments that a truncated tower leaves out.

With the noise of a layer exact, a truncated tower lacks memory alone: Cov(xi_l, xi_m) of the degrees
p > P between different layers. Along with a tower travels, for every element Y and every chaos e (that
of an input or of a pair), a bound N[e, Y] of the norm of what D_Y remembers of the degrees p > P of e.
With |.| entrywise, J = alpha^2 + eps^2 chi, and elements X written for the chaos that they live in,

    t_Y^2 = C_W^2 Var f_Y - sum_{p <= P} |C_W c^Y_p|^2                     (Parseval)
    N'[e, Y] = lambda_e^{P+1} (N[e, :] |J|^T + eps^2 s_eY^{P+1} t_Y),      N = 0 at the start
    |dXi_XY| <= t_X N[X, Y]
    dC' = |J| dC |J|^T + eps^2 (dXi |J|^T + |J| dXi^T) + eps^4 d Cov(xi, xi)
    dK1' = |J| dK1 + eps^2 (sum_Y u_XY N[X, Y] + |1/2 D^2Q| dC).

lambda_e is the norm of the layer's change of basis, s_eY that of the projection of Y's chaos on that of
e, and u_XY^2 the Parseval tail of the function that R^Y meets in S_X. Each step is Cauchy-Schwarz, or
|S^p(m)| <= |m|^p. By the projections the elements of one input are bounded as in a tower of their own.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from .._architecture.layer import Layer
from .._numerics.safe import safe_root

#: corr'^2 at which inputs count as parallel in `_expectation/chaos.py`.
_SUPPLIED = 1e-12


class Neglected(NamedTuple):
    """N, and bounds of the errors of C and K1."""

    memory: Float[Array, "e x"]
    covariance: Float[Array, "x x"]
    correction: Float[Array, " x"]


class Tails(NamedTuple):
    """Of one layer: t_X, u_XY, s_eY, the rates mu_e at which chaos of degree one contracts, the smallest
    eigenvalue of K^{-1} Q: lambda^2 = alpha^2 / (alpha^2 + eps^2 mu), and a bound of what the layer's
    noise lacks."""

    drive: Float[Array, " x"]
    source: Float[Array, "x x"]
    overlap: Float[Array, "e x"]
    contraction: Float[Array, " e"]
    noise: Float[Array, "x x"]


def nothing_neglected(elements: int, dtype: DTypeLike) -> Neglected:
    zeros = lambda *shape: jnp.zeros(shape, dtype)
    return Neglected(zeros(elements, elements), zeros(elements, elements), zeros(elements))


def neglected_rate(found: Neglected, tails: Tails, chi: Array, curved: Array, first: int) -> Neglected:
    """Along a flow. `first` is the lowest degree that is left out, `curved` what |1/2 D^2Q| makes of
    the bound of C."""
    jacobian = _with_diagonal(jnp.abs(chi), jnp.diagonal(chi))
    driven = tails.drive[:, None] * found.memory
    moved = jacobian @ found.covariance + driven
    return Neglected(
        memory=found.memory @ jacobian.T
        + tails.overlap**first * tails.drive[None, :]
        - (first / 2 * tails.contraction)[:, None] * found.memory,
        covariance=moved + moved.T,
        correction=jacobian @ found.correction + _shift(found, tails, curved),
    )


def neglected_push(
    found: Neglected, tails: Tails, chi: Array, curved: Array, layer: Layer, first: int
) -> Neglected:
    """Through one layer."""
    forth, back = layer.skip**2, layer.scale**2
    jacobian = _with_diagonal(back * jnp.abs(chi), jnp.abs(forth + back * jnp.diagonal(chi)))
    driven = back * (tails.drive[:, None] * found.memory) @ jacobian.T
    total = forth + back * tails.contraction
    # lambda^first, as a power of its square: differentiable for a layer that nothing skips.
    contraction = (forth / jnp.where(total > 0, total, 1)) ** (first / 2)
    entering = found.memory @ jacobian.T + back * tails.overlap**first * tails.drive[None, :]
    return Neglected(
        memory=contraction[:, None] * entering,
        covariance=jacobian @ found.covariance @ jacobian.T
        + driven
        + driven.T
        + back**2 * tails.noise / layer.width,
        correction=jacobian @ found.correction + back * _shift(found, tails, curved),
    )


def _shift(found: Neglected, tails: Tails, curved: Array) -> Array:
    return jnp.sum(tails.source * found.memory, axis=1) + curved


def _with_diagonal(matrix: Array, diagonal: Array) -> Array:
    return jnp.where(np.eye(matrix.shape[0], dtype=bool), diagonal[:, None], matrix)


def parseval_tail(total: Array, kept: Array, size: Array) -> Array:
    """sqrt(total - kept) >= 0, where total is known to a rounding of `size`.

    Rounding makes a difference below 1e-16 of `size`, and an integrator with error control would
    follow it: eps^(3/4), 2e-12 in float64, is the least that is reported.
    """
    least = jnp.finfo(total.dtype).eps ** 0.75 * size
    square = jnp.maximum(total - kept, least)
    return safe_root(square)


def source_tail(
    energy: Array, mean: Array, by_degree: Float[Array, "*shape degree"], p: np.ndarray
) -> Float[Array, "*shape"]:
    """u: the tail of the function whose chaos of degree p has the square norm `by_degree`.

    Where its energy is infinite (sigma'' of a kink), an estimate instead of a bound: ten times the energy
    of the upper half of the degrees that are kept. The square norms fall like p^{-1/2} there, those of
    the memory much faster. (In random draws of hard tanh and of pairs of ReLU up to nine times.)
    """
    finite = jnp.isfinite(energy)
    known = jnp.where(finite, energy, 0)
    bound = parseval_tail(known - mean**2, jnp.sum(by_degree, axis=-1), known)
    above = 10 * jnp.sum(by_degree[..., 2 * p > p[-1]], axis=-1)
    estimate = safe_root(above)
    return jnp.where(finite, bound, estimate)


def contraction_rate(
    drift: Float[Array, "2 2"], b: Float[Array, "2 2"], scales: Float[Array, "2"]
) -> Float[Array, ""]:
    """The smallest eigenvalue of B Q B^T, B scaled to an orthonormal basis.

    A layer may supply a direction that a pair lacks (a scale of zero). Of the direction x that there
    is, the rate is then the least v^T Q v with v^T x = 1, which is the limit of the eigenvalue.
    """
    q = b @ drift @ b.T
    has_u, has_w = scales[0] > 0, scales[1] > 0
    scaled = scales[:, None] * q * scales[None, :]
    half, side = (scaled[0, 0] - scaled[1, 1]) / 2, scaled[1, 0]
    square = half**2 + side**2
    apart = safe_root(square)
    both = (scaled[0, 0] + scaled[1, 1]) / 2 - apart
    along, across = (jnp.where(has_u, q[i, i], q[1 - i, 1 - i]) for i in (0, 1))
    scale = jnp.where(has_u, scales[0], scales[1])
    # A layer that keeps parallel inputs parallel has a Q of rounding across.
    sizes = (jnp.abs(b) @ jnp.sqrt(jnp.abs(jnp.diagonal(drift)))) ** 2
    some = across > _SUPPLIED * jnp.where(has_u, sizes[1], sizes[0])
    one = scale**2 * (along - jnp.where(some, q[0, 1] ** 2 / jnp.where(some, across, 1), 0))
    return jnp.maximum(jnp.where(has_u & has_w, both, one), 0)
