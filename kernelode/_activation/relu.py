"""The rectified linear unit."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import AbstractHomogeneousActivation
from .homogeneous import homogeneous_second_moment


class ReLU(AbstractHomogeneousActivation):
    """sigma(x) = max(x, 0)."""

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jax.nn.relu(x)

    @property
    def slopes(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return jnp.asarray(0.0), jnp.asarray(1.0)

    def second_moment(
        self, a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """sqrt(ab)/(2 pi) (sin th + (pi - th) cos th), cos th = c/sqrt(ab) (Cho & Saul 2009)."""
        return homogeneous_second_moment(*self.slopes, a, b, c)
