"""How the elements of a kernel are stored: once each, a <= b, and in which groups they covary."""

from typing import NamedTuple

import numpy as np

from .._kernel import element_inputs, element_numbers, own_elements


class Elements(NamedTuple):
    """The elements (a, b), a <= b, of an N x N kernel, row after row.

    - `first`, `second`: their inputs, shape (E,).
    - `matrix`: which element an entry of the matrix is, (N, N).
    - `triple`: of each element (a, b) the elements aa, ab, bb, (E, 3): its change through a layer
        depends on those alone.
    - `groups`: elements whose covariances are wanted together, (groups, m): all elements as one
        group, or the triples of all pairs.
    """

    first: np.ndarray
    second: np.ndarray
    matrix: np.ndarray
    triple: np.ndarray
    groups: np.ndarray

    @property
    def inputs(self) -> int:
        return self.matrix.shape[0]

    @property
    def count(self) -> int:
        return self.first.shape[0]

    @property
    def pairs(self) -> bool:
        """Whether only covariances within pairs of inputs are kept."""
        return self.groups.shape[0] == self.count and self.groups.shape[1] == 3

    def unfold(self, values: np.ndarray) -> np.ndarray:
        """(..., E) -> (..., N, N)."""
        return values[..., self.matrix]

    def own(self, values: np.ndarray) -> np.ndarray:
        """Second moments of each element with itself: (..., groups, m, m) -> (..., E)."""
        index = np.arange(self.count)
        return values[..., index, 1, 1] if self.pairs else values[..., 0, index, index]

    def unfold_covariance(self, values: np.ndarray) -> np.ndarray:
        """(..., groups, m, m) -> (..., N, N, N, N), or (..., N, N, 3, 3) for pairs: (aa, ab, bb)."""
        if not self.pairs:
            whole = values[..., 0, :, :]
            return whole[..., self.matrix[:, :, None, None], self.matrix[None, None]]
        return self.unfold_pairs(values, 2)

    def unfold_pairs(self, values: np.ndarray, axes: int) -> np.ndarray:
        """What every pair a <= b has, with `axes` axes of its own which run over a before b: (..., E,
        *own) -> (..., N, N, *own)."""
        own = tuple(range(-axes, 0))
        blocks = np.take(values, self.matrix, axis=-axes - 1)
        below = np.tril(np.ones(self.matrix.shape, bool), -1)
        return np.where(below.reshape(*below.shape, *[1] * axes), np.flip(blocks, own), blocks)


def elements_of(inputs: int, *, pairs: bool) -> Elements:
    first, second = element_inputs(inputs)
    triple, matrix, count = own_elements(inputs), element_numbers(inputs), len(first)
    groups = triple if pairs else np.arange(count)[None, :]
    return Elements(first, second, matrix, triple, groups)
