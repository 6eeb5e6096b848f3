"""Expectations of products of sigma and its derivatives beyond E[sigma sigma], by Mehler's series.

E[f(x) g(y)] = sum_m corr^m f_m g_m for any two functions: a power of sigma or of a derivative is one
more Hermite spectrum of its input, and belongs to the input. For positively homogeneous activations
polar coordinates are exact at any correlation.
"""

from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import (
    AbstractActivation,
    AbstractHomogeneousActivation,
    AbstractKinkedActivation,
    derivatives,
)
from .._numerics.safe import safe_root
from .chaos import alignment, cumulative_powers
from .hermite import hermite_functions, scan_hermite
from .input_chaos import InputChaos, has_kinks, input_chaos, kinks_of
from .kinked import kinked_steps
from .nodes import chaos_reach, chaos_rule
from .origin import taylor_coefficients
from .parallel import parallel_coefficients, replaced
from .wedge import wedge_rule

_TERMS = 512
#: A variance, a covariance or a correlation.
Scalar: TypeAlias = Float[Array, ""]


class InputProducts(eqx.Module):
    """The contribution of one input to `pair_products`.

    - `spectra`: of sigma, sigma^2, sigma^3, sigma'^2 and sigma''^2.
    - `remainders`: E[f^2] less what the spectrum has of it, f the same five.
    - `lowest`: E[f h_0] and E[f h_1] of the first three; at zero variance the coefficients of 1 and x, to
        first order in the variance.
    """

    spectra: Float[Array, "*n 5 term"]
    lowest: Float[Array, "*n 3 2"]
    remainders: Float[Array, "*n 5"]


class SingleProducts(eqx.Module):
    """Expectations of one input: E[sigma^2 h_p(z)], E[sigma^4], and E[((sigma^2)''/2)^2], infinite where
    the derivative is no function."""

    square: Float[Array, "*n p"]
    fourth: Float[Array, "*n"]
    curvature: Float[Array, "*n"]


class PairProducts(NamedTuple):
    """Expectations of a pair: E[sigma_a^{4-j} sigma_b^j], bounds of what the series leave out of them,
    and how large the functions are whose chaos the source of K1 consists of,
    E[(sigma''_a sigma_b / 2)^2], E[(sigma'_a sigma'_b)^2] and E[(sigma_a sigma''_b / 2)^2]: infinite for
    activations with kinks, upper ends otherwise."""

    fourth: Float[Array, "5"]
    remainder: Float[Array, "5"]
    sources: Float[Array, "3"]


def input_products(activation: AbstractActivation, q: Scalar, order: int, terms: int) -> InputProducts:
    """The spectra of one input of variance `q`, on the nodes of `input_chaos`. Homogeneous activations
    need none."""
    if isinstance(activation, AbstractHomogeneousActivation):
        return InputProducts(*(jnp.zeros(shape, q.dtype) for shape in ((5, 0), (3, 2), (5,))))
    z, steps, basis = chaos_nodes(activation, q, order, terms)
    value, slope, curvature = derivatives(activation, safe_root(q) * z, 2)
    functions = jnp.stack([value, value**2, value**3, slope**2, curvature**2])
    density = jnp.exp(-(z**2) / 4)
    spectra = (functions * (steps * density)[None]) @ basis.T
    energies = functions**2 @ (steps * density**2)
    kinked = has_kinks(activation)
    powers = [lambda x, k=k: activation(x) ** k for k in (1, 2, 3)]
    at_zero = jnp.stack([taylor_coefficients(fn, q, 0, kinked=kinked)[0] for fn in powers])
    return InputProducts(
        spectra,
        jnp.where(q > 0, spectra[:3, :2], at_zero),
        jnp.maximum(energies - jnp.sum(spectra**2, axis=1), 0),
    )


def single_products(activation: AbstractActivation, q: Scalar, top: int) -> SingleProducts:
    """Of one input of variance `q`, up to the degree `top`."""
    z, steps, basis = chaos_nodes(activation, q, top, 1, top + 1)
    value, slope, curvature = derivatives(activation, safe_root(q) * z, 2)
    weights = steps * jnp.exp(-(z**2) / 4)
    weighted = value**2 * weights
    kinked = isinstance(activation, AbstractKinkedActivation)
    squared = lambda x: activation(x) ** 2
    of_square, of_fourth = taylor_coefficients(squared, q, top, kinked=has_kinks(activation))
    return SingleProducts(
        square=jnp.where(q > 0, basis @ weighted, of_square[: top + 1]),
        fourth=jnp.where(q > 0, weighted @ (value**2 * jnp.exp(-(z**2) / 4)), of_fourth[0]),
        curvature=jnp.asarray(jnp.inf, q.dtype)
        if kinked
        else (slope**2 + value * curvature) ** 2 @ (weights * jnp.exp(-(z**2) / 4)),
    )


