"""tanh."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._support.custom_types import RealLike
from .base import AbstractAutonomousActivation, AbstractOddActivation, AbstractStraightActivation


class Tanh(AbstractAutonomousActivation, AbstractOddActivation, AbstractStraightActivation):
    """sigma(x) = tanh(x). Its poles at +- i pi/2 set the pace of every quadrature."""

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.tanh(x)

    @property
    def slope_polynomial(self) -> tuple[float, ...]:
        return (1.0, 0.0, -1.0)

    @property
    def scales(self) -> tuple[tuple[float, RealLike], ...]:
        return ((0.0, math.pi / 2),)

    @property
    def standard(self) -> Callable[[np.ndarray], np.ndarray]:
        return np.tanh

    @property
    def lines(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return (0.0, -1.0), (0.0, 1.0)

    @property
    def line_sharpness(self) -> RealLike:
        return 1.0
