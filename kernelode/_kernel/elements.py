"""The numbering of a kernel's elements (a, b), a <= b, and of its pairs a < b: row after row."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def element_inputs(n: int) -> tuple[Int[np.ndarray, " elements"], Int[np.ndarray, " elements"]]:
    """The inputs a and b of every element (a, b), a <= b, of a kernel of n inputs."""
    return np.triu_indices(n)


def input_pairs(n: int) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """The inputs a and b of every pair a < b."""
    return np.triu_indices(n, k=1)


def element_numbers(n: int) -> Int[np.ndarray, "n n"]:
    """The number of the element (a, b), in either order."""
    return _numbers(n, *element_inputs(n))


def pair_numbers(n: int) -> Int[np.ndarray, "n n"]:
    """The number of the pair {a, b}, in either order; zero for an input with itself."""
    return _numbers(n, *input_pairs(n))


def symmetric(diagonal: Float[Array, " n"], pairs: Float[Array, " pairs"]) -> Float[Array, "n n"]:
    """The matrix of what inputs and what pairs have."""
    n = diagonal.shape[0]
    rows, columns = input_pairs(n)
    found = jnp.zeros((n, n), diagonal.dtype)
    found = found.at[rows, columns].set(pairs).at[columns, rows].set(pairs)
    return found.at[np.arange(n), np.arange(n)].set(diagonal)


def own_elements(n: int) -> Int[np.ndarray, "elements 3"]:
    """The numbers of (aa, ab, bb) for every element ab, which closes with them."""
    first, second = element_inputs(n)
    numbers = element_numbers(n)
    return np.stack([numbers[first, first], np.arange(len(first)), numbers[second, second]], axis=1)


def _numbers(n: int, first: np.ndarray, second: np.ndarray) -> Int[np.ndarray, "n n"]:
    numbers = np.zeros((n, n), int)
    numbers[first, second] = numbers[second, first] = np.arange(len(first))
    return numbers
