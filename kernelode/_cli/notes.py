"""Remarks below the numbers of `kernelode rho`: their meaning, and ways to change them."""

import math

import numpy as np

from .options import ActivationName
from .result import Result, as_text, status_counts
from .study import Study, interior_values

_BOUNDED = (ActivationName.tanh, ActivationName.erf, ActivationName.sin)


def notes(result: Result) -> list[str]:
    """Sentences for people, a paragraph an item."""
    found = [
        _input_note(result),
        _decreasing_note(result),
        _increasing_note(result),
        _failed_note(result),
        _evidence_note(result),
    ]
    return [note for note in found if note]


def _counts(result: Result, status: str) -> tuple[int, int]:
    """How many inputs and how many pairs have a status."""
    study = result.study
    return status_counts(study.diagonal)[status], status_counts(study.off_diagonal)[status]


def _elements(inputs: int, pairs: int) -> str:
    """`20 inputs and 1 pair`: whatever there is of both."""
    plural = lambda count, one: f"{count} {one}{'' if count == 1 else 's'}"
    return " and ".join(plural(n, one) for n, one in ((inputs, "input"), (pairs, "pair")) if n)


def _input_note(result: Result) -> str:
    """Where the input kernel stands, and what would change."""
    if result.input_scale is None:
        level = as_text(np.mean(np.diagonal(result.study.kernel)))
        note = (
            f"Inputs are as given (--input-scale raw): the mean diagonal of their kernel K^0 is {level}."
        )
    else:
        what = "The kernel is" if result.data.inputs is None else "K^0 = x.x'/d is"
        note = (
            f"{what} multiplied by {result.factor:.4g} (inputs by {math.sqrt(result.factor):.4g}), which "
            f"makes its mean diagonal {result.input_scale:g} over all {result.data.size} samples "
            "(--input-scale)."
        )
    critical = result.study.critical_variance
    if 0 < critical < math.inf:
        note += (
            f" An input has a diagonal optimum while its variance is below K* = {critical:.3g}: the "
            "nearer to K*, the smaller rho*, and above K* it is 0."
        )
    return note


def _decreasing_note(result: Result) -> str:
    inputs, pairs = _counts(result, "decreasing")
    if not inputs + pairs:
        return ""
    critical, recipe = result.study.critical_variance, result.recipe
    note = f"{_elements(inputs, pairs)}: the response is largest without any branch: rho* is 0."
    if critical == 0:
        limit = " below 1/pi" if recipe.activation is ActivationName.erf else ""
        return (
            f"{note} No input scale gives inputs an optimum, since C_b/C_W = "
            f"{recipe.bias_variance / recipe.weight_variance:.3g} is too large: bring it down{limit}, by "
            "--bias-variance or --weight-variance."
        )
    if critical < math.inf:
        return (
            f"{note} Their variance is too large, for inputs above K* = {critical:.3g}; with "
            f"--input-scale {min(0.05, critical / 3):.2g} an interior optimum comes back."
        )
    return note


def _increasing_note(result: Result) -> str:
    inputs, pairs = _counts(result, "increasing")
    if not inputs + pairs:
        return ""
    name = result.recipe.activation
    why = (
        "it tends to a constant from below, as it may in few blocks and for inputs that are nearly equal."
        if name in _BOUNDED
        else f"{name.value} is unbounded and never saturates: every block amplifies differences further."
    )
    return (
        f"{_elements(inputs, pairs)}: no finite rho* exists. The response still grows at the largest "
        f"scales: {why}"
    )


def _failed_note(result: Result) -> str:
    inputs, pairs = _counts(result, "failed")
    return f"{_elements(inputs, pairs)}: the search failed; rho* is unknown." if inputs + pairs else ""


def _evidence_note(result: Result) -> str:
    study, split = result.study, result.split
    if study.evidence is None or split is None:
        return f"There is no evidence and no held-out error: {result.skipped}."
    return " ".join(
        [
            f"Gaussian-process regression: {len(split.train)} training and {len(split.test)} held-out "
            f"samples, noise {result.noise:g} of the mean diagonal of K_out.",
            _peak("Log evidence", study.evidence.best_evidence, study),
            _peak("Held-out squared error", study.evidence.best_error, study),
            "This is the infinitely wide network, not trained by gradient descent: for networks that "
            "are, no such optimum is claimed.",
        ]
    )


def _peak(what: str, scale: float | None, study: Study) -> str:
    """Where the regression is best, seen from both optima."""
    if scale is None:
        return f"{what} has no optimum within the sweep."
    optima = {"diagonal": study.diagonal, "mean off-diagonal": study.off_diagonal}
    values = {name: interior_values(estimate) for name, estimate in optima.items()}
    ratios = [f"{scale / np.mean(v):.2f} x the {name} rho*" for name, v in values.items() if v.size]
    return f"{what} is best at rho = {scale:.3g}{': ' if ratios else ''}{', '.join(ratios)}."
