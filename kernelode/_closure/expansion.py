"""Moments of order 1/n through a map of kernels F, once for all closures:

    K -> F(K),    V -> J V J^T + noise,    k -> J k + 1/2 F''[V],    J = DF.

A layer, a read-out and a fixed point are such maps; a flow has their derivative.
"""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float

from .._kernel import Block
from .layouts import AbstractLayout, KernelMap


class KernelMoments(eqx.Module):
    """K0, V4 and K1 on the elements of a layout."""

    kernel: Block
    covariance: Float[Array, "*pairs x x"]
    correction: Float[Array, "*pairs x"]


def transport(
    jacobian: Array, covariance: Array, correction: Array, noise: Array, shift: Array
) -> tuple[Array, Array]:
    """J V J^T + noise and J k + shift, on any set of elements."""
    return jacobian @ covariance @ jacobian.mT + noise, _apply(jacobian, correction) + shift


def expand(
    layout: AbstractLayout,
    function: KernelMap,
    state: KernelMoments,
    noise: Callable[[Block], Array],
    seen: Array | None = None,
) -> KernelMoments:
    """The moments of F(G), G having those of `state`.

    - `noise`: n times the covariance of the noise added to F(G), as a function of F(K).
    - `seen`: the covariance that F'' is applied to, if not V.
    """
    at = layout.linearise(function, state.kernel)
    shift = layout.curve(at, state.covariance if seen is None else seen) / 2
    moved = transport(at.jacobian, state.covariance, state.correction, noise(at.value), shift)
    return KernelMoments(at.value, *moved)


def expand_rate(
    layout: AbstractLayout,
    drift: KernelMap,
    state: KernelMoments,
    noise: Callable[[Block], Array],
    seen: Array | None = None,
) -> KernelMoments:
    """The derivative of `expand` for F = 1 + e Q with respect to e, at zero."""
    at = layout.linearise(drift, state.kernel)
    shift = layout.curve(at, state.covariance if seen is None else seen) / 2
    moved = at.jacobian @ state.covariance
    return KernelMoments(
        kernel=at.value,
        covariance=moved + moved.mT + noise(at.value),
        correction=_apply(at.jacobian, state.correction) + shift,
    )


def _apply(matrix: Array, vector: Array) -> Array:
    return (matrix @ vector[..., None])[..., 0]
