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
from .._expectation.products import PairProducts
from .._expectation.wedge import homogeneous_coefficients
from .chaos_basis import Degrees, Frame, by_degree, frame, rotated_square, second_power
from .truncation import Tails, contraction_rate, parseval_tail, source_tail


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
    weighted c^X two degrees higher, for the R^Y that S_X contains (`SOURCES`); `noise` is Cov(xi, xi) of
    all degrees."""

    q: Float[Array, "3"]
    chi: Float[Array, "3 3"]
    curvature: Float[Array, "3 3 3"]
    drive: Float[Array, "3 degree k"]
    sources: Float[Array, "5 degree k"]
    noise: Float[Array, "3 3"]
    tails: Tails


def couplings(
    pair: PairChaos,
    products: PairProducts,
    curvatures: Float[Array, "2"],
    weight_variance,
    bias_variance,
    d: Degrees,
) -> Couplings:
    """`curvatures` are E[((sigma^2)''/2)^2] of the two inputs."""
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
    q, chi = bias_variance + c[:, 0, 0], gradient @ turn
    drive, sources = c[:, d.p, : d.order + 1], _sources(c, turn, d)
    size = weight_variance**2 * products.fourth[_FACTORS]
    noise = size - c[:, 0, 0][:, None] * c[:, 0, 0][None, :]
    return Couplings(
        q=q,
        chi=chi,
        curvature=jnp.einsum("xmn,my,nz->xyz", hessian / 8, turn, turn),
        drive=drive,
        sources=sources,
        noise=noise,
        tails=_tails(pair, products, curvatures, weight_variance, q, chi, drive, sources, noise, size, d),
    )


def _sources(c, turn, d: Degrees) -> Float[Array, "5 degree k"]:
    """The functions that R meets in S, for (X, Y) of `SOURCES`: two degrees down, weighted."""
    width, j, k = d.order + 1, d.j, d.k[None, :]
    root = lambda x: jnp.asarray(np.where(d.inside, np.sqrt(x), 0), c.dtype)
    weights = root((j + 1.0) * (j + 2)) / 2, root((j + 1.0) * (k + 1)), root((k + 1.0) * (k + 2)) / 2
    along = lambda x: [c[x, d.p + 2, m : m + width] * weights[m] for m in range(3)]
    rotate = lambda parts, y: sum(part * turn[m, y] for m, part in enumerate(parts))
    aa, ab, bb = along(0), along(1), along(2)
    return jnp.stack([aa[0] * turn[0, 0], *(rotate(ab, y) for y in range(3)), rotate(bb, 2)])


#: The elements (X, Y) of (aa, ab, bb) for which S_X contains R^Y.
SOURCES = (np.array([0, 1, 1, 1, 2]), np.array([0, 0, 1, 2, 2]))

#: How often b occurs in f_X f_Y, X and Y in (aa, ab, bb).
_FACTORS = np.add.outer([0, 1, 2], [0, 1, 2])


def _tails(
    pair: PairChaos,
    products: PairProducts,
    curvatures,
    weight_variance,
    q,
    chi,
    drive,
    sources,
    noise,
    size,
    d: Degrees,
) -> Tails:
    """Chaos e in (a, ab, b), which the functions f_aa, f_ab, f_bb live in."""
    dtype = drive.dtype
    squared = weight_variance**2
    lacking = squared * products.remainder[_FACTORS]
    total = jnp.diagonal(noise) + jnp.diagonal(lacking)
    energies = jnp.concatenate([curvatures[:1], products.sources, curvatures[1:]])
    (a11, _), (a21, a22) = pair.frame.a
    length = jnp.hypot(a21, a22)
    corr = jnp.abs(jnp.where(length > 0, a21 / jnp.where(length > 0, length, 1), 0))
    one = jnp.ones((), dtype)
    inverse = lambda x: jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)
    drift = jnp.stack([jnp.stack([q[0], q[1]]), jnp.stack([q[1], q[2]])])
    return Tails(
        drive=parseval_tail(total, jnp.sum(drive**2, axis=(1, 2)), jnp.diagonal(size)),
        source=jnp.zeros((3, 3), dtype)
        .at[SOURCES]
        .set(source_tail(squared * energies, chi[SOURCES], jnp.sum(sources**2, axis=2), d.p)),
        overlap=jnp.stack(
            [jnp.stack([one, one, corr]), jnp.stack([one, one, one]), jnp.stack([corr, one, one])]
        ),
        contraction=jnp.stack(
            [
                q[0] * inverse(a11) ** 2,
                contraction_rate(drift, pair.frame.b),
                q[2] * inverse(length) ** 2,
            ]
        ),
        noise=lacking,
    )
