"""Where the published closure fails, and by how much: residuals, missing source, map of validity."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork, Layer
from .._closure import AbstractPairable, AbstractPairClosure, GOnly, WidthMoments, default_closure
from .._closure.expansion import KernelMoments
from .._kernel import as_block
from .._support.checks import as_real_array, checked_sign, instance, scalar
from .._support.custom_types import RealLike
from .._support.show import Shown
from .._support.trees import cast
from .arguments import checked_network
from .pairs import propagate_pairs, solve_pairs

#: What a closure to compare with has to be.
_EXACT = "a closure with a form on pairs, such as `WickTower(order=16)`"


class ClosureResidual(Shown):
    """Residuals of a closure, X^l - push(X^{l-1}) for l = 1 .. L: of K0 (L, n, n),
    V4 (L, n, n, 3, 3) and K1 (L, n, n)."""

    mean_kernel: Float[Array, "layers n n"]
    kernel_covariance: Float[Array, "layers n n 3 3"]
    mean_correction: Float[Array, "layers n n"]


def closure_residual(
    network: AbstractArchitecture,
    mean_kernel: RealLike,
    kernel_covariance: RealLike,
    mean_correction: RealLike,
    *,
    closure: GOnly | None = None,
) -> ClosureResidual:
    """The residual of the G-only equations on given moments, measured ones for instance.

    **Arguments**

    - `network`: a `ResNet`, whose layers are the steps.
    - `mean_kernel`, `kernel_covariance`, `mean_correction`: K0, V4 and K1 of all pairs at layers 0 .. L,
        shapes (L+1, n, n), (L+1, n, n, 3, 3) and (L+1, n, n), multiplied by the width as usual.
    - `closure`: `GOnly()` by default.

    **Raises** `ValueError` for wrong shapes.
    """
    network = checked_network(network)
    kernel = as_real_array("mean_kernel", mean_kernel)
    if kernel.ndim != 3:
        raise ValueError(f"`mean_kernel` must have shape (layers, n, n), got {kernel.shape}.")
    closure = instance("closure", closure or GOnly(), GOnly, "a `GOnly(...)`")
    n = kernel.shape[-1]
    covariance = as_real_array("kernel_covariance", kernel_covariance).astype(kernel.dtype)
    correction = as_real_array("mean_correction", mean_correction).astype(kernel.dtype)
    layers = network.depth + 1
    shapes = {
        "mean_kernel": (kernel, (layers, n, n)),
        "kernel_covariance": (covariance, (layers, n, n, 3, 3)),
        "mean_correction": (correction, (layers, n, n)),
    }
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise ValueError(f"`{name}` must have shape {shape}, got {array.shape}.")
    return _closure_residual(network, kernel, covariance, correction, closure.pairs())


@eqx.filter_jit
def _closure_residual(
    network: AbstractArchitecture,
    kernel: Float[Array, "depths n n"],
    covariance: Float[Array, "depths n n 3 3"],
    correction: Float[Array, "depths n n"],
    closure: AbstractPairClosure,
) -> ClosureResidual:
    network = cast(network, kernel.dtype)

    def one_layer(inputs: tuple[Layer, Array, Array, Array]) -> WidthMoments:
        layer, *moments = inputs
        pushed = closure.push(network, _pair_state(*moments), layer)
        return closure.moments(network, pushed)

    before = (network.layers(), kernel[:-1], covariance[:-1], correction[:-1])
    predicted: WidthMoments = jax.lax.map(one_layer, before)
    return ClosureResidual(
        mean_kernel=kernel[1:] - predicted.mean_kernel,
        kernel_covariance=covariance[1:] - predicted.kernel_covariance,
        mean_correction=correction[1:] - predicted.mean_correction,
    )


def source_mismatch(
    network: AbstractArchitecture,
    kernel: RealLike,
    ts: RealLike,
    *,
    exact: AbstractPairable | None = None,
) -> Float[Array, "times n n"]:
    """U1 = S - 1/2 D^2 Q[V4]: the term of the exact source that the published
    dK1/dt = chi K1 + 1/2 D^2 Q[V4] lacks, at the exact moments and continuous depths `ts`.
    Shape (times, n, n), multiplied by n.

    **Arguments** as of `solve_pairs`; `exact` is by default what `solve_pairs` takes by default.
    """
    network = checked_network(network)
    closure = instance("exact", exact or default_closure(network), AbstractPairable, _EXACT)
    solution = solve_pairs(network, kernel, ts, closure=closure)
    return _source_mismatch(
        solution.network,  # pyright: ignore
        solution.state,
        solution.closure,  # pyright: ignore
        GOnly().pairs(),
    )


@eqx.filter_jit
def _source_mismatch(
    network: AbstractResidualNetwork,
    states: Any,
    closure: AbstractPairClosure,
    published: AbstractPairClosure,
) -> Float[Array, "times n n"]:
    def one_depth(state: Any) -> Float[Array, "n n"]:
        found = closure.moments(network, state)
        rate = closure.rate(network, state, network.flow_layer())
        own = closure.moments(network, rate).mean_correction
        at = _pair_state(found.mean_kernel, found.kernel_covariance, found.mean_correction)
        network_ = cast(network, found.mean_kernel.dtype)
        without = published.rate(network_, at, network_.flow_layer())
        return own - published.moments(network_, without).mean_correction

    return jax.lax.map(one_depth, states)


class ClosureValidity(Shown):
    """How far the G-only closure is from the exact theory, largest over the kernel's elements.

    - `covariance_error`: |V4 - V4_exact| / V4_exact of V4[ab, ab], shape (times,).
    - `mean_error`: |K1 - K1_exact| / (n sqrt(K_aa K_bb)), shape (times, widths).
    - `valid`: where both are at most the tolerance, shape (times, widths).
    """

    covariance_error: Float[Array, " times"]
    mean_error: Float[Array, "times widths"]
    valid: Array


def closure_validity(
    network: AbstractArchitecture,
    kernel: RealLike,
    widths: RealLike,
    tolerance: RealLike,
    *,
    closure: GOnly | None = None,
    exact: AbstractPairable | None = None,
) -> ClosureValidity:
    """Where, in depth and width, the G-only closure is right to a tolerance.

    **Arguments**

    - `network`, `kernel`: at discrete depth; every layer is an entry.
    - `widths`: shape (widths,).
    - `tolerance`: relative, of the kernel's variance and of its mean.
    - `closure`, `exact`: `GOnly()`, and the default of `propagate_pairs`.

    **Raises** `ValueError` for widths or a tolerance that are not positive.
    """
    network = checked_network(network)
    exact = instance("exact", exact or default_closure(network), AbstractPairable, _EXACT)
    widths = checked_sign("widths", jnp.atleast_1d(as_real_array("widths", widths)), positive=True)
    if widths.ndim != 1:
        raise ValueError(f"`widths` must be a vector, got shape {widths.shape}.")
    tolerance = scalar("tolerance", tolerance, positive=True)
    one = propagate_pairs(network, kernel, closure=closure or GOnly()).moments
    other = propagate_pairs(network, kernel, closure=exact).moments
    variance = jnp.diagonal(other.mean_kernel, axis1=1, axis2=2)
    size = jnp.sqrt(variance[:, :, None] * variance[:, None, :])
    ratio = lambda x, y: jnp.max(jnp.abs(x) / jnp.where(y > 0, y, 1), axis=(1, 2))
    spread = ratio(one.kernel_variance - other.kernel_variance, other.kernel_variance)
    shift = ratio(one.mean_correction - other.mean_correction, size)
    mean = shift[:, None] / widths.astype(shift.dtype)[None, :]
    return ClosureValidity(
        covariance_error=spread,
        mean_error=mean,
        valid=(spread[:, None] <= tolerance) & (mean <= tolerance),
    )


def _pair_state(
    kernel: Float[Array, "n n"], covariance: Float[Array, "n n 3 3"], correction: Float[Array, "n n"]
) -> KernelMoments:
    a, b = np.indices(kernel.shape)
    shifts = jnp.stack([correction[a, a], correction, correction[b, b]], axis=-1)
    return KernelMoments(as_block(kernel), covariance, shifts)
