"""What a solve returns, and what it can say about itself."""

from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._closure.base import AbstractClosure


class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """Outcomes: those of Diffrax, and our own."""

    not_finite = (
        "The kernel overflowed: it grows without bound at these variances, depth and residual scale. "
        "Reduce one of them."
    )
    unbounded = (
        "The search ran away by a factor of more than exp(30): the objective has no maximum in the "
        "chosen parameters."
    )


_NOTHING_SAVED = "Nothing was saved: pass `ts`, or a `saveat` that saves states."


def choose_result(condition: Array, yes: Any, no: Any) -> RESULTS:
    """`yes` where the condition holds, else `no`."""
    return RESULTS.where(condition, yes, no)  # pyright: ignore[reportArgumentType]


class Solution(eqx.Module):
    """Moments of a network's kernel at the saved depths.

    - `ts`: the saved depths. For a residual network t = sum of rho_l^2; layer numbers for an MLP.
    - `state`: the closure's state there, leading axis `times`.
    - `result`: a `RESULTS` item; `RESULTS.successful` unless `throw=False` was passed.
    - `stats`: the solver's statistics (continuous depth), by Diffrax's names.
    - `interpolation`: Diffrax's dense interpolation, if `SaveAt(dense=True)` asked for it.
    """

    closure: AbstractClosure
    saved_ts: Float[Array, " times"] | None
    state: Any
    result: RESULTS
    stats: dict[str, Any]
    interpolation: Any = None

    @property
    def ts(self) -> Float[Array, " times"]:
        """The saved depths."""
        if self.saved_ts is None:
            raise ValueError(_NOTHING_SAVED)
        return self.saved_ts

    @property
    def mean_kernel(self) -> Float[Array, "times n n"]:
        """K0 at the saved depths."""
        if self.state is None:
            raise ValueError(_NOTHING_SAVED)
        return eqx.filter_vmap(self.closure.mean_kernel)(self.state)

    def evaluate(self, t) -> Float[Array, "n n"]:
        """K0 at any depth t, for a solution with dense output."""
        if self.interpolation is None:
            raise ValueError("`evaluate` needs `saveat=diffrax.SaveAt(dense=True)`.")
        return self.closure.mean_kernel(self.interpolation.evaluate(jnp.asarray(t)))
