"""The sine."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._support.checks import scalar
from .._support.custom_types import RealLike
from .base import AbstractClosedFormActivation, AbstractOddActivation


class Sin(AbstractClosedFormActivation, AbstractOddActivation):
    """sigma(x) = sin(frequency x)."""

    frequency: Float[Array, ""]

    def __init__(self, frequency: RealLike = 1.0):
        self.frequency = scalar("frequency", frequency)

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.sin(self.frequency * x)

    def second_moment(
        self, a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """exp(-w^2 (a+b)/2) sinh(w^2 c), w the frequency."""
        mean, cross = self.frequency**2 * (a + b) / 2, self.frequency**2 * c
        # sinh keeps the digits of a small covariance; the difference does not overflow.
        small = jnp.abs(cross) < 1
        by_sinh = jnp.exp(-mean) * jnp.sinh(jnp.where(small, cross, 0))
        # A covariance beyond (a+b)/2 is rounding, which at large variance is no small number.
        excess = jax.lax.stop_gradient(jnp.maximum(jnp.abs(cross) - mean, 0))
        same, opposite = (jnp.exp(side * cross - mean - excess) for side in (1, -1))
        return jnp.where(small, by_sinh, (same - opposite) / 2)
