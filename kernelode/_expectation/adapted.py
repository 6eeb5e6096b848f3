"""Averages over a normal variable at any variance, on nodes adapted to the activation.

The rules of `nodes.py` are fixed, and serve the variances at which their nodes are as dense as the
activation needs (`fits`). Beyond, the concentration of the map z = c sinh(t) follows the variance, c ~
width / sqrt(q), and the number of nodes is doubled until the average no longer changes: features next
to the origin cost the logarithm of the variance, others what they need.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from equinox.internal import unvmap_any
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from .._activation.base import AbstractSmoothActivation

#: Nodes on one side of zero: at first, and at most. They are evaluated a few at a time: of one input all
#: arrays are then small enough for XLA's sequential executor, in which programs that never come here run.
_FIRST, _MOST, _CHUNK = 128, 2**15, 4


def fits(
    activation: AbstractSmoothActivation,
    q: Float[Array, " n"],
    spacing: float,
    concentration: float,
    reach: float,
    density: float,
) -> Bool[Array, " n"]:
    """At which variances the nodes z = c sinh(h k), h = `spacing`, are `density` times denser than the
    width of any feature: the trapezoidal rule's error is exp(-2 pi) to the power of it."""
    root, enough = jnp.sqrt(q), jnp.ones(q.shape, bool)
    for distance, width in activation.scales:
        # Features without end are also where the density has fallen by exp(-18).
        where = 6 * root if math.isinf(distance) else jnp.full_like(root, distance)
        step = spacing * jnp.sqrt(where**2 + (concentration * root) ** 2)
        needed = jnp.asarray(width, q.dtype) / density
        enough = enough & ((step <= needed) | (where > reach * root))
    return enough


def reach_of(dtype: DTypeLike) -> float:
    """How far out averages are taken: where the density's root is next to the smallest number. A function
    that grows like exp(x) has its average from z ~ 2 sqrt(q)."""
    return 36.0 if dtype == jnp.float64 else 18.0


def concentration(activation: AbstractSmoothActivation, q: Float[Array, "*shape"]) -> Array:
    """c of the adapted nodes: the narrowest feature in units of the standard deviation, at most 0.1."""
    finite = [width for _, width in activation.scales]
    narrowest = functools.reduce(jnp.minimum, [jnp.asarray(w, q.dtype) for w in finite])
    root = jnp.sqrt(jnp.where(q > 0, q, 1))
    return jnp.where(q > 0, jnp.minimum(0.1, narrowest / root), jnp.asarray(0.1, q.dtype))


class _State(NamedTuple):
    """`nodes` a side of zero, of which the next to be summed is number `step` - 1 + `step` k, k =
    `index` and following; sums of the terms and of their sizes; the last three averages' differences."""

    index: Array
    nodes: Array
    step: Array
    totals: Float[Array, "k n"]
    sizes: Float[Array, "k n"]
    value: Float[Array, "k n"]
    before: Float[Array, "k n"]
    after: Float[Array, "k n"]
    done: Array


