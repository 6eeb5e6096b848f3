"""softplus."""

import math
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Float

from .._checks import scalar
from .._custom_types import RealLike
from .base import AbstractStraightActivation


class Softplus(AbstractStraightActivation):
    """sigma(x) = log(1 + exp(sharpness x)) / sharpness; ReLU as the sharpness grows."""

    sharpness: Float[Array, ""]

    def __init__(self, sharpness: RealLike = 1.0):
        self.sharpness = scalar("sharpness", sharpness, positive=True)

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jax.nn.softplus(self.sharpness * x) / self.sharpness

    @property
    def scales(self) -> tuple[tuple[float, RealLike], ...]:
        return ((0.0, math.pi / self.sharpness),)

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
    return np.logaddexp(0, u)
