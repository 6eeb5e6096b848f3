"""The published closure: the kernel's fluctuation and mean shift from the kernel alone.

Given the kernel G of a layer the next one is G' = alpha^2 G + eps^2 Q(G) plus sampling noise. Expanded
to order 1/n this closes on K0, V4 and K1 (arXiv:2604.15742):

    V4' = J V4 J^T + Gamma(K0') - alpha^4 Gamma(K0),    J = alpha^2 + eps^2 chi,    chi = DQ,
    K1' = alpha^2 K1 + eps^2 (chi K1 + 1/2 D^2 Q[V4]),

in continuous depth dV4/dt = chi V4 + V4 chi^T + Sigma(K0, Q), dK1/dt = chi K1 + 1/2 D^2 Q[V4]. It
forgets that the activations of a stream are those that made its kernel: `wick_tower.py` has what that
leaves out. A feed-forward network has no memory, and its recursion for the conditional kernel is exact:

    V' = (n / n_l) C_W^2 Cov(sigma_a sigma_b, sigma_c sigma_d) + chi V chi^T,
    K1' = chi K1 + 1/2 D^2 Q[V].
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture.base import (
    AbstractArchitecture,
    AbstractResidualNetwork,
    Layer,
    affine_moment,
)
from .._checks import flag
from .._expectation import pair_moments, variance_derivatives
from .._expectation.products import pair_fourth_moments
from .._kernel import Block, as_block, as_matrix
from .._start import AbstractStart, GaussianRows, upstream_moments
from .base import AbstractMomentClosure, AbstractPairable, WidthMoments, check_supported
from .drift_derivatives import DriftDerivatives, drift_derivatives
from .elements import PAIR, all_elements, element_numbers, own_pairs, wick_noise, wishart


class KernelMoments(eqx.Module):
    """K0, V4 and K1: over all elements (X, Y), or for every pair (a, b) over (aa, ab, bb)."""

    kernel: Block
    covariance: Float[Array, "*pairs x x"]
    correction: Float[Array, "*pairs x"]


def _source_covariance(corrected: bool, covariance, gamma):
    """What the source of K1 sees of V4: all of it, or what is not the sampling of the neurons."""
    return covariance - gamma if corrected else covariance


class GOnly(AbstractPairable):
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

    def pairs(self) -> AbstractMomentClosure:
        return GOnlyPairs(self.corrected, self.start)

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> KernelMoments:
        check_supported(network, self.start)
        if not isinstance(network, AbstractResidualNetwork):
            raise ValueError(
                "The four-point covariance of a feed-forward network needs moments of four inputs: use "
                "`closure=WickTower(order)`, or `propagate_pairs` with `GOnly()`."
            )
        n = kernel.shape[0]
        elements = all_elements(n)
        covariance, correction = upstream_moments(self.start, n, elements, kernel.dtype)
        covariance = (1 - self.start.memory) * wishart(kernel, elements) + covariance
        return KernelMoments(as_block(kernel), covariance, correction)

    def rate(self, network: AbstractArchitecture, state: KernelMoments) -> KernelMoments:
        kernel = as_matrix(state.kernel)
        q, chi, source = self._drift(network.drift, state)
        elements = all_elements(kernel.shape[0])
        moved = chi @ state.covariance
        return KernelMoments(
            kernel=q,
            covariance=moved + moved.T + wick_noise(kernel, as_matrix(q), elements),
            correction=chi @ state.correction + source,
        )

    def push(self, network: AbstractArchitecture, state: KernelMoments, layer: Layer) -> KernelMoments:
        q, chi, source = self._drift(network.drift, state)
        kernel = jax.tree.map(lambda k, q: layer.skip**2 * k + layer.scale**2 * q, state.kernel, q)
        elements = all_elements(state.kernel.row.shape[0])
        jacobian = layer.skip**2 * jnp.eye(chi.shape[0], dtype=chi.dtype) + layer.scale**2 * chi
        before, after = (wishart(as_matrix(k), elements) for k in (state.kernel, kernel))
        return KernelMoments(
            kernel=kernel,
            covariance=jacobian @ state.covariance @ jacobian.T + after - layer.skip**4 * before,
            correction=jacobian @ state.correction + layer.scale**2 * source,
        )

    def mean_kernel(self, state: KernelMoments) -> Float[Array, "n n"]:
        return as_matrix(state.kernel)

    def moments(self, network: AbstractArchitecture, state: KernelMoments) -> WidthMoments:
        del network
        return four_point_moments(as_matrix(state.kernel), state.covariance, state.correction)

    def read_out(self, network: AbstractArchitecture, state: KernelMoments) -> WidthMoments:
        q, chi, source = self._drift(network.read_out, state)
        return four_point_moments(
            as_matrix(q), chi @ state.covariance @ chi.T, chi @ state.correction + source
        )

    def quadrature_error(self, network: AbstractArchitecture, state: KernelMoments) -> Float[Array, ""]:
        return _moment_errors(network, state.kernel)

    def _drift(self, function, state: KernelMoments):
        """Q, chi as a matrix on elements, and the source of K1."""
        n = state.kernel.row.shape[0]
        first, second = elements = all_elements(n)
        d = _with_own(drift_derivatives(function, state.kernel))
        own = own_pairs(n)
        rows = np.arange(len(first))[:, None]
        chi = jnp.zeros_like(state.covariance).at[rows, own].add(d.chi[first, second, 1])
        seen = _source_covariance(
            self.corrected, state.covariance, wishart(as_matrix(state.kernel), elements)
        )
        blocks = seen[own[:, :, None], own[:, None, :]]
        source = jnp.einsum("xyz,xyz->x", d.curvature[first, second, 1], blocks) / 2
        diagonal = d.value[np.arange(n), np.arange(n), 0]
        return Block(diagonal, diagonal, d.value[..., 1]), chi, source


def _with_own(d: DriftDerivatives) -> DriftDerivatives:
    """An input with itself is one coordinate: its element is aa, not the limit of ab."""
    own = np.eye(d.value.shape[0], dtype=bool)[..., None]
    first = lambda x: jnp.where(own.reshape(own.shape + (1,) * (x.ndim - 3)), x[:, :, :1], x)
    return DriftDerivatives(first(d.value), first(d.chi), first(d.curvature))


def four_point_moments(kernel, covariance, correction, *truncation) -> WidthMoments:
    """Moments over elements (X, Y) as (n, n, n, n) and (n, n) arrays; `truncation` are bounds of their
    errors, none for a closure that is not truncated."""
    numbers = element_numbers(kernel.shape[0])
    expand = lambda v, k1: (v[numbers[:, :, None, None], numbers[None, None]], k1[numbers])
    errors = truncation or (jnp.zeros_like(covariance), jnp.zeros_like(correction))
    whole, shift = expand(covariance, correction)
    variance = jnp.diagonal(covariance)[numbers]
    return WidthMoments(kernel, whole, variance, shift, *expand(*errors))


class GOnlyPairs(AbstractMomentClosure):
    """`GOnly` on all pairs of inputs; what `GOnly(...).pairs()` returns."""

    corrected: bool = eqx.field(static=True)
    start: AbstractStart

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> KernelMoments:
        check_supported(network, self.start)
        n, block = kernel.shape[0], as_block(kernel)
        stream = isinstance(network, AbstractResidualNetwork)
        a, b = np.arange(n)[:, None, None], np.arange(n)[None, :, None]
        elements = [np.where(part == 0, a, b) for part in PAIR]
        covariance, correction = upstream_moments(self.start, n, elements, kernel.dtype)
        covariance = stream * (1 - self.start.memory) * _pair_wishart(block) + covariance
        return KernelMoments(block, covariance, correction)

    def rate(self, network: AbstractArchitecture, state: KernelMoments) -> KernelMoments:
        q, chi, source = self._drift(network.drift, state)
        moved = chi @ state.covariance
        return KernelMoments(
            kernel=q,
            covariance=moved + moved.mT + _pair_noise(state.kernel, q),
            correction=_apply(chi, state.correction) + source,
        )

    def push(self, network: AbstractArchitecture, state: KernelMoments, layer: Layer) -> KernelMoments:
        if not isinstance(network, AbstractResidualNetwork):
            fresh = _sampling_noise(network.activation, network.weight_variance, state.kernel)
            return self._feed_forward(network.drift, state, fresh / layer.width)
        q, chi, source = self._drift(network.drift, state)
        kernel = jax.tree.map(lambda k, q: layer.skip**2 * k + layer.scale**2 * q, state.kernel, q)
        jacobian = layer.skip**2 * jnp.eye(3, dtype=chi.dtype)[None, None] + layer.scale**2 * chi
        noise = _pair_wishart(kernel) - layer.skip**4 * _pair_wishart(state.kernel)
        return KernelMoments(
            kernel=kernel,
            covariance=jacobian @ state.covariance @ jacobian.mT + noise,
            correction=_apply(jacobian, state.correction) + layer.scale**2 * source,
        )

    def mean_kernel(self, state: KernelMoments) -> Float[Array, "n n"]:
        return as_matrix(state.kernel)

    def moments(self, network: AbstractArchitecture, state: KernelMoments) -> WidthMoments:
        del network
        own = np.eye(state.kernel.row.shape[0], dtype=bool)[..., None, None]
        covariance = jnp.where(own, state.covariance[..., :1, :1], state.covariance)
        correction = jnp.where(own[..., 0, 0], state.correction[..., 0], state.correction[..., 1])
        nothing = jnp.zeros_like(covariance), jnp.zeros_like(correction)
        variance = covariance[..., 1, 1]
        return WidthMoments(as_matrix(state.kernel), covariance, variance, correction, *nothing)

    def read_out(self, network: AbstractArchitecture, state: KernelMoments) -> WidthMoments:
        if isinstance(network, AbstractResidualNetwork):
            fresh = jnp.zeros_like(state.covariance)
        else:
            variance = network.output_weight_variance
            fresh = _sampling_noise(network.activation, variance, state.kernel) / network.last_width
        return self.moments(network, self._feed_forward(network.read_out, state, fresh))

    def quadrature_error(self, network: AbstractArchitecture, state: KernelMoments) -> Float[Array, ""]:
        return _moment_errors(network, state.kernel)

    def _feed_forward(self, function, state: KernelMoments, fresh) -> KernelMoments:
        q, chi, source = self._drift(function, state, stream=False)
        return KernelMoments(
            kernel=q,
            covariance=fresh + chi @ state.covariance @ chi.mT,
            correction=_apply(chi, state.correction) + source,
        )

    def _drift(self, function, state: KernelMoments, stream: bool = True):
        d = _with_own(drift_derivatives(function, state.kernel))
        gamma = _pair_wishart(state.kernel)
        seen = _source_covariance(self.corrected and stream, state.covariance, gamma)
        source = jnp.einsum("abxyz,abyz->abx", d.curvature, seen) / 2
        n = state.kernel.row.shape[0]
        diagonal = d.value[np.arange(n), np.arange(n), 0]
        return Block(diagonal, diagonal, d.value[..., 1]), d.chi, source


def _apply(matrix, vector):
    return (matrix @ vector[..., None])[..., 0]


def _pair_matrices(block: Block) -> Float[Array, "n n 2 2"]:
    row = jnp.broadcast_to(block.row[:, None], block.cross.shape)
    column = jnp.broadcast_to(block.column[None, :], block.cross.shape)
    entries = jnp.stack([row, block.cross, block.cross, column], axis=-1)
    return entries.reshape(*block.cross.shape, 2, 2)


def _pair_noise(kernel: Block, other: Block) -> Float[Array, "n n 3 3"]:
    one_pair = lambda k, q: wick_noise(k, q, PAIR)
    return jax.vmap(jax.vmap(one_pair))(_pair_matrices(kernel), _pair_matrices(other))


def _pair_wishart(kernel: Block) -> Float[Array, "n n 3 3"]:
    return _pair_noise(kernel, kernel) / 2


def _sampling_noise(activation, weight_variance, block: Block) -> Float[Array, "n n 3 3"]:
    """C_W^2 (E[f_X f_Y] - E f_X E f_Y), f_ab = sigma_a sigma_b."""
    fourth = pair_fourth_moments(activation, block.row, block.column, block.cross)
    count = np.add.outer([0, 1, 2], [0, 1, 2])  # factors of sigma_b in f_X f_Y
    one = jnp.ones((), block.cross.dtype)
    second = affine_moment(activation, one, 0 * one, block)
    mean = _pair_matrices(second)[..., PAIR.first, PAIR.second]
    return weight_variance**2 * (fourth[..., count] - mean[..., :, None] * mean[..., None, :])


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
