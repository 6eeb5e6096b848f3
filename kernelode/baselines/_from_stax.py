"""A neural-tangents network as one of ours: the tree of its layers, matched with `MLP` and `ResNet`."""

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import numpy as np

from .._activation import AbstractActivation
from .._architecture import MLP, ResNet
from .._support.checks import is_concrete, scalar
from .._support.custom_types import RealLike
from ._stax_tree import Dense, Stax
from ._stax_units import Branch, Step, flat, returned, units_of

#: Two standard deviations are equal if they differ by no more than this many roundings.
_ROUNDINGS = 64


def from_stax(build: Callable[[Any], object], *, residual_scale: RealLike | None = None) -> MLP | ResNet:
    """The network that `build` makes with neural-tangents' `stax`, as a `MLP` or a `ResNet`.

    `build(stax)` is a function of yours that makes a network with the `stax` that it is given. Given
    `neural_tangents.stax` it makes theirs; here it is given a stand-in that records the layers, for which
    neural-tangents need not be installed:

        def build(stax):
            block = stax.serial(stax.Erf(), stax.Dense(512, 0.3, 0.1))
            branches = stax.parallel(block, stax.Identity())
            residual = stax.serial(stax.FanOut(2), branches, stax.FanInSum())
            return stax.serial(stax.Dense(512), *[residual] * 5, stax.Erf(), stax.Dense(1))

    The pattern: a `Dense`, the read-in; then either layers `activation, Dense` (an `MLP`) or sums of
    `Identity` and a branch of such layers (a `ResNet`); then `activation, Dense`, the read-out. `serial`
    may be nested, `repeat` is spelled out, and no activation between two `Dense` is the linear one.
    Variances are `W_std**2` and `b_std**2` in either parameterisation: at initialisation they agree. They
    are one number if all layers have the same, else one a layer.
    Widths have no effect on the kernel; those of an `MLP` are kept as `relative_width`, in units of the
    first. `ElementwiseNumerical(fn, deg)` and `Elementwise(fn)` become ours, `Elementwise(fn)`, which
    holds `fn` to be analytic: for one with kinks pass `kernelode.Elementwise(fn, kinks)` in its place.

    **Arguments**

    - `build`: see above. Returns a layer, or the triple that it can be taken apart into.
    - `residual_scale`: rho of the first block of a `ResNet` with one layer a block. `W_std` of the block
        is rho sqrt(C_W) and `b_std` is rho sqrt(C_b), which leaves rho open. By default it is one in the
        first block, so that `weight_variance` is the `W_std**2` of that block. Scales of other blocks
        follow: one number if all are equal, else one a block; where blocks differ by more than a factor,
        all have this scale, and variances of their own. With several layers a block, those before the
        last determine C_W, C_b and hence rho, and this must agree. (A first block that is zero leaves the
        choice to the next.)

    **Returns** a `MLP` or a `ResNet`. `stax_network` is the way back.

    **Raises** `ValueError` for layers without a counterpart and for networks that are no `MLP` or
    `ResNet`, such as one with different widths in its blocks; `TypeError` for layers that were
    not made with the `stax` that `build` is given, and for traced standard deviations.
    """
    if not callable(build):
        raise TypeError(f"`build` must be a function of a namespace such as `stax`, got {build!r}.")
    scale = None if residual_scale is None else scalar("residual_scale", residual_scale, positive=True)
    if scale is not None and not is_concrete(scale):
        raise TypeError("`residual_scale` must be a number here: change it with `equinox.tree_at`.")
    units = units_of(flat(returned(build(Stax()))), "the network")
    read_in, body, read_out = _ends(units)
    blocks = [unit for unit in body if isinstance(unit, Branch)]
    hidden = [unit for unit in body if isinstance(unit, Step)]
    if not body:
        raise ValueError(
            "There is no layer between the read-in and the read-out: a `MLP` has at least one hidden "
            "`Dense` between the first and the last, a `ResNet` at least one block."
        )
    if blocks and hidden:
        raise ValueError(
            f"`stax.{hidden[0].dense.text}` stands outside of the residual blocks: between the read-in "
            "and the read-out, a `ResNet` has blocks only, and a `MLP` none."
        )
    steps = [step for block in blocks for step in block.steps]
    activation = _common_activation([*hidden, *steps, read_out])
    ends = dict(
        input_weight_variance=float(read_in.deviations[0] ** 2),
        input_bias_variance=float(read_in.deviations[1] ** 2),
        output_weight_variance=float(read_out.dense.deviations[0] ** 2),
        output_bias_variance=float(read_out.dense.deviations[1] ** 2),
    )
    if blocks:
        return _residual(activation, blocks, read_in.width, scale, ends)
    if scale is not None:
        raise ValueError("`residual_scale` is for residual networks: `build` made a feed-forward one.")
    return _feed_forward(activation, [step.dense for step in hidden], read_in.width, ends)


def _ends(units: list[Dense | Step | Branch]) -> tuple[Dense, list[Step | Branch], Step]:
    """Read-in, the units between, and read-out."""
    if not units or not isinstance(units[0], Dense):
        raise ValueError("The first layer must be a `Dense`, the read-in.")
    read_in, rest = units[0], units[1:]
    if not rest or not isinstance(rest[-1], Step):
        raise ValueError(
            "The read-out is missing: the last two layers must be an activation and a `Dense`, apart "
            "from the read-in."
        )
    return read_in, [unit for unit in rest[:-1] if not isinstance(unit, Dense)], rest[-1]


