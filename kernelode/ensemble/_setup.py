"""From what a user asks for to a run: every check that can be made before a network is drawn."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._architecture import (
    AbstractArchitecture,
    AbstractLayered,
    AbstractResidualNetwork,
    checked_layered,
)
from .._architecture.describe import describe
from .._architecture.rates import LearningRates
from .._architecture.start import FixedGram, GaussianRows
from .._kernel import checked_kernel
from .._support.checks import checked_layers, described, is_concrete, positive_integer
from .._support.files import versions
from .._support.memory import check_memory
from .._support.probe import probe
from .._support.trees import cast
from ._draw import Draw
from ._elements import elements_of
from ._ensemble import Ensemble
from ._factor import positive_factor
from ._network import Data
from ._plan import Plan
from ._reference import reference_chain
from ._rounds import BINS
from ._sampler import AbstractSampler
from ._tangent_kernel import OUTPUTS
from ._tangent_setup import checked_rates, tangent_draw
from ._tangent_sums import PARTS

#: Numbers of one input in a batch, if its size is left to us: a few such arrays stay in the cache.
_IN_CACHE = 2**15


def prepare(
    network: AbstractArchitecture,
    inputs,
    key,
    *,
    width: int,
    samples: int | None,
    layers: Sequence[int] | None,
    sampler: AbstractSampler,
    start: GaussianRows | FixedGram,
    control: bool | None,
    pairs: bool,
    responses: bool,
    tangent_kernel: bool,
    rates: LearningRates | None,
    batch: int | None,
    dtype: Any,
) -> tuple[Draw, Ensemble]:
    """The compiled function's arguments, and an ensemble without networks. See `sample`."""
    network = _checked_types(network, inputs, sampler, start)
    check_memory(
        # A dozen numbers of every layer, some of them Python's.
        200.0 * network.depth,
        f"Networks of {network.depth:,} layers",
        "Reduce the depth.",
    )
    x = inputs.x if isinstance(inputs, Data) else None
    kernel = checked_kernel(network.read_in(inputs.x) if isinstance(inputs, Data) else inputs, "inputs")
    count = kernel.shape[0]
    dtype = _checked_dtype(kernel.dtype if dtype is None else dtype)
    possible = sampler.coupled and network.layers_per_block == 1
    if control and not possible:
        raise ValueError("`control=True` needs `BlockLaw()` and one layer a block.")
    if tangent_kernel and sampler.coupled:
        raise ValueError("`tangent_kernel=True` needs weights: pass `sampler=RealWeights()`.")
    rates = checked_rates(network, rates, tangent_kernel)
    literal = x is not None and not sampler.coupled
    if literal and responses:
        raise ValueError("`responses=True` changes K^0: pass a kernel, not `Data`, with `RealWeights()`.")
    width = positive_integer("width", width)
    widths = _widths(network, width)
    fixed_gram = isinstance(start, FixedGram)
    if fixed_gram and x is not None:
        raise ValueError("`FixedGram()` fixes the kernel of h^0: pass that kernel, not `Data`.")
    if fixed_gram and width < count:
        raise ValueError(f"With `FixedGram()` `width` must be at least {count}; got {width}.")
    if fixed_gram and not isinstance(network, AbstractResidualNetwork):
        raise ValueError("`FixedGram()` is a start of residual networks.")
    plan = Plan(
        inputs=count,
        width=width,
        neurons=max(widths),
        batch=_batch(batch, sampler, max(widths), samples),
        layers=checked_layers(layers, network.depth, (network.depth,)),
        pairs=pairs,
        controlled=possible if control is None else bool(control),
        responses=responses,
        tangent_kernel=tangent_kernel,
        fixed_gram=fixed_gram,
        dtype=dtype.name,
    )
    _check_sizes(plan, sampler, network)
    elements = elements_of(count, pairs=pairs)
    chain = reference_chain(network, np.asarray(kernel), elements)
    # Products of up to three deviations are summed.
    largest = float(jnp.finfo(dtype).max) ** 0.25
    if not all(np.all(np.abs(x) < largest) for x in (chain.kernel, chain.moment)):
        raise ValueError(
            f"The mean kernel overflows {dtype.name}: reduce the residual scale, depth or variances."
        )
    factor = _start_factor(kernel)
    tangent = limit = None
    if rates is not None:
        tangent, limit = tangent_draw(network, rates, chain, elements, dtype)
    draw = Draw(
        network=cast(network, dtype),
        sampler=sampler,
        start=jnp.asarray(factor, dtype) if x is None or sampler.coupled else Data(x.astype(dtype)),
        tangents=jnp.asarray(_tangents(factor), dtype) if responses else None,
        widths=jnp.asarray(widths, dtype),
        reference=jax.tree.map(lambda x: jnp.asarray(x, dtype), chain),
        tangent_kernel=tangent,
        plan=plan,
    )
    here = list(plan.layers)
    configuration = {
        "network": describe(network),
        "output_weight_variance": float(network.output_weight_variance),
        "kernel": np.asarray(kernel).astype(float).tolist(),
        "sampler": type(sampler).__name__,
        "read_in": describe(x) if literal else None,
        "widths": list(widths),
        "key": {"impl": str(jax.random.key_impl(key)), "data": jax.random.key_data(key).tolist()},
        **plan._asdict(),
        **({} if rates is None else {"rates": describe(rates)}),
        "layers": here,
        "versions": versions(),
    }
    empty = Ensemble(
        configuration=configuration,
        ts=_depths(network)[here],
        reference_kernel=np.asarray(chain.kernel)[here],
        reference_moment=np.asarray(chain.moment)[here],
        counts=np.zeros(BINS, np.int64),
        sums={},
        ended="interrupted",
        probe=probe(network.activation),
        reference_tangent=None if limit is None else limit[here],
    )
    return draw, empty


