"""Sets of kernel elements that moments of order 1/n close on: all of them, or those of every pair."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._kernel import Block, as_matrix, element_numbers, own_elements
from .base import WidthMoments
from .drift_derivatives import DriftDerivatives, drift_derivatives
from .elements import PAIR, Elements, all_elements, wick_noise

KernelMap = Callable[[Block], Block]


class Linearised(NamedTuple):
    """A map of kernels about one: its value, and on elements X, Y its Jacobian J. `curvature` has second
    derivatives by the elements that X = ab depends on, (aa, ab, bb)."""

    value: Block
    jacobian: Float[Array, "*pairs x x"]
    curvature: Float[Array, "*pairs x 3 3"]


@dataclasses.dataclass(frozen=True)
class AbstractLayout(abc.ABC):
    """Elements X of the kernel of so many inputs; leading axes `pairs` are moments by themselves."""

    inputs: int

    @abc.abstractmethod
    def elements(self) -> Elements:
        """First and second input of every element, (*pairs, x)."""

    @abc.abstractmethod
    def wick_noise(self, kernel: Block, other: Block) -> Float[Array, "*pairs x x"]:
        """Sigma(K, Q), see `elements.py`."""

    @abc.abstractmethod
    def linearise(self, function: KernelMap, kernel: Block) -> Linearised:
        """`function`, a map Block -> Block, elementwise in pairs."""

    @abc.abstractmethod
    def curve(self, at: Linearised, covariance: Float[Array, "*pairs x x"]) -> Float[Array, "*pairs x"]:
        """D^2 F[V]."""

    @abc.abstractmethod
    def moments(self, kernel: Block, covariance: Array, correction: Array) -> WidthMoments:
        """Moments over elements as `WidthMoments` has them, of a closure that is not truncated."""

    def wishart(self, kernel: Block) -> Float[Array, "*pairs x x"]:
        """Gamma(K)."""
        return self.wick_noise(kernel, kernel) / 2


class AllElements(AbstractLayout):
    """The elements a <= b, each with every other."""

    def elements(self) -> Elements:
        return all_elements(self.inputs)

    def wick_noise(self, kernel: Block, other: Block) -> Float[Array, "x x"]:
        return wick_noise(as_matrix(kernel), as_matrix(other), self.elements())

    def linearise(self, function: KernelMap, kernel: Block) -> Linearised:
        found = _with_own(drift_derivatives(function, kernel))
        first, second = self.elements()
        own, rows = own_elements(self.inputs), np.arange(len(first))[:, None]
        count = len(first)
        chi = jnp.zeros((count, count), kernel.cross.dtype).at[rows, own].add(found.chi[first, second, 1])
        return Linearised(_value(found), chi, found.curvature[first, second, 1])

    def curve(self, at: Linearised, covariance: Float[Array, "x x"]) -> Float[Array, " x"]:
        own = own_elements(self.inputs)
        return jnp.einsum("xyz,xyz->x", at.curvature, covariance[own[:, :, None], own[:, None, :]])

    def moments(self, kernel: Block, covariance: Array, correction: Array) -> WidthMoments:
        return four_point_moments(as_matrix(kernel), covariance, correction)


class PairElements(AbstractLayout):
    """(aa, ab, bb) of every pair (a, b), in both orders and of each input with itself."""

    def elements(self) -> Elements:
        a, b = np.arange(self.inputs)[:, None, None], np.arange(self.inputs)[None, :, None]
        return Elements(*(np.where(part == 0, a, b) for part in PAIR))

    def wick_noise(self, kernel: Block, other: Block) -> Float[Array, "n n 3 3"]:
        one_pair = lambda k, q: wick_noise(k, q, PAIR)
        return jax.vmap(jax.vmap(one_pair))(pair_matrices(kernel), pair_matrices(other))

    def linearise(self, function: KernelMap, kernel: Block) -> Linearised:
        found = _with_own(drift_derivatives(function, kernel))
        return Linearised(_value(found), found.chi, found.curvature)

    def curve(self, at: Linearised, covariance: Float[Array, "n n 3 3"]) -> Float[Array, "n n 3"]:
        return jnp.einsum("abxyz,abyz->abx", at.curvature, covariance)

    def moments(self, kernel: Block, covariance: Array, correction: Array) -> WidthMoments:
        own = np.eye(self.inputs, dtype=bool)[..., None, None]
        whole = jnp.where(own, covariance[..., :1, :1], covariance)
        shift = jnp.where(own[..., 0, 0], correction[..., 0], correction[..., 1])
        nothing = jnp.zeros_like(whole), jnp.zeros_like(shift)
        return WidthMoments(as_matrix(kernel), whole, whole[..., 1, 1], shift, *nothing)


def four_point_moments(
    kernel: Any, covariance: Array, correction: Array, *truncation: Array
) -> WidthMoments:
    """Moments over all elements (X, Y) as (n, n, n, n) and (n, n) arrays."""
    numbers = element_numbers(kernel.shape[0])
    expand = lambda v, k1: (v[numbers[:, :, None, None], numbers[None, None]], k1[numbers])
    errors = truncation or (jnp.zeros_like(covariance), jnp.zeros_like(correction))
    whole, shift = expand(covariance, correction)
    variance = jnp.diagonal(covariance)[numbers]
    return WidthMoments(kernel, whole, variance, shift, *expand(*errors))


def pair_matrices(block: Block) -> Float[Array, "n n 2 2"]:
    """The 2 x 2 kernel of every pair."""
    row = jnp.broadcast_to(block.row[:, None], block.cross.shape)
    column = jnp.broadcast_to(block.column[None, :], block.cross.shape)
    entries = jnp.stack([row, block.cross, block.cross, column], axis=-1)
    return entries.reshape(*block.cross.shape, 2, 2)


def _with_own(d: DriftDerivatives) -> DriftDerivatives:
    """An input with itself is one coordinate: its element is aa, not the limit of ab."""
    own = np.eye(d.value.shape[0], dtype=bool)[..., None]
    first = lambda x: jnp.where(own.reshape(own.shape + (1,) * (x.ndim - 3)), x[:, :, :1], x)
    return DriftDerivatives(first(d.value), first(d.chi), first(d.curvature))


def _value(d: DriftDerivatives) -> Block:
    own = np.arange(d.value.shape[0])
    diagonal = d.value[own, own, 0]
    return Block(diagonal, diagonal, d.value[..., 1])
