"""Swish, also known as SiLU."""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Float

from .._support.checks import scalar
from .._support.custom_types import RealLike
from .rectifier import AbstractSmoothRectifier


class Swish(AbstractSmoothRectifier):
    """sigma(x) = x / (1 + exp(-sharpness x)); SiLU at sharpness one."""

    sharpness: Float[Array, ""]

    def __init__(self, sharpness: RealLike = 1.0):
        self.sharpness = scalar("sharpness", sharpness)

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return x * jax.nn.sigmoid(self.sharpness * x)

    @property
    def standard(self) -> Callable[[np.ndarray], np.ndarray]:
        return _standard


def _standard(u: np.ndarray) -> np.ndarray:
    return u / (1 + np.exp(-u))
