"""Points on all local devices: one compiled program, chunk after chunk."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from .._numerics.devices import rounds
from .grid import Grid, at_point

#: Bytes of the largest intermediate array, of all points that a device computes at once: what bounds
#: the memory (benchmarks/sweep.py).
_WORKING_SET = 2**27
#: Bytes of the results of all these points. A large result, such as a kernel, is about as large as what
#: its computation carries from layer to layer: that of few points stays in the cache of a CPU.
_RESULTS_AT_ONCE = 2**22
_LARGEST_CHUNK = 2**14


class Program(eqx.Module):
    """The computation at a point, given by its number."""

    function: Callable[[Any], Any]
    target: Any
    grid: Grid

    def __call__(self, point) -> Any:
        indices = jnp.unravel_index(point, self.grid.shape)
        result = self.function(at_point(self.grid, self.target, indices))
        arrays = jax.tree.map(lambda x: jnp.asarray(x) if eqx.is_array_like(x) else None, result)
        if not jax.tree.leaves(arrays):
            raise TypeError(f"`function` must return an array or a pytree of arrays; got {result!r}.")
        return arrays


def examine(program: Program) -> tuple[Any, int]:
    """Shapes and dtypes of the result at a point, and the bytes of the largest array on the way.

    Tracing a function takes longer than computing many of them: it is not done twice for one program.
    """
    arrays, static = eqx.partition(program, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    shapes = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=getattr(x, "weak_type", False)) for x in leaves
    ]
    static_leaves, static_structure = jax.tree.flatten(static)
    return _examine(tuple(shapes), structure, tuple(static_leaves), static_structure)


@functools.lru_cache(maxsize=16)
def _examine(shapes, structure, static_leaves, static_structure) -> tuple[Any, int]:
    static = jax.tree.unflatten(static_structure, static_leaves)
    one = lambda *leaves: eqx.combine(jax.tree.unflatten(structure, leaves), static)(jnp.zeros((), int))
    jaxpr, result = jax.make_jaxpr(one, return_shape=True)(*shapes)
    return result, _largest(jaxpr.jaxpr)


def chunk_size(bytes_at_once: int, bytes_of_result: int, points: int) -> int:
    """How many points a device takes at once: as many as fit into the working set."""
    most = min(_LARGEST_CHUNK, -(-points // jax.local_device_count()))
    fitting = min(_WORKING_SET // max(1, bytes_at_once), _RESULTS_AT_ONCE // max(1, bytes_of_result))
    return max(1, min(most, fitting))


#: Numbers of points, and each array of the result at these.
Chunk = tuple[np.ndarray, list[np.ndarray]]


def chunks(program: Program, points: np.ndarray, size: int) -> Iterator[Chunk]:
    """Results at `points`, in order, from all devices."""
    step = size * jax.local_device_count()
    # The last chunk is padded with copies of the last point: all chunks are one program.
    some = lambda start: points[np.minimum(np.arange(start, start + step), len(points) - 1)]
    starts = range(0, len(points), step)
    for start, found in zip(starts, rounds(_at_points, program, some, starts)):
        these = points[start : start + step]
        yield these, [np.asarray(x)[: len(these)] for x in jax.tree.leaves(found)]


def _at_points(program: Program, points):
    return jax.vmap(program)(points)


def _largest(jaxpr: Jaxpr) -> int:
    """Bytes of the largest array that one point's program makes."""
    sizes = [0]
    is_jaxpr = lambda x: isinstance(x, Jaxpr | ClosedJaxpr)
    for equation in jaxpr.eqns:
        for array in (variable.aval for variable in equation.outvars):
            if isinstance(array, jax.core.ShapedArray):
                sizes.append(math.prod(array.shape) * array.dtype.itemsize)
        for inner in filter(is_jaxpr, jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr)):
            sizes.append(_largest(getattr(inner, "jaxpr", inner)))
    return max(sizes)
