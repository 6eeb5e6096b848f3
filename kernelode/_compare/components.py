"""Components of moments of kernels, each once, and the inputs that they are of."""

import itertools

import numpy as np

from .._kernel import element_inputs

#: An index of the axes behind `layers` or `times`, and the inputs of every component.
Components = tuple[tuple[np.ndarray, ...], list[tuple[int, ...]]]

#: The symmetries of F, indices (c, a, d, b), and of B, indices (p, r, q, s), as permutations of their
#: axes: H_ij,ab = H_ji,ba, and outputs i and j have the same law.
_CROSS = ((2, 3, 0, 1),)
_EXCHANGE = ((1, 0, 3, 2), (2, 3, 0, 1))


def pair_blocks(covariance: np.ndarray) -> np.ndarray:
    """(..., N, N, N, N) -> (..., N, N, 3, 3): of each pair the elements (aa, ab, bb)."""
    a, b = np.indices(covariance.shape[-2:])
    first, second = np.stack([a, a, b], axis=-1), np.stack([a, b, b], axis=-1)
    left, right = (first[..., :, None], second[..., :, None]), (first[..., None, :], second[..., None, :])
    return covariance[..., *left, *right]


def of_kernel(inputs: int) -> Components:
    """Of a symmetric (N, N)."""
    found = list(zip(*element_inputs(inputs)))
    return _indexed(found, found)


def of_covariance(inputs: int) -> Components:
    """Of (N, N, N, N), the covariance of a kernel with itself."""
    first, second = element_inputs(inputs)
    left, right = element_inputs(len(first))
    found = list(zip(first[left], second[left], first[right], second[right]))
    return _indexed(found, found)


def of_pair_covariance(inputs: int, *, symmetric: bool = True) -> Components:
    """Of (N, N, 3, 3), the elements (aa, ab, bb) of a kernel with those of itself, or of another."""
    both = ((i, j) for i, j in itertools.product(range(3), repeat=2) if i <= j or not symmetric)
    # (aa, aa) of a pair is that of a alone, which has a block of its own.
    others = [e for e in both if e not in ((0, 0), (2, 2))]
    first, second = element_inputs(inputs)
    found = [(a, b, *e) for a, b in zip(first, second) for e in ([(0, 0)] if a == b else others)]
    elements = lambda a, b: [(a, a), (a, b), (b, b)]
    return _indexed(found, [(*elements(a, b)[i], *elements(a, b)[j]) for a, b, i, j in found])


def of_cross(inputs: int) -> Components:
    """Of F, (N, N, 2, 2, 2, 2)."""
    return _labelled(inputs, _CROSS)


def of_exchange(inputs: int) -> Components:
    """Of B, (N, N, 2, 2, 2, 2)."""
    return _labelled(inputs, _EXCHANGE)


def _labelled(inputs: int, symmetries: tuple[tuple[int, ...], ...]) -> Components:
    """Those with four indices, 0 for a and 1 for b."""
    seen, others = set(), []
    for entry in itertools.product((0, 1), repeat=4):
        if entry in seen or len(set(entry)) == 1:
            continue
        others.append(entry)
        orbit = {entry}
        for _ in symmetries:
            orbit |= {tuple(e[k] for k in order) for e in orbit for order in symmetries}
        seen |= orbit
    first, second = element_inputs(inputs)
    found = [(a, b, *e) for a, b in zip(first, second) for e in ([(0,) * 4] if a == b else others)]
    return _indexed(found, [tuple((a, b)[k] for k in e) for a, b, *e in found])


def _indexed(index: list, labels: list) -> Components:
    return tuple(np.array(index).T), [tuple(int(x) for x in label) for label in labels]
