"""Pairs of variances and a covariance at a scale at which no product of them over- or underflows.

Variances between the smallest and the largest floating-point number occur: a network contracts or expands
its kernel by a factor a layer. Closed forms contain ab, c^2 and their difference, each of which may be no
number while the result is an ordinary one. They are evaluated on af, bf and cf instead, with a power of
two f, by which multiplication is exact: one for ordinary variances, and for a large one beside a small
one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

#: In float32: which products ab count as large or small, 2^w and 2^-w, and the exponent of f for them.
#: For variances from 1e-30 to 1e30 (2^100), (af)(bf) is then between 2^-100 and 2^100, so that its
#: rounding is a number too. In float64 so is that of ab itself, for variances from 1e-140 to 1e150.
_WIDTH, _EXPONENT = 60, 50


class Factor(NamedTuple):
    """f and 1 / f."""

    value: Array
    inverse: Array


def pair_factor(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Factor:
    """The power of two f for a pair of variances; a constant to differentiation.

    A selection of three values, since it stands in the innermost loop of every closed form.
    """
    if a.dtype == jnp.float64:
        return Factor(jnp.ones((), a.dtype), jnp.ones((), a.dtype))
    product = a * b  # zero or infinity, perhaps, but rightly small or large
    is_large, is_small = product > 2.0**_WIDTH, product < 2.0**-_WIDTH
    choose = lambda large, small: jnp.where(is_large, large, jnp.where(is_small, small, 1.0))
    up, down = (jnp.asarray(2.0**power, a.dtype) for power in (_EXPONENT, -_EXPONENT))
    return Factor(choose(down, up), choose(up, down))


@jax.custom_jvp
def determinant(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """ab - c^2 of a covariance, zero where it is rounding of the three entries; differentiated as ab -
    c^2.

    Of inputs within rounding of parallel it is not known how parallel they are: up to 8 eps ab they count
    as parallel, which is what multiples of one row are after rounding.
    """
    product = a * b
    value = product - c * c
    return jnp.where(value > 8 * jnp.finfo(c.dtype).eps * product, value, 0)


@determinant.defjvp
def _(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    (a, b, c), (da, db, dc) = primals, tangents
    return determinant(a, b, c), a * db + b * da - 2 * c * dc


def correlation(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """corr = c / sqrt(ab) and 1 - corr^2, elementwise; (0, 1) where a variance is zero."""
    f = pair_factor(a, b).value
    a, b, c = a * f, b * f, c * f
    positive = (a > 0) & (b > 0)
    product = jnp.where(positive, a * b, 1)
    corr = jnp.where(positive, c / jnp.sqrt(product), 0)
    return corr, jnp.where(positive, determinant(a, b, c) / product, 1)
