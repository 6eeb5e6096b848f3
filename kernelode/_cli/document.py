"""The results of `kernelode rho` as JSON."""

import importlib.metadata
import math

import numpy as np

import kernelode as ko

from .notes import notes
from .result import Result, status_counts, status_masks
from .study import Point, interior_values, once_a_pair


def as_json(result: Result) -> dict:
    """All numbers. An infinite or undefined one is null: its `status` says what it is."""
    study, recipe = result.study, result.recipe
    return {
        "command": "rho",
        "version": importlib.metadata.version("kernelode"),
        "data": {
            "source": result.data.name,
            "size": result.data.size,
            "samples": result.samples.tolist(),
            "seed": result.seed,
            "input_scale": result.input_scale,
            "kernel_factor": result.factor,
            "input_factor": math.sqrt(result.factor),
        },
        "network": {**recipe._asdict(), "activation": recipe.activation.value},
        "rho_star": {
            "diagonal": _estimate_json(study.diagonal),
            "off_diagonal": _estimate_json(study.off_diagonal),
        },
        "critical_variance": _number(study.critical_variance),
        "input_kernel": study.kernel.tolist(),
        "at": [_point_json(point) for point in study.points],
        "sweep": _sweep_json(result),
        "evidence": _evidence_json(result),
        "notes": notes(result),
    }


def _number(value) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None


def _numbers(values) -> list:
    values = np.asarray(values, float)
    return [_number(value) for value in values] if values.ndim == 1 else [_numbers(row) for row in values]


def _estimate_json(estimate: ko.ScaleEstimate) -> dict:
    values = interior_values(estimate)
    masks = status_masks(estimate)
    status = np.select(list(masks.values()), list(masks), default="failed")
    return {
        "mean": _number(np.mean(values)) if values.size else None,
        "standard_deviation": _number(np.std(values)) if values.size else None,
        "counts": status_counts(estimate),
        "value": _numbers(estimate.value),
        "response": _numbers(estimate.response),
        "status": status.tolist(),
    }


def _point_json(point: Point) -> dict:
    found = {
        "name": " ".join(point.name.split()),
        "rho": point.scale,
        "response": {
            "diagonal": _numbers(point.at.response.diagonal),
            "off_diagonal": _numbers(point.at.response.off_diagonal),
        },
        "kernel": _numbers(point.at.kernel),
    }
    if point.scores is not None:
        found |= {name: _number(value) for name, value in point.scores._asdict().items()}
    return found


def _sweep_json(result: Result) -> dict:
    study = result.study
    response = study.sweep.response
    return {
        "rho": _numbers(study.fine_scales),
        "response_diagonal": _numbers(np.mean(response.diagonal, axis=-1)),
        "response_off_diagonal": _numbers(
            np.mean(once_a_pair(np.asarray(response.off_diagonal)), axis=-1)
        ),
    }


def _evidence_json(result: Result) -> dict | None:
    evidence, split = result.study.evidence, result.split
    if evidence is None or split is None:
        return None
    return {
        "train": len(split.train),
        "test": len(split.test),
        "noise": result.noise,
        "best_rho_log_evidence": evidence.best_evidence,
        "best_rho_squared_error": evidence.best_error,
        "rho": _numbers(result.study.scales),
        **{name: _numbers(values) for name, values in evidence.scores._asdict().items()},
    }
