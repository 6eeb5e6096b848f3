"""Moments of one pair by an integral over the plane: nearly parallel inputs of large variance, for which
Mehler's series would need as many terms as one over their squared angle.

With x = sqrt(a) z and y | x ~ N(mu, tau^2), mu = c x / a and tau^2 = b (1 - corr^2),

    E[f(x) g(y)] = int dz phi(z) f(sqrt(a) z) int dy phi((y - mu) / tau) / tau g(y),

both by the trapezoidal rule in t, z = c sinh(t) and y = w sinh(t), w being the width of the activation: dense
next to the origin, where f, g and the smoothed g vary, and a constant ratio apart from node to node beyond.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import AbstractSmoothActivation, derivatives
from .._activation.scale import correlation
from .adapted import concentration

#: Nodes of the two rules; divisible by four, for estimates by halving.
_OUTER, _INNER = 640, 1024
#: How far the normal densities are followed.
_REACH = 9.5


class _Levels(NamedTuple):
    """A sum on all nodes, on every second and on every fourth."""

    fine: Array
    middle: Array
    coarse: Array

    def estimate(self) -> Array:
        """Of the finest one's error, as in `trapezoid`."""
        before, after = jnp.abs(self.middle - self.coarse), jnp.abs(self.fine - self.middle)
        ratio = jnp.where(before > 8 * after, 8 * after / jnp.where(before > 0, before, 1), 1)
        return after * ratio


def direct_moments(
    activation: AbstractSmoothActivation, indices: tuple[tuple[int, int], ...], a, b, c
) -> tuple[Float[Array, " entry"], Float[Array, " entry"]]:
    """E[sigma^(i)(x) sigma^(j)(y)] for the (i, j) of `indices` and one pair, and error estimates."""
    dtype, order = c.dtype, max(max(ij) for ij in indices)
    corr, gap = correlation(a, b, c)
    tau, slope = jnp.sqrt(b * gap), jnp.sqrt(b) * jnp.clip(corr, -1, 1)
    narrow = concentration(activation, jnp.maximum(a, b))
    limit = jnp.asinh(_REACH / narrow)
    t = limit * jnp.asarray(np.arange(-_OUTER // 2, _OUTER // 2 + 1) / (_OUTER // 2), dtype)
    z = narrow * jnp.sinh(t)
    weights = limit / (_OUTER // 2) * narrow * jnp.cosh(t) * _density(z)

    width = concentration(activation, jnp.ones_like(a))
    mu, spread = slope * z, jnp.where(tau > 0, tau, 1)
    low, high = (jnp.asinh((mu + side * _REACH * tau) / width) for side in (-1, 1))
    step = (high - low) / _INNER

    def add(sums, k):
        s = low + step * k.astype(dtype)
        y = width * jnp.sinh(s)
        weight = step * width * jnp.cosh(s) * _density((y - mu) / spread) / spread
        terms = derivatives(activation, y, order) * weight[None, :]
        used = lambda every: jnp.where(k % every == 0, float(every), 0.0).astype(dtype)
        return _Levels(*(total + used(every) * terms for total, every in zip(sums, (1, 2, 4)))), None

    zeros = jnp.zeros((order + 1, z.shape[0]), dtype)
    inner = jax.lax.scan(add, _Levels(zeros, zeros, zeros), jnp.arange(_INNER + 1))[0]
    # Parallel inputs: y = mu.
    at_mean = derivatives(activation, mu, order)
    inner = _Levels(*(jnp.where(tau > 0, x, at_mean) for x in inner))

    first = derivatives(activation, jnp.sqrt(a) * z, order)
    i, j = np.array(indices).T
    integrand = lambda partner: first[i] * partner[j] * weights[None, :]
    fine = integrand(inner.fine)
    outer = _Levels(*(every * jnp.sum(fine[:, ::every], 1) for every in (1, 2, 4)))
    over_inner = _Levels(outer.fine, *(jnp.sum(integrand(x), 1) for x in inner[1:]))
    rounding = 16 * jnp.finfo(dtype).eps * jnp.sum(jnp.abs(fine), 1)
    return outer.fine, outer.estimate() + over_inner.estimate() + rounding


def _density(z):
    return jnp.exp(-(z**2) / 2) / jnp.sqrt(2 * jnp.asarray(np.pi, z.dtype))
