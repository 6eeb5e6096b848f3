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
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox.internal import unvmap_any
from jaxtyping import Array, Bool, Float

from .._activation.base import AbstractActivation, AbstractKinkedActivation
from .._activation.scale import correlation
from .._support.trees import as_constant
from .adapted import fits
from .direct import direct_moments
from .direct_kinked import direct_kinked_moments
from .kinked import KinkedSpectra
from .nodes import TERMS, spectral_rule
from .primitive import with_derivative
from .series import remaining_share, sum_series, table_indices
from .spectrum import SmoothSpectra

#: Moments of one pair by an integral over the plane; with estimates of their errors if asked for.
Direct: TypeAlias = Callable[..., tuple[Float[Array, " entry"], ...]]
#: A table, and that of its error estimates if they are asked for.
Tables: TypeAlias = tuple[Float[Array, "entry n m"], ...]


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


def _table_derivative(
    primals: tuple[int, AbstractActivation, Array, Array, Array],
    tangents: tuple[None, Any, Array | None, Array | None, Array | None],
) -> tuple[Float[Array, "entry n m"], Float[Array, "entry n m"]]:
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
    order: int,
    activation: AbstractActivation,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    c: Float[Array, "n m"],
    *,
    adaptive: bool = True,
    errors: bool = False,
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
    found = _improve(direct_moments, order, activation, a, b, c, poor, found)
    if not errors:
        return found[0]
    # What is not known of a function with kinks that were not declared, no other integral knows either.
    unknown = fitting[None] & jnp.isinf(error)
    return found[0], jnp.where(unknown, jnp.inf, found[1])


def _kinked_table(
    order: int,
    activation: AbstractKinkedActivation,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    c: Float[Array, "n m"],
    *,
    adaptive: bool,
    errors: bool,
) -> Any:
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
    found = _improve(direct_kinked_moments, order, activation, a, b, c, poor, found)
    return found if errors else found[0]


class Service(NamedTuple):
    """How the table comes by the moments of every pair, and how well.

    - `by_plane`: whether by an integral over the plane, perhaps: the series is not known to serve.
    - `error`: where the series may serve, an estimate of the error of E[sigma^(r) sigma^(r)], r = 0 ..
        order, relative to their natural scale and without the remainder, which is below `POOR`; else
        zero.
    """

    by_plane: Bool[Array, "n m"]
    error: Float[Array, "r n m"]


def series_service(
    order: int, activation: AbstractActivation, q: Float[Array, " inputs"], c: Float[Array, "n m"]
) -> Service:
    """How the series serves pairs, from the spectra of inputs alone: nothing is summed over pairs. The
    first n of the variances `q` are those of rows, the last m those of columns."""
    limit, (n, m) = POOR[c.dtype], c.shape
    rows, columns = (jnp.broadcast_to(x, c.shape) for x in (q[:n, None], q[None, -m:]))
    size = jnp.abs(jnp.clip(correlation(rows, columns, c)[0], -1, 1))
    if isinstance(activation, AbstractKinkedActivation):
        return Service(size**TERMS > limit / 2, jnp.zeros((order + 1, *c.shape), c.dtype))
    fit, spectra = _fit(activation, q), SmoothSpectra(activation, q, order)
    fitting = fit[:n, None] & fit[None, -m:]
    # The remainder is a share |corr|^M of the natural scale at most, and so is what replaces it: exact
    # for parallel inputs, an input with itself among them.
    gap, eps = 1 - size, jnp.finfo(c.dtype).eps
    most = 2 * jnp.where(gap <= 256 * eps, jnp.minimum(spectra.cusp(gap), 1), 1)

    def is_long() -> Bool[Array, "n m"]:
        # A sixteenth: in float32 the shares round to half of that. Built anew, for no other branch.
        whole = SmoothSpectra(activation, q, 2 * order)
        share, orders = remaining_share(whole, limit / 16, fit)
        share = jnp.sqrt(share)
        return most * size**orders * share[:n, None] * share[None, -m:] > limit

    never = lambda: jnp.zeros(c.shape, bool)
    long = jax.lax.cond(unvmap_any(fitting & (most * size**TERMS > limit)), is_long, never)
    error = spectra.relative_error
    error = error[:, :n, None] + error[:, None, -m:] + 64 * eps
    return Service(long | ~fitting, jnp.where(fitting, error, 0))


def plane_errors(
    order: int,
    activation: AbstractActivation,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    c: Float[Array, "n m"],
    wanted: Bool[Array, "n m"],
) -> Float[Array, "entry n m"]:
    """Estimates of the errors of a table that is integrated over the plane; zero if not `wanted`."""
    zeros = jnp.zeros((len(table_indices(order)), *c.shape), c.dtype)
    return _over_plane(direct_moments, order, activation, a, b, c, wanted, (zeros, zeros))[1]


def _fit(activation: AbstractActivation, q: Float[Array, " n"]) -> Bool[Array, " n"]:
    """At which variances the spectra are right to 1e-12 (docs/accuracy.md): nodes 4.5 times denser than
    any feature."""
    rule = spectral_rule()
    return fits(as_constant(activation), q, rule.spacing, rule.concentration, rule.reach, 4.5)


def _improve(
    direct: Direct,
    order: int,
    activation: AbstractActivation,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    c: Float[Array, "n m"],
    poor: Bool[Array, "n m"],
    found: Tables,
) -> Tables:
    """`found`, and where `poor` the table over the plane; left alone if a batch has no such pair."""
    improve = functools.partial(_over_plane, direct, order, activation)
    return jax.lax.cond(unvmap_any(poor), improve, lambda *args: args[-1], a, b, c, poor, found)


def _over_plane(
    direct: Direct,
    order: int,
    activation: AbstractActivation,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    c: Float[Array, "n m"],
    poor: Bool[Array, "n m"],
    found: Tables,
) -> Tables:
    """Where `poor`, the table by `direct`, an integral over the plane, one pair after the other."""

    def one_pair(pair: tuple[Array, Array, Array, Array, tuple[Array, ...]]) -> tuple[Array, ...]:
        a, b, c, poor, old = pair
        errors = len(found) == 2
        integrate = lambda: direct(activation, table_indices(order), a, b, c, errors=errors)
        return jax.lax.cond(poor, integrate, lambda: old)

    flat = lambda x: x.reshape(*x.shape[:-2], -1)
    first = lambda x: jnp.moveaxis(flat(x), -1, 0)
    rows, columns = (flat(jnp.broadcast_to(q, c.shape)) for q in (a[:, None], b[None, :]))
    new = jax.lax.map(one_pair, (rows, columns, flat(c), flat(poor), jax.tree.map(first, found)))
    return jax.tree.map(lambda x, old: jnp.moveaxis(x, 0, -1).reshape(old.shape), new, found)
