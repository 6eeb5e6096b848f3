"""Polynomials, whose Hermite expansion terminates."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._support.checks import as_real_array, checked_sign
from .._support.custom_types import RealLike
from .base import AbstractClosedFormActivation


class Polynomial(AbstractClosedFormActivation):
    """sigma(x) = sum_k coefficients[k] x^k, the constant first. Monomials: `Polynomial.monomial`."""

    coefficients: Float[Array, " degree_plus_one"]

    def __init__(self, coefficients: RealLike):
        array = as_real_array("coefficients", coefficients)
        if array.ndim != 1 or array.shape[0] == 0:
            raise ValueError(
                f"`coefficients` must be a non-empty vector (constant first), got shape {array.shape}."
            )
        self.coefficients = checked_sign("coefficients", array)

    @classmethod
    def monomial(cls, degree: int) -> "Polynomial":
        """sigma(x) = x^degree."""
        if isinstance(degree, bool) or not isinstance(degree, int) or degree < 0:
            raise ValueError(f"`degree` must be a non-negative integer, got {degree!r}.")
        return cls([0.0] * degree + [1.0])

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.polyval(jnp.flip(self.coefficients).astype(x.dtype), x)

    def second_moment(
        self, a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """sum_m E[sigma^(m)(x)] E[sigma^(m)(y)] c^m / m!  (Mehler), a polynomial in a, b and c."""
        degree = self.coefficients.shape[0] - 1
        total = jnp.zeros_like(c)
        for m in range(degree, -1, -1):
            total = total * c + self._mean_derivative(m, a) * self._mean_derivative(
                m, b
            ) / math.factorial(m)
        return total

    def _mean_derivative(self, m: int, q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """E[sigma^(m)(x)], x ~ N(0, q): a polynomial in q, since E[x^(2j)] = (2j-1)!! q^j."""
        degree = self.coefficients.shape[0] - 1
        in_q = [
            self.coefficients[m + 2 * j].astype(q.dtype)
            * float(math.factorial(m + 2 * j) / math.factorial(2 * j))
            * float(np.prod(np.arange(2 * j - 1, 0, -2, dtype=float)))
            for j in range((degree - m) // 2 + 1)
        ]
        total = jnp.zeros_like(q)
        for coefficient in reversed(in_q):
            total = total * q + coefficient
        return total
