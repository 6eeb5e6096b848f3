"""The common part of smooth rectifiers."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._support.custom_types import RealLike
from .base import AbstractStraightActivation


class AbstractSmoothRectifier(AbstractStraightActivation):
    """sigma(x) = s(k x) / k, k = `sharpness`, with s(u) ~ 0 on the left and s(u) ~ u on the right, whose
    poles next to the real line are those of the logistic function, at u = +-i pi."""

    sharpness: eqx.AbstractVar[Float[Array, ""]]

    @property
    def scales(self) -> tuple[tuple[float, RealLike], ...]:
        return ((0.0, math.pi / jnp.abs(self.sharpness)),)

    @property
    def lines(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return (0.0, 0.0), (1.0, 0.0)

    @property
    def line_sharpness(self) -> RealLike:
        return self.sharpness
