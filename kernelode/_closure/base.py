"""Closures: sets of moments of the kernel that travel through depth, and how they do."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork, Layer, checked_layered
from .._architecture.start import AbstractStart, FixedGram
from .._expectation import kernel_error
from .._kernel import AbstractKernel, as_triangle
from .._support.checks import instance
from .._support.custom_types import RealLike
from .._support.show import Shown
from .width import TangentAtWidth, expand


class AbstractClosure(Shown):
    """A closed set of moments, transported layer by layer or along a flow.

    For residual networks the two are tied by rate = d/d(rho^2) push at rho = 0.
    """

    def prepare(
        self,
        network: AbstractArchitecture,
        kernel: Any,
        ts: Float[Array, " times"] | None = None,
    ) -> "AbstractClosure":
        """The closure to be used for a network: at the depths `ts` of its flow, or through its layers.
        Here a closure decides what has to be static; by default it stays as it is."""
        del network, kernel, ts
        return self

    def layers(self, network: AbstractArchitecture) -> Layer:
        """The network's layers, stacked over depth, with what else a closure knows of each; `push` is
        given one after the other."""
        return network.layers()

    def flow_layer(self, network: AbstractResidualNetwork) -> Layer:
        """The same of the layer that the network's flow is made of, which `rate` is given."""
        return network.flow_layer()

    @abc.abstractmethod
    def init(self, network: AbstractArchitecture, kernel: Any) -> Any:
        """The state that an input kernel, (n, n), starts with. (A closure that is for rectangular kernels
        too may be given a `Block`; those with moments of order 1/n are not.)"""

    @abc.abstractmethod
    def rate(self, network: AbstractArchitecture, state: Any, layer: Layer) -> Any:
        """d state / dt along the flow of a residual network, t = sum of rho_l^2, at a layer of it;
        `layer` is `flow_layer(network)`, all of whose blocks are equal."""

    @abc.abstractmethod
    def push(self, network: AbstractArchitecture, state: Any, layer: Layer) -> Any:
        """The state after one layer, exactly; `layer` is an entry of `layers(network)`."""

    @abc.abstractmethod
    def mean_kernel(self, state: Any) -> Float[Array, "n n"]:
        """K0 of a state."""

    def kernel(self, state: Any) -> AbstractKernel:
        """The mean kernel of a state, with its variances."""
        return as_triangle(self.mean_kernel(state))

    def quadrature_error(self, network: AbstractArchitecture, state: Any) -> Float[Array, ""]:
        """An estimate of the relative error of the Gaussian expectations in a state: of those that make
        the next mean kernel, relative to sqrt(E[sigma_a^2] E[sigma_b^2])."""
        return kernel_error(network.activation, self.kernel(state))


class AbstractTangentClosure(AbstractClosure):
    """A closure that also has the neural tangent kernel."""

    @abc.abstractmethod
    def tangent_kernel(self, state: Any) -> Float[Array, "n n"]:
        """Theta of a state."""

    @abc.abstractmethod
    def read_out(self, network: AbstractArchitecture, state: Any) -> Any:
        """The kernels of the network's output."""


