"""Fourth moments of a pair, E[sigma(x)^{4-j} sigma(y)^j] for j = 0 .. 4.

By Hermite spectra of the powers sigma, sigma^2, sigma^3 and Mehler's series; for positively homogeneous
activations by polar coordinates.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation, AbstractHomogeneousActivation
from .chaos import correlation, cumulative_powers, input_chaos

_TERMS = 512


def pair_fourth_moments(
    activation: AbstractActivation,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    c: Float[Array, "n m"],
) -> Float[Array, "n m 5"]:
    """E[sigma(x)^{4-j} sigma(y)^j] for all pairs: Var x = a[i], Var y = b[k], Cov(x, y) = c[i, k]."""
    if isinstance(activation, AbstractHomogeneousActivation):
        by_angle = lambda a, b, c: _homogeneous(activation, a, b, c)
        return jax.vmap(jax.vmap(by_angle, (None, 0, 0)), (0, None, 0))(a, b, c)
    of_power = lambda power: lambda q: input_chaos(activation, q, 0, _TERMS, power=power)
    inputs = lambda q: [jax.vmap(of_power(power))(q) for power in (1, 2, 3)]

    def one_pair(x, y, qa, qb, c):
        powers = cumulative_powers(correlation(qa, qb, c)[0], _TERMS)
        mixed = [jnp.sum(powers * x[3 - j].spectrum * y[j - 1].spectrum) for j in (1, 2, 3)]
        return jnp.stack([x[1].square[0], *mixed, y[1].square[0]])

    over_columns = jax.vmap(one_pair, (None, 0, None, 0, 0))
    return jax.vmap(over_columns, (0, None, 0, None, 0))(inputs(a), inputs(b), a, b, c)


def _homogeneous(activation: AbstractHomogeneousActivation, a, b, c) -> Float[Array, "5"]:
    """(x, y) = r (sqrt(a) cos t, sqrt(b) cos(t - theta)): E = (4 / pi) times an integral over t, analytic
    in each wedge."""
    corr, complement = correlation(a, b, c)
    negative, positive = (slope.astype(corr.dtype) for slope in activation.slopes)
    points, steps = (jnp.asarray(x, corr.dtype) for x in scipy.special.roots_legendre(16))
    theta = jnp.arctan2(complement, corr)
    half = jnp.asarray(np.pi / 2, corr.dtype)
    starts = jnp.stack([-half, theta - half, half, theta + half])
    widths = jnp.stack([theta, 2 * half - theta, theta, 2 * half - theta])
    t = starts[:, None] + widths[:, None] / 2 * (points + 1)[None, :]
    weights = 4 / jnp.asarray(np.pi, corr.dtype) * widths[:, None] / 2 * steps[None, :]
    side = lambda slopes: jnp.stack(slopes)[:, None]
    x = jnp.sqrt(a) * side([positive, positive, negative, negative]) * jnp.cos(t)
    y = jnp.sqrt(b) * side([negative, positive, positive, negative]) * jnp.cos(t - theta)
    return jnp.stack([jnp.sum(weights * x ** (4 - j) * y**j) for j in range(5)])
