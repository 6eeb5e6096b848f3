"""One-dimensional Hermite spectra s_m(q) = E[sigma(sqrt(q) z) h_m(z)], z ~ N(0, 1).

They carry almost everything: by Mehler's formula E[sigma(x) sigma(y)] = sum_m s_m(a) s_m(b) corr^m,
for sigma and for its derivatives alike. A spectrum is handed out in blocks of consecutive orders, so
that whoever sums can stop when what is left is small: sum_m s_m^2 = E[sigma^2] says how much is left.
Here those of analytic activations; `kinked.py` has the others.
"""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from .._activation.base import AbstractActivation, derivatives
from .nodes import BLOCK, spectral_matrix, spectral_rule
from .resolution import alias_error, tail_energy


class AbstractSpectra(eqx.Module):
    """Spectra of sigma, sigma', ..., at several variances.

    - `gram[p, i, j, a]`: E[sigma^(i) sigma^(j)] of the even (p = 0) and odd (p = 1) parts at variance
        a, the sum of s_m^(i) s_m^(j) over even and odd m; infinite where unknown or divergent.
    - `ceiling[i, a]`: where E[(sigma^(i))^2] diverges, s_m^(i)^2 <= ceiling binom(m + i, i).
    - `relative_error[i, a]`: an estimate of the coefficients' error, relative to their square sum.
    """

    gram: eqx.AbstractVar[Float[Array, "parity derivative derivative n"]]
    ceiling: eqx.AbstractVar[Float[Array, "derivative n"]]
    relative_error: eqx.AbstractVar[Float[Array, "derivative n"]]

    @abc.abstractmethod
    def block(self, index: Int[Array, ""]) -> Float[Array, "derivative n block"]:
        """Coefficients of orders index * BLOCK, ..., (index + 1) * BLOCK - 1."""

    @abc.abstractmethod
    def parallel(
        self, other: "AbstractSpectra", i: np.ndarray, j: np.ndarray
    ) -> Float[Array, "parity entry n m"]:
        """E[sigma^(i)(sqrt(a) z) sigma^(j)(sqrt(b) z)] of the even parts and of the odd parts, where
        `gram` is known."""

    @abc.abstractmethod
    def cusp(self, gap: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """How far a moment of nearly parallel inputs is from that of parallel ones, gap = 1 - |corr|."""


class SmoothSpectra(AbstractSpectra):
    """By the fixed rule; derivatives of sigma by JAX, exact down to zero variance."""

    values: Float[Array, "derivative n node"]
    parts: Float[Array, "parity derivative n half"]
    gram: Float[Array, "parity derivative derivative n"]
    ceiling: Float[Array, "derivative n"]
    relative_error: Float[Array, "derivative n"]

    def __init__(self, activation: AbstractActivation, q: Float[Array, " n"], order: int) -> None:
        z = jnp.asarray(spectral_rule().nodes, q.dtype)
        self.values = derivatives(activation, jnp.sqrt(q)[:, None] * z[None, :], order)
        self.parts = parity_parts(self.values)
        self.gram = jnp.einsum("x,pinx,pjnx->pijn", _half_weights(q.dtype), self.parts, self.parts)
        self.ceiling = jnp.full((order + 1, q.shape[0]), jnp.inf, q.dtype)
        self.relative_error = _smooth_error(activation, self.values, q)

    def block(self, index: Int[Array, ""]) -> Float[Array, "derivative n block"]:
        matrix = jnp.asarray(spectral_matrix(), self.values.dtype)
        return self.values @ jax.lax.dynamic_slice_in_dim(matrix, index * BLOCK, BLOCK).T

    def parallel(
        self, other: "SmoothSpectra", i: np.ndarray, j: np.ndarray
    ) -> Float[Array, "parity entry n m"]:
        weights = _half_weights(self.values.dtype)
        return jnp.einsum(
            "peax,pebx->peab", weights[None, None, None] * self.parts[:, i], other.parts[:, j]
        )

    def cusp(self, gap: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 1e4 * gap


def trapezoid(
    values: Float[Array, "*rest node"],
    rule_weights: np.ndarray,
    sizes: Float[Array, "*rest node"] | None = None,
) -> tuple[Float[Array, "*rest"], Float[Array, "*rest"]]:
    """The integral and an estimate of its error, from every second and every fourth node.

    `sizes` are those of the terms that the values are sums of, which they round like.

    With e1, e2 the changes on halving the spacing twice, the next one is estimated as a geometric
    continuation, 8 e2^2 / e1 but at most e2: right for algebraic convergence (a kink that was not
    declared), too large for the exponential one of an analytic integrand, where it is e2^2.
    """
    weights = jnp.asarray(rule_weights, values.dtype)
    fine = values @ weights
    middle = 2 * (values[..., ::2] @ weights[::2])
    coarse = 4 * (values[..., ::4] @ weights[::4])
    before, after = jnp.abs(middle - coarse), jnp.abs(fine - middle)
    ratio = jnp.where(before > 8 * after, 8 * after / jnp.where(before > 0, before, 1), 1)
    sizes = values if sizes is None else sizes
    rounding = 4 * jnp.finfo(values.dtype).eps * (jnp.abs(sizes) @ weights)
    return fine, after * ratio + rounding


def parity_parts(values: Float[Array, "*rest node"]) -> Float[Array, "2 *rest half"]:
    """Even and odd part of functions given on nodes symmetric about zero, on those from zero on."""
    half = values.shape[-1] // 2
    right, left = values[..., half:], values[..., ::-1][..., half:]
    return jnp.stack([(right + left) / 2, (right - left) / 2])


def _half_weights(dtype: DTypeLike) -> Float[Array, " half"]:
    return jnp.asarray(spectral_rule().half().weights, dtype)


def _smooth_error(
    activation: AbstractActivation, values: Float[Array, "derivative n node"], q: Float[Array, " n"]
) -> Float[Array, "derivative n"]:
    """Relative error of the spectra: that of the quadrature, the part beyond its reach by the inequality
    of Cauchy and Schwarz, and what integration by parts reveals."""
    matrix, weights = spectral_matrix()[: _LOW + values.shape[0] - 1], spectral_rule().weights
    eps, square = jnp.finfo(q.dtype).eps, values**2
    energy = square @ jnp.asarray(weights, q.dtype)
    tail = tail_energy(activation, q, spectral_rule().reach, values.shape[0] - 1)
    size = jnp.where(energy + tail > 0, energy + tail, 1)
    error = alias_error(square, weights) / size + 4 * eps
    # Of sigma and of x sigma, one of which vanishes by parity; in a sum, each has a phase of its own.
    low_error = alias_error(values, matrix[0] + matrix[1]) / jnp.sqrt(size)
    beyond = jnp.sqrt(tail / size)
    spectrum = values @ jnp.asarray(matrix.T, q.dtype)
    return by_parts_error(spectrum, energy, error + low_error + beyond, q)


#: Orders of the spectrum of sigma^(i) that are compared with those of sigma.
_LOW = 4


def by_parts_error(
    spectrum: Float[Array, "derivative n term"],
    energy: Float[Array, "derivative n"],
    by_rule: Float[Array, "derivative n"],
    q: Float[Array, " n"],
) -> Float[Array, "derivative n"]:
    """`by_rule`, the quadrature's relative error, and what integration by parts reveals.

    sqrt(q)^i E[sigma^(i) h_m] and sqrt((m + i)! / m!) E[sigma h_{m+i}] are equal for a smooth sigma. At
    a kink that was not declared they differ by the delta function that the nodes of sigma'' do not see:
    then sigma^(i) is no function, and nothing can be said of its moments.
    """
    eps, size = jnp.finfo(q.dtype).eps, jnp.where(energy > 0, energy, 1)
    relative = [by_rule[0]]
    for i in range(1, spectrum.shape[0]):
        factors = [math.sqrt(math.factorial(m + i) / math.factorial(m)) for m in range(_LOW)]
        factors = jnp.asarray(factors, q.dtype)[None, :]
        power = (jnp.sqrt(q) ** i)[:, None]
        here, there = power * spectrum[i, :, :_LOW], factors * spectrum[0, :, i : i + _LOW]
        rounding = 64 * eps * (factors * jnp.sqrt(energy[0])[:, None] + jnp.abs(here))
        gap = jnp.abs(here - there) - rounding
        gap = jnp.max(jnp.where(gap > 0, gap / jnp.where(power > 0, power, 1), 0), axis=1)
        unknown = gap**2 > 1e-3 * energy[i]
        relative.append(jnp.where(unknown, jnp.inf, by_rule[i] + 4 * gap / jnp.sqrt(size[i])))
    return jnp.stack(relative)
