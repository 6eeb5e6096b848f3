"""`kernelode moments`: the kernel of networks of a given width, with its spread and its shift."""

import enum
import pathlib
from json import dumps as json_text
from typing import Annotated, Any

import jax
import numpy as np
import rich.console
import typer

import kernelode as ko

from . import options
from .data import load
from .errors import BadInput, refusing
from .figure import check_figure, save_axes
from .options import ActivationName, Recipe
from .progress import Progress
from .report import make_table
from .result import as_text

_THEORY = "Theory"
_SAMPLES, _SAVED = 4, 40


class ClosureName(enum.StrEnum):
    """Closures by their names on the command line."""

    wick_tower = "wick-tower"
    g_only = "g-only"


def moments(
    data: options.Data = "digits",
    classes: options.Classes = None,
    label_column: options.LabelColumn = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Samples to draw; the work grows as their square. By default 4, or all.",
            rich_help_panel="Data",
            show_default=False,
        ),
    ] = None,
    input_scale: options.InputScale = "1",
    seed: options.Seed = 0,
    activation: options.Activation = ActivationName.tanh,
    depth: options.Depth = 50,
    residual_scale: Annotated[
        float | None,
        typer.Option(
            help="rho of every block. By default 1/sqrt(depth), t = 1.",
            rich_help_panel="Network",
            show_default=False,
        ),
    ] = None,
    weight_variance: options.WeightVariance = 1.25,
    bias_variance: options.BiasVariance = 0.05,
    width: Annotated[float, typer.Option(help="n, the width.", rich_help_panel="Network")] = 128,
    closure: Annotated[
        ClosureName,
        typer.Option(
            help="`wick-tower` is exact at order 1/n; `g-only` is the published closure.",
            rich_help_panel=_THEORY,
        ),
    ] = ClosureName.wick_tower,
    order: Annotated[int, typer.Option(help="Order of the Wick tower.", rich_help_panel=_THEORY)] = 16,
    output: Annotated[
        str | None,
        typer.Option(
            help="Save all moments at the saved layers: .npz.",
            metavar="FILE",
            rich_help_panel="Output",
        ),
    ] = None,
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
    network = Recipe(activation, depth, weight_variance, bias_variance, 1).network()
    rho = depth**-0.5 if residual_scale is None else residual_scale
    options.non_negative("--residual-scale", rho)
    options.positive("--width", width)
    options.at_least("--seed", seed, 0)
    options.at_least("--order", order, 2)
    target = options.parse_input_scale(input_scale)
    figure = None if plot is None else check_figure(plot)
    archive = None if output is None else _check_archive(output)
    with refusing():
        network = ko.ResNet(
            network.activation,
            depth,
            residual_scale=rho,
            weight_variance=weight_variance,
            bias_variance=bias_variance,
        )
        theory = ko.GOnly() if closure is ClosureName.g_only else ko.WickTower(order)

    with Progress() as progress:
        with progress.stage("Reading the data"):
            loaded = load(data, label_column=label_column, classes=classes)
        factor = 1.0 if target is None else target / float(np.mean(loaded.variances()))
        count = min(_SAMPLES, loaded.size) if samples is None else samples
        options.at_least("--samples", count, 1)
        if count > loaded.size:
            raise BadInput(f"--samples is {count}, but only {loaded.size} samples are there to take.")
        drawn = np.sort(np.random.default_rng(seed).permutation(loaded.size)[:count])
        kernel = loaded.kernel(drawn, factor)
        layers = sorted({int(round(x)) for x in np.linspace(0, depth, min(depth, _SAVED) + 1)})
        with progress.stage("Moments"):
            solution = ko.propagate_pairs(network, kernel, closure=theory, layers=layers, throw=False)
            if solution.result != ko.RESULTS.successful:
                raise BadInput("The kernel overflows: reduce the residual scale, depth or variances.")
            found, at = solution.moments, solution.at_width(width)
            error = float(solution.quadrature_error[-1])

    numbers = {
        "layers": np.array(layers),
        "samples": drawn,
        "width": np.array(width),
        "validity": np.asarray(at.validity),
        "standard_deviation": np.asarray(at.standard_deviation),
        **{name: np.asarray(value) for name, value in found._asdict().items()},
    }
    if archive is not None:
        try:
            np.savez(archive, **numbers)
        except OSError as failure:
            raise BadInput(f"--output: {archive} cannot be written: {failure.strerror}.") from failure
    if figure is not None:
        elements = [(0, 0), (0, 1)] if count > 1 else [(0, 0)]
        from kernelode.plot import plot_kernel_at_width

        def draw(axes):
            plot_kernel_at_width(axes, layers, at, found.mean_kernel, elements)
            axes.set_xlabel("layer")
            axes.set_ylabel(f"kernel, n = {width:g}: mean and spread")

        save_axes(draw, figure)
    if json:
        document: dict[str, Any] = {name: value.tolist() for name, value in numbers.items()}
        document |= {"closure": closure.value, "quadrature_error": error, "factor": factor}
        print(json_text(document, allow_nan=False))
    else:
        last = jax.tree.map(lambda x: np.asarray(x)[-1], found)
        _print(loaded.name, drawn, network, rho, width, last, float(at.validity[-1]), error, factor)
        for what, path in (("Moments", archive), ("Figure", figure)):
            if path is not None:
                print(f"{what}: {path}")


def _check_archive(name: str) -> pathlib.Path:
    path = pathlib.Path(name)
    if path.suffix.lower() != ".npz":
        raise BadInput(f"--output must end in .npz, got {name}.")
    if not path.parent.is_dir():
        raise BadInput(f"--output: there is no folder {path.parent}.")
    return path


def _print(name, drawn, network, rho, width, last: ko.WidthMoments, validity, error, factor) -> None:
    console = rich.console.Console(highlight=False)
    show = lambda text: console.print(text, markup=False)
    show(
        f"{name}: samples {', '.join(str(k) for k in drawn[:12])}{', ...' if len(drawn) > 12 else ''}; "
        f"input kernel times {factor:.4g}\n{network.depth} blocks, rho = {rho:.4g}, "
        f"C_W = {float(network.weight_variance):g}, C_b = {float(network.bias_variance):g}, "
        f"n = {width:g}\n"
    )
    table = make_table(
        f"The kernel G of the last layer, n = {width:g}",
        "element",
        "K0",
        "shift K1/n",
        "+-",
        "spread sqrt(V4/n)",
        "+-",
    )
    n = len(drawn)
    elements = [(a, b) for a in range(n) for b in range(a, n)]
    for a, b in elements[:15]:
        spread = np.sqrt(last.kernel_variance[a, b] / width)
        # What the last four orders of the truncated closure changed.
        of_spread = abs(last.covariance_truncation[a, b][1, 1]) / (2 * width * spread) if spread else 0
        cells = (
            last.mean_kernel[a, b],
            last.mean_correction[a, b] / width,
            abs(last.correction_truncation[a, b]) / width,
            spread,
            of_spread,
        )
        table.add_row(f"{drawn[a]}, {drawn[b]}", *(as_text(cell) for cell in cells))
    console.print(table)
    if len(elements) > 15:
        show(f"... and {len(elements) - 15} more: --output or --json has all of them.")
    show(
        f"* Corrections over the kernel, at most: {validity:.2g}; neglected: of the order of its square."
    )
    if validity > 0.5:
        show(
            "* Corrections are not small: at this width and depth the numbers are a rough guide at best."
        )
    show(f"* Relative error of the Gaussian expectations, estimated: {error:.1g}.")
