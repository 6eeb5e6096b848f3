"""Functions of one pair, for all pairs of a kernel."""

from typing import Any

import jax
from jaxtyping import Array

from .._kernel import Block, element_inputs, element_numbers


def pair_entries(kernel: Any) -> tuple[Array, Array, Array]:
    """(K_aa, K_bb, K_ab) for every element (a, b), a <= b."""
    rows, columns = element_inputs(kernel.shape[0])
    return kernel[rows, rows], kernel[columns, columns], kernel[rows, columns]


def pair_block(entries: Any) -> Block:
    """One pair's entries as a block of one input with one input."""
    row, column, cross = entries
    return Block(row[None], column[None], cross[None, None])


def from_elements(tree: Any, n: int) -> Any:
    """(elements, ...) leaves as symmetric (n, n, ...) ones."""
    place = element_numbers(n)
    return jax.tree.map(lambda x: x[place], tree)
