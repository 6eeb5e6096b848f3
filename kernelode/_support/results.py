"""Outcomes of the library's computations."""

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
        not_a_number = ""
        underflow = ""
        inaccurate = ""
        unbounded = ""
        expansion_not_small = ""
        singular_kernel = ""

else:

    class RESULTS(diffrax.RESULTS):
        """Outcomes: those of Diffrax, and our own."""

        not_finite = (
            "The kernel overflowed: it grows without bound at these variances, depth and residual scale. "
            "Reduce one of them."
        )
        not_a_number = (
            "An expectation over the activation is not a number, though the kernel before it is finite "
            "and moderate: the activation is NaN at some inputs, as the logarithm is at negative ones."
        )
        underflow = (
            "A positive variance underflowed to zero: it falls below the smallest number of its dtype at "
            "these variances and depth. Raise one of the variances, reduce the depth, or use float64."
        )
        inaccurate = (
            "A Gaussian expectation over the activation is not known to a relative 1e-6 (1e-3 in "
            "float32): declare the kinks of a function, `Elementwise(fn, kinks=...)`, or reduce the "
            "variances."
        )
        unbounded = (
            "The objective keeps improving as the chosen parameters run away: it has no maximum in them."
        )
        expansion_not_small = (
            "At this width the corrections of order 1/n are not small beside the mean kernel: what is "
            "neglected is of the order of their square. Increase the width, or reduce the depth."
        )
        singular_kernel = (
            "The kernel of the training inputs, with the ridge, has no Cholesky factor: inputs repeat or "
            "the kernel is singular to rounding. Raise `ridge`."
        )


def choose_result(condition: Array, yes: Any, no: Any) -> RESULTS:
    """`yes` where the condition holds, else `no`."""
    return RESULTS.where(condition, yes, no)
