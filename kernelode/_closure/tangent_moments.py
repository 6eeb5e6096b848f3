"""Statistics of the tangent kernel at large width, as a solution reports them."""

import numpy as np
from jaxtyping import Array, Bool, Float

from .base import TangentMoments, WidthMoments
from .pair_blocks import over_pairs
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
    whole = _blocks(same, singles, pairs)
    errors = _blocks(same, single_errors, pair_errors)
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


def _blocks(same: Array | np.ndarray, singles: UnitMoments, pairs: UnitMoments) -> UnitMoments:
    """Axes of elements (aa, ab, bb) stay; those of labels become two, of 0 for a and 1 for b."""
    labels = lambda x: x.reshape(*x.shape[:-2], *[2 if x.shape[-1] == 4 else 1] * 4)
    split = lambda unit: unit._replace(cross=labels(unit.cross), exchange=labels(unit.exchange))
    leading = lambda name: 1 if name == "corrections" else 0
    singles, pairs = split(singles), split(pairs)
    found = {
        name: over_pairs(same, getattr(singles, name), getattr(pairs, name), leading(name))
        for name in UnitMoments._fields
    }
    return UnitMoments(**found)
