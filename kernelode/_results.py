"""Outcomes of what the library computes."""

from typing import Any

import diffrax
from jaxtyping import Array


class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """Outcomes: those of Diffrax, and our own."""

    not_finite = (
        "The kernel overflowed: it grows without bound at these variances, depth and residual scale. "
        "Reduce one of them."
    )
    unbounded = (
        "The search ran away by a factor of more than exp(30): the objective has no maximum in the "
        "chosen parameters."
    )
    expansion_not_small = (
        "At this width the corrections of order 1/n are not small beside the mean kernel: what is "
        "neglected is of the order of their square. Increase the width, or reduce the depth."
    )


def choose_result(condition: Array, yes: Any, no: Any) -> RESULTS:
    """`yes` where the condition holds, else `no`."""
    return RESULTS.where(condition, yes, no)  # pyright: ignore[reportArgumentType]
