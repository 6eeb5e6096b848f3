"""The Wick tower on all pairs of inputs; `tower.py` has the equations of one."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import AbstractHomogeneousActivation
from .._architecture import AbstractArchitecture, AbstractResidualNetwork, Layer
from .._architecture.start import AbstractStart, upstream_moments
from .._expectation.chaos import SAFETY
from .._expectation.input_chaos import InputChaos, input_chaos
from .._expectation.products import (
    InputProducts,
    SingleProducts,
    input_products,
    pair_products,
)
from .._kernel import input_pairs, symmetric
from .._numerics.chunks import map_in_chunks
from .base import AbstractPairClosure, WidthMoments, check_supported
from .chaos_basis import frame
from .chaos_couplings import (
    Couplings,
    PairChaos,
    coefficient_error,
    couplings,
    degree_step,
    pair_chaos,
    top_degree,
)
from .elements import PAIR
from .order import chosen_order
from .pair_blocks import over_pairs
from .single_tower import SingleMoments, SingleTower, single_moments, single_push, single_rate
from .singles import (
    along_flow,
    begin_singles,
    highest_order,
    input_singles,
    known_order,
    map_singles,
    single_degrees,
    through_layers,
    tower_degrees,
)
from .tower import Tower, begin_tower, tower_covariance, tower_push, tower_rate

#: Pairs that are treated together: enough to vectorise, few enough for a processor's cache.
_CHUNK = 32


class PairTowers(eqx.Module):
    """The kernel's elements, the towers of all pairs, and those of the inputs by themselves."""

    variances: Float[Array, " n"]
    covariances: Float[Array, " pairs"]
    towers: Any  # a `Tower`; `order.py` carries bounds with it
    singles: SingleTower


class _Inputs(NamedTuple):
    """Contributions of inputs to the pairs that they are part of."""

    chaos: InputChaos
    products: InputProducts
    single: SingleProducts


