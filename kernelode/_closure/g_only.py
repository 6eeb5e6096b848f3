"""The published closure: the kernel's fluctuation and mean shift from the kernel alone.

Given the kernel G of a layer the next one is G' = alpha^2 G + eps^2 Q(G) plus sampling noise. Expanded
to order 1/n this closes on K0, V4 and K1 (arXiv:2604.15742):

    V4' = J V4 J^T + Gamma(K0') - alpha^4 Gamma(K0),    J = alpha^2 + eps^2 chi,    chi = DQ,
    K1' = alpha^2 K1 + eps^2 (chi K1 + 1/2 D^2 Q[V4]),

in continuous depth dV4/dt = chi V4 + V4 chi^T + Sigma(K0, Q), dK1/dt = chi K1 + 1/2 D^2 Q[V4]. It
forgets that the activations of a stream are those that made its kernel: `tower.py` has what that
leaves out. A feed-forward network has no memory, and its recursion for the conditional kernel is exact:

    V' = (n / n_l) C_W^2 Cov(sigma_a sigma_b, sigma_c sigma_d) + chi V chi^T,
    K1' = chi K1 + 1/2 D^2 Q[V].
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork, Affine, Layer
from .._architecture.start import AbstractStart, GaussianRows, upstream_moments
from .._expectation import pair_moments, variance_derivatives
from .._expectation.products import pair_fourth_moments
from .._kernel import Block, as_block, as_matrix
from .._support.checks import flag
from .base import (
    AbstractMomentClosure,
    AbstractPairable,
    AbstractPairClosure,
    WidthMoments,
    check_supported,
)
from .elements import PAIR
from .expansion import KernelMoments, expand, expand_rate
from .layouts import AbstractLayout, AllElements, PairElements, pair_matrices


class AbstractGOnly(AbstractMomentClosure):
    """The recursion on the kernel's moments, whatever the layout of its elements."""

    corrected: eqx.AbstractVar[bool]
    start: eqx.AbstractVar[AbstractStart]

    @abc.abstractmethod
    def layout(self, inputs: int) -> AbstractLayout:
        """The elements that it runs on."""

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> KernelMoments:
        check_supported(network, self.start)
        n, block = kernel.shape[0], as_block(kernel)
        layout = self.layout(n)
        covariance, correction = upstream_moments(self.start, n, layout.elements(), kernel.dtype)
        if isinstance(network, AbstractResidualNetwork):
            covariance = (1 - self.start.memory) * layout.wishart(block) + covariance
        return KernelMoments(block, covariance, correction)

    def rate(self, network: AbstractArchitecture, state: KernelMoments, layer: Layer) -> KernelMoments:
        layout = self._layout(state)
        drift = lambda k: network.drift(k, layer)
        noise = lambda q: layout.wick_noise(state.kernel, q)
        return expand_rate(layout, drift, state, noise, self._seen(layout, state))

    def push(self, network: AbstractArchitecture, state: KernelMoments, layer: Layer) -> KernelMoments:
        layout = self._layout(state)
        function = lambda k: network.layer(k, layer)
        if not isinstance(network, AbstractResidualNetwork):
            return expand(layout, function, state, _sampling_noise(network, layer, state.kernel))
        before = layer.skip**4 * layout.wishart(state.kernel)
        noise = lambda after: layout.wishart(after) - before
        return expand(layout, function, state, noise, self._seen(layout, state))

    def mean_kernel(self, state: KernelMoments) -> Float[Array, "n n"]:
        return as_matrix(state.kernel)

    def moments(self, network: AbstractArchitecture, state: KernelMoments) -> WidthMoments:
        del network
        return self._layout(state).moments(state.kernel, state.covariance, state.correction)

    def read_out(self, network: AbstractArchitecture, state: KernelMoments) -> WidthMoments:
        layout, stream = self._layout(state), isinstance(network, AbstractResidualNetwork)
        nothing = lambda after: jnp.zeros_like(state.covariance)
        out = network.read_out_layer()
        noise = nothing if stream else _sampling_noise(network, out, state.kernel)
        seen = self._seen(layout, state) if stream else None
        found = expand(layout, network.read_out, state, noise, seen)
        return layout.moments(found.kernel, found.covariance, found.correction)

    def quadrature_error(self, network: AbstractArchitecture, state: KernelMoments) -> Float[Array, ""]:
        return _moment_errors(network, state.kernel)

    def _layout(self, state: KernelMoments) -> AbstractLayout:
        return self.layout(state.kernel.row.shape[0])

    def _seen(self, layout: AbstractLayout, state: KernelMoments) -> Float[Array, "*pairs x x"]:
        """The part of V4 that sources K1: all of it, or all but the sampling noise of the neurons."""
        return state.covariance - layout.wishart(state.kernel) if self.corrected else state.covariance


