"""Corrections of order 1/n to responses and to the optimal residual scale.

The mean read-out kernel of networks of width n is K_out + K1_out / n. Its derivative by the variance
of an input is the response

    chi_out(n) = chi_out + chi_1 / n,    chi_1 = dK1_out,aa / dK_aa,

and its maximum over log rho moves by - (chi_1 / chi_out)' / (n (log chi_out)''), primes being
derivatives by log rho at the maximum.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork
from .._closure import SINGLE_INPUT, AbstractMomentClosure
from .._depth.arguments import checked_moment_closure, checked_network
from .._depth.propagate import propagate
from .._kernel import Variances, checked_kernel
from .._support.custom_types import RealLike
from .._support.show import Shown
from .._support.trees import cast
from . import ScaleEstimate, optimal_residual_scale
from .newton import slope_and_curvature
from .objective import log_response, slope


class ResponseCorrection(Shown):
    """Diagonal responses of the read-out, per input: chi_out at infinite width, and lim n (chi_out(n) -
    chi_out)."""

    response: Float[Array, " inputs"]
    correction: Float[Array, " inputs"]


class ScaleCorrection(Shown):
    """rho* of the diagonal responses at infinite width, and lim n (rho*(n) - rho*), zero where rho* is
    not interior."""

    infinite_width: ScaleEstimate
    correction: Float[Array, " inputs"]


def response_correction(
    network: AbstractArchitecture,
    kernel: RealLike,
    *,
    closure: AbstractMomentClosure | None = None,
) -> ResponseCorrection:
    """chi_out of each input with itself and its correction of order 1/n (multiplied by n).

    **Arguments**

    - `network`: at its own depth and residual scale.
    - `kernel`: K^0, shape (n, n); only its diagonal enters.
    - `closure`: `WickTower(32)` by default.

    **Raises** `ValueError` for an invalid kernel.
    """
    network, variances = checked_network(network), jnp.diagonal(checked_kernel(kernel))
    return _response_correction(network, variances, checked_moment_closure(closure, SINGLE_INPUT))


def residual_scale_correction(
    network: AbstractResidualNetwork,
    kernel: RealLike,
    *,
    closure: AbstractMomentClosure | None = None,
) -> ScaleCorrection:
    """rho* of each input with itself and its correction of order 1/n (multiplied by n); arguments as of
    `response_correction`. The scale that the network has does not matter.

    **Raises** as `optimal_residual_scale`.
    """
    closure = checked_moment_closure(closure, SINGLE_INPUT)
    kernel = checked_kernel(kernel)
    best = optimal_residual_scale(network, kernel, pairs=False).diagonal
    correction = _scale_correction(network, jnp.diagonal(kernel), best, closure)
    return ScaleCorrection(infinite_width=best, correction=correction)


def _read_out_moments(
    network: AbstractArchitecture, q: Float[Array, ""], closure: AbstractMomentClosure
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """K_out and K1_out of one input."""
    solution = propagate(network, q[None, None], closure=closure, layers=[network.depth], throw=False)
    moments = solution.read_out
    return moments.mean_kernel.reshape(()), moments.mean_correction.reshape(())


def _both(
    network: AbstractArchitecture, q: Float[Array, ""], closure: AbstractMomentClosure
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """chi_out and chi_1 of one input."""
    at = lambda q: _read_out_moments(network, q, closure)
    return jax.jvp(at, (q,), (jnp.ones_like(q),))[1]


@eqx.filter_jit
def _response_correction(
    network: AbstractArchitecture, variances: Float[Array, " inputs"], closure: AbstractMomentClosure
) -> ResponseCorrection:
    network, closure = cast((network, closure), variances.dtype)
    return ResponseCorrection(*jax.vmap(lambda q: _both(network, q, closure))(variances))


@eqx.filter_jit
def _scale_correction(
    network: AbstractResidualNetwork,
    variances: Float[Array, " inputs"],
    best: ScaleEstimate,
    closure: AbstractMomentClosure,
) -> Float[Array, " inputs"]:
    network, closure = cast((network, closure), variances.dtype)
    profile = network.scale_profile()

    def one_input(q, value, interior):
        u = jnp.log(jnp.where(interior, value, 1))

        def ratio(u):
            scaled = eqx.tree_at(lambda n: n.residual_scale, network, jnp.exp(u) * profile)
            chi, correction = _both(scaled, q, closure)
            return correction / chi

        at = lambda u: log_response(network, Variances(q), jnp.exp(u))[0]
        curvature = slope_and_curvature(at)(u)[1]
        moved = -slope(ratio)(u) / jnp.where(interior, curvature, 1)
        return jnp.where(interior, value * moved, 0)

    return jax.vmap(one_input)(variances, best.value, best.interior)
