"""Swish, also known as SiLU."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import scalar
from .._custom_types import RealLike
from .base import AbstractStraightActivation


class Swish(AbstractStraightActivation):
    """sigma(x) = x / (1 + exp(-sharpness x)); SiLU at sharpness one."""

    sharpness: Float[Array, ""]

    def __init__(self, sharpness: RealLike = 1.0):
        self.sharpness = scalar("sharpness", sharpness)

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return x * jax.nn.sigmoid(self.sharpness * x)

    @property
    def scales(self) -> tuple[tuple[float, RealLike], ...]:
        return ((0.0, math.pi / jnp.abs(self.sharpness)),)

    @property
    def standard(self) -> Callable[[np.ndarray], np.ndarray]:
        return _standard

    @property
    def lines(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return (0.0, 0.0), (1.0, 0.0)

    @property
    def line_sharpness(self) -> RealLike:
        return self.sharpness


def _standard(u: np.ndarray) -> np.ndarray:
    return u / (1 + np.exp(-u))
