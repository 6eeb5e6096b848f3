"""Options that several commands share: one alias an option, and what they are turned into."""

import enum
import importlib.metadata
import math
import os
import pathlib
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

import kernelode as ko

from .errors import BadInput, refusing


class ActivationName(enum.StrEnum):
    """Activations by their names on the command line."""

    tanh = "tanh"
    erf = "erf"
    relu = "relu"
    leaky_relu = "leaky-relu"
    gelu = "gelu"
    softplus = "softplus"
    swish = "swish"
    sin = "sin"
    linear = "linear"


class _Activation(NamedTuple):
    module: type[ko.AbstractActivation]
    torch: str
    jax: str


_ACTIVATIONS = {
    ActivationName.tanh: _Activation(ko.Tanh, "torch.tanh", "jnp.tanh"),
    ActivationName.erf: _Activation(ko.Erf, "torch.erf", "jax.lax.erf"),
    ActivationName.relu: _Activation(ko.ReLU, "torch.relu", "jax.nn.relu"),
    ActivationName.leaky_relu: _Activation(ko.LeakyReLU, "F.leaky_relu", "jax.nn.leaky_relu"),
    ActivationName.gelu: _Activation(ko.GELU, "F.gelu", "partial(jax.nn.gelu, approximate=False)"),
    ActivationName.softplus: _Activation(ko.Softplus, "F.softplus", "jax.nn.softplus"),
    ActivationName.swish: _Activation(ko.Swish, "F.silu", "jax.nn.silu"),
    ActivationName.sin: _Activation(ko.Sin, "torch.sin", "jnp.sin"),
    ActivationName.linear: _Activation(ko.Linear, "nn.Identity()", "(lambda h: h)"),
}

_DATA, _NETWORK, _OUTPUT = "Data", "Network", "Output"

Data = Annotated[
    str,
    typer.Option(
        help="`digits` (from scikit-learn, offline) or a file: .npy (samples, features); .npz with "
        "`x`, or an input `kernel`, and perhaps labels `y`; .csv of numbers. Nothing is unpickled.",
        metavar="digits|FILE",
        rich_help_panel=_DATA,
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(help="Only samples with these labels.", metavar="3,7", rich_help_panel=_DATA),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of a .csv that holds the labels: its name, or its number from 0.",
        metavar="NAME",
        rich_help_panel=_DATA,
    ),
]


def samples(default: int) -> Any:
    """The option of how many samples to draw, for `Annotated`."""
    return typer.Option(
        help="Samples to draw for the kernel; the work grows as their square. "
        f"By default {default}, or all.",
        rich_help_panel=_DATA,
        show_default=False,
    )


