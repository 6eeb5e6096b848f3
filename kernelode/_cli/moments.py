"""`kernelode moments`: the kernel of networks of a given width, with its spread and its shift."""

from json import dumps as json_text
from typing import Annotated, Any

import jax
import numpy as np
import rich.console
import typer

import kernelode as ko
from kernelode._support.progress import Progress

from . import options
from .at_width import Output, print_files, print_notes, save_figure, save_numbers
from .data import load
from .elements import print_elements, print_heading
from .figure import check_figure
from .inputs import draw_inputs
from .options import ActivationName, Recipe
from .report import make_table
from .theory import PANEL, ClosureName, Order, moments_of

_SAMPLES, _SAVED = 4, 41


def moments(
    data: options.Data = "digits",
    classes: options.Classes = None,
    label_column: options.LabelColumn = None,
    samples: Annotated[int | None, options.samples(_SAMPLES)] = None,
    input_scale: options.InputScale = "1",
    seed: options.Seed = 0,
    activation: options.Activation = ActivationName.tanh,
    depth: options.Depth = 50,
    residual_scale: options.ResidualScale = None,
    weight_variance: options.WeightVariance = 1.25,
    bias_variance: options.BiasVariance = 0.05,
    width: Annotated[float, typer.Option(help="n, the width.", rich_help_panel="Network")] = 128,
    closure: Annotated[
        ClosureName,
        typer.Option(
            help="`wick-tower` is exact at order 1/n; `g-only` is the published closure.",
            rich_help_panel=PANEL,
        ),
    ] = ClosureName.wick_tower,
    order: Order = 16,
    output: Output = None,
    json: options.Json = False,
    plot: options.Plot = None,
) -> None:
    """The kernel of finite, random networks: its mean, and how much it varies from one to the next.

    The kernel G_ab = h_a.h_b / n of a pre-activation residual network of width n fluctuates over its
    weights: G = K0 + K1/n on average, with covariance V4/n. The command computes the three at every
    layer, for all inputs and pairs of a data set, and prints them at the last layer with
    what the truncation of the theory leaves uncertain.

    The default closure, the Wick tower, is exact at order 1/n as its order grows. The published
    closure on the kernel alone, `--closure g-only`, misses part of V4 and most of K1.

    **The ratio** of corrections to the kernel itself says whether an expansion in 1/n can be trusted at
    this width: what is neglected is of the order of its square.

    **Examples**

    - `kernelode moments --data digits --depth 50 --width 128 --plot moments.pdf`

    - `kernelode moments --data kernel.npz --input-scale raw --activation gelu --output moments.npz`
    """
    recipe = Recipe(activation, depth, weight_variance, bias_variance, layers_per_block=1)
    network = recipe.network(residual_scale)
    options.positive("--width", width)
    options.at_least("--seed", seed, 0)
    options.at_least("--order", order, 2)
    target = options.parse_input_scale(input_scale)
    figure = None if plot is None else check_figure(plot)
    archive = None if output is None else options.check_file("--output", output, ".npz")
    theory = closure.closure(order)

    with Progress() as progress:
        with progress.stage("Reading the data"):
            loaded = load(data, label_column=label_column, classes=classes)
        inputs = draw_inputs(loaded, samples, _SAMPLES, 1, seed, target)
        # A layer of one pair takes 2 to 120 microseconds on one core, by activation and closure.
        options.check_duration(depth, len(inputs.samples), 1e-6)
        layers = options.spaced_layers(depth, _SAVED)
        with progress.stage("Moments"):
            solution = moments_of(network, inputs.kernel, theory, layers, pairs=True)
            found, at = solution.moments, solution.at_width(width)
            error = float(solution.quadrature_error[-1])

    numbers: dict[str, Any] = {
        "layers": np.array(layers),
        "samples": inputs.samples,
        "width": np.array(width),
        "validity": np.asarray(at.validity),
        "standard_deviation": np.asarray(at.standard_deviation),
        **{name: np.asarray(value) for name, value in found._asdict().items()},
    }
    save_numbers(archive, numbers)
    labels = "layer", f"kernel, n = {width:g}: mean and spread"
    save_figure(figure, layers, at, found.mean_kernel, labels=labels)
    if json:
        document = {name: value.tolist() for name, value in numbers.items()}
        document |= {"closure": closure.value, "quadrature_error": error, "factor": inputs.factor}
        print(json_text(document, allow_nan=False))
    else:
        console = rich.console.Console(highlight=False, markup=False)
        print_heading(console, inputs, network, width)
        last = jax.tree.map(lambda x: np.asarray(x)[-1], found)
        _print(console, inputs.samples, width, closure, last, float(at.validity[-1]), error)
        print_files(archive, figure)


def _print(console, samples, width, closure, last: ko.WidthMoments, validity, error) -> None:
    columns = ("element", "K0", "shift K1/n", "+-", "spread sqrt(V4/n)", "+-")
    table = make_table(f"The kernel G of the last layer, n = {width:g}", *columns)

    def cells(a, b):
        spread = np.sqrt(last.kernel_variance[a, b] / width)
        # Bounds of what the truncation of the closure leaves out.
        of_shift, of_variance = (
            closure.truncation(x) / width
            for x in (last.correction_truncation[a, b], last.covariance_truncation[a, b][1, 1])
        )
        of_spread = of_variance / (2 * spread) if spread else of_variance
        return last.mean_kernel[a, b], last.mean_correction[a, b] / width, of_shift, spread, of_spread

    print_elements(console, table, samples, cells)
    print_notes(console, validity, error)
