"""The surroundings of a point: is a cost lowest there, lower elsewhere, or without a lowest value?

A search has no answer where the cost keeps falling however far one goes, and none yet where it falls and
rises again. Neither a small gradient nor a small step tells either from a minimum: a cost is flat next to
a maximum too, and far out on a plateau, and at the edge of what can be computed a line search stands
still. Looking around does: on any line through a minimum the cost rises on both sides.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import DTypeLike
from jaxtyping import Array, Float

#: The first look, in units of the coordinates (a thousandth of a parameter), and the last one: for
#: logarithms a factor exp(128), beyond the numbers of float32 (exp(88)) on either side of one; for the
#: parameters themselves 1e9 times their size.
_FIRST, _LAST = 2.0**-10, {True: 2.0**7, False: 2.0**30}
#: How many coordinates are looked along, those that moved most; more would cost more than the search.
_COORDINATES = 4


class Surroundings(NamedTuple):
    """A cost around a point.

    - `here`: the cost at the point.
    - `lowest`, `value`: the lowest place seen, and the cost there.
    - `lower`: that is lower than the point by more than is left to gain next to a minimum, and the cost
        rises behind it.
    - `endless`: in some direction it never rises, up to the last look or the edge of what is a number,
        and it rises in the opposite one, or falls in this one.
    """

    here: Float[Array, ""]
    lowest: Any
    value: Float[Array, ""]
    lower: Array
    endless: Array


class _Side(NamedTuple):
    """The cost along a half-line, after some looks: at its start, `here`, with its slope there; up to
    `low` it is a number and has not risen, at `high` it is none; `lowest` is found at `where`."""

    looks: Array
    here: Array
    slope: Array
    low: Array
    high: Array
    risen: Array
    lowest: Array
    where: Array


def look_around(
    value_and_slope: Callable[[Any], tuple[Array, Any]],
    point: Any,
    way: Any,
    *,
    logarithmic: bool,
    tolerance: float | Array,
) -> Surroundings:
    """The cost on both sides of a point, along coordinate axes, the way of a search and the diagonal, at
    distances that double, up to where it rises by more than rounding. Where it is no number, the edge of
    the numbers is closed in on by bisection, so that a minimum just before it is seen.

    Next to a minimum where a slope g is left, convexity allows a cost lower by g t at a distance t; a
    slope of more than `tolerance` is too large to be left.
    """
    flat, unravel = ravel_pytree(point)
    unit = 1 if logarithmic else 1 + jnp.max(jnp.abs(flat))
    directions = unit * _directions(ravel_pytree(way)[0])

    def height_and_rate(direction, distance):
        place = unravel(flat + distance * direction)
        value, slope = value_and_slope(place)
        return value, direction @ ravel_pytree(slope)[0]

    def one_side(direction):
        moving = jnp.any(direction != 0)
        return _look_along(
            lambda t: height_and_rate(direction, t), flat.dtype, moving, _LAST[logarithmic]
        )

    count = len(directions)
    both = jnp.concatenate([directions, -directions])
    sides = jax.lax.map(one_side, both)
    ahead, behind = jax.tree.map(lambda x: x[:count], sides), jax.tree.map(lambda x: x[count:], sides)

    here, best = sides.here[0], jnp.argmin(sides.lowest)
    distance, value = sides.where[best], sides.lowest[best]
    left = jnp.minimum(jnp.abs(sides.slope[best]) * distance, tolerance * jnp.minimum(distance, 1))
    lower = sides.risen[best] & (here - value > left.astype(here.dtype) + rounding(here))
    falls = lambda side: ~side.risen & (side.lowest < here - rounding(here))
    runs = lambda side, other: falls(side) | (~side.risen & other.risen)
    moved = jnp.any(directions != 0, axis=1)
    endless = jnp.any(moved & (runs(ahead, behind) | runs(behind, ahead)))
    lowest = unravel(flat + distance * both[best])
    return Surroundings(here, lowest, value, lower, endless & ~lower & jnp.isfinite(here))


def _directions(way: Float[Array, " n"]) -> Float[Array, "m n"]:
    """Coordinate axes and, of several coordinates, the way and the diagonal, of largest component one."""
    size = way.size
    if size == 1:
        return jnp.ones((1, 1), way.dtype)
    _, most = jax.lax.top_k(jnp.abs(way), min(size, _COORDINATES))
    axes = jax.nn.one_hot(most, size, dtype=way.dtype)
    length = jnp.max(jnp.abs(way))
    good = (length > 0) & jnp.isfinite(length)
    along = jnp.where(good, way / jnp.where(good, length, 1), 0)
    return jnp.concatenate([axes, along[None], jnp.ones((1, size), way.dtype)])


def _look_along(
    height_and_rate: Callable[[Array], tuple[Array, Array]],
    dtype: DTypeLike,
    moving: Array,
    last: float,
) -> _Side:
    """One half-line, one look at a time; the first one at its start."""

    def unfinished(side):
        resolution = float(jnp.finfo(side.here.dtype).eps) ** 0.5  # of the edge of what is a number
        wide = side.high - side.low > resolution * jnp.maximum(side.high, _FIRST)
        going = ~side.risen & jnp.where(jnp.isinf(side.high), side.low < last, wide)
        return (side.looks == 0) | (going & moving & jnp.isfinite(side.here))

    def look(side):
        first = side.looks == 0
        doubled = jnp.where(side.low > 0, 2 * side.low, _FIRST)
        distance = jnp.where(jnp.isinf(side.high), doubled, (side.low + side.high) / 2)
        distance = jnp.where(first, 0, distance)
        now, rate = height_and_rate(distance)
        here = jnp.where(first, now, side.here)
        known = first | jnp.isfinite(now)
        above = now - side.lowest
        # A cost that is flat but for noise goes up and down; its slope does not.
        risen = (above > _coarse(here)) | ((above > rounding(here)) & ~(rate <= 0))
        lower = first | (known & (now < side.lowest))
        return _Side(
            looks=side.looks + 1,
            here=here,
            slope=jnp.where(first, rate, side.slope),
            low=jnp.where(known, distance, side.low),
            high=jnp.where(known, side.high, distance),
            risen=known & ~first & risen,
            lowest=jnp.where(lower, now, side.lowest),
            where=jnp.where(lower, distance, side.where),
        )

    zero = jnp.zeros((), dtype)
    shape, _ = jax.eval_shape(height_and_rate, zero)
    none = jnp.zeros((), shape.dtype)
    side = _Side(
        jnp.asarray(0), none, zero, zero, jnp.full_like(zero, jnp.inf), jnp.asarray(False), none, zero
    )
    return jax.lax.while_loop(unfinished, look, side)


def rounding(cost: Array) -> Array:
    """A change of the cost that is none: 16 units in the last place, what fifty layers add up to, three
    times what is found in float32."""
    return 16 * float(jnp.finfo(cost.dtype).eps) * (1 + jnp.abs(cost))


def _coarse(cost: Array) -> Array:
    """A change that is more than rounding, however noisy."""
    return float(jnp.finfo(cost.dtype).eps) ** 0.5 * (1 + jnp.abs(cost))
