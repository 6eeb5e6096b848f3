"""Moments of order 1/n, turned into statements about a network of a given width."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._closure.base import WidthMoments
from .._numerics.safe import safe_divide
from .._support.checks import scalar
from .._support.custom_types import RealLike
from .._support.results import RESULTS, choose_result
from .._support.show import Shown

#: Beyond this ratio of a correction to what it corrects, an expansion in 1/n is not small.
_SMALL = 0.5


class AtWidth(Shown):
    """The kernel G of networks of width n over random weights, to first order in 1/n.

    - `mean`: K0 + K1/n, shape (times, n, n).
    - `covariance`: V4/n, of the shape of `kernel_covariance`.
    - `standard_deviation`: of G, sqrt(V4[ab, ab] / n), shape (times, n, n).
    - `validity`: max(V4[ab, ab] / (n K_aa K_bb), |K1_ab| / (n sqrt(K_aa K_bb))) over all elements,
        shape (times,): how large the corrections are beside K0. What is neglected is of order its square.
    - `result`: `RESULTS.successful`, or `RESULTS.expansion_not_small` where `validity` exceeds 1/2
        at a saved depth.
    """

    mean: Float[Array, "times n n"]
    covariance: Float[Array, "..."]
    standard_deviation: Float[Array, "times n n"]
    validity: Float[Array, " times"]
    result: RESULTS


def at_width(moments: WidthMoments, width: RealLike) -> AtWidth:
    """`moments` (leading axis: times) at a width, which is traced."""
    kernel = moments.mean_kernel
    n = scalar("width", width, positive=True).astype(kernel.dtype)
    variance = moments.kernel_variance / n
    shift = moments.mean_correction / n
    diagonal = jnp.diagonal(kernel, axis1=1, axis2=2)
    product = diagonal[:, :, None] * diagonal[:, None, :]
    relative = lambda x, size: safe_divide(jnp.abs(x), size)
    ratios = jnp.maximum(relative(variance, product), relative(shift, jnp.sqrt(product)))
    validity = jnp.max(ratios, axis=(1, 2))
    return AtWidth(
        mean=kernel + shift,
        covariance=moments.kernel_covariance / n,
        standard_deviation=jnp.sqrt(variance),
        validity=validity,
        result=choose_result(
            jnp.all(validity <= _SMALL), RESULTS.successful, RESULTS.expansion_not_small
        ),
    )
