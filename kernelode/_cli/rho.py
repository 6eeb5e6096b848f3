"""`kernelode rho`: the optimal residual scale, from a data set to the number to put into a network."""

from json import dumps as json_text
from typing import Annotated

import numpy as np
import typer

from kernelode._support.progress import Progress

from . import options
from .data import load
from .document import as_json
from .evidence import Split, build_problem
from .figure import check_figure, save_figure
from .inputs import Inputs, draw_inputs, take
from .options import ActivationName, Recipe
from .report import print_report
from .result import Result
from .study import SECONDS, run_study

_EVIDENCE = "Evidence"
_SAMPLES, _TRAIN, _TEST = 20, 150, 500


def rho(
    data: options.Data = "digits",
    classes: options.Classes = None,
    label_column: options.LabelColumn = None,
    samples: Annotated[int | None, options.samples(_SAMPLES)] = None,
    input_scale: options.InputScale = "0.05",
    seed: options.Seed = 0,
    activation: options.Activation = ActivationName.erf,
    depth: options.Depth = 50,
    weight_variance: options.WeightVariance = 1.25,
    bias_variance: options.BiasVariance = 0.05,
    layers_per_block: options.LayersPerBlock = 1,
    evidence: Annotated[
        bool,
        typer.Option(
            help="Whether to compute evidence and held-out error, which needs labels.",
            rich_help_panel=_EVIDENCE,
        ),
    ] = True,
    train: Annotated[
        int | None,
        typer.Option(
            help="Training samples. By default 150, or half of the samples.",
            rich_help_panel=_EVIDENCE,
            show_default=False,
        ),
    ] = None,
    test: Annotated[
        int | None,
        typer.Option(
            help="Held-out samples. By default 500, or what is left.",
            rich_help_panel=_EVIDENCE,
            show_default=False,
        ),
    ] = None,
    noise: Annotated[
        float,
        typer.Option(
            help="Variance of the observation noise over the mean diagonal of K_out.",
            rich_help_panel=_EVIDENCE,
        ),
    ] = 0.01,
    points: Annotated[
        int, typer.Option(help="Residual scales in the sweep.", rich_help_panel=_EVIDENCE)
    ] = 25,
    json: options.Json = False,
    plot: options.Plot = None,
) -> None:
    """The residual scale rho* at which a deep network responds most to its input.

    In a pre-activation residual network of L blocks, `h <- h + rho f(h)`, a small rho lets
    the blocks do nothing, and a large one lets them saturate and forget. In between, the output kernel
    responds most to a change of the input kernel. The command finds that rho*, at this very depth, for
    each input (diagonal: its variance is changed) and each pair (off-diagonal: their covariance is),
    following Fischer, Dahmen & Helias, arXiv:2305.07715. It falls like 1/sqrt(L).

    It prints rho* and its spread over the data; the response and the kernel there, without branches,
    and at rho = 1; code that puts the scale into a network; and, given labels, log evidence and
    held-out error of regression with the network's Gaussian process.

    **What to expect.** On digits, evidence and held-out error are best between the two rho*, 10 to
    30 % below the off-diagonal one with all ten classes, further below with two. That is a statement
    about the Gaussian process, infinitely wide and not trained: for networks trained by gradient descent
    nothing of the kind is claimed.

    **The input kernel matters.** A diagonal optimum exists only for inputs whose variance is
    below K* (printed; 0.25 for the default network), which raw data seldom are. Inputs are therefore
    scaled to a mean variance of 0.05; --input-scale changes that, and the factor is printed, for use in
    the network. With relu, leaky-relu, gelu or linear the response grows without bound: no rho* exists.

    **Examples**

    - `kernelode rho --data digits --depth 50 --activation erf --plot rho.pdf`

    - `kernelode rho --data digits --classes 3,7 --depth 100 --no-evidence`

    - `kernelode rho --data inputs.csv --label-column species --json > rho.json`

    - `kernelode rho --data kernel.npz --input-scale raw`
    """
    recipe = Recipe(activation, depth, weight_variance, bias_variance, layers_per_block)
    network = recipe.network()
    options.at_least("--seed", seed, 0)
    options.at_least("--points", points, 5)
    options.positive("--noise", noise)
    target = options.parse_input_scale(input_scale)
    figure = None if plot is None else check_figure(plot)

    with Progress() as progress:
        with progress.stage("Reading the data"):
            loaded = load(data, label_column=label_column, classes=classes)
        inputs = draw_inputs(loaded, samples, _SAMPLES, 2, seed, target)
        options.check_duration(depth, len(inputs.samples), SECONDS)
        split, skipped = _split(inputs, train, test) if evidence else (None, "--no-evidence")
        problem = None if split is None else build_problem(loaded, split, inputs.factor, noise)
        study = run_study(network, inputs.kernel, problem, points, progress)

    drawn, factor = inputs.samples, inputs.factor
    result = Result(recipe, loaded, drawn, factor, target, seed, study, split, problem, noise, skipped)
    if figure is not None:
        save_figure(study, figure)
    if json:
        print(json_text(as_json(result), allow_nan=False))
    else:
        print_report(result, figure)


def _split(inputs: Inputs, train: int | None, test: int | None) -> tuple[Split | None, str | None]:
    """Training and held-out samples, or the reason why there is no regression."""
    data, order = inputs.data, inputs.order
    if data.labels is None:
        return None, f"{data.name} has no labels"
    if len(np.unique(data.labels)) < 2:
        return None, f"all labels in {data.name} are the same"
    if data.size < 10 and train is None and test is None:
        return None, f"{data.size} samples are too few to hold some out"
    trained = take("--train", train, min(_TRAIN, data.size // 2), 2, data.size - 1)
    held_out = take("--test", test, _TEST, 1, data.size - trained)
    return Split(order[:trained], order[trained : trained + held_out]), None
