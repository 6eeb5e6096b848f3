"""`kernelode sweep`: responses, kernels or rho* over ranges of hyperparameters."""

import os
import time
from json import dumps as json_text
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import rich.console
import typer

import kernelode as ko
from kernelode._support.progress import Progress

from . import options
from .data import load
from .errors import BadInput, refusing, writing
from .figure import check_figure, save_axes
from .inputs import draw_inputs
from .options import ActivationName, Recipe
from .quantities import Means, Quantity
from .ranges import BiasVariances, ResidualScales, WeightVariances, parse_values
from .study import SECONDS
from .sweep_report import panel, print_sweep, sweep_document

_SAMPLES = 8


def sweep(
    data: options.Data = "digits",
    classes: options.Classes = None,
    label_column: options.LabelColumn = None,
    samples: Annotated[int | None, options.samples(_SAMPLES)] = None,
    input_scale: options.InputScale = "0.05",
    seed: options.Seed = 0,
    activation: options.Activation = ActivationName.erf,
    depth: options.Depth = 50,
    residual_scale: ResidualScales = "0.05:2:40:log",
    weight_variance: WeightVariances = "1.25",
    bias_variance: BiasVariances = "0.05",
    layers_per_block: options.LayersPerBlock = 1,
    quantity: Annotated[
        Quantity,
        typer.Option(
            help="`response` chi_out, `kernel` of the last layer, or the optimal scale `rho`, for which "
            "--residual-scale is not swept. Means over inputs, and over pairs.",
            rich_help_panel="Output",
        ),
    ] = Quantity.response,
    folder: Annotated[
        str | None,
        typer.Option(
            help="Keep in this folder what is computed, as it is: the same command goes on from there.",
            metavar="FOLDER",
            rich_help_panel="Output",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            help="Save the results with their coordinates, as netCDF: .nc.",
            metavar="FILE",
            rich_help_panel="Output",
        ),
    ] = None,
    json: options.Json = False,
    plot: options.Plot = None,
) -> None:
    """A quantity over a grid of residual scales, weight variances and bias variances.

    All points are computed by one compiled program, in chunks, on all devices. A curve is drawn over one
    axis, a heat map over two.

    **Examples**

    - `kernelode sweep --residual-scale 0.02:2:60:log --weight-variance 0.5:2:40 --plot response.pdf`

    - `kernelode sweep --quantity rho --weight-variance 0.8:2:30 --bias-variance 0:0.2:30 --plot rho.pdf`

    - `kernelode sweep --data inputs.csv --activation tanh --weight-variance 0.5,1,2 --output tanh.nc`
    """
    swept = {
        "residual_scale": parse_values("--residual-scale", residual_scale),
        "weight_variance": parse_values("--weight-variance", weight_variance),
        "bias_variance": parse_values("--bias-variance", bias_variance),
    }
    if quantity is Quantity.rho:
        del swept["residual_scale"]
        if not np.all(swept["weight_variance"] > 0):
            raise BadInput("--weight-variance must be positive for --quantity rho.")
    # What is swept has no value of its own; the largest of each makes a network.
    most = {name: float(np.max(values)) for name, values in swept.items()}
    recipe = Recipe(activation, depth, most["weight_variance"], most["bias_variance"], layers_per_block)
    network = recipe.network(most.get("residual_scale", 1.0))
    options.at_least("--seed", seed, 0)
    axes: dict[str, Any] = {name: values for name, values in swept.items() if len(values) > 1}
    fixed = {name: most[name] for name in swept if name not in axes}
    if not axes:
        raise BadInput("Nothing is swept: give at least one of the three as a range, such as 0.5:2:16.")
    target = options.parse_input_scale(input_scale)
    figure = None if plot is None else check_figure(plot)
    if figure is not None and len(axes) > 2:
        raise BadInput("--plot draws one or two axes: fix one of the three, or save all with --output.")
    file = None if output is None else options.check_file("--output", output, ".nc")

    with Progress() as progress:
        with progress.stage("Reading the data"):
            loaded = load(data, label_column=label_column, classes=classes)
        inputs = draw_inputs(loaded, samples, _SAMPLES, 2, seed, target)
        points = int(np.prod([len(values) for values in axes.values()]))
        # A response takes 10 ns an entry and more, by activation, on one core; all work on the points.
        seconds = SECONDS if quantity is Quantity.rho else 1e-8
        options.check_duration(depth, len(inputs.samples), points * seconds / (os.cpu_count() or 1))
        began = time.monotonic()
        with progress.count("Points", points) as show, refusing():
            function = Means(quantity, jnp.asarray(inputs.kernel))
            found = ko.sweep(function, network, axes, folder=folder, progress=show)
        seconds = time.monotonic() - began

    if file is not None:
        with writing("--output", file):
            found.to_netcdf(file, engine="h5netcdf")
    if figure is not None:
        save_axes(figure, *(panel(found[name], quantity) for name in ("diagonal", "off_diagonal")))
    if json:
        print(json_text(sweep_document(found, quantity, inputs, fixed), allow_nan=False))
        return
    console = rich.console.Console(highlight=False, markup=False)
    console.print(
        f"{loaded.name}: {len(inputs.samples)} samples; input kernel times {inputs.factor:.4g}\n"
        f"{activation.value}, {depth} blocks"
        + "".join(f", {name.replace('_', ' ')} {value:g}" for name, value in fixed.items())
        + f"\n{points:,} points in {seconds:.1f} s\n"
    )
    print_sweep(console, found, quantity)
    for what, path in (("Results", file), ("Figure", figure)):
        if path is not None:
            print(f"{what}: {path}")
