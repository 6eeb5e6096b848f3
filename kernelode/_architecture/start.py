"""Initial conditions: the law of h^0."""

import abc
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from .._support.checks import as_real_array
from .._support.custom_types import RealLike
from .._support.show import Shown


class AbstractStart(Shown):
    """How h^0 is distributed about the kernel K^0 that is given. Its effect at leading order:

        R_2(0) = -memory Gamma(K^0),   C(0) = memory Gamma(K^0) + covariance,   K1(0) = shift,

    in the notation of docs/finite_width.md.
    """

    memory: eqx.AbstractVar[int]

    @abc.abstractmethod
    def moments(self, n: int) -> tuple[Float[Array, "n n n n"], Float[Array, "n n"]] | None:
        """The upstream covariance and shift, for n inputs; None where both vanish."""


def upstream_moments(
    start: AbstractStart, n: int, elements: Sequence[np.ndarray], dtype: DTypeLike
) -> tuple[Array, Array]:
    """Upstream covariance (*batch, x, x) and shift (*batch, x) on elements whose first and second inputs
    are given by index arrays (*batch, x)."""
    first, second = elements
    upstream = start.moments(n)
    if upstream is None:
        return jnp.zeros((*first.shape, first.shape[-1]), dtype), jnp.zeros(first.shape, dtype)
    covariance, shift = (x.astype(dtype) for x in upstream)
    left, right = ([part[..., :, None] for part in elements], [part[..., None, :] for part in elements])
    return covariance[(*left, *right)], shift[first, second]


class GaussianRows(AbstractStart):
    """Independent neurons, h^0_i ~ N(0, K^0), as a Gaussian linear read-in makes them. Then
    V4(0) = Gamma(K^0) for a residual stream, and K1(0) = 0."""

    memory: int = eqx.field(static=True, default=0)

    def moments(self, n: int) -> None:
        return None


class FixedGram(AbstractStart):
    """h^0 is rotated at random, with h^0 h^0^T / n = K^0 exactly: V4(0) = 0 and K1(0) = 0."""

    memory: int = eqx.field(static=True, default=1)

    def moments(self, n: int) -> None:
        return None


class RandomCovariance(AbstractStart):
    """Neurons independent given a random covariance, as a random network upstream makes it:
    n Cov = `covariance`, n times its mean shift = `shift`. V4(0) = Gamma(K^0) + covariance.

    **Arguments**

    - `covariance`: shape (n, n, n, n), symmetric like a covariance of kernels. Multiplied by the width.
    - `shift`: shape (n, n). Multiplied by the width.
    """

    covariance: Float[Array, "n n n n"]
    shift: Float[Array, "n n"]
    memory: int = eqx.field(static=True)

    def __init__(self, covariance: RealLike, shift: RealLike):
        self.covariance = as_real_array("covariance", covariance)
        self.shift = as_real_array("shift", shift)
        self.memory = 0
        n = self.shift.shape[-1] if self.shift.ndim else 0
        self.moments(n)

    def moments(self, n: int) -> tuple[Float[Array, "n n n n"], Float[Array, "n n"]]:
        if self.covariance.shape != (n, n, n, n) or self.shift.shape != (n, n):
            raise ValueError(
                f"For {n} inputs `covariance` must have shape {(n, n, n, n)} and `shift` {(n, n)}; "
                f"got {self.covariance.shape} and {self.shift.shape}."
            )
        return self.covariance, self.shift
