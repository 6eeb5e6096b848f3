"""The limit of large width, from ensembles of several."""

import math

import equinox as eqx
import numpy as np

from .._support.checks import instance
from ._elements import Elements
from ._ensemble import OF_THE_RUN, Ensemble, differences
from ._measured import Measured, combine


class Extrapolation(eqx.Module):
    """n to infinity from two widths, [n_2 f(n_2) - n_1 f(n_1)] / (n_2 - n_1), right to order 1/n^2; from
    m widths by the polynomial of degree m - 1 in 1/n through them, right to order 1/n^m."""

    first: Ensemble
    second: Ensemble
    others: tuple[Ensemble, ...] = ()

    @property
    def mean_correction(self) -> Measured:
        """K1, (layers, N, N)."""
        return self._limit("mean_correction")

    @property
    def kernel_covariance(self) -> Measured:
        """V4, of the shape of `Ensemble.kernel_covariance`."""
        return self._limit("kernel_covariance")

    @property
    def sigma_covariance(self) -> Measured:
        """lim n Cov(G, G_sigma)."""
        return self._limit("sigma_covariance")

    @property
    def tangent_correction(self) -> Measured:
        """Theta1, (layers, N, N)."""
        return self._limit("tangent_correction")

    @property
    def tangent_kernel_variance(self) -> Measured:
        """lim n Var(H_ii,ab), (layers, N, N)."""
        return self._limit("tangent_kernel_variance")

    @property
    def tangent_covariance(self) -> Measured:
        """A, (layers, N, N, 3, 3)."""
        return self._limit("tangent_covariance")

    @property
    def tangent_mixed(self) -> Measured:
        """D, (layers, N, N, 3, 3)."""
        return self._limit("tangent_mixed")

    @property
    def tangent_cross(self) -> Measured:
        """F, (layers, N, N, 2, 2, 2, 2)."""
        return self._limit("tangent_cross")

    @property
    def tangent_exchange(self) -> Measured:
        """B, (layers, N, N, 2, 2, 2, 2)."""
        return self._limit("tangent_exchange")

    @property
    def ts(self) -> np.ndarray:
        """Depths of the layers measured."""
        return self.first.ts

    @property
    def elements(self) -> Elements:
        """How the elements of kernels are stored."""
        return self.first.elements

    def _limit(self, name: str) -> Measured:
        ensembles = (self.first, self.second, *self.others)
        widths = [ensemble.width for ensemble in ensembles]
        # Lagrange's polynomial in 1/n through the estimates, at 1/n = 0.
        weights = [math.prod(n / (n - m) for m in widths if m != n) for n in widths]
        return combine([getattr(ensemble.estimates, name) for ensemble in ensembles], weights)


def extrapolate(first: Ensemble, second: Ensemble, *others: Ensemble) -> Extrapolation:
    """The limit of large width from ensembles of two widths, with its standard error; of three, with the
    next order in 1/n, which moments of the tangent kernel need.

    **Raises** `ValueError` if they differ in anything but width, samples and key, or not all in width.
    """
    for name, ensemble in (("first", first), ("second", second), *(("others", x) for x in others)):
        instance(name, ensemble, Ensemble, "an `Ensemble`, such as `sample` returns")
    free = (*OF_THE_RUN, "width", "widths", "neurons", "batch")
    for ensemble in (second, *others):
        if differing := differences(first, ensemble, free):
            raise ValueError(f"The ensembles differ in {differing}: there is no common limit.")
    widths = [ensemble.width for ensemble in (first, second, *others)]
    if repeated := [width for width in widths if widths.count(width) > 1]:
        raise ValueError(f"Two different widths are needed, or more: two of them are {repeated[0]}.")
    return Extrapolation(first, second, others)
