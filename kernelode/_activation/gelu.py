"""The Gaussian error linear unit.

With A = 1 + a, B = 1 + b, g = ab - c^2 and D = sqrt(AB - c^2) = sqrt(1 + a + b + g),

    E[sigma sigma] = c/4 + [c asin(c/sqrt(AB)) + (g + c^2/A + c^2/B) / D] / (2 pi)

(Tsuchida et al. 2021, in this form in docs/theory.md). Its terms' derivatives are huge at parallel inputs
of large variance, and their sum is not; summed by hand,

    d/dc = 1/4 + [asin(c/sqrt(AB)) + (c/D) (1/A + 1/B + 1/D^2)] / (2 pi),
    d/da = [2 b/(A^2 D) + (1 + 2/A) g/(A D) - c^2/(A D^3)] / (4 pi).
"""

import functools

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, Float

from .arcsine import arcsine, quotient, root_determinant, single_arcsine
from .base import AbstractClosedFormActivation
from .scale import determinant, pair_factor


class GELU(AbstractClosedFormActivation):
    """sigma(x) = x Phi(x), exactly (not the tanh approximation); Phi is the normal CDF."""

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return x * ndtr(x)

    def second_moment(
        self, a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """c/4 + c/(2 pi) asin(c/sqrt((1+a)(1+b))) + [ab - c^2 + c^2/(1+a) + c^2/(1+b)]/(2 pi D)

        with D = sqrt((1+a)(1+b) - c^2).
        """
        return _pair(a, b, c)

    def variance_moment(self, q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """q/4 + q/(2 pi) asin(s) + q s/(pi sqrt(1+2q)), s = q/(1+q): `second_moment` at a = b = c."""
        return _single(q)


@jax.custom_jvp
def _pair(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    root = root_determinant(1.0, a, b, c)
    along = quotient(c, root) * (quotient(c, 1 + a) + quotient(c, 1 + b))
    return c / 4 + (c * arcsine(1.0, a, b, c) + _gap(a, b, c) + along) / (2 * jnp.pi)


@_pair.defjvp
def _(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    (a, b, c), (da, db, dc) = primals, tangents
    root, gap, one = root_determinant(1.0, a, b, c), _gap(a, b, c), jnp.ones_like(c)
    sine, of_a, of_b = quotient(c, root), quotient(one, 1 + a), quotient(one, 1 + b)
    # Quotients last: of a small one that is multiplied by a large number derivatives would underflow.
    shrunk = quotient(sine**2, root)
    by_a = quotient(quotient(2 * b * of_a, root) + (1 + 2 * of_a) * gap - shrunk, 1 + a)
    by_b = quotient(quotient(2 * a * of_b, root) + (1 + 2 * of_b) * gap - shrunk, 1 + b)
    by_c = arcsine(1.0, a, b, c) + sine * (of_a + of_b) + quotient(quotient(sine, root), root)
    tangent = dc / 4 + (by_c * dc + (by_a * da + by_b * db) / 2) / (2 * jnp.pi)
    return _pair(a, b, c), tangent


@jax.custom_jvp
def _gap(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """(ab - c^2) / D. The determinant of tiny variances underflows: it is no part of D nor, beside c and
    sqrt(ab), of a moment."""
    f = pair_factor(1 + a, 1 + b)
    scaled = determinant(a * f.value, b * f.value, c * f.value)
    return f.inverse * quotient(scaled, root_determinant(1.0, a, b, c) * f.value)


@_gap.defjvp
def _(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    # Not at the scale of the value, at which derivatives would underflow.
    (a, b, c), (da, db, dc) = primals, tangents
    value = _gap(a, b, c)
    root, rate = jax.jvp(functools.partial(root_determinant, 1.0), primals, tangents)
    return value, quotient(b * da + a * db - 2 * c * dc - value * rate, root)


@jax.custom_jvp
def _single(q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    sine, root = quotient(q, 1 + q), jnp.sqrt(1 + 2 * q)
    return q / 4 + q / (2 * jnp.pi) * single_arcsine(1.0, q) + quotient(q * sine, root) / jnp.pi


@_single.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (q,), (dq,) = primals, tangents
    return _single(q), _single_slope(q) * dq


@jax.custom_jvp
def _single_slope(q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """1/4 + asin(s)/(2 pi) + q (5 + 11 q + 4 q^2) / (2 pi (1+q)^2 (1+2q)^{3/2})."""
    sine, inverse, root = _of_variance(q)
    rest = sine * (5 * inverse**2 + 11 * sine * inverse + 4 * sine**2) * (1 + q)
    return 0.25 + (single_arcsine(1.0, q) + rest * root**3) / (2 * jnp.pi)


@_single_slope.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # (6 + 18 q + 11 q^2 - 5 q^3) / (2 pi (1+q)^3 (1+2q)^{5/2}): of the powers q^{-3/2} nothing is left.
    (q,), (dq,) = primals, tangents
    sine, inverse, root = _of_variance(q)
    cubic = 6 * inverse**3 + 18 * sine * inverse**2 + 11 * sine**2 * inverse - 5 * sine**3
    return _single_slope(q), cubic * root**5 / (2 * jnp.pi) * dq


def _of_variance(q: Float[Array, "*shape"]) -> tuple[Array, Array, Array]:
    """q / (1 + q), 1 / (1 + q) and 1 / sqrt(1 + 2q)."""
    one = jnp.ones_like(q)
    return quotient(q, 1 + q), quotient(one, 1 + q), quotient(one, jnp.sqrt(1 + 2 * q))
