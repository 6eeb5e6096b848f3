"""The result of `propagate` and `solve`: moments at the saved depths, their errors, a given width."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture
from .._closure.base import (
    AbstractClosure,
    AbstractMomentClosure,
    AbstractTangentClosure,
    TangentMoments,
    WidthMoments,
)
from .._closure.tangent_differential import DifferentialMoments, TangentDifferential
from .._closure.width import AtWidth, expand
from .._support.checks import as_real_array
from .._support.custom_types import RealLike
from .._support.results import RESULTS
from .._support.show import Shown
from .sizes import check_moments

_NOTHING_SAVED = "Nothing was saved: pass `ts`, or a `saveat` that saves states."


class Solution(Shown):
    """Moments of a network's kernel at the saved depths.

    - `network`, `closure`: the problem.
    - `ts`: the saved depths. For a residual network t = sum of rho_l^2; layer numbers for an MLP.
    - `state`: the closure's state there, leading axis `times`.
    - `result`: a `RESULTS` item; `RESULTS.successful` unless `throw=False` was passed.
    - `stats`: the solver's statistics (continuous depth), by Diffrax's names.
    - `interpolation`: Diffrax's dense interpolation, if `SaveAt(dense=True)` asked for it.
    """

    network: AbstractArchitecture
    closure: AbstractClosure
    saved_ts: Float[Array, " times"] | None
    state: Any
    result: RESULTS
    stats: dict[str, Any]
    interpolation: Any = None

    def _shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"network": self.network, "closure": self.closure}
        if self.state is not None:
            shown |= {"ts": self.ts, "mean_kernel": self.mean_kernel}
        return shown | {"result": self.result}

    @property
    def ts(self) -> Float[Array, " times"]:
        """The saved depths."""
        if self.saved_ts is None:
            raise ValueError(_NOTHING_SAVED)
        return self.saved_ts

    @property
    def mean_kernel(self) -> Float[Array, "times n m"]:
        """K0 at the saved depths: (times, n, n), or (times, n, m) of a `Block`."""
        if self.state is None:
            raise ValueError(_NOTHING_SAVED)
        return eqx.filter_vmap(self.closure.mean_kernel)(self.state)

    @property
    def tangent_kernel(self) -> Float[Array, "times n m"]:
        """Theta, the neural tangent kernel of infinite width, of the stream at the saved depths; that of
        the network's output is in `read_out`. Of closures that have it, such as `TangentKernel()`."""
        closure = self.closure
        if not isinstance(closure, AbstractTangentClosure):
            raise ValueError(
                "`tangent_kernel` needs a closure with tangent kernels, such as "
                f"`closure=TangentKernel()`; this solution has `{type(closure).__name__}`."
            )
        if self.state is None:
            raise ValueError(_NOTHING_SAVED)
        return eqx.filter_vmap(closure.tangent_kernel)(self.state)

    @property
    def kernel_covariance(self) -> Float[Array, "..."]:
        """V4 = lim n Cov(G, G) at the saved depths: (times, n, n, n, n), or for all pairs of inputs
        (times, n, n, 3, 3) with the components (aa, ab, bb). Of a feed-forward network: the covariance
        of the kernel given the weights before, without the sampling noise of its own neurons."""
        return self.moments.kernel_covariance

    @property
    def mean_correction(self) -> Float[Array, "times n n"]:
        """K1 = lim n (E[G] - K0) at the saved depths."""
        return self.moments.mean_correction

    @property
    def moments(self) -> WidthMoments:
        """All moments of order 1/n at the saved depths, with bounds of the truncation error."""
        closure = self._moment_closure("moments")
        return _over_times(closure.moments, self.network, self.state)

    @property
    def tangent(self) -> TangentMoments:
        """The moments of the tangent kernel at order 1/n at the saved depths, of a `TangentTower`; those
        of the network's output are `read_out.tangent`."""
        found = self.moments.tangent
        if found is None:
            raise ValueError(
                "`tangent` needs moments of the tangent kernel, of `closure=TangentTower(16)`; "
                f"this solution has `{type(self.closure).__name__}`."
            )
        return found

    @property
    def differential(self) -> DifferentialMoments:
        """The differential of the tangent kernel at order 1/n at the saved layers, of a
        `TangentDifferential`; that of the network's output is `read_out`."""
        closure = self.closure
        if not isinstance(closure, TangentDifferential):
            raise ValueError(
                "`differential` needs `closure=TangentDifferential()`; this solution has "
                f"`{type(closure).__name__}`."
            )
        return _over_times(closure.differential, self.network, self.state)

    @property
    def read_out(self) -> Any:
        """The `WidthMoments` of the read-out, were it placed at each of the saved depths; of a
        `TangentKernel` the `TangentReadOut`, of a `TangentDifferential` the `DifferentialMoments`."""
        closure = self.closure
        if not isinstance(closure, AbstractTangentClosure) or self.state is None:
            closure = self._moment_closure("read_out")
        return _over_times(closure.read_out, self.network, self.state)

    def at_width(self, width: RealLike) -> AtWidth:
        """The kernel's mean, covariance and standard deviation in networks of a width, at the saved
        depths, and how far an expansion in 1/n can be trusted there."""
        found = self.moments
        at = expand(found.mean_kernel, found.mean_correction, found.kernel_variance, width)
        covariance = found.kernel_covariance / at.width
        return AtWidth(at.mean, covariance, at.standard_deviation, at.validity, at.result)

    @property
    def quadrature_error(self) -> Float[Array, " times"]:
        """An estimate of the relative error of the Gaussian expectations at the saved depths."""
        if self.state is None:
            raise ValueError(_NOTHING_SAVED)
        return _over_times(self.closure.quadrature_error, self.network, self.state)

    def _moment_closure(self, name: str) -> AbstractMomentClosure:
        if not isinstance(self.closure, AbstractMomentClosure):
            raise ValueError(
                f"`{name}` needs a closure with moments of order 1/n, such as `closure=WickTower(16)`; "
                f"this solution has `{type(self.closure).__name__}`."
            )
        if self.state is None:
            raise ValueError(_NOTHING_SAVED)
        check_moments(self.closure, self.state)
        return self.closure

    def evaluate(self, t: RealLike) -> Float[Array, "n m"]:
        """K0 at any depth t, for a solution with dense output."""
        if self.interpolation is None:
            raise ValueError("`evaluate` needs `saveat=diffrax.SaveAt(dense=True)`.")
        return self.closure.mean_kernel(self.interpolation.evaluate(as_real_array("t", t)))


@eqx.filter_jit
def _over_times(
    function: Callable[[AbstractArchitecture, Any], Any], network: AbstractArchitecture, state: Any
) -> Any:
    """One saved depth at a time, for bounded memory."""
    return jax.lax.map(lambda one: function(network, one), state)
