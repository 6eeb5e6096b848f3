"""Functions of one pair, for all pairs of a kernel."""

import jax
import numpy as np

from .._kernel import Block


def upper_triangle(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every pair a <= b."""
    return np.triu_indices(n)


def pair_entries(kernel):
    """(K_aa, K_bb, K_ab) for every pair a <= b."""
    rows, columns = upper_triangle(kernel.shape[0])
    return kernel[rows, rows], kernel[columns, columns], kernel[rows, columns]


def pair_block(entries) -> Block:
    """One pair's entries as a block of one input with one input."""
    row, column, cross = entries
    return Block(row[None], column[None], cross[None, None])


def from_upper_triangle(tree, n: int):
    """(pairs, ...) leaves over a <= b as symmetric (n, n, ...) ones."""
    rows, columns = upper_triangle(n)
    place = np.zeros((n, n), int)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return jax.tree.map(lambda x: x[place], tree)