def pair_products(
    activation: AbstractActivation,
    x: InputProducts,
    y: InputProducts,
    fourths: Float[Array, "2"],
    qa: Scalar,
    qb: Scalar,
    c: Scalar,
) -> PairProducts:
    """Of a pair; `fourths` are E[sigma_a^4] and E[sigma_b^4]."""
    corr, gap = alignment(qa, qb, c)
    infinite = jnp.full((3,), jnp.inf, corr.dtype)
    if isinstance(activation, AbstractHomogeneousActivation):
        return PairProducts(_homogeneous(activation, qa, qb, c), jnp.zeros((5,), corr.dtype), infinite)
    terms = x.spectra.shape[-1]
    powers = cumulative_powers(corr, terms)
    left, right = np.array([2, 1, 0, 4, 3, 1]), np.array([0, 1, 2, 1, 3, 4])
    series = jnp.sum(powers[None, :] * x.spectra[left] * y.spectra[right], axis=1)
    some = (qa > 0) & (qb > 0)
    mixed = jnp.where(some, 0, c / _unit(qa) / _unit(qb))
    f, g = x.lowest[left[:3]], y.lowest[right[:3]]
    at_zero = f[:, 0] * g[:, 0] + mixed * f[:, 1] * g[:, 1]
    series = jnp.concatenate([jnp.where(some, series[:3], at_zero), series[3:]])
    # Cauchy-Schwarz for the orders that are left out.
    beyond = jnp.abs(corr) ** terms * jnp.sqrt(x.remainders[left] * y.remainders[right])
    fourth = jnp.concatenate([fourths[:1], series[:3], fourths[1:]])
    remainder = jnp.concatenate([jnp.zeros_like(beyond[:1]), beyond[:3], jnp.zeros_like(beyond[:1])])
    if isinstance(activation, AbstractKinkedActivation):
        # The series of parallel inputs converges slowly, that of derivatives hardly.
        parallel, exact = some & (gap == 0), lambda: _parallel_mixed(activation, qa, qb, corr, gap)
        fourth = fourth.at[1:4].set(replaced(parallel, exact, fourth[1:4]))
        return PairProducts(fourth, jnp.where(parallel, 0, remainder), infinite)
    quarter = jnp.asarray([0.25, 1, 0.25], corr.dtype)
    return PairProducts(fourth, remainder, quarter * (series[3:] + beyond[3:]))


def _parallel_mixed(
    activation: AbstractActivation, qa: Scalar, qb: Scalar, corr: Scalar, gap: Scalar
) -> Float[Array, "3"]:
    """E[sigma_a^{4-j} sigma_b^j], j = 1, 2, 3, of parallel inputs, by one-dimensional integrals: for
    activations with declared kinks."""
    one = lambda j: parallel_coefficients(
        activation, kinks_of(activation), qa, qb, corr, gap, 0, powers=(4 - j, j)
    )[0, 0]
    return jnp.stack([one(j) for j in (1, 2, 3)])


def _unit(q: Scalar) -> Scalar:
    return jnp.where(q > 0, safe_root(q), 1)


def chaos_nodes(
    activation: AbstractActivation, q: Scalar, order: int, terms: int, count: int | None = None
) -> tuple[Array, ...]:
    """Nodes and steps of E[sigma h_j h_i], j <= order, i < terms, and `count` Hermite functions there."""
    count = terms if count is None else count
    if isinstance(activation, AbstractHomogeneousActivation | AbstractKinkedActivation):
        homogeneous = isinstance(activation, AbstractHomogeneousActivation)
        kinks = (0.0,) if homogeneous else activation.kinks
        scale = jnp.where(q > 0, q, 1)[None, None] ** 0.5 if not homogeneous else jnp.ones((1, 1))
        z, steps = (x[0].astype(q.dtype) for x in kinked_steps(kinks, scale, chaos_reach(order)))
        return z, steps, scan_hermite(z, count)
    rule = chaos_rule(order, terms)
    basis = hermite_functions(rule.nodes, count)
    return tuple(jnp.asarray(x, q.dtype) for x in (rule.nodes, rule.steps, basis))


