"""The Wick tower: the kernel's fluctuation and mean shift, exactly at order 1/n, on every pair.

At leading order the neurons are independent Gaussian chains. The chaos of degree p of their
preactivations, W_p = n^{-1/2} sum_i :phi_i ... phi_i:, drives the kernel through

    xi_ab = C_W sum_p (1/p!) T^(p)_ab W_p,    T^(p)_ab;a1..ap = E[d_a1 .. d_ap sigma_a sigma_b],

and what the kernel has taken up, D, is remembered by R_p = Cov(D, W_p). With J = chi = dQ/dK:

    R_p' = alpha^p [alpha^2 R_p + eps^2 (Cov(xi, W_p) + chi R_p)]
    C'   = alpha^4 C + alpha^2 eps^2 (M + M^T) + eps^4 Cov(dQ, dQ),   M = Cov(xi, D) + chi C
    K1'  = alpha^2 K1 + eps^2 (chi K1 + S)
    S    = 1/2 D^2 Q[C] + 1/2 C_W sum_p (1/p!) T^(p+2) R_p
    V4   = Gamma(K0) + R_2 + R_2^T + C.

It is exact as the order P to which p runs grows; docs/finite_width.md has the derivation. Coordinates
of a chaos are those of `chaos_basis.py`; this file has one pair of inputs, `wick_tower_pairs.py` all
of them, `wick_tower.py` all elements of the kernel at once.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from .._architecture.layer import Layer
from .._architecture.start import AbstractStart
from .chaos_basis import Degrees, change_basis, frame, frame_rate, second_power, turning
from .chaos_couplings import SOURCES, Couplings
from .elements import PAIR, wishart
from .expansion import transport
from .truncation import Neglected, neglected_push, neglected_rate, nothing_neglected


class Tower(NamedTuple):
    """R, C and K1 of one pair, D in (aa, ab, bb), and what the truncation leaves out."""

    memory: Float[Array, "3 degree k"]
    covariance: Float[Array, "3 3"]
    correction: Float[Array, "3"]
    neglected: Neglected


def pair_matrix(qa: Array, qb: Array, c: Array) -> Float[Array, "2 2"]:
    return jnp.stack([jnp.stack([qa, c]), jnp.stack([c, qb])])


def begin_tower(
    start: AbstractStart, d: Degrees, qa: Array, qb: Array, c: Array, covariance: Array, shift: Array
) -> Tower:
    """R_2 = -memory Gamma, in the chaos basis; C = memory Gamma + the upstream covariance."""
    gamma = wishart(pair_matrix(qa, qb, c), PAIR)
    memory = jnp.zeros((3, len(d.p), d.order + 1), qa.dtype)
    if start.memory:
        # Cov(D, :u^j w^k:) = Cov(D, :phi phi:) with the monomials rotated into (uu, uw, ww).
        rotated = -gamma @ second_power(frame(qa, qb, c, d.floor).b).T
        memory = memory.at[:, d.second, :3].set(rotated / second_norms(qa.dtype)[None])
    covariance = start.memory * gamma + covariance
    return Tower(memory, covariance, shift, nothing_neglected(3, qa.dtype))


def second_norms(dtype: DTypeLike) -> Float[Array, "3"]:
    """:uu:, :uw:, :ww: over the coordinates :u^j w^k: / sqrt(j! k!)."""
    return jnp.asarray([np.sqrt(2.0), 1.0, np.sqrt(2.0)], dtype)


class Sources(NamedTuple):
    """Cov(xi, D), Cov(xi, xi) and S on a set of elements."""

    driven: Float[Array, "x x"]
    noise: Float[Array, "x x"]
    shift: Float[Array, " x"]


def tower_sources(layer: Couplings, tower: Tower) -> Sources:
    return Sources(
        driven=jnp.einsum("xpk,ypk->xy", layer.expansion, tower.memory),
        noise=layer.noise,
        shift=source_of_memory(layer.sources, tower.memory)
        + jnp.einsum("xyz,yz->x", layer.curvature, tower.covariance),
    )


def source_of_memory(
    sources: Float[Array, "5 degree k"], memory: Float[Array, "3 degree k"]
) -> Float[Array, "3"]:
    """The part of S that memory makes."""
    aa, *ab, bb = jnp.sum(sources * memory[SOURCES[1]], axis=(1, 2))
    return jnp.stack([aa, sum(ab), bb])


def _curved(layer: Couplings, tower: Tower) -> Float[Array, "3"]:
    return jnp.einsum("xyz,yz->x", jnp.abs(layer.curvature), tower.neglected.covariance)


def tower_rate(layer: Couplings, entries: Any, tower: Tower, d: Degrees, step: int) -> Tower:
    """dR_p/dt = Cov(xi, W_p) + chi R_p, dC/dt = M + M^T, dK1/dt = chi K1 + S, in the turning frame."""
    sources = tower_sources(layer, tower)
    drift = pair_matrix(layer.q[0], layer.q[2], layer.q[1])
    rate = frame_rate(*entries, drift=drift, floor=d.floor)
    memory = layer.drive + jnp.einsum("xy,ypk->xpk", layer.chi, tower.memory)
    memory = memory + turning(tower.memory, rate, step)
    lacking = neglected_rate(tower.neglected, layer.tails, layer.chi, _curved(layer, tower), d.neglected)
    return Tower(memory, *kernel_rate(layer.chi, sources, tower.covariance, tower.correction), lacking)


def tower_push(here: Couplings, tower: Tower, layer: Layer, turned: Any, d: Degrees, step: int) -> Tower:
    sources = tower_sources(here, tower)
    memory = layer.skip**2 * tower.memory + layer.scale**2 * (
        here.drive + jnp.einsum("xy,ypk->xpk", here.chi, tower.memory)
    )
    lacking = neglected_push(
        tower.neglected, here.tails, here.chi, _curved(here, tower), layer, d.neglected
    )
    return Tower(
        change_basis(memory, turned, step),
        *kernel_push(here.chi, sources, tower.covariance, tower.correction, layer),
        lacking,
    )


def kernel_rate(
    chi: Array, sources: Sources, covariance: Array, correction: Array
) -> tuple[Array, Array]:
    """dC/dt = M + M^T, M = Cov(xi, D) + chi C, and dK1/dt = chi K1 + S, on any set of elements."""
    m = sources.driven + chi @ covariance
    return m + m.T, chi @ correction + sources.shift


def kernel_push(
    chi: Array, sources: Sources, covariance: Array, correction: Array, layer: Layer
) -> tuple[Array, Array]:
    """C and K1 after one layer, on any set of elements."""
    back = layer.scale**2
    jacobian = layer.skip**2 * jnp.eye(chi.shape[0], dtype=chi.dtype) + back * chi
    # Beyond J C J^T and J k: the layer's own fluctuation xi, which is correlated with D.
    both = back * sources.driven @ jacobian.T
    noise = back**2 * sources.noise / layer.width + both + both.T
    return transport(jacobian, covariance, correction, noise, back * sources.shift)


def tower_covariance(
    qa: Array, qb: Array, c: Array, tower: Tower, d: Degrees, stream: bool
) -> Float[Array, "3 3"]:
    """V4 = Gamma + R_2 + R_2^T + C of a residual stream; C, the covariance of the conditional kernel,
    of a feed-forward network."""
    if not stream:
        return tower.covariance
    gamma = wishart(pair_matrix(qa, qb, c), PAIR)
    here = frame(qa, qb, c, d.floor)
    memory = tower.memory[:, d.second, :3] * second_norms(qa.dtype)[None]
    r2 = memory @ monomials(here.a).T
    return gamma + r2 + r2.T + tower.covariance


def monomials(a: Float[Array, "2 2"]) -> Float[Array, "3 3"]:
    """How :phi_i phi_j:, (ij) in (aa, ab, bb), follow from (:uu:, :uw:, :ww:)."""
    i, j = PAIR
    return jnp.stack(
        [a[i, 0] * a[j, 0], a[i, 0] * a[j, 1] + a[i, 1] * a[j, 0], a[i, 1] * a[j, 1]], axis=1
    )
