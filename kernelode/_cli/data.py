"""Data sets: digits, or the user's .npy, .npz or .csv; read without pickle, every entry checked."""

import dataclasses
import math
import os
import pathlib
import pickle
import zipfile
from typing import Any, BinaryIO

import numpy as np

import kernelode as ko
from kernelode._kernel import checked_kernel
from kernelode._support import archive
from kernelode._support.memory import TooLarge, check_memory

from .csv_file import read_csv
from .errors import BadInput, refusing

_SUFFIXES = (".npy", ".npz", ".csv")
#: Exceptions from reading a damaged file, an array of objects among them.
UNREADABLE = (*archive.UNREADABLE, pickle.UnpicklingError)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Inputs, or their kernel in place of them, and labels if there are any."""

    name: str
    inputs: np.ndarray | None
    given_kernel: np.ndarray | None
    labels: np.ndarray | None

    @property
    def size(self) -> int:
        return len(self._entries)

    @property
    def _entries(self) -> np.ndarray:
        entries = self.inputs if self.given_kernel is None else self.given_kernel
        assert entries is not None
        return entries

    def variances(self) -> np.ndarray:
        """The diagonal of the input kernel, x.x / d with read-in weights of variance 1/d."""
        if self.given_kernel is not None:
            return np.diagonal(self.given_kernel)
        return np.mean(self._entries**2, axis=1)

    def kernel(self, samples: np.ndarray, factor: float) -> np.ndarray:
        """`factor` times the input kernel of some samples."""
        with refusing():
            # The kernel, its copy in the check, and its factor.
            what = f"Kernels of {len(samples):,} samples"
            check_memory(24.0 * len(samples) ** 2, what, "Take fewer samples.")
            if self.given_kernel is not None:
                part = self.given_kernel[np.ix_(samples, samples)]
                return np.asarray(checked_kernel(factor * part))
            return np.asarray(ko.input_kernel(self._entries[samples], weight_variance=factor))

    def subset(self, samples: np.ndarray) -> "DataSet":
        return DataSet(
            self.name,
            None if self.inputs is None else self.inputs[samples],
            None if self.given_kernel is None else self.given_kernel[np.ix_(samples, samples)],
            None if self.labels is None else self.labels[samples],
        )


def load(source: str, *, label_column: str | None = None, classes: str | None = None) -> DataSet:
    """The data set named on the command line.

    **Raises** `BadInput`, saying what is wrong and where, for anything that has no input kernel with
    positive variances, and for fewer than two samples.
    """
    if label_column is not None and not source.lower().endswith(".csv"):
        raise BadInput(
            "--label-column is for .csv files; an .npz file has its labels under `y` or `labels`."
        )
    data = _digits() if source == "digits" else _from_file(source, label_column)
    data = _keep_classes(data, classes)
    if data.size < 2:
        raise BadInput(f"{source} has {data.size} sample: at least two are needed, for the off-diagonal.")
    _check_variances(data)
    return data


def _digits() -> DataSet:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise BadInput('The digits need scikit-learn: pip install "kernelode[data]".') from None
    inputs, labels = load_digits(return_X_y=True)
    return DataSet("digits", np.asarray(inputs, float), None, np.asarray(labels))


def _from_file(source: str, label_column: str | None) -> DataSet:
    path = pathlib.Path(source)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise BadInput(
            f"--data must be `digits` or a file that ends in .npy, .npz or .csv; got {source}."
        )
    if not path.is_file():
        raise BadInput(f"There is no file {source}.")
    if suffix == ".csv":
        inputs, labels = read_csv(path, label_column)
        return DataSet(
            source, _checked_inputs(inputs, source), None, _checked_labels(labels, inputs, source)
        )
    loaded = _read_numpy(path)
    if isinstance(loaded, np.ndarray):
        return DataSet(source, _checked_inputs(loaded, source), None, None)
    return _from_archive(loaded, source)


def _read_numpy(path: pathlib.Path) -> np.ndarray | dict[str, np.ndarray]:
    """One array, or the arrays of an archive. Pickled objects are refused: they can run code."""
    try:
        with open(path, "rb") as file:
            _check_claim(file, path)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            arrays = {name: loaded[name] for name in loaded.files}
    except TooLarge:
        raise
    except MemoryError:
        raise BadInput(
            f"{path} cannot be read: it says that it has more than fits into memory."
        ) from None
    except UNREADABLE as error:
        pickled = "pickle" in str(error).lower()
        why = (
            "it holds pickled objects, which could run code"
            if pickled
            else "it is damaged or no NumPy file"
        )
        raise BadInput(f"{path} cannot be read: {why}.") from error
    if others := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise BadInput(f"{path} cannot be read: {others[0]} in it is no NumPy array.")
    return arrays


def _check_claim(file: BinaryIO, path: pathlib.Path) -> None:
    """Whether arrays are as long as their headers say, which memory is asked for before they are read."""
    start = file.read(len(np.lib.format.MAGIC_PREFIX))
    file.seek(0)
    if start == np.lib.format.MAGIC_PREFIX:
        _check_header(file, os.fstat(file.fileno()).st_size, str(path))
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                with archive.open(member) as inner:
                    if inner.read(len(start)) == np.lib.format.MAGIC_PREFIX:
                        inner.seek(0)
                        _check_header(inner, member.file_size, f"{member.filename} in {path}")
    file.seek(0)


def _check_header(file: Any, length: int, name: str) -> None:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    claimed, there = math.prod(shape) * dtype.itemsize, length - file.tell()
    if claimed > there and not dtype.hasobject:
        raise BadInput(
            f"{name} is damaged: by its header it has shape {shape} and type {dtype}, {claimed:,} bytes, "
            f"but there are {there:,}."
        )
    # In the file's type and in double precision.
    check_memory(claimed + 8 * math.prod(shape), f"The numbers of {name}", "Store fewer samples.")


def _from_archive(arrays: dict[str, np.ndarray], source: str) -> DataSet:
    labels = next((arrays.pop(name) for name in ("y", "labels") if name in arrays), None)
    if "kernel" in arrays and "x" not in arrays:
        kernel = _checked_kernel(arrays["kernel"], source)
        return DataSet(source, None, kernel, _checked_labels(labels, kernel, source))
    if "x" not in arrays and len(arrays) == 1:
        arrays = {"x": next(iter(arrays.values()))}
    if "x" not in arrays or "kernel" in arrays:
        found = ", ".join(f"`{name}`" for name in arrays) or "nothing"
        raise BadInput(f"{source} must hold either the inputs, `x`, or their `kernel`; it has {found}.")
    inputs = _checked_inputs(arrays["x"], source)
    return DataSet(source, inputs, None, _checked_labels(labels, inputs, source))


def _checked_numbers(array: np.ndarray, what: str) -> np.ndarray:
    """In double precision, if the entries are real numbers."""
    if array.dtype.kind not in "fiub":
        raise BadInput(f"{what} must be real numbers, but their type is {array.dtype}.")
    return array.astype(float)


def _checked_inputs(inputs: np.ndarray, source: str) -> np.ndarray:
    inputs = _checked_numbers(inputs, f"The inputs in {source}")
    if inputs.ndim != 2 or 0 in inputs.shape:
        hint = "; flatten each sample to one row" if inputs.ndim > 2 else ""
        raise BadInput(
            f"The inputs in {source} must have shape (samples, features), got {inputs.shape}{hint}."
        )
    bad = np.argwhere(~np.isfinite(inputs))
    if len(bad):
        row, column = bad[0]
        raise BadInput(
            f"{source} has {len(bad)} entries that are NaN or infinite, the first in row {row}, "
            f"column {column} (counted from 0): remove or fill them."
        )
    return inputs


def _checked_kernel(kernel: np.ndarray, source: str) -> np.ndarray:
    kernel = _checked_numbers(kernel, f"The entries of `kernel` in {source}")
    try:
        with refusing():
            checked_kernel(kernel)
    except BadInput as error:
        raise BadInput(f"{source}: {error}") from error
    return kernel


def _checked_labels(labels: np.ndarray | None, samples: np.ndarray, source: str) -> np.ndarray | None:
    if labels is None:
        return None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (len(samples),):
        raise BadInput(
            f"The labels in {source} must be one a sample, shape ({len(samples)},); got {labels.shape}."
        )
    if labels.dtype.kind in "US":
        return labels.astype(str)
    labels = _checked_numbers(labels, f"The labels in {source}")
    if not np.all(np.isfinite(labels)):
        row = int(np.argmin(np.isfinite(labels)))
        raise BadInput(f"The label of sample {row} (counted from 0) in {source} is NaN or infinite.")
    return labels


def _check_variances(data: DataSet) -> None:
    """Every input needs a finite, positive variance: else it has no response, or no kernel."""
    with np.errstate(over="ignore"):
        variances = data.variances()
    if not np.all(np.isfinite(variances)):
        row = int(np.argmin(np.isfinite(variances)))
        raise BadInput(
            f"Row {row} (counted from 0) of {data.name} is too large to square: scale the inputs."
        )
    if np.any(variances <= 0):
        row = int(np.argmin(variances))
        what = "is all zeros" if data.given_kernel is None else "has a zero on the diagonal"
        raise BadInput(
            f"Row {row} (counted from 0) of {data.name} {what}: without a read-in bias its input "
            "kernel is zero, and the network cannot respond to it; remove it."
        )


def _keep_classes(data: DataSet, classes: str | None) -> DataSet:
    if classes is None:
        return data
    if data.labels is None:
        raise BadInput(f"--classes needs labels, and {data.name} has none.")
    names = np.array([_class_name(label) for label in data.labels])
    wanted = [name.strip() for name in classes.split(",")]
    missing = [name for name in wanted if name not in names]
    if missing:
        known = ", ".join(sorted(set(names))[:20])
        raise BadInput(f"--classes: {data.name} has no class `{missing[0]}`; it has {known}.")
    return data.subset(np.flatnonzero(np.isin(names, wanted)))


def _class_name(label) -> str:
    """`3`, also for a label stored as 3.0."""
    return str(int(label)) if not isinstance(label, str) and float(label).is_integer() else str(label)