class WickTowerPairs(AbstractPairClosure):
    """`WickTower` on all pairs of inputs; what `WickTower(...).pairs()` returns."""

    order: int | None = eqx.field(static=True)
    terms: int = eqx.field(static=True)
    start: AbstractStart
    single_order: int | None = eqx.field(static=True)
    tolerance: float | None = eqx.field(static=True, default=None)
    tail: int | None = eqx.field(static=True, default=None)

    def prepare(
        self,
        network: AbstractArchitecture,
        kernel: Float[Array, "n n"],
        ts: Float[Array, " times"] | None = None,
    ) -> "WickTowerPairs":
        order = chosen_order(self, network, kernel, ts) if self.order is None else self.order
        found = dataclasses.replace(self, order=order, tolerance=None)
        return through_layers(found) if ts is None else along_flow(found)

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> PairTowers:
        check_supported(network, self.start)
        n = kernel.shape[0]
        rows, columns = input_pairs(n)
        variances, covariances = jnp.diagonal(kernel), kernel[rows, columns]
        d = tower_degrees(self, network)
        begin = lambda qa, qb, c, v, k1: begin_tower(self.start, d, qa, qb, c, v, k1)
        elements = [np.stack([rows, columns], axis=1)[:, part] for part in PAIR]
        upstream = upstream_moments(self.start, n, elements, kernel.dtype)
        towers = jax.vmap(begin)(variances[rows], variances[columns], covariances, *upstream)
        singles = begin_singles(self, network, kernel)
        return PairTowers(variances, covariances, towers, singles)

    def rate(self, network: AbstractArchitecture, state: PairTowers, layer: Layer) -> PairTowers:
        d, step = tower_degrees(self, network), degree_step(network.activation)

        def one_pair(pair: PairChaos, here: Couplings, tower: Tower, entries):
            del pair
            return here.q[1], tower_rate(here, entries, tower, d, step)

        inputs, drift, (moved, towers) = self._map(network, state, layer, one_pair)
        own = inputs.single, state.variances, state.singles
        return PairTowers(drift, moved, towers, map_singles(single_rate, self, network, *own, layer))

    def push(self, network: AbstractArchitecture, state: PairTowers, layer: Layer) -> PairTowers:
        return self.layer(network, state, layer)

    def mean_kernel(self, state: PairTowers) -> Float[Array, "n n"]:
        return symmetric(state.variances, state.covariances)

    def moments(self, network: AbstractArchitecture, state: PairTowers) -> WidthMoments:
        rows, columns = input_pairs(state.variances.shape[0])
        stream = isinstance(network, AbstractResidualNetwork)
        d = tower_degrees(self, network)
        one = lambda qa, qb, c, tower: tower_covariance(qa, qb, c, tower, d, stream)
        entries = (state.variances[rows], state.variances[columns], state.covariances)
        covariance = jax.vmap(one)(*entries, state.towers)
        own = single_moments(state.variances, state.singles, single_degrees(self, network), stream)
        return self._collect(self.mean_kernel(state), covariance, state.towers, own)

    def read_out(self, network: AbstractArchitecture, state: PairTowers) -> WidthMoments:
        return self.conditional_moments(network, self.layer(network, state, network.read_out_layer()))

    def conditional_moments(self, network: AbstractArchitecture, state: PairTowers) -> WidthMoments:
        """Those of the kernel given the weights before, without the noise of its own neurons."""
        own = single_moments(state.variances, state.singles, single_degrees(self, network), stream=False)
        return self._collect(self.mean_kernel(state), state.towers.covariance, state.towers, own)

    def quadrature_error(self, network: AbstractArchitecture, state: PairTowers) -> Float[Array, ""]:
        return self.kernel_error(network, state.variances, state.covariances)

    def kernel_error(
        self, network: AbstractArchitecture, q: Float[Array, " n"], covariances: Float[Array, " pairs"]
    ) -> Float[Array, ""]:
        """The error estimate of a kernel's expectations."""
        activation = network.activation
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
        pairs = map_in_chunks(one_pair, (rows, columns, covariances), _CHUNK)
        return jnp.maximum(alone, jnp.max(pairs) + 64 * jnp.finfo(q.dtype).eps)

    def _inputs(
        self, network: AbstractArchitecture, variances: Array, *, finer: bool = False
    ) -> InputChaos:
        # Neither one input alone nor a homogeneous activation expands the partner.
        alone = variances.shape[0] == 1 or isinstance(network.activation, AbstractHomogeneousActivation)
        terms = 1 if alone else self.terms
        top = top_degree(known_order(self))
        one = lambda q: input_chaos(network.activation, q, top, terms, finer=finer)
        return jax.vmap(one)(variances)

    def _all_inputs(self, network: AbstractArchitecture, variances: Array) -> _Inputs:
        activation, top = network.activation, top_degree(known_order(self))
        return _Inputs(
            chaos=self._inputs(network, variances),
            products=jax.vmap(lambda q: input_products(activation, q, top, self.terms))(variances),
            single=input_singles(activation, variances, highest_order(self)),
        )

    def _map(
        self, network: AbstractArchitecture, state: PairTowers, layer: Layer, function: Callable[..., Any]
    ) -> tuple[Any, Array, Any]:
        """The contribution of every input, Q of each, and `function` of every pair."""
        n, d, activation = state.variances.shape[0], tower_degrees(self, network), network.activation
        inputs = self._all_inputs(network, state.variances)

        def one_pair(x):
            a, b, c, tower = x
            qa, qb = state.variances[a], state.variances[b]
            x, y = (at_index(inputs, k) for k in (a, b))
            pair = pair_chaos(activation, x.chaos, y.chaos, qa, qb, c, single=False)
            both = lambda name: jnp.stack([getattr(x.single, name), getattr(y.single, name)])
            products = pair_products(activation, x.products, y.products, both("fourth"), qa, qb, c)
            here = couplings(pair, products, both("curvature"), layer.affine, d)
            return function(pair, here, tower, (qa, qb, c))

        drift = layer.affine.bias_variance + layer.affine.weight_variance * inputs.single.square[:, 0]
        if n == 1:
            return inputs, drift, (state.covariances, state.towers)
        rows, columns = (jnp.asarray(x) for x in input_pairs(n))
        pairs = rows, columns, state.covariances, state.towers
        return inputs, drift, map_in_chunks(one_pair, pairs, _CHUNK)

    def layer(
        self,
        network: AbstractArchitecture,
        state: PairTowers,
        layer: Layer,
        advance: Callable[..., Any] = tower_push,
    ) -> PairTowers:
        """One layer; `advance` is what it does to a pair's tower."""
        d, step = tower_degrees(self, network), degree_step(network.activation)
        combine = lambda k, q: layer.skip**2 * k + layer.scale**2 * q

        def one_pair(pair: PairChaos, here: Couplings, tower, entries):
            qa, qb, c = (combine(k, q) for k, q in zip(entries, (here.q[0], here.q[2], here.q[1])))
            there = frame(qa, qb, c, d.floor)
            turned = layer.skip * there.b @ pair.frame.a
            return c, advance(here, tower, layer, turned, d, step)

        inputs, drift, (covariances, towers) = self._map(network, state, layer, one_pair)
        own = inputs.single, state.variances, state.singles
        singles = map_singles(single_push, self, network, *own, layer)
        return PairTowers(combine(state.variances, drift), covariances, towers, singles)

    def _collect(self, kernel: Any, covariance: Array, towers: Tower, own: SingleMoments) -> WidthMoments:
        """Pair blocks in both orders, and those of each input with itself."""
        alone = np.eye(kernel.shape[0], dtype=bool)
        blocks = lambda of_input, pairs: over_pairs(alone, of_input[:, None, None], pairs)
        shifts = lambda of_input, pairs: over_pairs(alone, of_input[:, None], pairs)[..., 1]
        whole = blocks(own.covariance, covariance)
        return WidthMoments(
            mean_kernel=kernel,
            kernel_covariance=whole,
            kernel_variance=whole[..., 1, 1],
            mean_correction=shifts(own.correction, towers.correction),
            covariance_truncation=blocks(own.covariance_error, towers.neglected.covariance),
            correction_truncation=shifts(own.correction_error, towers.neglected.correction),
        )


def at_index(tree: Any, index: Any) -> Any:
    """One entry of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
