"""softplus."""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Float

from .._support.checks import scalar
from .._support.custom_types import RealLike
from .rectifier import AbstractSmoothRectifier


class Softplus(AbstractSmoothRectifier):
    """sigma(x) = log(1 + exp(sharpness x)) / sharpness; ReLU as the sharpness grows."""

    sharpness: Float[Array, ""]

    def __init__(self, sharpness: RealLike = 1.0):
        self.sharpness = scalar("sharpness", sharpness, positive=True)

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jax.nn.softplus(self.sharpness * x) / self.sharpness

    @property
    def standard(self) -> Callable[[np.ndarray], np.ndarray]:
        return _standard


def _standard(u: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, u)
