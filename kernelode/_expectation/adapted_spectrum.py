"""Hermite spectra where the nodes of `SmoothSpectra` are too wide for the activation at its variance."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import AbstractSmoothActivation, derivatives
from .adapted import concentration
from .nodes import BLOCK, TERMS
from .spectrum import AbstractSpectra, by_parts_error

#: Panels of 0.6 up to 12 hold the three wavelengths of h_1024 that 16 Gauss-Legendre points resolve; panels in
#: a geometric progression, at least so many, follow the activation towards the origin.
_REACH, _PANELS, _GEOMETRIC, _MOST = 12.0, 20, 24, 192
_POINTS, _COARSE_POINTS = 16, 12


class AdaptedSpectra(AbstractSpectra):
    """On Gauss-Legendre panels that shrink towards the origin as the variance grows, and are shorter where the
    activation has narrow features."""

    coefficients: Float[Array, "derivative n term"]
    gram: Float[Array, "parity derivative derivative n"]
    ceiling: Float[Array, "derivative n"]
    relative_error: Float[Array, "derivative n"]
    knows_parallel: bool = eqx.field(static=True, default=False)

    def __init__(self, activation: AbstractSmoothActivation, q: Float[Array, " n"], order: int):
        edges, root = _edges(activation, q), jnp.sqrt(q)[:, None]

        def parts(points: int):
            z, weights = _gauss(edges, points)
            right, left = (derivatives(activation, side * root * z, order) for side in (1, -1))
            return z, weights, jnp.stack([right + left, right - left]) / 2

        def gram(weights, parts):
            return 2 * jnp.einsum("ax,piax,pjax->pija", weights, parts, parts)

        z, weights, fine = parts(_POINTS)
        self.gram = gram(weights, fine)
        self.coefficients = _half_line_spectrum(z, weights, fine)
        self.ceiling = jnp.full((order + 1, q.shape[0]), jnp.inf, q.dtype)
        # By fewer points: the difference is of the order of their error, far above that of the finer rule.
        _, weights, coarse = parts(_COARSE_POINTS)
        energy, other = (jnp.einsum("piia->ia", x) for x in (self.gram, gram(weights, coarse)))
        size = jnp.where(energy > 0, energy, 1)
        by_rule = jnp.abs(energy - other) / size + 64 * jnp.finfo(q.dtype).eps
        self.relative_error = by_parts_error(self.coefficients, energy, by_rule, q)

    def block(self, index) -> Float[Array, "derivative n block"]:
        return jax.lax.dynamic_slice_in_dim(self.coefficients, index * BLOCK, BLOCK, axis=2)

    def parallel(self, other, i, j):
        raise ValueError(
            "Nodes differ between inputs: the moments of unequal parallel ones are not known."
        )

    def cusp(self, gap):
        return 1e4 * gap


def _edges(activation: AbstractSmoothActivation, q: Float[Array, " n"]) -> Float[Array, "n edge"]:
    """Of the panels between zero and `_REACH`, in increasing order."""
    # Features at a distance p from the origin need panels of their width w: a progression of ratio 1 + w / p.
    steps = [1.0]
    for distance, width in activation.scales:
        if 0 < distance < math.inf and isinstance(width, float):
            steps.append(min(1.0, width / distance))
    count = min(_MOST, math.ceil(_GEOMETRIC / math.log2(1 + min(steps))))
    c = concentration(activation, q)[:, None]
    share = jnp.asarray(np.arange(count + 1) / count, q.dtype)[None, :]
    geometric = c * jnp.exp(share * jnp.log(_REACH / c))
    uniform = jnp.linspace(0.0, _REACH, _PANELS, endpoint=False, dtype=q.dtype)
    uniform = jnp.broadcast_to(uniform[None, :], (q.shape[0], _PANELS))
    return jnp.sort(jnp.concatenate([uniform, geometric], axis=1), axis=1)


def _gauss(edges: Float[Array, "n edge"], points: int):
    """Nodes, and weights with the normal density. (n, node)."""
    x, w = (jnp.asarray(v, edges.dtype) for v in np.polynomial.legendre.leggauss(points))
    middles, halves = (edges[:, 1:] + edges[:, :-1]) / 2, (edges[:, 1:] - edges[:, :-1]) / 2
    flat = lambda v: v.reshape(edges.shape[0], -1)
    z = flat(middles[:, :, None] + halves[:, :, None] * x[None, None, :])
    steps = flat(halves[:, :, None] * w[None, None, :])
    return z, steps * jnp.exp(-(z**2) / 2) / jnp.sqrt(2 * jnp.asarray(np.pi, z.dtype))


def _half_line_spectrum(z, weights, parts) -> Float[Array, "derivative n term"]:
    """E[f h_m], m < TERMS, from the even and odd parts of the f on nodes z > 0."""
    undamped = 2 * parts * (weights * jnp.exp(z**2 / 4))[None, None]

    def step(carry, m):
        previous, current = carry
        x = m.astype(z.dtype)
        following = (z * current - jnp.sqrt(x) * previous) / jnp.sqrt(x + 1)
        return (current, following), jnp.einsum("iax,ax->ia", undamped[m % 2], current)

    start = (jnp.zeros_like(z), jnp.exp(-(z**2) / 4))
    return jnp.moveaxis(jax.lax.scan(step, start, jnp.arange(TERMS))[1], 0, -1)
