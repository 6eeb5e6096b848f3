"""Moments of one pair by an integral over the plane: where nodes that are fixed would be too wide, and
for nearly parallel inputs of large variance, for which Mehler's series would need as many terms as one
over their squared angle.

With x = sqrt(a) z and y | x ~ N(mu, tau^2), mu = c x / a and tau^2 = b (1 - corr^2),

    E[f(x) g(y)] = int dz phi(z) f(sqrt(a) z) int dy phi((y - mu) / tau) / tau g(y),

both by the trapezoidal rule in t, z = k sinh(t) and y = w sinh(t), w being the width of the activation:
dense next to the origin, where f, g and the smoothed g vary, and a constant ratio apart from node to
node beyond.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._activation.base import AbstractSmoothActivation, derivatives
from .._activation.scale import correlation
from .adapted import concentration
from .resolution import alias_error, tail_energy

#: Intervals of the outer rule for values, for derivatives, and at most. The steps are 0.04 in t at a
#: variance of 1e4, and 0.15 where the width is `_FINEST` standard deviations: next to the origin a
#: value then changes by no more than rounding. Derivatives come from there, and have no such limit.
_OUTER, _OUTER_DERIVATIVES, _MOST = 720, 1024, 4096
_FINEST = {4: 1e-9, 8: 1e-17}
#: Steps of the inner rule in t: a density five standard deviations away is resolved. Features at a
#: distance from the origin may need smaller ones, of both rules.
_STEP, _SMALLEST_STEP = 0.08, 0.002
#: How far the normal densities are followed (the root of the mass beyond, 4e-12, is what the estimate
#: of a bounded function has of it), and the intervals of the inner rule over a density that is
#: narrow compared with the features: 0.43 standard deviations each, so that every second node still has
#: 2 exp(-2 pi^2 / 0.86^2) = 5e-12, which the estimate sees.
_REACH, _FEWEST = 10.0, 46
#: For estimates, the inner rules of every second outer node are narrower by this factor, 8.2 standard
#: deviations (where the density, which the estimate sees cut off, is 1e-15). Equal steps may all meet an
#: oscillation in one phase, twice as large ones too; of unlike steps not both do, and the outer rule's
#: estimate sees what changes from node to node.
_UNLIKE = 1.22


def direct_moments(
    activation: AbstractSmoothActivation,
    indices: tuple[tuple[int, int], ...],
    a: Float[Array, ""],
    b: Float[Array, ""],
    c: Float[Array, ""],
    *,
    errors: bool,
) -> tuple[Float[Array, " entry"], ...]:
    """E[sigma^(i)(x) sigma^(j)(y)] for the (i, j) of `indices` and one pair; and, if asked for,
    estimates of their errors, from every second node."""
    dtype, order = c.dtype, max(max(ij) for ij in indices)
    finer = _refinement(activation)
    outer = min(finer * (_OUTER if order == 0 else _OUTER_DERIVATIVES), _MOST)
    corr, gap = correlation(a, b, c)
    tau, slope = jnp.sqrt(b * gap), jnp.sqrt(b) * jnp.clip(corr, -1, 1)
    narrow = concentration(activation, jnp.maximum(a, b))
    narrow = jnp.maximum(narrow, _FINEST[dtype.itemsize]) if order == 0 else narrow
    limit = jnp.asinh(_REACH / narrow)
    t = limit * jnp.asarray(np.arange(-outer // 2, outer // 2 + 1) / (outer // 2), dtype)
    z = narrow * jnp.sinh(t)
    weights = limit / (outer // 2) * narrow * jnp.cosh(t) * _density(z)

    # Parallel inputs have y = mu: an inner interval of no length, whose nodes share the weight one.
    width = concentration(activation, jnp.ones_like(a))
    mu, spread, parallel = slope * z, jnp.where(tau > 0, tau, 1), tau == 0
    reach = _REACH / (jnp.asarray(np.where(np.arange(outer + 1) % 2, _UNLIKE, 1), dtype) if errors else 1)
    low, high = (jnp.asinh((mu + side * reach * tau) / width) for side in (-1, 1))
    wanted = max(_STEP / finer / (1 if order == 0 else 2), _SMALLEST_STEP)
    first = derivatives(activation, jnp.sqrt(a) * z, order)
    # Even, for estimates by halving. Where sigma is NaN so is the integral: a few steps are enough.
    length = jnp.where(jnp.any(jnp.isnan(first[0])), 0, jnp.max(high - low))
    inner = 2 * jnp.ceil(length / (2 * wanted)).astype(int) + _FEWEST
    step = (high - low) / inner.astype(dtype)
    every = (1, 2) if errors else (1,)

    def add(k: Int[Array, ""], sums: list[Array]) -> list[Array]:
        s = low + step * k.astype(dtype)
        y = width * jnp.sinh(s)
        weight = step * width * jnp.cosh(s) * _density((y - mu) / spread) / spread
        weight = jnp.where(parallel, jnp.where(k == 0, 1.0, 0.0).astype(dtype), weight)
        terms = derivatives(activation, y, order) * weight[None, :]
        *sums, sizes = sums
        share = [jnp.where(k % n == 0, float(n), 0.0).astype(dtype) for n in every]
        share = [jnp.where(parallel, 1.0, x).astype(dtype) for x in share]
        sums = [total + x * terms for total, x in zip(sums, share)]
        return [*sums, sizes + jnp.abs(terms) if errors else sizes]

    zeros = jnp.zeros((order + 1, z.shape[0]), dtype)
    start = [*(zeros for _ in every), zeros if errors else zeros[:0, :0]]
    *partners, sizes = jax.lax.fori_loop(0, inner + 1, add, start)
    i, j = np.array(indices).T
    terms = [first[i] * partner[j] * weights[None, :] for partner in partners]
    value = jnp.sum(terms[0], 1)
    if not errors:
        return (value,)
    # Of the inner sums a multiple of what halving changes, which for an analytic integrand is about the
    # error's square root, and at a kink that was not declared about the error; sizes, not to cancel.
    by_inner = 4 * jnp.sum(jnp.abs(terms[0] - terms[1]), 1)
    sizes = jnp.abs(first[i]) * sizes[j] * weights[None, :]
    rounding = 16 * jnp.finfo(dtype).eps * jnp.sum(sizes, 1)
    # Cauchy and Schwarz: sqrt(E[f^2; beyond] E[g^2]), and the other way round.
    energy, tail = (jnp.sqrt(x) for x in _energies(activation, jnp.stack([a, b]), narrow, order))
    beyond = tail[i, 0] * energy[j, 1] + energy[i, 0] * tail[j, 1]
    return value, alias_error(terms[0]) + by_inner + rounding + jnp.where(beyond > 0, beyond, 0)


def _energies(
    activation: AbstractSmoothActivation, q: Float[Array, " n"], narrow: Float[Array, ""], order: int
) -> tuple[Float[Array, "derivative n"], Float[Array, "derivative n"]]:
    """E[(sigma^(i))^2] within the reach and beyond it, i = 0 .. order. Both (derivative, n)."""
    t = jnp.asinh(_REACH / narrow) * jnp.asarray(np.linspace(-1, 1, _OUTER + 1), q.dtype)
    z = narrow * jnp.sinh(t)
    weights = (t[1] - t[0]) * narrow * jnp.cosh(t) * _density(z)
    tail = tail_energy(activation, q, _REACH, order)
    within = derivatives(activation, jnp.sqrt(q)[:, None] * z[None, :], order) ** 2 @ weights
    return within + tail, tail


def _refinement(activation: AbstractSmoothActivation) -> int:
    """How many times finer both rules are for features of a width w at a distance p from the origin,
    which need steps of w / 4p in t."""
    steps = [0.05]
    for distance, width in activation.scales:
        if isinstance(width, float) and distance > 0:
            steps.append(width / (4 * min(distance, 64.0)))
    return math.ceil(0.05 / min(steps))


def _density(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.exp(-(z**2) / 2) / jnp.sqrt(2 * jnp.asarray(np.pi, z.dtype))
