"""Checks of arguments that are objects of this library or of Diffrax: a wrong one is named."""

from typing import Any

import diffrax

from .._architecture import AbstractArchitecture
from .._closure import AbstractClosure, AbstractMomentClosure
from .._kernel import Block
from .._support.checks import instance, positive_integer, scalar

#: What the options of a solve have to be, and an example of each.
_DIFFRAX = {
    "solver": (diffrax.AbstractSolver, "a solver of Diffrax such as `diffrax.Tsit5()`"),
    "stepsize_controller": (
        diffrax.AbstractStepSizeController,
        "a controller of Diffrax such as `diffrax.PIDController(rtol=1e-6, atol=1e-9)`",
    ),
    "adjoint": (diffrax.AbstractAdjoint, "an adjoint of Diffrax such as `diffrax.ForwardMode()`"),
    "saveat": (diffrax.SaveAt, "a `diffrax.SaveAt(...)`"),
}


def checked_network(network: Any, name: str = "network") -> AbstractArchitecture:
    """`network`, if it is one: arguments in the wrong order are the commonest mistake."""
    return instance(name, network, AbstractArchitecture, "a network such as `ResNet(Tanh(), depth=10)`")


def checked_closure(closure: Any, default: AbstractClosure, name: str = "closure") -> AbstractClosure:
    """`closure`, or the `default` for None."""
    if closure is None:
        return default
    return instance(name, closure, AbstractClosure, "a closure such as `WickTower(order=16)`")


def checked_moment_closure(
    closure: Any, default: AbstractMomentClosure, name: str = "closure"
) -> AbstractMomentClosure:
    """`closure`, or the `default` for None; one that has moments of order 1/n."""
    if closure is None:
        return default
    needed = "a closure with moments of order 1/n such as `WickTower(order=16)`"
    return instance(name, closure, AbstractMomentClosure, needed)


def check_rectangular(kernel: Any, closure: AbstractClosure) -> None:
    """Refuse moments of order 1/n of a block: they need the kernel of all inputs with each other."""
    if isinstance(kernel, Block) and isinstance(closure, AbstractMomentClosure):
        raise TypeError(
            f"`kernel` must be a square matrix for `{type(closure).__name__}`: moments of order 1/n need "
            "the kernel of all inputs with each other; of a `Block` there is the mean kernel."
        )


def check_diffrax(**options: Any) -> None:
    """Refuse options of a solve that are not Diffrax's own objects, such as names of solvers."""
    for name, value in options.items():
        if value is not None:
            instance(name, value, *_DIFFRAX[name])


def check_steps(dt0: Any, max_steps: Any) -> None:
    """Refuse a first step that is no positive number, and a number of steps that is no integer."""
    if dt0 is not None:
        scalar("dt0", dt0, positive=True)
    if max_steps is not None:
        positive_integer("max_steps", max_steps)
