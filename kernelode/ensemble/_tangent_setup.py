"""What tangent kernels need beside the networks: learning rates, and Theta at infinite width."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .._architecture import AbstractLayered
from .._architecture.rates import LearningRates
from .._support.checks import instance, is_concrete
from .._support.trees import cast
from ._draw import TangentDraw
from ._elements import Elements
from ._reference import Reference
from ._tangent_reference import tangent_chain


def checked_rates(network: AbstractLayered, rates, asked: bool) -> LearningRates | None:
    """The rates, or those of the NTK parametrisation, if tangent kernels are asked for."""
    if rates is None:
        return LearningRates() if asked else None
    instance("rates", rates, LearningRates, "`LearningRates(weight=1.0)`")
    if not all(is_concrete(leaf) for leaf in jax.tree.leaves(rates)):
        raise TypeError("`rates` cannot be traced: `sample` loops over batches until they are enough.")
    if not asked:
        raise ValueError("`rates` are those of tangent kernels: pass `tangent_kernel=True` with them.")
    own = rates.input_weight
    if own is not None and float(own) > 0 and float(network.input_weight_variance) == 0:
        raise ValueError(
            "`rates.input_weight` needs a read-in with weights: `input_weight_variance` is zero."
        )
    return rates


def tangent_draw(
    network: AbstractLayered, rates: LearningRates, chain: Reference, elements: Elements, dtype: np.dtype
) -> tuple[TangentDraw, Float[np.ndarray, "layers element"]]:
    """The compiled function's arguments, and Theta of infinite width in float64. **Raises** `ValueError`
    for rates of another depth, and where Theta overflows."""
    start, limit = tangent_chain(network, rates, np.asarray(chain.kernel), elements)
    # Products of up to two deviations of each kind are summed.
    if not np.all(np.abs(limit) < float(jnp.finfo(dtype).max) ** 0.25):
        raise ValueError(
            f"The tangent kernel overflows {dtype.name}: reduce the rates, residual scale, depth or "
            "variances."
        )
    network, rates = cast(network, dtype), cast(rates, dtype)
    numbers = (jnp.asarray(x, dtype) for x in (start, limit))
    return TangentDraw(rates.layers(network), rates.read_out_layer(network), *numbers), limit
