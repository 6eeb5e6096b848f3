"""The error function."""

import jax.numpy as jnp
from jax.scipy.special import erf
from jaxtyping import Array, Float

from .arcsine import arcsine, single_arcsine
from .base import AbstractClosedFormActivation, AbstractOddActivation


class Erf(AbstractClosedFormActivation, AbstractOddActivation):
    """sigma(x) = erf(x) = 2/sqrt(pi) int_0^x exp(-s^2) ds."""

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return erf(x)

    def second_moment(
        self, a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """(2/pi) asin(2c / sqrt((1+2a)(1+2b))) (Williams 1998, eq. 11): `arcsine`, offset 1/2."""
        return 2 / jnp.pi * arcsine(0.5, a, b, c)

    def variance_moment(self, q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 2 / jnp.pi * single_arcsine(0.5, q)
