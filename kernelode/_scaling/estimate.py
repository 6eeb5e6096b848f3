"""Estimates of optima, element by element, and their summary over a data set."""

from typing import NamedTuple, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._kernel import input_pairs
from .._support.checks import as_real_array, checked_sign
from .._support.custom_types import RealLike
from .._support.show import Shown
from .status import STATUS


class Summary(NamedTuple):
    """Over the elements with an interior optimum: mean and standard deviation; and their share.

    `mean` and `standard_deviation` are zero where no element is interior: see `interior_fraction`.
    """

    mean: Float[Array, ""]
    standard_deviation: Float[Array, ""]
    interior_fraction: Float[Array, ""]
    count: int


class ScaleEstimate(Shown):
    """Optimal residual scales.

    - `value`: rho*; 0 where `decreasing`, infinity where `increasing`, 0 where `failed`; any of these,
        as found, where `inaccurate`.
    - `response`: chi_out at the optimum; at rho = 0 where `decreasing`, at the largest scale searched
        where `increasing`.
    - `status`: `STATUS` items, elementwise.
    """

    value: Float[Array, "*shape"]
    response: Float[Array, "*shape"]
    status: STATUS

    @property
    def interior(self) -> Array:
        """Which elements have an interior optimum that is known: where `value` is a number to use."""
        return self.status == STATUS.interior

    def summary(self) -> Summary:
        """Over all elements; of a square `off_diagonal` result, over the pairs a < b."""
        return summarise(self.value, self.interior)


class TimeEstimate(Shown):
    """Optimal depths t* of the flow.

    - `time`: t*; 0 where `decreasing`, infinity where `increasing`; any of these, as found, where
        `inaccurate`.
    - `correction`: t1, the next order in one over the number of blocks; zero where not interior.
    - `status`: `STATUS` items, elementwise.
    - `kernel`: the entry of the kernel at t*: K* on the diagonal.
    """

    time: Float[Array, "*shape"]
    correction: Float[Array, "*shape"]
    kernel: Float[Array, "*shape"]
    status: STATUS

    @property
    def interior(self) -> Array:
        """Which elements have an interior optimum."""
        return self.status == STATUS.interior

    def residual_scale(self, depth: RealLike) -> Float[Array, "*shape"]:
        """rho* ~ sqrt((t* + t1/L) / L) for L = `depth` blocks; the error in rho*^2 L is O(1/L^2)."""
        depth = checked_sign("depth", as_real_array("depth", depth), positive=True).astype(
            self.time.dtype
        )
        return jnp.sqrt((self.time + self.correction / depth) / depth)

    def summary(self) -> Summary:
        """Of t*, as for `ScaleEstimate`."""
        return summarise(self.time, self.interior)


Estimate = TypeVar("Estimate", ScaleEstimate, TimeEstimate)


class OptimalScale(Shown):
    """rho* for the diagonal elements (n,) and, if they were searched, for the pairs (n, n).

    `quadrature_error` is an estimate of the relative error of the Gaussian expectations, E[sigma^2] and
    its derivative, along the inputs' way through networks with their own rho*, the largest of all
    layers.
    """

    diagonal: ScaleEstimate
    pairs: ScaleEstimate | None
    quadrature_error: Float[Array, ""] | None = None

    @property
    def off_diagonal(self) -> ScaleEstimate:
        """rho* for K_ab, shape (n, n). The entry [a, a] is that of two distinct, equal inputs."""
        return _searched(self.pairs)


class OptimalTime(Shown):
    """t* for the diagonal elements (n,) and, if they were searched, for the pairs (n, n)."""

    diagonal: TimeEstimate
    pairs: TimeEstimate | None

    @property
    def off_diagonal(self) -> TimeEstimate:
        """t* for K_ab, shape (n, n). The entry [a, a] is that of two distinct, equal inputs."""
        return _searched(self.pairs)


def _searched(estimate: Estimate | None) -> Estimate:
    if estimate is None:
        raise ValueError("The off-diagonal elements were not searched: pass `pairs=True`.")
    return estimate


def statuses(
    interior: Array, decreasing: Array, increasing: Array, inaccurate: Array | bool = False
) -> STATUS:
    """Status items from masks; `failed` where none holds, and `inaccurate` instead of any other."""
    status = STATUS.where(increasing, STATUS.increasing, STATUS.failed)
    status = STATUS.where(decreasing, STATUS.decreasing, status)
    status = STATUS.where(interior, STATUS.interior, status)
    return STATUS.where((interior | decreasing | increasing) & inaccurate, STATUS.inaccurate, status)


def summarise(value: Array, interior: Array) -> Summary:
    if value.ndim == 2:
        rows, columns = input_pairs(value.shape[0])
        value, interior = value[rows, columns], interior[rows, columns]
    count = value.size
    share = jnp.mean(interior.astype(value.dtype)) if count else jnp.zeros((), value.dtype)
    inside = jnp.maximum(share * count, 1)
    kept = jnp.where(interior, value, 0)
    mean = jnp.sum(kept) / inside
    spread = jnp.sqrt(jnp.sum(jnp.where(interior, (kept - mean) ** 2, 0)) / inside)
    return Summary(mean, spread, share, count)