def adapted_average(
    function: Callable[[Array], list[Array]], c: Float[Array, " n"]
) -> tuple[Float[Array, "k n"], Float[Array, "k n"]]:
    """E[f_k(z)] and error estimates, for a function that gives the list of the f_k at z (node, n).

    The estimate is that of `trapezoid`, from the last two changes. One loop over chunks of nodes and over
    their doublings, so that a program contains the function once.
    """
    dtype, limit = c.dtype, jnp.asinh(reach_of(c.dtype) / c)
    eps = jnp.finfo(dtype).eps

    def add_chunk(s: _State) -> _State:
        k = s.step - 1 + s.step * (s.index + jnp.arange(_CHUNK))
        t = limit[None, :] * (jnp.minimum(k, s.nodes) / s.nodes).astype(dtype)[:, None]
        # Zero is on both sides, with half of its weight.
        share = jnp.where(k == 0, 0.5, jnp.where(k <= s.nodes, 1.0, 0.0)).astype(dtype)[:, None]
        z, steps = c[None, :] * jnp.sinh(t), share * c[None, :] * jnp.cosh(t)
        both = lambda x, y: jnp.concatenate([x, y])
        terms = _terms(function(both(z, -z)), both(z, z), both(steps, steps))
        totals, sizes = s.totals + jnp.sum(terms, 1), s.sizes + jnp.sum(jnp.abs(terms), 1)

        width = (limit / s.nodes.astype(dtype))[None, :]
        value, index = totals * width, s.index + _CHUNK
        after = jnp.abs(value - s.value)
        # The change squares with every doubling: from below the root of rounding, one more is enough.
        enough = s.after <= 1e-2 * eps**0.5 * sizes * width
        last = (s.nodes >= 8 * _FIRST) & ((s.nodes >= _MOST) | jnp.all(enough | ~jnp.isfinite(after)))
        complete = s.step * index > s.nodes
        choose = lambda new, old: jnp.where(complete, new, old)
        return _State(
            index=choose(0, index),
            nodes=jnp.where(complete & ~last, 2 * s.nodes, s.nodes),
            step=choose(2, s.step),
            totals=totals,
            sizes=sizes,
            value=choose(value, s.value),
            before=choose(s.after, s.before),
            after=choose(after, s.after),
            done=complete & last,
        )

    count = len(jax.eval_shape(function, jnp.zeros((1, *c.shape), dtype)))
    zeros = jnp.zeros((count, *c.shape), dtype)
    unknown = jnp.full_like(zeros, jnp.inf)
    start = (zeros, zeros, zeros, unknown, unknown, jnp.asarray(False))
    state = _State(jnp.asarray(0), jnp.asarray(_FIRST), jnp.asarray(1), *start)
    end = jax.lax.while_loop(lambda s: ~s.done, add_chunk, state)
    ratio = jnp.where(
        end.before > 8 * end.after, 8 * end.after / jnp.where(end.before > 0, end.before, 1), 1
    )
    rounding = 4 * eps * end.sizes * (limit / end.nodes.astype(dtype))[None, :]
    return end.value, end.after * ratio + rounding


def fixed_average(function: Callable[[Array], list[Array]], c: Float[Array, " n"]) -> Array:
    """E[f_k(z)] on a fixed number of adapted nodes, which reverse mode can differentiate."""
    k = jnp.arange(1 - 8 * _FIRST, 8 * _FIRST)
    limit = jnp.asinh(reach_of(c.dtype) / c)

    @jax.checkpoint
    def chunk(total: Float[Array, "k n"], k: Int[Array, " chunk"]) -> tuple[Float[Array, "k n"], None]:
        t = limit[None, :] * (k / (8 * _FIRST)).astype(c.dtype)[:, None]
        z, steps = c[None, :] * jnp.sinh(t), c[None, :] * jnp.cosh(t)
        return total + jnp.sum(_terms(function(z), z, steps), 1), None

    padded = jnp.concatenate([k, k[-1:] + 1]).reshape(-1, _CHUNK)
    count = len(jax.eval_shape(function, jnp.zeros((1, *c.shape), c.dtype)))
    total = jax.lax.scan(chunk, jnp.zeros((count, *c.shape), c.dtype), padded)[0]
    return total * (limit / (8 * _FIRST))[None, :]


def _terms(
    values: list[Array], z: Float[Array, "node n"], steps: Float[Array, "node n"]
) -> Float[Array, "k node n"]:
    """The integrands with density and steps; zero where the density is no number, whatever they are."""
    root = jnp.exp(-(z**2) / 4)
    weight = steps * root / jnp.sqrt(2 * jnp.asarray(np.pi, z.dtype))
    term = lambda f: jnp.where(root * weight > 0, (f * root) * weight, 0)
    return jnp.stack([term(f) for f in values])


def by_range(
    usual: Bool[Array, " n"], ordinary: Callable[..., Any], adapted: Callable[..., Any], *args: Any
) -> Any:
    """`ordinary(*args)` where the fixed nodes serve all inputs, else `adapted(*args)`; one answer for a
    whole batch under vmap, or both would be evaluated."""
    return jax.lax.cond(unvmap_any(~usual), adapted, ordinary, *args)