InputScale = Annotated[
    str,
    typer.Option(
        help="Mean diagonal that the input kernel is scaled to; `raw` leaves the data as they are.",
        metavar="NUMBER|raw",
        rich_help_panel=_DATA,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the drawing of samples.", rich_help_panel=_DATA)]

Activation = Annotated[
    ActivationName, typer.Option(help="The activation, sigma.", rich_help_panel=_NETWORK)
]
Depth = Annotated[int, typer.Option(help="L, the number of residual blocks.", rich_help_panel=_NETWORK)]
ResidualScale = Annotated[
    float | None,
    typer.Option(
        help="rho of every block. By default 1/sqrt(depth), t = 1.",
        rich_help_panel=_NETWORK,
        show_default=False,
    ),
]
WeightVariance = Annotated[
    float, typer.Option(help="C_W: fan-in times the variance of a weight.", rich_help_panel=_NETWORK)
]
BiasVariance = Annotated[
    float, typer.Option(help="C_b: the variance of a bias.", rich_help_panel=_NETWORK)
]
LayersPerBlock = Annotated[
    int,
    typer.Option(help="Layers, each W sigma(.) + b, in a residual branch.", rich_help_panel=_NETWORK),
]

Json = Annotated[
    bool,
    typer.Option("--json", help="Everything as JSON, alone on stdout.", rich_help_panel=_OUTPUT),
]
Plot = Annotated[
    str | None,
    typer.Option(help="Draw the figure: .png, .pdf or .svg.", metavar="FILE", rich_help_panel=_OUTPUT),
]


def _print_version(asked: bool) -> bool:
    if asked:
        print(importlib.metadata.version("kernelode"))
        raise typer.Exit()
    return asked


def show_version(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Options of the command itself. (Without it, Typer would make a single command the whole.)"""
    del version  # dealt with by the callback


class Recipe(NamedTuple):
    """The network's hyperparameters as the user gave them."""

    activation: ActivationName
    depth: int
    weight_variance: float
    bias_variance: float
    layers_per_block: int

    def network(self, residual_scale: float | None = 1.0) -> ko.ResNet:
        """The residual network; with a scale of None, 1/sqrt(depth). **Raises** `BadInput` for what
        makes none."""
        at_least("--depth", self.depth, 1)
        at_least("--layers-per-block", self.layers_per_block, 1)
        positive("--weight-variance", self.weight_variance)
        non_negative("--bias-variance", self.bias_variance)
        scale = self.depth**-0.5 if residual_scale is None else residual_scale
        non_negative("--residual-scale", scale)
        with refusing():
            return ko.ResNet(
                _ACTIVATIONS[self.activation].module(),
                self.depth,
                residual_scale=scale,
                weight_variance=self.weight_variance,
                bias_variance=self.bias_variance,
                layers_per_block=self.layers_per_block,
            )

    @property
    def torch_activation(self) -> str:
        """The activation in PyTorch code."""
        return _ACTIVATIONS[self.activation].torch

    @property
    def jax_activation(self) -> str:
        """The activation in JAX code."""
        return _ACTIVATIONS[self.activation].jax


def at_least(option: str, value: int, lowest: int) -> None:
    if value < lowest:
        raise BadInput(f"{option} must be at least {lowest}, got {value}.")


def positive(option: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise BadInput(f"{option} must be a positive number, got {value:g}.")


def non_negative(option: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise BadInput(f"{option} must be a number that is not negative, got {value:g}.")


def parse_input_scale(text: str) -> float | None:
    """The mean diagonal to scale to, or None for `raw`."""
    if text == "raw":
        return None
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"--input-scale must be a positive number or `raw`, got `{text}`.") from None
    positive("--input-scale", value)
    return value


#: Hours that a depth may take: longer calculations, which nothing here resumes, are for the library.
_HOURS = 2.0


def check_duration(depth: int, samples: int, seconds: float) -> None:
    """**Raises** `BadInput` for a depth that takes hours, given the seconds that a layer takes at the
    least for each of the pairs of the samples, those with themselves included."""
    hours = depth * seconds * samples * (samples + 1) / 2 / 3600
    if hours > _HOURS:
        raise BadInput(
            f"--depth {depth} would take {hours:,.0f} hours or more. Thousands of blocks are enough: "
            "results at depth L differ from those of infinite depth by a share of about 1/L."
        )


def check_file(option: str, name: str, *suffixes: str) -> pathlib.Path:
    """Where to write to. **Raises** `BadInput` before anything is computed in vain."""
    path = pathlib.Path(name)
    if path.suffix.lower() not in suffixes:
        *others, last = suffixes
        either = f"{', '.join(others)} or {last}" if others else last
        raise BadInput(f"{option} must end in {either}, got {name}.")
    target = pathlib.Path(os.path.realpath(path))  # a link is followed
    if not target.parent.is_dir():
        raise BadInput(
            f"{option}: there is no folder {target.parent if path.is_symlink() else path.parent}."
        )
    if path.is_dir():
        raise BadInput(f"{option} must name a file, but {name} is a folder.")
    return path


def spaced_layers(depth: int, count: int) -> list[int]:
    """At most `count` layers from 0 to the last, evenly spaced."""
    return sorted({int(round(x)) for x in np.linspace(0, depth, min(depth + 1, count))})
