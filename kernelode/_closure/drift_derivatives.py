"""Derivatives of the drift with respect to the elements of each pair's kernel, by JAX.

Q_ab depends on (K_aa, K_ab, K_bb) alone, the three independent coordinates of a `Block`: three
perturbations, of all rows, all covariances and all columns at once, tell the derivatives of every pair.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._kernel import Block


class DriftDerivatives(NamedTuple):
    """Q, chi = dQ/dK and D^2 Q of every pair (a, b): X in (aa, ab, bb)."""

    value: Float[Array, "n m 3"]
    chi: Float[Array, "n m 3 3"]
    curvature: Float[Array, "n m 3 3 3"]


def drift_derivatives(function: Callable[..., Any], block: Block) -> DriftDerivatives:
    """Of `function`, Block -> Block, elementwise in pairs. Perturbations are batched, so that the
    expectations are evaluated once."""
    basis = block.tangents("row", "cross", "column")

    def with_first(block: Block):
        along = lambda tangent: jax.jvp(function, (block,), (tangent,))
        return jax.vmap(along, out_axes=(None, 0))(basis)

    along = lambda tangent: jax.jvp(with_first, (block,), (tangent,))
    (value, first), (_, curvature) = jax.vmap(along, out_axes=((None, None), (0, 0)))(basis)
    return DriftDerivatives(
        value=_entries(value), chi=_last(_entries(first), 1), curvature=_last(_entries(curvature), 2)
    )


def _entries(block: Block) -> Float[Array, "*lead n m 3"]:
    """(aa, ab, bb) of every pair."""
    row = jnp.broadcast_to(block.row[..., :, None], block.cross.shape)
    column = jnp.broadcast_to(block.column[..., None, :], block.cross.shape)
    return jnp.stack([row, block.cross, column], axis=-1)


def _last(x: Array, count: int) -> Array:
    """The leading `count` axes, moved to the end."""
    return jnp.moveaxis(x, tuple(range(count)), tuple(range(-count, 0)))
