"""The points of a sweep: values of leaves of a pytree, and all their combinations."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._support.checks import as_real_array, checked_function, is_concrete
from .._support.custom_types import RealLike


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a sweep: which leaves of its target take which values.

    - `values`: one entry a point, along the first dimension: shape (points,) for a leaf that is a
        number, (points, N, N) for one that is a kernel.
    - `where`: picks the leaf as in `equinox.tree_at`, such as `lambda n: n.activation.negative_slope`; or
        several, which then take the same values.
    - `labels`: the coordinates of the points in the result; by default the values, if they are numbers,
        and else 0, 1, ...
    """

    values: RealLike
    where: Callable[[Any], Any]
    labels: RealLike | None = None


class _Field(NamedTuple):
    """Picks a field by its name. Two of the same name are equal: a sweep again is not compiled again."""

    name: str

    def __call__(self, target: Any) -> Any:
        return getattr(target, self.name)


class Grid(NamedTuple):
    """All combinations of the values of some axes, the last axis running fastest."""

    wheres: tuple[Callable[[Any], Any], ...]
    values: tuple[Array, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """How many points along each axis."""
        return tuple(x.shape[0] for x in self.values)

    @property
    def size(self) -> int:
        """How many points in all."""
        return math.prod(self.shape)


#: The labels of the points along each axis, by its name.
Coordinates = dict[str, np.ndarray]


def grid_of(target: Any, axes: Mapping[str, Axis | RealLike]) -> tuple[Grid, Coordinates]:
    """The grid of these axes. **Raises** `ValueError` or `TypeError`, naming the axis, if it is none."""
    if not isinstance(axes, Mapping) or not axes:
        raise ValueError(f"`axes` must map names to values, at least one; got {axes!r}.")
    wheres, values, labels = zip(*(_checked(target, name, axis) for name, axis in axes.items()))
    return Grid(wheres, values), dict(zip(axes, labels))


def at_point(grid: Grid, target: Any, indices: Sequence[Array | int]) -> Any:
    """The target with the values of one point, given by its number along each axis."""
    for where, values, index in zip(grid.wheres, grid.values, indices, strict=True):
        target = eqx.tree_at(where, target, replace_fn=lambda _, value=values[index]: value)
    return target


def _checked(target: Any, name: str, axis: Axis | RealLike) -> tuple[Callable, Array, np.ndarray]:
    if not isinstance(axis, Axis):
        axis = _field(target, name, axis)
    checked_function(f"axes[{name!r}].where", axis.where, "lambda n: n.activation.negative_slope")
    values = as_real_array(f"axes[{name!r}]", axis.values)
    if values.ndim == 0 or not values.size:
        raise ValueError(f"`axes[{name!r}]` must be a list of values, got {axis.values!r}.")
    if not is_concrete(values):
        raise TypeError(
            f"`axes[{name!r}]` must be numbers: sweeps run outside of `jit`, `vmap` and `grad`."
        )
    if not np.all(np.isfinite(np.asarray(values))):
        raise ValueError(f"`axes[{name!r}]` must be finite, got {values}.")
    leaves = jax.tree.leaves(axis.where(target))
    if not leaves or not all(eqx.is_inexact_array(leaf) for leaf in leaves):
        raise ValueError(
            f"`axes[{name!r}]` must pick arrays of real numbers, which are traced; it picks {leaves}. "
            "What is static, such as a depth, needs a sweep each."
        )
    for leaf in leaves:
        if values.shape[1:] != leaf.shape:
            raise ValueError(
                f"`axes[{name!r}]` must have an entry of shape {leaf.shape} for each point along its "
                f"first dimension; got the shape {values.shape}."
            )
    return axis.where, values, _labels(name, axis, values)


def _field(target: Any, name: str, values: RealLike) -> Axis:
    """An axis over the field of that name, whose least and largest values the constructor accepts."""
    fields = [key for key, leaf in getattr(target, "__dict__", {}).items() if eqx.is_inexact_array(leaf)]
    if name not in fields:
        raise ValueError(
            f"`axes[{name!r}]` names none of the arrays of {type(target).__name__}: "
            f"{', '.join(fields) or 'it has none'}. `Axis(values, where=...)` can pick any leaf."
        )
    numbers = as_real_array(f"axes[{name!r}]", values)
    if isinstance(target, eqx.Module) and numbers.ndim == 1 and numbers.size and is_concrete(numbers):
        for extreme in (jnp.min(numbers), jnp.max(numbers)):
            _construct(target, name, extreme)
    return Axis(values, _Field(name))


def _construct(target: eqx.Module, name: str, value: Array) -> None:
    """Let the constructor refuse what it would refuse: replacing a leaf does not ask it."""
    try:
        type(target)(**(vars(target) | {name: value}))
    except TypeError:  # a constructor that takes other arguments: nothing to ask
        pass


def _labels(name: str, axis: Axis, values: Array) -> np.ndarray:
    if axis.labels is None:
        return np.asarray(values) if values.ndim == 1 else np.arange(values.shape[0])
    labels = np.asarray(axis.labels)
    if labels.shape != values.shape[:1]:
        raise ValueError(
            f"`axes[{name!r}]` needs one label a point: {values.shape[0]}, got shape {labels.shape}."
        )
    return labels
