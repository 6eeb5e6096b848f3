"""Sectors of the tangent network: the Wick tower of any kernel elements, in any chaos.

The neuron is (z, y), with the tangent y = sum_theta sqrt(lambda_theta) xi_theta dz/dtheta for standard
normals xi: E[y y] is the tangent kernel. Elements of the extended kernel are sums over neurons of z z,
of y y, of z y and of y y~ with a replica; what drives them is (a function of z) times m factors y, and
those of different m do not mix. At leading order y is Gaussian, independent of z, with the covariance
Theta. In the sector m, with elements X, D_X the kernel's fluctuation, W_jk = :u^j w^k: the chaos of z,
and y_l the labels, products of m factors y,

    xi_X = sum_jk E^X_jk W_jk y_{l(X)},      R^X_{l,jk} = Cov(D_X, W_jk y_l),
    R' = alpha^m Rot[alpha^2 R + eps^2 (E Cov(y_{l(X)}, y_l) + chi R)]
    C' = alpha^4 C + alpha^2 eps^2 (M + M^T) + eps^4 Cov(dQ, dQ),   M = Xi + chi C,
    Xi_XY = sum_jk E^X_jk R^Y_{l(X),jk}.

The sector m = 0, with elements z z alone, is `tower.py`. All sums over chaos run over whatever axes it
has: (degree, k) for pairs, (degree,) for inputs by themselves. docs/tangent_kernel.md has the derivation.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture.layer import Layer
from .tower import Sources, kernel_push, kernel_rate
from .truncation import parseval_tail


class Sector(NamedTuple):
    """R and C of one sector, and bounds of what the truncation leaves out: of the norm of the memory of
    higher degrees, and of the error of C."""

    memory: Array
    covariance: Float[Array, "x x"]
    beyond: Float[Array, " x"]
    error: Float[Array, "x x"]


class SectorLayer(NamedTuple):
    """One layer's part in a sector. `drive` is E with the variances of the chaos, `overlap`
    Cov(y_{l(X)}, y_l), `label` l(X), `noise` Cov(xi, xi) of all degrees and `size` E[xi^2]; `tail` is the
    norm of what xi has beyond the degrees that are kept."""

    expansion: Array
    drive: Array
    overlap: Float[Array, "x label"]
    chi: Float[Array, "x x"]
    noise: Float[Array, "x x"]
    size: Float[Array, " x"]

    @property
    def label(self) -> np.ndarray:
        """Elements are numbered so that the label is what varies fastest."""
        elements, labels = self.overlap.shape
        return np.arange(elements) % labels

    @property
    def driving(self) -> Array:
        return jnp.einsum("xl,x...->xl...", self.overlap, self.drive)

    @property
    def tail(self) -> Float[Array, " x"]:
        own = self.overlap[np.arange(len(self.label)), self.label]
        kept = jnp.sum(self.expansion * self.drive, axis=tuple(range(1, self.expansion.ndim)))
        return parseval_tail(jnp.diagonal(self.noise), own * kept, self.size)


class Turn(NamedTuple):
    """How chaos coordinates change from one layer to the next, R -> Rot R, for arrays (x, *chaos) of the
    sector m; and how much those beyond the order contract at the least. Along a flow, their rates."""

    rotate: Callable[[int, Array], Array]
    contraction: Callable[[int], Array]


def driven(here: SectorLayer, sector: Sector) -> Float[Array, "x x"]:
    """Xi_XY = Cov(xi_X, D_Y)."""
    at = sector.memory[:, here.label].swapaxes(0, 1)  # (x, y, *chaos)
    axes = tuple(range(2, at.ndim))
    return jnp.sum(here.expansion[:, None] * at, axis=axes)


def sector_rate(m: int, here: SectorLayer, sector: Sector, turn: Turn) -> Sector:
    """The derivative of `sector_push` by eps^2; `turn` has those of its own: the rate of the coordinates,
    and that at which chaos beyond the order contracts."""
    memory = here.driving + jnp.einsum("xy,yl...->xl...", here.chi, sector.memory)
    memory = memory + _over_labels(lambda r: turn.rotate(m, r), sector.memory)
    sources = Sources(driven(here, sector), here.noise, jnp.zeros_like(here.size))
    covariance, _ = kernel_rate(here.chi, sources, sector.covariance, sources.shift)
    jacobian = _with_diagonal(jnp.abs(here.chi), jnp.diagonal(here.chi))
    moved = jacobian @ sector.error + here.tail[:, None] * sector.beyond[None, :]
    beyond = jacobian @ sector.beyond + here.tail - turn.contraction(m) * sector.beyond
    return Sector(memory, covariance, beyond, moved + moved.T)


def sector_push(m: int, here: SectorLayer, sector: Sector, layer: Layer, turn: Turn) -> Sector:
    """Through one layer."""
    forth, back = layer.skip**2, layer.scale**2
    memory = forth * sector.memory + back * (
        here.driving + jnp.einsum("xy,yl...->xl...", here.chi, sector.memory)
    )
    memory = layer.skip**m * _over_labels(lambda r: turn.rotate(m, r), memory)
    sources = Sources(driven(here, sector), here.noise, jnp.zeros_like(here.size))
    covariance, _ = kernel_push(here.chi, sources, sector.covariance, sources.shift, layer)
    jacobian = _with_diagonal(back * jnp.abs(here.chi), jnp.abs(forth + back * jnp.diagonal(here.chi)))
    missing = back * (here.tail[:, None] * sector.beyond[None, :]) @ jacobian.T
    error = jacobian @ sector.error @ jacobian.T + missing + missing.T
    # Factors y contract too, by alpha sqrt(Theta / Theta') <= 1, of which no use is made.
    beyond = turn.contraction(m) * (jacobian @ sector.beyond + back * here.tail)
    return Sector(memory, covariance, beyond, error)


def _over_labels(function: Callable[[Array], Array], memory: Array):
    """A map of arrays (x, *chaos), of memory with labels."""
    flat = memory.reshape(-1, *memory.shape[2:])
    return function(flat).reshape(memory.shape)


def _with_diagonal(matrix: Array, diagonal: Array):
    return jnp.where(np.eye(matrix.shape[0], dtype=bool), diagonal[:, None], matrix)
