"""A stand-in for `neural_tangents.stax` that records how a network is put together.

Its layers have the arguments of theirs (neural-tangents 0.6.5) and make a small tree. What our networks
have no counterpart for is refused where it is asked for. The activations are in `_stax_activations`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from .._activation import AbstractActivation
from .._support.checks import is_concrete, positive_integer
from . import _stax_activations as activations

#: Names of `neural_tangents.stax` without a counterpart, and why.
_WITHOUT_COUNTERPART = {
    "images and graphs, of which kernelode knows nothing: its layers are fully connected": (
        "Aggregate AggregateImplementation AvgPool Conv ConvLocal ConvTranspose GlobalAvgPool "
        "GlobalSumPool ImageResize Padding SumPool"
    ),
    "attention, which kernelode does not have": (
        "AttentionMechanism GlobalSelfAttention PositionalEmbedding"
    ),
    "a normalisation, which kernelode does not have": "LayerNorm",
    "random masks, which kernelode does not have": "Dropout",
    "a combination of branches other than their sum": "FanInConcat FanInProd",
    "a fixed linear map or a selection, which kernelode does not have": "DotGeneral Index Slice",
    "an activation that kernelode does not have: it is not continuous, or has no name there. If it is "
    "continuous, pass it as `stax.ElementwiseNumerical(fn, deg)`": (
        "Exp ExpNormalized Hermite RectifiedMonomial Sign"
    ),
    "a tool for layers of one's own, which cannot be read": (
        "Bool Diagonal MaskedArray layer requires supports_masking unmask_fn"
    ),
}
_REASONS = {name: reason for reason, names in _WITHOUT_COUNTERPART.items() for name in names.split()}


class Layer:
    """A node of the tree.

    As theirs, it can be taken apart, `init_fn, apply_fn, kernel_fn = stax.serial(...)`; here all three
    are the node itself, so that any of them, returned, is the network.
    """

    def __iter__(self) -> Iterator["Layer"]:
        return iter((self, self, self))


@dataclasses.dataclass(frozen=True, eq=False)
class Dense(Layer):
    """A fully connected layer: its width, and the standard deviations as one vector (W_std, b_std)."""

    width: int
    deviations: np.ndarray
    #: Relative rounding of the deviations, which may have been computed in float32.
    rounding: float
    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class Nonlinearity(Layer):
    """An activation."""

    activation: AbstractActivation


@dataclasses.dataclass(frozen=True, eq=False)
class Serial(Layer):
    """One layer after the other; `Identity` and `Flatten` are this with none."""

    layers: tuple[Layer, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class FanOut(Layer):
    """Copies for branches."""

    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Parallel(Layer):
    """Branches, between `FanOut` and `FanInSum`."""

    branches: tuple[Layer, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class FanInSum(Layer):
    """The sum of the branches."""


class Stax:
    """The namespace that `from_stax` gives to a user's function."""

    def serial(self, *layers: object) -> Layer:
        return Serial(_recorded("serial", layers))

    def parallel(self, *layers: object) -> Layer:
        return Parallel(_recorded("parallel", layers))

    def repeat(self, layer: object, n: int) -> Layer:
        return Serial(_recorded("repeat", (layer,)) * n)

    def Identity(self) -> Layer:
        return Serial(())

    def Flatten(self, batch_axis: int = 0, batch_axis_out: int = 0) -> Layer:
        if (batch_axis, batch_axis_out) != (0, 0):
            raise ValueError("`stax.Flatten` is read for inputs as rows only: leave its axes alone.")
        return Serial(())

    def FanOut(self, num: int) -> Layer:
        return FanOut(num)

    def FanInSum(self) -> Layer:
        return FanInSum()

    def Dense(
        self,
        out_dim: int,
        W_std: Any = 1.0,
        b_std: Any = None,
        batch_axis: int = 0,
        channel_axis: int = -1,
        parameterization: str = "ntk",
        s: tuple[int, int] = (1, 1),
    ) -> Layer:
        text = f"Dense({out_dim}, {W_std}, {b_std})"
        if batch_axis != 0 or channel_axis not in (-1, 1):
            raise ValueError(f"`stax.{text}`: inputs are rows in kernelode, but the axes say otherwise.")
        # Either parameterisation has Var W = W_std^2 / fan-in and Var b = b_std^2 at initialisation,
        # whatever `s`; they differ in the neural tangent kernel.
        if parameterization.lower() not in ("ntk", "standard"):
            raise ValueError(f"`stax.{text}`: `parameterization` is {parameterization!r}.")
        width = positive_integer("out_dim", out_dim)
        if parameterization.lower() == "standard":
            width *= s[1]
        numbers = [_number(text, W_std), _number(text, 0.0 if b_std is None else b_std)]
        rounding = max(float(np.finfo(number.dtype).eps) for number in numbers)
        # Only the squares have a meaning.
        return Dense(width, np.abs(np.array(numbers, float)), rounding, text)

    def __getattr__(self, name: str) -> Any:
        if name in activations.NAMES:
            make = getattr(activations, name)
            return lambda *args, **kwargs: Nonlinearity(make(*args, **kwargs))
        if name in _REASONS:
            raise ValueError(f"`stax.{name}` has no counterpart in kernelode: it is {_REASONS[name]}.")
        raise AttributeError(
            f"`neural_tangents.stax` has no {name!r}. Activations without a layer there are "
            "`stax.ElementwiseNumerical(fn, deg)`, such as `stax.ElementwiseNumerical(jnp.tanh, 25)`."
        )


def _recorded(name: str, layers: tuple[object, ...]) -> tuple[Layer, ...]:
    for layer in layers:
        if not isinstance(layer, Layer):
            foreign_layer(f"`stax.{name}`", layer)
    return tuple(layer for layer in layers if isinstance(layer, Layer))


def foreign_layer(where: str, layer: object) -> NoReturn:
    """Refuse what was not made by the namespace."""
    raise TypeError(
        f"{where} got {layer!r}. `build` has to make every layer with the `stax` that it is given, not "
        "with `neural_tangents.stax`, whose layers are functions that cannot be read."
    )


def _number(text: str, value: Any) -> np.ndarray:
    if not is_concrete(value):
        raise TypeError(
            f"`stax.{text}`: traced standard deviations cannot be matched. Build the network outside of "
            "the transformation and change its variances with `equinox.tree_at`."
        )
    number = np.asarray(value)
    if not np.issubdtype(number.dtype, np.floating):
        number = number.astype(float)
    if number.shape != () or not np.isfinite(number):
        raise ValueError(f"`stax.{text}`: standard deviations must be finite numbers.")
    return number
