"""The leaky rectified linear unit."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._support.checks import scalar
from .._support.custom_types import RealLike
from .base import AbstractHomogeneousActivation
from .homogeneous import homogeneous_second_moment


class LeakyReLU(AbstractHomogeneousActivation):
    """sigma(x) = x for x > 0, negative_slope x for x < 0. A slope of -1 is the absolute value."""

    negative_slope: Float[Array, ""]

    def __init__(self, negative_slope: RealLike = 0.01):
        self.negative_slope = scalar("negative_slope", negative_slope)

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.where(x > 0, x, self.negative_slope * x)

    @property
    def slopes(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return self.negative_slope, jnp.asarray(1.0)

    def second_moment(
        self, a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """p^2 c + m^2 E|xy|, p and m half the sum and half the difference of the slopes."""
        return homogeneous_second_moment(*self.slopes, a, b, c)
