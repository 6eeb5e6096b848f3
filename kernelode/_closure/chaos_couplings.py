"""What the chaos coefficients of a pair say about one layer: Q, its derivatives, drive and sources.

All at one layer, with c^X_jk = E[f_X h_j(u) h_k(v)], f_ab = sigma_a sigma_b, X in (aa, ab, bb):

    Q_X = C_b + C_W c^X_00,    Cov(xi_X, h_j h_k) = C_W c^X_jk,
    chi = dQ/dK,    1/2 D^2 Q [V],    source of K1 from memory: 1/2 C_W sum c^X_{p+2} R_p.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import (
    AbstractActivation,
    AbstractHomogeneousActivation,
    AbstractOddActivation,
)
from .._expectation.chaos import InputChaos, chaos_coefficients, correlation
from .._expectation.wedge import homogeneous_coefficients
from .chaos_basis import Degrees, Frame, by_degree, frame, rotated_square, second_power


def degree_step(activation: AbstractActivation) -> int:
    """For odd activations f is even, and odd degrees vanish identically."""
    return 2 if isinstance(activation, AbstractOddActivation) else 1


def top_degree(order: int) -> int:
    """The highest degree that a layer needs: two more than are kept, and four for D^2 Q."""
    return max(order + 2, 4)


class PairChaos(NamedTuple):
    """Coefficients c^X_{p-k, k} of a pair, X in (aa, ab, bb), and the frame that they belong to."""

    coefficients: Float[Array, "3 p k"]
    frame: Frame


def pair_chaos(activation, x: InputChaos, y: InputChaos, qa, qb, c, *, single: bool) -> PairChaos:
    """From what two inputs bring; of one input with itself if `single`."""
    top = x.square.shape[0] - 1
    p = np.arange(top + 1)
    corr, complement = correlation(qa, qb, c)
    aa = by_degree(
        jnp.concatenate([x.square[:, None], jnp.zeros((top + 1, top), c.dtype)], 1), p, top + 1
    )
    if single:
        return PairChaos(jnp.stack([aa, aa, aa]), frame(qa, qb, corr, jnp.zeros_like(complement)))
    if isinstance(activation, AbstractHomogeneousActivation):
        square = homogeneous_coefficients(activation, qa, qb, corr, complement, top)[0]
    else:
        square = chaos_coefficients(x, y, corr, complement)
    bb = rotated_square(y.square, corr, complement)
    coefficients = jnp.stack([aa, by_degree(square, p, top + 1), bb])
    return PairChaos(coefficients, frame(qa, qb, corr, complement))


class Couplings(NamedTuple):
    """One layer, for one pair. `drive` is C_W c^X on the kept degrees, `sources` C_W/2 times the
    weighted c^X two degrees higher, for R on (uu, uv, vv)."""

    q: Float[Array, "3"]
    chi: Float[Array, "3 3"]
    curvature: Float[Array, "3 3 3"]
    drive: Float[Array, "3 degree k"]
    sources: Float[Array, "3 3 degree k"]
    turn: Float[Array, "3 3"]


def couplings(pair: PairChaos, weight_variance, bias_variance, d: Degrees) -> Couplings:
    c, turn = weight_variance * pair.coefficients, second_power(pair.frame.b)
    root = lambda x: jnp.asarray(np.sqrt(x), c.dtype)
    gradient = jnp.stack([root(2.0) * c[:, 2, 0], 2 * c[:, 2, 1], root(2.0) * c[:, 2, 2]], axis=1) / 2
    end, side = root(24.0), 2 * root(6.0)
    hessian = jnp.stack(
        [
            jnp.stack([end * c[:, 4, 0], side * c[:, 4, 1], 2 * c[:, 4, 2]], axis=1),
            jnp.stack([side * c[:, 4, 1], 8 * c[:, 4, 2], side * c[:, 4, 3]], axis=1),
            jnp.stack([2 * c[:, 4, 2], side * c[:, 4, 3], end * c[:, 4, 4]], axis=1),
        ],
        axis=1,
    )
    width = d.order + 1
    shifted = lambda k: c[:, d.p + 2, k : k + width] / 2
    j, k = d.j, d.k[None, :]
    sources = jnp.stack(
        [
            shifted(0) * root((j + 1.0) * (j + 2))[None],
            2 * shifted(1) * root((j + 1.0) * (k + 1))[None],
            shifted(2) * root((k + 1.0) * (k + 2))[None],
        ],
        axis=1,
    )
    return Couplings(
        q=bias_variance + c[:, 0, 0],
        chi=gradient @ turn,
        curvature=jnp.einsum("xmn,my,nz->xyz", hessian / 8, turn, turn),
        drive=c[:, d.p, :width],
        sources=jnp.where(d.inside[None, None], sources, 0),
        turn=turn,
    )
