"""`kernelode tangent`: the tangent kernel of networks of a given width, with its spread and its shift."""

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
from .theory import Order, check_covered, moments_of

_SAMPLES, _SAVED = 4, 41


def _rate(what: str) -> Any:
    """The option of a learning rate."""
    return typer.Option(help=what, rich_help_panel="Learning rates", show_default=False)


def tangent(
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
    weight_rate: Annotated[
        float | None, _rate("lambda_W of blocks and read-out. By default C_W.")
    ] = None,
    bias_rate: Annotated[float | None, _rate("lambda_b of blocks and read-out. By default C_b.")] = None,
    order: Order = 16,
    output: Output = None,
    json: options.Json = False,
    plot: options.Plot = None,
) -> None:
    """The neural tangent kernel of finite, random networks: its mean, and how much it varies.

    Gradient descent on a wide network is kernel regression with the tangent kernel H_ab = sum over all
    parameters of lambda (dz_a/dtheta) (dz_b/dtheta) of its output z. At infinite width it is Theta, the
    same for all networks. At width n it is Theta + Theta1/n on average, with a standard deviation of
    sqrt(Var/n) over networks. The command computes them to order 1/n for a pre-activation residual
    network with a read-out behind each layer, for all inputs and pairs of a data set, and prints them
    of the network's output with what the truncation of the theory leaves uncertain.

    **Learning rates** lambda are lambda_W / (fan-in) for weights and lambda_b for biases. By default they
    are those of the NTK parametrisation, C_W and C_b (1 and 0 for the read-out); in the standard one
    `--weight-rate` is the width and `--bias-rate` is 1. Theta of the read-in is the input kernel.

    **The ratio** of corrections to the tangent kernel itself says whether an expansion in 1/n can be
    trusted at this width: what is neglected is of the order of its square.

    **Examples**

    - `kernelode tangent --data digits --depth 50 --width 128 --plot tangent.pdf`

    - `kernelode tangent --activation relu --width 512 --weight-rate 512 --bias-rate 1`
    """
    recipe = Recipe(activation, depth, weight_variance, bias_variance, layers_per_block=1)
    network = recipe.network(residual_scale)
    options.positive("--width", width)
    options.at_least("--seed", seed, 0)
    options.at_least("--order", order, 2)
    for option, rate in (("--weight-rate", weight_rate), ("--bias-rate", bias_rate)):
        if rate is not None:
            options.non_negative(option, rate)
    target = options.parse_input_scale(input_scale)
    figure = None if plot is None else check_figure(plot)
    archive = None if output is None else options.check_file("--output", output, ".npz")
    rates = ko.LearningRates(weight_rate, bias_rate, output_weight=weight_rate, output_bias=bias_rate)
    theory = ko.TangentTower(order, rates)

    with Progress() as progress:
        with progress.stage("Reading the data"):
            loaded = load(data, label_column=label_column, classes=classes)
        inputs = draw_inputs(loaded, samples, _SAMPLES, 1, seed, target)
        # A layer of one pair takes 0.1 milliseconds or more: at order 2 of erf, on two busy cores, 0.14.
        options.check_duration(depth, len(inputs.samples), 1e-5)
        layers = options.spaced_layers(depth, _SAVED)
        with progress.stage("Moments"):
            check_covered(network, inputs.kernel, theory)
            solution = moments_of(network, inputs.kernel, theory, layers, pairs=True)
            found = solution.read_out.tangent
            at = found.at_width(width)
            error = float(solution.quadrature_error[-1])

    numbers: dict[str, Any] = {
        "layers": np.array(layers),
        "samples": inputs.samples,
        "width": np.array(width),
        "mean": np.asarray(at.mean),
        "standard_deviation": np.asarray(at.standard_deviation),
        "validity": np.asarray(at.validity),
        **{name: np.asarray(value) for name, value in vars(found).items()},
    }
    save_numbers(archive, numbers)
    labels = "layer before the read-out", f"tangent kernel, n = {width:g}"
    save_figure(figure, layers, at, found.tangent_kernel, labels=labels, symbol="H")
    if json:
        document = {name: value.tolist() for name, value in numbers.items()}
        document |= {"quadrature_error": error, "factor": inputs.factor}
        print(json_text(document, allow_nan=False))
    else:
        console = rich.console.Console(highlight=False, markup=False)
        print_heading(console, inputs, network, width)
        last = jax.tree.map(lambda x: np.asarray(x)[-1], found)
        _print(console, inputs.samples, width, last, float(at.validity[-1]), error)
        print_files(archive, figure)


def _print(console, samples, width, last: ko.TangentMoments, validity, error) -> None:
    columns = ("element", "Theta", "mean", "shift", "+-", "spread", "+-")
    title = f"The output's tangent kernel, n = {width:g}; shift and spread over Theta"
    table = make_table(title, *columns)

    def cells(a, b):
        theta, shift = last.tangent_kernel[a, b], last.correction[a, b] / width
        spread = np.sqrt(last.variance[a, b] / width)
        # Bounds of what the truncation of the tower leaves out; that of the shift is an estimate.
        of_shift = last.correction_truncation[a, b] / width
        exchange = last.exchange_truncation[a, b]
        of_variance = last.covariance_truncation[a, b, 1, 1] + exchange[0, 0, 1, 1] + exchange[0, 1, 1, 0]
        of_spread = of_variance / width / (2 * spread) if spread else of_variance / width
        relative = (shift, of_shift, spread, of_spread)
        # Of an element that is zero at infinite width there is no share.
        return theta, theta + shift, *(x / abs(theta) if theta else np.nan for x in relative)

    print_elements(console, table, samples, cells)
    print_notes(console, validity, error)