class TangentMoments(eqx.Module):
    """Moments of the tangent kernel H at large width n, to order 1/n (Roberts, Yaida & Hanin,
    arXiv:2106.10165, chapter 8; arXiv:2508.11522).

    H_ij,ab is the tangent kernel of neurons i and j for inputs a and b, z_i,a a preactivation; G is the
    kernel. Everything is multiplied by n; "pairs" arrays have, for every pair of inputs (a, b), the
    components (aa, ab, bb), and those with four indices 0 for a and 1 for b in each of them.

    - `tangent_kernel`: Theta, (n, n).
    - `correction`: Theta1 = lim n (E[H_ii] - Theta), (n, n).
    - `covariance`: n Cov(H_ii, H_jj), i != j: A. (n, n, 3, 3).
    - `mixed`: n Cov(G, H_ii): D, first the element of the kernel. (n, n, 3, 3).
    - `cross`: n E[z_i,c z_j,d H_ij,ab], i != j: F, indices (c, a, d, b). (n, n, 2, 2, 2, 2).
    - `exchange`: n E[H_ij,pq H_ij,rs], i != j: B, indices (p, r, q, s). (n, n, 2, 2, 2, 2).
    - `variance`: n Var(H_ii,ab) = A_abab + B_aabb + B_abba, (n, n).
    - `..._truncation`: errors that the truncation of a tower makes in them: bounds for the last four,
        an estimate for `correction`.

    Of a read-out, and of the layers of a feed-forward network, these are moments of the network's output
    or of a layer's preactivations. Of a residual stream they are those of averages over its neurons:
    `covariance` n Cov(tr H / n, tr H / n), `mixed` n Cov(z.z / n, tr H / n).
    """

    tangent_kernel: Float[Array, "*times n n"]
    correction: Float[Array, "*times n n"]
    covariance: Float[Array, "*times n n 3 3"]
    mixed: Float[Array, "*times n n 3 3"]
    cross: Float[Array, "*times n n 2 2 2 2"]
    exchange: Float[Array, "*times n n 2 2 2 2"]
    variance: Float[Array, "*times n n"]
    correction_truncation: Float[Array, "*times n n"]
    covariance_truncation: Float[Array, "*times n n 3 3"]
    mixed_truncation: Float[Array, "*times n n 3 3"]
    cross_truncation: Float[Array, "*times n n 2 2 2 2"]
    exchange_truncation: Float[Array, "*times n n 2 2 2 2"]

    def at_width(self, width: RealLike) -> TangentAtWidth:
        """The tangent kernel's mean, Theta + Theta1/n, and standard deviation, sqrt(variance/n), in
        networks of width n, and how far an expansion in 1/n can be trusted there. The width is traced.

        **Raises** `ValueError` for a width that is not positive, `TypeError` for one that is no number.
        """
        at = expand(self.tangent_kernel, self.correction, self.variance, width)
        return TangentAtWidth(at.mean, at.standard_deviation, at.validity, at.result)


class WidthMoments(NamedTuple):
    """Moments of a kernel G at large width n.

    - `mean_kernel`: K0, (n, n).
    - `kernel_covariance`: V4 = lim n Cov(G, G): (n, n, n, n), or (n, n, 3, 3) for all pairs with the
        components (aa, ab, bb).
    - `kernel_variance`: V4[ab, ab], (n, n).
    - `mean_correction`: K1 = lim n (E[G] - K0), (n, n).
    - `covariance_truncation`, `correction_truncation`: bounds of the error that the truncation of a
        closure makes in the two, of their shapes; zero for closures that are not truncated. That of K1
        is an estimate instead where sigma'' is no function: for pairs of inputs and an activation with
        kinks, and for inputs by themselves if it is not homogeneous. Along a flow both are estimates
        for the elements of inputs by themselves.
    - `tangent`: the `TangentMoments`, under a closure that has them.
    """

    mean_kernel: Float[Array, "*times n n"]
    kernel_covariance: Float[Array, "..."]
    kernel_variance: Float[Array, "*times n n"]
    mean_correction: Float[Array, "*times n n"]
    covariance_truncation: Float[Array, "..."]
    correction_truncation: Float[Array, "*times n n"]
    tangent: Any = None


class AbstractMomentClosure(AbstractClosure):
    """A closure that also has the moments of order 1/n."""

    @abc.abstractmethod
    def moments(self, network: AbstractArchitecture, state: Any) -> WidthMoments:
        """The moments of the kernel in a state."""

    @abc.abstractmethod
    def read_out(self, network: AbstractArchitecture, state: Any) -> WidthMoments:
        """The moments of the read-out's kernel, C_out,W G_sigma + C_out,b."""


class AbstractPairClosure(AbstractMomentClosure):
    """A closure on the elements (aa, ab, bb) of every pair of inputs, at a cost of order n^2: its
    `kernel_covariance` has shape (n, n, 3, 3)."""


class AbstractPairable(AbstractMomentClosure):
    """A closure on all elements of the kernel, that closes on every pair of inputs too."""

    @abc.abstractmethod
    def pairs(self) -> AbstractPairClosure:
        """The same closure on all pairs of inputs."""


def check_supported(network: AbstractArchitecture, start: AbstractStart) -> None:
    """Refuse blocks whose inner layers fluctuate on their own, and a start that has no meaning."""
    instance("start", start, AbstractStart, "`GaussianRows()`, `FixedGram()` or `RandomCovariance(...)`")
    layers_per_block = checked_layered(network, "Moments of order 1/n").layers_per_block
    if layers_per_block != 1:
        raise ValueError(
            "Moments of order 1/n are known for one layer a block; the network has "
            f"`layers_per_block={layers_per_block}`."
        )
    if isinstance(start, FixedGram) and not isinstance(network, AbstractResidualNetwork):
        raise ValueError(
            "`FixedGram()` is a start of residual networks: a feed-forward one forgets h^0. Its kernel "
            "is deterministic at the start as it is."
        )
