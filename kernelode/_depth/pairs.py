"""All pairs of inputs: K0, K1 and the covariance of each pair's own elements, at a cost of order n^2."""

from collections.abc import Sequence
from typing import Any

from .._architecture import AbstractArchitecture
from .._closure import AbstractClosure, AbstractPairable, AbstractPairClosure, default_closure
from .._support.custom_types import RealLike
from .arguments import checked_closure, checked_network
from .propagate import propagate
from .solution import Solution
from .solve import solve


def solve_pairs(
    network: AbstractArchitecture,
    kernel: RealLike,
    ts: RealLike,
    *,
    closure: AbstractClosure | None = None,
    **options: Any,
) -> Solution:
    """As `solve`, for all pairs of inputs.

    K0 and K1 are the same as there; `kernel_covariance` has shape (times, n, n, 3, 3): for each pair
    (a, b) the covariances of the elements (aa, ab, bb) among themselves, on which every closure
    closes. The full covariance of `solve` costs a power of n^2 more.

    **Arguments**

    - `closure`: by default the best answer known: `WickTower(order=16)`, and `GOnly()` for feed-forward
        networks, where it is exact. For residual networks `GOnly()` is the published closure, whose V4
        lacks a part and whose K1 is wrong. One that is on pairs already, as that of a solution, is taken
        as it is.
    - All others: those of `solve`.

    **Raises** `TypeError` for a closure without a form on pairs.
    """
    return solve(network, kernel, ts, closure=_on_pairs(network, closure), **options)


def propagate_pairs(
    network: AbstractArchitecture,
    kernel: RealLike,
    *,
    closure: AbstractClosure | None = None,
    layers: Sequence[int] | None = None,
    throw: bool = True,
) -> Solution:
    """As `propagate`, for all pairs of inputs; see `solve_pairs`."""
    closure = _on_pairs(network, closure)
    return propagate(network, kernel, closure=closure, layers=layers, throw=throw)


def _on_pairs(network: AbstractArchitecture, closure: AbstractClosure | None) -> AbstractClosure:
    closure = checked_closure(closure, default_closure(checked_network(network)))
    if isinstance(closure, AbstractPairable):
        return closure.pairs()
    if isinstance(closure, AbstractPairClosure):
        return closure
    raise TypeError(
        "`closure` must have a form on pairs of inputs, as `GOnly()` and `WickTower(order)` have, or be "
        f"an `AbstractPairClosure`; got {type(closure).__name__}."
    )
