"""The closed form shared by the positively homogeneous activations (the ReLU family).

Every such sigma is p x + m |x|, so E[sigma sigma] = p^2 c + m^2 E|x y|: the two parities do not mix.

Derivatives. E|xy| = (2/pi)(D + c asin(c/sqrt(ab))) with D = sqrt(ab - c^2). Its first derivatives are
finite on singular blocks (D = 0: equal or parallel inputs); the second ones diverge like 1/D there,
since E[sigma' sigma'] has a square-root cusp at correlation one. But D = 0 is kept by every change
that leaves the inputs parallel, along which all derivatives exist. So 1/D is read as 0 at D = 0:
derivatives along such directions are exact, and the divergent part is dropped. The same
holds at zero variance.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .angle import angle
from .price import mixed_derivative
from .scale import determinant, pair_factor


def homogeneous_second_moment(negative_slope, positive_slope, a: Array, b: Array, c: Array) -> Array:
    """E[sigma(x) sigma(y)] for slopes (negative, positive); Var x = a, Var y = b, Cov = c."""
    odd = ((positive_slope + negative_slope) / 2).astype(c.dtype)
    even = ((positive_slope - negative_slope) / 2).astype(c.dtype)
    return odd**2 * c + even**2 * _mean_absolute_product(a, b, c)


def homogeneous_moments(
    negative_slope, positive_slope, a: Array, b: Array, c: Array, orders
) -> dict[tuple[int, int], Array]:
    """{(i, j): E[sigma^(i) sigma^(j)]} for the (i, j) of `orders`, at any scale: homogeneous of degree
    1 - (i + j) / 2 in the three arguments together."""
    moment = functools.partial(homogeneous_second_moment, negative_slope, positive_slope)
    f = pair_factor(a, b)
    at_scale = (a * f.value, b * f.value, c * f.value)
    power = lambda k: f.inverse if k == 0 else f.value ** (k - 1)
    return {(i, j): mixed_derivative(moment, i, j, *at_scale) * power((i + j) // 2) for i, j in orders}


def homogeneous_errors(negative_slope, positive_slope, a, b, c, moments: dict) -> dict:
    """Estimates for {(i, j): E[sigma^(i) sigma^(j)]}: rounding, also that of the inputs.

    A relative change of c^2/(ab) by eps changes D^2/(ab) by eps ab/D^2 relative to itself. Of inputs
    within rounding of parallel it is not known how parallel they are, unless they are equal.
    """
    eps = jnp.finfo(c.dtype).eps
    root = _root_determinant(a, b, c)
    condition = jnp.where(root > 0, a * b / jnp.where(root > 0, root, 1) ** 2, jnp.inf)
    equal = (a == b) & (jnp.abs(c) == a)
    amplified = jnp.where(equal | (a == 0) | (b == 0), 1, jnp.sqrt(jnp.minimum(condition, 1 / eps)))
    energy = ((negative_slope**2 + positive_slope**2) / 2).astype(c.dtype)

    def estimate(i, j, value):
        size = energy * a ** ((1 - i) / 2) * b ** ((1 - j) / 2)
        if i + j <= 2:
            return 64 * eps * (jnp.abs(value) + size * (amplified if i + j == 2 else 1))
        return jnp.where(root > 0, 64 * eps * jnp.abs(value) * condition, jnp.inf)

    return {(i, j): estimate(i, j, value) for (i, j), value in moments.items()}


@jax.custom_jvp
def _mean_absolute_product(a, b, c):
    """E|xy| = (2/pi) (D + c asin(corr))."""
    return 2 / jnp.pi * (_root_determinant(a, b, c) + c * _arcsine(a, b, c))


@_mean_absolute_product.defjvp
def _(primals, tangents):
    # Price: d/dc = E[sgn sgn] = (2/pi) asin(corr), d/da = E[delta(x)|y|] = D / (pi a).
    a, b, c = primals
    da, db, dc = tangents
    root = _root_determinant(a, b, c)
    by_c = 2 / jnp.pi * _arcsine(a, b, c)
    by_a = root * _reciprocal(a) / jnp.pi
    by_b = root * _reciprocal(b) / jnp.pi
    return _mean_absolute_product(a, b, c), by_a * da + by_b * db + by_c * dc


@jax.custom_jvp
def _root_determinant(a, b, c):
    """D = sqrt(ab - c^2); differences that are rounding count as zero."""
    f = pair_factor(a, b)
    square = determinant(a * f.value, b * f.value, c * f.value)
    return jnp.where(square == 0, 0, f.inverse * jnp.sqrt(jnp.where(square == 0, 1, square)))


@_root_determinant.defjvp
def _(primals, tangents):
    a, b, c = primals
    da, db, dc = tangents
    root = _root_determinant(a, b, c)
    return root, (b * da / 2 + a * db / 2 - c * dc) * _reciprocal(root)


@jax.custom_jvp
def _arcsine(a, b, c):
    """asin(c / sqrt(ab)), zero where a variance is zero."""
    return angle(c, _root_determinant(a, b, c))


@_arcsine.defjvp
def _(primals, tangents):
    a, b, c = primals
    da, db, dc = tangents
    rate = dc - c / 2 * (da * _reciprocal(a) + db * _reciprocal(b))
    return _arcsine(a, b, c), rate * _reciprocal(_root_determinant(a, b, c))


def _reciprocal(x):
    """1/x, with 0 for 1/0: see the module's note on derivatives."""
    zero = x == 0
    return jnp.where(zero, 0, 1 / jnp.where(zero, 1, x))
