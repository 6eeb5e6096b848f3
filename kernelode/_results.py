"""Outcomes of what the library computes."""

from typing import TYPE_CHECKING, Any

import diffrax
import equinox as eqx
from jaxtyping import Array

if TYPE_CHECKING:
    # At run time an enumeration with items can be extended; type checkers refuse that, and know nothing
    # of the outcome. So they get all names spelled out (tests/test_api.py compares).
    class RESULTS(eqx.Enumeration):
        """Outcomes: those of Diffrax, and our own."""

        successful = ""
        max_steps_reached = ""
        singular = ""
        breakdown = ""
        stagnation = ""
        conlim = ""
        nonfinite_input = ""
        nonlinear_max_steps_reached = ""
        nonlinear_divergence = ""
        nonfinite = ""
        dt_min_reached = ""
        event_occurred = ""
        max_steps_rejected = ""
        internal_error = ""
        not_finite = ""
        unbounded = ""
        expansion_not_small = ""

else:

    class RESULTS(diffrax.RESULTS):
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
    return RESULTS.where(condition, yes, no)
