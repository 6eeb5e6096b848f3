"""The recorded tree, as the units that our networks are made of: layers and residual blocks."""

import dataclasses
from collections.abc import Sequence

from .._activation import AbstractActivation, Linear
from ._stax_tree import Dense, FanInSum, FanOut, Layer, Nonlinearity, Parallel, Serial, foreign_layer


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """sigma, then a fully connected layer."""

    activation: AbstractActivation
    dense: Dense


@dataclasses.dataclass(frozen=True, eq=False)
class Branch:
    """h + f(h): the layers of f."""

    steps: list[Step]


def returned(layer: object) -> Layer:
    if isinstance(layer, tuple) and len(layer) == 3 and all(part is layer[0] for part in layer):
        layer = layer[0]
    if not isinstance(layer, Layer):
        foreign_layer("The value of `build(stax)`: `from_stax`", layer)
    return layer


def flat(layer: Layer) -> list[Layer]:
    if isinstance(layer, Serial):
        return [leaf for inner in layer.layers for leaf in flat(inner)]
    return [layer]


def units_of(layers: Sequence[Layer], place: str) -> list[Dense | Step | Branch]:
    """The layers as a first `Dense`, if there is one, steps and blocks."""
    units: list[Dense | Step | Branch] = []
    pending: Nonlinearity | None = None
    rest = iter(layers)
    for layer in rest:
        match layer:
            case Nonlinearity():
                if pending is not None:
                    raise ValueError(
                        f"There are two activations in a row in {place}, with no `Dense` between."
                    )
                pending = layer
            case Dense():
                first = not units and pending is None
                before = Linear() if pending is None else pending.activation
                units.append(layer if first else Step(before, layer))
                pending = None
            case FanOut():
                if pending is not None:
                    raise ValueError(
                        f"An activation stands directly before a `FanOut` in {place}, so that the skip "
                        "connection carries it: blocks of a `ResNet` begin with the activation inside of "
                        "the branch (pre-activation)."
                    )
                units.append(_branch_of(layer, next(rest, None), next(rest, None)))
            case _:
                raise ValueError(f"`stax.{_name(layer)}` in {place} stands without a `FanOut` before it.")
    if pending is not None:
        raise ValueError(
            f"An activation, {pending.activation}, ends {place} with no `Dense` after it. A network ends "
            "with its read-out, an activation and a `Dense`, and a branch with a `Dense`."
        )
    return units


def _branch_of(fan_out: FanOut, parallel: Layer | None, fan_in: Layer | None) -> Branch:
    if not isinstance(parallel, Parallel) or not isinstance(fan_in, FanInSum):
        raise ValueError(
            "A residual block is `FanOut(2), parallel(Identity(), branch), FanInSum()`; after `FanOut` "
            f"came {_name(parallel)} and {_name(fan_in)}."
        )
    branches = [flat(branch) for branch in parallel.branches]
    if fan_out.count != 2 or len(branches) != 2:
        raise ValueError(
            "A residual block has two branches, the skip connection and one more; got "
            f"`FanOut({fan_out.count})` and `parallel` of {len(branches)}."
        )
    if all(branches):
        raise ValueError(
            "A residual block has a branch that is `Identity()`, the skip connection; here both have "
            "layers. (A `Dense` in the skip connection has no counterpart.)"
        )
    branch = branches[0] or branches[1]
    units = units_of(branch, "the branch of a residual block") if branch else []
    steps = []
    for unit in units:
        if isinstance(unit, Branch):
            raise ValueError("A residual block inside of another one has no counterpart.")
        # A branch that begins with `Dense` has the linear activation in front of it.
        steps.append(Step(Linear(), unit) if isinstance(unit, Dense) else unit)
    if not steps:
        raise ValueError("A residual block has a branch with a `Dense`; here both are `Identity()`.")
    return Branch(steps)


def _name(layer: Layer | None) -> str:
    return "nothing" if layer is None else type(layer).__name__
