"""The error function."""

import jax.numpy as jnp
from jax.scipy.special import erf
from jaxtyping import Array, Float

from .angle import angle
from .base import AbstractClosedFormActivation, AbstractOddActivation
from .scale import determinant, pair_factor


class Erf(AbstractClosedFormActivation, AbstractOddActivation):
    """sigma(x) = erf(x) = 2/sqrt(pi) int_0^x exp(-s^2) ds."""

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return erf(x)

    def second_moment(
        self, a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """(2/pi) asin(2c / sqrt((1+2a)(1+2b))) (Williams 1998, eq. 11).

        Written as an arc tangent, which keeps its digits where the argument approaches one:
        (1+2a)(1+2b) - 4c^2 = 1 + 2(a + b) + 4(ab - c^2).
        """
        f = pair_factor(1 + a, 1 + b).value
        a, b, c = a * f, b * f, c * f
        square = f * (f + 2 * (a + b)) + 4 * determinant(a, b, c)
        return 2 / jnp.pi * angle(2 * c, jnp.sqrt(square))

    def variance_moment(self, q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 2 / jnp.pi * angle(2 * q, jnp.sqrt(1 + 4 * q))
