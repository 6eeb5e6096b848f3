"""The entries of a symmetric kernel matrix, each once, in a rectangle.

The rows of the upper triangle are filled up by those from its end, turned round:

    00 01 02 03 04                           00 01 02 03
       11 12 13 14      00 01 02 03 04          11 12 13      33 00 01 02 03
          22 23 24  ->  44 11 12 13 14             22 23  ->  23 22 11 12 13
             33 34      34 33 22 23 24                33
                44

Half of the matrix is half of the work; and in a rectangle the two inputs of an entry follow from its row
and its column by a selection, which compilers vectorise; those of a list of pairs have to be looked up.
"""

import functools
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .kinds import AbstractKernel, Single, Table


class Triangle(AbstractKernel):
    """A symmetric kernel with every covariance once: closed under every layer.

    `cross` has the covariances of all pairs, and the variances again, in a layout of its own; the
    variances are `diagonal`. The two are independent variables, as they are in a `Block`.
    """

    diagonal: Float[Array, " n"]
    cross: Float[Array, "rows columns"]

    perturbed: ClassVar[str] = "cross"

    def map(self, single: Single, table: Table, entry: Table | None = None) -> "Triangle":
        if entry is not None:
            return Triangle(single(self.diagonal), entry(*sides(self.diagonal), self.cross))
        whole = unfold(self.cross, self.diagonal.shape[0])
        return Triangle(single(self.diagonal), fold(table(self.diagonal, self.diagonal, whole)))

    @property
    def variances(self) -> Float[Array, " n"]:
        return self.diagonal

    def matrix(self) -> Float[Array, "n n"]:
        """The kernel matrix; its diagonal holds the variances."""
        n = self.diagonal.shape[0]
        diagonal = jnp.eye(n, dtype=bool)
        return jnp.where(diagonal, self.diagonal[:, None], self.table(self.cross))

    def table(self, entries: Float[Array, "rows columns"]) -> Float[Array, "n n"]:
        return unfold(entries, self.diagonal.shape[0])


def as_triangle(kernel: Float[Array, "n n"]) -> Triangle:
    """A symmetric kernel matrix as a triangle; a derivative belongs to K_ab and K_ba, half to each."""
    return Triangle(jnp.diagonal(kernel), fold((kernel + kernel.T) / 2))


def fold(matrix: Float[Array, "n n"]) -> Float[Array, "rows columns"]:
    """A symmetric matrix in the layout of `Triangle.cross`."""
    return matrix[_layout(matrix.shape[0]).pairs]


def unfold(cross: Float[Array, "rows columns"], n: int) -> Float[Array, "n n"]:
    """The symmetric matrix of `n` inputs whose entries are `cross`."""
    first, second = _layout(n).pairs
    place = np.zeros((n, n), int)
    place[first, second] = place[second, first] = np.arange(cross.size).reshape(cross.shape)
    return cross.reshape(-1)[place]


def sides(values: Float[Array, " n"]) -> tuple[Array, Array]:
    """`values`, one an input, of the first and of the second input of every entry. (rows, columns)."""
    rows, columns, upper, _ = _layout(values.shape[0])
    first = jnp.where(upper, *(values[row][:, None] for row in rows))
    second = jnp.where(upper, *(values[column][None, :] for column in columns))
    return first, second


class _Layout(NamedTuple):
    """Which entries are of the upper row; the inputs of rows and columns, of upper entries and of the
    others; and with that the inputs of every entry."""

    rows: tuple[np.ndarray, np.ndarray]
    columns: tuple[np.ndarray, np.ndarray]
    upper: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray]


@functools.lru_cache
def _layout(n: int) -> _Layout:
    even = 1 - n % 2
    i, j = np.arange((n + 1) // 2), np.arange(n + even)
    # Modulo n, for entries that are not selected.
    rows, columns = (i, (n - even - i) % n), ((j - even) % n, (n - 1 - j) % n)
    upper = j[None, :] >= i[:, None] + even
    first, second = (
        np.where(upper, rows[0][:, None], rows[1][:, None]),
        np.where(upper, columns[0][None, :], columns[1][None, :]),
    )
    return _Layout(rows, columns, upper, (first, second))
