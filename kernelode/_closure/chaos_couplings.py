"""One layer of a pair from its chaos coefficients: Q, its derivatives, drive and sources.

All at one layer, with f_ab = sigma_a sigma_b = sum c^ab_jk :u^j w^k: / sqrt(j! k!), X in (aa, ab, bb):

    Q_X = C_b + C_W c^X_00,    xi_X = C_W sum c^X_jk W_jk,
    chi = dQ/dK,    1/2 D^2 Q [V],    source of K1 from memory: 1/2 C_W sum c^X_{p+2} R_p.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import (
    AbstractActivation,
    AbstractHomogeneousActivation,
    AbstractOddActivation,
)
from .._architecture.layer import Affine
from .._expectation.chaos import (
    SAFETY,
    chaos_coefficients,
    coefficient_tails,
    uncorrelated_coefficients,
)
from .._expectation.input_chaos import InputChaos, has_kinks, kinks_of
from .._expectation.nodes import TERMS
from .._expectation.parallel import parallel_coefficients, replaced
from .._expectation.products import PairProducts
from .._expectation.wedge import homogeneous_coefficients
from .._numerics.safe import safe_root
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
    square_norms,
    units,
)
from .truncation import Tails, contraction_rate, parseval_tail, source_tail


def degree_step(activation: AbstractActivation) -> int:
    """For odd activations f is even, and odd degrees vanish identically."""
    return 2 if isinstance(activation, AbstractOddActivation) else 1


def top_degree(order: int) -> int:
    """The highest degree that a layer needs: two more than are kept, and four for D^2 Q."""
    return max(order + 2, 4)


def check_terms(order: int, terms: int) -> None:
    """**Raises** `ValueError` for more orders of a Hermite expansion than there are nodes for."""
    if not 1 <= terms <= TERMS - top_degree(order):
        raise ValueError(f"`terms` must lie between 1 and {TERMS - top_degree(order)}, got {terms}.")


class PairChaos(NamedTuple):
    """Coefficients c^X_{p-k, k} of a pair, X in (aa, ab, bb), and the frame that they belong to."""

    coefficients: Float[Array, "3 p k"]
    frame: Frame


def pair_chaos(
    activation: AbstractActivation,
    x: InputChaos,
    y: InputChaos,
    qa: Array,
    qb: Array,
    c: Array,
    *,
    single: bool,
) -> PairChaos:
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


def coefficient_error(
    activation: AbstractActivation, inputs: Any, finer: Any, qa: Array, qb: Array, c: Array
) -> Float[Array, ""]:
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
        complement = safe_root(gap)
        summed = (qa > 0) & (qb > 0) & ~exact
        error = error + jnp.where(summed, coefficient_tails(x, y, here.corr, complement), 0)
    kept = np.add.outer(np.arange(top + 1), np.arange(top + 1)) <= top
    size = jnp.sqrt(jnp.abs(x_finer.square[0])) * jnp.sqrt(jnp.abs(y_finer.square[0]))
    return jnp.max(jnp.where(kept, error, 0)) / jnp.where(size > 0, size, 1)


def _pair_square(
    activation: AbstractActivation,
    x: InputChaos,
    y: InputChaos,
    qa: Array,
    qb: Array,
    here: Frame,
    *,
    finer: bool = False,
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
        square = replaced(some & (gap == 0), at_parallel, square)
    at_zero = lambda: uncorrelated_coefficients(x, y, here.gram[0, 1])
    return replaced(~some, at_zero, square)


class Couplings(NamedTuple):
    """One layer, for one pair. `expansion` is C_W c^X on the kept degrees, xi = sum expansion W; `drive`
    is Cov(xi, W), the same but for the variance of w; `sources` is C_W/2 times the weighted c^X two
    degrees higher, for the R^Y that S_X contains (`SOURCES`); `noise` is Cov(xi, xi) of all degrees;
    `gram` is the covariance of (u, w)."""

    q: Float[Array, "3"]
    chi: Float[Array, "3 3"]
    curvature: Float[Array, "3 3 3"]
    expansion: Float[Array, "3 degree k"]
    drive: Float[Array, "3 degree k"]
    sources: Float[Array, "5 degree k"]
    noise: Float[Array, "3 3"]
    gram: Float[Array, "2 2"]
    tails: Tails


def couplings(
    pair: PairChaos,
    products: PairProducts,
    curvatures: Float[Array, "2"],
    affine: Affine,
    d: Degrees,
) -> Couplings:
    """`curvatures` are E[((sigma^2)''/2)^2] of the two inputs."""
    squared = affine.weight_variance**2
    c, turn = affine.weight_variance * pair.coefficients, second_power(pair.frame.b)
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
    q, chi = affine.bias_variance + c[:, 0, 0], gradient @ turn
    expansion, sources = c[:, d.p, : d.order + 1], _sources(c, turn, d)
    drive = lowered(expansion, pair.frame.gram, int(d.p[0]))
    size = squared * products.fourth[_FACTORS]
    noise = size - c[:, 0, 0][:, None] * c[:, 0, 0][None, :]
    return Couplings(
        q=q,
        chi=chi,
        curvature=jnp.einsum("xmn,my,nz->xyz", hessian / 8, turn, turn),
        expansion=expansion,
        drive=drive,
        sources=sources,
        noise=noise,
        gram=pair.frame.gram,
        tails=_tails(
            pair, products, curvatures, squared, q, chi, expansion, drive, sources, noise, size, d
        ),
    )


def _sources(c: Array, turn: Any, d: Degrees) -> Float[Array, "5 degree k"]:
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
    curvatures: Array,
    squared: Array,
    q: Array,
    chi: Array,
    expansion: Any,
    drive: Array,
    sources: Any,
    noise: Array,
    size: Array,
    d: Degrees,
) -> Tails:
    """Chaos e in (a, ab, b), which the functions f_aa, f_ab, f_bb live in."""
    dtype = drive.dtype
    lacking = squared * products.remainder[_FACTORS]
    total = jnp.diagonal(noise) + jnp.diagonal(lacking)
    energies = jnp.concatenate([curvatures[:1], products.sources, curvatures[1:]])
    # The inverse deviations of the inputs, and an orthonormal basis; zero for missing directions.
    here = pair.frame
    of_u, of_w = units(here.gram)
    across = here.a[1, 1]
    of_b = jnp.where(of_w + here.corr**2 > 0, here.spread / jnp.where(across > 0, across, 1), 0)
    of_a = of_u * here.b[0, 0]
    corr = jnp.abs(here.corr)
    one = jnp.ones((), dtype)
    norms = square_norms(sources, here.gram, int(d.p[0]))
    drift = jnp.stack([jnp.stack([q[0], q[1]]), jnp.stack([q[1], q[2]])])
    return Tails(
        drive=parseval_tail(total, jnp.sum(expansion * drive, axis=(1, 2)), jnp.diagonal(size)),
        source=jnp.zeros((3, 3), dtype)
        .at[SOURCES]
        .set(source_tail(squared * energies, chi[SOURCES], norms, d.p)),
        overlap=jnp.stack(
            [jnp.stack([one, one, corr]), jnp.stack([one, one, one]), jnp.stack([corr, one, one])]
        ),
        contraction=jnp.stack(
            [
                q[0] * of_a**2,
                contraction_rate(drift, here.b, jnp.stack([of_u, of_w])),
                q[2] * of_b**2,
            ]
        ),
        noise=lacking,
    )
