"""Averages of functions of an input whose variance is zero, to first order in the variance.

Derivatives with respect to a kernel exist there, but not through sqrt(q) z.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from .._activation.base import derivatives


def padded(x: Float[Array, " m"], length: int) -> Float[Array, " length"]:
    return jnp.concatenate([x, jnp.zeros((max(length - x.shape[0], 0),), x.dtype)])[:length]


def taylor_coefficients(
    fn: Callable[[Array], Array], q: Float[Array, ""], order: int, *, kinked: bool
) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """(fn^(m)(0) + q fn^(m+2)(0) / 2) / sqrt(m!) of fn and of its square, m < order + 2; zero for m > 6.

    Averages near zero to first order in q: five orders are all that a layer needs of them (the second
    derivative of the drift is of fourth order in x). At a kink in zero, the mean of its two sides: what
    |x| contributes diverges, and is left out as in `_activation/homogeneous.py`.
    """
    top = 6
    x = jnp.asarray([-1e-30, 1e-30] if kinked else [0.0], q.dtype)
    of_fn = derivatives(fn, x, top)
    binomial = jnp.asarray(scipy.special.comb(*np.ogrid[: top + 1, : top + 1]), q.dtype)
    leibniz = lambda m: sum(binomial[m, i] * of_fn[i] * of_fn[m - i] for i in range(m + 1))
    squared = jnp.stack([leibniz(m) for m in range(top + 1)])
    roots = jnp.asarray([math.sqrt(math.factorial(m)) for m in range(top + 1)], q.dtype)
    both = []
    for sides in (of_fn, squared):
        mean = jnp.mean(sides, axis=1)
        both.append(padded((mean + q / 2 * padded(mean[2:], top + 1)) / roots, order + 2))
    return both[0], both[1]
