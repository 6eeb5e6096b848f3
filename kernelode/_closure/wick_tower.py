"""The Wick tower on all pairs of inputs; `tower.py` has the equations of one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import AbstractHomogeneousActivation
from .._architecture.base import AbstractArchitecture, AbstractResidualNetwork, Layer
from .._chunks import map_in_chunks
from .._expectation.chaos import SAFETY, InputChaos, input_chaos
from .._start import AbstractStart, upstream_moments
from .base import AbstractMomentClosure, WidthMoments, check_supported, read_out_layer
from .chaos_basis import Degrees, basis_floor, degrees, frame, own_frame
from .chaos_couplings import (
    PairChaos,
    coefficient_error,
    couplings,
    degree_step,
    pair_chaos,
    top_degree,
)
from .elements import PAIR
from .tower import Tower, begin_tower, tower_covariance, tower_push, tower_rate

#: Pairs that are treated together: enough to vectorise, few enough for a processor's cache.
_CHUNK = 32


class PairTowers(eqx.Module):
    """The kernel's elements, and the towers of all pairs."""

    variances: Float[Array, " n"]
    covariances: Float[Array, " pairs"]
    towers: Tower


def input_pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs a < b; the input with itself if there is but one."""
    return np.triu_indices(n, k=1) if n > 1 else (np.zeros(1, int), np.zeros(1, int))


class WickTowerPairs(AbstractMomentClosure):
    """`WickTower` on all pairs of inputs; what `WickTower(...).pairs()` returns."""

    order: int = eqx.field(static=True)
    terms: int = eqx.field(static=True)
    start: AbstractStart

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> PairTowers:
        check_supported(network, self.start)
        rows, columns = input_pairs(kernel.shape[0])
        variances, covariances = jnp.diagonal(kernel), kernel[rows, columns]
        d = self._degrees(network)
        begin = lambda qa, qb, c, v, k1: begin_tower(self.start, d, qa, qb, c, v, k1)
        elements = [np.stack([rows, columns], axis=1)[:, part] for part in PAIR]
        upstream = upstream_moments(self.start, kernel.shape[0], elements, kernel.dtype)
        towers = jax.vmap(begin)(variances[rows], variances[columns], covariances, *upstream)
        return PairTowers(variances, covariances, towers)

    def rate(self, network: AbstractArchitecture, state: PairTowers) -> PairTowers:
        d, step = self._degrees(network), degree_step(network.activation)

        def one_pair(pair: PairChaos, tower: Tower, entries):
            layer = couplings(pair, network.weight_variance, network.bias_variance, d)
            return layer.q[1], tower_rate(layer, entries, tower, d, step)

        inputs, (moved, towers) = self._map(network, state, one_pair)
        variances = network.bias_variance + network.weight_variance * inputs.square[:, 0]
        return PairTowers(variances, moved, towers)

    def push(self, network: AbstractArchitecture, state: PairTowers, layer: Layer) -> PairTowers:
        return self._layer(network, state, layer, network.weight_variance, network.bias_variance)

    def mean_kernel(self, state: PairTowers) -> Float[Array, "n n"]:
        n = state.variances.shape[0]
        rows, columns = input_pairs(n)
        kernel = jnp.zeros((n, n), state.variances.dtype)
        kernel = kernel.at[rows, columns].set(state.covariances).at[columns, rows].set(state.covariances)
        return kernel.at[np.arange(n), np.arange(n)].set(state.variances)

    def moments(self, network: AbstractArchitecture, state: PairTowers) -> WidthMoments:
        rows, columns = input_pairs(state.variances.shape[0])
        stream = isinstance(network, AbstractResidualNetwork)
        d = self._degrees(network)
        one = lambda qa, qb, c, tower: tower_covariance(qa, qb, c, tower, d, stream)
        entries = (state.variances[rows], state.variances[columns], state.covariances)
        covariance = jax.vmap(one)(*entries, state.towers)
        return self._collect(self.mean_kernel(state), covariance, state.towers.correction)

    def read_out(self, network: AbstractArchitecture, state: PairTowers) -> WidthMoments:
        variances = network.output_weight_variance, network.output_bias_variance
        out = self._layer(network, state, read_out_layer(network), *variances)
        return self._collect(self.mean_kernel(out), out.towers.covariance, out.towers.correction)

    def quadrature_error(self, network: AbstractArchitecture, state: PairTowers) -> Float[Array, ""]:
        q, activation = state.variances, network.activation
        inputs, finer = (self._inputs(network, q, finer=finer) for finer in (False, True))
        size = jnp.where(finer.square[:, :1] > 0, finer.square[:, :1], 1)
        alone = SAFETY * jnp.max(jnp.abs(inputs.square - finer.square) / size)
        alone = alone + 64 * jnp.finfo(q.dtype).eps
        if q.shape[0] == 1:
            return alone

        def one_pair(index):
            a, b, c = index
            at = lambda inputs, k: jax.tree.map(lambda leaf: leaf[k], inputs)
            rough, fine = ((at(x, a), at(x, b)) for x in (inputs, finer))
            return coefficient_error(activation, rough, fine, q[a], q[b], c)

        rows, columns = (jnp.asarray(x) for x in input_pairs(q.shape[0]))
        pairs = map_in_chunks(one_pair, (rows, columns, state.covariances), _CHUNK)
        return jnp.maximum(alone, jnp.max(pairs) + 64 * jnp.finfo(q.dtype).eps)

    def _degrees(self, network) -> Degrees:
        activation = network.activation
        return degrees(self.order, degree_step(activation), basis_floor(activation))

    def _inputs(self, network, variances, *, finer: bool = False) -> InputChaos:
        # Neither one input alone nor a homogeneous activation expands the partner.
        alone = variances.shape[0] == 1 or isinstance(network.activation, AbstractHomogeneousActivation)
        terms = 1 if alone else self.terms
        top = top_degree(self.order)
        one = lambda q: input_chaos(network.activation, q, top, terms, finer=finer)
        return jax.vmap(one)(variances)

    def _map(self, network, state: PairTowers, function):
        """What inputs bring, computed once for each, and `function` of every pair."""
        n = state.variances.shape[0]
        inputs = self._inputs(network, state.variances)

        def one_pair(x):
            a, b, c, tower = x
            qa, qb = state.variances[a], state.variances[b]
            at = lambda k: jax.tree.map(lambda leaf: leaf[k], inputs)
            pair = pair_chaos(network.activation, at(a), at(b), qa, qb, c, single=n == 1)
            return function(pair, tower, (qa, qb, c))

        rows, columns = (jnp.asarray(x) for x in input_pairs(n))
        return inputs, map_in_chunks(one_pair, (rows, columns, state.covariances, state.towers), _CHUNK)

    def _layer(self, network, state: PairTowers, layer: Layer, weight_variance, bias_variance):
        d, step = self._degrees(network), degree_step(network.activation)
        alone = state.variances.shape[0] == 1
        combine = lambda k, q: layer.skip**2 * k + layer.scale**2 * q

        def one_pair(pair: PairChaos, tower: Tower, entries):
            here = couplings(pair, weight_variance, bias_variance, d)
            qa, qb, c = (combine(k, q) for k, q in zip(entries, (here.q[0], here.q[2], here.q[1])))
            there = frame(qa, qb, c, d.floor)
            there = own_frame(there) if alone else there
            turned = layer.skip * there.b @ pair.frame.a
            return c, tower_push(here, tower, layer, turned, d, step)

        inputs, (covariances, towers) = self._map(network, state, one_pair)
        drift = bias_variance + weight_variance * inputs.square[:, 0]
        return PairTowers(combine(state.variances, drift), covariances, towers)

    def _collect(self, kernel, covariance, correction) -> WidthMoments:
        """Pair blocks in both orders, and those of each input with itself."""
        n = kernel.shape[0]
        index, swapped = _pair_of(n)
        flip = np.array([2, 1, 0])
        blocks = covariance[index]
        blocks = jnp.where(swapped[..., None, None, None], blocks[..., flip, :][..., flip], blocks)
        shifts = correction[index]
        shifts = jnp.where(swapped[..., None, None], shifts[..., flip], shifts)
        own = np.eye(n, dtype=bool)[..., None, None, None]
        blocks = jnp.where(own, blocks[..., :1, :1], blocks)
        shifts = jnp.where(np.eye(n, dtype=bool)[..., None], shifts[..., 0], shifts[..., 1])
        return WidthMoments(
            mean_kernel=kernel,
            kernel_covariance=blocks[:, :, 0],
            kernel_variance=blocks[:, :, 0, 1, 1],
            mean_correction=shifts[..., 0],
            covariance_truncation=blocks[:, :, 0] - blocks[:, :, 1],
            correction_truncation=shifts[..., 0] - shifts[..., 1],
        )


def _pair_of(n: int) -> tuple[np.ndarray, np.ndarray]:
    """For every (a, b): the number of its pair, and whether that is (b, a). An input with itself takes
    part in a pair with another, where its own block is the first after the swap."""
    index = np.zeros((n, n), int)
    rows, columns = input_pairs(n)
    index[rows, columns] = index[columns, rows] = np.arange(len(rows))
    swapped = np.tril(np.ones((n, n), bool), k=-1)
    if n > 1:
        for a in range(n - 1):
            index[a, a] = index[a, a + 1]
        index[n - 1, n - 1], swapped[n - 1, n - 1] = index[n - 1, n - 2], True
    return index, swapped
