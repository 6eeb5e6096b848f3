"""Moments of order 1/n, turned into statements about a network of a given width."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

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


class TangentAtWidth(Shown):
    """The tangent kernel H_ii of a neuron, in networks of width n over random weights, to first order
    in 1/n.

    - `mean`: Theta + Theta1/n, shape (times, n, n).
    - `standard_deviation`: of H_ii,ab, sqrt(`variance` / n), shape (times, n, n).
    - `validity`: max(variance_ab / (n Theta_aa Theta_bb), |Theta1_ab| / (n sqrt(Theta_aa Theta_bb)))
        over all elements, shape (times,): how large the corrections are beside Theta. What is neglected
        is of order its square.
    - `result`: `RESULTS.successful`, or `RESULTS.expansion_not_small` where `validity` exceeds 1/2
        at a saved depth.

    Of moments without an axis of times, none of these has one.
    """

    mean: Float[Array, "*times n n"]
    standard_deviation: Float[Array, "*times n n"]
    validity: Float[Array, "*times"]
    result: RESULTS


class Expansion(NamedTuple):
    """A random matrix at a width: its mean, its spread, and how far the expansion can be trusted."""

    width: Float[Array, ""]
    mean: Float[Array, "*times n n"]
    standard_deviation: Float[Array, "*times n n"]
    validity: Float[Array, "*times"]
    result: RESULTS


def expand(
    limit: Float[Array, "*times n n"],
    correction: Float[Array, "*times n n"],
    variance: Float[Array, "*times n n"],
    width: RealLike,
) -> Expansion:
    """A matrix of mean `limit` + `correction`/n and variance `variance`/n at a width n, which is
    traced; times, if there are any, are the leading axis."""
    n = scalar("width", width, positive=True).astype(limit.dtype)
    variance, shift = variance / n, correction / n
    root = _root(jnp.diagonal(limit, axis1=-2, axis2=-1))
    # The root of each factor, not of the product, which overflows first.
    size = root[..., :, None] * root[..., None, :]
    # An element without size is zero in every network.
    ratio = lambda x: jnp.where(size == 0, 0, x / jnp.where(size == 0, 1, size))
    validity = jnp.max(jnp.maximum(ratio(ratio(variance)), ratio(jnp.abs(shift))), axis=(-2, -1))
    small = jnp.all(validity <= _SMALL)
    result = choose_result(small, RESULTS.successful, RESULTS.expansion_not_small)
    return Expansion(n, limit + shift, _root(variance), validity, result)


def _root(x: Array) -> Array:
    """sqrt(x), with a zero derivative at zero: what is zero there is so for all parameters."""
    return jnp.where(x == 0, 0, jnp.sqrt(jnp.where(x == 0, 1, x)))
