"""Activations: pointwise functions, and the declarations by which they are integrated."""

import abc
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._support.custom_types import RealLike
from .._support.show import Shown


class AbstractActivation(Shown):
    """A pointwise nonlinearity sigma, called as `activation(x)` on an array of any shape.

    How its Gaussian moments are integrated follows from which of the abstract classes below it
    inherits: nothing else in the library looks at an activation's type.
    """

    @abc.abstractmethod
    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """sigma(x), elementwise."""


class AbstractOddActivation(AbstractActivation):
    """sigma(-x) = -sigma(x). Mix in with one of the classes below; halves the cost of `WickTower`."""


class AbstractSmoothActivation(AbstractActivation):
    """Analytic on the real line: integrated by the trapezoidal rule and its Hermite spectrum."""

    @property
    def scales(self) -> tuple[tuple[float, RealLike], ...]:
        """(distance, width) pairs: at this distance from the origin sigma has features as narrow as
        `width`, which is the distance of its nearest singularity from the real line, or its wavelength
        over 2 pi. Nodes are placed by them. A distance of infinity stands for everywhere; the first
        pair is the origin's. By default features of width 1/4 next to the origin."""
        return ((0.0, 0.25),)


class AbstractStraightActivation(AbstractSmoothActivation):
    """sigma(x) = s(k x) / k with s(u) ~ slope u + offset for u to -infinity and to +infinity, up to
    terms that fall exponentially: moments at large variance are known as a series."""

    @property
    @abc.abstractmethod
    def standard(self) -> Callable[[np.ndarray], np.ndarray]:
        """s, for NumPy arrays; one function object, not a new one at every call."""

    @property
    @abc.abstractmethod
    def lines(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(slope, offset) on the left and on the right."""

    @property
    @abc.abstractmethod
    def line_sharpness(self) -> RealLike:
        """k."""


class AbstractAutonomousActivation(AbstractSmoothActivation):
    """Solves sigma' = p(sigma), p a polynomial: all derivatives are polynomials in sigma."""

    @property
    @abc.abstractmethod
    def slope_polynomial(self) -> tuple[float, ...]:
        """The coefficients of p, from the constant on."""


class AbstractKinkedActivation(AbstractActivation):
    """Continuous and analytic but for finitely many kinks (jumps of the first derivative)."""

    @property
    @abc.abstractmethod
    def kinks(self) -> tuple[float, ...]:
        """Where the first derivative jumps, in increasing order."""


class AbstractClosedFormActivation(AbstractActivation):
    """The second moment is known as a formula that JAX can differentiate everywhere."""

    @abc.abstractmethod
    def second_moment(
        self, a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """E[sigma(x) sigma(y)] for Var x = a, Var y = b, Cov(x, y) = c, elementwise.

        Has to be smooth where sigma is: finite, with finite derivatives, at `a = b = c`, at
        `c = -a = -b` and at zero variance.
        """

    def variance_moment(self, q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """E[sigma(x)^2] for Var x = q, elementwise: `second_moment(q, q, q)`, for which there may be a
        shorter formula."""
        return self.second_moment(q, q, q)


class AbstractHomogeneousActivation(AbstractClosedFormActivation):
    """Positively homogeneous of degree one: sigma(x) = slope_+ x for x > 0, slope_- x for x < 0."""

    @property
    @abc.abstractmethod
    def slopes(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """(slope_-, slope_+)."""

    def variance_moment(self, q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """(slope_-^2 + slope_+^2) q / 2."""
        negative, positive = self.slopes
        return ((negative**2 + positive**2) / 2).astype(q.dtype) * q


def derivatives(
    activation: Callable[[Array], Array], x: Float[Array, "*shape"], order: int
) -> Float[Array, " derivative *shape"]:
    """sigma, sigma', ..., sigma^(order) at `x`, stacked, by nested forward differentiation.

    Only the newest derivative is differentiated again, so the work grows as that of the highest
    derivative, not as the sum over all of them.
    """
    ones = jnp.ones_like(x)

    def next_order(tower):
        def taller(x):
            values, slopes = jax.jvp(tower, (x,), (ones,))
            return (*values, slopes[-1])

        return taller

    tower = lambda x: (activation(x),)
    for _ in range(order):
        tower = next_order(tower)
    return jnp.stack(tower(x))
