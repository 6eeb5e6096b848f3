"""Swish, also known as SiLU."""

import jax
from jaxtyping import Array, Float

from .._checks import scalar
from .._custom_types import RealLike
from .base import AbstractSmoothActivation


class Swish(AbstractSmoothActivation):
    """sigma(x) = x / (1 + exp(-sharpness x)); SiLU at sharpness one."""

    sharpness: Float[Array, ""]

    def __init__(self, sharpness: RealLike = 1.0):
        self.sharpness = scalar("sharpness", sharpness)

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return x * jax.nn.sigmoid(self.sharpness * x)