class GOnly(AbstractGOnly, AbstractPairable):
    """K0, V4 and K1 under the published closure on the kernel alone (arXiv:2604.15742).

    **Arguments**

    - `corrected`: source K1 by 1/2 D^2 Q[V4 - Gamma(K0)] instead of 1/2 D^2 Q[V4]. The sampling noise
        Gamma of the neurons does not shift the mean; it is the cheapest repair of the published K1.
    - `start`: `GaussianRows()`, `FixedGram()` or `RandomCovariance(covariance, shift)`.
    """

    corrected: bool = eqx.field(static=True, default=False)
    start: AbstractStart = GaussianRows()

    def __check_init__(self) -> None:
        flag("corrected", self.corrected)

    def layout(self, inputs: int) -> AllElements:
        return AllElements(inputs)

    def pairs(self) -> AbstractPairClosure:
        return GOnlyPairs(self.corrected, self.start)

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> KernelMoments:
        if not isinstance(network, AbstractResidualNetwork):
            raise ValueError(
                "The four-point covariance of a feed-forward network needs moments of four inputs: use "
                "`closure=WickTower(order)`, or `propagate_pairs` with `GOnly()`."
            )
        return super().init(network, kernel)


class GOnlyPairs(AbstractGOnly, AbstractPairClosure):
    """`GOnly` on all pairs of inputs; what `GOnly(...).pairs()` returns."""

    corrected: bool = eqx.field(static=True)
    start: AbstractStart

    def layout(self, inputs: int) -> PairElements:
        return PairElements(inputs)


def _sampling_noise(
    network: AbstractArchitecture, layer: Layer, block: Block
) -> Callable[[Block], Array]:
    """(n / n_l) C_W^2 (E[f_X f_Y] - E f_X E f_Y), f_ab = sigma_a sigma_b, of the neurons that a layer
    averages over."""
    fourth = pair_fourth_moments(network.activation, block.row, block.column, block.cross)
    count = np.add.outer([0, 1, 2], [0, 1, 2])  # factors of sigma_b in f_X f_Y
    one = jnp.ones((), block.cross.dtype)
    second = Affine(one, 0 * one)(network.activation, block)
    mean = pair_matrices(second)[..., PAIR.first, PAIR.second]
    covariance = fourth[..., count] - mean[..., :, None] * mean[..., None, :]
    return lambda after: layer.affine.weight_variance**2 / layer.width * covariance


def _moment_errors(network: AbstractArchitecture, block: Block) -> Float[Array, ""]:
    """The largest error estimate of E[sigma_a sigma_b] and its first two derivatives, each relative to
    the largest of its kind.

    All of a kind may all but vanish, of oscillating activations for one: sizes are therefore not taken
    for less than a hundredth of E[(sigma^(r))^2], the natural scale of derivatives of order r.
    """
    n = block.row.shape[0]
    own = np.eye(n, dtype=bool)
    found = pair_moments(network.activation, block.row, block.column, block.cross, 2)
    alone = variance_derivatives(network.activation, block.row, 2)
    scales = [jnp.max(jnp.abs(jnp.diagonal(found[r, r].value))) for r in range(3)]
    scales = [jnp.where(jnp.isfinite(x), x, 0) for x in scales]

    def relative(order: int, value, error):
        size = jnp.maximum(jnp.max(jnp.abs(value)), scales[order] / 100)
        return jnp.max(error) / jnp.where(size > 0, size, 1)

    masked = lambda x: jnp.where(own, 0, x)
    pairs = [relative((i + j) // 2, masked(x.value), masked(x.error)) for (i, j), x in found.items()]
    singles = [relative(r, value, error) for r, (value, error) in enumerate(zip(*alone))]
    return jnp.max(jnp.stack(pairs + singles))
