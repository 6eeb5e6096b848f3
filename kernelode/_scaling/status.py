"""How a search for an optimum ended."""

import equinox as eqx


class STATUS(eqx.Enumeration):
    """Where the response is largest. A number is meaningful for `interior` only."""

    interior = "The response has an interior maximum."
    decreasing = "The response is largest without any depth: it falls as the scale grows from zero."
    increasing = "The response grows without bound, or towards a limit, as the scale grows."
    inaccurate = (
        "A Gaussian expectation on the way is not known to a relative 1e-6 (1e-3 in float32): what the "
        "response does cannot be told."
    )
    failed = "The search did not converge, or the response is not positive at its optimum."
