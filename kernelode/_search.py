"""Searches for the lowest cost by optax and by optimistix, and what is known of how they end.

A search has no answer where the cost keeps falling however far one goes. Neither a gradient nor a number
of steps tells that from a search that is merely slow; a look ahead does. From where a search ended, in
the direction it was going, the cost is evaluated at distances that double: beyond a minimum it rises.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ._results import RESULTS, choose_result

#: Steps without progress beyond rounding after which a search is where rounding lets it come: of optax,
#: whose steps may be small, and of a minimiser, whose steps go as far as they should.
_PATIENCE, _MINIMISER_PATIENCE = 100, 10
#: The first look ahead, in units of the coordinates (closer than the edge of what can be computed is to
#: most optima), and how often it is doubled: for logarithms to a factor exp(32), whose square still fits
#: into float32; for the parameters themselves to 1e9 times their size.
_FIRST, _DOUBLINGS = 2.0**-10, {True: 15, False: 40}
#: Steps in a row, looks ahead included, that have to make progress where the cost cannot be followed on;
#: all, of a search that took fewer.
_FEWEST = 4


class Track(NamedTuple):
    """What a search remembers of its way.

    - `here`, `cost`: the last position where the cost was a number, and that number.
    - `behind`: where the search was some ten steps ago, as a moving average.
    - `best`: the lowest cost; `since`, `falls`: for how many steps it has not, and has, been lowered by
        more than rounding.
    - `history`, `count`: the cost before each step, and how many there were.
    """

    here: Any
    cost: Float[Array, ""]
    behind: Any
    best: Float[Array, ""]
    since: Array
    falls: Array
    history: Float[Array, " max_steps"]
    count: Array


class Ending(NamedTuple):
    """Where a search ended, where it was going (past it, if the cost was no number there), and how."""

    position: Any
    heading: Any
    track: Track
    result: RESULTS


def begin(start: Any, max_steps: int) -> Track:
    """Before the first step."""
    dtype = jnp.result_type(*jax.tree.leaves(start))
    infinite, none = jnp.asarray(jnp.inf, dtype), jnp.asarray(0)
    return Track(
        start, infinite, start, infinite, none, none, jnp.zeros((max_steps,), dtype), jnp.asarray(0)
    )


def observe(track: Track, y: Any, cost: Float[Array, ""]) -> Track:
    """The track with the cost of one more position, before the step from there."""
    known = jnp.isfinite(cost)
    lower = cost < track.best - _rounding(jnp.where(jnp.isfinite(track.best), track.best, 0))
    return Track(
        here=_where(known, y, track.here),
        cost=jnp.where(known, cost, track.cost),
        behind=_where(known, jax.tree.map(lambda b, x: b + (x - b) / 10, track.behind, y), track.behind),
        best=jnp.where(lower, cost, track.best),
        since=jnp.where(lower, 0, track.since + 1),
        falls=jnp.where(known, jnp.where(lower, track.falls + 1, 0), track.falls),
        history=track.history.at[track.count].set(cost),
        count=track.count + 1,
    )


def by_optax(cost, start, optimiser, max_steps: int, tolerance, grad) -> Ending:
    """Steps of an optax transformation until the gradient is small, or all of it is rounding."""
    optimiser = optax.with_extra_args_support(optimiser)
    dtype = jnp.result_type(*jax.tree.leaves(start))
    if tolerance is None:
        tolerance = 1e-6 if dtype == jnp.float64 else 1e-3

    def ended(track, largest):
        # Where the cost is flat to rounding over a step of sqrt(eps), no smaller gradient means more.
        flat = (track.since >= _PATIENCE) & (largest < _flat(track.cost))
        return (largest < tolerance) | flat

    def unfinished(carry):
        _, _, track, largest = carry
        return (track.count < max_steps) & ~ended(track, largest) & jnp.isfinite(largest)

    def step(carry):
        y, state, track, _ = carry
        value, slope = cost(y), grad(cost)(y)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes inside
            extra = dict(value=value, grad=slope, value_fn=cost)
            updates, state = optimiser.update(slope, state, y, **extra)
        largest = _largest(slope)
        largest = jnp.where(jnp.isfinite(value), largest, jnp.nan)
        track = observe(track, y, value)
        moved = optax.apply_updates(y, updates)
        done = ended(track, largest) | ~jnp.isfinite(largest)
        return _where(done, y, moved), state, track, largest

    largest = jnp.asarray(jnp.finfo(dtype).max, dtype)
    carry = (start, optimiser.init(start), begin(start, max_steps), largest)
    y, _, track, largest = jax.lax.while_loop(unfinished, step, carry)
    known = jnp.isfinite(largest)
    result = choose_result(ended(track, largest), RESULTS.successful, RESULTS.nonlinear_max_steps_reached)
    return Ending(
        position=_where(known, y, track.here),
        heading=_where(_finite(y), y, track.here),
        track=track,
        result=choose_result(known, result, RESULTS.nonfinite),
    )


def by_optimistix(cost, start, optimiser, max_steps: int, tolerance, grad) -> Ending:
    """Steps of an optimistix minimiser until it has converged, or stands still: its tolerances may be
    below what rounding lets it reach."""
    del tolerance, grad  # a minimiser has its own

    def function(y, args):
        # Where rounding is all that is left, a line search may try what is no number.
        sane = _finite(y)
        return jnp.where(sane, cost(_where(sane, y, start)), jnp.inf), None

    shape = jax.ShapeDtypeStruct((), jnp.result_type(*jax.tree.leaves(start)))
    tags = frozenset()
    state = optimiser.init(function, start, None, {}, shape, None, tags)
    arrays, static = eqx.partition(state, eqx.is_array)

    def end(y, arrays, track):
        state = eqx.combine(arrays, static)
        done, result = optimiser.terminate(function, y, None, {}, state, tags)
        way = jax.tree.map(lambda x, b: x - b, track.here, track.behind)
        reach = jnp.finfo(shape.dtype).eps ** 0.5 * (1 + _largest(track.here))
        still = (track.since >= _MINIMISER_PATIENCE) & (_largest(way) <= reach)
        slope = getattr(getattr(state, "f_info", None), "grad", None)
        if slope is not None:
            still = still & (_largest(slope) < _flat(track.cost))
        return done | still, choose_result(still, RESULTS.successful, RESULTS.promote(result))

    def unfinished(carry):
        y, arrays, track, known = carry
        return (track.count < max_steps) & ~end(y, arrays, track)[0] & known

    def step(carry):
        y, arrays, track, _ = carry
        value = cost(y)
        track = observe(track, y, value)
        state = eqx.combine(arrays, static)
        moved, state, _ = optimiser.step(function, y, None, {}, state, tags)
        known = jnp.isfinite(value) & _finite(moved)
        return _where(known, moved, y), eqx.filter(state, eqx.is_array), track, known

    carry = (start, arrays, begin(start, max_steps), jnp.asarray(True))
    y, arrays, track, known = jax.lax.while_loop(unfinished, step, carry)
    done, result = end(y, arrays, track)
    state = eqx.combine(arrays, static)
    last, _, _ = optimiser.postprocess(function, y, None, None, {}, state, tags, result)
    result = choose_result(done, result, RESULTS.nonlinear_max_steps_reached)
    return Ending(
        position=_where(known, last, track.here),
        heading=_where(_finite(y), y, track.here),
        track=track,
        result=choose_result(known, result, RESULTS.nonfinite),
    )


def look_ahead(
    cost: Callable[[Any], Array], end: Ending, logarithmic: bool
) -> tuple[Float[Array, ""], Array]:
    """The cost where a search ended, and whether it never rises again in the direction of the search."""
    y, track = end.position, end.track
    way = jax.tree.map(lambda x, b: x - b, end.heading, track.behind)
    length = _largest(way)
    moved = (length > 0) & jnp.isfinite(length)
    unit = jnp.ones_like(length) if logarithmic else 1 + _largest(y)
    direction = jax.tree.map(lambda x: x * unit / jnp.where(moved, length, 1), way)
    last = _DOUBLINGS[logarithmic] + 1

    def place(rung):
        far = jnp.where(rung > 0, _FIRST * 2.0 ** (rung - 1).astype(length.dtype), 0)
        return jax.tree.map(lambda x, d: x + far.astype(x.dtype) * d, y, direction)

    def unfinished(carry):
        rung, *_, falling, known = carry
        return (rung == 0) | ((rung <= last) & falling & known & moved)

    def step(carry):
        rung, first, before, slope, steady, falls, falling, known = carry
        now = cost(place(rung))
        known = jnp.isfinite(now)
        falling = (rung == 0) | ~(now > before + _rounding(before))
        fell = (rung > 0) & known & (now < before - _rounding(before))
        falls = jnp.where(fell, falls + 1, falls)
        # From the first look on, each is as far from the one before as that is from the start.
        steeper = (before - now) / jnp.where(rung > 1, 2.0 ** (rung - 2).astype(now.dtype), 1)
        steeper = jnp.where(before - now > 16 * _rounding(before), steeper, 0)
        # Flat and then steep again: something other than a way without end.
        falling = falling & (steady | ~(known & (steeper > 2 * slope)))
        steady = steady & ~(known & (rung > 1) & (steeper < slope / 2))
        slope = jnp.where(known & (rung > 0), steeper, slope)
        return rung + 1, jnp.where(rung == 0, now, first), now, slope, steady, falls, falling, known

    zero, yes = jnp.zeros_like(length), jnp.asarray(True)
    carry = (jnp.asarray(0), zero, zero, zero, yes, track.falls, yes, yes)
    rung, value, _, _, steady, falls, falling, known = jax.lax.while_loop(unfinished, step, carry)
    everywhere = known & falling & (rung > last)
    # Where the cost overflows, it has to have fallen as steeply as ever up to there.
    cut_short = ~known & steady & (falls >= jnp.clip(track.count, 1, _FEWEST))
    return value, moved & (everywhere | cut_short)


def _rounding(cost):
    """A change of the cost that is none: four units in the last place."""
    return 4 * jnp.finfo(cost.dtype).eps * (1 + jnp.abs(cost))


def _flat(cost):
    """The slope along which a step of sqrt(eps) changes the cost by rounding."""
    return jnp.finfo(cost.dtype).eps ** 0.5 * (1 + jnp.abs(cost))


def _largest(tree) -> Array:
    return jnp.max(jnp.array([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))


def _finite(tree) -> Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _where(condition, yes, no):
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), yes, no)
