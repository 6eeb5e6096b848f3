"""Pair moments E[sigma^(i)(x) sigma^(j)(y)] by Mehler's series; their derivatives by Price's theorem.

For (x, y) Gaussian with Var x = a, Var y = b, Cov = c:

    d/da E[f g] = E[f'' g] / 2,    d/dc E[f g] = E[f' g'],    d/db E[f g] = E[f g''] / 2

(Price 1958). Differentiating the covariance differentiates the integrand, never a Cholesky factor, so
derivatives are as finite and as accurate on singular blocks (equal or parallel inputs) as elsewhere.
All moments that the r-th derivatives of E[sigma sigma] need form a triangle, i + j even and at most
2r; one more derivative is one more row of it. Hence one primitive, `moment_table`, whose derivative is
a contraction of the next larger table: the work grows linearly with the order of differentiation.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox.internal import unvmap_any
from jaxtyping import Array, Bool, Float

from .._activation.base import AbstractActivation, AbstractKinkedActivation
from .._activation.scale import correlation
from .._trees import as_constant
from .adapted import fits
from .direct import direct_moments
from .direct_kinked import direct_kinked_moments
from .kinked import KinkedSpectra
from .nodes import TERMS, spectral_rule
from .primitive import with_derivative
from .series import sum_series, table_indices
from .spectrum import SmoothSpectra


@eqx.filter_jit
def moment_table(
    order: int,
    activation: AbstractActivation,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    c: Float[Array, "n m"],
) -> Float[Array, "entry n m"]:
    """E[sigma^(i) sigma^(j)] for (i, j) in `table_indices(order)`, for all pairs of n with m inputs."""
    return _bind_table(order, activation, a, b, c)


def _table_derivative(primals, tangents):
    order, activation, a, b, c = primals
    _, activation_dot, a_dot, b_dot, c_dot = tangents
    kernel_moves = not (a_dot is None and b_dot is None and c_dot is None)
    table = moment_table(order + 1 if kernel_moves else order, activation, a, b, c)
    entries = dict(zip(table_indices(order + 1), table))
    value = table[: len(table_indices(order))]
    tangent = jnp.zeros_like(value)
    if kernel_moves:
        rows = []
        for i, j in table_indices(order):
            row = jnp.zeros_like(c)
            if a_dot is not None:
                row = row + entries[i + 2, j] * (a_dot / 2)[:, None]
            if c_dot is not None:
                row = row + entries[i + 1, j + 1] * c_dot
            if b_dot is not None:
                row = row + entries[i, j + 2] * (b_dot / 2)[None, :]
            rows.append(row)
        tangent = tangent + jnp.stack(rows)
    if any(leaf is not None for leaf in jax.tree.leaves(activation_dot)):
        # At a fixed kernel the activation's own parameters are differentiated through the series, at
        # its full length: the adaptive loop has no transpose.
        by_activation = lambda activation: integrate_table(order, activation, a, b, c, adaptive=False)
        tangent = tangent + eqx.filter_jvp(by_activation, (activation,), (activation_dot,))[1]
    return value, tangent


_bind_table = with_derivative("moments", lambda *args: integrate_table(*args), _table_derivative)


#: Relative to its natural scale, the error of a moment above which a pair is integrated over the plane.
POOR = {jnp.dtype("float64"): 1e-9, jnp.dtype("float32"): 1e-4}


@eqx.filter_jit
def integrate_table(
    order: int, activation, a, b, c, *, adaptive: bool = True, errors: bool = False
) -> Any:
    """The table by the spectra that fit and, where the series has not converged, by an integral over
    the plane; with error estimates of the same shape if they are asked for, which cost more than the
    table."""
    if isinstance(activation, AbstractKinkedActivation):
        return _kinked_table(order, activation, a, b, c, adaptive=adaptive, errors=errors)
    value, error, excess = sum_series(SmoothSpectra, order, activation, a, b, c, adaptive=adaptive)
    if not adaptive:
        return value
    fitting = _fit(activation, a)[:, None] & _fit(activation, b)[None, :]
    poor = jnp.any(excess > POOR[c.dtype], axis=0) | ~fitting
    found = (value, error) if errors else (value,)
    improve = functools.partial(_improve, direct_moments, order, activation)
    keep = lambda a, b, c, poor, found: found
    found = jax.lax.cond(unvmap_any(poor), improve, keep, a, b, c, poor, found)
    if not errors:
        return found[0]
    # What is not known of a function with kinks that were not declared, no other integral knows either.
    unknown = fitting[None] & jnp.isinf(error)
    return found[0], jnp.where(unknown, jnp.inf, found[1])


def _kinked_table(order: int, activation, a, b, c, *, adaptive: bool, errors: bool):
    """`integrate_table` for declared kinks: of nearly parallel inputs by panels in the plane."""
    value, error, excess = sum_series(KinkedSpectra, order, activation, a, b, c, adaptive=adaptive)
    if not adaptive:
        return value
    rows, columns = (jnp.broadcast_to(q, c.shape) for q in (a[:, None], b[None, :]))
    corr, gap = correlation(rows, columns, c)
    # Moments of parallel inputs are known by themselves; at little correlation the series has converged.
    # A hundredth of `POOR`, since opposite inputs leave little of the natural scale.
    poor = jnp.any(excess > POOR[c.dtype] / 100, axis=0) & (gap > 0) & (jnp.abs(corr) > 0.5)
    found = (value, error) if errors else (value,)
    improve = functools.partial(_improve, direct_kinked_moments, order, activation)
    found = jax.lax.cond(unvmap_any(poor), improve, lambda *args: args[-1], a, b, c, poor, found)
    return found if errors else found[0]


def may_be_poor(
    activation: AbstractActivation,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    c: Float[Array, "n m"],
) -> Bool[Array, "n m"]:
    """Which pairs the series may not serve: nodes too wide for the variances, or a remainder, at most a
    share |corr|^TERMS of the moment's natural scale, that need not be below `POOR`. Equal inputs are
    served by the expectations of one."""
    rows, columns = (jnp.broadcast_to(q, c.shape) for q in (a[:, None], b[None, :]))
    corr, gap = correlation(rows, columns, c)
    # Both roots of the remainder and the value at correlation one are below the scale, or twice it.
    slow = jnp.abs(jnp.clip(corr, -1, 1)) ** TERMS > POOR[c.dtype] / 8
    equal = (rows == columns) & (corr > 0) & (gap <= 256 * jnp.finfo(c.dtype).eps)
    if isinstance(activation, AbstractKinkedActivation):
        return slow & ~equal
    fitting = _fit(activation, a)[:, None] & _fit(activation, b)[None, :]
    return (slow | ~fitting) & ~equal


def _fit(activation, q: Float[Array, " n"]) -> Bool[Array, " n"]:
    """At which variances the spectra are right to 1e-12 (docs/accuracy.md): nodes 4.5 times denser than
    any feature."""
    rule = spectral_rule()
    return fits(as_constant(activation), q, rule.spacing, rule.concentration, rule.reach, 4.5)


def _improve(direct, order: int, activation, a, b, c, poor, found):
    """Where `poor`, the table by `direct`, an integral over the plane, one pair after the other."""

    def one_pair(pair):
        a, b, c, poor, old = pair
        errors = len(found) == 2
        integrate = lambda: direct(activation, table_indices(order), a, b, c, errors=errors)
        return jax.lax.cond(poor, integrate, lambda: old)

    flat = lambda x: x.reshape(*x.shape[:-2], -1)
    first = lambda x: jnp.moveaxis(flat(x), -1, 0)
    rows, columns = (flat(jnp.broadcast_to(q, c.shape)) for q in (a[:, None], b[None, :]))
    new = jax.lax.map(one_pair, (rows, columns, flat(c), flat(poor), jax.tree.map(first, found)))
    return jax.tree.map(lambda x, old: jnp.moveaxis(x, 0, -1).reshape(old.shape), new, found)
