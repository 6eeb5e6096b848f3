"""Mehler's series: E[f(x) g(y)] = sum_m corr^m f_m g_m, summed to rounding for all pairs at once."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from equinox.internal import unvmap_any
from jaxtyping import Array, Bool, Float

from .._activation.base import AbstractActivation
from .._activation.scale import correlation
from .._numerics.safe import safe_divide
from .nodes import BLOCK, TERMS
from .spectrum import AbstractSpectra, SmoothSpectra


def table_indices(order: int) -> tuple[tuple[int, int], ...]:
    """The (i, j) of a table: row after row, so that a smaller table is the head of a larger one."""
    return tuple((i, 2 * row - i) for row in range(order + 1) for i in range(2 * row, -1, -1))


def sum_series(
    kind: Callable[[Any, Array, int], AbstractSpectra],
    order: int,
    activation: AbstractActivation,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    c: Float[Array, "n m"],
    *,
    adaptive: bool = True,
) -> tuple[Float[Array, "entry n m"], Float[Array, "entry n m"], Float[Array, "entry n m"]]:
    """The table, an error estimate of the same shape, and the part of it that is due to the series' end,
    relative to the moment's natural scale.

    Partial sums stop once the remainder is below rounding for every pair. What is left at the end is
    replaced by its value at correlation +-1, known from a one-dimensional integral, times |corr|^M:
    exact for parallel inputs however slowly the series converges there.
    """
    indices = table_indices(order)
    i, j = np.array(indices).T
    rows, columns = kind(activation, a, 2 * order), kind(activation, b, 2 * order)
    # Rounding may put parallel inputs beyond one; kernels that are not PSD are refused upstream.
    row, column = (jnp.broadcast_to(q, c.shape) for q in (a[:, None], b[None, :]))
    corr = jnp.clip(correlation(row, column, c)[0], -1, 1)
    size = jnp.broadcast_to(jnp.abs(corr), (len(indices), *c.shape))
    eps = jnp.finfo(c.dtype).eps

    # Parallel inputs, up to what rounding makes of them after many layers, whose moments are known by
    # themselves: they need not wait for convergence.
    known = jnp.isfinite(jnp.sum(rows.gram[:, i, j], axis=0))[:, :, None]
    equal = jnp.broadcast_to(a[:, None] == b[None, :], size.shape)
    gap = 1 - size
    settled = known & (gap <= 256 * eps)
    slowest = jnp.max(jnp.where(settled, 0, size), axis=(1, 2), initial=0)

    def remainder(state: Series, size: Float[Array, " entry"]) -> Float[Array, " entry"]:
        """Of the least favourable pair with |corr| <= size, relative to its natural scale."""
        shares = _share_left(rows, state.rows, i, size) * _share_left(columns, state.columns, j, size)
        return size ** (BLOCK * state.blocks) * shares

    def unfinished(state: Series) -> Bool[Array, ""]:
        # One answer for a whole batch under vmap, so that the block's index stays one number.
        return (state.blocks < TERMS // BLOCK) & unvmap_any(remainder(state, slowest) > 64 * eps)

    def add_block(state: Series) -> Series:
        s, t = rows.block(state.blocks), columns.block(state.blocks)
        even, odd = (_outer(s[i][..., p::2], t[j][..., p::2]) for p in (0, 1))
        return Series(
            blocks=state.blocks + 1,
            power=state.power * corr**BLOCK,
            total=state.total + state.power[None] * _horner(s[i], t[j], corr),
            parallel=state.parallel + even + jnp.sign(corr)[None] * odd,
            rows=_take(state.rows, s),
            columns=_take(state.columns, t),
        )

    zeros = jnp.zeros_like(size)
    state = Series(jnp.asarray(0), jnp.ones_like(c), zeros, zeros, _nothing(rows), _nothing(columns))
    if adaptive:
        state = jax.lax.while_loop(unfinished, add_block, state)
    else:
        body = jax.checkpoint(lambda state, _: (add_block(state), None))
        state, _ = jax.lax.scan(body, state, None, length=TERMS // BLOCK)

    sign = jnp.broadcast_to(jnp.sign(corr), size.shape)
    even, odd = (rows.gram - state.rows.gram)[:, i, j][..., None]
    at_equal = even + sign * odd

    def at_parallel() -> Float[Array, "entry n m"]:
        even, odd = rows.parallel(columns, i, j)
        return jnp.where(equal, at_equal, even + sign * odd - state.parallel)

    needed = remainder(state, jnp.max(jnp.where(equal, 0, size), axis=(1, 2), initial=0)) > eps
    left = jax.lax.cond(unvmap_any(needed), at_parallel, lambda: jnp.where(equal, at_equal, 0))
    left = jnp.where(known, left, 0)
    power = jnp.abs(state.power)[None]
    value = state.total + power * left

    # Roots first: products of second moments may underflow.
    root = lambda x: jnp.sqrt(jnp.where(x > 0, x, 0))
    both = lambda f, size: (
        root(f(rows, state.rows, i, size)) * _swap(root(f(columns, state.columns, j, _swap(size))))
    )
    scale = both(_energy, jnp.where(settled, 0, size))
    tail = power * (both(_tail, size) + jnp.abs(left))
    tail = jnp.where(settled, rows.cusp(gap) * jnp.minimum(tail, scale), tail)
    relative = rows.relative_error[i][:, :, None] + columns.relative_error[j][:, None, :] + 64 * eps
    accuracy = jnp.where(jnp.isfinite(relative), relative * scale, jnp.inf)
    excess = jnp.where(jnp.isfinite(scale) & (scale > 0), tail / jnp.where(scale > 0, scale, 1), 0)
    return value, tail + accuracy + 16 * eps * jnp.abs(value), excess


def remaining_share(
    spectra: SmoothSpectra, enough: float, matters: Bool[Array, " n"]
) -> tuple[Float[Array, " n"], Array]:
    """The share of E[(sigma^(i))^2] in orders from M on, the largest of all i; and M, where it is at most
    `enough` for all inputs that matter, or else the number of orders."""
    energy = _squares(spectra.gram)

    def left(taken: Float[Array, "derivative n"]) -> Float[Array, " n"]:
        share = safe_divide(jnp.abs(energy - taken), energy)
        return jnp.max(share, axis=0)

    def unfinished(state: tuple[Array, Array]) -> Bool[Array, ""]:
        blocks, taken = state
        some = jnp.any(matters & (left(taken) > enough))
        return (blocks < TERMS // BLOCK) & unvmap_any(some)

    def add_block(state: tuple[Array, Array]) -> tuple[Array, Array]:
        blocks, taken = state
        return blocks + 1, taken + jnp.sum(spectra.block(blocks) ** 2, axis=-1)

    start = (jnp.asarray(0), jnp.zeros_like(energy))
    blocks, taken = jax.lax.while_loop(unfinished, add_block, start)
    return left(taken), BLOCK * blocks


class Sums(NamedTuple):
    """What the blocks so far hold of one side's spectra."""

    gram: Float[Array, "parity derivative derivative n"]
    peak: Float[Array, "derivative n"]  # the largest coefficient of the last block
    orders: Array  # how many


