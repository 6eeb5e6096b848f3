"""The console script: arguments to a command, refusals to one sentence and exit code 2."""

import io
import sys
from collections.abc import Sequence
from typing import cast

from kernelode._support.interrupt import sigterm_as_interrupt
from kernelode._support.memory import TooLarge

from .errors import BadInput

_HELP = """
Kernels, responses and residual scaling of wide, deep networks at initialisation.

Start with `kernelode rho --data digits`: the scale of the residual branch at which a deep network
passes on most of what distinguishes its inputs. `kernelode rho --help` explains it; `kernelode sweep`
computes it, responses and kernels over grids of hyperparameters. `kernelode moments` has the
fluctuations of the kernel in networks of finite width, `kernelode tangent` those of the neural tangent
kernel; `kernelode ensemble` draws such networks, and `kernelode compare` puts theory and simulation side
by side.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 if results were not saved, 2 for bad input, 130 if
    interrupted, by Ctrl-C or SIGTERM."""
    try:
        with sigterm_as_interrupt():
            return _run(arguments)
    except KeyboardInterrupt:
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    try:
        import rich  # noqa: F401
        import typer
    except ModuleNotFoundError as error:
        return _refuse(f'{error.name} is missing: install the command with pip install "kernelode[cli]".')

    import jax

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name that the terminal's encoding does not have is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    if arguments is None:
        arguments = sys.argv[1:]

    # Optima and Gaussian-process evidence need double precision. Before any array exists.
    jax.config.update("jax_enable_x64", True)
    # `UsageError`, by way of its public subclass: where the class itself lives depends on the version.
    usage_error = cast(type[Exception], typer.BadParameter.__bases__[0])
    try:
        code = _application()(
            args=list(arguments) or ["--help"], prog_name="kernelode", standalone_mode=False
        )
    except (BadInput, TooLarge) as error:
        return _refuse(str(error))
    except usage_error as error:
        return _refuse(error.format_message())  # pyright: ignore[reportAttributeAccessIssue]
    except typer.Abort:
        return 130
    return code if isinstance(code, int) else 0


def _refuse(sentence: str) -> int:
    print("kernelode: " + " ".join(sentence.split()), file=sys.stderr)
    return 2


def _application():
    """All commands. A new one is a file with a function, and a line here."""
    import typer

    from .compare import compare
    from .ensemble import ensemble
    from .moments import moments
    from .options import show_version
    from .rho import rho
    from .sweep import sweep
    from .tangent import tangent

    application = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    application.callback(help=_HELP)(show_version)
    application.command()(rho)
    application.command()(sweep)
    application.command()(moments)
    application.command()(tangent)
    application.command()(ensemble)
    application.command()(compare)
    return application
