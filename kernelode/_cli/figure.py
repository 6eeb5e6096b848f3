"""The figures of the commands: what a user would otherwise draw with `kernelode.plot`."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import BadInput, writing
from .options import check_file
from .study import Study

_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def check_figure(name: str) -> pathlib.Path:
    """Where to draw to. **Raises** `BadInput` before anything is computed in vain."""
    path = check_file("--plot", name, ".png", ".pdf", ".svg")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise BadInput('--plot needs Matplotlib: pip install "kernelode[plot]".') from None
    return path


def save_axes(path: pathlib.Path, *draw: Callable[[Any], Any]) -> None:
    """Panels side by side, each drawn by a `draw(axes)`."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.2 * len(draw), 3.4), layout="constrained")
        for one, axes in zip(draw, figure.subplots(1, len(draw), squeeze=False)[0]):
            one(axes)
        _write(figure, path)


def _write(figure, path: pathlib.Path) -> None:
    with writing("--plot", path):
        figure.savefig(path, dpi=200)


def save_figure(study: Study, path: pathlib.Path) -> None:
    """Response against rho and, beneath on the same axis, the regression."""
    import matplotlib
    from matplotlib.figure import Figure

    from kernelode import plot

    rows = 1 if study.evidence is None else 2
    with matplotlib.rc_context(_STYLE):
        # Not through pyplot: no display is needed, and no state is left behind.
        figure = Figure(figsize=(5.2, 0.5 + 2.9 * rows), layout="constrained")
        panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
        plot.plot_response_against_scale(
            panels[0], study.fine_scales, study.sweep.response, study.optimum
        )
        if study.evidence is not None:
            scores = study.evidence.scores
            # Smooth in rho, as the share of wrong classes is not.
            plot.plot_evidence_against_scale(
                panels[1],
                study.scales,
                np.asarray(scores.log_evidence),
                np.asarray(scores.squared_error),
                study.optimum,
                error_label="held-out squared error",
            )
            panels[0].set_xlabel("")
        _write(figure, path)
