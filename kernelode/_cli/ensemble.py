"""`kernelode ensemble`: random networks of finite width, drawn and measured."""

import pathlib
import sys
import time
import warnings
from json import dumps as json_text
from typing import Annotated

import jax
import rich.console
import typer

import kernelode as ko
from kernelode._support.progress import Progress
from kernelode.ensemble import BlockLaw, Ensemble, RealWeights, RelativeError, sample

from . import options
from .data import load
from .elements import print_heading
from .ensemble_file import read_ensemble
from .ensemble_report import Run, print_run, run_document
from .errors import BadInput, refusing
from .inputs import draw_inputs
from .options import ActivationName, Recipe

_SIMULATION, _BUDGET = "Simulation", "How many networks"
_SAMPLES, _NETWORKS = 2, 10_000


def ensemble(
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
    width: Annotated[int, typer.Option(help="n, the width.", rich_help_panel="Network")] = 128,
    networks: Annotated[
        int | None,
        typer.Option(
            help="Networks to draw, those in the file included; rounded up to whole batches. "
            "By default 10000, if nothing else ends the run.",
            rich_help_panel=_BUDGET,
            show_default=False,
        ),
    ] = None,
    relative_error: Annotated[
        float | None,
        typer.Option(
            help="End when errors of the covariance of the kernel are so small, relative to its largest "
            "entry at each layer.",
            rich_help_panel=_BUDGET,
        ),
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="End after this time.", rich_help_panel=_BUDGET)
    ] = None,
    layers: Annotated[
        int,
        typer.Option(
            help="Layers to measure, evenly spaced from h^0 to the last.",
            rich_help_panel=_SIMULATION,
        ),
    ] = 5,
    real_weights: Annotated[
        bool,
        typer.Option(
            "--real-weights",
            help="Draw weight matrices, in place of layers by their law given the one before.",
            rich_help_panel=_SIMULATION,
        ),
    ] = False,
    fixed_gram: Annotated[
        bool,
        typer.Option(
            "--fixed-gram",
            help="Start with h^0 of random orientation, its kernel the same in all networks.",
            rich_help_panel=_SIMULATION,
        ),
    ] = False,
    control: Annotated[
        bool,
        typer.Option(
            help="Whether to run a non-interacting reference on the same normals, for smaller errors.",
            rich_help_panel=_SIMULATION,
        ),
    ] = True,
    pairs: Annotated[
        bool,
        typer.Option(
            "--pairs",
            help="Covariances within pairs of inputs only: for many samples.",
            rich_help_panel=_SIMULATION,
        ),
    ] = False,
    key: Annotated[int, typer.Option(help="Seed of the networks.", rich_help_panel=_SIMULATION)] = 0,
    output: Annotated[
        str | None,
        typer.Option(
            help="Keep the ensemble in this .npz, for `kernelode compare`: written every 20 seconds and "
            "at the end. If it exists, the same run goes on from there, as if it had never ended.",
            metavar="FILE",
            rich_help_panel="Output",
        ),
    ] = None,
    json: options.Json = False,
) -> int:
    """Random networks of finite width: the mean of their kernel, and how much it varies.

    Draws pre-activation residual networks of width n, measures the kernel G_ab = h_a.h_b / n at some of
    their layers, and prints, at the last, its mean E[G], n (E[G] - K0) and n Var(G), with standard
    errors. The two are what `kernelode moments` predicts as K1 and V4, up to corrections of order 1/n:
    `kernelode compare` puts theory and simulation side by side.

    The run ends at the first of --networks, --relative-error and --max-seconds that is reached. Ctrl-C
    ends it too: what was measured is printed and, with --output, kept.

    **Examples**

    - `kernelode ensemble --data digits --depth 50 --width 128 --output n128.npz`

    - `kernelode ensemble --width 64 --relative-error 1e-2 --max-seconds 600 --output n64.npz`
    """
    recipe = Recipe(activation, depth, weight_variance, bias_variance, layers_per_block=1)
    network = recipe.network(residual_scale)
    options.at_least("--width", width, 1)
    options.at_least("--seed", seed, 0)
    options.at_least("--layers", layers, 2)
    options.at_least("--key", key, 0)
    if key >= 2**63:
        raise BadInput(f"--key must be below 2^63, got {key}.")
    if networks is not None:
        options.at_least("--networks", networks, 8)
    for option, value in (("--relative-error", relative_error), ("--max-seconds", max_seconds)):
        if value is not None:
            options.positive(option, value)
    if networks is None and relative_error is None and max_seconds is None:
        networks = _NETWORKS
    target = options.parse_input_scale(input_scale)
    archive = None if output is None else options.check_file("--output", output, ".npz")

    with Progress() as progress:
        with progress.stage("Reading the data"):
            loaded = load(data, label_column=label_column, classes=classes)
        inputs = draw_inputs(loaded, samples, _SAMPLES, 1, seed, target)
        # The mean kernel takes 75 microseconds a layer and pair, or more, on one core.
        options.check_duration(depth, len(inputs.samples), 5e-5)
        before = 0 if archive is None or not archive.exists() else read_ensemble(archive).samples
        with progress.count("Networks", networks) as show, warnings.catch_warnings():
            # All are reported below.
            warnings.filterwarnings("ignore", "Interrupted: |The checkpoint ", UserWarning)
            began = time.monotonic()
            with refusing():
                found = sample(
                    network,
                    inputs.kernel,
                    width=width,
                    key=jax.random.key(key),
                    samples=networks,
                    until=None if relative_error is None else RelativeError(relative_error),
                    max_seconds=max_seconds,
                    layers=options.spaced_layers(depth, layers),
                    sampler=RealWeights() if real_weights else BlockLaw(),
                    start=ko.FixedGram() if fixed_gram else ko.GaussianRows(),
                    control=None if control else False,
                    pairs=pairs,
                    dtype="float32",
                    checkpoint=archive,
                    progress=show,
                )
            run = Run(found, before, time.monotonic() - began)
    unwritten = None if archive is None else _write(found, archive)

    if json:
        print(json_text(run_document(run, inputs.samples, inputs.factor), allow_nan=False))
    else:
        console = rich.console.Console(highlight=False, markup=False)
        print_heading(console, inputs, network, width)
        print_run(console, run, inputs.samples)
        if archive is not None and unwritten is None:
            print(f"Ensemble: {archive}")
    if unwritten is not None:
        print(f"kernelode: --output: {archive} cannot be written: {unwritten}.", file=sys.stderr)
        return 1
    return 130 if found.ended == "interrupted" else 0


def _write(ensemble: Ensemble, path: pathlib.Path) -> str | None:
    """Why the file cannot be written, if so. (`sample` did; it only warns, to lose nothing.)"""
    try:
        ensemble.save(path)
    except OSError as error:
        return error.strerror
    return None
