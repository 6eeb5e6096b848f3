"""Inputs and labels from comma-separated text, with a sentence for every way to get it wrong."""

import csv
import pathlib

import numpy as np

from .errors import BadInput


def read_csv(path: pathlib.Path, label_column: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Inputs, and labels if a column is named. The first line is a header if it is not numbers."""
    lines = _lines(path)
    if not lines:
        raise BadInput(f"{path} is empty.")
    first = [cell.strip() for cell in lines[0][1]]
    place = None if label_column is None else _label_place(first, label_column, path)
    is_header = (label_column in first and not _is_number(str(label_column))) or not all(
        _is_number(cell) for column, cell in enumerate(first) if column != place
    )
    inputs, labels = [], []
    for number, cells in lines[1:] if is_header else lines:
        if len(cells) != len(first):
            raise BadInput(
                f"Line {number} of {path} has {len(cells)} columns, the first one {len(first)}."
            )
        if place is not None:
            labels.append(cells.pop(place).strip())
        inputs.append(_numbers(cells, number, path))
    if not inputs:
        raise BadInput(f"{path} has a header, but no samples.")
    return np.stack(inputs), None if place is None else _labels(labels, path)


def _lines(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    """Lines that are not blank, with their numbers from 1."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            return [(reader.line_num, cells) for cells in reader if any(cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read as comma-separated text in UTF-8: {error}.") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _label_place(first: list[str], label_column: str, path: pathlib.Path) -> int:
    """The column of the labels, by name or by number from 0 (from the end if negative)."""
    if label_column in first and not _is_number(label_column):
        return first.index(label_column)
    try:
        return range(len(first))[int(label_column)]
    except (ValueError, IndexError):
        raise BadInput(
            f"--label-column: {path} has no column `{label_column}` among {', '.join(first[:10])}"
            f"{', ...' if len(first) > 10 else ''}; a number counts its {len(first)} columns from 0."
        ) from None


def _numbers(cells: list[str], number: int, path: pathlib.Path) -> np.ndarray:
    try:
        return np.array(cells, dtype=float)
    except ValueError:
        bad = next(cell for cell in cells if not _is_number(cell))
        what = f"`{bad.strip()}` is not a number" if bad.strip() else "an entry is empty"
        raise BadInput(
            f"Line {number} of {path}: {what} (a column of labels is named by --label-column)."
        ) from None


def _labels(labels: list[str], path: pathlib.Path) -> np.ndarray:
    if any(not label for label in labels):
        raise BadInput(f"Sample {labels.index('')} (counted from 0) of {path} has no label.")
    return np.array(labels, dtype=float if all(_is_number(label) for label in labels) else str)
