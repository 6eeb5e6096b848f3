"""The arc sine of a covariance, of which the second moments of erf, GELU and the ReLU family are made.

With an offset e >= 0, A = e + a and B = e + b,

    D = sqrt(A B - c^2),    dD = (B da + A db - 2 c dc) / (2 D),
    asin(c / sqrt(A B)),    d asin = (dc - c/2 (da / A + db / B)) / D.

Derivatives of any order are quotients of quotients: no square of a large or small number stands in them,
nor a difference of large ones, so that they hold at every scale at which they are numbers.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .angle import angle
from .scale import determinant, pair_factor


@jax.custom_jvp
def quotient(x: Float[Array, "*shape"], y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x / y, zero where y is: see `homogeneous.py` on derivatives. d(x/y) = (dx - (x/y) dy) / y, where
    JAX's own rule has 1 / y^2."""
    zero = y == 0
    return jnp.where(zero, 0, x / jnp.where(zero, 1, y))


@quotient.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, y), (dx, dy) = primals, tangents
    value = quotient(x, y)
    return value, quotient(dx - value * dy, y)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def root_determinant(
    offset: float, a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """D = sqrt((e + a)(e + b) - c^2), e the offset; of ab - c^2, differences that are rounding count as
    zero."""
    f = pair_factor(offset + a, offset + b)
    e, a, b, c = offset * f.value, a * f.value, b * f.value, c * f.value
    square = e * (e + a + b) + determinant(a, b, c)
    return jnp.where(square == 0, 0, f.inverse * jnp.sqrt(jnp.where(square == 0, 1, square)))


@root_determinant.defjvp
def _(
    offset: float, primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    (a, b, c), (da, db, dc) = primals, tangents
    root = root_determinant(offset, a, b, c)
    return root, quotient(((offset + b) * da + (offset + a) * db) / 2 - c * dc, root)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def arcsine(
    offset: float, a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """asin(c / sqrt((e + a)(e + b))), e the offset; zero where the root is."""
    return angle(c, root_determinant(offset, a, b, c))


@arcsine.defjvp
def _(
    offset: float, primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    (a, b, c), (da, db, dc) = primals, tangents
    rate = dc - (quotient(c, offset + a) * da + quotient(c, offset + b) * db) / 2
    return arcsine(offset, a, b, c), quotient(rate, root_determinant(offset, a, b, c))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def single_arcsine(offset: float, q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """asin(q / (e + q)), `arcsine` at a = b = c, e > 0. Its derivative e / ((e + q) sqrt(e^2 + 2 e q)) is
    a difference of larger ones there."""
    return angle(q, jnp.sqrt(offset * (offset + 2 * q)))


@single_arcsine.defjvp
def _(offset: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (q,), (dq,) = primals, tangents
    root = jnp.sqrt(offset * (offset + 2 * q))
    return single_arcsine(offset, q), quotient(quotient(offset * dq, offset + q), root)
