"""Reading the files of ensembles, whatever they turn out to be."""

import pathlib

from kernelode.ensemble import Ensemble

from .data import UNREADABLE
from .errors import BadInput


def read_ensemble(path: pathlib.Path) -> Ensemble:
    """The ensemble in a file. **Raises** `BadInput` if there is none."""
    if not path.is_file():
        raise BadInput(f"There is no file {path}.")
    try:
        return Ensemble.load(path)
    except (*UNREADABLE, TypeError) as error:
        raise BadInput(f"{path} is not a file of an ensemble, or it is damaged.") from error
