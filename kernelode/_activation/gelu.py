"""The Gaussian error linear unit."""

import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, Float

from .angle import angle
from .base import AbstractClosedFormActivation


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
        determinant = a * b - c * c
        root = jnp.sqrt(1 + a + b + determinant)
        numerator = determinant + c * c * (1 / (1 + a) + 1 / (1 + b))
        return c / 4 + (c * angle(c, root) + numerator / root) / (2 * jnp.pi)
