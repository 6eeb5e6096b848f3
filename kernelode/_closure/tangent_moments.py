"""Statistics of the tangent kernel at large width, as a solution reports them."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._kernel import pair_numbers
from .base import TangentMoments, WidthMoments
from .tangent_unit import UnitMoments


def gather(
    kernel: Float[Array, "n n"],
    tangent: Float[Array, "n n"],
    same: Bool[Array | np.ndarray, "n n"],
    singles: UnitMoments,
    pairs: UnitMoments,
    single_errors: UnitMoments,
    pair_errors: UnitMoments,
) -> WidthMoments:
    """Moments over all pairs of inputs, in both orders and of each input with itself; those of inputs
    that are the `same` are those of one."""
    whole = _over_pairs(same, singles, pairs)
    errors = _over_pairs(same, single_errors, pair_errors)
    shift, shift_error = (x.corrections[..., 1] for x in (whole, errors))
    return WidthMoments(
        mean_kernel=kernel,
        kernel_covariance=whole.kernel,
        kernel_variance=whole.kernel[..., 1, 1],
        mean_correction=shift[..., 0],
        covariance_truncation=errors.kernel,
        correction_truncation=shift_error[..., 0],
        tangent=TangentMoments(
            tangent_kernel=tangent,
            correction=shift[..., 1],
            covariance=whole.tangent,
            mixed=whole.mixed,
            cross=whole.cross,
            exchange=whole.exchange,
            variance=whole.tangent[..., 1, 1]
            + whole.exchange[..., 0, 0, 1, 1]
            + whole.exchange[..., 0, 1, 1, 0],
            correction_truncation=shift_error[..., 1],
            covariance_truncation=errors.tangent,
            mixed_truncation=errors.mixed,
            cross_truncation=errors.cross,
            exchange_truncation=errors.exchange,
        ),
    )


def _over_pairs(same: Array | np.ndarray, singles: UnitMoments, pairs: UnitMoments) -> UnitMoments:
    """Axes of elements (aa, ab, bb) stay; those of labels become two, of 0 for a and 1 for b."""
    labels = lambda x: x.reshape(*x.shape[:-2], *[2 if x.shape[-1] == 4 else 1] * 4)
    split = lambda unit: unit._replace(cross=labels(unit.cross), exchange=labels(unit.exchange))
    leading = lambda name: 1 if name == "corrections" else 0
    singles, pairs = split(singles), split(pairs)
    found = {
        name: _expanded(same, getattr(singles, name), getattr(pairs, name), leading(name))
        for name in UnitMoments._fields
    }
    return UnitMoments(**found)


def _expanded(same: Array | np.ndarray, single: Array, pair: Array, leading: int) -> Array:
    """(n, n, ...) from those of inputs and of pairs: the components of one input alone are its own.
    `leading` of their axes are no inputs."""
    n, sides = same.shape[0], single.ndim - 1 - leading
    alone = jnp.broadcast_to(single, (n, *pair.shape[1:]))
    if n == 1:
        return alone[:, None]
    index = pair_numbers(n)
    block = pair[index]
    flipped = jnp.flip(block, axis=tuple(range(2 + leading, block.ndim)))
    a, b = np.indices((n, n))
    swapped = (a > b).reshape(n, n, *[1] * (pair.ndim - 1))
    block = jnp.where(swapped, flipped, block)
    before = (slice(None),) * (2 + leading)
    first, last = ((*before, *[end] * sides) for end in (0, -1))
    own = alone[(slice(None), *[slice(None)] * leading, *[0] * sides)]
    block = block.at[first].set(own[a]).at[last].set(own[b])
    return jnp.where(same.reshape(n, n, *[1] * (pair.ndim - 1)), alone[a], block)