def _checked_types(network, inputs, sampler, start) -> AbstractLayered:
    if not isinstance(network, AbstractArchitecture):
        raise TypeError(f"`network` must be a `ResNet` or an `MLP`, got {described(network)}.")
    if not isinstance(sampler, AbstractSampler):
        raise TypeError(f"`sampler` must be `BlockLaw()` or `RealWeights()`, got {described(sampler)}.")
    if not isinstance(start, GaussianRows | FixedGram):
        raise TypeError(f"`start` must be `GaussianRows()` or `FixedGram()`, got {described(start)}.")
    if not all(is_concrete(leaf) for leaf in jax.tree.leaves((network, inputs))):
        raise TypeError("`sample` loops over batches until they are enough: it cannot be traced.")
    return checked_layered(network, "Simulations")


def _checked_dtype(dtype) -> np.dtype:
    try:
        dtype = jnp.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"`dtype` must be float32 or float64, got {described(dtype)}.") from error
    if dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"`dtype` must be float32 or float64, got {dtype.name}.")
    if dtype == jnp.float64 and not jax.config.jax_enable_x64:  # pyright: ignore
        raise ValueError("`dtype` float64 needs `jax.config.update('jax_enable_x64', True)`.")
    return dtype


def _widths(network: AbstractArchitecture, width: int) -> tuple[int, ...]:
    """n_l of layers 0 .. depth."""
    relative = [*np.asarray(network.layers().width, float), float(network.last_width)]
    widths = [round(width * float(r), 6) for r in relative]
    wrong = [w for w in widths if w != round(w) or w < 1]
    if wrong:
        raise ValueError(
            f"`width` = {width} times `relative_width` must be whole numbers; got {wrong[0]:g} neurons."
        )
    return tuple(int(w) for w in widths)


def _batch(batch, sampler: AbstractSampler, neurons: int, samples: int | None) -> int:
    if batch is not None:
        return positive_integer("batch", batch)
    fitting = max(1, 6 * _IN_CACHE // sampler.numbers(1, neurons))
    # Enough batches for every bin: errors come from the scatter of bins.
    return fitting if samples is None else min(fitting, -(-samples // BINS))


def _check_sizes(plan: Plan, sampler: AbstractSampler, network: AbstractLayered) -> None:
    """Refuse what does not fit into memory."""
    count = plan.inputs * (plan.inputs + 1) // 2
    per_network = sampler.numbers(plan.inputs, plan.neurons)
    per_network += (4 * count + 2 * plan.inputs) * plan.neurons * plan.controlled
    per_network *= 3 if plan.responses else 1
    if plan.tangent_kernel:
        kept = OUTPUTS + 2  # gradients by every output, and what they start from
        per_network += kept * network.depth * network.layers_per_block * plan.inputs * plan.neurons
        per_network += 4 * (OUTPUTS * plan.inputs) ** 2
    # Devices of a CPU share its memory.
    copies = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    needed = 1.5 * copies * per_network * plan.batch * np.dtype(plan.dtype).itemsize
    what = f"{plan.batch} networks at once, of {plan.inputs} inputs and width {plan.neurons},"
    check_memory(needed, what, "Reduce `batch`, `width` or the number of inputs.")
    # The reference chain: K0, E f and its slope, and the factor A, in two copies.
    chain = 2 * 8.0 * (network.depth + 1) * (5 * count + plan.inputs**2)
    check_memory(chain, f"Mean kernels of {network.depth:,} layers", "Reduce the depth or the inputs.")
    seconds = 18 * count if plan.pairs else 2 * count**2
    seconds *= 3 if plan.controlled else 1
    if plan.tangent_kernel:
        seconds += count * sum(math.prod(shape) for shape in PARTS.values())
    statistics = 8.0 * (BINS + 2) * len(plan.layers) * seconds
    check_memory(
        2 * statistics,
        f"Covariances of {count} kernel elements at {len(plan.layers)} layers",
        "Measure fewer `layers`" + (" or inputs." if plan.pairs else ", or pass `pairs=True`."),
    )


def _start_factor(kernel) -> np.ndarray:
    """Lower triangular A with A A^T = K^0, in float64."""
    rounding = float(jnp.finfo(kernel.dtype).eps)
    with jax.enable_x64(True):
        return np.asarray(positive_factor(jnp.asarray(np.asarray(kernel), jnp.float64), rounding))


def _tangents(factor: np.ndarray) -> np.ndarray:
    """Changes of A when all variances, or all covariances, of A A^T change by one:
    dA = A Phi(A^-1 dK A^-T), Phi the lower triangle with half the diagonal."""
    own = np.diagonal(factor)
    if np.min(own) <= 1e-6 * np.max(own):
        raise ValueError("`responses=True` needs `inputs` of full rank: their paths are differentiated.")
    inverse = np.linalg.inv(factor)
    one = np.eye(len(factor))
    changes = [inverse @ change @ inverse.T for change in (one, 1 - one)]
    return np.stack([factor @ (np.tril(x, -1) + np.diag(np.diagonal(x)) / 2) for x in changes])


def _depths(network: AbstractArchitecture) -> np.ndarray:
    """t = sum of rho_l^2, or layer numbers."""
    if not isinstance(network, AbstractResidualNetwork):
        return np.arange(network.depth + 1, dtype=float)
    return np.concatenate([[0.0], np.cumsum(np.asarray(network.layers().scale, float) ** 2)])
