"""Searches for the lowest cost by optax and by optimistix, in rounds until an ending is one.

A round ends where its optimiser has converged, fails or stands still, or where it pauses. The cost around
that place is looked at (`look_around`): if it is lower elsewhere on a line through it, the next round
starts from there; if it never rises again, an ending is no answer.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix as optx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from .._support.results import RESULTS, choose_result
from .surroundings import look_around, rounding

#: Steps without progress beyond rounding after which a search is where rounding lets it come: of optax,
#: whose steps may be small, and of a minimiser, whose steps go as far as they should.
_PATIENCE, _MINIMISER_PATIENCE = 100, 10
#: The steps of a minimiser before its first pause, a few times what it takes to converge for one to four
#: parameters. A quasi-Newton method learns nothing where the cost bends downwards: its steps are then the
#: slope itself, as small as that is, and it creeps.
_PAUSE = 100


class Track(NamedTuple):
    """What a search remembers of its way.

    - `here`, `cost`: the last position where the cost was a number, and that number.
    - `behind`: where the search was some ten steps ago, as a moving average.
    - `best`, `at`: the lowest cost and its position.
    - `mark`: the lowest cost when it last fell by more than rounding; `since`: how many steps of this
        round ago that was.
    - `history`, `count`: the cost before each step, and how many there were.
    """

    here: Any
    cost: Float[Array, ""]
    behind: Any
    best: Float[Array, ""]
    at: Any
    mark: Float[Array, ""]
    since: Array
    history: Float[Array, " max_steps"]
    count: Array


class Ending(NamedTuple):
    """Where a search ended, with the cost there, and how."""

    position: Any
    cost: Float[Array, ""]
    track: Track
    result: RESULTS


#: Where a round ended, and how.
Round = tuple[Any, Track, RESULTS]
#: Of a position, a tree of arrays.
Cost: TypeAlias = Callable[[Any], Array]
Optimiser: TypeAlias = optax.GradientTransformation | optx.AbstractMinimiser[Any, Any, Any]


def begin(start: Any, max_steps: int, dtype: DTypeLike) -> Track:
    """Before the first step; `dtype` is that of the cost."""
    infinite, none = jnp.asarray(jnp.inf, dtype), jnp.asarray(0)
    return Track(
        start, infinite, start, infinite, start, infinite, none, jnp.zeros((max_steps,), dtype), none
    )


def observe(track: Track, y: Any, cost: Float[Array, ""]) -> Track:
    """The track with the cost of one more position, before the step from there."""
    known = jnp.isfinite(cost)
    lower = known & (cost < track.best)
    progress = known & (cost < track.mark - rounding(jnp.where(jnp.isfinite(track.mark), track.mark, 0)))
    return Track(
        here=_where(known, y, track.here),
        cost=jnp.where(known, cost, track.cost),
        behind=_where(known, jax.tree.map(lambda b, x: b + (x - b) / 10, track.behind, y), track.behind),
        best=jnp.where(lower, cost, track.best),
        at=_where(lower, y, track.at),
        mark=jnp.where(progress, cost, track.mark),
        since=jnp.where(progress, 0, track.since + 1),
        history=track.history.at[track.count].set(cost),
        count=track.count + 1,
    )


def minimise(
    search: Callable[..., Round],
    cost: Cost,
    start: Any,
    optimiser: Optimiser,
    max_steps: int,
    tolerance: Any,
    grad: Callable[..., Any],
    logarithmic: bool,
) -> Ending:
    """Rounds of a `search`, `by_optax` or `by_optimistix`, until one ends at a minimum, or fails.

    The result is `unbounded` where the cost around the ending has no lowest value. A search that fails
    ends at the best position that it has seen.
    """
    dtype = jax.eval_shape(cost, start).dtype
    if tolerance is None:
        tolerance = 1e-6 if dtype == jnp.float64 else 1e-3
    # A minimiser ends where it changes no more than its own tolerances say.
    own = [getattr(optimiser, name, 0.0) for name in ("rtol", "atol")]
    accepted = functools.reduce(jnp.maximum, own, tolerance)

    def round_(carry):
        start, _, last = carry
        track = last.track._replace(here=start, behind=start, since=jnp.zeros_like(last.track.since))
        ended, track, result = search(cost, start, track, optimiser, max_steps, tolerance, grad)
        good = result == RESULTS.successful
        left = track.count < max_steps
        paused = (result == RESULTS.nonlinear_max_steps_reached) & left
        # A long step may have led from a much better place to a plateau.
        best = track.best
        stay = (good & (track.cost <= best + rounding(best))) | ~jnp.isfinite(best)
        position = _where(stay, ended, track.at)
        way = jax.tree.map(lambda x, b: x - b, track.here, track.behind)
        both = _value_and_slope(cost, grad)
        around = look_around(both, position, way, logarithmic=logarithmic, tolerance=accepted)
        early = (good | paused) & around.lower
        result = choose_result(early, RESULTS.nonlinear_max_steps_reached, result)
        result = choose_result(around.endless & ~paused, RESULTS.unbounded, result)
        again = (early & left) | paused
        y = _where(early, around.lowest, position)
        return y, again, Ending(y, jnp.where(early, around.value, around.here), track, result)

    fresh = begin(start, max_steps, dtype)
    carry = (start, jnp.asarray(True), Ending(start, fresh.best, fresh, RESULTS.successful))
    return jax.lax.while_loop(lambda carry: carry[1], round_, carry)[2]


def by_optax(
    cost: Cost,
    start: Any,
    track: Track,
    optimiser: optax.GradientTransformation,
    max_steps: int,
    tolerance: Any,
    grad: Callable[..., Any],
) -> Round:
    """Steps of an optax transformation until the gradient is small, or all of it is rounding."""
    optimiser = optax.with_extra_args_support(optimiser)
    dtype = jnp.result_type(*jax.tree.leaves(start))

    def ended(track, largest):
        # Where the cost is flat to rounding over a step of sqrt(eps), no smaller gradient means more.
        flat = (track.since >= _PATIENCE) & (largest < _flat(track.mark).astype(dtype))
        return (largest < tolerance) | flat

    def unfinished(carry):
        _, _, track, largest = carry
        return (track.count < max_steps) & ~ended(track, largest) & jnp.isfinite(largest)

    def step(carry):
        y, state, track, _ = carry
        value, slope = _value_and_slope(cost, grad)(y)
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
    carry = (start, optimiser.init(start), track, largest)
    y, _, track, largest = jax.lax.while_loop(unfinished, step, carry)
    known = jnp.isfinite(largest)
    result = choose_result(ended(track, largest), RESULTS.successful, RESULTS.nonlinear_max_steps_reached)
    return _where(known, y, track.here), track, choose_result(known, result, RESULTS.nonfinite)


def by_optimistix(
    cost: Cost,
    start: Any,
    track: Track,
    optimiser: optx.AbstractMinimiser[Any, Any, Any],
    max_steps: int,
    tolerance: Any,
    grad: Callable[..., Any],
) -> Round:
    """Steps of an optimistix minimiser until it has converged, or stands still: its tolerances may be
    below what rounding lets it reach. It pauses before, each time after twice as many steps as the last
    time, so that a long search keeps what it has learnt."""
    pause = jnp.minimum(2 * track.count + _PAUSE, max_steps)
    del tolerance, grad  # a minimiser has its own

    def function(y, args):
        # Where rounding is all that is left, a line search may try what is no number.
        sane = _finite(y)
        return jnp.where(sane, cost(_where(sane, y, start)), jnp.inf), None

    shape = jax.ShapeDtypeStruct((), track.best.dtype)
    tags = frozenset()
    state = optimiser.init(function, start, None, {}, shape, None, tags)
    arrays, static = eqx.partition(state, eqx.is_array)

    def end(y, arrays, track):
        state = eqx.combine(arrays, static)
        done, result = optimiser.terminate(function, y, None, {}, state, tags)
        way = jax.tree.map(lambda x, b: x - b, track.here, track.behind)
        reach = float(jnp.finfo(shape.dtype).eps) ** 0.5 * (1 + _largest(track.here))
        still = (track.since >= _MINIMISER_PATIENCE) & (_largest(way) <= reach)
        slope = getattr(getattr(state, "f_info", None), "grad", None)
        if slope is not None:
            steepest = _largest(slope)
            still = still & (steepest < _flat(track.mark).astype(steepest.dtype))
        return done | still, choose_result(still, RESULTS.successful, RESULTS.promote(result))

    def unfinished(carry):
        y, arrays, track, known = carry
        return (track.count < pause) & ~end(y, arrays, track)[0] & known

    def step(carry):
        y, arrays, track, _ = carry
        value = cost(y)
        track = observe(track, y, value)
        state = eqx.combine(arrays, static)
        moved, state, _ = optimiser.step(function, y, None, {}, state, tags)
        known = jnp.isfinite(value) & _finite(moved)
        return _where(known, moved, y), eqx.filter(state, eqx.is_array), track, known

    carry = (start, arrays, track, jnp.asarray(True))
    y, arrays, track, known = jax.lax.while_loop(unfinished, step, carry)
    done, result = end(y, arrays, track)
    state = eqx.combine(arrays, static)
    last, _, _ = optimiser.postprocess(
        function,
        y,
        None,
        None,
        {},
        state,
        tags,
        result,  # pyright: ignore
    )
    result = choose_result(done, result, RESULTS.nonlinear_max_steps_reached)
    return _where(known, last, track.here), track, choose_result(known, result, RESULTS.nonfinite)


def _value_and_slope(cost: Cost, grad: Callable[..., Any]) -> Callable[[Any], tuple[Array, Any]]:
    """y -> the cost and its gradient: by one evaluation if `grad` has `has_aux`, as those of JAX do."""
    if "has_aux" not in inspect.signature(grad).parameters:
        return lambda y: (cost(y), grad(cost)(y))

    def twice(y):
        value = cost(y)
        return value, value

    return lambda y: grad(twice, has_aux=True)(y)[::-1]


def _flat(cost: Array) -> Array:
    """The slope along which a step of sqrt(eps) changes the cost by rounding."""
    return float(jnp.finfo(cost.dtype).eps) ** 0.5 * (1 + jnp.abs(cost))


def _largest(tree: Any) -> Array:
    return jnp.max(jnp.array([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))


def _finite(tree: Any) -> Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _where(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), yes, no)
