"""What the chaos coefficients of a pair say about one layer: Q, its derivatives, drive and sources.

All at one layer, with f_ab = sigma_a sigma_b = sum c^ab_jk :u^j w^k: / sqrt(j! k!), X in (aa, ab, bb):

    Q_X = C_b + C_W c^X_00,    xi_X = C_W sum c^X_jk W_jk,
    chi = dQ/dK,    1/2 D^2 Q [V],    source of K1 from memory: 1/2 C_W sum c^X_{p+2} R_p.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from equinox.internal import unvmap_any
from jaxtyping import Array, Float

from .._activation.base import (
    AbstractActivation,
    AbstractHomogeneousActivation,
    AbstractOddActivation,
)
from .._expectation.chaos import (
    SAFETY,
    InputChaos,
    chaos_coefficients,
    coefficient_tails,
    has_kinks,
    kinks_of,
    uncorrelated_coefficients,
)
from .._expectation.parallel import parallel_coefficients
from .._expectation.wedge import homogeneous_coefficients
from .chaos_basis import (
    Degrees,
    Frame,
    basis_floor,
    by_degree,
    frame,
    lowered,
    own_frame,
    rotated_square,
    second_power,
)


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
    here = frame(qa, qb, c, basis_floor(activation))
    beside = jnp.zeros((top + 1, top), c.dtype)
    aa = by_degree(jnp.concatenate([x.square[:, None], beside], 1), p, top + 1)
    if single:
        return PairChaos(jnp.stack([aa, aa, aa]), own_frame(here))
    square = _pair_square(activation, x, y, qa, qb, here)
    bb = rotated_square(y.square, here.corr, here.spread)
    return PairChaos(jnp.stack([aa, by_degree(square, p, top + 1), bb]), here)


def coefficient_error(activation, inputs, finer, qa, qb, c) -> Float[Array, ""]:
    """An estimate of the largest error of c^ab_jk, j + k <= order, relative to the natural scale of the
    two inputs, from their contributions by two rules: a pair of `InputChaos` each."""
    (x, y), (x_finer, y_finer) = inputs, finer
    top = x.square.shape[0] - 1
    here = frame(qa, qb, c, basis_floor(activation))
    value = _pair_square(activation, x, y, qa, qb, here)
    change = _pair_square(activation, x_finer, y_finer, qa, qb, here, finer=True) - value
    error = SAFETY * jnp.abs(change)
    if not isinstance(activation, AbstractHomogeneousActivation):
        gap = here.gram[1, 1] * here.spread**2
        exact = has_kinks(activation) & (gap == 0)
        complement = jnp.where(gap > 0, jnp.sqrt(jnp.where(gap > 0, gap, 1)), 0)
        summed = (qa > 0) & (qb > 0) & ~exact
        error = error + jnp.where(summed, coefficient_tails(x, y, here.corr, complement), 0)
    kept = np.add.outer(np.arange(top + 1), np.arange(top + 1)) <= top
    size = jnp.sqrt(jnp.abs(x_finer.square[0])) * jnp.sqrt(jnp.abs(y_finer.square[0]))
    return jnp.max(jnp.where(kept, error, 0)) / jnp.where(size > 0, size, 1)


def _pair_square(
    activation, x: InputChaos, y: InputChaos, qa, qb, here: Frame, *, finer: bool = False
) -> Float[Array, "j k"]:
    """c^ab_jk. Singular pairs are looked after only where a batch has one."""
    top, corr = x.square.shape[0] - 1, here.corr
    some, gap = (qa > 0) & (qb > 0), here.gram[1, 1] * here.spread**2
    if isinstance(activation, AbstractHomogeneousActivation):
        # At zero gap `spread` is one; the wedges' own coefficients have zero there.
        complement = jnp.where(some & (gap == 0), 0, here.spread)
        square = homogeneous_coefficients(activation, qa, qb, corr, complement, top, finer=finer)
    else:
        square = chaos_coefficients(x, y, corr, here.spread)
    if has_kinks(activation):
        at_parallel = lambda: parallel_coefficients(
            activation, kinks_of(activation), qa, qb, corr, gap, top, finer=finer
        )
        square = _replaced(some & (gap == 0), at_parallel, square)
    at_zero = lambda: uncorrelated_coefficients(x, y, here.gram[0, 1])
    return _replaced(~some, at_zero, square)


def _replaced(where, function, otherwise):
    needed = jax.lax.cond(unvmap_any(where), function, lambda: jnp.zeros_like(otherwise))
    return jnp.where(where, needed, otherwise)


class Couplings(NamedTuple):
    """One layer, for one pair. `expansion` is C_W c^X on the kept degrees, xi = sum expansion W; `drive`
    is Cov(xi, W), the same but for the variance of w; `sources` is C_W/2 times the weighted c^X two
    degrees higher, for R on (uu, uw, ww)."""

    q: Float[Array, "3"]
    chi: Float[Array, "3 3"]
    curvature: Float[Array, "3 3 3"]
    expansion: Float[Array, "3 degree k"]
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
    expansion = c[:, d.p, :width]
    return Couplings(
        q=bias_variance + c[:, 0, 0],
        chi=gradient @ turn,
        curvature=jnp.einsum("xmn,my,nz->xyz", hessian / 8, turn, turn),
        expansion=expansion,
        drive=lowered(expansion, pair.frame.gram, int(d.p[0])),
        sources=jnp.where(d.inside[None, None], sources, 0),
        turn=turn,
    )