def _common_activation(steps: list[Step]) -> AbstractActivation:
    first, *others = steps
    for step in others:
        if not bool(eqx.tree_equal(step.activation, first.activation)):
            raise ValueError(
                "All layers, the read-out included, must have the same activation in front; got "
                f"{first.activation} before `stax.{first.dense.text}` and {step.activation} before "
                f"`stax.{step.dense.text}`. (No activation is `Linear()`; functions are compared by "
                "identity.)"
            )
    return first.activation


def _feed_forward(activation: AbstractActivation, hidden: list[Dense], width: int, ends: Any) -> MLP:
    widths = [width, *(dense.width for dense in hidden)]
    equal = all(other == width for other in widths)
    return MLP(
        activation,
        len(hidden),
        **_variances([dense.deviations for dense in hidden], hidden),
        relative_width=1.0 if equal else [other / width for other in widths],
        **ends,
    )


def _residual(
    activation: AbstractActivation, blocks: list[Branch], width: int, scale: Any, ends: Any
) -> ResNet:
    _check_shapes(blocks, width)
    last = [block.steps[-1].dense for block in blocks]
    several = len(blocks[0].steps) > 1
    scales, units, sources = _determined(blocks, last) if several else _chosen(last, scale)
    rounding = _tolerance(*last, *sources)
    if several and scale is not None and abs(scales[0] - float(scale)) > rounding * scales[0]:
        raise ValueError(
            f"`residual_scale` is {float(scale)}, but the layers before the last of each block determine "
            f"it to be {scales[0]}: leave it out."
        )
    equal = all(abs(other - scales[0]) <= rounding * scales[0] for other in scales)
    return ResNet(
        activation,
        len(blocks),
        residual_scale=scales[0] if equal else scales,
        **_variances(units, sources),
        layers_per_block=len(blocks[0].steps),
        **ends,
    )


def _determined(blocks: list[Branch], last: list[Dense]):
    """rho and (sqrt(C_W), sqrt(C_b)) of blocks of several layers, and the layers that have the latter."""
    sources = [_inner(block) for block in blocks]
    scales = [_ratio(dense, source) for dense, source in zip(last, sources)]
    return scales, [source.deviations for source in sources], sources


def _chosen(last: list[Dense], scale: Any):
    """The same of blocks of one layer, where rho is free in one of them."""
    unit = 1.0 if scale is None else float(scale)
    source = next((dense for dense in last if np.any(dense.deviations)), last[0])
    found = [_factor(dense, source.deviations, source) for dense in last]
    factors = [factor for factor in found if factor is not None]
    if len(factors) < len(last):
        return [unit] * len(last), [dense.deviations / unit for dense in last], last
    return [unit * factor for factor in factors], [source.deviations / unit] * len(last), last


def _variances(deviations: list[np.ndarray], layers: list[Dense]) -> dict[str, Any]:
    """C_W and C_b: one for all layers if they agree, else one a layer."""
    same = all(_close(x, deviations[0], layers) for x in deviations)
    weights, biases = (deviations[0] if same else np.stack(deviations, axis=1)) ** 2
    return {"weight_variance": weights, "bias_variance": biases}


def _inner(block: Branch) -> Dense:
    """The layers of a block but the last, which have the same variances."""
    first, *others = (step.dense for step in block.steps[:-1])
    for dense in others:
        if not _close(dense.deviations, first.deviations, (dense, first)):
            raise ValueError(
                "All layers of a block but the last have the same variances in a `ResNet`, but `build` "
                f"has `stax.{first.text}` and `stax.{dense.text}`."
            )
    return first


def _check_shapes(blocks: list[Branch], width: int) -> None:
    for number, block in enumerate(blocks, start=1):
        if len(block.steps) != len(blocks[0].steps):
            raise ValueError(
                "All blocks of a `ResNet` have equally many layers, but block 1 has "
                f"{len(blocks[0].steps)} and block {number} has {len(block.steps)}."
            )
        for step in block.steps:
            if step.dense.width != width:
                raise ValueError(
                    f"All layers of a `ResNet` have one width, but the read-in has {width} and block "
                    f"{number} has `stax.{step.dense.text}`."
                )


def _ratio(dense: Dense, source: Dense) -> float:
    """rho with (W_std, b_std) = rho (sqrt(C_W), sqrt(C_b))."""
    found = _factor(dense, source.deviations, source)
    if found is None:
        raise ValueError(
            "The last layer of a block differs from the others by a factor only, the residual scale, in "
            f"`W_std` and `b_std` alike; but `build` has `stax.{source.text}` and `stax.{dense.text}`."
        )
    return found


def _factor(dense: Dense, unit: np.ndarray, source: Dense) -> float | None:
    """The factor between the deviations of `dense` and `unit`, if there is one."""
    size = float(np.linalg.norm(unit))
    if size == 0 and not np.any(dense.deviations):
        return 1.0
    ratio = float(np.linalg.norm(dense.deviations)) / size if size else 0.0
    return ratio if _close(dense.deviations, ratio * unit, (dense, source)) else None


def _tolerance(*layers: Dense) -> float:
    return _ROUNDINGS * max(layer.rounding for layer in layers)


def _close(x: np.ndarray, y: np.ndarray, layers: Iterable[Dense]) -> bool:
    return bool(np.all(np.abs(x - y) <= _tolerance(*layers) * np.maximum(np.abs(x), np.abs(y))))
