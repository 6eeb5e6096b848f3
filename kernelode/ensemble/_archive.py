"""The file of an ensemble: whole when it is written, and every entry checked when it is read."""

import json
import pathlib
from typing import Any

import numpy as np

from .._support.archive import UNREADABLE, read_arrays, why_unreadable, write_arrays
from ._elements import elements_of
from ._rounds import BINS
from ._tangent_sums import PARTS

_FORMAT = 1
#: What an `Ensemble` reads in its configuration.
_CONFIGURATION = (
    *("network", "kernel", "inputs", "width", "widths", "batch", "layers", "pairs", "dtype", "key"),
    *("controlled", "responses", "tangent_kernel", "fixed_gram", "output_weight_variance", "versions"),
)

#: Arrays of an `Ensemble` that may be None.
_OPTIONAL = ("probe", "reference_tangent")


def write_ensemble(ensemble: Any, path: pathlib.Path) -> None:
    """Write an `Ensemble`."""
    arrays = {
        "configuration": np.array(json.dumps(ensemble.configuration)),
        "format": np.array(_FORMAT),
        "ended": np.array(ensemble.ended),
        "ts": ensemble.ts,
        "reference_kernel": ensemble.reference_kernel,
        "reference_moment": ensemble.reference_moment,
        "counts": ensemble.counts,
        **{name: getattr(ensemble, name) for name in _OPTIONAL if getattr(ensemble, name) is not None},
        **{f"sums_{name}": values for name, values in ensemble.sums.items()},
    }
    write_arrays(path, arrays)


def read_ensemble(path: pathlib.Path) -> dict[str, Any]:
    """The fields of an `Ensemble`. **Raises** `ValueError`, `OSError`."""
    open(path, "rb").close()  # what cannot be opened is an `OSError`, not a damaged file
    try:
        arrays = read_arrays(path)
        version = int(arrays["format"])
        configuration = json.loads(str(arrays["configuration"]))
    except UNREADABLE as error:
        why = why_unreadable(error)
        raise ValueError(f"{path} is not a file of an ensemble, or it is damaged: {why}.") from error
    if version != _FORMAT:
        raise ValueError(
            f"{path} is not a file of an ensemble that this version knows: format {version}."
        )
    try:
        fields = {
            "configuration": configuration,
            "ended": str(arrays["ended"]),
            **{name: arrays[name] for name in ("ts", "reference_kernel", "reference_moment", "counts")},
            "sums": {k.removeprefix("sums_"): v for k, v in arrays.items() if k.startswith("sums_")},
            **{name: arrays.get(name) for name in _OPTIONAL},
        }
        wrong = _damage(fields)
    except UNREADABLE as error:
        wrong = why_unreadable(error)
    if wrong:
        raise ValueError(f"{path} is a damaged file of an ensemble: {wrong}.")
    return fields


def _damage(fields: dict[str, Any]) -> str | None:
    """The end of a sentence on what is wrong with the fields of a file, or None."""
    configuration, sums, counts = fields["configuration"], fields["sums"], fields["counts"]
    if absent := [name for name in _CONFIGURATION if name not in configuration]:
        return f"its configuration has no `{absent[0]}`"
    inputs = int(configuration["inputs"])
    if np.shape(configuration["kernel"]) != (inputs, inputs):
        return f"its kernel is not one of {inputs} inputs"
    expected = _shapes(configuration)
    required = ["ts", "reference_kernel", "reference_moment"]
    if configuration["tangent_kernel"]:
        if "rates" not in configuration:
            return "its tangent kernels are those of an earlier version, without learning rates"
        required.append("reference_tangent")
    for name in required:
        if wrong := _wrong(name, fields[name], expected.pop(name)):
            return wrong
    if counts.shape != (BINS,) or counts.dtype.kind not in "iu":
        return f"its `counts` must be {BINS} whole numbers, one a bin, got shape {counts.shape}"
    if np.any(counts < 0) or np.any(counts % int(configuration["batch"])):
        return f"its `counts` must be multiples of the batch, {configuration['batch']}"
    if missing := [name for name in expected if name not in sums]:
        return f"the sums `{missing[0]}` are missing"
    if unknown := [name for name in sums if name not in expected]:
        return f"it has sums `{unknown[0]}`, which its configuration has not"
    found = (_wrong(f"sums {name}", sums[name], shape) for name, shape in expected.items())
    return next((wrong for wrong in found if wrong), None)


def _wrong(name: str, values: np.ndarray | None, shape: tuple[int, ...]) -> str | None:
    if values is None:
        return f"it has no `{name}`"
    if values.shape != shape:
        return f"its `{name}` must have shape {shape}, got {values.shape}"
    if values.dtype.kind != "f":
        return f"its `{name}` must be real numbers, got {values.dtype}"
    if not np.all(np.isfinite(values)):
        return f"its `{name}` has entries that are NaN or infinite"
    return None


def _shapes(configuration: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of every array of numbers in a file, from what was measured (`_batch.py`)."""
    elements = elements_of(int(configuration["inputs"]), pairs=bool(configuration["pairs"]))
    layers, count = len(configuration["layers"]), elements.count
    groups, size = elements.groups.shape
    both, second = (BINS, layers, 2 * count), (BINS, layers, groups, size, 2 * size)
    shapes = {"ts": (layers,), "reference_kernel": (layers, count), "reference_moment": (layers, count)}
    shapes |= {"y": both, "yy": second, "yyy": (BINS, layers, count)}
    if configuration["controlled"]:
        shapes |= {"l": both, "ll": second, "xx": second}
    if configuration["responses"]:
        shapes["response"] = (BINS, layers, 2, 2 * count)
    if configuration["tangent_kernel"]:
        shapes |= {name: (BINS, layers, count, *inner) for name, inner in PARTS.items()}
        shapes["reference_tangent"] = (layers, count)
    return shapes
