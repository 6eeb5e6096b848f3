"""Estimates of kernel moments, with jackknife errors, from the sums over an ensemble."""

from collections.abc import Callable

import equinox as eqx
import numpy as np

from ._elements import Elements
from ._measured import Measured, jackknife
from ._tangent_sums import PARTS, covariance, mixed, variance


class Estimates(eqx.Module):
    """Estimates by one kind of estimator, `Ensemble.raw` or `Ensemble.controlled`, each with a standard
    error. Leading axis: the layers that were measured.

    G_ab = h_a . h_b / n; of a feed-forward network the covariance of h given the weights before. G_sigma
    = sigma(h_a) . sigma(h_b) / n. All are for the finite width n of the ensemble: `kernel_covariance` is
    n Cov(G, G) there, V4 up to corrections of order 1/n.

    H is the tangent kernel of the network's outputs i and j, and G their kernel, read out at each of the
    layers; the estimates are n times the moments in `TangentMoments`, for every pair of inputs, with its
    components and indices.
    """

    controlled: bool
    width: int
    elements: Elements
    kernel: np.ndarray
    moment: np.ndarray
    tangent: np.ndarray | None
    output_weight_variance: float
    sums: dict[str, np.ndarray]
    counts: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the estimates that can be given."""
        optional = {"limit_": "xx", "respon": "response", "read_o": "response", "tangen": "ntk"}
        everything = [k for k, v in vars(Estimates).items() if isinstance(v, property) and k != "names"]
        return tuple(k for k in everything if optional.get(k[:6]) in (None, *self.sums))

    @property
    def mean_kernel(self) -> Measured:
        """E[G], (layers, N, N)."""
        shift = self._first(0)
        return Measured(self.kernel + shift.value, shift.scatter).map(self.elements.unfold)

    @property
    def mean_correction(self) -> Measured:
        """n (E[G] - K0), (layers, N, N): K1 up to order 1/n."""
        return self._first(0).map(lambda x: self.width * self.elements.unfold(x))

    @property
    def sigma_kernel(self) -> Measured:
        """E[G_sigma], (layers, N, N)."""
        shift = self._first(1)
        return Measured(self.moment + shift.value, shift.scatter).map(self.elements.unfold)

    @property
    def sigma_correction(self) -> Measured:
        """n (E[G_sigma] - E sigma sigma), the latter at the mean kernel K0; (layers, N, N)."""
        return self._first(1).map(lambda x: self.width * self.elements.unfold(x))

    @property
    def kernel_covariance(self) -> Measured:
        """n Cov(G, G): (layers, N, N, N, N), or (layers, N, N, 3, 3) with `pairs`: (aa, ab, bb)."""
        return self._second(0)

    @property
    def sigma_covariance(self) -> Measured:
        """n Cov(G, G_sigma), of the shape of `kernel_covariance`; the axes of G come first."""
        return self._second(1)

    @property
    def limit_covariance(self) -> Measured:
        """V4 itself, lim n Cov(G, G), from single neurons of the reference chains: without corrections in
        1/n, and with the smallest errors. Of the shape of `kernel_covariance`. Needs control variates."""
        statistic = lambda means, _: self._part(means["xx"], 0, self.elements.groups.shape[1])
        found = jackknife(statistic, self._named("xx"), self.counts)
        return found.map(lambda x: self.width * self.elements.unfold_covariance(x))

    @property
    def third_cumulant(self) -> Measured:
        """n^2 times the third cumulant of every G_ab, (layers, N, N)."""
        elements = self.elements

        def statistic(means, count):
            count = count[:, None, None]
            y = means["y"][..., : elements.count]
            yy = elements.own(means["yy"][..., : elements.groups.shape[1]])
            central = means["yyy"] - 3 * y * yy + 2 * y**3
            return count**2 / ((count - 1) * (count - 2)) * central

        found = jackknife(statistic, self._named("y", "yy", "yyy"), self.counts)
        return found.map(lambda x: self.width**2 * elements.unfold(x))

    @property
    def response_diagonal(self) -> Measured:
        """d E[G_aa] / d K^0_aa, (layers, N)."""
        return self._response(0, 0).map(self._own_inputs)

    @property
    def response_off_diagonal(self) -> Measured:
        """d E[G_ab] / d K^0_ab at fixed variances, a != b, (layers, N, N); zero for a = b."""
        return self._response(1, 0).map(self._off_diagonal)

    @property
    def read_out_response_diagonal(self) -> Measured:
        """chi_out, d E[G_out,aa] / d K^0_aa, if the read-out were placed at the layers: (layers, N)."""
        factor = self.output_weight_variance
        return self._response(0, 1).map(lambda x: factor * self._own_inputs(x))

    @property
    def read_out_response_off_diagonal(self) -> Measured:
        """chi_out, d E[G_out,ab] / d K^0_ab at fixed variances; (layers, N, N), zero for a = b."""
        factor = self.output_weight_variance
        return self._response(1, 1).map(lambda x: factor * self._off_diagonal(x))

    @property
    def tangent_kernel(self) -> Measured:
        """E[H_ii], the tangent kernel, (layers, N, N)."""
        shift = self._tangent_mean()
        return Measured(self.tangent + shift.value, shift.scatter).map(self.elements.unfold)

    @property
    def tangent_kernel_variance(self) -> Measured:
        """n Var(H_ii,ab), (layers, N, N)."""
        statistic = lambda means, count: variance(means, count, self.elements.triple)
        found = jackknife(statistic, self._named("ntk", "ntk_own", "ntk_means"), self.counts)
        return found.map(lambda x: self.width * self.elements.unfold(x))

    @property
    def tangent_correction(self) -> Measured:
        """n (E[H_ii] - Theta), Theta that of infinite width: (layers, N, N)."""
        return self._tangent_mean().map(lambda x: self.width * self.elements.unfold(x))

    @property
    def tangent_covariance(self) -> Measured:
        """A, n Cov(H_ii, H_jj), i != j: (layers, N, N, 3, 3)."""
        statistic = lambda means, count: covariance(means, count, self.elements.triple)
        return self._of_pairs(statistic, "ntk", "ntk_means", "ntk_others")

    @property
    def tangent_mixed(self) -> Measured:
        """D, n Cov(G, H_ii): (layers, N, N, 3, 3), first the element of the kernel."""
        statistic = lambda means, count: mixed(means, count, self.elements.triple)
        return self._of_pairs(statistic, "ntk", "ntk_g", "ntk_mixed")

    @property
    def tangent_cross(self) -> Measured:
        """F, n E[z_i,c z_j,d H_ij,ab], i != j: (layers, N, N, 2, 2, 2, 2), indices (c, a, d, b)."""
        return self._of_pairs(lambda means, _: means["ntk_cross"], "ntk_cross")

    @property
    def tangent_exchange(self) -> Measured:
        """B, n E[H_ij,pq H_ij,rs], i != j: (layers, N, N, 2, 2, 2, 2), indices (p, r, q, s)."""
        return self._of_pairs(lambda means, _: means["ntk_exchange"], "ntk_exchange")

    def _tangent_mean(self) -> Measured:
        return jackknife(lambda means, _: means["ntk"], self._named("ntk"), self.counts)

    def _of_pairs(self, statistic: Callable[..., np.ndarray], *names: str) -> Measured:
        """n times a statistic of every pair a <= b; the last of `names` has its shape."""
        axes = len(PARTS[names[-1]])
        found = jackknife(statistic, self._named(*names), self.counts)
        return found.map(lambda x: self.width * self.elements.unfold_pairs(x, axes))

    def _named(self, *names: str) -> dict[str, np.ndarray]:
        needed = {"response": "responses=True", "xx": "control=True"}
        for name in names:
            if name not in self.sums:
                raise ValueError(
                    f"This was not measured: `sample` needs `{needed.get(name, 'tangent_kernel=True')}`."
                )
        return {name: self.sums[name] for name in names}

    def _part(self, values: np.ndarray, which: int, size: int) -> np.ndarray:
        """Of G (0) or of G_sigma (1), which follow each other on the last axis."""
        return values[..., which * size : (which + 1) * size]

    def _first(self, which: int) -> Measured:
        size = self.elements.count
        names = ("y", "l") if self.controlled else ("y",)

        def statistic(means, count):
            del count
            shift = means["y"] - means["l"] if self.controlled else means["y"]
            return self._part(shift, which, size)

        return jackknife(statistic, self._named(*names), self.counts)

    def _second(self, which: int) -> Measured:
        groups = self.elements.groups
        both = np.concatenate([groups, groups + self.elements.count], axis=1)
        names = ("y", "yy", "ll", "xx") if self.controlled else ("y", "yy")

        def statistic(means, count):
            y = means["y"]
            product = y[..., groups][..., :, None] * y[..., both][..., None, :]
            found = (count / (count - 1))[:, None, None, None, None] * (means["yy"] - product)
            if self.controlled:
                # Cov(lin), from single neurons, and what the networks do beyond it.
                found = means["xx"] + (found - means["ll"])
            return self._part(found, which, groups.shape[1])

        found = jackknife(statistic, self._named(*names), self.counts)
        return found.map(lambda x: self.width * self.elements.unfold_covariance(x))

    def _response(self, direction: int, which: int) -> Measured:
        size = self.elements.count
        statistic = lambda means, _: self._part(means["response"][:, :, direction], which, size)
        return jackknife(statistic, self._named("response"), self.counts)

    def _own_inputs(self, values: np.ndarray) -> np.ndarray:
        return values[..., self.elements.matrix.diagonal()]

    def _off_diagonal(self, values: np.ndarray) -> np.ndarray:
        return self.elements.unfold(values) * (1 - np.eye(self.elements.inputs))
