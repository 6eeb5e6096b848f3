"""Reading the files of ensembles, whatever they turn out to be."""

import pathlib

from kernelode.ensemble import Ensemble

from .errors import BadInput


def read_ensemble(path: pathlib.Path) -> Ensemble:
    """The ensemble in a file. **Raises** `BadInput` if there is none."""
    if not path.is_file():
        raise BadInput(f"There is no file {path}.")
    try:
        return Ensemble.load(path)
    except ValueError as error:
        raise BadInput(str(error)) from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error
