"""The angle of a point, in arithmetic that compilers vectorise.

The closed forms of erf and of the ReLU family end in an arc tangent. On CPUs XLA calls the C library for
each, one element after the other; a polynomial takes a quarter of the time (docs/design.md).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

#: tan(pi/8): up to here the series is summed; beyond, the angle is measured from pi/4 or pi/2.
_LIMIT = math.sqrt(2) - 1


@jax.custom_jvp
def angle(y: Float[Array, "*shape"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """arctan2(y, x) for x >= 0, elementwise, to a few units in the last place; zero at the origin."""
    # Of the ratio r <= 1 of the two: atan(r) = pi/4 + atan((r - 1)/(r + 1)) beyond the limit.
    s = jnp.abs(y)
    short, long = jnp.minimum(s, x), jnp.maximum(s, x)
    far = short > _LIMIT * long
    denominator = jnp.where(far, short + long, long)
    t = jnp.where(far, short - long, short) / jnp.where(denominator == 0, 1, denominator)
    square = t * t
    head, *rest = _series(10 if s.dtype == jnp.float64 else 5)
    series = jnp.full_like(square, head)
    for coefficient in rest:
        series = series * square + coefficient
    first = jnp.where(far, math.pi / 4, 0) + (t + t * square * series)
    right = jnp.where(s > x, math.pi / 2 - first, first)
    return jnp.where(y < 0, -right, right)


@angle.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (y, x), (dy, dx) = primals, tangents
    square = x * x + y * y
    return angle(y, x), (x * dy - y * dx) / jnp.where(square == 0, 1, square)


@functools.lru_cache
def _series(terms: int) -> tuple[float, ...]:
    """(atan(t)/t - 1)/t^2 in powers of t^2, highest first: Taylor's, economised for t <= tan(pi/8)."""
    k = np.arange(40)
    taylor = np.polynomial.Polynomial((-1.0) ** (k + 1) / (2 * k + 3))
    short = np.polynomial.Chebyshev.interpolate(taylor, terms - 1, domain=[0, _LIMIT**2])
    power = short.convert(kind=np.polynomial.Polynomial, domain=[-1, 1], window=[-1, 1])
    return tuple(power.coef[::-1].tolist())
