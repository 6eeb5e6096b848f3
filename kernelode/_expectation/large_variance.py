"""E[sigma^2] and its derivatives at large variance, for activations that become straight lines.

With sigma(x) = s(k x) / k and Q = k^2 q, E[sigma^2] = e(Q) / k^2. Away from the origin s(u) is alpha u
+ beta, on either side, up to terms that fall exponentially, and r = s^2 - (alpha u + beta)^2 is
concentrated near the origin, where the density of N(0, Q) is nearly flat:

    e(Q) = sum over sides [alpha^2 Q / 2 +- 2 alpha beta sqrt(Q / 2 pi) + beta^2 / 2]
           + 1/sqrt(2 pi Q) sum_m (-1)^m / (m! (2Q)^m) int u^{2m} r(u) du.

Powers of Q: derivatives are exact, where quadratures of f'' cancel all but 1/Q. The series is
asymptotic; of the integrals' growth, like (2m + 1)!, nothing is seen from Q = 600 on with eight terms
(1e-15).
"""

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._activation.base import AbstractStraightActivation

#: The variance, times sharpness squared, from which the series is used, and its terms.
THRESHOLD, _TERMS = 600.0, 8


@functools.lru_cache
def _powers(
    standard: Callable[[np.ndarray], np.ndarray],
    lines: tuple[tuple[float, float], tuple[float, float]],
) -> tuple[tuple[float, float], ...]:
    """e(Q) as (coefficient, exponent) pairs."""
    (left_slope, left_offset), (right_slope, right_offset) = lines
    root = math.sqrt(2 * math.pi)
    quadratic = (left_slope**2 + right_slope**2) / 2
    mixed = 2 * (right_slope * right_offset - left_slope * left_offset) / root
    terms = [(quadratic, 1.0), (mixed, 0.5), ((left_offset**2 + right_offset**2) / 2, 0.0)]
    # The remainder falls like u exp(-u) or faster: panels of length one up to 80. A kink of the lines at
    # the origin needs the two sides apart.
    points, weights = np.polynomial.legendre.leggauss(20)
    u = (np.arange(80)[:, None] + (points[None, :] + 1) / 2).reshape(-1)
    step = np.tile(weights / 2, 80)
    remainder = standard(u) ** 2 - (right_slope * u + right_offset) ** 2
    remainder = remainder + standard(-u) ** 2 - (left_offset - left_slope * u) ** 2
    for m in range(_TERMS):
        integral = float(np.sum(step * u ** (2 * m) * remainder))
        terms.append(((-1) ** m * integral / (root * math.factorial(m) * 2**m), -0.5 - m))
    return tuple(terms)


def large_variance_ladder(
    order: int, activation: AbstractStraightActivation, q: Float[Array, " n"]
) -> Float[Array, "derivative n"]:
    """(d/dq)^r E[sigma^2], r = 0 .. order; meaningless below the threshold, but finite."""
    k = jnp.asarray(activation.line_sharpness, q.dtype)
    large = beyond(activation, q)
    scaled = jnp.where(large, k**2 * q, THRESHOLD)
    inverse_root = 1 / jnp.sqrt(scaled)
    rows = []
    for r in range(order + 1):
        # Horner's scheme in 1 / Q for the half-integer powers; coefficients of the derivative are exact.
        terms = {
            exponent: c * math.prod(exponent - i for i in range(r))
            for c, exponent in _powers(activation.standard, activation.lines)
        }
        series = jnp.zeros_like(q)
        for m in range(_TERMS - 1, -1, -1):
            series = series * inverse_root**2 + terms[-0.5 - m]
        total = (
            series * inverse_root + terms[0.5] * scaled * inverse_root + terms[0.0] + terms[1.0] * scaled
        )
        factor = jnp.ones_like(q)
        for _ in range(r):
            factor = factor / jnp.where(large, q, 1)
        rows.append(jnp.where(large, total * factor / jnp.where(k == 0, 1, k**2), 0))
    return jnp.stack(rows)


def beyond(activation: AbstractStraightActivation, q: Float[Array, " n"]) -> Bool[Array, " n"]:
    """Where the series is used."""
    k = jnp.asarray(activation.line_sharpness, q.dtype)
    return k**2 * q > THRESHOLD