def pair_fourth_moments(
    activation: AbstractActivation,
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    c: Float[Array, "n m"],
) -> Float[Array, "n m 5"]:
    """E[sigma(x)^{4-j} sigma(y)^j] for all pairs: Var x = a[i], Var y = b[k], Cov(x, y) = c[i, k]."""
    if isinstance(activation, AbstractHomogeneousActivation):
        by_angle = lambda a, b, c: _homogeneous(activation, a, b, c)
        return jax.vmap(jax.vmap(by_angle, (None, 0, 0)), (0, None, 0))(a, b, c)
    raised = lambda power: lambda x: activation(x) ** power
    of_power = lambda power: lambda q: input_chaos(activation, q, 0, _TERMS, of=raised(power))
    inputs = lambda q: [jax.vmap(of_power(power))(q) for power in (1, 2, 3)]

    def one_pair(
        x: list[InputChaos], y: list[InputChaos], qa: Scalar, qb: Scalar, c: Scalar
    ) -> Float[Array, "5"]:
        corr, gap = alignment(qa, qb, c)
        powers = cumulative_powers(corr, _TERMS)
        mixed = jnp.stack([jnp.sum(powers * x[3 - j].spectrum * y[j - 1].spectrum) for j in (1, 2, 3)])
        if isinstance(activation, AbstractKinkedActivation):
            # As in `pair_products`: the series converges slowly there.
            parallel = (gap == 0) & (qa > 0) & (qb > 0)
            exact = lambda: _parallel_mixed(activation, qa, qb, corr, gap)
            mixed = replaced(parallel, exact, mixed)
        return jnp.concatenate([x[1].square[:1], mixed, y[1].square[:1]])

    over_columns = jax.vmap(one_pair, (None, 0, None, 0, 0))
    return jax.vmap(over_columns, (0, None, 0, None, 0))(inputs(a), inputs(b), a, b, c)


def _homogeneous(
    activation: AbstractHomogeneousActivation, a: Scalar, b: Scalar, c: Scalar
) -> Float[Array, "5"]:
    """(x, y) = r (sqrt(a) cos t, sqrt(b) cos(t - theta)): E = (4 / pi) times an integral over t, analytic
    in each wedge. At zero variance as `_activation/homogeneous.py` says."""
    corr, gap = alignment(a, b, c)
    negative, positive = (slope.astype(corr.dtype) for slope in activation.slopes)
    of_x, of_y = [positive, positive, negative, negative], [negative, positive, positive, negative]
    wedges = _wedge_integrals(corr, gap)
    by_slopes = [sum(x ** (4 - j) * y**j * w for x, y, w in zip(of_x, of_y, wedges[j])) for j in range(5)]
    roots = safe_root(a) * safe_root(b)
    some = (a > 0) & (b > 0)
    # E[sigma(x) sigma(y)^3] of a tiny x: the mean slope times c E[(sigma^3)'].
    mean, cubes = (positive + negative) / 2, 3 * (positive**3 + negative**3) / 2
    at_zero = lambda q: jnp.where(some, 0, mean * cubes * c * q)
    return jnp.stack(
        [
            a**2 * by_slopes[0],
            a * roots * by_slopes[1] + at_zero(a),
            a * b * by_slopes[2],
            b * roots * by_slopes[3] + at_zero(b),
            b**2 * by_slopes[4],
        ]
    )


@jax.custom_jvp
def _wedge_integrals(corr: Scalar, gap: Scalar) -> Float[Array, "5 4"]:
    """4 / pi times the integrals of cos(t)^{4-j} cos(t - theta)^j over the wedges."""
    return _by_angle(jnp.arctan2(safe_root(gap), corr))


@_wedge_integrals.defjvp
def _(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Float[Array, "5 4"], Float[Array, "5 4"]]:
    # Even functions of theta about 0 and pi, up to theta^5: d/dcorr = -F'/sin(theta), -F'' corr there.
    (corr, gap), (d_corr, _) = primals, tangents
    sine = safe_root(gap)
    theta = jnp.arctan2(sine, corr)
    first = lambda theta: jax.jvp(_by_angle, (theta,), (jnp.ones_like(theta),))[1]
    slope, bend = jax.jvp(first, (theta,), (jnp.ones_like(theta),))
    rate = jnp.where(gap > 0, -slope / jnp.where(gap > 0, sine, 1), -bend * jnp.sign(corr))
    return _wedge_integrals(corr, gap), rate * d_corr


def _by_angle(theta: Scalar) -> Float[Array, "5 4"]:
    t, steps = wedge_rule(theta, 16)
    weights = 4 / jnp.asarray(np.pi, theta.dtype) * steps
    x, y = jnp.cos(t), jnp.cos(t - theta)
    return jnp.stack([jnp.sum(weights * x ** (4 - j) * y**j, axis=1) for j in range(5)])
