"""Safeguarded Newton for the maximum of a function of one number, and its implicit derivative."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .objective import slope, value_and_slope


class Search(NamedTuple):
    """Where a search ended: at a maximum (`converged`), or `above` or `below` its limits.

    `position` is the maximum, or else the start, a place where the function can be evaluated;
    `beside` what the derivatives came with at the last place where they were evaluated.
    """

    position: Float[Array, ""]
    converged: Array
    above: Array
    below: Array
    beside: Any
    iterations: Array


def slope_and_curvature(function: Callable[..., Any]) -> Callable[[Array], Any]:
    """u -> (f'(u), f''(u)), by JAX."""
    return value_and_slope(slope(function))


def maximise(
    derivatives: Callable[..., Any],
    start: Float[Array, ""],
    *,
    lower: Any,
    upper: Any,
    bracket: Any = (-jnp.inf, jnp.inf),
    skip: bool | Array = False,
    beside: Any = (),
) -> Search:
    """Newton's method for f' = 0, f'' < 0 between `lower` and `upper`. `derivatives` gives (f', f''), and
    a tree of more numbers if there is one for the start, `beside`.

    The slope's sign keeps a bracket, at first infinite: where the function is not concave, or a step
    leaves the bracket or is long, the step is a bisection, or one unit uphill while a side is open. The
    size of a Newton step is tested before that, or rounding at the optimum would bisect forever. Steps
    go as s' = C s^2, so that from two in a row follows the third, s'^3 / s^2 up to a factor 1 + O(s);
    where that error is below rounding it is made without evaluating anything. Ends `above` or `below` if
    the function still grows at a limit, or is no longer finite; where `skip`, at once as `below`.
    """
    tolerance = jnp.sqrt(jnp.finfo(start.dtype).eps)
    searching, converged, above, below = range(4)

    def unfinished(state):
        return (state[0] == searching) & (state[1] < 60)

    def step(state):
        _, count, u, low, high, previous, _ = state
        g, h, *beside = derivatives(u)
        # All else follows from two quotients: XLA keeps them, and would repeat what is not one.
        size = jnp.where(h == 0, 1, jnp.abs(h))
        uphill, bend = g / size, h / size
        concave, length = bend < 0, jnp.abs(uphill)
        following = uphill * (uphill / previous) ** 2
        foreseen = (jnp.abs(following * previous) < tolerance**2) & (jnp.abs(previous) < 0.1)
        arrived = concave & ((length < tolerance) | foreseen)
        low, high = jnp.where(uphill > 0, u, low), jnp.where(uphill < 0, u, high)
        target = u + uphill + jnp.where(foreseen, following, 0)
        good = concave & (target > low) & (target < high) & (length < 1.5)
        closed = jnp.isfinite(low) & jnp.isfinite(high)
        safe = jnp.where(closed, (low + high) / 2, u + jnp.sign(uphill))
        moved = jnp.where(good | arrived, target, safe)
        infinite = ~(jnp.isfinite(uphill) & jnp.isfinite(bend))
        moved = jnp.where(infinite, u, moved)
        outside = jnp.where(infinite | (moved > upper), above, jnp.where(moved < lower, below, searching))
        end = jnp.where(arrived, converged, outside)
        return end, count + 1, moved, low, high, jnp.where(good, uphill, jnp.inf), (*beside,)

    low, high = (jnp.asarray(side, start.dtype) for side in bracket)
    end = jnp.where(skip, below, searching)
    state = (end, jnp.asarray(0), start, low, high, jnp.full_like(start, jnp.inf), beside)
    end, count, u, *_, beside = jax.lax.while_loop(unfinished, step, state)
    position = jnp.where(end == converged, u, start)
    return Search(position, end == converged, end == above, end == below, beside, count)


def verdict(
    search: Search, height: Array, at_zero: Array, at_end: Array, valid: Array | bool = True
) -> tuple[Array, Array, Array]:
    """Whether an element is interior, decreasing, increasing: the maximum found, if `valid`, against
    the values at zero and, where the function still grows, at the end of the search."""
    highest = height >= jnp.maximum(at_zero, at_end)
    interior = search.converged & highest & valid
    increasing = ~interior & (at_end > at_zero)
    decreasing = ~interior & ~increasing & (search.below | (search.converged & ~highest))
    return interior, decreasing, increasing


class Interval(NamedTuple):
    """A bracket of the highest maximum on a grid, and what competes with it."""

    start: Array
    low: Array
    high: Array
    found: Array
    at_end: Array


def best_interval(positions: Array, heights: Array, at_zero: Array) -> Interval:
    """Per element, from values on a uniform grid of log-scales (leading axis) and the value at scale
    zero: the interval with the highest maximum, a start in it by a parabola through three points, and
    in `at_end` the last finite height if the function still grows there (else -infinity).
    """
    heights = jnp.where(jnp.isfinite(heights), heights, -jnp.inf)
    nothing = jnp.full_like(heights[:1], -jnp.inf)
    before = jnp.concatenate([at_zero[None], heights[:-1]])
    after = jnp.concatenate([heights[1:], nothing])
    peaks = (heights > before) & (heights >= after) & jnp.isfinite(after)
    best = jnp.argmax(jnp.where(peaks, heights, -jnp.inf), axis=0)
    take = lambda x, index: jnp.take_along_axis(x, index[None], axis=0)[0]
    height, left, right = (take(x, best) for x in (heights, before, after))
    last = jnp.sum(jnp.isfinite(heights), axis=0) - 1
    at_end = jnp.where(take(heights, last) > take(before, last), take(heights, last), -jnp.inf)
    # Between two points of the grid the maximum may rise a little above both; not by a factor of e.
    found = jnp.any(peaks, axis=0) & (height + 1 > at_end)
    bend = jnp.where(found & (best > 0), left - 2 * height + right, -1)
    spacing = positions[1] - positions[0]
    shift = jnp.where(found & (best > 0), spacing / 2 * (left - right) / bend, 0)
    middle = positions[best]
    low = jnp.where(best > 0, middle - spacing, -jnp.inf)
    return Interval(middle + jnp.clip(shift, -spacing, spacing), low, middle + spacing, found, at_end)


@eqx.filter_custom_jvp
def implicit(
    function: Callable[..., Any], position: Float[Array, ""], interior: Array, args: Any
) -> Float[Array, ""]:
    """`position` again, now with the derivatives of the root u of function(u, args):

        du = - (d function / d args) d args / (d function / du),

    the implicit function theorem, to any order, forward and reverse. Where not `interior`, zero.
    """
    del function, interior, args
    return position


@implicit.def_jvp
def _(primals: Any, tangents: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
    function, position, interior, args = primals
    _, _, _, args_dot = tangents
    root = implicit(function, position, interior, args)
    moved = eqx.filter_jvp(lambda args: function(root, args), (args,), (args_dot,))[1]
    rate = slope(lambda u: function(u, args))(root)
    return root, jnp.where(interior, -moved / jnp.where(interior, rate, 1), 0)


@eqx.filter_custom_jvp
def known(function: Callable[..., Any], value: Any, args: Any) -> Any:
    """`value`, which is function(*args) and need not be evaluated again, with its derivatives."""
    del function, args
    return value


@known.def_jvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    function, value, args = primals
    _, _, args_dot = tangents
    return known(function, value, args), eqx.filter_jvp(function, args, args_dot)[1]
