"""Elements of a kernel, and the products of kernels that Wick's theorem makes of them.

Moments of a kernel carry one index X = (a, b), a <= b, for each of its elements. For a pair of inputs
they are (aa, ab, bb), each an independent coordinate: the off-diagonal element is counted once.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from .._kernel import element_inputs


class Elements(NamedTuple):
    """First and second input of every element X."""

    first: np.ndarray
    second: np.ndarray


#: (aa, ab, bb) of a 2 x 2 kernel.
PAIR = Elements(np.array([0, 0, 1]), np.array([0, 1, 1]))


def all_elements(n: int) -> Elements:
    """The elements a <= b of an n x n kernel, row after row."""
    return Elements(*element_inputs(n))


def wick_noise(
    kernel: Float[Array, "n n"], other: Float[Array, "n n"], elements: Elements
) -> Float[Array, "x y"]:
    """Sigma(K, Q)_XY = K_ac Q_bd + K_ad Q_bc + K_bc Q_ad + K_bd Q_ac for X = ab, Y = cd."""
    a, b = elements.first[:, None], elements.second[:, None]
    c, d = elements.first[None, :], elements.second[None, :]
    return (
        kernel[a, c] * other[b, d]
        + kernel[a, d] * other[b, c]
        + kernel[b, c] * other[a, d]
        + kernel[b, d] * other[a, c]
    )


def wishart(kernel: Float[Array, "n n"], elements: Elements) -> Float[Array, "x y"]:
    """Gamma(K)_XY = K_ac K_bd + K_ad K_bc: n times the covariance of a Wishart matrix."""
    return wick_noise(kernel, kernel, elements) / 2
