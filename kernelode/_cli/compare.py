"""`kernelode compare`: the theory and ensembles of random networks."""

import enum
import pathlib
from json import dumps as json_text
from typing import Annotated

import rich.console
import typer

import kernelode as ko
from kernelode._support.progress import Progress
from kernelode.ensemble import Ensemble, Extrapolation, extrapolate

from . import options
from .ensemble_file import read_ensemble
from .errors import refusing
from .figure import check_figure, save_axes
from .report import make_table
from .result import as_text
from .theory import PANEL, ClosureName, Order, moments_of

_ROWS = 30
_SYMBOLS = {"mean_correction": "K1", "kernel_covariance": "V4", "limit_covariance": "V4"}


class _Closures(enum.StrEnum):
    wick_tower = "wick-tower"
    g_only = "g-only"
    both = "both"


def compare(
    file: Annotated[str, typer.Argument(help="An ensemble, of `kernelode ensemble --output`.")],
    second: Annotated[
        str | None,
        typer.Argument(help="One of another width: the two are extrapolated to infinite width."),
    ] = None,
    closure: Annotated[
        _Closures,
        typer.Option(
            help="`wick-tower` is exact at order 1/n; `g-only` is the published closure.",
            rich_help_panel=PANEL,
        ),
    ] = _Closures.both,
    order: Order = 24,
    json: options.Json = False,
    plot: options.Plot = None,
) -> None:
    """Theory beside simulation: K1 and V4 as predicted and as measured, in standard errors.

    Rebuilds the network of an ensemble from its file, computes the moments of order 1/n of its kernel
    under one closure or both, and prints every component at the last layer with
    z = (measured - theory) / (standard error), then one line for all layers together: chi-square per
    degree of freedom is about one where the theory is right.

    **One width** has corrections of order 1/n to K1, which the theory does not predict; V4 has none if
    the ensemble has a non-interacting reference (`--control`). **Two widths** are extrapolated, which
    takes these corrections away and leaves those of order 1/n^2.

    **Examples**

    - `kernelode compare n128.npz --plot compare.pdf`

    - `kernelode compare n64.npz n128.npz --closure wick-tower`
    """
    options.at_least("--order", order, 2)
    figure = None if plot is None else check_figure(plot)
    files = [pathlib.Path(name) for name in (file, second) if name is not None]
    # The exact closure comes last, and into the figure.
    names = list(reversed(ClosureName)) if closure is _Closures.both else [ClosureName(closure)]
    first, *others = ensembles = [read_ensemble(path) for path in files]
    with refusing():
        measured = extrapolate(first, others[0]) if others else first
    found = {}
    with Progress() as progress:
        for name in names:
            with progress.stage(f"Theory: {name}"), refusing():
                found[name] = ko.compare(_solve(first, name, order), measured)

    if figure is not None:
        _draw(figure, measured, names[-1], found[names[-1]])
    if json:
        print(json_text(_document(files, ensembles, found), allow_nan=False))
        return
    console = rich.console.Console(highlight=False, markup=False)
    for path, one in zip(files, ensembles):
        console.print(f"{path}: {one.samples:,} networks, n = {one.width}")
    for name, comparison in found.items():
        _print(console, name, comparison)
    console.print(f"\n* {_of_order(measured)}")
    if figure is not None:
        print(f"Figure: {figure}")


def _solve(ensemble: Ensemble, name: ClosureName, order: int) -> ko.Solution:
    """The theory of an ensemble's network, at its layers."""
    network, asked = ensemble.network, ensemble.configuration
    closure = name.closure(order, ko.FixedGram() if asked["fixed_gram"] else ko.GaussianRows())
    # On all elements of a feed-forward network, the published closure is not defined.
    residual = isinstance(network, ko.AbstractResidualNetwork)
    pairs = asked["pairs"] or (name is ClosureName.g_only and not residual)
    return moments_of(network, ensemble.kernel, closure, ensemble.layers, pairs=pairs)


def _print(console: rich.console.Console, name: ClosureName, comparison: ko.Comparison) -> None:
    last = comparison.rows[-1]
    rows = [row for row in comparison.rows if row.layer == last.layer]
    worst = sorted(rows, key=lambda row: -abs(row.z))[:_ROWS]
    columns = ("quantity", "inputs", "theory", "truncation", "measured", "+-", "z")
    table = make_table(f"{name}, layer {last.layer}, t = {last.t:.4g}", *columns)
    for row in rows:
        if row in worst:
            truncation = name.truncation(row.truncation)
            numbers = (row.theory, truncation, row.measured, row.standard_error)
            labels = " ".join(map(str, row.labels))
            cells = (*map(as_text, numbers), f"{row.z:.2f}")
            table.add_row(_SYMBOLS[row.quantity], labels, *cells)
    console.print()
    console.print(table)
    if len(rows) > _ROWS:
        console.print(f"The {_ROWS} of {len(rows)} that differ most; --json has all of them.")
    console.print(f"All layers: {comparison.summary}.")


def _of_order(measured: Ensemble | Extrapolation) -> str:
    """A remark on the orders in 1/n that the measurement contains and the theory does not."""
    if isinstance(measured, Extrapolation):
        return "Extrapolated from two widths: corrections of order 1/n^2 remain."
    if measured.configuration["controlled"]:
        return "K1 has corrections of order 1/n, which the theory does not predict; V4 has none."
    return "K1 and V4 have corrections of order 1/n, which the theory does not predict."


def _draw(
    path: pathlib.Path, measured: Ensemble | Extrapolation, name: ClosureName, comparison: ko.Comparison
) -> None:
    """A panel for each quantity."""
    from kernelode.plot import plot_comparison

    widths = "extrapolated" if isinstance(measured, Extrapolation) else f"at n = {measured.width}"

    def panel(quantity: str):
        def draw(axes):
            plot_comparison(axes, comparison, quantity)
            axes.set_title(f"{name} (lines), simulation {widths} (points)", loc="left", fontsize="medium")

        return draw

    save_axes(
        path, *(panel(quantity) for quantity in dict.fromkeys(row.quantity for row in comparison.rows))
    )


def _document(
    files: list[pathlib.Path], ensembles: list[Ensemble], found: dict[ClosureName, ko.Comparison]
) -> dict:
    document = lambda comparison: {
        "rows": [row._asdict() for row in comparison.rows],
        "chi_square": comparison.chi_square,
        "degrees": comparison.degrees,
        "probability": comparison.probability,
    }
    return {
        "files": [str(path) for path in files],
        "widths": [one.width for one in ensembles],
        "networks": [one.samples for one in ensembles],
        "closures": {name.value: document(comparison) for name, comparison in found.items()},
    }
