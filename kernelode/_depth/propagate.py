"""Moments through a network of finite depth: one scan, whatever the depth."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork
from .._closure import AbstractClosure, MeanOnly
from .._kernel import Block, checked_entries
from .._support.checks import checked_layers
from .._support.custom_types import RealLike
from .._support.results import RESULTS
from .._support.trees import cast
from .arguments import check_rectangular, checked_closure, checked_network
from .failure import begin_watch, outcome, watch_layer
from .sizes import check_depth, check_propagation
from .solution import Solution


def propagate(
    network: AbstractArchitecture,
    kernel: RealLike | Block,
    *,
    closure: AbstractClosure | None = None,
    layers: Sequence[int] | None = None,
    throw: bool = True,
) -> Solution:
    """Moments of the kernel at discrete depth, exactly: K^l = layer_l(K^{l-1}), l = 1 .. depth.

    **Arguments**

    - `network`: a `ResNet` or an `MLP`. All but its depth and activation type is traced.
    - `kernel`: K^0, the kernel of the read-in layer (`input_kernel`, `network.read_in`); shape (n, n).
        Its dtype is that of the calculation. Or a `Block`, inputs in rows against others in columns, for
        the mean kernel alone.
    - `closure`: which moments; `MeanOnly()` by default.
    - `layers`: increasing layer numbers to save, of 0 .. depth; all by default.
    - `throw`: raise where the kernel overflows or underflows, or the activation is NaN; else see
        `Solution.result`.

    **Returns** a `Solution` whose leading axis runs over the saved layers.

    **Raises** `ValueError` for an invalid kernel or layer numbers, `TypeError` for arguments of another
    type.
    """
    network = checked_network(network)
    kernel = checked_entries(kernel)
    closure = checked_closure(closure, MeanOnly())
    check_rectangular(kernel, closure)
    check_depth(network, kernel)
    saved = checked_layers(layers, network.depth, range(network.depth + 1))
    closure = closure.prepare(network, kernel)
    check_propagation(network, kernel, closure, layers)
    solution = _propagate(network, kernel, closure, saved)
    if throw:
        solution = solution.result.error_if(solution, solution.result != RESULTS.successful)
    return solution


@eqx.filter_jit
def _propagate(
    network: AbstractArchitecture,
    kernel: Float[Array, "n n"] | Block,
    closure: AbstractClosure,
    saved: tuple[int, ...],
) -> Solution:
    network, closure = cast((network, closure), kernel.dtype)
    first = closure.init(network, kernel)
    # Each layer writes to its place, those not asked for to one that is dropped: memory follows what
    # is saved, and one scan serves every choice. The last layer alone needs no store.
    last_only = saved == (network.depth,)
    places = np.full(network.depth + 1, len(saved))
    places[list(saved)] = np.arange(len(saved))
    write = lambda store, place, state: (
        store if last_only else jax.tree.map(lambda s, x: s.at[place].set(x), store, state)
    )
    empty = lambda x: jnp.zeros((len(saved) + 1, *x.shape), x.dtype)
    store = None if last_only else jax.tree.map(empty, first)

    def step(carry, layer):
        state, store, watch = carry
        one, place = layer
        before = closure.kernel(state)
        state = closure.push(network, state, one)
        watch = watch_layer(watch, network, one, before, closure.kernel(state))
        return (state, write(store, place, state), watch), None

    carry = (first, write(store, places[0], first), begin_watch(closure.kernel(first)))
    (last, store, watch), _ = jax.lax.scan(
        step, carry, (closure.layers(network), jnp.asarray(places[1:]))
    )
    state = jax.tree.map(lambda x: x[None], last) if last_only else jax.tree.map(lambda s: s[:-1], store)
    if isinstance(network, AbstractResidualNetwork):
        steps = jnp.cumsum(network.layers().scale ** 2)
    else:
        steps = jnp.arange(1, network.depth + 1, dtype=kernel.dtype)
    depths = jnp.concatenate([jnp.zeros((1,), steps.dtype), steps])
    return Solution(
        network=network,
        closure=closure,
        saved_ts=depths[np.array(saved)],
        state=state,
        result=outcome(watch, network, last),
        stats={},
    )
