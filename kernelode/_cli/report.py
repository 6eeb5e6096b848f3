"""The report of `kernelode rho`, in plain ASCII: its output may be a file in any encoding."""

import math
import pathlib

import numpy as np
import rich.box
import rich.console
import rich.table

from .notes import notes
from .result import Result, as_text, status_counts
from .snippet import jax_snippet, torch_snippet
from .study import Study, interior_values, once_a_pair

#: A line under the heading and no other.
_RULED = rich.box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def print_report(result: Result, figure: pathlib.Path | None) -> None:
    """To stdout, with colours on a terminal only."""
    console = rich.console.Console(highlight=False)
    show = lambda text: console.print(text, markup=False)
    show(_heading(result))
    console.print(_optima_table(result.study))
    console.print(_points_table(result))
    for note in notes(result):
        show(f"* {note}")
    for title, code in _snippets(result):
        console.print(f"\n[bold]{title}[/bold]")
        # Not wrapped: it is to be copied.
        console.print(code, markup=False, soft_wrap=True)
    if figure is not None:
        show(f"\nFigure: {figure}")


def _heading(result: Result) -> str:
    recipe = result.recipe
    layers = "" if recipe.layers_per_block == 1 else f" of {recipe.layers_per_block} layers"
    return (
        f"{result.data.name}: {len(result.samples)} of {result.data.size} samples, seed {result.seed}\n"
        f"{recipe.activation.value}, {recipe.depth} blocks{layers}, "
        f"C_W = {recipe.weight_variance:g}, C_b = {recipe.bias_variance:g}\n"
    )


def make_table(title: str, *columns: str) -> rich.table.Table:
    table = rich.table.Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=_RULED,
        pad_edge=False,
    )
    for i, column in enumerate(columns):
        # Only the last column may wrap where the window is narrow: numbers are not cut.
        last = i == len(columns) - 1
        table.add_column(column, justify="right" if i else "left", no_wrap=not last)
    return table


def _optima_table(study: Study) -> rich.table.Table:
    table = make_table(
        "Optimal residual scale rho*", "", "mean", "spread", "min", "max", "response", "status"
    )
    for name, estimate in (("diagonal", study.diagonal), ("off-diagonal", study.off_diagonal)):
        values = interior_values(estimate)
        numbers = ["-"] * 5
        if values.size:
            response = once_a_pair(np.asarray(estimate.response))[
                once_a_pair(np.asarray(estimate.interior))
            ]
            numbers = [as_text(f(values)) for f in (np.mean, np.std, np.min, np.max)] + [
                as_text(np.mean(response))
            ]
        counts = ", ".join(
            f"{count} {status}" for status, count in status_counts(estimate).items() if count
        )
        table.add_row(name, *numbers, counts)
    return table


def _points_table(result: Result) -> rich.table.Table:
    """One column a scale: rows of numbers are easier to compare than columns of names."""
    points = result.study.points
    table = make_table(
        "One rho for all inputs (means over inputs and pairs)", "", *(p.name for p in points)
    )
    rows = {
        "rho": lambda p: p.scale,
        "response, diagonal": lambda p: np.mean(p.at.response.diagonal),
        "response, off-diagonal": lambda p: _pair_mean(p.at.response.off_diagonal),
        "kernel K^L, diagonal": lambda p: np.mean(np.diagonal(p.at.kernel)),
        "kernel K^L, off-diagonal": lambda p: _pair_mean(p.at.kernel),
        "correlation": lambda p: _pair_mean(_correlation(p.at.kernel)),
    }
    if result.problem is not None:
        rows["log evidence / sample"] = lambda p: p.scores.log_evidence
        rows["held-out squared error"] = lambda p: p.scores.squared_error
    if result.problem is not None and result.problem.one_hot:
        rows["held-out error (%)"] = lambda p: 100 * p.scores.error_rate
    for name, value in rows.items():
        table.add_row(name, *(as_text(value(point)) for point in points))
    return table


def _snippets(result: Result) -> list[tuple[str, str]]:
    """Code with the diagonal rho*, or else the off-diagonal one; none without either."""
    study = result.study
    options = [("diagonal", study.diagonal), ("off-diagonal", study.off_diagonal)]
    found = [(name, float(np.mean(interior_values(e)))) for name, e in options if interior_values(e).size]
    if not found:
        return []
    (name, scale), *others = found
    comment = f"{name} rho*" + "".join(f"; {other} {value:.3g}" for other, value in others)
    arguments = (result.recipe, math.sqrt(result.factor), scale, comment)
    return [("In PyTorch", torch_snippet(*arguments)), ("In JAX", jax_snippet(*arguments))]


def _pair_mean(matrix) -> float:
    return float(np.mean(once_a_pair(np.asarray(matrix))))


def _correlation(kernel) -> np.ndarray:
    deviation = np.sqrt(np.diagonal(np.asarray(kernel)))
    return np.asarray(kernel) / deviation[:, None] / deviation
