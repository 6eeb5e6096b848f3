"""The state of a tangent tower on pairs of inputs, and the inputs that it covers."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._architecture import AbstractArchitecture
from .._expectation.chaos import alignment
from .._expectation.input_chaos import has_kinks
from .._support.checks import refuse_where
from .chaos_basis import basis_floor, degrees
from .chaos_couplings import degree_step
from .tangent_functions import equal_inputs
from .tangent_unit import Kept, TangentUnit


class TangentTowers(eqx.Module):
    """K0 and Theta of the inputs and of the pairs, and the towers of both."""

    variances: Float[Array, " n"]
    tangents: Float[Array, " n"]
    covariances: Float[Array, " pairs"]
    cotangents: Float[Array, " pairs"]
    singles: TangentUnit
    pairs: TangentUnit


def sector_degrees(network: AbstractArchitecture, order: int) -> Kept:
    """Of sigma_e sigma_f, sigma_e sigma'_f and sigma'_e sigma'_f: where sigma is odd the first and the
    last are even, the second is odd. The mean is no fluctuation of the first."""
    step, floor = degree_step(network.activation), basis_floor(network.activation)
    return (
        degrees(order, step, floor),
        degrees(order, step, floor, step - 1),
        degrees(order, step, floor, 0),
    )


def covered(network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The kernel, if the tower is known for it."""
    q = jnp.diagonal(kernel)
    kernel = refuse_where(
        kernel,
        jnp.any(q <= 0),
        "`TangentTower` needs inputs of positive variance; `TangentKernel` takes all.",
    )
    if not has_kinks(network.activation):
        return kernel
    _, gap = jax.vmap(jax.vmap(alignment, (None, 0, 0)), (0, None, 0))(q, q, kernel)
    return refuse_where(
        kernel,
        jnp.any((gap <= 0) & ~equal_pairs(network, q, kernel)),
        "`TangentTower` needs inputs that are not parallel, for an activation with kinks (ReLU: unless "
        "they are equal): leave out what is a multiple of another.",
    )


def equal_pairs(
    network: AbstractArchitecture, q: Float[Array, " n"], kernel: Float[Array, "n n"]
) -> Bool[Array, "n n"]:
    """Which inputs are the same, and known as such."""
    return equal_inputs(network.activation, q[:, None], q[None, :], kernel)
