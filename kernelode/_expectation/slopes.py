"""Expectations of products of sigma and sigma' of a pair: all that tangent kernels have besides
E[sigma sigma].

sigma' is a function as sigma is, with the same kinks and features: the chaos coefficients of sigma_a
sigma'_b follow from what each input brings, and E[sigma_a^i sigma'_a^k sigma_b^j sigma'_b^l] from
Mehler's series with the spectra of the products sigma^i sigma'^k. For positively homogeneous activations
polar coordinates are exact at any correlation.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation, AbstractHomogeneousActivation, derivatives
from .._numerics.chunks import map_in_chunks
from .._numerics.safe import safe_root
from .chaos import (
    SAFETY,
    alignment,
    chaos_coefficients,
    coefficient_tails,
    cumulative_powers,
)
from .input_chaos import InputChaos, input_chaos
from .products import chaos_nodes
from .wedge import homogeneous_coefficients, wedge_rule

#: Pairs whose error is estimated together.
_CHUNK = 32
#: sigma^i sigma'^k of one input, with 1 <= i + k <= 3, and with i + k = 4.
_FEW = tuple((i, n - i) for n in (1, 2, 3) for i in range(n + 1))
_FOUR = tuple((i, 4 - i) for i in range(5))
#: sigma_a^i sigma'_a^k sigma_b^j sigma'_b^l with four factors, of which an even number are sigma'.
FOURTH = tuple(
    (i, k, j, l)
    for i in range(5)
    for k in range(5 - i)
    for j in range(5 - i - k)
    if (i + j) % 2 == 0
    for l in (4 - i - k - j,)
)


class SingleSlopes(eqx.Module):
    """Of one input: E[f h_p(z)] for f = sigma^2, sigma sigma', sigma'^2, and E[sigma^i sigma'^{4-i}]."""

    square: Float[Array, "*n 3 p"]
    fourth: Float[Array, "*n 5"]


class InputSlopes(eqx.Module):
    """The contribution of one input to its pairs: the chaos of sigma and of sigma', and the spectra of
    the products of one to three factors."""

    value: InputChaos
    slope: InputChaos
    spectra: Float[Array, "*n 9 term"]


def single_slopes(activation: AbstractActivation, q: Float[Array, ""], top: int) -> SingleSlopes:
    """Of one input of positive variance `q`, up to the degree `top`."""
    z, steps, basis = chaos_nodes(activation, q, top, 1, top + 1)
    value, slope = derivatives(activation, safe_root(q) * z, 1)
    weights = steps * jnp.exp(-(z**2) / 4)
    functions = jnp.stack([value**2, value * slope, slope**2])
    fourth = jnp.stack([value**i * slope**k for i, k in _FOUR])
    return SingleSlopes((functions * weights[None]) @ basis.T, fourth @ (weights * jnp.exp(-(z**2) / 4)))


def input_slopes(
    activation: AbstractActivation, q: Float[Array, ""], order: int, terms: int
) -> InputSlopes:
    """Of one input of positive variance `q`. Homogeneous activations need none of it."""
    slope = lambda x: derivatives(activation, x, 1)[1]
    if isinstance(activation, AbstractHomogeneousActivation):
        terms = 1
    z, steps, basis = chaos_nodes(activation, q, order, terms)
    tower = derivatives(activation, safe_root(q) * z, 1)
    functions = jnp.stack([tower[0] ** i * tower[1] ** k for i, k in _FEW])
    return InputSlopes(
        input_chaos(activation, q, order, terms),
        input_chaos(activation, q, order, terms, of=slope),
        (functions * (steps * jnp.exp(-(z**2) / 4))[None]) @ basis.T,
    )


def slope_coefficients(
    activation: AbstractActivation, x: InputSlopes, y: InputSlopes, qa, qb, corr, spread, order: int
) -> Float[Array, "4 j k"]:
    """c_jk of sigma_a sigma_b, sigma_a sigma'_b, sigma'_a sigma_b and sigma'_a sigma'_b. The spread is
    not zero."""
    if isinstance(activation, AbstractHomogeneousActivation):
        of = functools.partial(homogeneous_coefficients, activation, qa, qb, corr, spread, order)
        return jnp.stack([of(slopes=(i, j)) for i in (0, 1) for j in (0, 1)])
    return jnp.stack(
        [chaos_coefficients(f, g, corr, spread) for f in (x.value, x.slope) for g in (y.value, y.slope)]
    )


def fourth_slopes(
    activation: AbstractActivation,
    x: InputSlopes,
    y: InputSlopes,
    of_x: Float[Array, "5"],
    of_y: Float[Array, "5"],
    qa,
    qb,
    c,
) -> Float[Array, " products"]:
    """E[sigma_a^i sigma'_a^k sigma_b^j sigma'_b^l], in the order of `FOURTH`; `of_x` and `of_y` are
    those of one input each."""
    corr, gap = alignment(qa, qb, c)
    if isinstance(activation, AbstractHomogeneousActivation):
        return _homogeneous(activation, qa, qb, corr, gap)
    powers = cumulative_powers(corr, x.spectra.shape[-1])
    few = lambda i, k: _FEW.index((i, k))
    both = [(n, few(i, k), few(j, l)) for n, (i, k, j, l) in enumerate(FOURTH) if 0 < i + k < 4]
    places, left, right = (np.array(column) for column in zip(*both))
    series = jnp.sum(powers[None] * x.spectra[left] * y.spectra[right], axis=1)
    found = jnp.zeros((len(FOURTH),), corr.dtype).at[places].set(series)
    for n, (i, k, j, _) in enumerate(FOURTH):
        if i + k in (0, 4):
            found = found.at[n].set(of_x[i] if i + k else of_y[j])
    return found


def _homogeneous(
    activation: AbstractHomogeneousActivation, qa, qb, corr, gap
) -> Float[Array, " products"]:
    """(x, y) = r (sqrt(a) cos t, sqrt(b) cos(t - theta)): an integral over the angle, analytic in every
    wedge, times E[r^m] = 2^{m/2} Gamma(1 + m/2)."""
    theta = jnp.arctan2(safe_root(gap), corr)
    t, steps = wedge_rule(theta, 16)
    x, y = jnp.cos(t), jnp.cos(t - theta)
    negative, positive = (slope.astype(corr.dtype) for slope in activation.slopes)
    of_x = jnp.stack([positive, positive, negative, negative])
    of_y = jnp.stack([negative, positive, positive, negative])
    found = []
    for i, k, j, l in FOURTH:
        radial = 2 ** ((i + j) / 2) * scipy.special.gamma(1 + (i + j) / 2) / (2 * np.pi)
        angular = jnp.sum(steps * x**i * y**j, axis=1) * of_x ** (i + k) * of_y ** (j + l)
        found.append(radial * safe_root(qa) ** i * safe_root(qb) ** j * jnp.sum(angular))
    return jnp.stack(found)


def slopes_error(
    activation: AbstractActivation, kernel: Float[Array, "n n"], order: int, terms: int
) -> Float[Array, ""]:
    """An estimate of the error of the chaos coefficients of sigma'_a sigma'_b, up to `order`, relative to
    sqrt(E[sigma'_a^2] E[sigma'_b^2]): the largest of all inputs and pairs."""
    slope = lambda x: derivatives(activation, x, 1)[1]
    one = lambda q, finer: input_chaos(activation, q, order, terms, of=slope, finer=finer)
    q = jnp.diagonal(kernel)
    inputs, finer = (jax.vmap(functools.partial(one, finer=finer))(q) for finer in (False, True))
    size = jnp.where(finer.square[:, 0] > 0, finer.square[:, 0], 1)
    rounding = 64 * jnp.finfo(q.dtype).eps
    alone = SAFETY * jnp.max(jnp.abs(inputs.square - finer.square) / size[:, None]) + rounding
    if isinstance(activation, AbstractHomogeneousActivation) or q.shape[0] == 1:
        return alone
    rows, columns = (jnp.asarray(x) for x in np.triu_indices(q.shape[0], 1))

    def one_pair(pair: tuple[Array, Array]) -> Array:
        a, b = pair
        x, y, x_finer, y_finer = (
            jax.tree.map(lambda leaf, k=k: leaf[k], both) for both in (inputs, finer) for k in (a, b)
        )
        corr, gap = alignment(q[a], q[b], kernel[a, b])
        spread = safe_root(gap)
        value, fine = (chaos_coefficients(*of, corr, spread) for of in ((x, y), (x_finer, y_finer)))
        kept = np.add.outer(np.arange(order + 1), np.arange(order + 1)) <= order
        error = SAFETY * jnp.abs(value - fine) + coefficient_tails(x, y, corr, spread)
        return jnp.max(jnp.where(kept, error, 0)) / jnp.sqrt(size[a] * size[b])

    return jnp.maximum(alone, jnp.max(map_in_chunks(one_pair, (rows, columns), _CHUNK)))
