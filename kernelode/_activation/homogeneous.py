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
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .arcsine import arcsine, quotient, root_determinant
from .price import mixed_derivative
from .scale import correlation, pair_factor


def homogeneous_second_moment(
    negative_slope: Float[Array, ""], positive_slope: Float[Array, ""], a: Array, b: Array, c: Array
) -> Array:
    """E[sigma(x) sigma(y)] for slopes (negative, positive); Var x = a, Var y = b, Cov = c."""
    odd = ((positive_slope + negative_slope) / 2).astype(c.dtype)
    even = ((positive_slope - negative_slope) / 2).astype(c.dtype)
    return odd**2 * c + even**2 * _mean_absolute_product(a, b, c)


def homogeneous_moments(
    negative_slope: Float[Array, ""],
    positive_slope: Float[Array, ""],
    a: Array,
    b: Array,
    c: Array,
    orders: tuple[tuple[int, int], ...],
) -> dict[tuple[int, int], Array]:
    """{(i, j): E[sigma^(i) sigma^(j)]} for the (i, j) of `orders`, at any scale: homogeneous of degree
    1 - (i + j) / 2 in the three arguments together."""
    moment = functools.partial(homogeneous_second_moment, negative_slope, positive_slope)
    f = pair_factor(a, b)
    at_scale = (a * f.value, b * f.value, c * f.value)
    power = lambda k: f.inverse if k == 0 else f.value ** (k - 1)
    return {(i, j): mixed_derivative(moment, i, j, *at_scale) * power((i + j) // 2) for i, j in orders}


def homogeneous_errors(
    negative_slope: Float[Array, ""],
    positive_slope: Float[Array, ""],
    a: Array,
    b: Array,
    c: Array,
    moments: dict[tuple[int, int], Array],
) -> dict[tuple[int, int], Array]:
    """Estimates for {(i, j): E[sigma^(i) sigma^(j)]}: rounding, also that of the inputs.

    A relative change of c^2/(ab) by eps changes D^2/(ab) by eps ab/D^2 relative to itself. Of inputs
    within rounding of parallel it is not known how parallel they are, unless they are equal.
    """
    eps = jnp.finfo(c.dtype).eps
    gap = correlation(a, b, c)[1]
    regular = (gap > 0) & (a > 0) & (b > 0)
    condition = jnp.where(regular, 1 / jnp.where(regular, gap, 1), jnp.inf)
    equal = (a == b) & (jnp.abs(c) == a)
    amplified = jnp.where(equal | (a == 0) | (b == 0), 1, jnp.sqrt(jnp.minimum(condition, 1 / eps)))
    energy = ((negative_slope**2 + positive_slope**2) / 2).astype(c.dtype)

    def estimate(i: int, j: int, value: Array) -> Array:
        size = energy * a ** ((1 - i) / 2) * b ** ((1 - j) / 2)
        if i + j <= 2:
            return 64 * eps * (jnp.abs(value) + size * (amplified if i + j == 2 else 1))
        return jnp.where(regular, 64 * eps * jnp.abs(value) * condition, jnp.inf)

    return {(i, j): estimate(i, j, value) for (i, j), value in moments.items()}


@jax.custom_jvp
def _mean_absolute_product(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """E|xy| = (2/pi) (D + c asin(corr))."""
    return 2 / jnp.pi * (root_determinant(0.0, a, b, c) + c * arcsine(0.0, a, b, c))


@functools.partial(_mean_absolute_product.defjvp, symbolic_zeros=True)
def _(primals: tuple[Array, Array, Array], tangents: tuple[Any, Any, Any]) -> tuple[Array, Array]:
    # Price: d/dc = E[sgn sgn] = (2/pi) asin(corr), d/da = E[delta(x)|y|] = D / (pi a).
    a, b, c = primals
    root = root_determinant(0.0, a, b, c)
    slopes = quotient(root, a) / jnp.pi, quotient(root, b) / jnp.pi, 2 / jnp.pi * arcsine(0.0, a, b, c)
    # What is not moved is left out: zero times a second derivative that overflows is no number.
    moved = [slope * dx for slope, dx in zip(slopes, tangents) if not _is_zero(dx)]
    return _mean_absolute_product(a, b, c), sum(moved, start=jnp.zeros_like(c))


def _is_zero(tangent: object) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)
