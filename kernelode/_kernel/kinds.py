"""Kinds of kernels: which entries travel through a network together."""

import abc
from collections.abc import Callable
from typing import ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._support.show import Shown

Kernel = TypeVar("Kernel", bound="AbstractKernel")

#: Of a variance, and of the variances and the covariance of two inputs.
Single = Callable[[Array], Array]
Table = Callable[[Array, Array, Array], Array]


class AbstractKernel(Shown):
    """Entries of a kernel that are closed under every layer.

    Variances and covariances are independent variables: to perturb the one holds the other, also where
    two inputs are the same.
    """

    #: The field that is perturbed entry by entry: covariances, or variances where there is nothing else.
    perturbed: eqx.AbstractClassVar[str]

    @abc.abstractmethod
    def map(
        self: Kernel,
        single: Single,
        table: Table,
        entry: Table | None = None,
    ) -> Kernel:
        """The kernel of variances `single(q)` and covariances `table(a, b, c)`.

        A table is of all pairs of inputs, of variances a (n,) and b (m,) and covariances c (n, m);
        `entry` is the same elementwise, where there is a formula: kinds with a layout of their own
        then need no table.
        """

    @property
    @abc.abstractmethod
    def variances(self) -> Array:
        """The variances of all inputs."""

    @abc.abstractmethod
    def matrix(self) -> Array:
        """The kernel between the inputs; of variances alone, those."""

    @abc.abstractmethod
    def table(self, entries: Array) -> Array:
        """Numbers in the layout of `entries`, as `matrix` has its own."""

    @property
    def dtype(self) -> jnp.dtype:
        """That of the entries."""
        return self.entries.dtype

    @property
    def entries(self) -> Array:
        """Those that are perturbed one by one."""
        return getattr(self, self.perturbed)

    def tangents(self: Kernel, *names: str) -> Kernel:
        """Unit perturbations, stacked: of all that is in each of the fields."""
        perturbations = [self._one_in(name) for name in names]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *perturbations)

    def tangent(self: Kernel) -> Kernel:
        """One in each of `entries`, zero elsewhere."""
        return self._one_in(self.perturbed)

    def perturbation(self: Kernel, entries: Array) -> Kernel:
        """These numbers in `entries`, zero elsewhere."""
        zero = jax.tree.map(jnp.zeros_like, self)
        return eqx.tree_at(lambda k: getattr(k, self.perturbed), zero, entries)

    def _one_in(self: Kernel, name: str) -> Kernel:
        zero = jax.tree.map(jnp.zeros_like, self)
        return eqx.tree_at(lambda k: getattr(k, name), zero, replace_fn=jnp.ones_like)


class Variances(AbstractKernel):
    """Diagonal entries alone: each input's variance travels by itself."""

    values: Float[Array, "*shape"]

    perturbed: ClassVar[str] = "values"

    def map(self, single: Single, table: Table, entry: Table | None = None) -> "Variances":
        return Variances(single(self.values))

    @property
    def variances(self) -> Float[Array, "*shape"]:
        return self.values

    def matrix(self) -> Float[Array, "*shape"]:
        return self.values

    def table(self, entries: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return entries


class Block(AbstractKernel):
    """A rectangular block of a kernel with the variances it needs: closed under every layer.

    `cross[i, j]` is the covariance of row input i with column input j, whose variances are `row[i]` and
    `column[j]`. The three are independent variables: perturbing `cross` holds the variances fixed,
    and perturbing `row` leaves `column` alone, also where a row and a column are the same input.
    """

    row: Float[Array, " n"]
    column: Float[Array, " m"]
    cross: Float[Array, "n m"]

    perturbed: ClassVar[str] = "cross"

    def map(self, single: Single, table: Table, entry: Table | None = None) -> "Block":
        return Block(single(self.row), single(self.column), table(self.row, self.column, self.cross))

    @property
    def variances(self) -> Float[Array, " inputs"]:
        return jnp.concatenate([self.row, self.column])

    def matrix(self) -> Float[Array, "n m"]:
        return self.cross

    def table(self, entries: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return entries


def as_block(kernel: Float[Array, "n n"]) -> Block:
    """A symmetric kernel matrix as a block of all inputs with all inputs."""
    diagonal = jnp.diagonal(kernel)
    return Block(diagonal, diagonal, kernel)


def as_matrix(block: Block) -> Float[Array, "n n"]:
    """The kernel matrix of a block that came from one: its diagonal holds the variances."""
    diagonal = jnp.eye(block.row.shape[0], dtype=bool)
    return jnp.where(diagonal, block.row[:, None], block.cross)