class Series(NamedTuple):
    """State of the summation: `total` at the pairs' correlations, `parallel` at +-1."""

    blocks: Array
    power: Float[Array, "n m"]
    total: Float[Array, "entry n m"]
    parallel: Float[Array, "entry n m"]
    rows: Sums
    columns: Sums


def _horner(
    s: Float[Array, "entry n term"], t: Float[Array, "entry m term"], corr: Float[Array, "n m"]
) -> Float[Array, "entry n m"]:
    """sum_m s[e, a, m] t[e, b, m] corr[a, b]^m over one block."""

    def step(
        total: Float[Array, "entry n m"], coefficients: tuple[Array, Array]
    ) -> tuple[Float[Array, "entry n m"], None]:
        s, t = coefficients
        return total * corr[None] + s[:, :, None] * t[:, None, :], None

    zeros = jnp.zeros((s.shape[0], *corr.shape), corr.dtype)
    highest_first = (jnp.moveaxis(s, -1, 0)[::-1], jnp.moveaxis(t, -1, 0)[::-1])
    return jax.lax.scan(step, zeros, highest_first, unroll=16)[0]


def _nothing(spectra: AbstractSpectra) -> Sums:
    start = jnp.full_like(spectra.ceiling, jnp.inf)
    return Sums(jnp.zeros_like(spectra.gram), start, jnp.zeros((), start.dtype))


def _take(sums: Sums, s: Float[Array, "derivative n term"]) -> Sums:
    gram = jnp.stack([jnp.einsum("iax,jax->ija", s[..., p::2], s[..., p::2]) for p in (0, 1)])
    return Sums(sums.gram + gram, jnp.max(jnp.abs(s), axis=-1), sums.orders + BLOCK)


def _squares(gram: Float[Array, "parity derivative derivative n"]) -> Float[Array, "derivative n"]:
    """E[(sigma^(i))^2], from its parities."""
    return jnp.einsum("piia->ia", gram)


def _tail(
    spectra: AbstractSpectra, sums: Sums, order: np.ndarray, size: Float[Array, "entry ..."]
) -> Float[Array, "entry n m"]:
    """sum of (s_m^(order))^2 |corr|^m over the m not summed, divided by |corr|^M. (entry, n, m).

    Parseval's sum where it is finite; else from the last block's largest coefficient, which grows on
    like a power of m.
    """
    left, peak = _squares(spectra.gram - sums.gram)[order][..., None], sums.peak[order][..., None]
    power = jnp.asarray(order, size.dtype)[:, None, None]
    gap = jnp.where(size < 1, 1 - size, 0)
    geometric = 4 * peak**2 / gap * (1 + power / (sums.orders * gap)) ** power
    return jnp.where(jnp.isfinite(left), jnp.abs(left), jnp.where(peak > 0, geometric, 0))


def _energy(
    spectra: AbstractSpectra, sums: Sums, order: np.ndarray, size: Float[Array, "entry n m"]
) -> Float[Array, "entry n m"]:
    """sum of (s_m^(order))^2 |corr|^m over all m, or a bound of it. (entry, n, m)."""
    del sums
    energy, ceiling = _squares(spectra.gram)[order][..., None], spectra.ceiling[order][..., None]
    power = jnp.asarray(order + 1, size.dtype)[:, None, None]
    return jnp.where(jnp.isfinite(energy), energy, ceiling / (1 - size) ** power)


def _share_left(
    spectra: AbstractSpectra, sums: Sums, order: np.ndarray, size: Float[Array, " entry"]
) -> Float[Array, " entry"]:
    """sqrt of what is left of sum_m (s_m^(order))^2, relative to it: the worst input. (entry,)."""
    tail = _tail(spectra, sums, order, size[:, None, None])[..., 0]
    energy, taken = _squares(spectra.gram)[order], _squares(sums.gram)[order]
    whole = jnp.where(jnp.isfinite(energy), energy, taken)
    return jnp.sqrt(jnp.max(jnp.where(tail > 0, tail / whole, 0), axis=1, initial=0))


_swap = lambda x: jnp.swapaxes(x, 1, 2)
_outer = functools.partial(jnp.einsum, "eax,ebx->eab")
