"""tanh."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import AbstractAutonomousActivation, AbstractOddActivation


class Tanh(AbstractAutonomousActivation, AbstractOddActivation):
    """sigma(x) = tanh(x). Its poles at +- i pi/2 set the pace of every quadrature."""

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.tanh(x)

    @property
    def slope_polynomial(self) -> tuple[float, ...]:
        return (1.0, 0.0, -1.0)
