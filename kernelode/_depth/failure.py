"""Why a kernel went wrong on its way through depth: overflow, underflow, or an activation that is NaN.

A layer's kernel is judged by its variances, by values of the activation where its inputs fall, and by how
well the expectations of inputs and of pairs are known.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, Layer
from .._expectation import expectation_error, pairs_error, tolerance
from .._kernel import AbstractKernel
from .._support.results import RESULTS, choose_result

#: Standard normals at which an activation is tried: zero, and both signs out to four deviations.
_TRIED = np.linspace(-4, 4, 33)


class Watch(NamedTuple):
    """A record of the way through the layers: the largest variance while all were finite; whether one
    became NaN first; whether one that skips a block fell to zero, and of each input the variance from
    which it fell to zero otherwise, or zero; and the largest relative error of an expectation."""

    largest: Float[Array, ""]
    broken: Array
    is_nan: Array
    lost: Array
    fallen_from: Float[Array, " n"]
    error: Float[Array, ""]


def begin_watch(kernel: AbstractKernel) -> Watch:
    """Of an input kernel, which is finite."""
    variances, no = jax.lax.stop_gradient(kernel.variances), jnp.zeros((), bool)
    zeros = jnp.zeros_like(variances)
    return Watch(jnp.max(variances), no, no, no, zeros, jnp.zeros((), variances.dtype))


def watch_layer(
    watch: Watch,
    network: AbstractArchitecture,
    layer: Layer,
    kernel: AbstractKernel,
    image: AbstractKernel,
) -> Watch:
    """The watch after one more layer, which took a kernel to its image."""
    kernel, image = jax.lax.stop_gradient((kernel, image))  # or derivatives would carry the watch
    before, after = kernel.variances, image.variances
    finite = jnp.all(jnp.isfinite(after))
    first = ~finite & ~watch.broken
    tiny = jnp.finfo(after.dtype).tiny
    fallen = (before >= tiny) & (after < tiny)
    fed = (layer.scale > 0) & (layer.affine.weight_variance > 0)
    return Watch(
        largest=jnp.where(finite, jnp.max(after), watch.largest),
        broken=watch.broken | first,
        is_nan=watch.is_nan | (first & jnp.any(jnp.isnan(after))),
        lost=watch.lost | (jnp.any(fallen) & (layer.skip > 0)),
        fallen_from=jnp.where(fallen & fed, before, watch.fallen_from),
        error=jnp.maximum(watch.error, _error(network, kernel)),
    )


def outcome(watch: Watch, network: AbstractArchitecture, last: Any) -> RESULTS:
    """The outcome of a run through all layers with the last state `last`."""
    finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(last)]))
    fed = (watch.fallen_from > 0) & _feeds(network, watch.fallen_from)
    underflow = watch.lost | jnp.any(fed)
    whole = accuracy_result(watch.error)
    whole = choose_result(underflow, RESULTS.underflow, whole)
    # Something other than a variance: a covariance, or a moment of order 1/n.
    is_nan = jnp.where(watch.broken, watch.is_nan, ~finite)
    broken = broken_result(network, watch.largest, is_nan)
    broken = choose_result(underflow & ~watch.broken, RESULTS.underflow, broken)
    return choose_result(finite, whole, broken)


def _error(network: AbstractArchitecture, kernel: AbstractKernel) -> Float[Array, ""]:
    """The largest relative error of an expectation: of an input, or of a pair."""
    kernel = jax.lax.stop_gradient(kernel)
    own = expectation_error(network.activation, kernel.variances)
    return jnp.maximum(own, pairs_error(network.activation, kernel))


def accuracy_result(error: Float[Array, ""]) -> RESULTS:
    """Whether expectations of that relative error are accurate enough."""
    return choose_result(error > tolerance(error.dtype), RESULTS.inaccurate, RESULTS.successful)


def broken_result(network: AbstractArchitecture, variance: Float[Array, ""], is_nan: Array) -> RESULTS:
    """Why something is not finite that followed on a kernel of that largest variance. A NaN is the
    activation's own where that is NaN itself, or neither it nor the kernel is large enough to overflow.
    """
    values = network.activation(_inputs(variance))
    # Fourth moments of numbers below this do not overflow.
    moderate = jnp.asarray(jnp.finfo(values.dtype).max, values.dtype) ** 0.25
    numbers = (values, variance, *jax.tree.leaves(network.layers()))
    small = jnp.all(jnp.array([jnp.all(jnp.abs(x) < moderate) for x in numbers]))
    own = jnp.any(jnp.isnan(values))
    broken = choose_result(is_nan & (own | small), RESULTS.not_a_number, RESULTS.not_finite)
    # Products of two variances below this are zero, and ratios of them no numbers.
    vanishing = variance < jnp.asarray(jnp.finfo(values.dtype).tiny, values.dtype) ** 0.5
    return choose_result(is_nan & vanishing & (variance > 0) & ~own, RESULTS.underflow, broken)


def flow_outcome(
    network: AbstractArchitecture, kernel: AbstractKernel, result: RESULTS, saved: Any
) -> RESULTS:
    """The outcome of a flow from this kernel: Diffrax's own `result`, unless the reason is that the
    activation is NaN, which a solver only knows as steps that fail, or the saved states overflow."""
    undefined = jnp.any(jnp.isnan(network.activation(_inputs(jnp.max(kernel.variances)))))
    broken = choose_result(undefined, RESULTS.not_a_number, RESULTS.not_finite)
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(saved)]
    lost = ~jnp.all(jnp.array([True, *leaves]))
    done = result == RESULTS.successful
    result = choose_result(done, accuracy_result(_error(network, kernel)), result)
    return choose_result(jnp.where(done, lost, undefined), broken, result)


def _feeds(network: AbstractArchitecture, variances: Float[Array, " n"]) -> Array:
    """Where sigma does not vanish on the inputs of that variance: the next one is positive."""
    return jnp.any(jax.vmap(lambda q: network.activation(_inputs(q)))(variances) != 0, axis=1)


def _inputs(variance: Float[Array, ""]) -> Float[Array, " tried"]:
    return jnp.sqrt(jnp.where(variance > 0, variance, 0)) * jnp.asarray(_TRIED, variance.dtype)
