"""The Gaussian error linear unit."""

import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, Float

from .angle import angle
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

        with D = sqrt((1+a)(1+b) - c^2) (Tsuchida et al. 2021, in this form in docs/theory.md).
        """
        f = pair_factor(1 + a, 1 + b).value
        a_f, b_f, c_f = a * f, b * f, c * f
        gap = determinant(a_f, b_f, c_f)
        root = jnp.sqrt(f * (f + a_f + b_f) + gap)
        numerator = gap + c_f * c_f * (1 / (1 + a) + 1 / (1 + b))
        return c / 4 + (c * angle(c_f, root) + numerator / (f * root)) / (2 * jnp.pi)

    def variance_moment(self, q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """q/4 + q/(2 pi) asin(s) + q s/(pi sqrt(1+2q)), s = q/(1+q): `second_moment` at a = b = c, whose
        derivatives lose all digits, or are NaN, where ab - c^2 is the difference of huge numbers."""
        sine, root = q / (1 + q), jnp.sqrt(1 + 2 * q)
        return q / 4 + q / (2 * jnp.pi) * angle(sine, root / (1 + q)) + q * sine / (jnp.pi * root)
